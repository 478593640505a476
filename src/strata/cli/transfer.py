"""Data of one primitive to and from files of others: what a record is of each.

    kv, json    key, value
    events      type, payload                 also written: sequence, time_us, which reading leaves out
    vectors     key, vector, metadata

With `--key COLUMN` a record is a row of a table: that column is the key (of an event its type), and the
others together are the value, a map. All records are read in one snapshot and written in one commit.
"""

from __future__ import annotations

import sys
from argparse import Namespace
from collections.abc import Callable, Iterator
from typing import Any, Final

from strata.api.dispatch import Where, resolve
from strata.api.operations import OPERATIONS
from strata.api.requests import converted
from strata.cli.calling import snapshot
from strata.cli.fields import instant
from strata.cli.formats import Name, Options, Record, Records, module_of
from strata.cli.opening import open_database
from strata.core.errors import InvalidInput, NotFound, StrataError

PRIMITIVES: Final = ("kv", "json", "events", "vectors")

_COLUMNS: Final[dict[str, tuple[str, ...]]] = {
    "kv": ("key", "value"), "json": ("key", "value"),
    "events": ("type", "payload", "sequence", "time_us"), "vectors": ("key", "vector", "metadata"),
}  # fmt: skip
_LEFT_OUT: Final = frozenset({"sequence", "time_us"})  # of events that are read: the database gives its own


def export(given: Namespace, name: Name) -> int:
    """Write what is at a place to a file; say how many records on standard error."""
    module = module_of(name)
    given.primitive, given.stream = given.primitive or "kv", given.stream or "main"
    columns = () if given.key else _COLUMNS[given.primitive]
    options = Options(given.table or given.primitive, columns)
    with open_database(given, create=False, read_only=True) as database:
        place = resolve(database, OPERATIONS["kv.scan"], _where(given))
        with snapshot(place) as face:
            records = _records(face, given)
            count = module.write(given.file, _flat(records, given) if given.key else records, options)
    print(f"{count:,} records", file=sys.stderr)
    return 0


def _where(given: Namespace) -> Where:
    at = None if given.at is None else instant(given.at)
    found: Where = converted({"branch": given.branch, "space": given.space, "at": at}, Where, "export")
    return found


def _records(face: Any, given: Namespace) -> Records:
    """Return what reads all records of a primitive at a place."""
    prefix = given.prefix or ""

    def keyed() -> Iterator[Record]:
        for key, value in face.kv.scan(prefix or None):
            yield {"key": key, "value": value}

    def documents() -> Iterator[Record]:
        for key in face.json.list(prefix or None):
            yield {"key": key, "value": face.json.get(key)}

    def events() -> Iterator[Record]:
        for event in face.events.range(stream=given.stream):
            yield {name: getattr(event, name) for name in _COLUMNS["events"]}

    def vectors() -> Iterator[Record]:
        if given.collection is None:
            raise InvalidInput("which collection?", hint="say --collection NAME")
        for key in face.vectors.keys(given.collection, prefix):
            entry = face.vectors.get(given.collection, key)
            yield {"key": key, "vector": memoryview(entry.vector), "metadata": entry.metadata}

    readers: dict[str, Records] = {"kv": keyed, "json": documents, "events": events, "vectors": vectors}
    return readers[given.primitive]


def _flat(records: Records, given: Namespace) -> Records:
    """Return the same records, each as a row of a table."""
    key, value = _pair(given)

    def flat() -> Iterator[Record]:
        for record in records():
            row = record[value]
            if not isinstance(row, dict):
                raise InvalidInput(f"{record[key]!r} is no map, and so no row", hint="leave out --key")
            if given.key in row:
                raise InvalidInput(f"{record[key]!r} has a field {given.key!r}", hint="choose another --key")
            yield {given.key: record[key], **row}

    return flat


def _pair(given: Namespace) -> tuple[str, str]:
    if given.primitive == "vectors":
        raise InvalidInput("vectors are no rows of a table", hint="leave out --key")
    key, value = _COLUMNS[given.primitive][:2]
    return key, value


def import_(given: Namespace, name: Name) -> int:
    """Write all records of a file in one commit, or none; print its version."""
    module = module_of(name)
    given.primitive, given.stream = given.primitive or "kv", given.stream or "main"
    table = given.table or given.primitive
    message = given.message or f"import {given.file}"
    with open_database(given) as database:
        place: Any = resolve(database, OPERATIONS["kv.put"], Where(given.branch, given.space))
        tx = place.transaction(message=message, actor="strata import")
        try:
            count = _take(tx, module.read(given.file, Options(table, text=given.text)), given, module.UNIT)
            version = tx.commit()
        finally:
            tx.rollback()
    print(version)
    print(f"{count:,} records", file=sys.stderr)
    return 0


def _take(tx: Any, records: Iterator[tuple[int, Any]], given: Namespace, unit: str) -> int:
    """Write records inside a transaction; return how many.

    Raises: InvalidInput, naming the line or row.
    """
    count, write = 0, _writer(tx, given)
    try:
        for number, record in records:
            try:
                write(_row(record, given))
            except StrataError as error:
                raise InvalidInput(f"{unit} {number}: {error.message}", hint=error.hint) from None
            count += 1
    except InvalidInput as error:
        raise InvalidInput(f"{given.file}: {error.message}", hint=error.hint) from None
    return count


def _row(record: Any, given: Namespace) -> Record:
    """Return a record with the columns of its primitive."""
    columns = _COLUMNS[given.primitive]
    if isinstance(record, list) and len(record) == 2 and not given.key:
        return dict(zip(columns, record, strict=False))
    if not isinstance(record, dict):
        raise InvalidInput(f"this is no record but {type(record).__name__}", hint=_hint(columns))
    if given.key:
        return _unflat(record, given)
    unknown = next((name for name in record if name not in columns), None)
    if unknown is not None:
        raise InvalidInput(f"there is no column {unknown!r} of {given.primitive}", hint=_hint(columns))
    missing = next((name for name in columns[:2] if name not in record), None)
    if missing is not None:
        raise InvalidInput(f"{missing} is missing", hint=_hint(columns))
    return {name: value for name, value in record.items() if name not in _LEFT_OUT}


def _unflat(record: Record, given: Namespace) -> Record:
    key, value = _pair(given)
    if given.key not in record:
        raise InvalidInput(f"there is no column {given.key!r}", hint=f"there are {', '.join(record)}")
    rest = {name: item for name, item in record.items() if name != given.key}
    found = record[given.key]
    is_number = isinstance(found, int) and not isinstance(found, bool)  # as primary keys often are
    return {key: str(found) if is_number else found, value: rest}


def _hint(columns: tuple[str, ...]) -> str:
    return f"columns are {', '.join(columns)}; of other tables say --key COLUMN"


def _writer(tx: Any, given: Namespace) -> Callable[[Record], object]:
    """Return what writes one record inside a transaction."""
    match given.primitive:
        case "kv":
            return lambda record: tx.kv.put(record["key"], record["value"])
        case "json":
            return lambda record: tx.json.set(record["key"], "$", record["value"])
        case "events":
            return lambda record: tx.events.append(record["type"], record["payload"], stream=given.stream)
    if given.collection is None:
        raise InvalidInput("which collection?", hint="say --collection NAME")
    return lambda record: _upsert(tx, given.collection, record)


def _upsert(tx: Any, collection: str, record: Record) -> None:
    """Write a vector; the first one makes its collection where there is none."""
    vector = record["vector"]
    if not isinstance(vector, list) or not vector:
        raise InvalidInput("a vector is a list of numbers")
    try:
        tx.vectors.collection(collection)
    except NotFound:
        tx.vectors.create_collection(collection, len(vector))
    tx.vectors.upsert(collection, record["key"], vector, record.get("metadata"))
