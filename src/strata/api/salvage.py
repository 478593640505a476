"""Salvage: what is whole of a damaged database, as a new one, and a word on what is not."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from strata.api.encryption import Keys, key_bytes, several_keys
from strata.api.portable import AnyPath, check_path
from strata.core.clock import to_datetime
from strata.core.errors import InvalidInput

Progress = Callable[[int, int], object]  # bytes read, of how many


@dataclass(frozen=True, slots=True)
class LostPlace:
    """One version of a key."""

    branch: str
    space: str
    primitive: str
    """Or what the database keeps beside the data: "catalogue" (which spaces there are), "commits", "notes"
    (messages and reads of commits), "idempotency keys". They have no space."""
    key: bytes
    """As it is stored: of kv, state and json the text; of events the stream, a zero byte and the sequence."""
    version: int

    def __str__(self) -> str:
        name = self.key.decode("utf-8", "backslashreplace")
        return f"{'/'.join(filter(None, (self.branch, self.space, self.primitive, name)))} @{self.version}"


@dataclass(frozen=True, slots=True)
class Loss:
    """One part of the database that is not in the new one, or may not be."""

    file: str
    offset: int
    length: int
    """Of the bytes that say nothing any more; 0 when that is not known, or no bytes are damaged there."""
    what: str
    reason: str
    first: LostPlace | None
    """What was kept last before it and first behind it, in the order of branch, space, primitive and key:
    what is lost lies between. Both are the same where one version of one key is lost. None: from the
    beginning, or to the end, of the run."""
    last: LostPlace | None
    versions: tuple[int, int] | None
    """The first and the last version that it may concern, where that is known."""

    def __str__(self) -> str:
        said = [f"{self.file} at byte {self.offset}: {self.what}"]
        if self.first is not None and self.first == self.last:
            said.append(f", {self.first}")
        elif self.first is not None or self.last is not None:
            said.append(f", between {self.first or 'the beginning'} and {self.last or 'the end'}")
        if self.versions is not None and self.first is None:
            first, last = self.versions
            said.append(f", version {first}" if first == last else f", versions {first} to {last}")
        return f"{''.join(said)} ({self.reason})"


@dataclass(frozen=True, slots=True)
class Salvaged:
    """What was kept of a damaged database, and what was lost."""

    version: int
    """The newest that was kept."""
    timestamp: datetime | None
    """When it was committed; None before the first commit."""
    branches: tuple[str, ...]
    rows: int
    """Versions of keys, and what belongs to the commits."""
    records: int
    """Of the log, those that were kept."""
    lost: tuple[Loss, ...]

    @property
    def is_whole(self) -> bool:
        """Whether nothing is lost: the new database then says all that the old one did."""
        return not self.lost


def salvage(
    path: AnyPath, to: AnyPath, *, key: Keys | None = None, progress: Progress | None = None
) -> Salvaged:
    """Make the new database `to` of all that is whole in the damaged one at `path`; say what is lost.

    The old one is only read, whatever is wrong with it. Each version of each key that is in the new one is as
    it was in the old one; what cannot be proven is left out. Where the newest version of a key is lost, an
    older one, or one from before it was deleted, may be the newest now: `lost` names the keys and versions.
    What was forgotten, or has expired, does not come back.

    Args:
        path: the damaged database. Nobody may have it open to write.
        to: a directory that does not exist or is empty, outside of `path`. It appears when all is there.
        key: of an encrypted database, as for `strata.open`. The new one is encrypted with the same.
        progress: called now and then with the bytes that were read and those there are. What it raises ends
            the salvage, and comes out of it.
    Raises: NotFound when there is nothing at `path`; InvalidInput when that is no database, or `to` is inside
        it; AlreadyExists when there is something in `to`; Locked when it is open elsewhere; NeedsKey; Corrupt
        when not even the database's id can be read. Then nothing was written.
    Cost: reads all files and writes what is kept; the log behind the last checkpoint takes memory.
    """
    from strata.store import salvage  # here, so that `import strata` does not load the kernel

    damaged, new = check_path(path), check_path(to)
    if progress is not None and not callable(progress):
        raise InvalidInput(f"progress is a function, not {progress!r}")

    def attempt(keys: list[bytes]) -> dict[str, Any]:
        return salvage(damaged, new, keys, progress)

    made = attempt(_keys(key, damaged))
    return Salvaged(
        version=made["version"],
        timestamp=to_datetime(made["time"]) if made["time"] else None,
        branches=tuple(made["branches"]),
        rows=made["rows"],
        records=made["records"],
        lost=tuple(_loss(found) for found in made["lost"]),
    )


def _keys(given: Keys | None, path: str) -> list[bytes]:
    """The current key first. A function is asked for each that a file names, as far as they can be read."""
    if given is None:
        return []
    if not callable(given):
        return several_keys(given)
    from strata.store import sealed_with_any

    ids: list[str | None] = [*sealed_with_any(path)]
    return [key_bytes(given(needed)) for needed in ids or [None]]


def _loss(found: dict[str, Any]) -> Loss:
    first, last = (LostPlace(*place) if place else None for place in (found.pop("first"), found.pop("last")))
    return Loss(first=first, last=last, **found)
