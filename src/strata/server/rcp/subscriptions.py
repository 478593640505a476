"""Subscriptions: what a client watches, and from where on."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Final, Literal
from uuid import uuid4

from msgspec import UNSET

from strata.core.errors import HistoryTrimmed, NotFound
from strata.server.rcp import params
from strata.server.rcp.envelopes import Event, encode
from strata.server.rcp.errors import trimmed
from strata.server.rcp.instances import last_offset
from strata.server.rcp.log import Record
from strata.server.rcp.offsets import end_of, version_of
from strata.server.rcp.operation import Operation, Result

if TYPE_CHECKING:
    from strata.server.rcp.connection import Connection
    from strata.server.rcp.session import Session

Kind = Literal["instance", "all"]


class Subscription:
    """One watch of one connection. It holds a position in the log, and no queue of its own."""

    def __init__(
        self,
        connection: Connection,
        is_line: bool,
        after: int,
        from_offset: int,
        include_ctx: bool | None,
        instance: str | None = None,
        filters: params.WatchAll | None = None,
    ) -> None:
        self.id = f"sub-{uuid4()}"
        self.connection = connection
        self.is_line = is_line
        self.after = after  # all up to this version has been taken out of the log
        self.rest: deque[Record] = deque()  # of that, what was not said yet: a part of a page
        self.from_offset = from_offset
        self.is_held = True  # until its client had the time to register it
        self.is_replay = from_offset > 0 or after == 0  # until it has caught up
        self.is_reading = False
        self.is_over = False
        self._include_ctx = include_ctx is not False
        self._instance = instance
        self._filters = [
            (field, frozenset(wanted))
            for field, wanted in (
                ("machine", filters.machines),
                ("from_state", filters.from_states),
                ("to_state", filters.to_states),
                ("event", filters.events),
            )
            if wanted
        ] if filters is not None else []  # fmt: skip

    @property
    def kind(self) -> Kind:
        """Whether it is of one instance or of all."""
        return "all" if self._instance is None else "instance"

    def event(self, record: Record) -> bytes | None:
        """Return what is said of a record, or None where that is not watched."""
        instance, made = record.instance, record.transition
        if instance is None or made is None or record.offset < self.from_offset:
            return None
        if self._instance is not None and instance.id != self._instance:
            return None
        for field, wanted in self._filters:
            if (instance.machine if field == "machine" else getattr(made, field)) not in wanted:
                return None
        return encode(
            Event(
                self.id,
                instance.id,
                instance.machine,
                instance.machine_version,
                record.offset,
                made.from_state or "",
                made.to_state or "",
                made.event or "",
                made.payload,
                made.context if self._include_ctx else UNSET,
            )
        )


def watch_instance(session: Session, asked: params.WatchInstance) -> Result:
    head = session.listener.log.head
    # As it was at that version, so that what comes after is news, all of it and only once.
    found = session.database.at(head).machines.get(asked.instance_id)
    if found is None:
        raise NotFound(what="instance", name=asked.instance_id)
    after, begin = _begin(session, asked.from_offset, head)
    made = Subscription(
        session.connection, session.is_line, after, begin, asked.include_ctx, instance=found.id
    )
    session.connection.subscribe(made)
    return {
        "subscription_id": made.id,
        "instance_id": found.id,
        "current_state": found.state,
        "current_wal_offset": last_offset(found),
    }


def watch_all(session: Session, asked: params.WatchAll) -> Result:
    head = session.listener.log.head
    after, begin = _begin(session, asked.from_offset, head)
    made = Subscription(session.connection, session.is_line, after, begin, asked.include_ctx, filters=asked)
    session.connection.subscribe(made)
    return {"subscription_id": made.id, "wal_offset": end_of(head)}


def _begin(session: Session, from_offset: int | None, head: int) -> tuple[int, int]:
    """Return the version after which to begin, and the offset.

    Raises: Refused where retention has let go of that.
    """
    if from_offset is None:
        return head, 0
    try:
        session.listener.log.check_kept(from_offset)
    except HistoryTrimmed as error:
        raise trimmed(error) from None
    return max(0, version_of(from_offset) - 1), from_offset


def unwatch(session: Session, asked: params.Unwatch) -> Result:
    removed = session.connection.unsubscribe(asked.subscription_id)
    return {"subscription_id": asked.subscription_id, "removed": removed}


TABLE: Final = (
    Operation("WATCH_INSTANCE", "read", params.WatchInstance, watch_instance),
    Operation("WATCH_ALL", "read", params.WatchAll, watch_all),
    Operation("UNWATCH", "read", params.Unwatch, unwatch),
)
