"""What is kept of machines and instances, row by row, and as users get it.

    id                                    the instance:
                                          {machine, machine_version, state, context, created, made,
                                          due?, event_id?, given_by?}
    0x00, "d", machine, 0x00, version     the definition: {digest, definition, checksum}
    0x00, "m", machine, 0x00, id          null: instances by machine
    0x00, "s", machine, 0x00, state, 0x00, id    null: by machine and state
    0x00, "t", due, id, 0x00, event       null: timers, by when they are due
    0x00, "b", due // 2**32               null: there may be timers that are due in these 72 minutes
    0x00, "k", id, 0x00, op, 0x00, key    what a call with an idempotency key had as its result, for 24 hours
    0x00, "K", machine, 0x00, key         [id]: the id that was given by such a creation
    0x00, "g", id                         [ordinal, whether it was there before] of a deletion by a batch

Versions of machines are 4 bytes big-endian, instants 8 of microseconds. `due` is
[[instant, event], ...]. `made` is [steps, item, ...]: how many transitions the instance has made, then what
the commit did that wrote the row, each item as [event, from, payload, event id]; a creation has no event and
no from, a migration no event. Of the newest payload the keys are enough, as its values are in the context,
and where it led is the state. What came before in the same commit has its payload, and behind it all the
state and the context after it. So the history of a row is that of the instance, and costs little more than
the keys of payloads. What a batch or an import did ends in its ordinal, unless it was first.
The rows by machine and state and those of timers follow from it, and expire with it. `event_id` is
that of the newest transition where no item has it, `given_by` the key of a creation without an id.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime
from functools import lru_cache
from typing import Any, Final, cast

import msgspec

from strata.core.clock import to_datetime, to_expiry
from strata.core.errors import InvalidInput
from strata.core.keys import check_name
from strata.core.protocols import Layout
from strata.core.values import text_of
from strata.primitives.machines_definition import check_version, validate
from strata.primitives.machines_findings import Finding
from strata.primitives.machines_pictures import html, mermaid

Row = dict[str, Any]

THINGS: Final = b"\x01"  # the first key that can be an id
DEFINITIONS: Final = b"\0d"
TIMERS: Final = b"\0t"
SPANS: Final = b"\0b"
KEYS: Final = b"\0k"
GONE: Final = b"\0g"
SPAN_BYTES: Final = 4  # of the 8 of an instant
KEY_TTL_US: Final = 24 * 3600 * 1_000_000
_MACHINE: Final = "_machine/"  # so begin the names of definitions in refs
_VERSION_BYTES: Final = 4
_TIME_BYTES: Final = 8
_SETTLED: Final = 6  # that an item has once it says all, or one more
_KEYS_MAX: Final = 4096  # of machines and states, whose keys are needed again and again


LAYOUT: Final = Layout("machines", text_keys=False, finite=True)


class Machine(msgspec.Struct, frozen=True):
    """One version of a machine."""

    name: str
    version: int
    definition: dict[str, Any]  # in its normal form
    checksum: str  # CRC32C of that, as 8 hex digits
    is_new: bool = False  # whether the call that returned it has made it

    @property
    def initial(self) -> str:
        """The state in which instances begin."""
        return str(self.definition["initial"])

    @property
    def states(self) -> tuple[str, ...]:
        """Its states."""
        return tuple(self.definition["states"])

    @property
    def events(self) -> tuple[str, ...]:
        """The events that it knows, sorted."""
        return tuple(sorted({transition["event"] for transition in self.definition["transitions"]}))

    @property
    def meta(self) -> Any:
        """What its maker said about it."""
        return self.definition.get("meta")

    @property
    def warnings(self) -> tuple[Finding, ...]:
        """What is strange about it: states that no way leads to or out of."""
        return validate(self.definition).warnings

    def to_mermaid(self, state: str | None = None) -> str:
        """Return it as a Mermaid state diagram, in which `state` is marked."""
        return mermaid(self.definition, state)

    def _repr_html_(self) -> str:
        return html(f"{self.name} {self.version}", self.definition)

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, str]:
        picture = self.to_mermaid()
        return {"text/vnd.mermaid": picture, "text/html": self._repr_html_(), "text/plain": picture}


class MachineVersions(msgspec.Struct, frozen=True):
    """A machine and its versions."""

    name: str
    versions: tuple[int, ...]


class Cleared(msgspec.Struct, frozen=True):
    """How much was removed."""

    instances: int
    versions: int  # of machines


class Instance(msgspec.Struct, frozen=True):
    """An instance as one commit left it. Inside its transaction it has no version yet."""

    id: str
    machine: str
    machine_version: int
    state: str
    context: dict[str, Any]
    version: int | None  # of the commit that changed it last
    created_us: int
    updated_us: int | None  # None in a diff, which says what is and not when
    steps: int = 0  # how many transitions it has made
    event_id: str | None = None  # of the newest transition
    expires_us: int | None = None
    _made: list[Any] = []  # what its commit did, as rows have it: see `transitions`

    @property
    def ordinal(self) -> int:
        """Which of what its commit did made it so, from 0; above 0 only in a batch."""
        return ordinal_of(self._made[-1]) if self._made else 0

    @property
    def transitions(self) -> tuple[Transition, ...]:
        """What the commit did that left it so, oldest first; a creation too, which has no `from_state`."""
        return tuple(self._transitions())

    def _transitions(self) -> Iterator[Transition]:
        version, time = self.version, self.updated_us
        for item in self._made:
            if len(item) < _SETTLED:
                item = whole(item, self.state, self.context)
            event, source, payload, event_id, to, context, *_ = item
            ordinal = ordinal_of(item)
            yield Transition(
                self.id, event, source, to, context, payload, event_id, version, True, time, ordinal
            )

    def __eq__(self, other: object) -> bool:
        """Return whether both are the same; what the commit did is how it came to be so, not what it is."""
        if type(other) is not Instance:
            return NotImplemented
        return all(getattr(self, name) == getattr(other, name) for name in _SHOWN)

    def __repr__(self) -> str:
        kind = f"{self.machine} {self.machine_version}"
        return f"<Instance {self.id!r} of {kind}, {self.state!r}, {self.context}, version {self.version}>"

    @property
    def created(self) -> datetime:
        """When it was made, in UTC."""
        return to_datetime(self.created_us)

    @property
    def updated(self) -> datetime | None:
        """When it changed last, in UTC, where it is known."""
        return to_expiry(self.updated_us)

    @property
    def expires(self) -> datetime | None:
        """From when on it is gone; None is never."""
        return to_expiry(self.expires_us)


_SHOWN: Final = tuple(name for name in Instance.__struct_fields__ if name[0] != "_")


class Transition(msgspec.Struct, frozen=True):
    """What an event did. In a history a creation has no `from_state`, and a deletion no `to_state`."""

    instance: str
    event: str | None
    from_state: str | None
    to_state: str | None
    context: dict[str, Any]  # after it
    payload: dict[str, Any] | None = None
    event_id: str | None = None
    version: int | None = None  # of the commit; None inside its transaction
    applied: bool = True  # False: an earlier call with this idempotency key did it
    time_us: int | None = None  # of the commit, in a history
    ordinal: int = 0  # which of what its commit did it is; above 0 only in a batch

    @property
    def time(self) -> datetime | None:
        """When, in UTC, where it is known."""
        return None if self.time_us is None else to_datetime(self.time_us)


# -- keys


def instance_key(id: Any) -> bytes:
    """Return the key of an instance."""
    name = check_name(id, "instance id", reserved=True)
    if name.startswith(_MACHINE):
        raise InvalidInput(f"instance id {name!r} starts with {_MACHINE!r}, which is reserved")
    return name.encode()


def known_key(id: Any) -> bytes:
    """Return the key of an instance that is there if the id can be one; cheaper than `instance_key`."""
    try:
        key: bytes = id.encode()
    except (AttributeError, UnicodeEncodeError):
        return instance_key(id)
    return key if key >= THINGS and type(id) is str else instance_key(id)


def check_map(value: Any, what: str) -> dict[str, Any] | None:
    """Return `value` if it is a map or None; what is in it is checked by whoever stores it."""
    if value is not None and type(value) is not dict:
        raise InvalidInput(f"a {what} is a map, not {type(value).__name__}", hint="as in {'total': 500}")
    return cast("dict[str, Any] | None", value)


def machine_name(name: Any) -> str:
    """Return `name` if it can be that of a machine."""
    return check_name(name, "machine", reserved=True)


def definition_prefix(machine: str) -> bytes:
    """Return what the keys of all versions of a machine begin with."""
    return DEFINITIONS + machine.encode() + b"\0"


@lru_cache(maxsize=_KEYS_MAX)
def definition_key(machine: str, version: int) -> bytes:
    """Return the key of a definition."""
    return definition_prefix(machine) + version.to_bytes(_VERSION_BYTES)


def definition_of(key: bytes) -> tuple[str, int]:
    """Return machine and version of the key of a definition."""
    name = key[len(DEFINITIONS) : -_VERSION_BYTES - 1].decode()
    return name, int.from_bytes(key[-_VERSION_BYTES:])


@lru_cache(maxsize=_KEYS_MAX)
def machine_prefix(machine: str) -> bytes:
    """Return what the rows by machine begin with."""
    return f"\0m{machine}\0".encode()


@lru_cache(maxsize=_KEYS_MAX)
def state_prefix(machine: str, state: str) -> bytes:
    """Return what the rows by machine and state begin with."""
    return f"\0s{machine}\0{state}\0".encode()


def timer_key(due: int, id: bytes, event: str) -> bytes:
    """Return the key of a timer."""
    return timers_until(due - 1) + id + b"\0" + event.encode()


def timers_until(now: int) -> bytes:
    """Return the first key behind those of the timers that are due at an instant."""
    return TIMERS + (now + 1).to_bytes(_TIME_BYTES)


def span_of(timer: bytes) -> bytes:
    """Return the key of the span of time in which a timer is due."""
    return SPANS + timer[len(TIMERS) : len(TIMERS) + SPAN_BYTES]


def timer_of(key: bytes) -> tuple[int, bytes, str]:
    """Return when a timer is due, for which instance, and its event."""
    at = len(TIMERS) + _TIME_BYTES
    id, _, event = key[at:].partition(b"\0")
    return int.from_bytes(key[len(TIMERS) : at]), id, event.decode()


def keys_prefix(id: bytes) -> bytes:
    """Return what the rows of the idempotency keys of an instance begin with."""
    return KEYS + id + b"\0"


def once_key(id: bytes, op: str, key: str) -> bytes:
    """Return the key of the result of a call with an idempotency key."""
    return keys_prefix(id) + f"{op}\0{key}".encode()


def once_of(key: bytes) -> tuple[bytes, str, str]:
    """Return the id, the operation and the idempotency key of such a row."""
    id, op, once = key[len(KEYS) :].split(b"\0", 2)
    return id, op.decode(), once.decode()


def given_key(machine: str, key: str) -> bytes:
    """Return the key of the id that a creation without one was given."""
    return f"\0K{machine}\0{key}".encode()


def gone_key(id: bytes) -> bytes:
    """Return the key of what is kept of a deletion by a batch."""
    return GONE + id


def follows(key: bytes, row: Row) -> list[bytes]:
    """Return the keys of the rows that follow from that of an instance."""
    found = [machine_prefix(row["machine"]) + key, state_prefix(row["machine"], row["state"]) + key]
    return found + [timer_key(due, key, event) for due, event in row.get("due", ())]


# -- names in refs


def name_of(key: bytes) -> str | None:
    """Return what refs call the thing under a key; None for a row that is no thing."""
    if key >= THINGS:
        return key.decode()
    if key.startswith(DEFINITIONS):
        name, version = definition_of(key)
        return f"{_MACHINE}{name}/{version}"
    return None


def place_of(name: str) -> bytes:
    """Return the key of what refs call `name`.

    Raises: InvalidInput, and LimitExceeded, when that cannot be one.
    """
    if not name.startswith(_MACHINE):
        return instance_key(name)
    machine, _, version = name[len(_MACHINE) :].rpartition("/")
    if not (version.isascii() and version.isdigit()):
        raise InvalidInput(f"{name!r} names no definition", hint=f"as in {_MACHINE}order/1")
    return definition_key(machine_name(machine), check_version(int(version)))


# -- as users get them


def machine_of(key: bytes, row: Row, is_new: bool = False) -> Machine:
    """Return a definition as the user gets it."""
    return Machine(*definition_of(key), row["definition"], row["checksum"], is_new)


def instance_of(key: bytes, row: Row, version: int | None, time: int | None, expires: int | None) -> Instance:
    """Return an instance as the user gets it."""
    made = row["made"]
    return Instance(
        key.decode(),
        row["machine"],
        row["machine_version"],
        row["state"],
        row["context"],
        version,
        row["created"],
        row["created"] if made[0] == 0 and time is not None else time,
        made[0],
        made[-1][3] if len(made) > 1 else row.get("event_id"),
        expires,
        made[1:],
    )


def settled(row: Row) -> list[Any]:
    """Return the items of a row as they are kept once another of the same commit follows."""
    *items, last = row["made"][1:]
    return [*items, whole(last, row["state"], row["context"])]


def whole(item: Sequence[Any], state: str, context: dict[str, Any]) -> list[Any]:
    """Return the newest item of a row so that it says all that the row said of it."""
    event, source, keys, event_id, *ordinal = item
    return [event, source, payload_of(keys, context), event_id, state, context, *ordinal]


def ordinal_of(item: Sequence[Any]) -> int:
    """Return which of what its commit did an item is."""
    return int(item[-1]) if len(item) % 2 else 0


def payload_of(keys: Sequence[str] | None, context: dict[str, Any]) -> dict[str, Any] | None:
    """Return a payload by its keys."""
    return None if keys is None else {name: context[name] for name in keys}


def line_of(shown: Any) -> str:
    """Return a machine or an instance on a line."""
    if isinstance(shown, Machine):
        return f"{len(shown.states)} states, {len(shown.definition['transitions'])} transitions"
    return f"{shown.state} {text_of(shown.context)}"
