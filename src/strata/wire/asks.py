"""What one side may ask of a store at the other: the methods of `core.protocols`, and no others.

A thing is what a handle stands for; its kind says which methods it has. A test holds this list against the
protocols. Arguments go as plain values: a tuple arrives as a list, which the store takes as well.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, Literal, NamedTuple

from strata.core.errors import InvalidInput, NotFound
from strata.core.protocols import Layout
from strata.wire import paging
from strata.wire.frames import ABSENT

Access = Literal["read", "write", "admin"]
ACCESSES: Final[tuple[Access, ...]] = ("read", "write", "admin")


# One request waits at most so long; who wants to wait longer asks again.
WAIT_S_MAX: Final = 30.0


class Ask(NamedTuple):
    """One method that may be asked for."""

    run: Callable[..., Any]  # of the thing and the arguments
    access: Access = "read"
    makes: str | None = None  # the kind of thing that it returns, which becomes a handle
    slow: bool = False  # may take more than a millisecond, or wait; may overtake others
    reads: bool = False  # makes many rows into an answer
    heavy: bool = False  # may take more than a millisecond, and what comes behind it waits
    progress: bool = False  # takes a function to tell of its progress
    files: bool = False  # names a place in the files of the store's side
    waits: bool = False  # for others, and takes a function that says whether to go on
    once: bool = False  # a write that may be asked to happen at most once

    @property
    def writes(self) -> bool:
        """Whether there may be something to make durable afterwards."""
        return self.once or self.access != "read"


def _call(name: str) -> Callable[..., Any]:
    def run(thing: Any, *arguments: Any) -> Any:
        return getattr(thing, name)(*arguments)

    return run


def _value(name: str) -> Callable[..., Any]:
    def run(thing: Any) -> Any:
        return getattr(thing, name)

    return run


def _asks(names: str, **options: Any) -> dict[str, Ask]:
    return {name: Ask(_call(name), **options) for name in names.split()}


def _values(names: str) -> dict[str, Ask]:
    return {name: Ask(_value(name)) for name in names.split()}


def _shaped(
    name: str, shape: Callable[..., tuple[Any, ...]], call: Callable[..., Any] | None = None
) -> Callable[..., Any]:
    """Return what calls a method, or `call` with the thing, with the arguments in the shape that it has them
    in."""

    def run(thing: Any, *arguments: Any) -> Any:
        try:
            shaped = shape(*arguments)
        except (TypeError, ValueError, LookupError, AttributeError):
            raise InvalidInput(f"{name} does not take arguments of this shape") from None
        return getattr(thing, name)(*shaped) if call is None else call(thing, *shaped)

    return run


def _keyspace(space: Any, kind: Any, text_keys: Any, finite: Any) -> tuple[Any, ...]:
    if not isinstance(kind, str) or not isinstance(text_keys, bool) or not isinstance(finite, bool):
        raise TypeError
    return space, Layout(kind, text_keys, finite)


def _get(key: Any) -> tuple[Any, ...]:
    return key, ABSENT


def _get_path(key: Any, path: list[Any]) -> tuple[Any, ...]:
    return key, tuple(path), ABSENT


def _wait(thing: Any, after: int, timeout_s: float, sealed: str | None, *stop: Any) -> int:
    return int(thing.wait(after, min(timeout_s, WAIT_S_MAX), sealed, *stop))


def _get_many(keys: list[Any]) -> tuple[Any, ...]:
    return keys, ABSENT


def _forget(rows: list[Any]) -> tuple[Any, ...]:
    return ([tuple(row) for row in rows],)


def _put_many(rows: list[Any], *more: Any) -> tuple[Any, ...]:
    return [tuple(row) for row in rows], *more


def _patch(key: Any, ops: list[Any]) -> tuple[Any, ...]:
    return key, [(op[0], tuple(op[1]), *op[2:]) for op in ops]


def _expect(thing: Any, key: Any, version: int | None, value: Any, absent: bool) -> None:
    thing.expect(key, version=version, value=... if value is ABSENT else value, absent=absent)


def _finish(thing: Any, writes: list[Callable[[], Any]], *said: Any) -> Any:
    """Of a transaction: make writes inside it, and commit; roll back where one goes wrong."""
    try:
        for write in writes:
            write()
    except BaseException:
        thing.rollback()
        raise
    return thing.commit(*said)


def _bound(bound: Any) -> Any:
    if bound is None:
        return None
    values, is_inside = bound
    return list(values), is_inside


def _by_value(index: str, start: Any, end: Any, *more: Any) -> tuple[Any, ...]:
    return index, _bound(start), _bound(end), *more


def _passes(passes: Any) -> Any:
    if passes is None:
        return None
    found = dict(passes)
    if "values" in found:
        found["values"] = [
            (name, [(_bound(start), _bound(end)) for start, end in ranges])
            for name, ranges in found["values"]
        ]
    if "written" in found:
        found["written"] = tuple(found["written"])
    return found


def _search(index: str, query: Any, k: int, passes: Any, *more: Any) -> tuple[Any, ...]:
    return index, query, k, _passes(passes), *more


def _moment(thing: Any) -> tuple[str, int, int]:
    """Of a snapshot: its branch, its version, and the time of the store, to open it again as it is."""
    return thing.name, thing.version, thing.keyspace("default", Layout("kv")).now


def _branch(thing: Any, name: str, id: int | None = None) -> Any:
    """Of a store: a branch by its name, or the one with this id, whatever its name is by now."""
    try:
        found = thing.branch(name)
    except NotFound:
        if id is None:
            raise
    else:
        if id is None or _identity(found)[0] == id:
            return found
    now = next((info.name for info in thing.branches() if info.id == id), None)
    if now is None:
        raise NotFound(f"branch {name!r} was deleted", what="branch", name=name)
    return thing.branch(now)


def _identity(thing: Any) -> tuple[int, str]:
    """Of a branch: its id, which it keeps for good, and its name."""
    return thing.view().lineage()[0][0], thing.name


def _view(thing: Any, version: int | None, time: int | None) -> Any:
    return thing.view(version, time)


_TXN: Final = {
    **_values("version now exists names mode"),
    **_asks("entry kept contains indexes"),
    **_asks("count", heavy=True),
    "scan": Ask(paging.scan),
    "scan_keys": Ask(paging.scan_keys),
    "history": Ask(paging.history),
    "get": Ask(_shaped("get", _get)),
    "get_path": Ask(_shaped("get_path", _get_path)),
    "get_many": Ask(_shaped("get_many", _get_many, paging.get_many)),
    "by_value": Ask(_shaped("by_value", _by_value, paging.by_value), heavy=True),
    "by_text": Ask(_shaped("by_text", _search), heavy=True),
    "by_vector": Ask(_shaped("by_vector", _search), heavy=True),
    **_asks("put put_until delete delete_many append add", access="write", once=True),
    "put_many": Ask(_shaped("put_many", _put_many), access="write", once=True),
    "patch": Ask(_shaped("patch", _patch), access="write", once=True),
    "expect": Ask(_expect, access="write"),
    **_asks("declare_index", access="write", heavy=True),
}
_TRANSACTION: Final = {
    **_values("snapshot"),
    "keyspace": Ask(_shaped("keyspace", _keyspace), makes="txn"),
    **_asks("spaces rollback"),
    # Whoever may only read can have written nothing, and ends what they read so.
    **_asks("commit", once=True),
    "finish": Ask(_finish, once=True),
}
_SNAPSHOT: Final = {
    **_values("name version"),
    "moment": Ask(_moment),
    "keyspace": Ask(_shaped("keyspace", _keyspace), makes="txn"),
    **_asks("lineage spaces"),
    **_asks("how", slow=True, reads=True),
    **_asks("diff", makes="diff", slow=True),
}
_BRANCH: Final = {
    **_values("name head sealed"),
    "identity": Ask(_identity),
    "keyspace": Ask(_shaped("keyspace", _keyspace), makes="txn"),
    "view": Ask(_view, makes="snapshot"),
    **_asks("spaces version_at result_of reads oldest"),
    "wait": Ask(_wait, slow=True, waits=True),
    "writes": Ask(paging.writes, slow=True, reads=True),
    "commits": Ask(paging.commits, slow=True, reads=True),
    **_asks("begin", makes="transaction"),
}
_STORE: Final = {
    **_values("durable_version"),
    "branch": Ask(_branch, makes="branch"),
    **_asks("snapshot", makes="snapshot"),
    **_asks("branches tags policies indexes outcome info"),
    **_asks("create fork rename delete seal tag untag", access="admin", slow=True),
    **_asks("set_policy clear_policy create_index drop_index", access="admin", slow=True),
    **_asks("flush", slow=True),
    **_asks("checkpoint", access="admin", slow=True),
    "forget": Ask(_shaped("forget", _forget), access="admin", slow=True),
    **_asks("compact rebuild_indexes verify", access="admin", slow=True, progress=True),
    **_asks("rotate_key", access="admin", slow=True, progress=True),
    **_asks("backup", access="admin", slow=True, progress=True, files=True),
    **_asks("export", access="admin", slow=True, files=True),
}
_DIFF: Final = {"page": Ask(paging.page, slow=True, reads=True)}

# By the kind of thing, the methods by name.
ASKS: Final[dict[str, dict[str, Ask]]] = {
    "store": _STORE,
    "branch": _BRANCH,
    "snapshot": _SNAPSHOT,
    "transaction": _TRANSACTION,
    "txn": _TXN,
    "diff": _DIFF,
}
# Of the protocols, what is not asked for: it is made of others, or is of the one side alone.
UNASKED: Final = {"txn": {"begin", "pinned", "scan_page"}, "store": {"close", "closed"}}
