"""Batches: several creations, events and deletions, of which each sees what those before it have done."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

import msgspec
from msgspec import Raw

from strata.primitives.machines_batch import BatchResult
from strata.server.rcp import instances, params
from strata.server.rcp.errors import BAD_REQUEST, Refused, bad_request
from strata.server.rcp.instances import application, creation, deletion
from strata.server.rcp.operation import Operation, Result

if TYPE_CHECKING:
    from strata.server.rcp.session import Session

_ITEMS_MAX: Final = 100
_ITEM: Final = msgspec.json.Decoder(params.BatchItem)


def batch(session: Session, asked: params.Batch) -> Result:
    if asked.mode not in (None, "best_effort", "atomic"):
        raise bad_request(f"{asked.mode!r} is no mode: best_effort or atomic")
    given = asked.operations if asked.ops is None else asked.ops
    if given is None:
        raise bad_request("a batch has ops")
    if len(given) > _ITEMS_MAX:
        raise bad_request(
            f"a batch of {len(given)} operations, and the limit is {_ITEMS_MAX}",
            limit=_ITEMS_MAX,
            actual=len(given),
        )
    is_atomic = asked.mode == "atomic"
    read = [_read_item(session, item) for item in given]
    for index, item in enumerate(read):
        if is_atomic and isinstance(item, Refused):
            message = f"atomic batch failed: item {index} was refused: {item.message}"
            why = {"index": index, "code": item.code, "message": item.message}
            raise Refused(BAD_REQUEST, message, why)
    items = [item for item in read if not isinstance(item, Refused)]
    made = iter(session.machines.batch(items, atomic=is_atomic) if items else ())
    results = [_item_result(item if isinstance(item, Refused) else next(made), item) for item in read]
    offsets = [said["result"]["wal_offset"] for said in results if said["result"] is not None]
    return {"results": results} | ({"wal_offset": max(offsets)} if offsets else {})


def _read_item(session: Session, given: Raw) -> dict[str, Any] | Refused:
    """Return an item as our batches take it, or why it is none."""
    try:
        item = _ITEM.decode(given)
        make = _BATCHABLE.get(item.op)
        if make is None:
            raise bad_request(f"{item.op!r} is no operation of a batch: {', '.join(_BATCHABLE)}")
        operation, arguments = make
        return {"op": operation, **arguments(session, _OPERATIONS[item.op].read(item.params))}
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        return bad_request(f"an item of a batch: {error}")
    except Refused as error:
        return error


def _item_result(made: BatchResult | Refused, item: Any) -> dict[str, Any]:
    try:
        if isinstance(made, Refused):
            raise made
        result = msgspec.to_builtins(instances.result_of(made, item))
    except Refused as error:
        return {"status": "error", "result": None, "error": error.data()}
    return {"status": "ok", "result": result, "error": None}


Arguments = Callable[[Any, Any], dict[str, Any]]
_OPERATIONS: Final = {operation.name: operation for operation in instances.TABLE}
_BATCHABLE: Final[dict[str, tuple[str, Arguments]]] = {
    "CREATE_INSTANCE": ("create", creation),
    "APPLY_EVENT": ("apply", application),
    "DELETE_INSTANCE": ("delete", deletion),
}
TABLE: Final = (Operation("BATCH", "write", params.Batch, batch, writes=True),)
