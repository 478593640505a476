"""Keys and names: what may be one, and the errors that say why something may not.

The kernel checks text keys itself; this is for the model, for names, and for arguments it never sees.
"""

from __future__ import annotations

import re
from typing import Any, Final

from strata.core.errors import InvalidInput, LimitExceeded

MAX_KEY_BYTES: Final = 1024
MAX_NAME_BYTES: Final = 255
MAX_TEXT_BYTES: Final = 65_536

_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f-\x9f]")


def check_key(key: Any) -> str:
    """Return `key` if it is a text key: str, 1 to 1024 bytes of UTF-8, no NUL."""
    _sized(key, "key", MAX_KEY_BYTES)
    if "\0" in key:
        raise InvalidInput(f"key {key!r} has a NUL character")
    return str(key)


def check_name(name: Any, what: str, *, reserved: bool = False) -> str:
    """Return `name` if it may name a `what`: 1 to 255 bytes of UTF-8, no control characters, no leading `_`.

    Args:
        reserved: allow the leading `_`, which marks what belongs to Strata itself.
    """
    _sized(name, what, MAX_NAME_BYTES)
    if _CONTROL.search(name):
        raise InvalidInput(f"{what} {name!r} has a control character")
    if name[0] == "_" and not reserved:
        raise InvalidInput(
            f"{what} {name!r} starts with '_', which is reserved", hint=f"use {name.lstrip('_')!r}"
        )
    return str(name)


def check_text(text: Any, what: str) -> str:
    """Return `text` if it is a str of 1 to 65,536 bytes of UTF-8: a reason, a note."""
    _sized(text, what, MAX_TEXT_BYTES)
    return str(text)


def check_int(number: Any, what: str, least: int = 0) -> int:
    """Return `number` if it is an int of 64 bits and at least `least`."""
    if type(number) is not int or not least <= number < 2**63:
        raise InvalidInput(f"{what} is an int from {least} to 2**63 - 1, not {number!r}")
    return number


def _sized(text: Any, what: str, limit: int) -> None:
    if type(text) is not str:
        hint = "use str(...)" if not isinstance(text, bytes) else "use .decode()"
        raise InvalidInput(f"a {what} is a str, not {type(text).__name__}", hint=hint)
    if not text:
        raise InvalidInput(f"a {what} is at least one character long")
    try:
        size = len(text.encode())
    except UnicodeEncodeError:
        raise InvalidInput(f"{what} {text!r} has a lone surrogate and is no Unicode text") from None
    if size > limit:
        raise LimitExceeded(what=f"size of the {what} in bytes", limit=limit, actual=size)
