"""Keys for encryption at rest: the forms in which one is given, and how it becomes the kernel's bytes.

A key is 32 random bytes. It comes from a vault, a file or a function, and goes straight to the kernel: it is
in no error, no repr and no file of the database. Files name it by its id, 16 hex digits of a hash of it.
"""

from __future__ import annotations

import binascii
import os
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Final, TypeVar

from strata.core.errors import InvalidInput, NeedsKey

if TYPE_CHECKING:
    from strata.store import SimDisk

KEY_BYTES: Final = 32
_HEX = KEY_BYTES * 2

# The bytes, or a file that holds them, as they are or as hex digits.
OneKey = bytes | bytearray | memoryview | os.PathLike[str]
# Is told the id of the key that is needed, or None for the one to encrypt a new database with.
KeyFunction = Callable[[str | None], OneKey]
# A sequence is the current key, and older ones that files may still be sealed with.
Keys = OneKey | KeyFunction | Sequence[OneKey]

_FORMS = "32 random bytes, a Path to a file with them or with 64 hex digits, or a function that returns one"
_OLDER_KEYS_MAX = 16

Opened = TypeVar("Opened")


def key_bytes(given: object) -> bytes:
    """Return the 32 bytes of one key. Raises InvalidInput, without the key in it."""
    if isinstance(given, bytes | bytearray | memoryview):
        return _checked(bytes(given), "a key")
    if isinstance(given, os.PathLike):
        return _from_file(os.fspath(given))
    raise InvalidInput(f"a key is not of the type {type(given).__name__}", hint=_FORMS)


def _checked(key: bytes, what: str) -> bytes:
    if len(key) != KEY_BYTES:
        raise InvalidInput(f"{what} has {KEY_BYTES} bytes, not {len(key)}", hint=_FORMS)
    if len(set(key)) == 1:
        raise InvalidInput(f"{what} is no random bytes", hint="os.urandom(32) makes a key")
    return key


def _from_file(path: str | bytes) -> bytes:
    where = f"the key file {os.fsdecode(path)!r}"
    try:
        with open(path, "rb") as file:
            content = file.read(_HEX + 3)
    except OSError as error:
        raise InvalidInput(f"{where} cannot be read: {error.strerror}") from None
    if len(content) == KEY_BYTES:
        return _checked(content, where)
    try:
        digits = content.removesuffix(b"\n").removesuffix(b"\r")
        return _checked(binascii.unhexlify(digits) if len(digits) == _HEX else b"", where)
    except (ValueError, InvalidInput):
        raise InvalidInput(f"{where} holds no key: 32 bytes, or 64 hex digits") from None


def several_keys(keys: OneKey | Sequence[OneKey]) -> list[bytes]:
    """Return the current key, and those before it. Raises InvalidInput."""
    several = isinstance(keys, Sequence) and not isinstance(keys, bytes | bytearray | memoryview | str)
    given = [key_bytes(key) for key in keys] if several else [key_bytes(keys)]  # type: ignore[union-attr]
    if not given:
        raise InvalidInput("no key was given", hint=_FORMS)
    return given


def with_keys(
    keys: Keys | None, attempt: Callable[[list[bytes]], Opened], first: Callable[[], str | None] | None = None
) -> Opened:
    """Call `attempt` with what `keys` gives: the current key, and those before it.

    A function is asked for the key of the id that `first` returns, and then for those that turn out to be
    needed; without `first` for these only.
    """
    if keys is None:
        return attempt([])
    if not callable(keys):
        return attempt(several_keys(keys))
    found = [] if first is None else [key_bytes(keys(first()))]
    asked: set[str] = set()
    while True:
        try:
            return attempt(found)
        except NeedsKey as error:
            # In the middle of a change of keys, files need the one before, too.
            if error.needed in asked or len(asked) == _OLDER_KEYS_MAX:
                raise
            asked.add(error.needed)
            found.append(key_bytes(keys(error.needed)))


def id_in(path: str, disk: SimDisk | None = None) -> str | None:
    """Return the id of the key that the database in `path` is encrypted with; None for none.

    Raises: Corrupt.
    """
    from strata.store import sealed_with

    # A database that is not encrypted is refused with any key, as if it were given as bytes.
    return sealed_with(path, disk) or None
