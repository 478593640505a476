"""Arrow (IPC files and streams) and Parquet, with pyarrow, which the extra `arrow` brings.

Columns have the types of Arrow where all their values are of one kind, vectors are lists of a fixed size of
float32, and all else are texts whose field has the metadata {"strata": "json"}. Nested columns of others are
read as maps and lists, times as ISO 8601 texts, decimals as texts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from importlib import import_module
from itertools import islice
from typing import Any, Final

from strata.cli.formats import Options, Record, Records, replaced, taken
from strata.cli.formats.columns import Kind, from_text, survey, to_text
from strata.core.errors import InvalidInput

UNIT: Final = "row"

_BATCH: Final = 10_000  # rows
_MARK: Final = {b"strata": b"json"}


def read(file: str, options: Options) -> Iterator[tuple[int, Record]]:
    """Yield each row of an IPC file or stream, and its number."""
    pa = _pyarrow()
    with taken(file), open(file, "rb") as opened, _arrow_errors(pa, file):
        try:
            reader = pa.ipc.open_file(opened)
            batches = (reader.get_batch(at) for at in range(reader.num_record_batches))
        except pa.ArrowInvalid:
            opened.seek(0)
            batches = iter(pa.ipc.open_stream(opened))
        yield from _rows(batches)


def write(file: str, records: Records, options: Options) -> int:
    """Write an IPC file, which is also Feather; return how many rows it has."""
    pa = _pyarrow()
    return _write(file, records, options, lambda part, schema: pa.ipc.new_file(part, schema))


class _Parquet:
    """The same as Parquet."""

    UNIT = UNIT

    def read(self, file: str, options: Options) -> Iterator[tuple[int, Record]]:
        pa = _pyarrow()
        with taken(file), open(file, "rb") as opened, _arrow_errors(pa, file):
            yield from _rows(import_module("pyarrow.parquet").ParquetFile(opened).iter_batches(_BATCH))

    def write(self, file: str, records: Records, options: Options) -> int:
        _pyarrow()
        parquet = import_module("pyarrow.parquet")
        return _write(file, records, options, lambda part, schema: parquet.ParquetWriter(part, schema))


PARQUET: Final = _Parquet()


def _pyarrow() -> Any:
    try:
        return import_module("pyarrow")
    except ImportError:
        hint = "pip install 'strata-embedded[arrow]'"
        raise InvalidInput("Arrow and Parquet need pyarrow", hint=hint) from None


class _arrow_errors:
    """Raise InvalidInput for what pyarrow finds wrong with a file."""

    def __init__(self, pa: Any, file: str) -> None:
        self._errors = pa.ArrowException
        self._file = file

    def __enter__(self) -> None: ...

    def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
        if isinstance(error, self._errors):
            raise InvalidInput(f"{self._file}: {error}") from None


def _rows(batches: Iterator[Any]) -> Iterator[tuple[int, Record]]:
    number = 0
    for batch in batches:
        are_json = {field.name for field in batch.schema if (field.metadata or {}).items() >= _MARK.items()}
        for row in batch.to_pylist():
            number += 1
            try:
                yield (
                    number,
                    {
                        name: from_text(value) if name in are_json else _plain(value)
                        for name, value in row.items()
                    },
                )
            except InvalidInput as error:
                raise InvalidInput(f"row {number}: {error.message}") from None


def _plain(value: Any) -> Any:
    """Return a value of Arrow as one of ours, where there is one that says the same."""
    if isinstance(value, dict):
        return {name: _plain(item) for name, item in value.items()}
    if isinstance(value, list):
        return [_plain(item) for item in value]
    if isinstance(value, datetime | date | time):
        return value.isoformat()
    if isinstance(value, timedelta):
        return value.total_seconds()
    return str(value) if isinstance(value, Decimal) else value


def _write(file: str, records: Records, options: Options, opened: Callable[[str, Any], Any]) -> int:
    pa = _pyarrow()
    kinds = survey(records, options.columns, exact_floats=True)
    schema = pa.schema([_field(pa, name, kind, records) for name, kind in kinds.items()])
    count, rows = 0, records()
    with replaced(file) as part, opened(part, schema) as writer:
        while batch := list(islice(rows, _BATCH)):
            columns = [
                pa.array([_cell(record.get(field.name), kinds[field.name]) for record in batch], field.type)
                for field in schema
            ]
            writer.write_batch(pa.record_batch(columns, schema=schema))
            count += len(batch)
    return count


def _field(pa: Any, name: str, kind: Kind, records: Records) -> Any:
    if kind == "vector":
        dim = next(len(record[name]) for record in records())
        return pa.field(name, pa.list_(pa.float32(), dim))
    types = {"int": pa.int64(), "float": pa.float64(), "bytes": pa.binary(), "bool": pa.bool_()}
    return pa.field(name, types.get(kind, pa.string()), metadata=_MARK if kind == "json" else None)


def _cell(value: Any, kind: Kind) -> Any:
    if kind == "vector":
        return value.tolist()
    return to_text(value) if kind == "json" else value
