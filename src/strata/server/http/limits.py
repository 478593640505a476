"""What HTTP clients may take of a server."""

from __future__ import annotations

from dataclasses import dataclass, fields

from strata.core.errors import InvalidInput


@dataclass(frozen=True, slots=True)
class HttpLimits:
    """Each a bound on what one client, or all, can make the server keep or do."""

    body_bytes: int = 32 << 20  # of one request
    reader_body_bytes: int = 1 << 20  # of one who may only read
    head_bytes: int = 32 << 10  # of its line and headers; a key may be 1 KiB, three times that when escaped
    connections: int = 1_000
    threads: int = 16  # that work on what takes long
    watches: int = 100  # open at one time, each with a thread that waits
    head_s: float = 10  # within which a request's headers are there
    body_s: float = 60  # within which its body is
    stall_s: float = 30  # in which a client that reads takes something of its answer
    heartbeat_s: float = 15  # after which a watch says that it is still there
    drain_s: float = 10  # how long an end waits for what is under way

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            is_number = isinstance(value, int | float) and not isinstance(value, bool)
            if not is_number or not value > 0 or (not field.name.endswith("_s") and value != int(value)):
                raise InvalidInput(f"the limit {field.name} is a number above 0, not {value!r}")
