"""The log, and the files: read, counted, compacted, emptied."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from msgspec import Raw

from strata.core.errors import HistoryTrimmed
from strata.server.rcp import params
from strata.server.rcp.envelopes import encode
from strata.server.rcp.errors import bad_request, trimmed
from strata.server.rcp.frames import PAYLOAD_BYTES_MAX
from strata.server.rcp.log import Record
from strata.server.rcp.offsets import end_of, offset_of
from strata.server.rcp.operation import Operation, Result

if TYPE_CHECKING:
    from strata.server.rcp.session import Session

_PAGE_BYTES: Final = 15 << 20  # of entries, which leaves room for what is around them


def wal_read(session: Session, asked: params.WalRead) -> Result:
    begin = _begin(asked)
    try:
        records, has_more = _page(session, begin, asked.limit)
    except HistoryTrimmed as error:
        raise trimmed(error) from None
    following = records[-1][0].offset + 1 if records else None
    said: dict[str, Any] = {
        "records": [
            {"sequence": record.sequence, "offset": record.offset, "entry": text} for record, text in records
        ],
        "next_offset": following,
    }
    if has_more:
        said["has_more"] = True
    return said if asked.fromOffset is None else said | _for_javascript(records, has_more, following)


def _begin(asked: params.WalRead) -> int:
    if asked.from_offset is not None:
        return asked.from_offset
    text = asked.fromOffset
    if text is None or not (text.isascii() and text.isdigit()):
        raise bad_request("WAL_READ: from_offset is missing")
    return int(text)


Texts = list[tuple[Record, Raw]]


def _page(session: Session, begin: int, limit: int | None) -> tuple[Texts, bool]:
    """Return records from an offset on, and whether there are more. What shares an offset stays together."""
    log = session.listener.log
    if begin == 0:  # from where there is something
        begin = offset_of(log.oldest + 1 if log.oldest else 0)
    found: Texts = []
    size = 0
    for record in log.records(begin):
        is_full = size > _PAGE_BYTES or (limit is not None and len(found) >= limit)
        if is_full and (not found or found[-1][0].offset != record.offset):
            return found, True
        text = Raw(encode(record.entry))
        found.append((record, text))
        size += len(bytes(text)) + 64
        if size > _PAGE_BYTES and found[0][0].offset != record.offset:
            return _apart(found)
        if size > PAYLOAD_BYTES_MAX:
            message = f"what is at offset {record.offset} does not fit into a frame"
            raise bad_request(message, next_offset=record.offset + 1)
    return found, False


def _apart(found: Texts) -> tuple[Texts, bool]:
    """Leave out the last offset, with which the page would be too large."""
    last = found[-1][0].offset
    return [one for one in found if one[0].offset != last], True


def _for_javascript(records: Texts, has_more: bool, following: int | None) -> dict[str, Any]:
    """Return the same as the client for JavaScript reads it."""
    entries = [
        {
            "offset": str(record.offset),
            "type": record.type,
            "data": text,
            "timestamp": record.time_us // 1000,
        }
        for record, text in records
    ]
    said: dict[str, Any] = {"entries": entries, "hasMore": has_more}
    return said if following is None else said | {"nextOffset": str(following)}


def wal_stats(session: Session, asked: params.Nothing) -> Result:
    """Return what the files are. The database counts bytes, but neither single reads nor syncs."""
    info = session.database.info()
    log = info.files.log
    return {
        "entry_count": info.version,
        "segment_count": log.segments,
        "total_size_bytes": log.bytes,
        "latest_offset": end_of(info.version),
        "io_stats": {
            "bytes_written": info.written.log + info.written.runs,
            "bytes_read": 0,
            "writes": session.listener.writes,
            "reads": 0,
            "fsyncs": 0,
        },
    }


def compact(session: Session, asked: params.Compact) -> Result:
    database = session.database
    before = {run.number for run in database.info().files.runs.each}
    done = database.compact()
    files = database.info().files
    return {
        "snapshots_created": len({run.number for run in files.runs.each} - before),
        "segments_deleted": done.log_segments_removed,
        "bytes_reclaimed": max(0, done.reclaimed_bytes),
        "total_snapshots": files.runs.count,
        "wal_segments": files.log.segments,
    }


def flush_all(session: Session, asked: params.Nothing) -> Result:
    if not session.settings.allow_flush_all:
        raise bad_request("FLUSH_ALL is not allowed here: --rcp-allow-flush-all lets it be")
    gone = session.machines.clear()
    return {"flushed": True, "instances_removed": gone.instances, "machines_removed": gone.versions}


def replication_status(session: Session, asked: params.Nothing) -> Result:
    return {"role": "standalone"}


def replicate(session: Session, asked: params.Nothing) -> Result:
    raise bad_request("this is no primary of rstmdb")


TABLE: Final = (
    Operation("WAL_READ", "read", params.WalRead, wal_read, slow=True),
    Operation("WAL_STATS", "read", params.Nothing, wal_stats, slow=True),
    Operation("COMPACT", "admin", params.Compact, compact, writes=True, slow=True),
    Operation("FLUSH_ALL", "write", params.Nothing, flush_all, writes=True, slow=True),
    Operation("REPLICATION_STATUS", "read", params.Nothing, replication_status),
    Operation("REPLICATE", "read", params.Nothing, replicate),
    Operation("REPLICATE_ACK", "read", params.Nothing, replicate),
)
