"""SQLite: a table, with the standard library.

Columns are INTEGER, REAL, TEXT or BLOB where all their values are of that kind, and otherwise JSON_TEXT: JSON
texts, in a type whose name makes SQLite keep texts as they are. A column of others that is declared as
something else is read as what SQLite says it holds.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any, Final

from strata.cli.formats import Options, Record, Records, replaced
from strata.cli.formats.columns import Kind, from_text, survey, to_text
from strata.core.errors import AlreadyExists, InvalidInput, NotFound, StorageError

UNIT: Final = "row"

_JSON: Final = "JSON_TEXT"
_TYPES: Final[dict[Kind, str]] = {"int": "INTEGER", "float": "REAL", "text": "TEXT", "bytes": "BLOB"}


def read(file: str, options: Options) -> Iterator[tuple[int, Record]]:
    """Yield each row and its number.

    Raises: NotFound for the table; InvalidInput for what is no database of SQLite.
    """
    if not Path(file).is_file():
        raise InvalidInput(f"{file} is no file")
    try:
        uri = f"{Path(file).absolute().as_uri()}?mode=ro"
        with closing(sqlite3.connect(uri, uri=True)) as database:
            yield from _rows(database, options.table)
    except sqlite3.Error as error:
        raise InvalidInput(f"{file}: {error}") from None


def _rows(database: sqlite3.Connection, table: str) -> Iterator[tuple[int, Record]]:
    columns = database.execute(f"PRAGMA table_info({_quoted(table)})").fetchall()
    if not columns:
        found = database.execute("SELECT name FROM sqlite_master WHERE type IN ('table', 'view')").fetchall()
        there = ", ".join(sorted(name for (name,) in found)) or "none"
        raise NotFound(what="table", name=table, hint=f"--table; there are: {there}")
    are_json = [declared == _JSON for _, _, declared, *_ in columns]
    names = [name for _, name, *_ in columns]
    said = ", ".join(map(_quoted, names))
    for number, row in enumerate(database.execute(f"SELECT {said} FROM {_quoted(table)}"), 1):
        yield (
            number,
            {
                name: _decoded(number, value) if is_json else value
                for name, value, is_json in zip(names, row, are_json, strict=True)
            },
        )


def _decoded(number: int, value: Any) -> Any:
    try:
        return from_text(value)
    except InvalidInput as error:
        raise InvalidInput(f"row {number}: {error.message}") from None


def write(file: str, records: Records, options: Options) -> int:
    """Make a table in a new database, or in one that is there; return how many rows it has.

    Raises: AlreadyExists for the table; InvalidInput for columns that SQLite cannot have.
    """
    if Path(file).exists():
        return _write(file, file, records, options)
    with replaced(file) as part:
        return _write(part, file, records, options)


def _write(file: str, named: str, records: Records, options: Options) -> int:
    kinds = survey(records, options.columns, exact_floats=False)
    if not kinds:
        raise InvalidInput("there are no columns, as there are no rows", hint="leave out --key")
    types = {name: _TYPES.get(kind, _JSON) for name, kind in kinds.items()}
    declared = ", ".join(f"{_quoted(name)} {type_}" for name, type_ in types.items())
    places = ", ".join("?" * len(types))
    table = _quoted(options.table)
    try:
        with closing(sqlite3.connect(file)) as database, database:
            database.execute("BEGIN")
            if database.execute(f"PRAGMA table_info({table})").fetchall():
                raise AlreadyExists(what="table", name=options.table, hint="choose another with --table")
            database.execute(f"CREATE TABLE {table} ({declared})")
            rows = (
                [to_text(record.get(name)) if type_ == _JSON else record.get(name)
                 for name, type_ in types.items()]
                for record in records()
            )  # fmt: skip
            return database.executemany(f"INSERT INTO {table} VALUES ({places})", rows).rowcount
    except sqlite3.OperationalError as error:
        raise StorageError(f"{named}: {error}") from None
    except sqlite3.Error as error:
        raise InvalidInput(f"{named}: {error}") from None


def _quoted(name: str) -> str:
    escaped = name.replace('"', '""')
    return f'"{escaped}"'
