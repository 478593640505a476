"""Documents from elsewhere: JSON that is read with care, and errors that name the line and the field.

What others wrote may have anything anywhere. A `Part` is a piece of it that knows where it stands, so that
whoever wants a text there asks for a text, and gets one or an InvalidInput that says "spans.jsonl line 3:
resourceSpans[0].scopeSpans[0].spans[2].name is not a text but a number".
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NoReturn

from strata.api.ingest import Source
from strata.core.errors import InvalidInput, LimitExceeded, NotFound, StorageError, StrataError
from strata.core.values import check

MAX_BYTES: Final = 512 << 20  # of text; more could not become one commit
_KINDS: Final = {
    dict: "a map",
    list: "a list",
    str: "a text",
    bool: "a bool",
    int: "a number",
    float: "a number",
    type(None): "null",
}


@dataclass(frozen=True, slots=True)
class Part:
    """A piece of a document. None stands for null, and for what is not there."""

    value: Any
    where: str  # the document, and the line if it has lines
    path: str = ""

    def __getitem__(self, key: str) -> Part:
        """Return the piece under a key of a map."""
        return Part(self.map().get(key), self.where, f"{self.path}.{key}" if self.path else key)

    @property
    def given(self) -> bool:
        """Whether there is anything."""
        return self.value is not None

    def map(self) -> dict[str, Any]:
        """Return it if it is a map; nothing is an empty one."""
        found: dict[str, Any] = self._of(dict, {})
        return found

    def items(self) -> list[Part]:
        """Return the pieces of a list; nothing is an empty one."""
        found = self._of(list, [])
        return [Part(item, self.where, f"{self.path}[{number}]") for number, item in enumerate(found)]

    def text(self, default: str = "") -> str:
        """Return it if it is a text; `default` for nothing."""
        found: str = self._of(str, default)
        return found

    def flag(self) -> bool:
        """Return it if it is a bool."""
        found: bool = self._of(bool, False)
        return found

    def check(self, *, finite: bool) -> None:
        """Do nothing if it can be stored."""
        try:
            check(self.value, finite=finite)
        except StrataError as error:
            self.fail(f"cannot be stored: {error.message}", hint=error.hint)

    def fail(self, why: str, *, hint: str = "") -> NoReturn:
        """Raise InvalidInput that names the place."""
        raise InvalidInput(f"{self.where}: {self.path or 'the whole'} {why}", hint=hint)

    def _of(self, kind: type, default: Any) -> Any:
        if self.value is None:
            return default
        if type(self.value) is not kind:
            self.fail(f"is not {_KINDS[kind]} but {_KINDS.get(type(self.value), type(self.value).__name__)}")
        return self.value


def read_documents(source: Source) -> list[Part]:
    """Return the documents in a path, a file or what was read already: one, or one a line.

    Raises: InvalidInput for what is no JSON, naming the line; NotFound for a path without a file;
        LimitExceeded for more than 512 MiB.
    """
    if isinstance(source, (dict, list)):
        return [Part(source, "what was given")]
    if isinstance(source, (str, os.PathLike)):
        path = Path(source)
        try:
            with path.open("rb") as file:
                return _parsed(path.name, file.read(MAX_BYTES + 1))
        except (FileNotFoundError, IsADirectoryError):
            raise NotFound(f"there is no file {str(path)!r}", what="file", name=str(path)) from None
        except OSError as error:
            raise StorageError(str(error), operation="read", path=str(path), errno=error.errno) from error
    read = getattr(source, "read", None)
    if not callable(read):
        raise InvalidInput(
            f"a source is a path, a file, a dict or a list, not {type(source).__name__}",
            hint="a text is taken for a path; json.loads makes a dict of it",
        )
    return _parsed(str(getattr(source, "name", "what was given")), read(MAX_BYTES + 1))


def _parsed(name: str, content: str | bytes) -> list[Part]:
    if len(content) > MAX_BYTES:
        raise LimitExceeded(what=f"size of {name} in bytes", limit=MAX_BYTES, actual=len(content))
    if isinstance(content, bytes):
        try:
            content = content.decode("utf-8-sig")
        except UnicodeDecodeError as error:
            line = error.object.count(b"\n", 0, error.start) + 1
            raise InvalidInput(f"{name} line {line}: byte {error.start} is no UTF-8") from None
    lines = [(number, line) for number, line in enumerate(content.split("\n"), 1) if line.strip()]
    if not lines:
        raise InvalidInput(f"{name} is empty", hint="it should hold JSON, or a line of JSON each")
    if len(lines) == 1 or not _is_json(lines[0][1]):
        return [Part(_loads(name, 0, content), name)]
    return [Part(_loads(name, number, line), f"{name} line {number}") for number, line in lines]


def _is_json(line: str) -> bool:
    try:
        json.loads(line)
    except (ValueError, RecursionError):
        return False
    return True


def _loads(name: str, line: int, text: str) -> Any:
    try:
        return json.loads(text, parse_constant=_no_constant)
    except json.JSONDecodeError as error:
        at = f"{name} line {line or error.lineno}, column {error.colno}"
        raise InvalidInput(f"{at}: it is no JSON: {error.msg}") from None
    except ValueError as error:  # NaN, or a number with thousands of digits
        raise InvalidInput(f"{name}{f' line {line}' if line else ''}: it is no JSON: {error}") from None
    except RecursionError:
        raise InvalidInput(f"{name}{f' line {line}' if line else ''}: it is nested too deep") from None


def _no_constant(text: str) -> NoReturn:
    raise ValueError(f"{text} is no JSON number")


def cut(text: str, size: int) -> str:
    """Return as much of a name as may be one: no control characters, up to so many bytes of UTF-8."""
    printable = "".join(character if character.isprintable() else " " for character in text).lstrip("_ ")
    return printable.encode(errors="replace")[:size].decode(errors="ignore")
