"""The face: the primitives of one place, as attributes.

    Database                       made with it, in plain slots: `db.kv.get` is two loads and a call
    Branch, Space, View,           each made when it is first asked for, so that these handles cost
    Transaction                    one native call, however many primitives there are

A primitive joins the product by one line in `primitives.PRIMITIVES` and its annotation in `Face`.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Protocol

from strata.core import atomic
from strata.core.protocols import Txn
from strata.primitives import PRIMITIVES, Events, Json, Kv, Machines, RunRecords, State, Traces, Vectors


class Source(atomic.Source, Protocol):
    """What gives keyspaces: a native Branch, Snapshot or Transaction."""

    def spaces(self) -> list[str]: ...


class Face:
    """The primitives of one branch and space."""

    __slots__ = ("__weakref__", "_source", "_space")

    kv: Kv
    events: Events
    state: State
    json: Json
    traces: Traces
    runs: RunRecords
    vectors: Vectors
    machines: Machines

    def __init__(self, source: Source, space: str) -> None:
        self._source = source
        self._space = space

    def _made(self, primitive: type[Any], txn: Txn) -> Any:
        """Return a primitive over its keyspace. `machines` write to others; places give `runs` branches."""
        return primitive(txn, self._source) if primitive is Machines else primitive(txn)

    @property
    def spaces(self) -> Spaces:
        """The spaces written to so far, as seen from here."""
        return Spaces(self._source)


def make_primitive(face: Face, name: str) -> Any:
    """Return the primitive `name` of a face."""
    primitive = PRIMITIVES[name]
    return face._made(primitive, face._source.keyspace(face._space, primitive.LAYOUT))


class Lazy:
    """Makes each primitive of a face when it is first asked for; from then on it is a plain attribute.

    Cost: 35 ns for a later access, where a slot takes 16.
    """


class _FirstUse:
    """Stands in the class for a primitive that a face has not made yet."""

    __slots__ = ("_name",)

    def __init__(self, name: str) -> None:
        self._name = name

    def __get__(self, face: Any, owner: type | None = None) -> Any:
        if face is None:
            return self
        made = face.__dict__[self._name] = make_primitive(face, self._name)
        return made


for _name in PRIMITIVES:
    setattr(Lazy, _name, _FirstUse(_name))


Names = list[str]  # a name of its own, since `Spaces.list` hides the builtin inside the class


class Spaces:
    """The names of the spaces of a branch, sorted. A space begins to exist with its first write."""

    __slots__ = ("_source",)

    def __init__(self, source: Source) -> None:
        self._source = source

    def list(self) -> Names:
        """Return the names, sorted; "default" is always among them."""
        return [name for name in self._source.spaces() if not name.startswith("_")]

    def __iter__(self) -> Iterator[str]:
        return iter(self.list())

    def __contains__(self, name: object) -> bool:
        return name in self.list()

    def __len__(self) -> int:
        return len(self.list())

    def __repr__(self) -> str:
        return f"<Spaces {', '.join(self)}>"
