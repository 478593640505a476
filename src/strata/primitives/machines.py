"""Machines: workflows that are declared once, and instances that only ever change as declared.

A machine is a definition (see `machines_definition`) under a name and a version, and never changes. An
instance is of one version of a machine, in one of its states, and has a context, a map. An event takes it to
another state, if there is a way: the guards of the ways (see `machines_guards`) are asked about the context
as it was, and the payload of the event is then merged into it, key by key. `machines_rows` has the layout.

Invariant: the state of an instance is one that its machine leads to from the state before, by the event that
the row names. Two writers that apply events to one instance come one after the other: the second sees what
the first has made of it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from datetime import datetime
from typing import Any, cast

from msgspec.structs import replace

from strata.core.atomic import Source, atomically
from strata.core.clock import Ttl, ttl_micros
from strata.core.errors import AlreadyExists, LimitExceeded
from strata.core.keys import check_int
from strata.core.protocols import Txn
from strata.primitives.machines_batch import BatchResult, Item, run_batch
from strata.primitives.machines_definition import (
    canonical,
    check_checksum,
    check_version,
    checked,
    checksum_of,
    validate,
)
from strata.primitives.machines_findings import Validation
from strata.primitives.machines_migration import Migration, change_of, migrate
from strata.primitives.machines_reads import MachineReads
from strata.primitives.machines_rows import (
    DEFINITIONS,
    THINGS,
    Cleared,
    Instance,
    Machine,
    Transition,
    definition_key,
    definition_prefix,
    machine_name,
    machine_of,
)
from strata.primitives.machines_steps import application, creation, deletion, transition_of
from strata.primitives.machines_timers import Fired, fire_due, next_due


class Machines(MachineReads):
    """The machines and instances of one branch and space."""

    __slots__ = ("_beside",)

    def __init__(self, txn: Txn, beside: Source) -> None:
        super().__init__(txn)
        self._beside = beside  # what gives the other keyspaces of where `txn` is

    def next_due(self) -> datetime | None:
        """Return when the next timer is due, in UTC; None where there is none. It may be past."""
        return next_due(self._txn)

    def define(
        self,
        name: str,
        version: int,
        definition: dict[str, Any] | str,
        *,
        checksum: str | None = None,
        max_versions: int | None = None,
    ) -> Machine:
        """Store a version of a machine, for good, and return it; where it is there already, only return it.

        Args:
            definition: a map, or JSON; see the page on machines.
            checksum: of the normal form, CRC32C or SHA-256 in hex; it must be right.
            max_versions: how many versions of this machine there may be.
        Raises: InvalidInput, naming the place, for what is no definition; AlreadyExists when the version is
            there with another definition; LimitExceeded.
        """
        key = definition_key(machine_name(name), check_version(version))
        normal = checked(definition)
        text = canonical(normal)
        if checksum is not None:
            check_checksum(checksum, text)
        row = {
            "digest": hashlib.sha256(text).digest(),
            "definition": normal,
            "checksum": checksum_of(text),
        }

        def define(txn: Txn) -> bool:
            old = txn.get(key)
            if old is not None:
                if old["digest"] != row["digest"]:
                    what = f"version {version} of machine"
                    raise AlreadyExists(what=what, name=name, hint="a version never changes: define the next")
                return False
            if max_versions is not None:
                _check_versions(txn, name, check_int(max_versions, "max_versions"))
            txn.put(key, row)
            return True

        return machine_of(key, row, atomically(self._txn, define)[0])

    def validate(self, definition: dict[str, Any] | str) -> Validation:
        """Return all that is wrong with a definition, and what is only strange. Nothing is stored."""
        return validate(definition)

    def create(
        self,
        machine: str,
        id: str | None = None,
        context: dict[str, Any] | None = None,
        *,
        version: int | None = None,
        ttl: Ttl | None = None,
        recreate: bool = True,
        idempotency_key: str | None = None,
    ) -> Instance:
        """Make an instance of a machine, in its initial state; return it.

        Args:
            id: given when left out, so that ids sort by time.
            context: a map; empty when left out.
            version: of the machine; left out, the newest.
            ttl: how long after the commit the instance expires and is gone.
            recreate: whether the id may be that of an instance that was deleted.
            idempotency_key: a call with the same key within 24 hours makes nothing, and returns what the
                first one made. It counts for one id, or for one machine where none is given.
        Raises: NotFound for an unknown machine or version; AlreadyExists; InvalidInput; LimitExceeded.
        """
        ttl_us = None if ttl is None else ttl_micros(ttl)
        step = creation(machine, id, context, version, ttl_us, recreate, idempotency_key)
        (instance, is_new), at = atomically(self._txn, step.run, beside=self._beside)
        return replace(instance, version=at) if is_new and at is not None else instance

    def apply(
        self,
        id: str,
        event: str,
        payload: dict[str, Any] | None = None,
        *,
        expected_state: str | None = None,
        expected_version: int | None = None,
        event_id: str | None = None,
        idempotency_key: str | None = None,
    ) -> Transition:
        """Apply an event to an instance; return what it did.

        The guards are asked about the context as it is; then `payload` is merged into it, key by key: values
        are replaced as wholes, and a null is stored.

        Args:
            expected_state, expected_version: of the instance as it was read; where it is another, nothing is
                done.
            event_id: kept with the transition, for whoever made the event.
            idempotency_key: a call for this instance with the same key within 24 hours does nothing, and
                returns what the first one did, with `applied` False.
        Raises: NotFound for an unknown instance; UnexpectedState; InvalidTransition when the state takes no
            such event; GuardFailed when no guard lets it pass; InvalidInput; LimitExceeded.
        """
        txn = self._txn
        step = application(id, event, payload, expected_state, expected_version, event_id, idempotency_key)
        step.is_first = txn.mode == "automatic"
        made, at = atomically(txn, step.run, beside=self._beside)
        return transition_of(id, made, at)

    def delete(self, id: str, *, idempotency_key: str | None = None) -> int | None:
        """Remove an instance; return the version of the commit (None inside a transaction).

        Its history stays, and its id may be used again. To delete it once more is no error, and returns the
        version of the first time.
        Raises: NotFound when there never was such an instance.
        """
        step = deletion(id, idempotency_key)
        (before, is_deleted, _), at = atomically(self._txn, step.run, beside=self._beside)
        return at if is_deleted else before

    def clear(self) -> Cleared:
        """Remove all instances and machines of this branch and space, in one commit; return how many.

        Views of earlier versions still show them; `db.forget` takes things out of those too.
        Cost: reads all keys.
        """

        def clear(txn: Txn) -> Cleared:
            keys = cast("list[bytes]", txn.scan_keys(None, None, None, False, None))
            txn.delete_many(keys)
            things = sum(key >= THINGS for key in keys)
            return Cleared(things, sum(key.startswith(DEFINITIONS) for key in keys))

        return atomically(self._txn, clear)[0]

    def batch(self, items: Iterable[Item], *, atomic: bool = False) -> list[BatchResult]:
        """Run creations, events and deletions one after the other, in one commit; return what each did.

        Args:
            items: maps with `op` ("create", "apply" or "delete") and the arguments of that method by name, at
                most 100. Each sees what those before it have done.
            atomic: all or nothing. Else what is refused is left out, and its result has the error.
        Raises: BatchFailed, with `atomic`, when one is refused, and nothing was done; LimitExceeded;
            InvalidInput for what is no list.
        """
        return run_batch(self._txn, self._beside, items, atomic, self.LAYOUT)

    def migrate(
        self,
        machine: str,
        to: int | None = None,
        *,
        from_: int | None = None,
        states: dict[str, str] | None = None,
        context: dict[str, Any] | None = None,
        dry_run: bool = False,
    ) -> Migration:
        """Make instances of a machine those of another of its versions, in one commit; return what was done.

        Timers of the states that they are in then begin anew; actions are not run. To take it back, revert
        the commit.

        Args:
            to: the version; left out, the newest.
            from_: only instances of this version; left out, of all others.
            states: which state becomes which; others keep their names.
            context: {"rename": {old: new}, "remove": [name, ...], "set": {name: value}}, in this order.
            dry_run: only say what would be.
        Raises: InvalidInput where an instance would be in a state that there is not; NotFound; LimitExceeded.
        Cost: reads all instances of the machine.
        """
        change = change_of(machine, to, from_, states, context)
        return migrate(self._txn, self._beside, change, dry=dry_run)

    def fire_due(self, *, limit: int | None = None) -> list[Fired]:
        """Fire the timers that are due, in order, each in its own commit; return what they did.

        Nothing fires by itself: call this as often as timers should be exact, and after opening for what came
        due meanwhile. Several processes or threads may: each timer fires once.

        Args:
            limit: at most so many.
        Cost: a commit each.
        """
        return fire_due(self._txn, self._beside, None if limit is None else check_int(limit, "limit"))


def _check_versions(txn: Txn, name: str, limit: int) -> None:
    count = txn.count(definition_prefix(name), None, None)
    if count >= limit:
        raise LimitExceeded(what=f"number of versions of machine {name!r}", limit=limit, actual=count + 1)
