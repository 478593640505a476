"""Who may do what: tokens and what each allows.

A file of tokens has one a line: the SHA-256 of the token in hex, what it allows (read, write or admin), and
then a name if you like. `strata token` makes such a line. A hash alone allows all, as in a file of rstmdb's.
The file holds no token, so who reads it has none.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Final

from strata.core.errors import AccessDenied, InvalidInput, NotFound
from strata.wire.asks import ACCESSES, Access

_HEX: Final = 64


class Tokens:
    """Tokens by their hashes. What is not in it is refused."""

    def __init__(self, hashes: Mapping[str, Access]) -> None:
        self._hashes = {bytes.fromhex(digest): access for digest, access in hashes.items()}

    def __len__(self) -> int:
        return len(self._hashes)

    def access_of(self, token: object) -> Access:
        """Return what a token allows.

        Raises: AccessDenied, whose text does not hold the token.
        """
        if not isinstance(token, str) or not token:
            raise AccessDenied("a token is required here", needed="read", given="nothing", hint="token=...")
        given = hashlib.sha256(token.encode("utf-8", "surrogatepass")).digest()
        found: Access | None = None
        for digest, access in self._hashes.items():
            if hmac.compare_digest(digest, given):  # all are looked at, so that time says nothing
                found = access
        if found is None:
            raise AccessDenied("this token is not known here", needed="read", given="nothing")
        return found


NOBODY: Final = Tokens({})


def hash_of(token: str) -> str:
    """Return what is kept of a token."""
    return hashlib.sha256(token.encode()).hexdigest()


def new_token() -> str:
    """Return a token that nobody can guess."""
    return f"strata_{secrets.token_urlsafe(32)}"


def read_tokens(path: Path) -> Tokens:
    """Return the tokens of a file.

    Raises: NotFound; InvalidInput, naming the line.
    """
    try:
        lines = path.read_text("utf-8").splitlines()
    except FileNotFoundError:
        raise NotFound(what="file of tokens", name=str(path)) from None
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidInput(f"{path} cannot be read as tokens: {error}") from None
    return tokens_of(lines, str(path))


def tokens_of(lines: Iterable[str], where: str = "tokens") -> Tokens:
    """Return the tokens of lines.

    Raises: InvalidInput, naming the line.
    """
    found: dict[str, Access] = {}
    for number, line in enumerate(lines, 1):
        words = line.split(maxsplit=2)
        if not words or words[0].startswith("#"):
            continue
        is_hash = len(words[0]) == _HEX and all(mark in "0123456789abcdef" for mark in words[0])
        if len(words) == 1:
            words.append("admin")
        if not is_hash or words[1] not in ACCESSES:
            raise InvalidInput(
                f"{where}, line {number}, is not the SHA-256 of a token and what it allows",
                hint="as `strata token` prints it: HASH read|write|admin NAME",
            )
        found[words[0]] = words[1]
    return Tokens(found)
