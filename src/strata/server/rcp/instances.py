"""Machines and instances: what is asked about them, translated to our own operations."""

from __future__ import annotations

from heapq import merge
from itertools import islice
from typing import TYPE_CHECKING, Any, Final
from uuid import uuid4

from msgspec import UNSET, Struct, UnsetType

from strata.api.checksum import crc32c
from strata.core.errors import NotFound, UnexpectedState
from strata.primitives.machines_batch import BatchResult
from strata.primitives.machines_rows import Instance, Transition
from strata.server.rcp import params
from strata.server.rcp.envelopes import encode
from strata.server.rcp.errors import Refused, refused_item
from strata.server.rcp.offsets import offset_of, version_of
from strata.server.rcp.operation import Operation, Result

if TYPE_CHECKING:
    from strata.server.rcp.session import Session

LIST_DEFAULT: Final = 100
LIST_MAX: Final = 10_000  # of one answer; there is a next page
_NEVER: Final = 2**62  # a version that no commit has

# -- machines


def put_machine(session: Session, asked: params.PutMachine) -> Result:
    made = session.machines.define(
        asked.machine,
        asked.version,
        asked.definition,
        checksum=asked.checksum,
        max_versions=session.settings.max_machine_versions or None,
    )
    return {
        "machine": made.name,
        "version": made.version,
        "stored_checksum": made.checksum,
        "created": made.is_new,
    }


def get_machine(session: Session, asked: params.GetMachine) -> Result:
    found = session.machines.machine(asked.machine, asked.version)
    return {"definition": found.definition, "checksum": found.checksum, "version": found.version}


def list_machines(session: Session, asked: params.Nothing) -> Result:
    found = session.machines.definitions()
    return {"items": [{"machine": machine.name, "versions": machine.versions} for machine in found]}


# -- instances


class Applied(Struct):
    """What APPLY_EVENT answers."""

    from_state: str | None
    to_state: str | None
    ctx: dict[str, Any]
    wal_offset: int
    applied: bool
    event_id: str | UnsetType = UNSET


def create_instance(session: Session, asked: params.CreateInstance) -> Result:
    return _created(session.machines.create(**creation(session, asked)))


def creation(session: Session, asked: params.CreateInstance) -> dict[str, Any]:
    """Return what our own creation takes."""
    return {
        "machine": asked.machine,
        "id": asked.instance_id,
        "context": asked.initial_ctx,
        "version": asked.version,
        "recreate": session.settings.recreate,
        "idempotency_key": asked.idempotency_key,
    }


def _created(made: Instance) -> Result:
    return {"instance_id": made.id, "state": made.state, "wal_offset": last_offset(made)}


def last_offset(instance: Instance) -> int:
    """Return the offset of what changed an instance last."""
    return offset_of(instance.version or 0, instance.ordinal)


def live(session: Session, id: str) -> Instance:
    """Return an instance.

    Raises: NotFound.
    """
    found = session.machines.get(id)
    if found is None:
        raise NotFound(what="instance", name=id)
    return found


def get_instance(session: Session, asked: params.InstanceId) -> Result:
    found = live(session, asked.instance_id)
    said: dict[str, Any] = {
        "machine": found.machine,
        "version": found.machine_version,
        "state": found.state,
        "ctx": found.context,
        "last_wal_offset": last_offset(found),
    }
    return said if found.event_id is None else said | {"last_event_id": found.event_id}


def list_instances(session: Session, asked: params.ListInstances) -> Result:
    """Return a page. Where the one before it was asked for here, it goes on behind the last of that."""
    limit = min(LIST_DEFAULT if asked.limit is None else asked.limit, LIST_MAX)
    offset = asked.offset or 0
    after = session.cursors.get((asked.machine, asked.state, offset))
    skip = offset if after is None else 0
    found = _listed(session, asked, after, skip + limit + 1)[skip:]
    page, has_more = found[:limit], len(found) > limit
    if page:
        session.keep_cursor((asked.machine, asked.state, offset + len(page)), page[-1].id)
    total = _count(session, asked)
    return {"instances": [_summary(one) for one in page], "total": total, "has_more": has_more}


def _listed(session: Session, asked: params.ListInstances, after: str | None, limit: int) -> list[Instance]:
    machines = session.machines
    if asked.machine is not None or asked.state is None:
        return machines.list(asked.machine, asked.state, after=after, limit=limit)
    each = [
        machines.list(machine.name, asked.state, after=after, limit=limit)
        for machine in machines.definitions()
    ]
    return [*islice(merge(*each, key=lambda instance: instance.id.encode()), limit)]


def _count(session: Session, asked: params.ListInstances) -> int:
    machines = session.machines
    if asked.machine is not None or asked.state is None:
        return machines.count(asked.machine, asked.state)
    return sum(machines.count(machine.name, asked.state) for machine in machines.definitions())


def _summary(found: Instance) -> dict[str, Any]:
    return {
        "id": found.id,
        "machine": found.machine,
        "version": found.machine_version,
        "state": found.state,
        "created_at": found.created_us // 1000,
        "updated_at": (found.updated_us or found.created_us) // 1000,
        "last_wal_offset": last_offset(found),
    }


def delete_instance(session: Session, asked: params.DeleteInstance) -> Result:
    # As a batch of one, which says the ordinal too of what was deleted before.
    item = {"op": "delete", **deletion(session, asked)}
    return result_of(session.machines.batch([item])[0], item)


def deletion(session: Session, asked: params.DeleteInstance) -> dict[str, Any]:
    """Return what our own deletion takes."""
    return {"id": asked.instance_id, "idempotency_key": asked.idempotency_key}


def apply_event(session: Session, asked: params.ApplyEvent) -> Result:
    expected = asked.expected_wal_offset
    if expected is not None:
        return _apply_at(session, asked, expected)
    made = session.machines.apply(
        asked.instance_id,
        asked.event,
        asked.payload,
        expected_state=asked.expected_state,
        event_id=asked.event_id,
        idempotency_key=asked.idempotency_key,
    )
    return _applied(made)


def _apply_at(session: Session, asked: params.ApplyEvent, expected: int) -> Result:
    try:
        return _applied(session.machines.apply(**application(session, asked)))
    except UnexpectedState as error:
        if error.what != "version":
            raise
        found = session.machines.get(asked.instance_id)
        actual = {} if found is None else {"actual_offset": last_offset(found)}
        message = f"the instance {asked.instance_id!r} has changed since offset {expected}"
        raise Refused("CONFLICT", message, {"expected_offset": expected, **actual}) from None


def application(session: Session, asked: params.ApplyEvent) -> dict[str, Any]:
    """Return what our own application of an event takes."""
    return {
        "id": asked.instance_id,
        "event": asked.event,
        "payload": asked.payload,
        "expected_state": asked.expected_state,
        "expected_version": _expected_version(session, asked),
        "event_id": asked.event_id,
        "idempotency_key": asked.idempotency_key,
    }


def _expected_version(session: Session, asked: params.ApplyEvent) -> int | None:
    """Return the version that an instance has to be of, to be at the offset that is expected.

    Of one version an instance has one offset, the last of what a batch did to it. So it is enough to look
    first, and to say the version: whoever comes in between changes that.
    """
    expected = asked.expected_wal_offset
    if expected is None:
        return None
    version = version_of(expected)
    found = session.machines.get(asked.instance_id)
    is_other = found is not None and found.version == version and last_offset(found) != expected
    return _NEVER if is_other else version


def _applied(made: Transition) -> Applied:
    return Applied(
        made.from_state,
        made.to_state,
        made.context,
        offset_of(made.version or 0, made.ordinal),
        made.applied,
        UNSET if made.event_id is None else made.event_id,
    )


def snapshot_instance(session: Session, asked: params.InstanceId) -> Result:
    """Say what a snapshot of an instance would hold. All its versions are there, so none is written."""
    found = live(session, asked.instance_id)
    text = encode(
        {"instance_id": found.id, "machine": found.machine, "version": found.machine_version,
         "state": found.state, "ctx": found.context}
    )  # fmt: skip
    return {
        "instance_id": found.id,
        "snapshot_id": f"snap-{uuid4()}",
        "wal_offset": last_offset(found),
        "size_bytes": len(text),
        "checksum": f"{crc32c(text):08x}",
    }


def result_of(made: BatchResult, item: dict[str, Any]) -> Result:
    """Return what an item of a batch of ours did, as the answer to its operation.

    Raises: Refused.
    """
    if made.error is not None:
        raise refused_item(made.error, item)
    if made.instance is not None:
        return _created(made.instance)
    if made.transition is not None:
        return _applied(made.transition)
    offset = offset_of(made.deleted or 0, made.ordinal)
    return {"instance_id": item["id"], "deleted": True, "wal_offset": offset}


TABLE: Final = (
    Operation("PUT_MACHINE", "write", params.PutMachine, put_machine, writes=True, slow=True),
    Operation("GET_MACHINE", "read", params.GetMachine, get_machine),
    Operation("LIST_MACHINES", "read", params.Nothing, list_machines, slow=True),
    Operation("CREATE_INSTANCE", "write", params.CreateInstance, create_instance, writes=True),
    Operation("GET_INSTANCE", "read", params.InstanceId, get_instance),
    Operation("LIST_INSTANCES", "read", params.ListInstances, list_instances, slow=True),
    Operation("DELETE_INSTANCE", "write", params.DeleteInstance, delete_instance, writes=True),
    Operation("APPLY_EVENT", "write", params.ApplyEvent, apply_event, writes=True),
    Operation("SNAPSHOT_INSTANCE", "read", params.InstanceId, snapshot_instance),
)
