"""Inspect: what stands in the files of a database, line by line, without opening it.

For the day when opening fails, and for whoever wants to see how it works. Needs no lock and changes nothing.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from strata.api.encryption import OneKey, several_keys
from strata.core.errors import NotFound

Take = Callable[[dict[str, Any]], None]


def inspect_file(
    path: str | os.PathLike[str],
    *,
    rows: int = 10,
    key: OneKey | Sequence[OneKey] | None = None,
    take: Take,
) -> None:
    """Call `take` with each line of a file: a dict with "at" (byte), "kind", and what the kind has.

    What is damaged is a line of the kind "problem" with a "reason". Of a run or bundle the first `rows`
    rows are shown; of what is encrypted no more than that, unless `key` opens it.
    Raises: NotFound, and StorageError where the disk does not give the file.
    """
    from strata.store import inspect  # here, so that `import strata` does not load the kernel

    file = Path(path)
    inspect(str(file.parent), file.name, rows, take, None if key is None else several_keys(key))


def files_of(directory: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield the files of a database in the order in which they are best read.

    Raises: NotFound when there are none.
    """
    place = Path(directory)
    found = [place / "LOCK", place / "MANIFEST", place / "MANIFEST.bak", place / "MANIFEST.tmp"]
    found += [*sorted(place.glob("WAL/wal-*")), *sorted(place.glob("DATA/run-*"))]
    found = [file for file in found if file.is_file()]
    if not found:
        raise NotFound(f"{place} has no files of a database")
    yield from found
