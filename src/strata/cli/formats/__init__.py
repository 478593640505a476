"""Files of others: JSON lines, CSV, Arrow, Parquet, SQLite.

A file is a sequence of records, which are maps from column to value. Each format says in its module how a
value stands in it, so that what was written is read again as it was. `columns` finds out what columns hold.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, Final, Literal, Protocol, cast

from strata.core.errors import AlreadyExists, InvalidInput, StorageError

Record = dict[str, Any]
Records = Callable[[], Iterator[Record]]  # the same ones each time it is called
Name = Literal["jsonl", "csv", "arrow", "parquet", "sqlite", "rstmdb"]

NAMES: Final = (
    "jsonl",
    "csv",
    "arrow",
    "parquet",
    "sqlite",
)  # and rstmdb's, which has no records: cli/rstmdb
STDIO: Final = "-"
BY_EXTENSION: Final[dict[str, Name]] = {
    ".jsonl": "jsonl", ".ndjson": "jsonl", ".csv": "csv", ".arrow": "arrow", ".feather": "arrow",
    ".parquet": "parquet", ".sqlite": "sqlite", ".sqlite3": "sqlite", ".db": "sqlite", ".rstmbak": "rstmdb",
}  # fmt: skip


@dataclass(frozen=True)
class Options:
    """What only some formats ask for."""

    table: str  # sqlite: its name
    columns: tuple[str, ...] = ()  # those of every record; empty where records differ
    text: bool = False  # csv: every cell is a text


class Module(Protocol):
    """What the module of a format has."""

    UNIT: str  # what a number in an error message counts

    def read(self, file: str, options: Options) -> Iterator[tuple[int, Any]]:
        """Yield each record with its number; of lines that are a list, the list."""

    def write(self, file: str, records: Records, options: Options) -> int:
        """Write all records; return how many."""


def format_of(file: str, named: str | None) -> Name | None:
    """Return the format that is named, or that the extension says; None is a bundle."""
    if named == "bundle":
        return None
    if named is not None:
        return cast(Name, named)
    suffix = Path(file).suffix.lower()
    if file == STDIO or suffix == ".json":
        raise InvalidInput(f"what is in {file!r}?", hint="say --format, such as --format jsonl")
    return BY_EXTENSION.get(suffix)


def module_of(name: Name) -> Module:
    """Return the module of a format."""
    where = {"jsonl": "lines", "csv": "lines_csv", "arrow": "arrow", "parquet": "arrow", "sqlite": "sqlite"}
    found: Any = import_module(f"{__name__}.{where[name]}")
    return cast(Module, found.PARQUET if name == "parquet" else found)


@contextmanager
def replaced(file: str) -> Iterator[str]:
    """Yield the name of a file to write, which becomes `file` once all is in it.

    Raises: AlreadyExists where there is something; StorageError.
    """
    to = Path(file)
    if to.exists():
        raise AlreadyExists(what="file", name=file, hint="remove it first, or choose another name")
    part = to.with_name(f".{to.name}.part")
    try:
        with written(file):
            yield str(part)
            part.replace(to)
    finally:
        part.unlink(missing_ok=True)


@contextmanager
def written(file: str) -> Iterator[None]:
    """Raise StorageError for what the disk says while `file` is written."""
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as error:
        raise StorageError(f"{file} cannot be written: {error.strerror or error}") from None


@contextmanager
def taken(file: str) -> Iterator[None]:
    """Raise InvalidInput where `file` cannot be read."""
    try:
        yield
    except UnicodeDecodeError as error:
        raise InvalidInput(f"{file} is no UTF-8: {error}") from None
    except OSError as error:
        raise InvalidInput(f"{file} cannot be read: {error.strerror or error}") from None
