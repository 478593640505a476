"""What clients say in frames, checked."""

from __future__ import annotations

from typing import Any, Final

from strata.core.brief import brief
from strata.core.errors import InvalidInput, LimitExceeded, StrataError
from strata.wire.frames import decode_body

_OPTIONS: Final = frozenset({"once", "progress"})
_NO_OPTIONS: Final[dict[str, Any]] = {}
_ONCE_MAX: Final = 1024  # characters
_ALIVE_LEAST_S: Final = 0.05


def credit(body: bytes | memoryview) -> Any:
    """Return how many pages a client has room for; None for what is no number."""
    try:
        return decode_body(body)
    except StrataError:
        return None


def alive_s(hello: dict[str, Any]) -> float:
    """Return how often a client wants to hear that its call is worked on, in seconds; 0 for never.

    Raises: InvalidInput.
    """
    found = hello.get("alive_s")
    if found is None:
        return 0.0
    if isinstance(found, bool) or not isinstance(found, int | float) or not found > 0:
        raise InvalidInput("alive_s is a number of seconds above 0")
    return max(float(found), _ALIVE_LEAST_S)


def call(body: Any) -> tuple[Any, Any, list[Any], dict[str, Any]]:
    """Return the handle, the method, the arguments and the options of a call.

    Raises: InvalidInput; LimitExceeded.
    """
    if not isinstance(body, list) or not 3 <= len(body) <= 4:
        raise InvalidInput("a call is a handle, a method, arguments and perhaps options")
    if len(body) == 4:
        handle, method, arguments, options = body
        _check_options(options)
    else:
        handle, method, arguments = body
        options = _NO_OPTIONS
    if not isinstance(arguments, list):
        raise InvalidInput("arguments are an array")
    return handle, method, arguments, options


def _check_options(options: Any) -> None:
    if not isinstance(options, dict):
        raise InvalidInput("options are a map")
    key = options.get("once")
    if options.keys() - _OPTIONS or not (key is None or (isinstance(key, str) and key)):
        raise InvalidInput(f"the options {brief(options)} are unknown", hint="once: text, progress: true")
    if key is not None and len(key) > _ONCE_MAX:  # it is kept with the commit
        raise LimitExceeded(what="idempotency key", limit=_ONCE_MAX, actual=len(key))
