"""EntityRef: the address of one thing, `strata://branch/space/primitive/key[#path][@version]`.

Names and keys are percent-escaped UTF-8; the key is the rest, so its slashes stay. `#`, `@` and `%` are
always escaped inside a part, so the first `#` and the last `@` are the marks.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final
from urllib.parse import quote, unquote

from strata.core import paths
from strata.core.errors import InvalidInput
from strata.core.protocols import Path

_SCHEME: Final = "strata://"
_NAME_SAFE: Final = ":,;=!$&'()*+"
_KEY_SAFE: Final = _NAME_SAFE + "/"
_PATH_SAFE: Final = _KEY_SAFE + "[]"


@dataclass(frozen=True, slots=True, order=True)
class EntityRef:
    """The address of one thing. Without a version: as it is now."""

    branch: str
    space: str
    primitive: str
    key: str
    path: Path | None = None
    version: int | None = None

    def __str__(self) -> str:
        names = "/".join(quote(name, safe=_NAME_SAFE) for name in (self.branch, self.space, self.primitive))
        path = "" if self.path is None else "#" + quote(paths.render(self.path), safe=_PATH_SAFE)
        version = "" if self.version is None else f"@{self.version}"
        return f"{_SCHEME}{names}/{quote(self.key, safe=_KEY_SAFE)}{path}{version}"

    @classmethod
    def parse(cls, text: str) -> EntityRef:
        """Return the ref that `text` writes.

        Raises: InvalidInput when it is not one.
        """
        try:
            return _parse(text)
        except (ValueError, AttributeError, TypeError) as error:
            raise InvalidInput(
                f"{text!r} is no ref: {error}", hint="as in strata://main/default/kv/key#$.path@12"
            ) from None


def readable(key: str | bytes) -> str:
    """Return a key as refs write it: bytes as `name/7` (name, NUL, number) or `name/rest` (name, NUL, text).

    A text never holds a NUL and a sequence below 2**56 begins with one, so the two cannot be confused.
    """
    if isinstance(key, str):
        return key
    try:
        if 0 not in key:
            return key.decode()
        name, _, rest = key.partition(b"\0")
        if len(rest) == 8 and rest[0] == 0:
            return f"{name.decode()}/{int.from_bytes(rest)}"
        return f"{name.decode()}/{rest.decode()}" if rest else name.decode()
    except UnicodeDecodeError:
        return f"~{key.hex()}"


def _parse(text: str) -> EntityRef:
    if not text.startswith(_SCHEME):
        raise ValueError(f"it does not start with {_SCHEME}")
    rest, at, version = text[len(_SCHEME) :].rpartition("@")
    if not at:
        rest, version = version, ""
    elif not (version.isascii() and version.isdigit()):
        raise ValueError(f"version {version!r} is no number")
    rest, mark, path = rest.partition("#")
    parts = [unquote(part, errors="strict") for part in rest.split("/", 3)]
    if len(parts) != 4 or not all(parts):
        raise ValueError("it needs a branch, a space, a primitive and a key")
    steps = paths.parse(unquote(path, errors="strict")) if mark else None
    return EntityRef(parts[0], parts[1], parts[2], parts[3], steps, int(version) if at else None)
