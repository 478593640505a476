"""Fields of requests as words of a command line, and back.

    text, int, number, choice    as they are
    texts, picks                 several words: the rest of the line, or an option given again
    instant                      a version, an ISO 8601 text, tag:NAME, or JSON as in {"time": "..."}
    key                          a file with an encryption key: a key itself would show in lists of processes
    flag                         --name, or --no-name
    json                         all else: JSON with the tags of `strata.api.plain`, or - for standard input

Needed fields are given by place, the others as options. `null` is None where a needed field may be None.
"""

from __future__ import annotations

from argparse import SUPPRESS, ArgumentParser, BooleanOptionalAction
from dataclasses import dataclass
from functools import cached_property
from types import NoneType, UnionType
from typing import IO, TYPE_CHECKING, Any, Final, Literal, Union, get_args, get_origin

from msgspec import NODEFAULT, Struct

from strata.api.plain import decode_json, encode_json
from strata.api.requests import Field, Point, fields_of
from strata.core.errors import InvalidInput

if TYPE_CHECKING:
    from strata.api.operations import Operation

Kind = Literal["text", "int", "number", "choice", "texts", "picks", "instant", "key", "flag", "json"]

STDIN: Final = "-"
KEY_EXAMPLE: Final = "new.key"  # no key stands on a command line
_NULL: Final = "null"
_DEST: Final = "field_"  # before the name: a field may be called `path` or `run` as well


@dataclass(frozen=True)
class Argument:
    """One field of the request of an operation."""

    operation: Operation
    field: Field

    @property
    def name(self) -> str:
        """The name of the field."""
        return self.field.name

    @property
    def dest(self) -> str:
        """Its name in what argparse gives."""
        return _DEST + self.name

    @property
    def option(self) -> str:
        """Its name as an option."""
        return "--" + self.name.strip("_").replace("_", "-")

    @property
    def metavar(self) -> str:
        """What stands for it in usage lines."""
        if self.name == "path" and self.operation.group == "json":
            return "JSONPATH"
        files = self.kind == "key" or (self.operation.names_files and self.name in ("path", "to"))
        return "FILE" if files else self.name.upper()

    @property
    def is_needed(self) -> bool:
        """Whether it has to be given."""
        return self.field.default is NODEFAULT

    @cached_property
    def kind(self) -> Kind:
        """How it is said in words."""
        alternatives = set(_alternatives(self.field.type))
        if Point in alternatives:
            return "instant" if all(get_origin(kind) is None for kind in alternatives) else "json"
        if any(get_origin(kind) is Literal for kind in alternatives):
            return "choice"
        if list[str] in alternatives:
            return "texts"
        if list[int | str] in alternatives or list[Union[int, str]] in alternatives:  # noqa: UP007
            return "picks"
        return _SIMPLE.get(frozenset(alternatives), "json")

    @property
    def reads_stdin(self) -> bool:
        """Whether it may come from standard input."""
        return self.kind == "json" or (self.kind == "texts" and self.is_needed)

    @property
    def may_be_null(self) -> bool:
        """Whether the word `null` stands for None."""
        return self.is_needed and self.kind != "json" and NoneType in _alternatives(self.field.type, True)

    @property
    def help(self) -> str:
        """What one has to know to say it."""
        said = _HELP[self.kind]
        default = self.field.default
        if not self.is_needed and isinstance(default, str | int | float) and self.kind != "flag":
            said = f"{said} ({default})" if said else f"({default})"
        return said.replace("%", "%%")

    def add_to(self, parser: ArgumentParser, is_last: bool) -> None:
        """Let a parser take it."""
        settings: dict[str, Any] = {"help": self.help or None}
        if self.kind == "choice":
            settings["choices"] = choices(self.field.type)
        if self.is_needed:
            many = self.kind in ("texts", "picks") and is_last
            nargs = ("*" if many else "?") if self.reads_stdin and is_last else "+" if many else None
            parser.add_argument(self.dest, metavar=self.metavar, nargs=nargs, **settings)
            return
        settings |= {"dest": self.dest, "default": SUPPRESS}
        if self.kind == "flag":
            both = self.field.default is not False
            parser.add_argument(
                self.option, action=BooleanOptionalAction if both else "store_true", **settings
            )
        else:
            action = "append" if self.kind == "texts" else "store"
            parser.add_argument(self.option, metavar=self.metavar, action=action, **settings)

    def read(self, said: Any, stdin: IO[bytes] | None = None) -> Any:
        """Return the plain data that words stand for, or that `stdin` has where they say so.

        Raises: InvalidInput, naming the field.
        """
        if self.kind == "flag" or (self.may_be_null and said == _NULL):
            return said if self.kind == "flag" else None
        if self.reads_stdin and said in (STDIN, [STDIN], [], None):
            return self._from(stdin)
        if self.kind == "texts":
            return self._texts(said if isinstance(said, list) else [said])
        if self.kind == "picks":
            return (
                int(said[0])
                if len(said) == 1 and said[0].isdecimal()
                else [_number_or_text(one) for one in said]
            )
        return self._one(said)

    def _one(self, said: str) -> Any:
        match self.kind:
            case "json":
                return self._json(said)
            case "instant":
                return instant(said)
            case "int":
                return self._number(said, int)
            case "number":
                return self._number(said, int if said.lstrip("+-").isdecimal() else float)
            case "key":
                return _key(said)
        return _number_or_text(said) if int in _alternatives(self.field.type) else said

    def _texts(self, said: list[str]) -> Any:
        takes_map = any(get_origin(kind) is dict for kind in _alternatives(self.field.type))
        return self._json(said[0]) if takes_map and len(said) == 1 and said[0].startswith("{") else said

    def _number(self, said: str, kind: type[int] | type[float]) -> int | float:
        try:
            return kind(said)
        except ValueError:
            raise InvalidInput(f"{self.name}: {said!r} is no number") from None

    def _json(self, said: str | bytes) -> Any:
        try:
            return decode_json(said)
        except InvalidInput as error:
            raise InvalidInput(f"{self.name}: {error.message}", hint=error.hint or _QUOTES) from None

    def _from(self, stdin: IO[bytes] | None) -> Any:
        """Return one JSON text; where several items are wanted, also one a line."""
        said = b"" if stdin is None else stdin.read()
        lines = [line for line in said.splitlines() if line.strip()]
        if not lines:
            raise InvalidInput(f"{self.name}: there is no value, and nothing on standard input", hint=_QUOTES)
        takes_list = any(get_origin(kind) is list for kind in _alternatives(self.field.type))
        if not takes_list:
            return self._json(said)
        bad = next((number for number, line in enumerate(lines, 1) if not _is_json(line)), None)
        if bad is not None:
            return self._whole(said, f"line {bad} of standard input is no JSON")
        items = [decode_json(line) for line in lines]
        return items if len(items) > 1 or self._is_item(items[0]) else items[0]

    def _whole(self, said: bytes, otherwise: str) -> Any:
        """Return one JSON text on several lines."""
        try:
            return decode_json(said)
        except InvalidInput:
            raise InvalidInput(f"{self.name}: {otherwise}", hint=_QUOTES) from None

    def _is_item(self, data: Any) -> bool:
        """Whether it is one of several: a text of texts, or a pair."""
        is_pair = isinstance(data, list) and len(data) == 2 and isinstance(data[0], str)
        return isinstance(data, str) or (is_pair and self.kind == "json")

    def words(self, value: Any) -> list[str]:
        """Return the words that stand for a value: the opposite of `read`."""
        if self.kind == "flag":
            return [self.option if value else self.option.replace("--", "--no-", 1)]
        said = self._said(value)
        if self.is_needed:
            return said
        return [word for one in said for word in (self.option, one)]

    def _said(self, value: Any) -> list[str]:
        if value is None and self.kind != "json":
            return [_NULL]
        if self.kind == "key":
            return [KEY_EXAMPLE]
        if self.kind in ("texts", "picks") and isinstance(value, list | tuple):
            return [str(one) for one in value]
        if self.kind == "json" or isinstance(value, dict):
            return [encode_json(_plain(value)).decode()]
        return [str(value)]


def instant(said: str) -> Any:
    """Return the point in history, as plain data, that a word names; a text may be a branch as well."""
    if said.isdecimal():
        return int(said)
    if said.startswith("tag:"):
        return {"tag": said.removeprefix("tag:")}
    return decode_json(said) if said[:1] in ("{", '"') else said


def _plain(value: Any) -> Any:
    from strata.api.plain import plain

    return plain(value)


def _is_json(line: bytes) -> bool:
    try:
        decode_json(line)
    except InvalidInput:
        return False
    return True


def _number_or_text(said: str) -> int | str:
    return int(said) if said.isdecimal() else said


def _key(file: str) -> bytes:
    from pathlib import Path

    from strata.api.encryption import key_bytes

    return key_bytes(Path(file))


def _alternatives(kind: Any, with_none: bool = False) -> tuple[Any, ...]:
    if get_origin(kind) not in (Union, UnionType):
        return (kind,)
    return tuple(part for part in get_args(kind) if with_none or part is not NoneType)


def choices(kind: Any) -> list[str]:
    """Return the texts that a type allows."""
    return [name for part in _alternatives(kind) for name in get_args(part)]


_SIMPLE: Final[dict[frozenset[Any], Kind]] = {
    frozenset({str}): "text",
    frozenset({str, int}): "text",
    frozenset({int}): "int",
    frozenset({float}): "number",
    frozenset({int, float}): "number",
    frozenset({bool}): "flag",
    frozenset({bytes}): "key",
}
_QUOTES: Final = "a text needs its quotes: '\"text\"'"
_HELP: Final[dict[Kind, str]] = {
    "text": "",
    "int": "",
    "number": "",
    "choice": "",
    "flag": "",
    "texts": "may be given again",
    "picks": "a version, or several versions and refs",
    "instant": "a version, a time such as 2026-01-31T12:00Z, or tag:NAME",
    "key": "a file with 32 bytes, or 64 hex digits",
    "json": "JSON, or - to read it from standard input",
}


def arguments_of(operation: Operation) -> list[Argument]:
    """Return the fields of an operation, those that are needed first."""
    found = [Argument(operation, field) for field in fields_of(operation)]
    return sorted(found, key=lambda argument: not argument.is_needed)


def request_of(operation: Operation, given: dict[str, Any], stdin: IO[bytes] | None = None) -> Struct:
    """Return the request that the words of a command line, and what `stdin` has for it, are.

    Raises: InvalidInput, naming the field.
    """
    from strata.api.requests import read

    said = {}
    for argument in arguments_of(operation):
        if argument.dest in given:
            said[argument.name] = argument.read(given[argument.dest], stdin)
    return read(operation, said)
