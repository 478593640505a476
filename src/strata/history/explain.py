"""Explain: why a value is what it is, from commits, recorded reads, events and traces.

    Explanation        a value, with the commit that wrote it, and what else that did
      causes           what that commit had read, as it was just before; what it gives as its cause; what it
                       merged. Each is an Explanation again, `depth` commits deep

Nothing is guessed: what a transaction had read is known only if it was recorded (`record_reads=True`), and an
explanation says so where it was not. The tree is made level by level, so that a limit takes away what is
farthest from the question.

A transaction that could have run alone (`isolation="serializable"`) had read what was there just before its
commit. Of one under snapshot isolation it is shown all the same: what it had read may be older.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any, Final, Literal

import msgspec

from strata.core import patches
from strata.core.errors import HistoryTrimmed, InvalidInput, LimitExceeded, NotFound
from strata.core.keys import check_int
from strata.core.paths import overlap
from strata.core.protocols import PATCH, UNKNOWN, Branch, Commit, Path, ReadRow, Store, Txn, Written
from strata.core.refs import EntityRef, readable
from strata.core.values import canonical
from strata.history.ancestry import MERGES, SPACE
from strata.history.digest import is_ours
from strata.history.plain import plain
from strata.history.replay import check_kept
from strata.history.tree import html_of, text_of_tree
from strata.primitives import PRIMITIVES, Event, Origin, Trace, Traces
from strata.primitives.base import Primitive

MAX_DEPTH: Final = 100  # deeper trees help nobody, and whoever walks them may do so by recursion
_ROWS_OF_A_RANGE: Final = 10  # that are followed
_OTHERS: Final = 20  # things of the same commit that are named
_KEPT_WRITES: Final = 50_000  # of commits that were looked at, as others may be of the same
_PAGE: Final = 20  # versions of a document that are read at once

Found = Literal["value", "removed", "expired", "absent", "trimmed", "commit", "range", "unknown"]
_Reading = tuple[str, str, bytes | None, Path | None]
Role = Literal["", "read", "cause", "merged", "before"]


class Explanation(msgspec.Struct, frozen=True):
    """Why one thing is as it is. `print` gives a tree, a notebook the same to unfold."""

    role: Role  # what it is to the one above: read by it, its cause, merged into it, or what was there before
    ref: EntityRef | None  # with the version that wrote it; None for a commit or a range
    found: Found
    value: Any = None
    label: str = ""  # of a commit or a range
    action: str = ""  # how it was written
    commit: Commit | None = None
    had_read: int | None = None  # how many keys and ranges; None where that was not recorded
    events: tuple[Event, ...] = ()  # of the same commit
    traces: tuple[Trace, ...] = ()  # of the same commit
    named_by: tuple[Trace, ...] = ()  # later traces that say they wrote it
    also_wrote: tuple[EntityRef, ...] = ()  # in the same commit, the first of them
    unknown: tuple[str, ...] = ()  # what cannot be said, and why
    followed: bool = True  # no: it lies deeper than was asked for
    again: bool = False  # it is explained elsewhere in the tree
    left_out: int = 0  # causes that the limit left no room for
    causes: tuple[Explanation, ...] = ()

    def walk(self) -> Iterator[Explanation]:
        """Yield this and all below it, each before its causes."""
        open_ = [self]
        while open_:
            node = open_.pop()
            yield node
            open_ += reversed(node.causes)

    @property
    def truncated(self) -> bool:
        """Whether the limit left something out."""
        return any(node.left_out for node in self.walk())

    def to_dict(self) -> dict[str, Any]:
        """Return all of it as JSON can say it."""
        found: dict[str, Any] = plain(self)
        return {**found, "truncated": self.truncated}

    def to_html(self) -> str:
        """Return it as HTML to unfold. All that comes from the data is escaped."""
        return html_of(self)

    def _repr_html_(self) -> str:
        return self.to_html()

    def __str__(self) -> str:
        return text_of_tree(self)

    def __repr__(self) -> str:
        return f"<Explanation of {str(self.ref or self.label)[:200]!r}, {sum(1 for _ in self.walk())} nodes>"


@dataclass(slots=True)
class _Node:
    """An Explanation that grows. What it is about: a key as of a version, a commit, or a range."""

    role: Role
    level: int  # how many commits it is away from the question
    branch: Branch
    space: str = ""
    kind: str = ""
    key: bytes = b""
    path: Path | None = None
    region: Path = ()  # what the path depends on
    upto: int | None = None  # as of which version; None is now
    end: bytes | None = None  # of a range, whose start is `key`
    version: int | None = None  # of the commit that wrote it
    state: dict[str, Any] = field(default_factory=dict)
    unknown: list[str] = field(default_factory=list)
    below: list[_Node] = field(default_factory=list)
    left_out: int = 0

    @property
    def primitive(self) -> type[Primitive]:
        found: type[Primitive] = PRIMITIVES[self.kind]
        return found

    @property
    def name(self) -> str:
        return self.primitive._name(self.key) or readable(self.key)

    def freeze(self) -> Explanation:
        state = {"found": "unknown", **self.state}
        ref = None
        if state["found"] not in ("commit", "range"):
            ref = EntityRef(self.branch.name, self.space, self.kind, self.name, self.path, self.version)
        causes = tuple(node.freeze() for node in self.below)
        return Explanation(
            role=self.role,
            ref=ref,
            unknown=tuple(self.unknown),
            left_out=self.left_out,
            causes=causes,
            **state,
        )


class Explainer:
    """Explains one thing, within limits."""

    def __init__(self, store: Store, depth: int, limit: int) -> None:
        self._store = store
        self._depth = depth
        self._left = limit
        self._written: dict[tuple[str, int], list[Written]] = {}
        self._done: set[tuple[Any, ...]] = set()  # what was explained already

    def explain(self, root: _Node) -> Explanation:
        """Return the explanation of what `root` is about.

        Raises: NotFound when there never was such a thing; HistoryTrimmed when that is not known any more.
        """
        self._left -= 1
        self._locate(root)
        if root.state["found"] == "absent" and root.path is None:
            raise NotFound(
                f"there was never anything at {self._ref(root)}",
                what="key",
                name=root.name,
                hint="db.branches.list(), db.spaces and the keys of a primitive say what there is",
            )
        queue = deque([root])
        while queue:
            node = queue.popleft()
            if node is not root:
                self._locate_or_say(node)
            self._follow(node)
            for child in list(node.below):
                if self._left <= 0:
                    node.below.remove(child)
                    node.left_out += 1
                    continue
                self._left -= 1
                queue.append(child)
        return root.freeze()

    # -- where it is

    def _locate_or_say(self, node: _Node) -> None:
        try:
            self._locate(node)
        except HistoryTrimmed as error:
            node.state = {"found": "trimmed"}
            node.unknown.append(f"what it was: retention keeps versions from {error.oldest} on")
        except NotFound as error:
            node.state = {"found": "unknown"}
            node.unknown.append(f"what it was: {error.message}")

    def _locate(self, node: _Node) -> None:
        """Find value and version of what a node is about."""
        if node.state:
            return  # a commit, or a range
        view = node.branch.view(node.upto)
        txn = view.keyspace(node.space, node.primitive.LAYOUT)
        key = node.key.decode() if node.primitive.LAYOUT.text_keys else node.key
        found = txn.entry(key)
        if found is not None:
            value, node.version, time, expires = found
            shown = node.primitive._shown(node.key, value, node.version, time, expires)
            node.state = {"found": "value", "value": shown}
        else:
            rows = txn.history(key, None, 1)
            if not rows:
                node.state = {"found": "absent"}
                return
            value, node.version, _, is_deleted, _ = rows[0]
            node.state = {"found": "removed" if is_deleted else "expired"}
        if node.path is not None:
            self._locate_path(node, txn, key, value)

    def _locate_path(self, node: _Node, txn: Txn, key: str | bytes, value: Any) -> None:
        """Find what is at the path, and the commit that touched it last."""
        assert node.path is not None
        if node.state["found"] == "value":
            at = patches.get_path(value, node.path, patches.ABSENT)
            node.state = {"found": "absent"} if at is patches.ABSENT else {"found": "value", "value": at}
            node.region = patches.resolve(value, node.path)
            if at is not patches.ABSENT:
                node.path = node.region  # the same place, counted from the start
        self._locate_touched(node, txn, key)

    def _locate_touched(self, node: _Node, txn: Txn, key: str | bytes) -> None:
        """Go back to the commit that touched the path last, or began with nothing."""
        assert node.path is not None
        before: int | None = None
        newer: tuple[int, int] | None = None  # version and time of the one before
        while rows := txn.history(key, before, _PAGE):
            for _, version, time, is_deleted, expires in rows:
                if newer is not None and expires is not None and expires <= newer[1]:
                    node.version = newer[0]  # what was there had expired, so that one began anew
                    return
                node.version, newer = version, (version, time)
                if is_deleted or self._touched(node, version):
                    return
                if self._left <= 0:
                    node.unknown.append(f"which commit below {version} wrote it: the limit is reached")
                    node.version, node.left_out = None, node.left_out + 1
                    return
                self._left -= 1
            before = node.version

    @staticmethod
    def _touched(node: _Node, version: int) -> bool:
        """Whether a commit touched the path, or that is all that is known."""
        view, earlier = node.branch.view(version), node.branch.view(version - 1)
        kinds, touched = view.how(earlier, node.space, node.kind, node.key)
        if kinds & UNKNOWN:
            node.unknown.append(f"which commit up to {version} wrote it: the history is not kept")
            return True
        return kinds != PATCH or any(overlap(path, node.region) for path in touched)

    # -- how it came to be

    def _follow(self, node: _Node) -> None:
        """Add who wrote it, and what that came from."""
        if node.version is None or node.state["found"] in ("trimmed", "unknown"):
            return
        thing = (node.branch.name, node.version, node.space, node.kind, node.key, node.path)
        if thing in self._done:
            node.state["again"] = True
            return
        if node.level >= self._depth:
            node.state["followed"] = False
            return
        self._done.add(thing)
        version = node.version
        commits = node.branch.commits(version - 1, version + 1, False, 1)
        if not commits:
            node.unknown.append(f"who wrote it: there is no record of commit {version}")
            return
        commit = node.state["commit"] = commits[0]
        writes = self._writes(node.branch, version)
        self._say_writes(node, commit, writes)
        try:
            check_kept(node.branch, version - 1)
        except HistoryTrimmed as error:
            node.unknown.append(f"what else it wrote: retention keeps versions from {error.oldest} on")
        if node.kind:
            node.state["named_by"] = self._named_by(node, commit)
        merged = self._add_merged(node, writes)
        self._add_reads(node, {row[1:4] for row in writes}, bool(merged))
        # A merge gives as its cause what it merged, which of a thing says more already.
        if commit.cause is not None and not (node.kind and commit.cause in merged):
            self._add_cause(node, commit.cause)

    def _writes(self, branch: Branch, version: int) -> list[Written]:
        """Return what a commit wrote. Things of one commit come in crowds, and finding it may take 50 ms."""
        found = self._written.get((branch.name, version))
        if found is None:
            found = branch.writes(version - 1, version)
            if sum(map(len, self._written.values())) + len(found) > _KEPT_WRITES:
                self._written.clear()
            self._written[branch.name, version] = found
        return found

    def _say_writes(self, node: _Node, commit: Commit, writes: list[Written]) -> None:
        """Note the events and traces of the commit, and what else it wrote."""
        events: list[Event] = []
        traces: list[Trace] = []
        others: list[EntityRef] = []
        for version, space, kind, key, how, value, expires in writes:
            primitive = PRIMITIVES.get(kind)
            name = None if primitive is None or is_ours(space) else primitive._name(key)
            if primitive is None or name is None:
                continue
            if (space, kind, key) == (node.space, node.kind, node.key):
                node.state["action"] = primitive._verb(key, how)
                continue
            if value is not None and kind in ("events", "traces"):
                shown = primitive._shown(key, value, version, commit.time, expires)
                (events if kind == "events" else traces).append(shown)
            elif len(others) < _OTHERS:
                others.append(EntityRef(node.branch.name, space, kind, name, None, version))
        node.state |= {"events": tuple(events), "traces": tuple(traces), "also_wrote": tuple(others)}

    def _named_by(self, node: _Node, commit: Commit) -> tuple[Trace, ...]:
        """Return the traces of other commits that say they wrote this."""
        view, found = node.branch.view(), dict[str, Trace]()
        for space in filter(lambda space: not is_ours(space), view.spaces()):
            traces = Traces(view.keyspace(space, Traces.LAYOUT))
            for branch in dict.fromkeys((node.branch.name, commit.branch)):
                ref = replace(self._ref(node), branch=branch, version=node.version)
                found |= {
                    trace.id: trace for trace in traces._that_wrote(ref) if trace.version != node.version
                }
        return tuple(found.values())

    def _add_reads(self, node: _Node, wrote: set[tuple[str, str, bytes]], is_merge: bool) -> None:
        """Add what the transaction had read, as it was just before its commit."""
        assert node.version is not None
        reads = [row for row in node.branch.reads(node.version) if row[1] in PRIMITIVES]
        if not reads:
            if not is_merge:
                node.unknown.append("what was read for it: that was not recorded, or it was nothing")
            return
        node.state["had_read"] = len(reads)
        for (space, kind, key, path), (start, end) in sorted(_readings(reads), key=repr):
            if key is None:
                self._add_range(node, space, kind, start or b"", end)
            elif (
                kind != "traces" or (space, kind, key) not in wrote
            ):  # else it was looked whether the id is free
                self._add(node, "read", space, kind, key, path)

    def _add(self, node: _Node, role: Role, space: str, kind: str, key: bytes, path: Path | None) -> None:
        assert node.version is not None
        node.below.append(
            _Node(role, node.level + 1, node.branch, space, kind, key, path, upto=node.version - 1)
        )

    def _add_range(self, node: _Node, space: str, kind: str, start: bytes, end: bytes | None) -> None:
        """Add a range that was read, with the first things in it."""
        assert node.version is not None
        primitive = PRIMITIVES[kind]
        added = _Node("read", node.level + 1, node.branch, space, kind, start, end=end)
        low, high = (readable(bound) if bound else None for bound in (start, end))
        span = " ".join(filter(None, (f"from {low!r}" if low else "", f"up to {high!r}" if high else "")))
        if start[:1] == b"\0":
            span = "found by what they are"  # the rows of an index, which say nothing to people
        added.state = {"found": "range", "label": f"{kind} of space {space!r} {span or ', all'}"}
        node.below.append(added)
        try:
            txn = node.branch.view(node.version - 1).keyspace(space, primitive.LAYOUT)
            keys = _keys_in(txn, primitive.LAYOUT.text_keys, start, end)
        except HistoryTrimmed as error:
            added.unknown.append(f"what was in it: retention keeps versions from {error.oldest} on")
            return
        names = [key for key in keys if primitive._name(key) is not None]
        for key in names[:_ROWS_OF_A_RANGE]:
            self._add(node, "read", space, kind, key, None)
            added.below.append(node.below.pop())
        if len(names) > _ROWS_OF_A_RANGE:
            added.unknown.append(f"the rest of it: only the first {_ROWS_OF_A_RANGE} are followed")

    def _add_cause(self, node: _Node, cause: str) -> None:
        """Add what the commit gives as its cause, where that is a ref or a commit."""
        assert node.version is not None
        if cause.startswith("commit:") and cause[7:].isascii() and cause[7:].isdigit():
            self._add_commit(node, int(cause[7:]))
            return
        try:
            ref = EntityRef.parse(cause)
            upto = node.version - 1 if ref.version is None else ref.version
            child = node_of(self._store, ref, "cause", node.level + 1, upto)
        except (InvalidInput, NotFound, LimitExceeded) as error:
            if cause.startswith("strata://"):
                node.unknown.append(f"its cause: {error.message}")
            return  # else it is text for people, and stands with the commit
        node.below.append(child)

    def _add_commit(self, node: _Node, version: int) -> None:
        branch = self._branch_with(node.branch, version)
        if branch is None:
            node.unknown.append(f"its cause: no branch shows a commit {version}")
            return
        child = _Node("cause", node.level + 1, branch, version=version)
        child.state = {"found": "commit", "label": f"commit {version}"}
        node.below.append(child)

    def _branch_with(self, first: Branch, version: int) -> Branch | None:
        """Return a branch that shows a commit: the first one, if it does."""
        if not 0 < version < 2**63 - 1:
            return None
        own = [
            self._store.branch(info.name)
            for info in self._store.branches()
            if (info.fork_version or 0) < version <= info.head
        ]
        shows = (branch for branch in (first, *own) if branch.commits(version - 1, version + 1, False, 1))
        return next(shows, None)

    # -- through merges

    def _add_merged(self, node: _Node, writes: list[Written]) -> set[str]:
        """Go on in the branches whose merge this commit is; return what it merged, as causes are written."""
        merges = [row for row in writes if row[1:3] == (SPACE, MERGES.kind) and row[5] is not None]
        value = node.state.get("value")
        if isinstance(value, Event) and node.path is None:
            if value.origin is not None:
                self._add_origin(node, value.origin)
        elif node.kind:
            for _, _, _, key, _, merge, _ in merges:
                self._add_source(node, int(key), merge["branch"], merge["version"])
        return {f"commit:{row[5]['version']}" for row in merges}

    def _add_origin(self, node: _Node, origin: Origin) -> None:
        """Add the event that an event is a copy of, which its hash tells from any other."""
        try:
            branch = self._store.branch(origin.branch)
        except NotFound:
            node.unknown.append(f"who appended it on branch {origin.branch!r}: there is none of that name")
            return
        key = node.key[:-8] + origin.sequence.to_bytes(8)
        then = min(origin.version, branch.head)
        child = _Node("merged", node.level + 1, branch, node.space, node.kind, key, upto=then)
        self._locate_or_say(child)
        value = child.state.get("value")
        if isinstance(value, Event) and value.hash == origin.hash:
            node.below.append(child)
        else:
            node.unknown.append(f"who appended it: branch {origin.branch!r} does not have it")

    def _add_source(self, node: _Node, branch_id: int, name: str, version: int) -> None:
        """Add what a branch had there when it was merged, and what that met if it is not what is there."""
        now = {info.id: info.name for info in self._store.branches()}
        if branch_id not in now:
            node.unknown.append(f"who wrote it on branch {name!r}: the branch was deleted")
            return
        branch = self._store.branch(now[branch_id])
        child = _Node(
            "merged", node.level + 1, branch, node.space, node.kind, node.key, node.path, upto=version
        )
        self._locate_or_say(child)
        if child.state["found"] == "absent":
            return
        node.below.append(child)
        if not self._is_same(node, branch, version):
            self._add(node, "before", node.space, node.kind, node.key, node.path)

    def _is_same(self, node: _Node, source: Branch, version: int) -> bool:
        """Whether a merge took what the source had as it was."""
        layout = node.primitive.LAYOUT
        key = node.key.decode() if layout.text_keys else node.key
        views = source.view(version), node.branch.view(node.upto)
        values = (view.keyspace(node.space, layout).get(key, patches.ABSENT) for view in views)
        one, other = (patches.get_path(value, node.path or (), patches.ABSENT) for value in values)
        if one is patches.ABSENT or other is patches.ABSENT:
            return one is other
        return canonical(one) == canonical(other)

    @staticmethod
    def _ref(node: _Node) -> EntityRef:
        return EntityRef(node.branch.name, node.space, node.kind, node.name)


def node_of(store: Store, ref: EntityRef, role: Role, level: int, upto: int | None) -> _Node:
    """Return the node of what a ref names.

    Raises: InvalidInput, NotFound.
    """
    primitive = PRIMITIVES.get(ref.primitive)
    if primitive is None:
        raise InvalidInput(f"{ref} is of no primitive", hint=f"one of {', '.join(PRIMITIVES)}")
    if ref.path is not None and not primitive._PLAIN:
        raise InvalidInput(f"{ref}: what is in {ref.primitive} has no paths", hint="leave out the path")
    branch = store.branch(ref.branch)
    if upto is not None and upto > branch.head:
        raise InvalidInput(f"{ref}: the newest version of branch {ref.branch!r} is {branch.head}")
    if ref.space not in (*branch.spaces(), "default"):
        raise NotFound(what="space", name=ref.space)
    path = ref.path or None  # the root is the whole
    return _Node(role, level, branch, ref.space, ref.primitive, primitive._place(ref.key), path, upto=upto)


def explain(store: Store, ref: EntityRef | str, depth: int, limit: int) -> Explanation:
    """Return why what a ref names is as it is."""
    if not isinstance(ref, EntityRef):
        ref = EntityRef.parse(ref)
    check_int(limit, "limit", 1)
    if check_int(depth, "depth", 1) > MAX_DEPTH:
        raise LimitExceeded(what="depth of the explanation", limit=MAX_DEPTH, actual=depth)
    return Explainer(store, depth, limit).explain(node_of(store, ref, "", 0, ref.version))


def _readings(reads: list[ReadRow]) -> set[tuple[_Reading, tuple[bytes | None, bytes | None]]]:
    """Return what was read in the terms of users: paths only where values are as they gave them."""
    found = set()
    for space, kind, key, path, start, end in reads:
        primitive: type[Primitive] = PRIMITIVES[kind]
        if key is None or primitive._name(key) is not None:
            at = path if primitive._PLAIN and path != () else None
            found.add(((space, kind, key, at), (start, end)))
    return found


def _keys_in(txn: Txn, is_text: bool, start: bytes, end: bytes | None) -> list[bytes]:
    """Return the first keys of a range, whose bounds need not be keys."""
    try:
        low: Any = (start.decode() if is_text else start) or None
    except UnicodeDecodeError:
        low = None
    keys = txn.scan_keys(None, low, None, False, _ROWS_OF_A_RANGE + 1)
    found = (key.encode() if isinstance(key, str) else key for key in keys)
    return [key for key in found if key >= start and (end is None or key < end)]
