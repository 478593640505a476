"""The history of machines as rstmdb's log would say it, from some version on.

It begins with the state at that version: each definition, and each instance made as it was. Then comes what
each commit did, read off its rows. What rstmdb has no entry for is said as a deletion and a creation of the
instance as it is then: a migration, and what a merge, a revert or a reset brought. An instance that expired
is deleted at the end, as nothing there expires.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from strata.api.rstmdb.records import Entry
from strata.core.protocols import DELETE, Branch, Txn, Written
from strata.history.replay import written
from strata.primitives.base import pages
from strata.primitives.machines_rows import (
    DEFINITIONS,
    LAYOUT,
    THINGS,
    Instance,
    Row,
    Transition,
    definition_of,
    instance_of,
)


class MachineLog:
    """The log of the machines of one branch and space, up to a version."""

    def __init__(self, branch: Branch, space: str, upto: int) -> None:
        self._branch, self._space, self._upto = branch, space, upto
        self._txn: Txn = branch.keyspace(space, LAYOUT)
        self._expiring: dict[str, int] = {}  # instances that are there, by id, and when they are gone
        self.machines = self.instances = 0  # that are there
        self.rewritten = 0  # changes that rstmdb cannot say

    @property
    def expiring(self) -> int:
        """How many of the instances expire."""
        return len(self._expiring)

    def state(self, version: int, now: int | None = None) -> Iterator[Entry]:
        """Yield entries that make what there was at a version, and at its time unless another is given."""
        rows = self._branch.view(version, now).keyspace(self._space, LAYOUT)
        for key in _keys(rows, DEFINITIONS, None):
            yield self._defined(key, rows.get(key))
        for key in _keys(rows, None, THINGS):
            kept = rows.kept(key)
            if kept is not None:
                row, _, expires = kept
                yield self._made(key.decode(), row, row["state"], row["context"], expires)

    def steps(self, after: int) -> Iterator[Entry]:
        """Yield what the commits behind a version did."""
        for row in self._written(after):
            yield from self._said(row)
        now = self._txn.now
        for id, expires in list(self._expiring.items()):
            if expires <= now:
                yield self._deleted(id)

    def beginning(self) -> int:
        """Return the oldest version from which on all can be said.

        It is where retention lets history begin, or where a definition was removed or exchanged, for which
        rstmdb has no entry.
        """
        begin = self._branch.oldest(self._space, LAYOUT.kind)
        for version, _, _, key, how, value, _ in self._written(begin):
            if key.startswith(DEFINITIONS):
                before = self._before(key, version)
                if before is not None and (how == DELETE or before["digest"] != value["digest"]):
                    begin = version
        return begin

    def _written(self, after: int) -> Iterator[Written]:
        """Yield what was written behind a version."""
        for _, rows in written(self._branch, after, self._upto, self._space, LAYOUT.kind):
            yield from (row for row in rows if (row[1], row[2]) == (self._space, LAYOUT.kind))

    def _before(self, key: bytes, version: int) -> Row | None:
        """Return what was under a key before a version, though it may have expired since."""
        found = self._txn.history(key, version, 1)
        return None if not found or found[0][3] else found[0][0]

    def _said(self, written: Written) -> Iterator[Entry]:
        """Yield what a commit did to the row of a thing."""
        version, _, _, key, how, row, expires = written
        if key.startswith(DEFINITIONS):
            if how != DELETE and self._before(key, version) is None:
                yield self._defined(key, row)
        elif key >= THINGS:
            before = self._before(key, version)
            if how == DELETE:
                if before is not None:
                    yield self._deleted(key.decode())
            else:
                yield from self._changed(instance_of(key, row, version, None, expires), row, before)

    def _changed(self, instance: Instance, row: Row, before: Row | None) -> Iterator[Entry]:
        """Yield what a commit did to an instance that is there after it."""
        id, expires = instance.id, instance.expires_us
        first, *others = instance.transitions
        is_made = first.event is None and first.from_state is None
        is_said = all(step.event is not None for step in others)
        if is_made and is_said and instance.steps == len(others):
            if before is not None:
                yield self._deleted(id)
            yield self._made(id, row, first.to_state, first.context, expires)
        elif is_said and first.event is not None and _goes_on(before, row, first, 1 + len(others)):
            self._note(id, expires)
            yield _applied(first)
        else:
            self.rewritten += 1
            if before is not None:
                yield self._deleted(id)
            yield self._made(id, row, row["state"], row["context"], expires)
            return
        yield from map(_applied, others)

    def _note(self, id: str, expires: int | None) -> None:
        """Keep when an instance is gone."""
        if expires is not None:
            self._expiring[id] = expires
        else:
            self._expiring.pop(id, None)

    def _defined(self, key: bytes, row: Row) -> Entry:
        self.machines += 1
        machine, version = definition_of(key)
        return {
            "type": "put_machine",
            "machine": machine,
            "version": version,
            "definition_hash": row["checksum"],
            "definition": row["definition"],
        }

    def _made(self, id: str, row: Row, state: str | None, context: Any, expires: int | None) -> Entry:
        self.instances += 1
        self._note(id, expires)
        return {
            "type": "create_instance",
            "instance_id": id,
            "machine": row["machine"],
            "version": row["machine_version"],
            "initial_state": state,
            "initial_ctx": context,
        }

    def _deleted(self, id: str) -> Entry:
        self.instances -= 1
        self._note(id, None)
        return {"type": "delete_instance", "instance_id": id}


def _applied(step: Transition) -> Entry:
    entry = {
        "type": "apply_event",
        "instance_id": step.instance,
        "event": step.event,
        "from_state": step.from_state,
        "to_state": step.to_state,
        "payload": step.payload,
        "ctx": step.context,
    }
    return entry if step.event_id is None else {**entry, "event_id": step.event_id}


def _goes_on(before: Row | None, row: Row, first: Transition, count: int) -> bool:
    """Return whether some transitions lead from one row of an instance to another."""
    return (
        before is not None
        and before["created"] == row["created"]
        and before["made"][0] + count == row["made"][0]
        and before["state"] == first.from_state
    )


def _keys(rows: Txn, prefix: bytes | None, start: bytes | None) -> Iterator[bytes]:
    found: Iterator[bytes] = pages(rows.scan_keys, prefix, start, None, False, None, lambda: None)
    return found
