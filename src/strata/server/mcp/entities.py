"""Read, write, history: single things of any primitive, by their address.

What a key names differs by primitive: of events it is `stream/sequence`, or the stream; of vectors
`collection/key`. `Address` is that, checked.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Final

import msgspec

from strata.api.place import Space
from strata.api.plain import from_json, plain, to_json
from strata.api.retry import RETRIES
from strata.api.transaction import Transaction
from strata.api.view import View
from strata.core import paths
from strata.core.errors import Conflict, ConflictKey, InvalidInput
from strata.core.refs import EntityRef
from strata.primitives import Event
from strata.primitives.base import MISSING
from strata.server.mcp import machines
from strata.server.mcp.answers import Commit, Entry, Part, Past, Thing, Wrote
from strata.server.mcp.requests import History, Read, Write
from strata.server.mcp.scope import Door
from strata.server.mcp.shown import ANSWER_CHARS, Budget, clean, said, shown_time

VERSION_CHARS: Final = 4_000  # of one of several versions
_STREAM_EVENTS: Final = 20  # that reading a stream shows


@dataclass(frozen=True, slots=True)
class Address:
    """Where a thing is, as a request says it; and at which version."""

    ref: EntityRef
    place: Space
    at: Any

    @property
    def state(self) -> Space | View:
        """The place as it was then."""
        return self.place if self.at is None else self.place.at(self.at)


def address(door: Door, request: Any) -> Address:
    """Return what a request means by `ref`, or by `primitive` and `key`.

    Raises: InvalidInput for neither and both, and outside of the scope.
    """
    at = getattr(request, "at", None)
    at = None if at is None else door.instant(at)
    if request.ref is not None:
        if request.primitive is not None or request.key is not None:
            raise InvalidInput("give a ref, or a primitive and a key, but not both")
        ref = door.ref(request.ref)
        if at is not None and ref.version is not None:
            raise InvalidInput("the ref has a version already: leave out at", hint="or its @version")
        at = ref.version if at is None else at
    else:
        if request.primitive is None or not request.key:
            raise InvalidInput(
                "what is meant? give a ref, or a primitive and a key",
                hint='as in {"primitive": "kv", "key": "goal"}; guide says what there is',
            )
        branch, space = door.branch(request.branch), door.space(request.space)
        ref = EntityRef(branch, space, request.primitive, request.key)
    path = getattr(request, "path", None)
    if path is not None:
        ref = replace(ref, path=paths.parse(path))
    if ref.path is not None and ref.primitive != "json":
        raise InvalidInput(f"only json documents are read by path, not {ref.primitive}")
    return Address(ref, door.place(ref.branch, ref.space), at)


def read(door: Door, request: Read, actor: str | None) -> Thing:
    """Return one thing, now or as it was.

    Raises: InvalidInput; NotFound for a branch, collection or space that is not there; HistoryTrimmed.
    """
    where = address(door, request)
    return thing(where, request.offset)


def thing(where: Address, offset: int = 0) -> Thing:
    """Return what is at an address; of a value that is too long a part of its JSON, from `offset` on."""
    found = _READERS[where.ref.primitive](where)
    if found is None:
        return Thing(ref=str(where.ref), found=False)
    if isinstance(found, list):
        return _stream(where.ref, found)
    value, about = found
    made: dict[str, Any] = {"ref": str(where.ref), "found": True, **about}
    shown, cut = Budget().fit(value)
    if not cut and not offset:
        return Thing(**made, stored=shown)
    return Thing(**made, part=_part(value, offset), truncated=True)


def _part(value: Any, offset: int) -> Part:
    text = msgspec.json.encode(to_json(plain(value))).decode()
    end = offset + ANSWER_CHARS
    following = end if end < len(text) else None
    return Part(text=clean(text[offset:end]), offset=offset, total_chars=len(text), next_offset=following)


def _stream(ref: EntityRef, found: list[Event]) -> Thing:
    """Return the newest events of a stream, as many as fit."""
    budget, shown = Budget(), []
    for event in reversed(found[-_STREAM_EVENTS:]):
        if budget.over:
            break
        shown.append(budget.fit(_line(event), VERSION_CHARS)[0])
    cut = budget.cut or len(found) > _STREAM_EVENTS
    return Thing(ref=str(ref), found=True, events=shown[::-1], version=found[-1].version, truncated=cut)


def _line(event: Event) -> dict[str, Any]:
    """Return what matters of an event among others."""
    time = shown_time(event.time)
    return {"sequence": event.sequence, "type": event.type, "payload": event.payload, "time": time}


Found = tuple[Any, dict[str, Any]] | list[Event] | None


def _entry(entry: Any) -> Found:
    """Return the value of what `entry` of kv, json and state gives, and what is known of it."""
    if entry is None:
        return None
    about: dict[str, Any] = {"version": entry.version, "time": shown_time(entry.timestamp)}
    if entry.expires is not None:
        about["expires"] = shown_time(entry.expires)
    if hasattr(entry, "counter"):
        about["counter"] = entry.counter
    return entry.value, about


def _document(where: Address) -> Found:
    state, key = where.state, where.ref.key
    found = _entry(state.json.entry(key))
    if found is None or where.ref.path is None:
        return found
    assert isinstance(found, tuple)
    value = state.json.get(key, paths.render(where.ref.path), MISSING)
    return None if value is MISSING else (value, found[1])


def _events(where: Address) -> Found:
    stream, _, number = where.ref.key.rpartition("/")
    events = where.state.events
    if stream and number.isascii() and number.isdigit():
        event = events.get(int(number), stream=stream)
        if event is None:
            return None
        return event, {"version": event.version, "time": shown_time(event.time)}
    stream = where.ref.key
    return list(events.range(stream=stream, reverse=True, limit=_STREAM_EVENTS + 1))[::-1]


def _vector(where: Address) -> Found:
    collection, _, key = where.ref.key.partition("/")
    vectors = where.state.vectors
    if not key:
        return vectors.stats(collection), {}
    entry = vectors.get(collection, key)
    if entry is None:
        return None
    return entry, {"version": entry.version, "time": shown_time(entry.timestamp)}


def _record(where: Address) -> Found:
    record = getattr(where.state, where.ref.primitive).get(where.ref.key)
    version = getattr(record, "version", None)
    return None if record is None else (record, {} if version is None else {"version": version})


_READERS: Final[dict[str, Callable[[Address], Found]]] = {
    "kv": lambda where: _entry(where.state.kv.entry(where.ref.key)),
    "state": lambda where: _entry(where.state.state.entry(where.ref.key)),
    "json": _document,
    "events": _events,
    "vectors": _vector,
    "traces": _record,
    "runs": _record,
    "machines": lambda where: machines.found(where.state, where.ref.key),
}


# -- write -----------------------------------------------------------------------------------------


def write(door: Door, request: Write, actor: str | None) -> Wrote:
    """Write one thing in a commit of its own, and return what was made.

    Raises: InvalidInput for what does not go together; Conflict when it is not at `expected_version`.
    """
    _check_write(request)
    place = door.place(request.branch, request.space)
    branch, space = door.branch(request.branch), door.space(request.space)
    path = paths.parse(request.path) if request.path is not None else None
    ref = EntityRef(branch, space, request.primitive, request.key, path)

    def body(tx: Transaction) -> Transaction:
        if request.expected_version is not None and request.primitive != "machines":
            _expect(tx, ref, request.expected_version)
        _WRITERS[request.primitive](tx, request)
        return tx

    retries = RETRIES if request.expected_version is None else 0  # it would find the same again
    tx = place.transact(
        body, retries=retries, actor=actor, message=request.message, idempotency_key=request.idempotency_key
    )
    assert tx.version is not None  # it was committed
    changed = tx.version > tx.snapshot
    if request.primitive == "events":
        ref = _appended(place, ref, tx.version)
    return Wrote(ref=str(ref), version=tx.version, changed=changed)


def _check_write(request: Write) -> None:
    kind, is_event = request.primitive, request.primitive == "events"
    if request.action == "delete" and is_event:
        raise InvalidInput("events are never deleted", hint="append one that says what holds now")
    if request.action == "delete" and request.value is not None:
        raise InvalidInput("a deletion has no value", hint="leave value out, or choose action set")
    if (request.path is not None) and kind != "json":
        raise InvalidInput(f"only json documents are written by path, not {kind}")
    if kind == "machines":
        return machines.check(request)
    if request.action not in ("set", "delete"):
        raise InvalidInput(f"{kind} are set or deleted", hint="create and apply are for machines")
    if (request.type is not None) is not is_event:
        raise InvalidInput(
            "events have a type, and nothing else has" if not is_event else "an event needs a type"
        )
    if is_event and request.expected_version is not None:
        raise InvalidInput("events are appended whatever is there: leave expected_version out")


def _expect(tx: Transaction, ref: EntityRef, version: int) -> None:
    """Raise Conflict unless a thing was last written at a version; 0 is none. The commit checks it, too."""
    entry = getattr(tx, ref.primitive).entry(ref.key)
    now = 0 if entry is None else entry.version
    if now != version:
        raise Conflict(
            f"{ref} was written at version {now}, not {version}" if now else f"{ref} is not there",
            keys=[ConflictKey(ref)],
            hint="read it again, and decide anew",
        )


def _write_kv(tx: Transaction, request: Write) -> None:
    if request.action == "delete":
        tx.kv.delete(request.key)
    else:
        tx.kv.put(request.key, from_json(request.value))


def _write_json(tx: Transaction, request: Write) -> None:
    is_whole = request.path in (None, "$", "")
    if request.action == "set":
        tx.json.set(request.key, request.path or "$", from_json(request.value))
    elif is_whole:
        tx.json.destroy(request.key)
    else:
        tx.json.delete(request.key, request.path or "$")


def _write_state(tx: Transaction, request: Write) -> None:
    if request.action == "delete":
        tx.state.delete(request.key)
    else:
        tx.state.set(request.key, from_json(request.value))


def _write_event(tx: Transaction, request: Write) -> None:
    payload = {} if request.value is None else from_json(request.value)
    if not isinstance(payload, dict):
        raise InvalidInput(f"the value of an event is a map, not {type(payload).__name__}")
    tx.events.append(request.type or "", payload, stream=request.key)


_WRITERS: Final[dict[str, Callable[[Transaction, Write], None]]] = {
    "kv": _write_kv,
    "json": _write_json,
    "state": _write_state,
    "events": _write_event,
    "machines": machines.write,
}


def _appended(place: Space, ref: EntityRef, version: int) -> EntityRef:
    """Return the ref of the event that a commit appended: the last of its stream then."""
    head = place.at(version).events.head(ref.key)
    if head is None:
        return ref
    return EntityRef(ref.branch, ref.space, ref.primitive, f"{ref.key}/{head.sequence}")


# -- history ---------------------------------------------------------------------------------------


def history(door: Door, request: History, actor: str | None) -> Past:
    """Return the versions of a thing; or, where none is named, the commits of a branch. Newest first.

    Raises: InvalidInput for things that never change; NotFound.
    """
    if request.ref is None and request.primitive is None and request.key is None:
        return _log(door, request)
    where = address(door, request)
    rows = _versions(where, request)
    budget, shown = Budget(), []
    for row in rows[: request.limit]:
        if budget.over:
            break
        shown.append(_version(row, budget, where))
    has_more = len(rows) > len(shown)
    return Past(
        ref=str(where.ref),
        versions=shown,
        next_before=shown[-1].version if has_more else None,
        truncated=budget.cut or has_more,
    )


def _versions(where: Address, request: History) -> list[Any]:
    kind, key = where.ref.primitive, where.ref.key
    before, limit = request.before, request.limit + 1
    if kind in ("kv", "json", "state"):
        found: list[Any] = getattr(where.place, kind).history(key, before=before, limit=limit)
        return found
    if kind == "machines":
        return machines.versions(where.place, key, before, limit)
    if kind == "vectors":
        collection, _, name = key.partition("/")
        return where.place.vectors.history(collection, name, before=before, limit=limit)
    raise InvalidInput(
        f"{kind} never change, so they have no versions", hint="read them; leave all out for the commits"
    )


def _version(row: Any, budget: Budget, where: Address) -> Entry:
    stored, cut = budget.fit(None if row.deleted else getattr(row, "value", row), VERSION_CHARS)
    commits = where.place.log(after=row.version - 1, before=row.version + 1, limit=1) if row.version else []
    by = commits[0] if commits else None
    actor, message = (None, None) if by is None else (said(by.actor), said(by.message))
    budget.named(actor, message)
    return Entry(
        version=row.version,
        time=shown_time(row.timestamp),
        stored=stored,
        deleted=row.deleted,
        actor=actor,
        message=message,
        truncated=cut,
    )


def _log(door: Door, request: History) -> Past:
    if door.scope.space is not None:
        raise InvalidInput(
            "commits are of all spaces, and this server reaches one",
            hint="give a ref, or a primitive and a key",
        )
    place = door.place(request.branch, request.space)
    commits = list(place.log(before=request.before, limit=request.limit + 1))
    budget, shown = Budget(), []
    for commit in commits[: request.limit]:
        if budget.over:
            break
        shown.append(_commit(commit))
        budget.named(shown[-1].branch, shown[-1].actor, shown[-1].message, shown[-1].cause)
    has_more = len(commits) > len(shown)
    return Past(commits=shown, next_before=shown[-1].version if has_more else None, truncated=has_more)


def _commit(commit: Any) -> Commit:
    return Commit(
        version=commit.version,
        branch=clean(commit.branch),
        time=shown_time(commit.time) or "",
        actor=said(commit.actor),
        message=said(commit.message),
        cause=said(commit.cause),
    )
