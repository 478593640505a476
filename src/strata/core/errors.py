"""What can go wrong, cut by what the caller does next.

StrataError                      .code (stable)  .hint (what to do)
├─ InvalidInput(ValueError)      can never be accepted as given
├─ NotFound(KeyError)            a named branch, space or stream is missing (a missing key is None)
│  └─ NotIndexed                 no index answers this; declare one, or ask for a scan
├─ HistoryTrimmed                .requested .oldest
├─ AlreadyExists                 the name is taken
├─ Conflict                      .keys .paths .ranges: a commit came first, retry
│  ├─ MergeConflict              .conflicts: resolve and merge again
│  ├─ TransactionLost            the process that held the transaction went away; nothing was written
│  └─ UnexpectedState            .what .expected .actual: an instance is not as it was read
├─ Closed                        the handle is closed
├─ ReadOnly                      the handle or the files refuse writes
├─ Protected                     .branch .reason: it takes no writes
├─ Locked                        another process owns the files
├─ AccessDenied                  .needed .given: who asks may not do this
├─ NeedsKey                      .needed .given: the files are encrypted, and not with a key that was given
├─ InvalidTransition             .from_ .to .event: not a step of this lifecycle
│  └─ GuardFailed                .guards: there is such a step, and no guard lets it pass
├─ BatchFailed                   .index .reason: nothing of the batch was done
├─ RunClosed                     the run is no longer active
├─ ReplayMismatch                .run .place .expected .asked: not what the record of the run holds
├─ RecordedError                 .type: what a recorded call raised, when it cannot be made again
├─ LimitExceeded                 .limit .actual
├─ StorageError(OSError)         the disk said no; earlier commits are safe
│  └─ Corrupt                    .file .offset: a checksum failed
├─ OutcomeUnknown                .transaction: handed over, not confirmed; ask again
├─ RemoteError                   the network or the other side
└─ InternalError                 our bug
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

if TYPE_CHECKING:
    from strata.core.refs import EntityRef


class StrataError(Exception):
    """The base of all errors of Strata.

    `code` is stable and listed in conformance/errors.json; `hint` says what to do, or is empty.
    """

    code: ClassVar[str] = "error"
    names: ClassVar[tuple[str, ...]] = ()  # of the typed fields, so that errors can cross processes
    hint: str

    # Otherwise KeyError would quote the message and OSError look for an errno in it.
    __str__ = Exception.__str__

    def __init__(self, message: str = "", *, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint

    @property
    def message(self) -> str:
        return str(self.args[0]) if self.args else ""

    def fields(self) -> dict[str, Any]:
        """Return the typed fields by name, without the hint."""
        return {name: getattr(self, name) for name in self.names}

    def __reduce__(self) -> tuple[Any, ...]:
        return _restore, (type(self), self.args, {**vars(self), **self.fields()})


def _restore(cls: type[StrataError], args: tuple[Any, ...], state: dict[str, Any]) -> StrataError:
    error = cls.__new__(cls)
    error.args = args
    for name, value in state.items():
        setattr(error, name, value)
    return error


class InvalidInput(StrataError, ValueError):
    """What was given can never be accepted."""

    code = "invalid_input"


class NotFound(StrataError, KeyError):
    """A branch, space, collection or stream that was named does not exist. A missing key is no error."""

    code = "not_found"
    names: ClassVar[tuple[str, ...]] = ("what", "name")

    def __init__(self, message: str = "", *, what: str = "", name: str = "", hint: str = "") -> None:
        super().__init__(message or f"{what} {name!r} does not exist", hint=hint)
        self.what, self.name = what, name


class NotIndexed(NotFound):
    """No index answers this question, and a scan was not asked for."""

    code = "not_indexed"


class HistoryTrimmed(StrataError):
    """The version asked for is older than what is kept."""

    code = "history_trimmed"
    names: ClassVar[tuple[str, ...]] = ("requested", "oldest")

    def __init__(self, message: str = "", *, requested: int = 0, oldest: int = 0, hint: str = "") -> None:
        super().__init__(
            message or f"version {requested} is no longer kept; the oldest is {oldest}", hint=hint
        )
        self.requested, self.oldest = requested, oldest


class AlreadyExists(StrataError):
    """The name is taken."""

    code = "already_exists"
    names: ClassVar[tuple[str, ...]] = ("what", "name")

    def __init__(self, message: str = "", *, what: str = "", name: str = "", hint: str = "") -> None:
        super().__init__(message or f"{what} {name!r} exists already", hint=hint)
        self.what, self.name = what, name


@dataclass(frozen=True, slots=True)
class ConflictKey:
    """A key that another commit wrote, and that this transaction read, expected or wrote."""

    ref: EntityRef


@dataclass(frozen=True, slots=True)
class ConflictPath:
    """Two overlapping paths inside one value, written as `$.a.b[0]`."""

    ref: EntityRef
    ours: str
    theirs: str


@dataclass(frozen=True, slots=True)
class ConflictRange:
    """A range of keys that was scanned, and in which another commit wrote. None is unbounded."""

    branch: str
    space: str
    primitive: str
    start: str | bytes | None
    end: str | bytes | None


@dataclass(frozen=True, slots=True)
class ConflictSides:
    """A thing, or a place inside a document, that both sides of a merge changed, each in its own way.

    `base`, `source` and `target` are its values; `strata.ABSENT` where there is nothing.
    """

    space: str
    primitive: str
    key: str
    path: str | None
    base: Any
    source: Any
    target: Any


class Conflict(StrataError):
    """A commit came first and changed what this one relied on. Nothing was written: retry."""

    code = "conflict"
    names: ClassVar[tuple[str, ...]] = ("keys", "paths", "ranges")

    def __init__(
        self,
        message: str = "",
        *,
        keys: Iterable[ConflictKey] = (),
        paths: Iterable[ConflictPath] = (),
        ranges: Iterable[ConflictRange] = (),
        hint: str = "",
    ) -> None:
        self.keys, self.paths, self.ranges = tuple(keys), tuple(paths), tuple(ranges)
        super().__init__(message or self._say(), hint=hint or "retry with what is stored now")

    def _say(self) -> str:
        places = [str(key.ref) for key in self.keys]
        places += [f"{path.ref} at {path.ours} (by a commit at {path.theirs})" for path in self.paths]
        places += [
            f"{found.primitive} keys from {found.start!r} to {found.end!r} in space {found.space!r}"
            f" of branch {found.branch!r}"
            for found in self.ranges
        ]
        if not places:
            return "a commit that came first changed what this one relied on"
        more = f" and {len(places) - 1} more" if len(places) > 1 else ""
        return f"a commit that came first changed {places[0]}{more}"


class MergeConflict(Conflict):
    """Both sides of a merge changed the same things. Nothing was written: resolve and merge again."""

    code = "merge_conflict"
    names: ClassVar[tuple[str, ...]] = ("keys", "paths", "ranges", "conflicts")

    def __init__(self, message: str = "", *, conflicts: Iterable[Any] = (), hint: str = "") -> None:
        self.conflicts = tuple(conflicts)
        super().__init__(
            message or f"both sides changed {len(self.conflicts)} of the same things",
            hint=hint or "choose a strategy, or resolve each of .conflicts, and merge again",
        )


class TransactionLost(Conflict):
    """The process that held an open transaction went away. Nothing of it was written: retry."""

    code = "transaction_lost"

    def __init__(
        self,
        message: str = "",
        *,
        keys: Iterable[ConflictKey] = (),
        paths: Iterable[ConflictPath] = (),
        ranges: Iterable[ConflictRange] = (),
        hint: str = "",
    ) -> None:
        super().__init__(
            message or "the process that held this transaction went away, and nothing of it was written",
            keys=keys,
            paths=paths,
            ranges=ranges,
            hint=hint or "begin it again",
        )


class UnexpectedState(Conflict):
    """An instance of a machine is not in the state or at the version that was expected. Nothing was done."""

    code = "unexpected_state"
    names: ClassVar[tuple[str, ...]] = ("keys", "paths", "ranges", "what", "expected", "actual")

    def __init__(
        self,
        message: str = "",
        *,
        what: str = "",
        expected: str | int | None = None,
        actual: str | int | None = None,
        hint: str = "",
    ) -> None:
        super().__init__(message or f"the {what} is {actual!r}, not {expected!r}", hint=hint)
        self.what, self.expected, self.actual = what, expected, actual


class Closed(StrataError):
    """The handle is closed, or the transaction is over."""

    code = "closed"


class ReadOnly(StrataError):
    """The handle, the view or the files refuse writes."""

    code = "read_only"


class Protected(StrataError):
    """The branch takes no writes, or must stay as it is."""

    code = "protected"
    names: ClassVar[tuple[str, ...]] = ("branch", "reason")

    def __init__(self, message: str = "", *, branch: str = "", reason: str = "", hint: str = "") -> None:
        super().__init__(message or f"branch {branch!r} takes no writes: {reason}", hint=hint)
        self.branch, self.reason = branch, reason


class Locked(StrataError):
    """Another process owns the files."""

    code = "locked"
    names: ClassVar[tuple[str, ...]] = ("path", "owner")

    def __init__(self, message: str = "", *, path: str = "", owner: str = "", hint: str = "") -> None:
        super().__init__(message or f"{path!r} is open elsewhere ({owner})", hint=hint)
        self.path, self.owner = path, owner


class AccessDenied(StrataError):
    """Who asks may not do this: no token, a wrong or expired one, or one that allows less."""

    code = "access_denied"
    names: ClassVar[tuple[str, ...]] = ("needed", "given")

    def __init__(self, message: str = "", *, needed: str = "", given: str = "", hint: str = "") -> None:
        super().__init__(message or f"this needs {needed} access, and the token gives {given}", hint=hint)
        self.needed, self.given = needed, given


class NeedsKey(StrataError):
    """The files are encrypted, with a key that was not given. Keys are named by their ids."""

    code = "needs_key"
    names: ClassVar[tuple[str, ...]] = ("needed", "given")

    def __init__(
        self, message: str = "", *, needed: str = "", given: Iterable[str] = (), hint: str = ""
    ) -> None:
        self.needed, self.given = needed, tuple(given)
        super().__init__(
            message or f"the database is encrypted: it needs the key with the id {needed}",
            hint=hint or "open it with the key that it was encrypted with",
        )


class InvalidTransition(StrataError):
    """Not a step of this lifecycle."""

    code = "invalid_transition"
    names: ClassVar[tuple[str, ...]] = ("from_", "to", "event")

    def __init__(
        self, message: str = "", *, from_: str = "", to: str = "", event: str = "", hint: str = ""
    ) -> None:
        super().__init__(message or f"there is no step from {from_!r} to {to!r}", hint=hint)
        self.from_, self.to, self.event = from_, to, event


class GuardFailed(InvalidTransition):
    """There are ways for the event, and the guard of none lets it pass."""

    code = "guard_failed"
    names: ClassVar[tuple[str, ...]] = ("from_", "to", "event", "guards")

    def __init__(
        self,
        message: str = "",
        *,
        from_: str = "",
        to: str = "",
        event: str = "",
        guards: Iterable[str] = (),
        hint: str = "",
    ) -> None:
        self.guards = tuple(guards)
        said = f"event {event!r} in state {from_!r}: no guard holds of {', '.join(map(repr, self.guards))}"
        super().__init__(message or said, from_=from_, to=to, event=event, hint=hint)


class BatchFailed(StrataError):
    """An item of a batch that is all or nothing was refused, so nothing was done. `reason` is its code."""

    code = "batch_failed"
    names: ClassVar[tuple[str, ...]] = ("index", "reason")

    def __init__(self, message: str = "", *, index: int = 0, reason: str = "", hint: str = "") -> None:
        super().__init__(message or f"item {index} of the batch was refused: {reason}", hint=hint)
        self.index, self.reason = index, reason


class RunClosed(StrataError):
    """The run is no longer active."""

    code = "run_closed"
    names: ClassVar[tuple[str, ...]] = ("run", "status")

    def __init__(self, message: str = "", *, run: str = "", status: str = "", hint: str = "") -> None:
        super().__init__(message or f"run {run!r} is {status}, not active", hint=hint)
        self.run, self.status = run, status


class ReplayMismatch(StrataError):
    """The code asks for a recorded call that the record of the run does not hold."""

    code = "replay_mismatch"
    names: ClassVar[tuple[str, ...]] = ("run", "place", "expected", "asked")

    def __init__(
        self,
        message: str = "",
        *,
        run: str = "",
        place: str = "",
        expected: str = "",
        asked: str = "",
        hint: str = "",
    ) -> None:
        super().__init__(
            message or f"call {place} of run {run!r} is {asked}, and the record has {expected or 'nothing'}",
            hint=hint
            or "run the code that made the record; what differs each time belongs into recorded calls",
        )
        self.run, self.place, self.expected, self.asked = run, place, expected, asked


class RecordedError(StrataError):
    """What a recorded call raised, when its class is not there to be raised again."""

    code = "recorded_error"
    names: ClassVar[tuple[str, ...]] = ("type",)

    def __init__(self, message: str = "", *, type: str = "", hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.type = type


class LimitExceeded(StrataError):
    """Something is larger than is allowed."""

    code = "limit_exceeded"
    names: ClassVar[tuple[str, ...]] = ("what", "limit", "actual")

    def __init__(
        self, message: str = "", *, what: str = "size", limit: int = 0, actual: int = 0, hint: str = ""
    ) -> None:
        super().__init__(message or f"{what} is {actual}, the limit is {limit}", hint=hint)
        self.what, self.limit, self.actual = what, limit, actual


class StorageError(StrataError, OSError):
    """The disk said no. What was committed earlier is safe."""

    code = "storage_error"
    names: ClassVar[tuple[str, ...]] = ("operation", "path", "errno")

    def __init__(
        self,
        message: str = "",
        *,
        operation: str = "",
        path: str = "",
        errno: int | None = None,
        hint: str = "",
    ) -> None:
        super().__init__(message, hint=hint)
        self.operation, self.path, self.errno = operation, path, errno


class Corrupt(StorageError):
    """A checksum, a length or an order is wrong in a file."""

    code = "corrupt"
    names: ClassVar[tuple[str, ...]] = ("file", "offset")

    def __init__(self, message: str = "", *, file: str = "", offset: int = 0, hint: str = "") -> None:
        super().__init__(message or f"{file} is damaged at byte {offset}", path=file, hint=hint)
        self.file, self.offset = file, offset


class OutcomeUnknown(StrataError):
    """A commit was handed over and not confirmed. Ask for `transaction` later, or retry with the same key."""

    code = "outcome_unknown"
    names: ClassVar[tuple[str, ...]] = ("transaction",)

    def __init__(self, message: str = "", *, transaction: str = "", hint: str = "") -> None:
        super().__init__(message or f"the outcome of transaction {transaction} is unknown", hint=hint)
        self.transaction = transaction


class RemoteError(StrataError):
    """The network or the other side failed."""

    code = "remote_error"


class InternalError(StrataError):
    """A bug of ours."""

    code = "internal_error"


def all_errors() -> dict[str, type[StrataError]]:
    """Return every class of the tree by its name."""
    found, open_ = {"StrataError": StrataError}, [StrataError]
    while open_:
        for cls in open_.pop().__subclasses__():
            if cls.__module__ == __name__:  # users may derive their own
                found[cls.__name__] = cls
                open_.append(cls)
    return found


# Why the branch of a run takes no more writes; see `run_over`.
_RUN_OVER = re.compile(r"run (.+) is (\w+)", re.DOTALL)


def run_over(run: str, status: str) -> str:
    """Return the reason that a branch is sealed with when its run is over: writes to it raise RunClosed."""
    return f"run {run} is {status}"


def run_over_status(reason: str | None) -> str | None:
    """Return the status of the run that a branch was sealed for; None where that was not why."""
    over = _RUN_OVER.fullmatch(reason or "")
    return None if over is None else over[2]


def from_kernel(name: str, message: str, fields: Mapping[str, Any]) -> StrataError:
    """Return the error that the kernel names.

    A field that its class does not know is dropped, and an unknown name is an InternalError: the binding
    calls this while it reports a failure, where a second one would hide the first.
    """
    cls = all_errors().get(name)
    if cls is None:
        return InternalError(f"{name}: {message}", hint="please report this")
    if issubclass(cls, Conflict):
        return conflict(fields.get("keys", ()), fields.get("paths", ()), fields.get("ranges", ()))
    over = _RUN_OVER.fullmatch(str(fields.get("reason"))) if cls is Protected else None
    if over is not None:
        return RunClosed(run=over[1], status=over[2], hint=str(fields.get("hint", "")))
    known = {field: value for field, value in fields.items() if field in cls.names or field == "hint"}
    return cls(message, **known)


def conflict(
    keys: Iterable[tuple[str, str, str, str | bytes]] = (),
    paths: Iterable[tuple[str, str, str, str | bytes, str, str]] = (),
    ranges: Iterable[tuple[str, str, str, str | bytes | None, str | bytes | None]] = (),
) -> Conflict:
    """Return a Conflict from plain tuples: (branch, space, primitive, key, ...)."""
    from strata.core.refs import EntityRef, readable  # refs raises our errors, so it imports this module

    return Conflict(
        keys=[
            ConflictKey(EntityRef(branch, space, kind, readable(key))) for branch, space, kind, key in keys
        ],
        paths=[
            ConflictPath(EntityRef(branch, space, kind, readable(key)), ours, theirs)
            for branch, space, kind, key, ours, theirs in paths
        ],
        ranges=[
            ConflictRange(branch, space, kind, start or None, end or None)
            for branch, space, kind, start, end in ranges
        ],
    )
