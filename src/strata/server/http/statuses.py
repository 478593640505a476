"""Statuses: which error is which, and what is refused before there is an operation to refuse it.

A client that sent nonsense gets a status below 500, always; from 500 on it is the server's, the disk's, ours.
"""

from __future__ import annotations

from typing import Final

from strata.core import errors
from strata.core.errors import InternalError, InvalidInput, StrataError

# 401 is AccessDenied where there was no token, or none that is known: `status_of` tells them apart.
STATUS: Final[dict[type[StrataError], int]] = {
    errors.InvalidInput: 400,
    errors.AccessDenied: 403,
    errors.ReadOnly: 403,
    errors.Protected: 403,
    errors.NotFound: 404,
    errors.AlreadyExists: 409,
    errors.Conflict: 409,
    errors.InvalidTransition: 409,
    errors.BatchFailed: 409,
    errors.RunClosed: 409,
    errors.ReplayMismatch: 409,
    errors.RecordedError: 409,
    errors.HistoryTrimmed: 410,
    errors.LimitExceeded: 413,
    errors.NotIndexed: 422,
    errors.InternalError: 500,
    errors.OutcomeUnknown: 500,  # no 503 or 504, which proxies and clients take for "try again"
    errors.Corrupt: 500,
    errors.RemoteError: 502,
    errors.Closed: 503,
    errors.Locked: 503,
    errors.NeedsKey: 503,
    errors.StorageError: 503,
}
NO_TOKEN: Final = ("", "nothing")


class Refused(Exception):
    """A request that is answered with an error, and a status that the error alone does not say."""

    def __init__(self, status: int, error: StrataError, headers: dict[str, str] | None = None) -> None:
        super().__init__(status, error)
        self.status, self.error, self.headers = status, error, headers or {}


def refused(error: BaseException) -> Refused:
    """Return an error as the answer that it is. What is no error of Strata is a bug of ours."""
    if isinstance(error, Refused):
        return error
    if not isinstance(error, StrataError):
        error = InternalError("the server failed at this, and has logged why")
    status = status_of(error)
    return Refused(status, error, {"WWW-Authenticate": "Bearer"} if status == 401 else {})


def status_of(error: StrataError) -> int:
    """Return the status of an error: of the nearest class that has one."""
    if isinstance(error, errors.AccessDenied) and error.given in NO_TOKEN:
        return 401
    return next(STATUS[cls] for cls in type(error).__mro__ if cls in STATUS)


def codes() -> list[str]:
    """Return the codes of all errors, sorted."""
    found, left = set(), [StrataError]
    while left:
        cls = left.pop()
        left += cls.__subclasses__()
        found.add(cls.code)
    return sorted(found - {StrataError.code})


def bad_request(message: str, status: int = 400, *, hint: str = "", **headers: str) -> Refused:
    """Return the answer to a request that is none."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return Refused(status, InvalidInput(message, hint=hint), named)
