"""Verbs: a command line for every operation of the catalogue, made from it.

    strata kv put PATH KEY VALUE [--ttl TTL] [--branch NAME] ...        kv.put
    strata db version PATH                                              version

What a verb takes is what its request has: needed fields by place, others as options, then where it runs and
what its commit says. Operations of no group have the group `db`, which may be left out where no other
command has that name.
"""

from __future__ import annotations

import sys
from argparse import Namespace
from dataclasses import dataclass
from functools import cached_property
from typing import IO, TYPE_CHECKING, Any, Final

from strata.api.operations import OPERATIONS, Operation
from strata.cli.fields import Argument, arguments_of, request_of
from strata.cli.parsing import Parser, stdin
from strata.core.errors import InvalidInput
from strata.primitives import PRIMITIVES

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from strata.api.dispatch import Options, Where

WHOLE: Final = "db"  # the group of what concerns all of a database, or a place of it
IRREVERSIBLE: Final = frozenset({"forget"})
_COMMIT: Final = {
    "message": "what the commit says about itself",
    "actor": "who makes the commit",
    "cause": "the ref of what made it happen",
    "idempotency_key": "the same key again writes nothing, and gives what the first time gave",
}
_AT: Final = "as it was at a version, a time such as 2026-01-31T12:00Z, or tag:NAME"


@dataclass(frozen=True)
class Verb:
    """The command line of one operation."""

    operation: Operation

    @property
    def words(self) -> tuple[str, str]:
        """Its group and its name."""
        method = self.operation.method.replace("_", "-")
        return self.operation.group or WHOLE, method

    @property
    def name(self) -> str:
        """Its words in one text."""
        return " ".join(self.words)

    @property
    def summary(self) -> str:
        """What comes back, as the catalogue has it."""
        return self.operation.summary

    @cached_property
    def arguments(self) -> list[Argument]:
        """The fields of its request, those that are needed first."""
        return arguments_of(self.operation)

    @property
    def place_options(self) -> list[str]:
        """Where it runs: of branch, space and at those that change anything, and are no fields of its own."""
        operation = self.operation
        on_place = operation.group in (*PRIMITIVES, "spaces") or operation.owner.__name__ in _AT_PLACES
        names = ["branch"] if on_place else []
        names += ["space"] if on_place or operation.group in ("branches", "indexes") else []
        if operation.on_views:
            names.append("at")
        if operation.group == "spaces" or operation.name in ("version", "log"):
            names.remove("space")
        own = {argument.name for argument in self.arguments}
        return [name for name in names if name not in own]

    @property
    def commit_options(self) -> list[str]:
        """What its commit may say."""
        writes = self.operation.in_transactions and self.operation.access != "read"
        own = {argument.name for argument in self.arguments}
        return [name for name in _COMMIT if name not in own] if writes else []

    @property
    def creates(self) -> bool:
        """Whether it makes a database where there is none."""
        writes = self.operation.in_transactions and self.operation.access == "write"
        makes = ("ingest_otlp", "ingest_transcript", "import_rstmdb", "runs.begin")
        return writes or self.operation.name in makes

    def parser(self, prog: str = "strata") -> Parser:
        """Return the parser of what follows its words."""
        parser = Parser(f"{prog} {self.name}".strip(), lambda: (self.operation.docs, self.example()))
        if prog == "strata":
            parser.add_argument("path", metavar="PATH", help="the database's directory, or a URL")
        needed = [argument for argument in self.arguments if argument.is_needed]
        for argument in self.arguments:
            argument.add_to(parser, needed[-1:] == [argument])
        for name in self.place_options:
            parser.add_argument(f"--{name}", metavar="WHEN" if name == "at" else "NAME", help=_PLACE[name])
        for name in self.commit_options:
            parser.add_argument(f"--{name.replace('_', '-')}", metavar="TEXT", help=_COMMIT[name])
        if self.operation.name in IRREVERSIBLE:
            parser.add_argument("--yes", action="store_true", help="do it: there is no undo")
        form = parser.add_mutually_exclusive_group()
        for name, text in _FORMS.items():
            form.add_argument(f"--{name}", action="store_const", dest="form", const=name, help=text)
        if prog == "strata":
            parser.add_secrets("key", "token")
        parser.set_defaults(verb=self)
        return parser

    def example(self, path: str = "notes.strata") -> str:
        """Return the example of the catalogue as a command line."""
        from shlex import join

        arguments = self.operation.example.arguments
        if len(arguments) < sum(argument.is_needed for argument in self.arguments):
            return ""  # made of what was read before
        return join(["strata", *self.words, path, *self.words_for(arguments)])

    def words_for(self, arguments: Mapping[str, Any]) -> list[str]:
        """Return the words that stand for arguments."""
        said: list[str] = []
        for argument in self.arguments:
            if argument.name in arguments:
                said += argument.words(arguments[argument.name])
        return said

    def check(self, given: Namespace) -> None:
        """End with a usage error where a value is missing that nothing can be read for."""
        for argument in self.arguments:
            missing = argument.is_needed and getattr(given, argument.dest) in (None, [])
            if missing and (sys.stdin is None or sys.stdin.isatty()):
                self.parser().error(f"the following arguments are required: {argument.metavar}")

    def where(self, given: Namespace, **place: Any) -> Where:
        """Return the place that options name; left out, that of `place`."""
        from strata.api.dispatch import Where

        said = {name: getattr(given, name) for name in self.place_options}
        found = {**place, **{name: value for name, value in said.items() if value is not None}}
        at = found.pop("at", None)
        return Where(**found, at=None if at is None else _instant(at))

    def commit(self, given: Namespace) -> Options | None:
        """Return what the options say about the commit, or None."""
        from strata.api.dispatch import Options

        said = {name: getattr(given, name) for name in self.commit_options}
        return Options(**said) if any(value is not None for value in said.values()) else None

    def request(self, given: Namespace, stdin: IO[bytes] | None = None) -> Any:
        """Return the request that was parsed.

        Raises: InvalidInput, naming the field, for words that say nothing it takes.
        """
        if self.operation.name in IRREVERSIBLE and not given.yes:
            raise InvalidInput(f"{self.name} cannot be undone", hint="say --yes to do it")
        return request_of(self.operation, vars(given), stdin)


def run(given: Namespace) -> int:
    """Run a verb on the database that it names, and print what it gives."""
    from strata.cli.calling import call
    from strata.cli.opening import open_database
    from strata.cli.output import show

    verb: Verb = given.verb
    operation, request = verb.operation, verb.request(given, stdin())
    where, commit = verb.where(given), verb.commit(given)
    read_only = operation.access_for(request) == "read"
    with open_database(given, create=verb.creates, read_only=read_only) as database:
        show(operation, call(database, operation, request, where, commit), given.form or "json")
    return 0


def find(words: Sequence[str]) -> Verb | None:
    """Return the verb whose words a command line begins with, or None."""
    return VERBS.get((words[0], words[1].replace("_", "-"))) if len(words) > 1 else None


def groups() -> dict[str, list[Verb]]:
    """Return the verbs by their group."""
    found: dict[str, list[Verb]] = {}
    for verb in VERBS.values():
        found.setdefault(verb.words[0], []).append(verb)
    return found


def _instant(text: str) -> Any:
    from strata.api.dispatch import Where
    from strata.api.requests import converted
    from strata.cli.fields import instant

    return converted({"at": instant(text)}, Where, "--at").at


_FORMS: Final = {
    "json": "as JSON, as is done anyway", "nl": "each row as a line of JSON", "table": "as a table",
    "csv": "as CSV",
}  # fmt: skip
_AT_PLACES: Final = ("Searchable", "Place")
_PLACE: Final = {"branch": "the branch (main)", "space": "the space (default)", "at": _AT}

VERBS: Final[dict[tuple[str, str], Verb]] = {verb.words: verb for verb in map(Verb, OPERATIONS.values())}
