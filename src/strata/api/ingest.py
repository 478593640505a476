"""Ingest: what others recorded (OpenTelemetry spans, chat transcripts) becomes events and traces.

One commit, or nothing: everything is read and checked before the first write, and what is there already is
left as it is, so the same file again adds nothing.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING, Any, Literal

from strata.api.transaction import Transaction
from strata.core.errors import AlreadyExists, NotFound
from strata.core.keys import check_name
from strata.core.refs import EntityRef
from strata.primitives import Trace
from strata.primitives.index import check_tags

# What reads documents is imported when there is one to read, so that `import strata` does not wait for it.
if TYPE_CHECKING:
    from strata.api.place import Place
    from strata.api.transcript import Conversation

Source = str | os.PathLike[str] | IO[str] | IO[bytes] | dict[str, Any] | list[Any]
MissingParents = Literal["refuse", "roots"]

MESSAGE = "message"  # the type of the events


@dataclass(frozen=True, slots=True)
class IngestInfo:
    """What was written, and how much was there already."""

    traces: int
    events: int
    skipped: int  # spans, or conversations
    version: int  # of the commit; the newest when there was nothing to write


def ingest_otlp(place: Place, source: Source, missing_parents: MissingParents, tags: Any) -> IngestInfo:
    """Record the spans of `source` as traces."""
    from strata.api.documents import read_documents
    from strata.api.otlp import check_missing, in_order, read_spans

    missing, labels = check_missing(missing_parents), check_tags(tags)
    documents = read_documents(source)

    def write(tx: Transaction) -> tuple[int, int, int]:
        spans = read_spans(documents)  # anew for each attempt, as it is changed
        wanted = {span.id for span in spans} | {span.parent for span in spans if span.parent is not None}
        known = {id for id in wanted if _trace(tx, id) is not None}
        new = [span for span in spans if span.id not in known]
        for span in in_order(new, known, missing):
            tx.traces.record(**span.fields, id=span.id, parent=span.parent, tags=labels)
        return len(new), 0, len(spans) - len(new)

    return _committed(place, write, "ingest otlp")


def ingest_transcript(
    place: Place, source: Source, stream: str, id: str | None, time_field: str | None, tags: Any
) -> IngestInfo:
    """Append the messages of `source` as events, and record what assistants and tools did as traces."""
    from strata.api.documents import read_documents
    from strata.api.transcript import read_conversations

    labels = check_tags(tags)
    check_name(stream, "stream")
    if id is not None:
        check_name(id, "trace id")
    if time_field is not None:
        check_name(time_field, "field", reserved=True)
    conversations = read_conversations(read_documents(source), id, time_field)

    def write(tx: Transaction) -> tuple[int, int, int]:
        traces = events = skipped = 0
        for conversation in conversations:
            if _is_there(tx, conversation):
                skipped += 1
                continue
            traces += _write(tx, place, conversation, stream, labels)
            events += len(conversation.messages)
        return traces, events, skipped

    return _committed(place, write, "ingest transcript")


def _committed(
    place: Place, write: Callable[[Transaction], tuple[int, int, int]], message: str
) -> IngestInfo:
    begun: list[Transaction] = []

    def body(tx: Transaction) -> tuple[int, int, int]:
        begun.append(tx)
        return write(tx)

    counts = place.transact(body, message=message)
    return IngestInfo(*counts, version=begun[-1].version or begun[-1].snapshot)


def _is_there(tx: Transaction, conversation: Conversation) -> bool:
    """Whether the same conversation was ingested before.

    Raises: AlreadyExists when its id is that of something else.
    """
    found = _trace(tx, conversation.id)
    if found is None:
        return False
    if found.metadata.get("digest") != conversation.digest:
        raise AlreadyExists(
            f"trace {conversation.id!r} exists already, and is not this conversation",
            what="trace",
            name=conversation.id,
            hint="give another id",
        )
    return True


def _trace(tx: Transaction, id: str) -> Trace | None:
    """Return a trace if it is there. The space may be one that this very transaction begins."""
    return tx.traces._read(tx.traces._txn, id.encode())


def _length(tx: Transaction, stream: str) -> int:
    """Return the sequence of the next event, for certain: should another append come first, it conflicts."""
    try:
        return tx.events.len(stream)
    except NotFound:
        return 0


def _write(tx: Transaction, place: Place, conversation: Conversation, stream: str, tags: list[str]) -> int:
    """Append and record one conversation; return how many traces it has."""
    from strata.api.transcript import trace_rows

    first = _length(tx, stream)
    tx.events.append_many([(MESSAGE, message.payload) for message in conversation.messages], stream=stream)
    rows = list(trace_rows(conversation, first, tx.traces._txn.now))
    for number, row in rows:
        event = EntityRef(place._branch.name, place._space, "events", f"{stream}/{first + number}")
        tx.traces.record(**row, writes=[event], tags=tags)
    return len(rows)
