"""Migration: instances of a machine become instances of another version of it, in one commit.

States keep their names unless they are mapped, and the context is changed as told. To take it back is to
revert the commit (`branches.revert`), as with all that is written.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final, cast

import msgspec

from strata.core.atomic import Source, atomically
from strata.core.errors import InvalidInput
from strata.core.protocols import PatchOp, Txn
from strata.core.staging import Source as Held
from strata.primitives.machines_definition import Compiled, check_version
from strata.primitives.machines_reads import newest, no_machine, tables
from strata.primitives.machines_rows import (
    LAYOUT,
    Row,
    check_map,
    definition_key,
    machine_name,
    machine_prefix,
    settled,
)
from strata.primitives.machines_steps import DUE, EVENT_ID, MADE, due_in, is_own, move, set_timers

_SHOWN: Final = 100  # problems that are listed
_CHANGES: Final = ("rename", "remove", "set")


class Migration(msgspec.Struct, frozen=True):
    """What a migration did, or would do."""

    machine: str
    to: int
    instances: int
    states: dict[str, dict[str, int]]  # from a state, to a state, how many went
    problems: tuple[tuple[str, str], ...]  # instance and why it cannot: the first hundred
    version: int | None  # of the commit; None where there was nothing to do, or it was not to be done

    @property
    def ok(self) -> bool:
        """Whether all instances can go."""
        return not self.problems


class Change(msgspec.Struct):
    """How instances change."""

    machine: str
    to: int | None
    from_: int | None
    states: Mapping[str, str]
    context: Mapping[str, Any]

    def run(self, txn: Txn, *, dry: bool) -> Migration:
        """Migrate the instances that are seen; only say what would be if `dry` or one of them cannot."""
        to = newest(txn, self.machine) if self.to is None else self.to
        if not txn.contains(definition_key(self.machine, to)):
            raise no_machine(self.machine, to)
        ready = tables(txn, self.machine, to)
        known = _states(txn, self.machine, to)
        for state in self.states.values():
            if state not in known:
                raise InvalidInput(f"version {to} of machine {self.machine!r} has no state {state!r}")
        counts: dict[str, dict[str, int]] = {}
        problems: list[tuple[str, str]] = []
        found = [*self._instances(txn, to)]
        for key, (row, _, _) in found:
            state = self.states.get(row["state"], row["state"])
            if state not in known:
                problems.append((key.decode(), f"version {to} has no state {state!r}: map it"))
            went = counts.setdefault(row["state"], {})
            went[state] = went.get(state, 0) + 1
        if not dry and not problems:
            for key, (row, version, expires) in found:
                self._change(txn, ready, to, key, row, version, expires)
        return Migration(self.machine, to, len(found), counts, tuple(problems[:_SHOWN]), None)

    def _instances(self, txn: Txn, to: int) -> Iterator[tuple[bytes, Any]]:
        prefix = machine_prefix(self.machine)
        for key in cast("list[bytes]", txn.scan_keys(prefix, None, None, False, None)):
            kept = txn.kept(key[len(prefix) :])
            version = None if kept is None else kept[0]["machine_version"]
            if version not in (None, to) and self.from_ in (None, version):
                yield key[len(prefix) :], kept

    def _change(
        self, txn: Txn, ready: Compiled, to: int, key: bytes, row: Row, version: int, expires: int | None
    ) -> None:
        """Write an instance as it is in the other version."""
        state, old = self.states.get(row["state"], row["state"]), row["state"]
        items = settled(row) if version == txn.version and is_own(txn, key, row) else ()
        made = [row["made"][0] + 1, *items, [None, old, None, None]]
        ops: list[PatchOp] = [("set", MADE, made), ("set", ("machine_version",), to)]
        ops += [("set", ("state",), state)] if state != old else []
        ops += [*self._ops(row["context"])]
        if "event_id" in row:
            ops.append(("delete", EVENT_ID))
        due = due_in(ready, state, txn.now)
        if due or "due" in row:
            ops.append(("set", DUE, due) if due else ("delete", DUE))
        txn.patch(key, ops)
        if state != old:
            move(txn, key, self.machine, old, state, expires)
        set_timers(txn, key, row.get("due", ()), due, expires)

    def _ops(self, context: dict[str, Any]) -> Iterator[PatchOp]:
        """Yield the changes of a context: what is renamed, what goes, what is set."""
        renamed = [(old, new) for old, new in self.context.get("rename", {}).items() if old in context]
        for old, _ in renamed:
            yield "delete", ("context", old)
        for old, new in renamed:
            yield "set", ("context", new), context[old]
        for name in self.context.get("remove", ()):
            yield "delete", ("context", name)
        for name, value in self.context.get("set", {}).items():
            yield "set", ("context", name), value


def migrate(txn: Txn, beside: Source, change: Change, *, dry: bool) -> Migration:
    """Carry a migration out, or say what it would do.

    Raises: InvalidInput where an instance cannot go; nothing is done then.
    """
    if dry:
        return change.run(txn.pinned(), dry=True)
    space = txn.names[1]

    def step(txn: Txn, beside: Source) -> Migration:
        held = Held(beside)
        done = change.run(held.over(txn, space, LAYOUT), dry=False)
        if done.problems:
            id, why = done.problems[0]
            raise InvalidInput(f"instance {id!r} cannot migrate: {why}", hint="dry_run=True lists them all")
        held.pass_on()
        return done

    done, at = atomically(txn, step, beside=beside)
    return msgspec.structs.replace(done, version=at) if done.instances else done


def change_of(machine: str, to: int | None, from_: int | None, states: Any, context: Any) -> Change:
    """Return a change with these arguments.

    Raises: InvalidInput.
    """
    machine_name(machine)
    for version in (to, from_):
        if version is not None:
            check_version(version)
    for name, value in (check_map(states, "mapping of states") or {}).items():
        if not isinstance(value, str):
            raise InvalidInput(f"state {name!r} becomes a state, not {value!r}")
    changes = check_map(context, "change of contexts") or {}
    for name, value in changes.items():
        if name not in _CHANGES:
            raise InvalidInput(f"{name!r} changes no context", hint=f"one of {', '.join(_CHANGES)}")
        if not isinstance(value, (list, tuple) if name == "remove" else dict):
            raise InvalidInput(f"{name!r} takes a {'list' if name == 'remove' else 'map'}, not {value!r}")
    named = [*changes.get("remove", ()), *changes.get("rename", {}).values()]
    if not all(isinstance(name, str) for name in named):
        raise InvalidInput("names in a context are texts")
    return Change(machine, to, from_, states or {}, changes)


def _states(txn: Txn, machine: str, version: int) -> set[str]:
    return set(txn.get_path(definition_key(machine, version), ("definition", "states")))
