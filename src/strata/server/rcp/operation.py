"""An operation: its name, what it takes, who may, and what runs it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import msgspec
from msgspec import Raw, Struct

from strata.server.rcp.errors import bad_request
from strata.wire.asks import Access

if TYPE_CHECKING:
    from strata.server.rcp.session import Session

Result = Struct | dict[str, Any]


@dataclass(frozen=True, slots=True)
class Operation:
    """One operation of RCP."""

    name: str
    access: Access | None  # None: it needs no token
    params: type[Struct]
    run: Callable[[Session, Any], Result]
    writes: bool = False
    slow: bool = False  # it may take more than microseconds, so a thread does it
    decoder: msgspec.json.Decoder[Any] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "decoder", msgspec.json.Decoder(self.params))

    def read(self, given: Raw) -> Any:
        """Return the params that were given.

        Raises: Refused for what they cannot be.
        """
        raw = bytes(given)
        try:
            return self.decoder.decode(b"{}" if raw == b"null" else raw)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            raise bad_request(f"{self.name}: {error}") from None
