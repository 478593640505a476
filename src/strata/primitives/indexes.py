"""Index definitions: what an index is over and how it reads, as users say it and as stores keep it.

    spec    {"type": "ordered", "paths": [path, ...], "unique": bool}
            {"type": "text", "fields": [{"name", "path", "weight"}, ...], "language", "stop_words",
             "fold_accents", "k1", "b"}
            {"type": "vector", "path", "dim", "metric", "quantization"}

Paths in a spec are those of the stored row. Users give paths of the value that they stored, which is a part
of it (`Primitive._VALUE`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal

from strata.core.errors import InvalidInput
from strata.core.paths import parse, render
from strata.core.protocols import IndexRow, Path

IndexKind = Literal["text", "ordered", "vector"]
# One path, several, or several with what each counts.
Paths = str | Sequence[str] | Mapping[str, float] | None
TEXT, ORDERED, VECTOR = "text", "ordered", "vector"
K1: Final = 1.2  # Robertson and Zaragoza 2009; Lucene's default
B: Final = 0.75
METRICS: Final = ("cosine", "euclidean", "dot")
QUANTIZATIONS: Final = ("f32", "f16", "i8")
MAX_DIM: Final = 65_535


@dataclass(frozen=True, slots=True)
class Index:
    """An index as it was declared. `options` are those of its kind."""

    name: str
    primitive: str
    kind: str
    space: str
    prefix: str
    paths: tuple[str, ...]
    options: Mapping[str, Any] = field(default_factory=dict)


def text_spec(
    base: Path, fields: Mapping[str, Path], paths: Paths, options: Mapping[str, Any]
) -> dict[str, Any]:
    """Return the spec of a text index over `paths`, or over the `fields` that the primitive has anyway.

    Raises: InvalidInput.
    """
    if paths is None:
        made = [{"name": name, "path": list(path), "weight": 1.0} for name, path in fields.items()]
    else:
        weights = paths if isinstance(paths, Mapping) else dict.fromkeys(_listed(paths), 1.0)
        made = [_field((*base, *parse(path)), weight, path) for path, weight in weights.items()]
    if not made:
        raise InvalidInput("a text index needs a path", hint="leave paths out to index all texts of a value")
    return {"type": TEXT, "fields": _named(made), **_text_options(**options)}


def ordered_spec(base: Path, paths: Paths, options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the spec of an index by the values at `paths`, one behind the other.

    Raises: InvalidInput.
    """
    listed = [] if paths is None or isinstance(paths, Mapping) else _listed(paths)
    if not listed:
        raise InvalidInput("an ordered index needs paths", hint="as in paths='$.age' or ['$.city', '$.age']")
    steps = [[*base, *parse(path)] for path in listed]
    if any(None in path for path in steps):
        raise InvalidInput("'[-]' is behind a list, where there is no value to index")
    return {"type": ORDERED, "paths": steps, **_ordered_options(**options)}


def vector_spec(base: Path, paths: Paths, options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the spec of an index by the vectors at a path: lists of numbers.

    Raises: InvalidInput.
    """
    if not isinstance(paths, str):
        raise InvalidInput("a vector index needs one path", hint="as in paths='$.embedding'")
    steps = [*base, *parse(paths)]
    if None in steps:
        raise InvalidInput(f"{paths} is behind a list, where there is no value to index")
    return {"type": VECTOR, "path": steps, **vector_options(**options)}


def vector_options(dim: Any = None, metric: str = "cosine", quantization: str = "f32") -> dict[str, Any]:
    """Return what says how vectors are compared and kept.

    Raises: InvalidInput.
    """
    for value, known, what in ((metric, METRICS, "metric"), (quantization, QUANTIZATIONS, "quantization")):
        if value not in known:
            raise InvalidInput(f"{value!r} is no {what}", hint=f"one of {', '.join(known)}")
    if type(dim) is not int or not 1 <= dim <= MAX_DIM:
        raise InvalidInput(f"dim is a number from 1 to {MAX_DIM}, not {dim!r}")
    return {"dim": dim, "metric": metric, "quantization": quantization}


def index_of(row: IndexRow, base: Path) -> Index:
    """Return what a row of the store says."""
    name, space, primitive, prefix, spec = row
    kind = spec["type"]
    if kind == TEXT:
        steps = [part["path"] for part in spec["fields"]]
    else:
        steps = spec["paths"] if kind == ORDERED else [spec["path"]]
    options = {name: value for name, value in spec.items() if name not in ("type", "fields", "paths", "path")}
    if kind == TEXT:
        options["weights"] = {part["name"]: part["weight"] for part in spec["fields"]}
    # The vector of a collection stands beside what users gave with it: it has no path of theirs.
    paths = tuple(render(tuple(path[len(base) :])) for path in steps if tuple(path[: len(base)]) == base)
    return Index(name, primitive, kind, space, prefix.decode(), paths, options)


def _listed(paths: str | Sequence[str]) -> list[str]:
    listed = [paths] if isinstance(paths, str) else list(paths)
    for path in listed:
        if not isinstance(path, str):
            raise InvalidInput(f"a path is text, not {type(path).__name__}", hint="as in '$.title'")
    return listed


def _field(path: Path, weight: Any, text: str) -> dict[str, Any]:
    if not _is_number(weight) or not 0 < weight < 1e9:
        raise InvalidInput(f"the weight of {text} is a number above 0, not {weight!r}")
    if None in path:
        raise InvalidInput(f"{text} is behind a list, where there is no value to index")
    keys = [step for step in path if isinstance(step, str)]
    return {"name": keys[-1] if keys else TEXT, "path": list(path), "weight": float(weight)}


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _named(fields: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Give each field a name of its own, by which queries ask for it."""
    seen: dict[str, int] = {}
    for part in fields:
        name = part["name"]
        seen[name] = seen.get(name, 0) + 1
        if seen[name] > 1:
            part["name"] = f"{name}{seen[name]}"
    return fields


def _text_options(
    language: str | None = "english",
    stop_words: bool = True,
    fold_accents: bool = True,
    k1: float = K1,
    b: float = B,
) -> dict[str, Any]:
    if not _is_number(k1) or not 0 <= k1 <= 1000:
        raise InvalidInput(f"k1 is a number from 0 on, not {k1!r}")
    if not _is_number(b) or not 0 <= b <= 1:
        raise InvalidInput(f"b is a number from 0 to 1, not {b!r}")
    for name, flag in (("stop_words", stop_words), ("fold_accents", fold_accents)):
        if not isinstance(flag, bool):
            raise InvalidInput(f"{name} is True or False, not {flag!r}")
    if not (language is None or isinstance(language, str)):
        raise InvalidInput(f"language is a name or None, not {language!r}")
    return {
        "language": language,
        "stop_words": stop_words,
        "fold_accents": fold_accents,
        "k1": float(k1),
        "b": float(b),
    }


def _ordered_options(unique: bool = False) -> dict[str, Any]:
    if not isinstance(unique, bool):
        raise InvalidInput(f"unique is True or False, not {unique!r}")
    return {"unique": unique}
