"""Traces: what an agent did and why, as trees of steps that never change.

    id                                    {kind, started, ...}: the trace, without what it does not have
    0x00, "p", parent or "", 0x00, ...    found by parent; roots have the parent ""
    0x00, "k", kind, 0x00, ...            by kind
    0x00, "t", tag, 0x00, ...             by tag
    0x00, "w", digest, 0x00, ...          by what it wrote: 16 bytes of SHA-256, as hex, of the ref as text,
                                          without path and version
    0x00, "a", 0x00, ...                  by time: see `index`

Invariants: a trace is written once and never again, and its parent was there before it (perhaps in the same
transaction), so parents never make a cycle. Two branches have the same trace under one id, or one has none,
unless somebody gave the same id twice; so a merge takes all of both.

Refs in `reads` have the version that was read. Those in `writes` have none as long as the trace is of the
same commit as what it wrote, which is then the version of the trace itself.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, ClassVar, Final, Literal

import msgspec

from strata.core.atomic import atomically
from strata.core.clock import to_datetime
from strata.core.errors import AlreadyExists, InvalidInput, NotFound
from strata.core.ids import new_id
from strata.core.keys import check_name
from strata.core.protocols import PUT, Layout, Path, Txn
from strata.core.refs import EntityRef
from strata.core.values import text_of
from strata.primitives.index import ALL, Indexed, Instant, check_instant, check_metadata, check_tags

Kind = Literal["tool_call", "decision", "query", "thought", "error", "custom"]
KINDS: Final[tuple[str, ...]] = ("tool_call", "decision", "query", "thought", "error", "custom")
_PARENT, _KIND, _TAG, _WROTE = "p", "k", "t", "w"
_ROOT: Final = ""


class Trace(msgspec.Struct, frozen=True):
    """One step: what was done, with what, and what came out. `pending` inside its transaction."""

    id: str
    kind: str
    started_us: int
    name: str | None = None
    parent: str | None = None
    input: Any = None
    output: Any = None
    error: str | None = None
    ended_us: int | None = None
    tags: tuple[str, ...] = ()
    metadata: dict[str, Any] = {}
    reads: tuple[EntityRef, ...] = ()
    writes: tuple[EntityRef, ...] = ()
    version: int | None = None

    @property
    def pending(self) -> bool:
        """Whether its commit has not happened yet."""
        return self.version is None

    @property
    def started(self) -> datetime:
        """When it began, in UTC."""
        return to_datetime(self.started_us)

    @property
    def ended(self) -> datetime | None:
        """When it ended, in UTC, if that was recorded."""
        return None if self.ended_us is None else to_datetime(self.ended_us)

    @property
    def duration_us(self) -> int | None:
        """How long it took, if its end was recorded."""
        return None if self.ended_us is None else self.ended_us - self.started_us


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class TraceTree:
    """A trace and all that was done for it. Printed, it is one line a trace."""

    trace: Trace
    children: tuple[TraceTree, ...]

    def walk(self) -> Iterator[tuple[int, Trace]]:
        """Yield (depth, trace) of all, each before its children."""
        open_ = [(0, self)]
        while open_:
            depth, node = open_.pop()
            yield depth, node.trace
            open_ += [(depth + 1, child) for child in reversed(node.children)]

    def __len__(self) -> int:
        return sum(1 for _ in self.walk())

    def __repr__(self) -> str:
        return f"<TraceTree {self.trace.id!r} of {len(self)}>"

    def __str__(self) -> str:
        return "\n".join("  " * depth + _line(trace) for depth, trace in self.walk())


TraceList = list[Trace]  # a name of its own, since `Traces.list` hides the builtin inside the class


class Traces(Indexed):
    """The traces of one branch and space."""

    LAYOUT: ClassVar[Layout] = Layout("traces", text_keys=False)
    _FORWARD: ClassVar[bool] = True
    _TIME: ClassVar[str] = "started"
    _VERBS: ClassVar[dict[int, str]] = {**Indexed._VERBS, PUT: "record"}
    _TEXTS: ClassVar[dict[str, Path]] = {name: (name,) for name in ("name", "input", "output", "error")}

    __slots__ = ()

    @classmethod
    def _shown(cls, key: bytes, value: Any, version: int, time: int, expires: int | None) -> Trace:
        return _trace(key.decode(), value, version)

    @classmethod
    def _line(cls, shown: Trace) -> str:
        said = shown.output if shown.output is not None else shown.input
        return _line(shown) if said is None else f"{_line(shown)}: {text_of(said)}"

    @classmethod
    def _labels(cls, thing: dict[str, Any]) -> Iterator[tuple[str, str]]:
        yield _PARENT, thing.get("parent", _ROOT)
        yield _KIND, thing["kind"]
        for tag in thing.get("tags", ()):
            yield _TAG, tag
        for ref in {_wrote(EntityRef.parse(ref)) for ref in thing.get("writes", ())}:
            yield _WROTE, ref

    def record(
        self,
        kind: Kind,
        name: str | None = None,
        *,
        input: Any = None,
        output: Any = None,
        error: str | BaseException | None = None,
        parent: str | Trace | None = None,
        tags: Iterable[str] = (),
        metadata: dict[str, Any] | None = None,
        started: datetime | str | int | None = None,
        ended: datetime | str | int | None = None,
        reads: Iterable[EntityRef | str] = (),
        writes: Iterable[EntityRef | str] = (),
        id: str | None = None,
    ) -> Trace:
        """Keep a step, for good; return it.

        Args:
            kind: tool_call, decision, query, thought, error, or custom, which needs a `name`.
            parent: the trace, or its id, that this was done for. It must have been recorded.
            started, ended: aware datetimes, ISO 8601 text or microseconds; `started` is now when left out.
            reads, writes: refs of what it read and wrote. Without a version: what is seen now is what was
                read, and what the commit of this trace writes is what was written.
            id: given when left out, so that ids sort by time.
        Raises: AlreadyExists for an id that is taken; NotFound for a parent that is not there; InvalidInput.
        """
        thing: dict[str, Any] = {"kind": _kind(kind, name)}
        now = self._txn.now if started is None or id is None else 0  # which may be asked from afar
        thing["started"] = now if started is None else check_instant(started, "started")
        if ended is not None:
            thing["ended"] = _after(check_instant(ended, "ended"), thing["started"])
        optional = {
            "name": name,
            "parent": _parent(parent),
            "input": input,
            "output": output,
            "error": _error(error),
            "tags": check_tags(tags),
            "metadata": check_metadata(metadata),
            "reads": _refs(reads, "reads", None if reads == () else self._txn.version),
            "writes": _refs(writes, "writes", None),
        }
        thing |= {field: value for field, value in optional.items() if value is not None and value != []}
        if not thing.get("metadata"):
            thing.pop("metadata", None)
        given = new_id(now) if id is None else check_name(id, "trace id")
        return _trace(given, thing, self._insert(given, thing, is_given=id is not None))

    def _insert(self, id: str, thing: dict[str, Any], *, is_given: bool) -> int | None:
        """Write a trace and the rows by which it is found; return the version of the commit."""
        key = id.encode()
        rows = [(key, thing), *((row, None) for row in self._index(key, thing))]
        parent = thing.get("parent")
        if parent is None and not is_given:
            return self._txn.put_many(rows)  # nothing that it depends on

        def insert(txn: Txn) -> None:
            if is_given and txn.contains(key):
                raise AlreadyExists(what="trace", name=id, hint="a trace never changes; leave out the id")
            if parent is not None and not txn.contains(parent.encode()):
                raise NotFound(what="trace", name=parent, hint="record the parent first")
            txn.put_many(rows)
            txn.expect(key, absent=True)  # also where isolation does not look at what was read

        return atomically(self._txn, insert)[1]

    def get(self, id: str) -> Trace | None:
        """Return the trace, or None."""
        found = self._read(self._txn, check_name(id, "trace id").encode())
        if found is None:
            self._check_space()
        return found

    def exists(self, id: str) -> bool:
        """Return whether there is a trace with that id."""
        if self._txn.contains(check_name(id, "trace id").encode()):
            return True
        self._check_space()
        return False

    def children(self, id: str) -> TraceList:
        """Return what was done for a trace itself, in order of time.

        Raises: NotFound when there is no such trace.
        """
        self._named(self._txn, id)
        return list(self._found(_PARENT, id, None, None, False, None))

    def tree(self, id: str) -> TraceTree:
        """Return a trace with all that was done for it, down to the leaves.

        Raises: NotFound when there is no such trace.
        Cost: two reads a trace.
        """
        here = Traces(self._txn.pinned())
        seen = [here._named(here._txn, id)]
        below: dict[str, TraceList] = {}
        for trace in seen:  # which grows: breadth first
            below[trace.id] = list(here._found(_PARENT, trace.id, None, None, False, None))
            seen += below[trace.id]
        made: dict[str, TraceTree] = {}
        for trace in reversed(seen):
            made[trace.id] = TraceTree(trace, tuple(made.pop(child.id) for child in below[trace.id]))
        return made[id]

    def roots(
        self, *, start: Instant = None, end: Instant = None, reverse: bool = False, limit: int | None = None
    ) -> Iterator[Trace]:
        """Return the traces without a parent. The arguments are those of `list`."""
        return self._found(_PARENT, _ROOT, start, end, reverse, limit)

    def by_kind(
        self,
        kind: Kind,
        *,
        start: Instant = None,
        end: Instant = None,
        reverse: bool = False,
        limit: int | None = None,
    ) -> Iterator[Trace]:
        """Return the traces of a kind. The other arguments are those of `list`."""
        return self._found(_KIND, _kind(kind), start, end, reverse, limit)

    def by_tag(
        self,
        tag: str,
        *,
        start: Instant = None,
        end: Instant = None,
        reverse: bool = False,
        limit: int | None = None,
    ) -> Iterator[Trace]:
        """Return the traces with a tag. The other arguments are those of `list`."""
        return self._found(_TAG, check_name(tag, "tag"), start, end, reverse, limit)

    def between(
        self, start: Instant, end: Instant, *, reverse: bool = False, limit: int | None = None
    ) -> Iterator[Trace]:
        """Return the traces that began at start <= time < end, None being open."""
        return self._found(ALL, "", start, end, reverse, limit)

    def list(self, *, reverse: bool = False, limit: int | None = None) -> Iterator[Trace]:
        """Return all traces in the order in which they began, all as of one version.

        Args:
            start, end: only those that began at start <= time < end, None being open.
            reverse: the newest first; `limit` counts from there.
        Cost: what is taken from the iterator: two reads a trace.
        """
        return self._found(ALL, "", None, None, reverse, limit)

    def count(
        self,
        *,
        kind: Kind | None = None,
        tag: str | None = None,
        start: Instant = None,
        end: Instant = None,
    ) -> int:
        """Return how many traces there are, of a kind or with a tag. Cost: O(number counted)."""
        if kind is not None and tag is not None:
            raise InvalidInput("count takes a kind or a tag", hint="sum over by_tag for both")
        if kind is not None:
            return self._counted(_KIND, _kind(kind), start, end)
        if tag is not None:
            return self._counted(_TAG, check_name(tag, "tag"), start, end)
        return self._counted(ALL, "", start, end)

    def __len__(self) -> int:
        return self.count()

    def __iter__(self) -> Iterator[Trace]:
        return self.list()

    def __contains__(self, id: object) -> bool:
        return isinstance(id, str) and self.exists(id)

    def _that_wrote(self, ref: EntityRef) -> Iterator[Trace]:
        """Return the traces that say that they wrote a version of something, in order of time."""
        found = self._found(_WROTE, _wrote(ref), None, None, False, None)
        thing = ref.space, ref.primitive, ref.key, ref.version
        return (
            trace
            for trace in found
            if any((ref.space, ref.primitive, ref.key, ref.version) == thing for ref in trace.writes)
        )

    def _found(
        self, letter: str, label: str, start: Instant, end: Instant, reverse: bool, limit: int | None
    ) -> Iterator[Trace]:
        txn, ids = self._ids(letter, label, start, end, reverse, limit)
        return (trace for trace in (self._read(txn, id) for id in ids) if trace is not None)

    def _read(self, txn: Txn, key: bytes) -> Trace | None:
        found = txn.entry(key)
        if found is None:
            return None
        thing, version, _, _ = found
        # What this very transaction wrote shows the version of the snapshot, and is not in the history yet.
        is_pending = txn.mode == "inside" and version == txn.version and not txn.history(key, None, 1)
        return _trace(key.decode(), thing, None if is_pending else version)

    def _named(self, txn: Txn, id: str) -> Trace:
        found = self._read(txn, check_name(id, "trace id").encode())
        if found is None:
            self._check_space()
            raise NotFound(what="trace", name=id)
        return found


def _trace(id: str, thing: dict[str, Any], version: int | None) -> Trace:
    """Return a trace as the user gets it. What it wrote was written by its own commit."""
    writes = (EntityRef.parse(ref) for ref in thing.get("writes", ()))
    return Trace(
        id,
        thing["kind"],
        thing["started"],
        thing.get("name"),
        thing.get("parent"),
        thing.get("input"),
        thing.get("output"),
        thing.get("error"),
        thing.get("ended"),
        tuple(thing.get("tags", ())),
        thing.get("metadata", {}),
        tuple(EntityRef.parse(ref) for ref in thing.get("reads", ())),
        tuple(ref if ref.version is not None else replace(ref, version=version) for ref in writes),
        version,
    )


def _kind(kind: Any, name: Any = "any") -> str:
    if type(kind) is not str or kind not in KINDS:
        raise InvalidInput(
            f"{kind!r} is no kind of trace",
            hint=f"one of {', '.join(KINDS)}; custom with a name for any other",
        )
    if name is None:
        if kind == "custom":
            raise InvalidInput("a custom trace needs a name", hint="record('custom', 'plan')")
    else:
        check_name(name, "trace name", reserved=True)
    return kind


def _parent(parent: Any) -> str | None:
    if parent is None:
        return None
    return check_name(parent.id if isinstance(parent, Trace) else parent, "trace id")


def _error(error: Any) -> str | None:
    if error is None or type(error) is str:
        return error
    if isinstance(error, BaseException):
        return f"{type(error).__name__}: {error}"
    raise InvalidInput(f"an error is a text or an exception, not {type(error).__name__}", hint="use str(...)")


def _after(ended: int, started: int) -> int:
    if ended < started:
        raise InvalidInput("a trace cannot end before it began", hint="exchange started and ended")
    return ended


def _refs(refs: Any, what: str, version: int | None) -> list[str]:
    """Return refs as they are stored; those without a version get `version`."""
    if refs == ():
        return []
    if isinstance(refs, (str, EntityRef)) or not isinstance(refs, Iterable):
        raise InvalidInput(f"{what} are a list of refs, not {refs!r}", hint=f"{what}=[ref]")
    found = []
    for ref in refs:
        if type(ref) is str:
            ref = EntityRef.parse(ref)
        elif not isinstance(ref, EntityRef):
            raise InvalidInput(
                f"{what} are refs, not {type(ref).__name__}",
                hint="as in EntityRef('main', 'default', 'kv', key)",
            )
        found.append(str(ref if ref.version is not None else replace(ref, version=version)))
    return found


def _wrote(ref: EntityRef) -> str:
    """Return the label by which a trace is found that wrote something: a key may be longer than a label."""
    return hashlib.sha256(str(replace(ref, path=None, version=None)).encode()).hexdigest()[:32]


def _line(trace: Trace) -> str:
    name = f" {trace.name}" if trace.name else ""
    took = f" {trace.duration_us / 1000:.1f} ms" if trace.duration_us is not None else ""
    error = f" failed: {trace.error.partition(chr(10))[0][:80]}" if trace.error else ""
    return f"{trace.kind}{name}{took}{error}"
