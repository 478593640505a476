"""Requests: for each operation a Struct of what it takes, made from the signature of its method.

Plain data has fewer types than Python, so each annotation becomes what stands for it:

    Instant                    a version, ISO 8601 text, or {"tag": name} or {"time": text}
    EntityRef, Place, Trace    its text, its branch, its id
    datetime, timedelta        ISO 8601 text, seconds
    vectors                    a list of numbers, or their bytes as floats of 4 bytes, little-endian
    Policy                     {"last": n, "for_s": seconds, "both": bool}; {} keeps all
    Context, Recency, ...      a map of their fields
    **options                  a map, `options`
    functions, open files      nothing: progress cannot be called from afar, and paths are those of a server

Unknown fields are refused. Where many rows may come back there are also `limit` and, where no other argument
says where to go on, `skip`.
"""

from __future__ import annotations

import dataclasses
import inspect
import os
import types
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import IO, TYPE_CHECKING, Any, Final, Literal, Union, get_args, get_origin, get_type_hints

import msgspec
from msgspec import UNSET, Struct, UnsetType

from strata.api.place import Place
from strata.api.view import View
from strata.core.clock import to_datetime
from strata.core.embedding import Embedder
from strata.core.errors import InvalidInput, NotFound
from strata.core.protocols import Tag
from strata.core.refs import EntityRef
from strata.core.retention import Combined, KeepAll, KeepFor, KeepLast, Policy, policy_of
from strata.primitives import Trace
from strata.search.models import Reranker

if TYPE_CHECKING:
    from strata.api.database import Database
    from strata.api.operations import Operation

_POLICIES: Final = {KeepAll, KeepLast, KeepFor, Combined}
_NOTHING: Final = object()  # what cannot be said in plain data
_UNSAID: Final = {
    types.EllipsisType, View, Embedder, Reranker, BaseException, os.PathLike, bytearray, memoryview,
}  # fmt: skip


class Point(Struct, forbid_unknown_fields=True):
    """A point in history: a tag by name, or a time as ISO 8601 text."""

    tag: str | None = None
    time: str | None = None


class PolicyData(Struct, forbid_unknown_fields=True):
    """What `retention` keeps: the last versions, those within some seconds, either or both; {} is all."""

    last: int | None = None
    for_s: float | None = None
    both: bool = False


_SAID_AS: Final[dict[Any, Any]] = {
    datetime: str, timedelta: float, EntityRef: str, Place: str, Trace: str, Tag: Point,
    **dict.fromkeys(_POLICIES, PolicyData),
}  # fmt: skip
_Vector = list[float] | bytes
# What the signature says less well than it could.
_BETTER: Final[dict[tuple[str, str], Any]] = {
    ("vectors.query", "vector"): _Vector | None,
    ("vectors.upsert", "vector"): _Vector | None,
    ("vectors.upsert_many", "vectors"): list[_Vector] | None,
    **{
        (f"branches.{name}", "strategy"): Literal["strict", "source", "target"]
        for name in ("merge", "cherry_pick", "revert", "undo")
    },
}


@dataclasses.dataclass(frozen=True, slots=True)
class Field:
    """One argument of an operation."""

    name: str
    type: Any  # as plain data has it
    default: Any  # NODEFAULT where it must be given, UNSET where leaving it out says something of its own
    annotation: Any  # as Python has it


@cache
def fields_of(operation: Operation) -> tuple[Field, ...]:
    """Return the arguments of an operation that plain data can say."""
    found = []
    for parameter in operation.request.values():
        if parameter.kind is parameter.VAR_KEYWORD:
            found.append(Field(parameter.name, dict[str, Any], UNSET, dict[str, Any]))
            continue
        said = _BETTER.get((operation.name, parameter.name), _NOTHING)
        said = data_type(parameter.annotation) if said is _NOTHING else said
        if said is not _NOTHING:
            found.append(Field(parameter.name, said, _default(parameter), parameter.annotation))
    names = {field.name for field in found}
    if operation.pages and "limit" not in names:
        found.append(Field("limit", int | None, None, int | None))
    if operation.pages == "skip":
        found.append(Field("skip", int, 0, int))
    return tuple(found)


@cache
def request_type(operation: Operation) -> type[Struct]:
    """Return the Struct of what an operation takes."""
    fields = [
        (field.name, field.type | UnsetType if _may_be_unset(field) else field.type, field.default)
        for field in fields_of(operation)
    ]
    name = "".join(part.title() for part in operation.name.replace(".", "_").split("_")) + "Request"
    return msgspec.defstruct(
        name, fields, kw_only=True, forbid_unknown_fields=True, module=__name__,
        namespace={"__doc__": operation.summary},
    )  # fmt: skip


def _may_be_unset(field: Field) -> bool:
    return field.default is UNSET and field.type is not Any


def _default(parameter: inspect.Parameter) -> Any:
    if parameter.default is parameter.empty:
        return msgspec.NODEFAULT
    simple = isinstance(parameter.default, str | int | float | None)
    return parameter.default if simple else UNSET


def data_type(annotation: Any) -> Any:
    """Return the type of plain data that stands for a type of Python, or `_NOTHING`."""
    origin, args = get_origin(annotation), get_args(annotation)
    if origin in (Union, types.UnionType):
        return _union(args)
    if annotation in _UNSAID or origin in (Callable, IO, os.PathLike):
        return _NOTHING
    if annotation in _SAID_AS:
        return _SAID_AS[annotation]
    if origin in (list, Iterable, Iterator, Sequence) or (origin is tuple and args[-1] is ...):
        return list[data_type(args[0])]  # type: ignore[misc]
    if origin is tuple:
        return tuple[tuple(map(data_type, args))]  # type: ignore[misc]
    if origin in (dict, Mapping):
        return dict[tuple(map(data_type, args))]  # type: ignore[misc]
    if dataclasses.is_dataclass(annotation):
        return _mirror(annotation)  # type: ignore[arg-type]  # a class can be hashed
    return annotation


def _union(args: Sequence[Any]) -> Any:
    """Return the alternatives that can be said. A text where a file may stand is a path, and left out."""
    is_file = any(get_origin(arg) is IO for arg in args)
    said = [data_type(arg) for arg in args if not (is_file and arg is str)]
    said = [kind for kind in said if kind is not _NOTHING]
    return _NOTHING if all(kind is type(None) for kind in said) else Union[tuple(said)]  # noqa: UP007


@cache
def _mirror(cls: Any) -> Any:
    """Return a Struct with the fields that a dataclass is made of."""
    hints = get_type_hints(cls)
    fields = [
        (field.name, data_type(hints[field.name]), *([field.default] if _has_default(field) else []))
        for field in dataclasses.fields(cls)
        if field.init
    ]
    return msgspec.defstruct(cls.__name__, fields, forbid_unknown_fields=True, module=__name__)


def _has_default(field: Any) -> bool:
    return field.default is not dataclasses.MISSING


# -- from arguments to a call -----------------------------------------------------------------------


def read(operation: Operation, arguments: Mapping[str, Any]) -> Struct:
    """Return arguments, as plain data or as values of Python, as the request that they are.

    Raises: InvalidInput, naming the field, for one that is unknown, missing or of another type.
    """
    if not isinstance(arguments, Mapping):
        raise InvalidInput(f"the arguments of {operation.name} are a map, not {type(arguments).__name__}")
    given = dict(arguments)
    for field in fields_of(operation):
        if field.name in given and field.type is not Any:
            given[field.name] = _as_data(given[field.name])
    request: Struct = converted(given, operation.request_type, operation.name)
    return request


def converted(data: Any, kind: type[Any], what: str) -> Any:
    """Return plain data as a `kind`.

    Raises: InvalidInput, naming the field.
    """
    try:
        return msgspec.convert(data, kind, builtin_types=(bytes,))
    except msgspec.ValidationError as error:
        raise InvalidInput(f"{what}: {_said(error)}", hint=_hint(kind)) from None
    except UnicodeEncodeError:
        raise InvalidInput(f"{what}: a name of a field is no Unicode text", hint=_hint(kind)) from None
    except RecursionError:
        raise InvalidInput(f"{what}: nested too deep") from None


def _said(error: msgspec.ValidationError) -> str:
    """Return what msgspec says, with the field in our words: `limit: expected int, got str`."""
    text, _, place = str(error).partition(" - at ")
    field = place.strip("`").removeprefix("$").removeprefix(".")
    text = text[:1].lower() + text[1:]
    return f"{field}: {text}" if field else text.replace("object ", "", 1)


def _hint(kind: type[Any]) -> str:
    names = ", ".join(getattr(kind, "__struct_fields__", ()))
    return f"it takes {names}" if names else "it takes nothing"


def _as_data(value: Any) -> Any:
    """Return a value of Python, given for a field that is no stored value, as plain data."""
    if value is None or isinstance(value, str | int | float | bytes | Struct):
        return value
    if isinstance(value, Tag):
        return {"tag": value.name}
    if isinstance(value, Place):
        return value._branch.name
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if isinstance(value, bytearray | memoryview):
        return bytes(value)
    if hasattr(value, "tolist"):  # of numpy, which we do not import to ask
        return value.tolist()
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, Iterable):
        return [_as_data(item) for item in value]
    from strata.api.plain import plain

    try:
        return plain(value)
    except TypeError:
        return value  # which is of a wrong type, and will be said to be


def is_direct(operation: Operation) -> bool:
    """Return whether a request is the arguments of its method, in their order, and none is made of data."""
    fields = fields_of(operation)
    is_whole = not operation.is_property and [field.name for field in fields] == list(operation.request)
    is_said = all(field.default is not UNSET for field in fields)
    return is_whole and is_said and all(revive is None for _, revive in _revivers(operation))


def arguments_of(operation: Operation, request: Struct, database: Database) -> dict[str, Any]:
    """Return what the method is called with: all that was given, as its signature has it."""
    found: dict[str, Any] = {}
    for name, revive in _revivers(operation):
        value = getattr(request, name)
        if value is not UNSET:
            found[name] = value if revive is None or value is None else revive(value, database)
    if operation.takes_options:
        found |= _options(operation, found.pop("options", {}), found)
    return found


def _options(operation: Operation, options: dict[str, Any], beside: Mapping[str, Any]) -> dict[str, Any]:
    twice = sorted(options.keys() & beside.keys())
    if twice:
        raise InvalidInput(f"{operation.name}: options: {twice[0]} is an argument of its own")
    return options


Reviver = Callable[[Any, Any], Any]


@cache
def _revivers(operation: Operation) -> tuple[tuple[str, Reviver | None], ...]:
    wanted = operation.request
    return tuple((field.name, _reviver(field)) for field in fields_of(operation) if field.name in wanted)


def _reviver(field: Field) -> Reviver | None:
    kinds = set(get_args(field.annotation)) or {field.annotation}
    if Tag in kinds:
        return _instant
    if _POLICIES & kinds:
        return lambda data, _: policy(data)
    if any(get_origin(kind) is tuple and Tag in get_args(get_args(kind)[0]) for kind in kinds):
        return lambda pair, database: tuple(_instant(point, database) for point in pair)
    if field.name == "primitive" and EntityRef in kinds:
        return lambda text, _: EntityRef.parse(text) if text.startswith("strata://") else text
    if field.name == "picks":
        return lambda picks, _: picks if isinstance(picks, int) else [_pick(pick) for pick in picks]
    if field.type == _BETTER["vectors.query", "vector"]:
        return lambda vector, _: _vector(vector)
    if field.type == _BETTER["vectors.upsert_many", "vectors"]:
        return lambda vectors, _: [_vector(vector) for vector in vectors]
    mirrored = [kind for kind in kinds if dataclasses.is_dataclass(kind) and kind not in _SAID_AS]
    if mirrored:
        cls: Any = mirrored[0]
        return lambda data, _: cls(**msgspec.structs.asdict(data)) if isinstance(data, Struct) else data
    return None


def _instant(point: Any, database: Database) -> Any:
    return instant(point, database) if isinstance(point, Point) else point


def instant(point: Point, database: Database) -> Any:
    """Return the tag, or the time, that a point is.

    Raises: InvalidInput for neither or both; NotFound.
    """
    if (point.tag is None) is (point.time is None):
        raise InvalidInput("a point in history is a tag or a time", hint='as in {"tag": "v1"}')
    if point.tag is None:
        return _time(point.time or "")
    found = database.branches.tags.get(point.tag)
    if found is None:
        raise NotFound(what="tag", name=point.tag)
    return found


def _time(text: str) -> datetime:
    from strata.core.clock import to_micros

    return to_datetime(to_micros(text)).astimezone(UTC)


def policy(data: PolicyData) -> Policy:
    """Return the retention policy that `data` says.

    Raises: InvalidInput for what is none.
    """
    if data.both and (data.last is None or data.for_s is None):
        raise InvalidInput("a policy keeps what both say only where it has both: last and for_s")
    last = None if data.last is None else KeepLast(data.last).n
    return policy_of(last, None if data.for_s is None else KeepFor(data.for_s).micros, data.both)


def _pick(pick: int | str) -> int | EntityRef:
    return pick if isinstance(pick, int) else EntityRef.parse(pick)


def _vector(vector: Any) -> Any:
    if not isinstance(vector, bytes):
        return vector
    if len(vector) % 4:
        raise InvalidInput(f"a vector in bytes has 4 for each number, not {len(vector)}")
    return memoryview(vector).cast("f")
