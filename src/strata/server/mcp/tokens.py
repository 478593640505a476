"""Who may connect over HTTP, and what they may do.

A file of tokens has one a line: the SHA-256 of the token in hex, what it allows (read, write or admin), and
then a name if you like. It holds no token, so who reads the file has none.

    read     the tools that read
    write    those that write as well
    admin    making and deleting branches as well
"""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Final, cast, get_args

from strata.api.operations import Access
from strata.core.errors import InvalidInput, NotFound

_HASH: Final = re.compile(r"[0-9a-f]{64}")


class Tokens:
    """Tokens by their hashes. What is not in it is refused."""

    def __init__(self, hashes: Mapping[str, Access]) -> None:
        self._hashes = {bytes.fromhex(digest): access for digest, access in hashes.items()}

    def __len__(self) -> int:
        return len(self._hashes)

    def access_of(self, token: str) -> Access | None:
        """Return what a token allows, or None for one that is not known."""
        given = hashlib.sha256(token.encode("utf-8", "surrogatepass")).digest()
        found: Access | None = None
        for digest, access in self._hashes.items():
            if hmac.compare_digest(digest, given):  # all are looked at, so that time says nothing
                found = access
        return found


NOBODY: Final = Tokens({})


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
        if len(words) < 2 or not _HASH.fullmatch(words[0]) or words[1] not in get_args(Access):
            raise InvalidInput(
                f"{where}, line {number}, is not the SHA-256 of a token and what it allows",
                hint="as in HASH read|write|admin NAME",
            )
        found[words[0]] = cast(Access, words[1])
    return Tokens(found)
