"""Errors: which of rstmdb's codes ours are, with details, and whether it helps to ask again.

Clients know the codes below and no others: a response with another one cannot be read by some of them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from strata.core.errors import BatchFailed, HistoryTrimmed, InternalError, StrataError
from strata.primitives.machines_batch import Refusal
from strata.server.rcp.offsets import offset_of

BAD_REQUEST: Final = "BAD_REQUEST"
RETRYABLE: Final = frozenset({"WAL_IO_ERROR", "INTERNAL_ERROR", "RATE_LIMITED", "REPLICATION_TIMEOUT"})
Fields = Mapping[str, Any]
Said = tuple[str, dict[str, Any]]  # a code and details


class Refused(Exception):
    """A request that is answered with an error."""

    def __init__(self, code: str, message: str, details: dict[str, Any] | None = None) -> None:
        super().__init__(message)
        self.code, self.message, self.details = code, message, details or {}

    def data(self) -> dict[str, Any]:
        """Return it as responses have it, without details rather than with null, which is not read."""
        said: dict[str, Any] = {
            "code": self.code, "message": self.message, "retryable": self.code in RETRYABLE
        }  # fmt: skip
        return said | {"details": self.details} if self.details else said


def refused(error: BaseException, asked: Any = None) -> Refused:
    """Return any error as the answer that it is. What is no error of Strata is a bug of ours.

    Args:
        asked: the params, or our item of a batch, of which a version goes into details.
    """
    if isinstance(error, Refused):
        return error
    if not isinstance(error, StrataError):
        error = InternalError("the server failed at this, and has logged why")
    made = _refused(error.code, error.message, error.hint, error.fields())
    if isinstance(error, BatchFailed) and isinstance(error.__cause__, StrataError):
        why = refused(error.__cause__)
        made.details = {"index": error.index, "code": why.code, "message": why.message}
    return _with_version(made, getattr(asked, "version", None))


def refused_item(refusal: Refusal, item: Fields) -> Refused:
    """Return why an item of a batch was refused."""
    made = _refused(refusal.code, refusal.message, refusal.hint, refusal.fields)
    return _with_version(made, item.get("version"))


def _with_version(made: Refused, version: int | None) -> Refused:
    if made.code in ("MACHINE_NOT_FOUND", "MACHINE_VERSION_EXISTS") and version is not None:
        made.details["version"] = version
    return made


def bad_request(message: str, **details: Any) -> Refused:
    """Return that a request is none."""
    return Refused(BAD_REQUEST, message, details)


def trimmed(error: HistoryTrimmed) -> Refused:
    """Return that what an offset stands for is no longer there."""
    earliest = offset_of(error.oldest + 1)
    return bad_request(f"the log begins at offset {earliest}", earliest_offset=earliest)


def _refused(code: str, message: str, hint: str, fields: Fields) -> Refused:
    found, details = _CODES.get(code, _internal)(fields)
    # Of what is missing or taken the hint names methods of ours, which help no client of rstmdb.
    is_said = hint and code not in ("not_found", "already_exists")
    return Refused(found, f"{message} ({hint})" if is_said else message, details)


def _plain(code: str) -> Callable[[Fields], Said]:
    return lambda fields: (code, {})


def _not_found(fields: Fields) -> Said:
    what, name = fields.get("what"), fields.get("name")
    if what == "machine":
        return "MACHINE_NOT_FOUND", {"machine": name}
    if what == "instance":
        return "INSTANCE_NOT_FOUND", {"instance_id": name}
    return "NOT_FOUND", {}


def _exists(fields: Fields) -> Said:
    if fields.get("what") == "instance":
        return "INSTANCE_EXISTS", {"instance_id": fields.get("name")}
    return "MACHINE_VERSION_EXISTS", {"machine": fields.get("name")}


def _too_much(fields: Fields) -> Said:
    is_versions = str(fields.get("what")).startswith("number of versions of machine")
    code = "MACHINE_VERSION_LIMIT_EXCEEDED" if is_versions else BAD_REQUEST
    return code, {"limit": fields.get("limit"), "actual": fields.get("actual")}


def _unexpected(fields: Fields) -> Said:
    expected, actual = fields.get("expected"), fields.get("actual")
    if fields.get("what") == "state":
        return "CONFLICT", {"expected_state": expected, "actual_state": actual}
    offsets = {"expected_offset": expected, "actual_offset": actual}
    return "CONFLICT", {name: offset_of(at) for name, at in offsets.items() if at is not None}


def _no_way(fields: Fields) -> Said:
    return "INVALID_TRANSITION", {"current_state": fields.get("from_"), "event": fields.get("event")}


def _guarded(fields: Fields) -> Said:
    return "GUARD_FAILED", {**_no_way(fields)[1], "guards": list(fields.get("guards", ()))}


def _trimmed(fields: Fields) -> Said:
    return BAD_REQUEST, {"earliest_offset": offset_of(fields.get("oldest", 0) + 1)}


def _unknown(fields: Fields) -> Said:
    return "WAL_IO_ERROR", {"outcome": "unknown", "transaction": fields.get("transaction")}


_internal: Final = _plain("INTERNAL_ERROR")
_CODES: Final[dict[str, Callable[[Fields], Said]]] = {
    "invalid_input": _plain(BAD_REQUEST),
    "limit_exceeded": _too_much,
    "batch_failed": _plain(BAD_REQUEST),
    "history_trimmed": _trimmed,
    "not_found": _not_found,
    "not_indexed": _plain(BAD_REQUEST),
    "already_exists": _exists,
    "unexpected_state": _unexpected,
    "conflict": _plain("RATE_LIMITED"),  # a thousand others came first, one after the other
    "transaction_lost": _plain("RATE_LIMITED"),
    "invalid_transition": _no_way,
    "guard_failed": _guarded,
    "access_denied": _plain("UNAUTHORIZED"),
    "read_only": _plain("READ_ONLY_MODE"),
    "protected": _plain("READ_ONLY_MODE"),
    "run_closed": _plain("READ_ONLY_MODE"),
    "storage_error": _plain("WAL_IO_ERROR"),
    "corrupt": _plain("WAL_IO_ERROR"),
    "outcome_unknown": _unknown,
}
