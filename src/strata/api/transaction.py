"""Transactions: the face at one snapshot, plus writes that become one commit or nothing.

    with db.transaction(message="plan") as tx:      commit at the end, rollback on an exception
        tx.kv.put("goal", "rest")
    tx.version                                      of the commit

A transaction begins when it is made, so `tx = db.transaction()` ... `tx.commit()` works without `with`.
`with` blocks on one database do not nest within a thread: the inner one would commit by itself, which is
not what its place in the outer one promises.
"""

from __future__ import annotations

from contextvars import ContextVar
from threading import get_ident
from types import TracebackType

from strata.api.face import Lazy
from strata.api.instants import Instant
from strata.api.search import Searchable, State
from strata.core.errors import Closed, InvalidInput
from strata.core.keys import check_name
from strata.core.protocols import Commit, Store
from strata.core.protocols import Transaction as NativeTransaction
from strata.core.refs import EntityRef
from strata.primitives import Kv

Cause = EntityRef | Commit | str | None

# The innermost open `with` block; each knows the one around it. A ContextVar, so that tasks of one event
# loop do not take each other's for their own.
_innermost: ContextVar[Transaction | None] = ContextVar("strata_transaction", default=None)
# The task that a thread works for (strata.aio), which then enters blocks in its place.
working_for: ContextVar[object | None] = ContextVar("strata_task", default=None)


class Transaction(Lazy, Searchable):
    """Everything of one branch as it was at `snapshot`, and own changes to it. One thread at a time.

    `message`, `actor` and `cause` may be set until the commit, and go into it.
    """

    _source: NativeTransaction
    _outer: Transaction | None  # the `with` block around this one, once it is entered

    def __init__(
        self,
        store: Store,
        transaction: NativeTransaction,
        space: str,
        message: str | None = None,
        actor: str | None = None,
        cause: Cause = None,
    ) -> None:
        self._store = store
        self._source = transaction
        self._space = space
        self._over = False
        self._holder: object | None = None  # the thread or task which entered the `with` block
        self.version: int | None = None  # of the commit, once there is one
        self.message = message
        self.actor = actor
        self.cause = cause

    @property
    def snapshot(self) -> int:
        """The version that reads see."""
        return self._source.snapshot

    def space(self, name: str) -> TransactionSpace:
        """Return the face of another space of the branch, inside this transaction."""
        return TransactionSpace(self._store, self._source, check_name(name, "space"))

    def _searched(self, at: Instant | None) -> State:
        return _state_inside(self._store, self._source, at)

    def commit(self) -> int:
        """Commit, and return the version (the snapshot's when nothing was written).

        Raises: Conflict when a commit that came first changed what this relied on: nothing was written,
            and a new transaction may try again. OutcomeUnknown when the disk failed on the way; ask
            `db.outcome`. The transaction is over either way.
        """
        if self._over:
            raise _over()
        message, actor, cause = self.message, self.actor, self.cause
        if not (message is actor is cause is None):
            message, actor, cause = _text("message", message), _text("actor", actor), _cause(cause)
        self._over = True
        self.version = version = self._source.commit(message, actor, cause)
        return version

    def rollback(self) -> None:
        """Drop all that was written. Idempotent."""
        self._over = True
        self._source.rollback()

    def __enter__(self) -> Transaction:
        is_first = self._holder is None
        try:
            self._enter(_holder())
        except InvalidInput:
            if is_first:
                self.rollback()
            raise
        return self

    def _enter(self, holder: object) -> None:
        """Begin the block of a thread or task, without asking the store for anything."""
        if self._over:
            raise _over()
        outer = _innermost.get()
        if self._holder is not None or (outer is not None and _encloses(outer, self._store, holder)):
            raise InvalidInput(
                "there is a transaction on this database around this one already",
                hint="use the outer one, pass it on as an argument, or end it first",
            )
        self._outer, self._holder = outer, holder
        _innermost.set(self)

    def _leave(self) -> None:
        """End the block, whatever becomes of the transaction."""
        _innermost.set(self._outer)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._leave()
        if kind is not None:
            self.rollback()
        elif not self._over:
            self.commit()

    def __repr__(self) -> str:
        state = f"version={self.version}" if self.version is not None else "over" if self._over else "open"
        return f"<Transaction {state} snapshot={self.snapshot} space={self._space!r}>"


class TransactionSpace(Lazy, Searchable):
    """The face of one space inside a transaction."""

    _source: NativeTransaction

    def __init__(self, store: Store, transaction: NativeTransaction, space: str) -> None:
        self._store = store
        self._source = transaction
        self._space = space

    @property
    def name(self) -> str:
        """The name of the space."""
        return self._space

    def _searched(self, at: Instant | None) -> State:
        return _state_inside(self._store, self._source, at)

    def __repr__(self) -> str:
        return f"<TransactionSpace {self._space!r}>"


def _state_inside(store: Store, transaction: NativeTransaction, at: Instant | None) -> State:
    if at is not None:
        raise InvalidInput("a transaction sees one version", hint="as in db.search(..., at=...)")
    branch, _, _ = transaction.keyspace("default", Kv.LAYOUT).names
    return State(transaction, transaction.snapshot, None, store.branch(branch), False)


def _over() -> Closed:
    return Closed("this transaction is over", hint="begin another with db.transaction()")


def _holder() -> object:
    """Return who enters a block here: the task that this thread works for, else the thread."""
    task = working_for.get()
    return get_ident() if task is None else task


def _encloses(block: Transaction | None, store: Store, holder: object) -> bool:
    """Whether a `with` block of the holder on `store` is open."""
    while block is not None:
        if block._store is store and block._holder == holder and not block._over:
            return True
        block = block._outer
    return False


def _text(what: str, text: object) -> str | None:
    if text is None or isinstance(text, str):
        return text
    raise InvalidInput(f"{what} is a text, not {text!r}")


def _cause(cause: object) -> str | None:
    """What goes into the commit: a reference as text, or "commit:<version>"."""
    if isinstance(cause, Commit):
        return f"commit:{cause.version}"
    return _text("cause", str(cause) if isinstance(cause, EntityRef) else cause)
