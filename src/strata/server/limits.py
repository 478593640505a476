"""What clients may take of a server."""

from __future__ import annotations

from dataclasses import dataclass

from strata.core.errors import InvalidInput
from strata.wire.frames import FRAME_BYTES_LEAST, FRAME_BYTES_MAX


@dataclass(frozen=True, slots=True)
class Limits:
    """Each a bound on what one client, or all, can make the server keep or do."""

    connections: int = 10_000
    frame_bytes: int = FRAME_BYTES_MAX  # of one request
    reader_frame_bytes: int = 1 << 20  # of one who may only read: what is asked is short
    in_flight: int = 256  # calls of one connection that wait for the disk, or work long
    threads: int = 32  # that work on such calls, of all connections
    waiting: int = 1_000  # calls that wait for what others do, of all connections
    greeting_s: float = 10  # within which a client says who it is
    idle_s: float = 0  # after which a connection that asks nothing is closed; 0: never
    stalled_s: float = 300  # after which one is that neither reads its answers nor sends the rest of a frame
    transaction_idle_s: float = 300  # after which an open transaction is rolled back
    drain_s: float = 10  # how long an end waits for calls that are under way

    def __post_init__(self) -> None:
        for name in self.__slots__:
            value = getattr(self, name)
            least = 0 if name in ("idle_s", "drain_s") else 1e-3 if name.endswith("_s") else 1
            least = FRAME_BYTES_LEAST if name.endswith("frame_bytes") else least
            if isinstance(value, bool) or not isinstance(value, int | float) or value < least:
                raise InvalidInput(f"the limit {name} is a number from {least}, not {value!r}")
