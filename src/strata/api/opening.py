"""What opening a database takes: its options, checked, and the store of one that is ours.

`strata.open` is in `remote/shared.py`, where it is also known what to do when another process has it open.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal

from strata.api.database import Database
from strata.api.encryption import Keys, id_in, with_keys
from strata.api.portable import check_path
from strata.core.errors import InvalidInput
from strata.core.keys import check_int, check_name
from strata.core.protocols import Store

if TYPE_CHECKING:
    from strata.store import SimDisk as SimDisk

Clock = Callable[[], int]  # microseconds since 1970, UTC
Durability = Literal["memory", "buffered", "strict"]

_LEAST_MEMORY: Final = 1 << 20
_FLUSH_INTERVAL_MAX_MS: Final = 3_600_000
_DURABILITIES: Final = ("memory", "buffered", "strict")


@dataclass(frozen=True, slots=True, kw_only=True)
class Opening:
    """The options of `strata.open`, as given; made, they are checked."""

    path: str | os.PathLike[str] | None
    durability: Durability | None
    branch: str
    space: str
    create: bool
    read_only: bool
    memory_budget: int | None
    flush_interval_ms: float
    key: Keys | None
    disk: SimDisk | None
    clock: Clock | None

    def __post_init__(self) -> None:
        directory = self.directory
        _check_durability(self.mode, on_disk=directory is not None or self.disk is not None)
        _check_limits(self.memory_budget, self.flush_interval_ms)
        check_name(self.branch, "branch")
        check_name(self.space, "space")
        if self.key is not None and self.mode == "memory":
            raise InvalidInput("a database in memory has no files to encrypt", hint="leave out the key")

    @property
    def directory(self) -> Path | None:
        """Where the files are; None without."""
        if self.path is None:
            return None
        return Path(check_path(self.path, hint="strata.open() is in memory"))

    @property
    def mode(self) -> Durability:
        """The durability that was asked for, or the one that goes with the rest."""
        if self.durability is not None:
            return self.durability
        return "memory" if self.path is None and self.disk is None else "buffered"

    def store(self, *, shared_at: str | None = None) -> Store:
        """Return the store, which is then ours; `shared_at` tells others where they will be served.

        Raises: what `strata.open` raises.
        """
        from strata.store import open_store  # here, so that `import strata` does not load the kernel

        directory = self.directory

        def attempt(keys: list[bytes]) -> Store:
            return open_store(
                None if directory is None else str(directory),
                durability=self.mode,
                create=self.create,
                read_only=self.read_only,
                memory_budget=self.memory_budget,
                flush_interval_ms=self.flush_interval_ms,
                shared_at=shared_at,
                keys=keys,
                disk=self.disk,
                clock=self.clock,
            )

        return with_keys(self.key, attempt, first=lambda: id_in(str(directory or ""), self.disk))

    def check_keys(self) -> None:
        """Do nothing if the key that was given opens the database, which another process has open.

        Raises: NeedsKey; InvalidInput for a key to a database that is not encrypted.
        """
        from strata.store import check_keys

        directory = str(self.directory)
        with_keys(self.key, lambda keys: check_keys(directory, keys), first=lambda: id_in(directory))

    def database(self, store: Store, closes: Any = None) -> Database:
        """Return the database over a store, which is closed when that cannot be.

        Args:
            closes: what closes the store, and what belongs to it; left out, the store itself.
        """
        try:
            return Database(store, branch=self.branch, space=self.space, path=self.directory, closes=closes)
        except BaseException:
            (closes or store).close()  # an unknown branch must not leave the directory locked
            raise


def version() -> str:
    """Return the version of the package, which only the kernel knows."""
    from strata.store import __version__

    return __version__


def _check_durability(durability: str, *, on_disk: bool) -> None:
    if durability not in _DURABILITIES:
        raise InvalidInput(f"durability {durability!r} is unknown", hint=f"one of {', '.join(_DURABILITIES)}")
    if durability == "memory" and on_disk:
        raise InvalidInput(
            "durability 'memory' writes no files, so it takes no path",
            hint="leave out the path, or choose 'buffered' or 'strict'",
        )
    if durability != "memory" and not on_disk:
        raise InvalidInput(f"durability {durability!r} needs a path", hint="strata.open() is in memory")


def _check_limits(memory_budget: object, flush_interval_ms: object) -> None:
    if memory_budget is not None:
        check_int(memory_budget, "memory_budget", _LEAST_MEMORY)
    number = type(flush_interval_ms) in (int, float)
    if not number or not 0 < flush_interval_ms <= _FLUSH_INTERVAL_MAX_MS:  # type: ignore[operator]
        raise InvalidInput(
            f"flush_interval_ms is a number above 0 and up to an hour, not {flush_interval_ms!r}"
        )
