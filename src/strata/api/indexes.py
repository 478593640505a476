"""Indexes: which there are, and what they are over."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from strata.api.retention import check_primitive
from strata.api.table import Table
from strata.core.errors import InvalidInput, NotFound
from strata.core.keys import check_name
from strata.core.protocols import Store
from strata.primitives import PRIMITIVES
from strata.primitives.indexes import Index, IndexKind, Paths, index_of, ordered_spec, text_spec, vector_spec

_OPTIONS: Final = {
    "text": ("language", "stop_words", "fold_accents", "k1", "b"),
    "ordered": ("unique",),
    "vector": ("dim", "metric", "quantization"),
}


class Indexes:
    """The indexes of a database. One is of a primitive in a space, on all branches and in all views.

    A definition is no part of history: it holds at once, has no version, and what it says of an earlier
    version is what an index made then would have said. What an index holds follows from the data, so it
    needs no backup; it is kept beside the runs, and made anew where it is missing.
    """

    __slots__ = ("_space", "_store")

    def __init__(self, store: Store, space: str) -> None:
        self._store = store
        self._space = space

    def create(
        self,
        name: str,
        *,
        primitive: str,
        kind: IndexKind = "text",
        space: str | None = None,
        prefix: str = "",
        paths: Paths = None,
        **options: Any,
    ) -> Index:
        """Declare an index over what a primitive has now and will have, and return it.

        Args:
            primitive: "kv", "json", "events", "state", "traces", "runs", "machines" or "vectors" (its
                metadata).
            kind: "text" finds words, "ordered" values and ranges of them, "vector" what is near (collections
                of `vectors` have one anyway).
            space: the space that it is of; that of the handle when left out.
            prefix: only keys that begin so.
            paths: where in a value to look, as `"$.title"` or a list of such; for text also
                `{"$.title": 2.0, "$.body": 1.0}`, with how much each counts, or nothing, for all texts of the
                value. An ordered index over several sorts by the first, then the next.
            options: of text `language` ("english"; None cuts no word to its stem), `stop_words` (True: leave
                out), `fold_accents` (True), `k1` (1.2) and `b` (0.75) of BM25. Of ordered `unique` (False): a
                commit that would give two keys one value raises AlreadyExists. Of vector `dim`, `metric`
                ("cosine") and `quantization` ("f32"), as collections have them.
        Raises: AlreadyExists for the name, or where values of a unique index are there twice; InvalidInput.
        Cost: reads the primitive once, when the index is first asked; then about 5 us for each write.
        """
        check_name(name, "index")
        space = self._space if space is None else check_name(space, "space")
        if not isinstance(prefix, str):
            raise InvalidInput(f"a prefix is text, not {type(prefix).__name__}")
        spec = _spec(check_primitive(primitive), kind, paths, options)
        self._store.create_index(name, space, primitive, prefix.encode(), spec)
        return self.get(name)

    def get(self, name: str) -> Index:
        """Return the index `name`.

        Raises: NotFound.
        """
        for index in self.list():
            if index.name == name:
                return index
        raise NotFound(what="index", name=name)

    def list(self) -> Table[Index]:
        """Return the indexes, by name."""
        found = [index_of(row, PRIMITIVES[row[2]]._VALUE) for row in self._store.indexes()]
        return Table(sorted(found, key=lambda index: index.name))

    def drop(self, name: str) -> bool:
        """Take an index back; return whether there was one."""
        return self._store.drop_index(name)

    def rebuild(self, name: str, *, progress: Callable[[int, int], object] | None = None) -> None:
        """Make what the index holds of the files anew, while others read and write.

        It is never needed: an index follows its data, and `verify` finds what a disk has spoilt.

        Args:
            progress: called with the rows that are done and those there are. What it raises ends it.
        Raises: NotFound.
        """
        self.get(name)
        self._store.rebuild_indexes(progress)

    def __repr__(self) -> str:
        return f"<Indexes {len(self.list())}>"

    def _repr_html_(self) -> str:
        return self.list()._repr_html_()


def _spec(primitive: str, kind: str, paths: Paths, options: dict[str, Any]) -> dict[str, Any]:
    known = _OPTIONS.get(kind)
    if known is None:
        raise InvalidInput(f"{kind!r} is no kind of index", hint=f"one of {', '.join(_OPTIONS)}")
    unknown = [option for option in options if option not in known]
    if unknown:
        raise InvalidInput(f"{unknown[0]!r} is no option of {kind}", hint=f"there are {', '.join(known)}")
    owner = PRIMITIVES[primitive]
    if kind == "text":
        return text_spec(owner._VALUE, owner._TEXTS, paths, options)
    if kind == "vector":
        return vector_spec(owner._VALUE, paths, options)
    return ordered_spec(owner._VALUE, paths, options)
