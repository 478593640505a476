"""What an unfinished line may become: words of the catalogue, and names that are in the database."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING, Any, Final

from strata.cli import verbs
from strata.core.errors import StrataError

if TYPE_CHECKING:
    from strata.cli.fields import Argument
    from strata.cli.session import Session
    from strata.cli.verbs import Verb

_MOST: Final = 50  # candidates from the database
_KEYS: Final = {"kv": "kv.keys", "state": "state.list", "json": "json.list"}
# What lists the names that a field takes; with an option of its own for the prefix, or without one.
_LISTS: Final = {
    "branch": "branches.list", "source": "branches.list", "target": "branches.list", "old": "branches.list",
    "new": "branches.list", "space": "spaces.list", "stream": "events.streams",
    "type": "events.types", "collection": "vectors.collections",
}  # fmt: skip


def complete(session: Session, text: str) -> list[str]:
    """Return the candidates for the last word of `text`, sorted; none where something fails."""
    try:
        words, last = _split(text)
        found = _candidates(session, words, last)
    except (StrataError, ValueError):  # ValueError: inside quotes
        return []
    return sorted({shlex.quote(word) for word in found if word.startswith(last)})


def _split(text: str) -> tuple[list[str], str]:
    """Return the words that are whole, and the one that is not."""
    words = shlex.split(text)
    return (words, "") if not text or text[-1].isspace() else (words[:-1], words[-1] if words else "")


def _candidates(session: Session, words: list[str], last: str) -> list[str]:
    groups = verbs.groups()
    if not words:
        short = [verb.words[1] for group in ("kv", verbs.WHOLE) for verb in groups[group]]
        return [*session.WORDS, *groups, *short]
    if words[0] == "use":
        return _names(session, ("branches.list", "spaces.list")[len(words) - 1], "") if len(words) < 3 else []
    if words[0] == "mode":
        return ["json", "nl", "table", "csv"]
    if words == ["help"]:
        return [*groups]
    if words[-1] in groups and len(words) <= 2 and words[0] in ("help", words[-1]):
        return [verb.words[1] for verb in groups[words[-1]]]
    verb, rest = session.find(words)
    if last.startswith("-"):
        return options(verb)
    argument = _next(verb, rest)
    return [] if argument is None else _values(session, argument, last)


def options(verb: Verb) -> list[str]:
    """Return the options of a verb."""
    return [option for action in verb.parser(prog="")._actions for option in action.option_strings]


def _next(verb: Verb, words: list[str]) -> Argument | None:
    """Return the argument that the next word is for."""
    by_option = {argument.option: argument for argument in verb.arguments if not argument.is_needed}
    if words and words[-1] in by_option and by_option[words[-1]].kind != "flag":
        return by_option[words[-1]]
    places = [argument for argument in verb.arguments if argument.is_needed]
    taken = 0
    flags = {option for option, argument in by_option.items() if argument.kind == "flag"}
    at = 0
    while at < len(words):
        is_option = words[at].startswith("--")
        taken += not is_option
        at += 2 if is_option and words[at] not in flags else 1
    if taken < len(places):
        return places[taken]
    return places[-1] if places and places[-1].kind == "texts" else None


def _values(session: Session, argument: Argument, last: str) -> list[str]:
    group, name = argument.operation.group, argument.name
    if argument.kind == "choice":
        from strata.cli.fields import choices

        return choices(argument.field.type)
    if group in _KEYS and name in ("key", "keys", "doc", "name"):
        return session.rows(_KEYS[group], _MOST, prefix=last)
    if group == "vectors" and name == "name":
        return _names(session, "vectors.collections", last)
    if group == "branches" and name == "name" and argument.operation.name not in ("branches.create",):
        return _names(session, "branches.list", last)
    if group in ("runs", "traces") and name == "id":
        return [row["id"] for row in session.rows(f"{group}.list", _MOST)]
    if group == "indexes" and name == "name":
        return _names(session, "indexes.list", last)
    return _names(session, _LISTS[name], last) if name in _LISTS else []


def _names(session: Session, operation: str, last: str) -> list[str]:
    rows: list[Any] = session.rows(operation, _MOST)
    return [row["name"] if isinstance(row, dict) else row for row in rows]
