"""What is kept of webhooks, row by row. Reading and writing of them, for whoever declares and who delivers.

On a branch of their own, "_webhooks", that nobody else sees: so what is delivered is no part of anybody's
history, and a fork, a merge or a reset of a branch sends nothing twice. Space "_strata", kind "webhooks":

    hook/NAME                     Hook       the declaration; names its branch by id, as that may be renamed
    at/ID                         Progress   how far the log of that branch was delivered
    lane/ID/LANE                  Lane       a thing whose delivery failed: nothing newer of it may come first
    message/ID/LANE/VERSION       Message    what waits for it, oldest first
    dead/ID/VERSION/LANE          Dead       what was given up
    lease                         Lease      who delivers now

ID is that of the hook, LANE a digest of which thing it is, VERSION 16 hex digits. Invariant: what a commit up
to the position has for a hook was delivered, or is in a `message` or `dead` row.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterator
from typing import Any, Final, TypeVar, cast

import msgspec

from strata.core.errors import AlreadyExists, NotFound
from strata.core.protocols import Branch, BranchInfo, Layout, Store, Txn

HOME: Final = "_webhooks"
SPACE: Final = "_strata"
LAYOUT: Final = Layout("webhooks")
LEASE: Final = "lease"
LANE_BYTES: Final = 16

T = TypeVar("T", bound=msgspec.Struct)


class Hook(msgspec.Struct, frozen=True):
    """A declaration."""

    id: str
    name: str
    url: str
    secrets: list[tuple[str, int | None]]  # the newest first; until when one that was replaced signs too
    branch: int
    branch_created: int  # in a database that was made of a bundle another branch may have the number
    created: int
    space: str | None = None
    primitive: str | None = None
    prefix: str | None = None
    type: str | None = None
    machine: str | None = None
    events: list[str] | None = None
    to_states: list[str] | None = None
    paused: str | None = None  # why


class Progress(msgspec.Struct, frozen=True):
    """How far a hook is: all up to `position`, and the first `offset` things of the commit `within`."""

    position: int
    within: int = 0
    offset: int = 0
    delivered: int = 0
    failed: int = 0  # attempts
    gaps: int = 0  # times that history was let go of before it was delivered
    error: str | None = None  # of the newest attempt; None once one went well
    error_at: int | None = None
    delivered_at: int | None = None
    not_before: int = 0  # when the other side wants to hear from us again


class Lane(msgspec.Struct, frozen=True):
    """A thing whose delivery failed. `attempts` and what follows are of its oldest message."""

    attempts: int = 0
    since: int = 0  # when that was first tried
    due: int = 0
    error: str | None = None


class Message(msgspec.Struct, frozen=True):
    """What is to be sent: one commit's changes of one thing."""

    id: str
    lane: str
    version: int
    space: str
    primitive: str
    key: str
    type: str
    body: bytes

    @property
    def place(self) -> str:
        """Where it is among those of its hook: behind the hook's id."""
        return f"{self.lane}/{self.version:016x}"


class Dead(msgspec.Struct, frozen=True):
    """A message that was given up."""

    message: Message
    attempts: int
    since: int
    died: int
    error: str


class Lease(msgspec.Struct, frozen=True):
    """Who delivers, and until when."""

    holder: str
    machine: str
    process: int
    until: int


def home_of(store: Store) -> Branch | None:
    """Return the branch that the rows are on; None before the first hook."""
    try:
        return store.branch(HOME)
    except NotFound:
        return None


def make_home(store: Store) -> Branch:
    """Return the branch that the rows are on, which is made if need be. Of each row the newest is kept."""
    found = home_of(store)
    if found is None:
        with contextlib.suppress(AlreadyExists):
            store.create(HOME)
        found = store.branch(HOME)
    if all(policy[0] != HOME for policy in store.policies()):
        store.set_policy(HOME, None, None, 1, None, False)
    return found


def rows_of(home: Branch) -> Txn:
    """Return the keyspace of the rows."""
    return home.keyspace(SPACE, LAYOUT)


def read(txn: Txn, key: str, kind: type[T]) -> T | None:
    """Return a row, or None."""
    found = txn.get(key)
    return None if found is None else msgspec.convert(found, kind)


def write(txn: Txn, key: str, row: msgspec.Struct) -> None:
    """Put a row."""
    txn.put(key, plain(row))


def plain(row: msgspec.Struct) -> Any:
    """Return a row as it is stored."""
    return msgspec.to_builtins(row, builtin_types=(bytes,))


def scan(txn: Txn, prefix: str, kind: type[T], limit: int | None = None) -> Iterator[tuple[str, T]]:
    """Yield rows by what their keys have behind `prefix`."""
    for key, found in txn.scan(prefix, None, None, False, limit):
        yield cast(str, key).removeprefix(prefix), msgspec.convert(found, kind)


def branch_of(store: Store, hook: Hook) -> BranchInfo | None:
    """Return what is known of the branch of a hook; None where that is not there any more."""
    found = (info for info in store.branches() if info.id == hook.branch)
    return next((info for info in found if info.created == hook.branch_created), None)


def hooks(txn: Txn) -> list[Hook]:
    """Return all declarations, by name."""
    return [hook for _, hook in scan(txn, "hook/", Hook)]


def waiting(txn: Txn) -> Iterator[tuple[str, Message]]:
    """Yield the keys of all messages that wait or were given up, of all hooks, and the messages."""
    for key, message in scan(txn, "message/", Message):
        yield f"message/{key}", message
    for key, dead in scan(txn, "dead/", Dead):
        yield f"dead/{key}", dead.message


def lane_of(space: str, primitive: str, key: str) -> str:
    """Return the lane of a thing."""
    said = "\0".join((space, primitive, key)).encode()
    return hashlib.sha256(said).hexdigest()[: 2 * LANE_BYTES]


def prefixes(hook: Hook) -> list[str]:
    """Return what the keys of all rows of a hook begin with, but for its declaration."""
    return [f"at/{hook.id}", *(f"{kind}/{hook.id}/" for kind in ("lane", "message", "dead"))]
