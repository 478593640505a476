"""Recorded calls: what a tool or a model returned, kept with the run, so that it need not be called again.

    search = run.recorded(search)       first time: calls it, keeps what it returned or raised
                                        when the run goes on after a crash, or is replayed: gives that again

A program that takes over a run begins at its beginning, and its recorded calls come back without being called
up to where the other stopped. So the program must ask for the same things in the same order, and everything
that could differ (time, chance, the network) must be inside of recorded calls.

    0x00, "c", run, 0x00, place     on the branch of the run
        {name, digest, started, attempts}       before the call
        {..., ended, result | error}            after it: the call is finished

A place is where in the program a call stands: for each level of nesting "n" and its number among its siblings
as 4 bytes, and where a lane begins, "l", the name of the lane, 0x00. The digest is SHA-256 of the canonical
MessagePack of [arguments, keyword arguments].

Invariants: a finished call never changes, and is never called again. Calls of one lane do not overlap, so
their numbers are the same each time; two at once in one lane are refused.
"""

from __future__ import annotations

import functools
import hashlib
import inspect
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any, Final, cast

from strata.api.face import Face
from strata.api.place import Place
from strata.api.transaction import Transaction
from strata.core.errors import (
    Closed,
    Conflict,
    InvalidInput,
    OutcomeUnknown,
    RecordedError,
    ReplayMismatch,
    RunClosed,
    StorageError,
    StrataError,
)
from strata.core.keys import check_name
from strata.core.protocols import Txn
from strata.core.values import canonical, check, decode, encode
from strata.primitives.runs import PLACE_BYTES, RecordedCall, RunRecords, calls_of, place_text, recorded_call

Fn = Callable[..., Any]
# Of the database, the record and the machine, not of what was called: these are never kept as its outcome.
_OURS: Final = (ReplayMismatch, Closed, Conflict, OutcomeUnknown, RunClosed, StorageError, MemoryError)
_NO_OUTCOME: Final = "_strata_no_outcome"  # an attribute of errors that are not kept either


@dataclass(slots=True, eq=False)
class Frame:
    """Where calls are counted: a lane, or the inside of a call."""

    place: bytes
    next: int = 0
    busy: bool = False  # a call of it is going on
    lanes: dict[str, Frame] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, eq=False)
class Step:
    """One call as it is asked for."""

    frame: Frame
    place: bytes
    name: str
    digest: bytes


@dataclass(frozen=True, slots=True)
class Options:
    """How a function is recorded."""

    name: str
    key: Fn | None
    encode: Callable[[Any], Any] | None
    decode: Callable[[Any], Any] | None
    transaction: bool


# The frames that this thread or task is inside of, the innermost first.
_inside: ContextVar[tuple[tuple[Recorder, Frame], ...]] = ContextVar("strata_recorded", default=())


class Recorder:
    """The record of the calls of one run, as one handle of the run goes through it."""

    def __init__(self, place: Place, run: str, source: Recorder | None = None) -> None:
        self._place = place
        self._txn = _rows(place)
        self._run = run
        self._source = source  # of the run that this one replays
        self._prefix = calls_of(run)
        self._top = Frame(b"")
        self._lock = threading.Lock()

    def wrap(self, fn: Fn, options: Options) -> Fn:
        """Return `fn` with its calls recorded."""
        if inspect.isgeneratorfunction(fn) or inspect.isasyncgenfunction(fn):
            raise InvalidInput(f"{options.name} is a generator, which has no result", hint="return a list")
        if inspect.iscoroutinefunction(fn) or inspect.iscoroutinefunction(type(fn).__call__):
            if options.transaction:
                raise InvalidInput("a transaction is of one thread, not of a task", hint="record a plain def")

            @functools.wraps(fn)
            async def awaited(*args: Any, **kwargs: Any) -> Any:
                with self._step(options, args, kwargs) as step:
                    stored = self._begin(step)
                    if stored is None:
                        with self._enter(step):
                            try:
                                result = await fn(*args, **kwargs)
                            except Exception as error:
                                self._failed(step, error)
                                raise
                        stored = self._keep(self._txn, step, self._result(options, result))
                    return outcome_of(stored, options)

            return awaited

        @functools.wraps(fn)
        def called(*args: Any, **kwargs: Any) -> Any:
            with self._step(options, args, kwargs) as step:
                stored = self._begin(step)
                if stored is None:
                    try:
                        stored = self._call(step, fn, options, args, kwargs)
                    except Exception as error:
                        self._failed(step, error)
                        raise
                return outcome_of(stored, options)

        return called

    def _call(
        self, step: Step, fn: Fn, options: Options, args: tuple[Any, ...], kwargs: Mapping[str, Any]
    ) -> dict[str, Any]:
        """Call it and keep the result, in one commit with what it writes if it takes a transaction."""
        if not options.transaction:
            with self._enter(step):
                result = fn(*args, **kwargs)
            return self._keep(self._txn, step, self._result(options, result))

        def body(tx: Transaction) -> dict[str, Any]:
            with self._enter(step):
                result = fn(tx, *args, **kwargs)
            return self._keep(_rows(tx), step, self._result(options, result))

        return self._place.transact(body)

    @contextmanager
    def lane(self, name: str) -> Iterator[None]:
        """Count the calls of the block by themselves, under a name."""
        check_name(name, "lane")
        outer = self._frame()
        with self._lock:
            frame = outer.lanes.setdefault(name, Frame(outer.place + b"l" + name.encode() + b"\0"))
        token = _inside.set(((self, frame), *_inside.get()))
        try:
            yield
        finally:
            _inside.reset(token)

    def calls(self) -> list[RecordedCall]:
        """Return what is recorded, in order of places."""
        found = self._txn.pinned().scan(self._prefix, None, None, False, None)
        size = len(self._prefix)
        return [recorded_call(place_text(cast(bytes, key)[size:]), row) for key, row in found]

    def _frame(self) -> Frame:
        return next((frame for recorder, frame in _inside.get() if recorder is self), self._top)

    @contextmanager
    def _step(self, options: Options, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Iterator[Step]:
        """Take the next number; give its frame back at the end."""
        digest = _digest(options, args, kwargs)
        frame = self._frame()
        with self._lock:
            if frame.busy:
                with _told("", ""):
                    raise InvalidInput(
                        f"two recorded calls at once, the second of {options.name}: their order is chance",
                        hint="give each thread or task a lane: with run.lane('worker-1'): ...",
                    )
            frame.busy = True
            place = frame.place + b"n" + frame.next.to_bytes(PLACE_BYTES)
            frame.next += 1
        try:
            yield Step(frame, place, options.name, digest)
        finally:
            frame.busy = False

    def _begin(self, step: Step) -> dict[str, Any] | None:
        """Return what is kept of a call that is finished; else take note that it begins."""
        with _told("", ""):
            return self._begun(step)

    def _begun(self, step: Step) -> dict[str, Any] | None:
        key = self._prefix + step.place
        row = self._txn.get(key)
        if row is None and self._source is not None:
            return self._copied(step, self._source)
        if row is not None:
            self._match(step, row)
            if "ended" in row:
                return dict(row)
        begun = {"name": step.name, "digest": step.digest, "started": self._txn.now}
        begun["attempts"] = 1 if row is None else row["attempts"] + 1
        try:
            self._txn.put(key, begun)
        except RunClosed as error:
            raise self._mismatch(
                step, "", f"the record ends before it, and the run is {error.status}"
            ) from error
        return None

    def _copied(self, step: Step, source: Recorder) -> dict[str, Any]:
        """Return a call as the run has it that is replayed, kept with this one too."""
        row = source._txn.get(source._prefix + step.place)
        if row is None or "ended" not in row:
            raise self._mismatch(step, "", f"the record of run {source._run!r} ends before it")
        self._match(step, row)
        self._txn.put(self._prefix + step.place, row)
        return dict(row)

    def _match(self, step: Step, row: dict[str, Any]) -> None:
        if row["name"] != step.name:
            raise self._mismatch(step, row["name"], f"the record has a call of {row['name']} there")
        if row["digest"] != step.digest:
            raise self._mismatch(step, row["name"], "the record has it with other arguments")

    def _mismatch(self, step: Step, expected: str, why: str) -> ReplayMismatch:
        place = place_text(step.place)
        return ReplayMismatch(
            f"run {self._run!r} asks for call {place}, {step.name}: {why}",
            run=self._run,
            place=place,
            expected=expected,
            asked=step.name,
        )

    @contextmanager
    def _enter(self, step: Step) -> Iterator[None]:
        """Count what is called inside of a call by itself."""
        token = _inside.set(((self, Frame(step.place)), *_inside.get()))
        try:
            yield
        finally:
            _inside.reset(token)

    def _result(self, options: Options, result: Any) -> dict[str, Any]:
        value = result if options.encode is None else options.encode(result)
        with _told(f"the result of {options.name}, which was called", "an encode= and a decode= function"):
            check(value)
        return {"result": decode(encode(value))}

    def _failed(self, step: Step, error: Exception) -> None:
        if not isinstance(error, _OURS) and not hasattr(error, _NO_OUTCOME):
            self._keep(self._txn, step, {"error": _stored_error(error)})

    def _keep(self, txn: Txn, step: Step, outcome: dict[str, Any]) -> dict[str, Any]:
        """Write the outcome of a call, which is finished from then on."""
        key = self._prefix + step.place
        with _told("", ""):
            row = {**self._txn.get(key), "ended": self._txn.now, **outcome}
            txn.put(key, row)
        return row


def options_of(
    fn: Fn,
    name: str | None,
    key: Fn | None,
    encode: Callable[[Any], Any] | None,
    decode: Callable[[Any], Any] | None,
    transaction: bool,
) -> Options:
    """Return how `fn` is recorded.

    Raises: InvalidInput where that makes no sense.
    """
    if not callable(fn):
        raise InvalidInput(f"only a function can be recorded, not {type(fn).__name__}")
    given = name if name is not None else getattr(fn, "__name__", "")
    if not given or given == "<lambda>":
        raise InvalidInput("what is recorded needs a name", hint="recorded(fn, name='search')")
    if (encode is None) is not (decode is None):
        raise InvalidInput("encode and decode belong together", hint="give both, or neither")
    return Options(check_name(given, "name", reserved=True), key, encode, decode, transaction)


def _digest(options: Options, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> bytes:
    asked = [args, dict(kwargs)] if options.key is None else options.key(*args, **kwargs)
    with _told(f"the arguments of {options.name} (by position [0], by name [1])", "a key= function"):
        check(asked)
    return hashlib.sha256(canonical(asked)).digest()


@contextmanager
def _told(what: str, cure: str) -> Iterator[None]:
    """Say of an error what it is about, and mark it as no outcome of a call around this one."""
    try:
        yield
    except StrataError as error:
        setattr(error, _NO_OUTCOME, True)
        if what:
            error.args = (f"{what}: {error.message}",)
            error.hint = "; ".join(filter(None, (error.hint, f"or give recorded() {cure}")))
        raise


def _rows(face: Face) -> Txn:
    """Return the keyspace in which the recorded calls of a run are."""
    return face._source.keyspace(face._space, RunRecords.LAYOUT)


def outcome_of(row: dict[str, Any], options: Options) -> Any:
    """Return what was returned, or raise what was raised."""
    if "error" in row:
        raise _raised(row["error"])
    return row["result"] if options.decode is None else options.decode(row["result"])


def _stored_error(error: Exception) -> dict[str, Any]:
    """Return an exception as it is kept: as values, never as code."""
    cls = type(error)
    kept: dict[str, Any] = {"type": f"{cls.__module__}:{cls.__qualname__}", "text": str(error)[:10_000]}
    args = OSError.__reduce__(error)[1] if isinstance(error, OSError) else error.args  # with the file's name
    if _is_value(args):
        kept["args"] = args
    kept["state"] = {name: value for name, value in vars(error).items() if _is_value(value)}
    return kept


def _raised(kept: dict[str, Any]) -> Exception:
    """Return the exception that was kept: of its class if that is loaded, else a RecordedError.

    Nothing is imported and no code of the class runs, whatever the record says.
    """
    module, _, name = kept["type"].partition(":")
    found: Any = sys.modules.get(module)
    for part in name.split("."):
        found = getattr(found, part, None)
    if isinstance(found, type) and issubclass(found, Exception) and "args" in kept:
        try:
            error = found(*kept["args"]) if module == "builtins" else found.__new__(found, *kept["args"])
            vars(error).update(kept["state"])
        except Exception:  # a class that has changed since, or that cannot be made so
            return RecordedError(kept["text"], type=name)
        return error
    return RecordedError(kept["text"], type=name)


def _is_value(value: Any) -> bool:
    try:
        check(value)
    except StrataError:
        return False
    return True
