"""The log of machines: what commits did to machines and instances, as rstmdb's log would say it.

Nothing is kept for it. It is read off the history: each row that a commit wrote says what it did, so the log
begins with the database (or where retention lets it begin), other clients' commits are in it, and to read on
from an offset is to read the commits from its version on.

What rstmdb has no entry for: a migration is the `snapshot` of the instance, as it was then.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final, NamedTuple

from strata.core.protocols import DELETE, Branch, Commit, Written
from strata.history.replay import check_kept, written
from strata.primitives.machines_rows import (
    DEFINITIONS,
    GONE,
    KEYS,
    LAYOUT,
    THINGS,
    Instance,
    Transition,
    definition_of,
    instance_of,
    once_of,
    ordinal_of,
)
from strata.server.rcp.offsets import offset_of, version_of

Entry = dict[str, Any]
Gone = dict[bytes, tuple[int, bool]]  # by instance, the ordinal of a deletion, and whether it was there
Once = dict[tuple[bytes, str, int], str]  # idempotency keys, by instance, operation and ordinal
_PAGE_COMMITS: Final = 256


class Record(NamedTuple):
    """One entry, and where it stands."""

    offset: int
    time_us: int  # of the commit
    type: str
    fields: Entry  # of the entry, without its type
    instance: Instance | None = None  # of an event
    transition: Transition | None = None  # that it made

    @property
    def sequence(self) -> int:
        """The number that rises with each entry: here that is the offset."""
        return self.offset

    @property
    def entry(self) -> Entry:
        """The entry as clients get it."""
        return {"type": self.type, **self.fields}


class Log:
    """The log of one branch and space."""

    def __init__(self, branch: Branch, space: str) -> None:
        self._branch = branch
        self._space = space
        self._page: tuple[int, int, list[Record]] = (0, 0, [])  # the one that was read last

    @property
    def head(self) -> int:
        """The version of the newest commit."""
        return self._branch.head

    @property
    def oldest(self) -> int:
        """The version from which on all of it is kept."""
        return self._branch.oldest(self._space, LAYOUT.kind)

    def records(self, from_offset: int) -> Iterator[Record]:
        """Yield what stands at an offset and behind it, in order.

        Raises: HistoryTrimmed where retention has let go of that.
        """
        after = max(0, version_of(from_offset) - 1)
        for commit, rows in written(self._branch, after, self.head, self._space, LAYOUT.kind):
            for record in self._of(commit, rows):
                if record.offset >= from_offset:
                    yield record

    def page(self, after: int) -> tuple[int, list[Record]]:
        """Return what the next commits after a version did, and up to which version that is.

        Raises: HistoryTrimmed.
        """
        if self._page[0] == after and self._page[1] > after:
            return self._page[1:]  # as for all that watch what comes now
        head = self.head
        commits = self._branch.commits(after, head + 1, False, _PAGE_COMMITS) if after < head else []
        upto = commits[-1].version if len(commits) == _PAGE_COMMITS else max(head, after)
        found: list[Record] = []
        for commit, rows in written(self._branch, after, upto, self._space, LAYOUT.kind):
            found += self._of(commit, rows)
        self._page = after, upto, found
        return upto, found

    def forget_page(self) -> None:
        """Let go of the page that was read last."""
        self._page = 0, 0, []

    def check_kept(self, from_offset: int) -> None:
        """Raise HistoryTrimmed unless all from an offset on is kept."""
        check_kept(self._branch, max(0, version_of(from_offset) - 1), self._space, LAYOUT.kind)

    def _of(self, commit: Commit, rows: list[Written]) -> list[Record]:
        ours = [row for row in rows if row[1] == self._space and row[2] == LAYOUT.kind]
        return records_of(commit, ours)


def records_of(commit: Commit, rows: list[Written]) -> list[Record]:
    """Return what a commit did to machines, of the rows that it wrote to them, in order."""
    gone: Gone = {}
    keys: Once = {}
    for _, _, _, key, how, value, _ in rows:
        if how == DELETE:
            continue  # as where all was removed, and these with it
        if key.startswith(GONE):
            gone[key[len(GONE) :]] = tuple(value)
        elif key.startswith(KEYS):
            id, op, once = once_of(key)
            keys[id, op, _ordinal(value)] = once
    found: list[Record] = []
    for row in rows:
        key, how = row[3], row[4]
        if key >= THINGS:
            ordinal, was_there = gone.get(key, (0, how == DELETE))
            if was_there:  # perhaps it was made again behind that
                found.append(_deleted(commit, key, ordinal, keys))
            if how != DELETE:
                found += _stepped(commit, row, keys)
        elif key.startswith(DEFINITIONS) and how != DELETE:
            found.append(_defined(commit, key, row[5]))
    if len(found) > 1:
        found.sort(key=lambda record: record.offset)
    return found


def _ordinal(value: Any) -> int:
    """Return the ordinal of what a call with an idempotency key did."""
    if isinstance(value, dict):
        return ordinal_of(value["made"][-1])
    return ordinal_of(value) if isinstance(value, list) else value or 0


def _defined(commit: Commit, key: bytes, row: Entry) -> Record:
    name, version = definition_of(key)
    fields = {
        "machine": name,
        "version": version,
        "definition_hash": row["checksum"],
        "definition": row["definition"],
    }
    return Record(offset_of(commit.version), commit.time, "put_machine", fields)


def _deleted(commit: Commit, key: bytes, ordinal: int, keys: Once) -> Record:
    fields = {"instance_id": key.decode()} | _once(keys, key, "delete", ordinal)
    return Record(offset_of(commit.version, ordinal), commit.time, "delete_instance", fields)


def _stepped(commit: Commit, row: Written, keys: Once) -> Iterator[Record]:
    """Yield what was done to an instance."""
    _, _, _, key, _, value, expires = row
    instance = instance_of(key, value, commit.version, commit.time, expires)
    for made in instance.transitions:
        offset = offset_of(commit.version, made.ordinal)
        if made.event is not None:
            fields = _applied(made) | _once(keys, key, "apply", made.ordinal)
            yield Record(offset, commit.time, "apply_event", fields, instance, made)
        elif made.from_state is None:
            fields = _created(instance, made) | _once(keys, key, "create", made.ordinal)
            yield Record(offset, commit.time, "create_instance", fields)
        else:
            name = f"snap-{offset}-{instance.id}"
            fields = {"instance_id": instance.id, "snapshot_id": name, "version": instance.machine_version}
            said = {"state": made.to_state, "ctx": made.context}
            yield Record(offset, commit.time, "snapshot", fields | said)


def _created(instance: Instance, made: Transition) -> Entry:
    return {
        "instance_id": instance.id,
        "machine": instance.machine,
        "version": instance.machine_version,
        "initial_state": made.to_state,
        "initial_ctx": made.context,
    }


def _applied(made: Transition) -> Entry:
    fields: Entry = {
        "instance_id": made.instance,
        "event": made.event,
        "from_state": made.from_state,
        "to_state": made.to_state,
        "payload": made.payload,
        "ctx": made.context,
    }
    return fields if made.event_id is None else fields | {"event_id": made.event_id}


def _once(keys: Once, key: bytes, op: str, ordinal: int) -> Entry:
    once = keys.get((key, op, ordinal)) if keys else None
    return {} if once is None else {"idempotency_key": once}
