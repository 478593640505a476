"""Batches: several creations, events and deletions as one commit, all of them or those that can be."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

import msgspec
from msgspec.structs import replace

from strata.core.atomic import Source, atomically
from strata.core.clock import ttl_micros
from strata.core.errors import (
    AlreadyExists,
    BatchFailed,
    InvalidInput,
    InvalidTransition,
    LimitExceeded,
    NotFound,
    StrataError,
    UnexpectedState,
)
from strata.core.protocols import Layout, Txn
from strata.core.staging import Source as Held
from strata.primitives.machines_rows import Instance, Transition
from strata.primitives.machines_steps import (
    Application,
    Creation,
    Deletion,
    application,
    creation,
    deletion,
    transition_of,
)

Item = Mapping[str, Any]
Step = Creation | Application | Deletion

MAX_ITEMS: Final = 100
# What is wrong with an item, and not with the database.
_REFUSALS: Final = (
    InvalidInput, NotFound, AlreadyExists, InvalidTransition, UnexpectedState, LimitExceeded
)  # fmt: skip


class Refusal(msgspec.Struct, frozen=True):
    """Why an item was refused: what its error says."""

    code: str
    message: str
    hint: str
    fields: dict[str, Any]


class BatchResult(msgspec.Struct, frozen=True):
    """What became of one item: one of what it made, or why it was refused."""

    instance: Instance | None = None  # of "create"
    transition: Transition | None = None  # of "apply"
    deleted: int | None = None  # of "delete": the version of the commit; None inside its transaction
    error: Refusal | None = None
    ordinal: int = 0  # which of what its commit did it is

    @property
    def ok(self) -> bool:
        """Whether it was done."""
        return self.error is None

    @property
    def result(self) -> Instance | Transition | int | None:
        """What its method returns."""
        return self.instance or self.transition or self.deleted


def run_batch(txn: Txn, beside: Source, items: Iterable[Item], atomic: bool, layout: Layout) -> Results:
    """Run items in one commit; return what each did."""
    if isinstance(items, (str, bytes, Mapping)) or not isinstance(items, Iterable):
        raise InvalidInput(
            f"a batch is a list of maps, not {type(items).__name__}", hint="as in [{'op': 'apply', ...}]"
        )
    listed = list(items)
    if len(listed) > MAX_ITEMS:
        raise LimitExceeded(what="number of items of a batch", limit=MAX_ITEMS, actual=len(listed))
    space = txn.names[1]

    def step(txn: Txn, beside: Source) -> list[tuple[Step | None, Any]]:
        whole = Held(beside)
        whole.over(txn, space, layout)
        done, count = list[tuple[Step | None, Any]](), 0
        for index, item in enumerate(listed):
            ran, made = _run(item, index, count, whole, space, layout, atomic)
            done.append((ran, made))
            count += _is_new(ran, made)
        whole.pass_on()
        return done

    done, at = atomically(txn, step, beside=beside)
    return [_result(step, made, at) for step, made in done]


Results = list[BatchResult]


def _run(
    item: Any, index: int, ordinal: int, whole: Held, space: str, layout: Layout, atomic: bool
) -> tuple[Step | None, Any]:
    """Run one item; return its step and what it did, or no step and why it was refused."""
    held = Held(whole)
    try:
        step = _step(item)
        step.ordinal = ordinal
        made = step.run(held.keyspace(space, layout), held)
    except _REFUSALS as error:
        if not atomic:
            return None, error
        reason = f"atomic batch failed: item {index} was refused: {error}"
        raise BatchFailed(reason, index=index, reason=error.code, hint=error.hint) from error
    held.pass_on()
    return step, made


def _is_new(step: Step | None, made: Any) -> bool:
    """Return whether an item did something: it was not refused, nor done before."""
    return step is not None and bool(made[7] if isinstance(step, Application) else made[1])


def _step(item: Any) -> Step:
    if not isinstance(item, Mapping):
        raise InvalidInput(f"an item of a batch is a map, not {type(item).__name__}")
    arguments = dict(item)
    op = arguments.pop("op", None)
    make = _OPS.get(op) if isinstance(op, str) else None
    if make is None:
        raise InvalidInput(f"{op!r} is no operation of a batch", hint=f"one of {', '.join(_OPS)}")
    try:
        return make(**arguments)
    except TypeError as error:
        raise InvalidInput(f"{op}: {error}") from None


def _create(*, ttl: Any = None, **arguments: Any) -> Creation:
    return creation(**arguments, ttl_us=None if ttl is None else ttl_micros(ttl))


_OPS: Final[dict[str, Callable[..., Step]]] = {
    "create": _create, "apply": application, "delete": deletion
}  # fmt: skip


def _result(step: Step | None, made: Any, at: int | None) -> BatchResult:
    """Return what an item did, with the version of the commit."""
    if isinstance(step, Creation):
        instance = made[0]
        # Without a version it is of this batch: made now, or before in it with the same idempotency key.
        made_so = replace(instance, version=at) if instance.version is None else instance
        return BatchResult(made_so, ordinal=instance.ordinal)
    if isinstance(step, Application):
        transition = transition_of(step.key.decode(), made, at)
        if transition.version is None:
            transition = replace(transition, version=at)
        return BatchResult(transition=transition, ordinal=transition.ordinal)
    if isinstance(step, Deletion):
        before, is_deleted, ordinal = made
        return BatchResult(deleted=at if is_deleted or before is None else before, ordinal=ordinal)
    return BatchResult(error=_refusal(made))


def _refusal(error: StrataError) -> Refusal:
    said = {name: value for name, value in error.fields().items() if value}
    lists = {name: list(value) for name, value in said.items() if isinstance(value, tuple)}
    return Refusal(error.code, error.message, error.hint, said | lists)
