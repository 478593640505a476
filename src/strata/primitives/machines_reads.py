"""Reading machines and instances: by id, by machine and state, by what is in the context, and over time."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any, ClassVar, Final, cast

from strata.core.errors import InvalidInput, NotFound, NotIndexed
from strata.core.keys import check_int, check_name
from strata.core.merging import Delete, Merged, Three, Write, clash, settled
from strata.core.patches import ABSENT
from strata.core.protocols import DELETE, PATCH, PUT, Kept, Layout, Path, Txn
from strata.core.values import same
from strata.core.where import compile
from strata.primitives.base import Primitive, pages
from strata.primitives.finding import FindPlan, plan
from strata.primitives.machines_definition import Compiled, check_version, compiled
from strata.primitives.machines_rows import (
    DEFINITIONS,
    LAYOUT,
    THINGS,
    TIMERS,
    Instance,
    Machine,
    MachineVersions,
    Row,
    Transition,
    definition_key,
    definition_of,
    definition_prefix,
    follows,
    given_key,
    gone_key,
    instance_key,
    instance_of,
    keys_prefix,
    line_of,
    machine_name,
    machine_of,
    machine_prefix,
    name_of,
    place_of,
    span_of,
    state_prefix,
)

PAGE: Final = 100  # instances that `list` returns when it is not told how many
_COMPILED_MAX: Final = 1024
_DIGEST: Final = ("digest",)
_compiled: Final[dict[bytes, Compiled]] = {}  # by digest: a definition never changes

Instances = list[Instance]  # a name of its own, since `Machines.list` hides the builtin inside the class
Transitions = list[Transition]


class MachineReads(Primitive):
    """What can be asked of the machines of one branch and space."""

    LAYOUT: ClassVar[Layout] = LAYOUT
    _DERIVES: ClassVar[bool] = True
    _TEXTS: ClassVar[dict[str, Path]] = {"context": ("context",)}

    __slots__ = ()

    # -- how history speaks of it

    @classmethod
    def _erasure(cls, name: str, is_prefix: bool) -> tuple[bytes, bool]:
        return (name.encode(), True) if is_prefix else (place_of(name), False)

    @classmethod
    def _name(cls, key: bytes) -> str | None:
        return name_of(key)

    @classmethod
    def _place(cls, name: str) -> bytes:
        return place_of(name)

    @classmethod
    def _verb(cls, key: bytes, how: int) -> str:
        if key < THINGS:
            return "define" if how == PUT else super()._verb(key, how)
        return {PUT: "create", PATCH: "apply", DELETE: "delete"}.get(how, super()._verb(key, how))

    @classmethod
    def _shown(
        cls, key: bytes, value: Any, version: int, time: int, expires: int | None
    ) -> Machine | Instance:
        if key < THINGS:
            return machine_of(key, value)
        return instance_of(key, value, version, time, expires)

    @classmethod
    def _bare(cls, key: bytes, kept: Kept) -> Any:
        return machine_of(key, kept[0]) if key < THINGS else instance_of(key, kept[0], kept[1], None, kept[2])

    @classmethod
    def _line(cls, shown: Any) -> str:
        return line_of(shown)

    @classmethod
    def _merge(cls, three: Three) -> Merged:
        """Both sides made the same transitions: nothing to do. Else the instances clash, as wholes."""
        if three.ours is not None and three.theirs is not None and _is_same(three.ours[0], three.theirs[0]):
            return Merged()
        found = settled(three)
        return _whole(clash(three)) if found is None else found

    @classmethod
    def _follows(cls, key: bytes, value: Any) -> list[bytes]:
        return [] if key < THINGS else follows(key, value)

    @classmethod
    def _follow(cls, txn: Txn, key: bytes, before: Kept | None, after: Kept | None) -> None:
        super()._follow(txn, key, before, after)
        rows = [] if after is None else cls._follows(key, after[0])
        for span in {span_of(row): None for row in rows if row.startswith(TIMERS)}:
            txn.put(span, None)

    @classmethod
    def _derived(cls, key: bytes, value: Any) -> list[tuple[bytes, bool]]:
        found = super()._derived(key, value)
        if not found:
            return []
        given = value.get("given_by")
        gone = [] if given is None else [(given_key(value["machine"], given), False)]
        return [*found, *gone, (gone_key(key), False), (keys_prefix(key), True)]

    # -- machines

    def machine(self, name: str, version: int | None = None) -> Machine:
        """Return a version of a machine; left out, the newest.

        Raises: NotFound.
        """
        machine_name(name)
        if version is not None:
            check_version(version)
        try:
            at = newest(self._txn, name) if version is None else version
            key = definition_key(name, at)
            row = self._txn.get(key)
            if row is None:
                raise no_machine(name, version)
        except NotFound:
            self._check_space()
            raise
        return machine_of(key, row)

    def definitions(self) -> list[MachineVersions]:
        """Return the machines by name, with their versions. Cost: looks at each version."""
        found: dict[str, list[int]] = {}
        keys = self._txn.scan_keys(DEFINITIONS, None, None, False, None)
        for name, version in map(definition_of, cast(list[bytes], keys)):
            found.setdefault(name, []).append(version)
        if not found:
            self._check_space()
        return [MachineVersions(name, tuple(found[name])) for name in sorted(found)]

    # -- instances

    def get(self, id: str) -> Instance | None:
        """Return an instance, or None."""
        key = instance_key(id)
        found = self._txn.entry(key)
        if found is None:
            self._check_space()
            return None
        return instance_of(key, *found)

    def exists(self, id: str) -> bool:
        """Return whether there is an instance with that id."""
        if self._txn.contains(instance_key(id)):
            return True
        self._check_space()
        return False

    def possible(self, id: str) -> list[str]:
        """Return the events that an instance would take now, sorted: those with a way whose guard holds.

        Raises: NotFound when there is no such instance.
        """
        txn, key = self._txn.pinned(), instance_key(id)
        row = txn.get(key)
        if row is None:
            raise no_instance(key)
        ways = tables(txn, row["machine"], row["machine_version"]).ways
        return sorted(
            event
            for (state, event), alternatives in ways.items()
            if state == row["state"]
            and any(way.guard is None or way.guard(row["context"]) for way in alternatives)
        )

    def list(
        self,
        machine: str | None = None,
        state: str | None = None,
        *,
        after: str | None = None,
        reverse: bool = False,
        limit: int | None = PAGE,
    ) -> Instances:
        """Return instances in order of their ids, all as of one version: at most 100, unless told otherwise.

        Args:
            machine: only its instances.
            state: only those in a state of `machine`.
            after: only those behind this id, so that the last of a page gives the next page. Nothing is
                seen twice or missed, whatever comes and goes in between.
            reverse: from the last to the first; `after` goes with it.
            limit: None is all.
        Cost: two reads an instance that is returned. With a state also 0.04 us, or 0.2 from files, for each
            that was in it before and whose history retention keeps.
        """
        txn, prefix = self._txn.pinned(), _listed(machine, state)
        start, end = prefix or THINGS, None
        if after is not None:
            at = prefix + instance_key(after)
            start, end = (start, at) if reverse else (at + b"\0", None)
        keys = pages(txn.scan_keys, prefix or None, start, end, reverse, limit, self._check_space)
        return list(_read(txn, (key[len(prefix) :] for key in keys)))

    def count(self, machine: str | None = None, state: str | None = None) -> int:
        """Return how many instances there are, of a machine, in a state. Cost: O(number counted)."""
        prefix = _listed(machine, state)
        return self._count(prefix or None, None if prefix else THINGS, None)

    def find(
        self,
        where: Mapping[str, Any],
        *,
        scan: bool = False,
        order_by: str | None = None,
        after: str | None = None,
        reverse: bool = False,
        limit: int | None = None,
    ) -> Iterator[Instance]:
        """Return the instances that pass `where`, in order of their ids, all as of one version.

        Args:
            where: conditions by path on what is kept of an instance: `{"machine": "order", "state": "open",
                "$.context.total": {"gte": 100}}`; see `core.where`.
            scan: read all instances, when no index is declared for these paths.
            order_by: a path with an ordered index: in order of the values there.
            after: only ids behind this one, for the next page; not with `order_by`.
        Raises: NotIndexed when there is no index and no `scan`, or none for `order_by`.
        Cost: with an index, what lies in its ranges; with `scan`, every instance up to the last one taken.
        """
        passes, how = compile(where), self.explain_plan(where, order_by=order_by)
        left = None if limit is None else check_int(limit, "limit")
        if order_by is not None and after is not None:
            raise InvalidInput(
                "after goes by ids, and order_by by values", hint="page by a bound on the path"
            )
        if how.index is None and (order_by is not None or not scan):
            raise _not_indexed(where, order_by)
        txn, behind = self._txn.pinned(), None if after is None else instance_key(after)
        found = self._candidates(txn, how, order_by is not None, behind, reverse)
        return _taken(_read(txn, found, passes), left)

    def explain_plan(self, where: Mapping[str, Any], *, order_by: str | None = None) -> FindPlan:
        """Return how `find` answers: by which index and ranges of it, and what is left to check."""
        compile(where)
        return plan(where, self._txn.indexes(), (), None, order_by)

    def history(self, id: str, *, before: int | None = None, limit: int | None = None) -> Transitions:
        """Return what happened to an instance, newest first: transitions, creations, deletions.

        Args:
            before: only commits below this version.
            limit: at most so many commits, of which each may have made several transitions.
        Raises: HistoryTrimmed never: what retention let go of is left out.
        """
        key = instance_key(id)
        rows = self._history(key, before, None if limit is None else check_int(limit, "limit") + 1)
        found: Transitions = []
        for index, (value, version, time, is_deleted, _) in enumerate(rows[:limit]):
            older = rows[index + 1] if index + 1 < len(rows) else None
            previous = None if older is None or older[3] else older[0]
            if is_deleted:
                state, context = (None, {}) if previous is None else (previous["state"], previous["context"])
                found.append(Transition(id, None, state, None, context, version=version, time_us=time))
            else:
                found += reversed(instance_of(key, value, version, time, None).transitions)
        return found

    def __len__(self) -> int:
        return self.count()

    def __contains__(self, id: object) -> bool:
        return isinstance(id, str) and self.exists(id)

    def __iter__(self) -> Iterator[Instance]:
        txn = self._txn.pinned()
        keys = pages(txn.scan_keys, None, THINGS, None, False, None, self._check_space)
        return _read(txn, keys)

    def _candidates(
        self, txn: Txn, how: FindPlan, is_ordered: bool, after: bytes | None, reverse: bool
    ) -> Iterator[bytes]:
        """Return the keys of instances to look at, in order."""
        if how.index is None:
            low, high = (THINGS, after) if reverse else (THINGS if after is None else after + b"\0", None)
            return pages(txn.scan_keys, None, low, high, reverse, None, self._check_space)
        ranges = reversed(how.ranges) if reverse else how.ranges
        found = [row for start, end in ranges for row in txn.by_value(how.index, start, end, reverse, None)]
        keys = [cast(bytes, key) for key, _ in found]
        if not is_ordered:
            keys = _behind(sorted(keys), after, reverse)
        return iter(keys)


def _behind(keys: list[bytes], after: bytes | None, reverse: bool) -> list[bytes]:
    """Return the sorted keys behind one, in the order that is asked for."""
    if reverse:
        return [key for key in reversed(keys) if after is None or key < after]
    return keys if after is None else keys[bisect_right(keys, after) :]


def _taken(found: Iterator[Instance], left: int | None) -> Iterator[Instance]:
    return found if left is None else (instance for _, instance in zip(range(left), found, strict=False))


def _read(txn: Txn, keys: Iterable[bytes], passes: Any = None) -> Iterator[Instance]:
    for key in keys:
        found = txn.entry(key)
        if found is not None and (passes is None or passes(found[0])):
            yield instance_of(key, *found)


def _listed(machine: str | None, state: str | None) -> bytes:
    """Return what the rows by which instances are listed begin with; nothing for those of all of them."""
    if machine is None:
        if state is not None:
            raise InvalidInput("a state is one of a machine's", hint="as in list('order', 'paid')")
        return b""
    machine_name(machine)
    if state is None:
        return machine_prefix(machine)
    return state_prefix(machine, check_name(state, "state", reserved=True))


def tables(txn: Txn, machine: str, version: int) -> Compiled:
    """Return the tables of a definition that an instance has."""
    key = definition_key(machine, version)
    digest = txn.get_path(key, _DIGEST)
    found = _compiled.get(digest)
    if found is None:
        row: Row | None = txn.get(key)
        if row is None:
            raise no_machine(machine, version)
        if len(_compiled) >= _COMPILED_MAX:
            _compiled.clear()
        found = _compiled[row["digest"]] = compiled(row["definition"])
    return found


def newest(txn: Txn, name: str) -> int:
    """Return the newest version of a machine.

    Raises: NotFound.
    """
    keys = cast("list[bytes]", txn.scan_keys(definition_prefix(name), None, None, True, 1))
    if not keys:
        raise no_machine(name, None)
    return definition_of(keys[0])[1]


def _is_same(ours: Row, theirs: Row) -> bool:
    """Return whether two sides made the same of a thing, no matter when."""
    if "made" not in ours or "made" not in theirs:
        return same(ours, theirs)
    fields = ("machine", "machine_version", "state", "context")
    if not all(same(ours[field], theirs[field]) for field in fields):
        return False
    return same(*(_apart_from_ordinals(row["made"]) for row in (ours, theirs)))


def _apart_from_ordinals(made: list[Any]) -> list[Any]:
    return [made[0], *(item[: len(item) // 2 * 2] for item in made[1:])]


def _whole(merged: Merged) -> Merged:
    def take(value: Any) -> Write:
        if value is ABSENT:
            return Delete()
        raise InvalidInput(
            "what both sides of a merge made of an instance is not replaced",
            hint="take_source(), take_target() or delete()",
        )

    return Merged(merged.writes, [replace(found, take=take) for found in merged.clashes])


def no_machine(name: str, version: int | None) -> NotFound:
    """Return that there is no such machine."""
    what = f"machine {name!r}" if version is None else f"version {version} of machine {name!r}"
    return NotFound(f"{what} is not defined", what="machine", name=name, hint="machines.define makes it")


def no_instance(key: bytes) -> NotFound:
    """Return that there is no such instance.

    Raises: InvalidInput, and LimitExceeded, when there cannot be one.
    """
    id = key.decode()
    instance_key(id)
    return NotFound(what="instance", name=id, hint="machines.create makes it")


def _not_indexed(where: Mapping[str, Any], order_by: str | None) -> NotIndexed:
    names = ", ".join([*map(str, where), *filter(None, [order_by])])
    return NotIndexed(
        f"no index answers {names}",
        what="index",
        name=names,
        hint="declare one with db.indexes.create"
        + ("" if order_by else ", or pass scan=True to read all instances"),
    )
