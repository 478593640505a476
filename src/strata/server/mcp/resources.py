"""Resources: what is stored, by its address, for hosts that attach things to a conversation.

    strata://branch/space/primitive/key    one thing, perhaps with #$.path and @version: what `read` returns
    strata://branch/space                  what a space holds, by primitive, with names
    strata://branch                        the spaces of a branch
    strata+recent://branch                 what was written last

The list has the branches, the spaces of the usual branch, and what was written there last. All of it is JSON.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import Any, Final
from urllib.parse import quote, unquote

import msgspec

from strata.api.place import Space
from strata.core.errors import HistoryTrimmed, InvalidInput, NotFound, StrataError
from strata.core.refs import EntityRef
from strata.history.replay import Change
from strata.primitives import PRIMITIVES
from strata.server.mcp.answers import Answer, Holding
from strata.server.mcp.entities import Address, thing
from strata.server.mcp.guidance import holdings
from strata.server.mcp.scope import Door
from strata.server.mcp.shown import NOTICE, Budget, clean, said, shown_time

TEMPLATE: Final = "strata://{branch}/{space}/{primitive}/{+key}"
JSON: Final = "application/json"
PAGE: Final = 100  # of the list
RECENT: Final = 20  # things that were written last
_RECENT_COMMITS: Final = 50  # that are looked at for them
_NAMES: Final = 100  # of each primitive of a space
_COMPLETIONS: Final = 100  # what the protocol allows
_ENTITY: Final = "strata://"
_RECENT: Final = "strata+recent://"


class Line(msgspec.Struct, frozen=True):
    """A resource in the list."""

    uri: str
    name: str
    title: str
    description: str


class BranchHeld(Answer):
    """The spaces of a branch."""

    branch: str
    version: int
    spaces: list[str]
    truncated: bool = False


class SpaceHeld(Answer):
    """What a space holds."""

    branch: str
    space: str
    version: int
    holds: list[Holding]


class Written(Answer):
    """Something that was written."""

    ref: str
    action: str
    time: str | None
    actor: str | None = None
    message: str | None = None
    stored: Any = None


class Recent(Answer):
    """What was written last, newest first."""

    branch: str
    version: int
    writes: list[Written]
    truncated: bool = False


# -- the list --------------------------------------------------------------------------------------


def listed(door: Door, cursor: str | None) -> tuple[list[Line], str | None]:
    """Return a page of the list, and the cursor of the next one.

    Raises: InvalidInput for a cursor that is none of ours.
    """
    if cursor is not None and not (cursor.isascii() and cursor.isdigit() and len(cursor) < 10):
        raise InvalidInput(f"{cursor[:100]!r} is no cursor of this list")
    start = int(cursor or 0)
    rows = list(islice(_lines(door), start, start + PAGE + 1))
    return rows[:PAGE], str(start + PAGE) if len(rows) > PAGE else None


def _lines(door: Door) -> Iterator[Line]:
    branch, _ = door.scope.home
    place = door.place()
    shown = clean(branch)
    yield Line(f"{_RECENT}{_part(branch)}", f"recent on {shown}", "Recent", "What was written last.")
    for info in door.database.branches.list():
        if door.scope.holds(info.name):
            name = clean(info.name)
            yield Line(
                f"{_ENTITY}{_part(info.name)}", f"branch {name}", f"Branch {name}", "A branch's spaces."
            )
    for space in place.spaces.list():
        if door.scope.holds(branch, space):
            name = f"{shown}/{clean(space)}"
            uri = f"{_ENTITY}{_part(branch)}/{_part(space)}"
            yield Line(uri, f"space {name}", f"Space {name}", "What a space holds.")
    for _, change in _recent(door, place):
        ref = EntityRef(branch, change.space, change.primitive, change.key)
        name = f"{change.primitive} {clean(change.key)}"
        yield Line(str(ref), name, name, "Was written lately.")


def _part(name: str) -> str:
    return quote(name, safe="")


def _recent(door: Door, place: Space) -> Iterator[tuple[Any, Change]]:
    """Yield what was written last to the usual branch, each thing once, newest first, with its commit."""
    seen = set[tuple[str, str, str]]()
    for commit in place.log(limit=_RECENT_COMMITS):
        try:
            changes = [change for step in place.replay_range(commit.version - 1, commit.version)
                       for change in step.changes]  # fmt: skip
        except HistoryTrimmed:
            return
        for change in reversed(changes):
            what = (change.space, change.primitive, change.key)
            if what in seen or not door.scope.holds(commit.branch, change.space):
                continue
            seen.add(what)
            if not change.removed:
                yield commit, change
            if len(seen) >= RECENT:
                return


# -- reading ---------------------------------------------------------------------------------------


def read(door: Door, uri: str) -> str:
    """Return what stands at an address, as JSON that begins with the notice that it is data.

    Raises: NotFound for what is not there; InvalidInput for what is no address, and outside of the scope.
    """
    found = msgspec.to_builtins(_read(door, uri))
    return msgspec.json.encode({"notice": NOTICE, **found}).decode()


def _read(door: Door, uri: str) -> Answer:
    if uri.startswith(_RECENT):
        return _recent_writes(door, _names(uri[len(_RECENT) :], 1)[0])
    if not uri.startswith(_ENTITY):
        raise NotFound(what="resource", name=uri[:200], hint=f"addresses are {TEMPLATE}")
    if uri.count("/") < 5:
        names = _names(uri[len(_ENTITY) :], 2)
        return _branch(door, names[0]) if len(names) == 1 else _space(door, *names)
    ref = door.ref(uri)
    found = thing(Address(ref, door.place(ref.branch, ref.space), ref.version))
    if not found.found:
        raise NotFound(what="resource", name=str(ref)[:200], hint="the list and `guide` say what there is")
    return found


def _names(text: str, most: int) -> list[str]:
    names = [unquote(part, errors="replace") for part in text.split("/")]
    if len(names) > most or not all(names):
        raise InvalidInput(f"{text[:200]!r} names no branch or space", hint=f"addresses are {TEMPLATE}")
    return names


def _branch(door: Door, name: str) -> BranchHeld:
    place = door.place(name)
    spaces = [clean(space) for space in place.spaces.list() if door.scope.holds(name, space)]
    return BranchHeld(
        branch=clean(name), version=place.version, spaces=spaces[:_NAMES], truncated=len(spaces) > _NAMES
    )


def _space(door: Door, branch: str, space: str) -> SpaceHeld:
    place = door.place(branch, space)
    if space not in place.spaces:
        raise NotFound(what="space", name=space)
    holds = list(holdings(place, _NAMES))
    return SpaceHeld(branch=clean(branch), space=clean(space), version=place.version, holds=holds)


def _recent_writes(door: Door, branch: str) -> Recent:
    place = door.place(branch)
    budget, writes = Budget(), []
    for commit, change in _recent(door, place):
        if budget.over:
            break
        ref = EntityRef(branch, change.space, change.primitive, change.key)
        budget.named(str(ref), said(commit.actor), said(commit.message))
        writes.append(
            Written(
                ref=str(ref), action=change.action, time=shown_time(commit.time), actor=said(commit.actor),
                message=said(commit.message), stored=budget.fit(change.value, 2_000)[0],
            )
        )  # fmt: skip
    return Recent(branch=clean(branch), version=place.version, writes=writes, truncated=budget.cut)


# -- completion ------------------------------------------------------------------------------------


def completions(door: Door, name: str, begun: str, known: dict[str, str]) -> list[str]:
    """Return what a part of an address may go on as, with the parts in front of it that are known."""
    try:
        found = islice(_completions(door, name, begun, known), _COMPLETIONS)
        return [clean(each) for each in found]
    except StrataError:  # of a branch that is not there: nothing to offer
        return []


def _completions(door: Door, name: str, begun: str, known: dict[str, str]) -> Iterator[str]:
    if name == "branch":
        names: Any = (info.name for info in door.database.branches.list() if door.scope.holds(info.name))
    elif name == "space":
        branch = door.branch(known.get("branch"))
        names = (space for space in door.place(branch).spaces.list() if door.scope.holds(branch, space))
    elif name == "primitive":
        names = iter(PRIMITIVES)
    elif name == "key":
        names = _keys(
            door.place(known.get("branch"), known.get("space")), known.get("primitive", "kv"), begun
        )
    else:
        names = iter(())
    return (each for each in names if each.startswith(begun))


def _keys(place: Space, primitive: str, begun: str) -> Iterator[str]:
    prefix = begun or None
    if primitive == "kv":
        return place.kv.keys(prefix)
    if primitive == "json":
        return iter(place.json.list(prefix))
    if primitive == "state":
        return iter(place.state.list(prefix))
    if primitive == "events":
        return iter(place.events.streams())
    return iter(())
