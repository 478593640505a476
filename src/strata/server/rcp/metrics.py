"""Metrics of the listener, under the names that rstmdb has, so that dashboards made for it show ours."""

from __future__ import annotations

import os
import time
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Final

from strata.server.http.exposition import counter, gauge, histogram

if TYPE_CHECKING:
    from strata.server.rcp.listener import Listener

BUCKETS_S: Final = (0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0)


class Stats:
    """What a listener counts."""

    def __init__(self) -> None:
        self.connections = 0  # that there were
        self.rejected = 0  # of others, as there were too many
        self.requests: Counter[str] = Counter()
        self.errors: Counter[str] = Counter()
        self.took: dict[str, list[float]] = {}  # by operation: how many of each bucket and above, and the sum

    def note(self, operation: str, took_s: float) -> None:
        """Count an operation, and how long it took."""
        self.requests[operation] += 1
        row = self.took.get(operation)
        if row is None:
            row = self.took[operation] = [0.0] * (len(BUCKETS_S) + 2)
        row[bisect_left(BUCKETS_S, took_s)] += 1
        row[-1] += took_s


def text(listener: Listener) -> str:
    """Return all metrics. Counting instances is what takes time, and is done here only."""
    return "".join(_lines(listener))


def _lines(listener: Listener) -> Iterator[str]:
    stats, watches = listener.stats, listener.watches
    yield from counter("rstmdb_connections_total", "Connections that there were.", {(): stats.connections})
    yield from gauge("rstmdb_connections_active", "Open ones.", {(): listener.active})
    yield from counter("rstmdb_connections_rejected", "Over the limit.", {(): stats.rejected})
    limit = listener.server.limits.connections
    yield from gauge("rstmdb_connections_limit", "With those of other protocols.", {(): limit})
    yield from counter("rstmdb_requests_total", "By operation.", _by("operation", stats.requests))
    yield from counter("rstmdb_errors_total", "By code.", _by("code", stats.errors))
    yield from histogram("rstmdb_request_duration_seconds", "By operation.", BUCKETS_S, stats.took)
    kinds = {kind: watches.count(kind) for kind in ("instance", "all")}
    yield from gauge("rstmdb_subscriptions_active", "Open ones.", _by("type", kinds))
    sent = {kind: watches.sent[kind] for kind in ("instance", "all")}
    yield from counter("rstmdb_events_forwarded_total", "To those who watch.", _by("type", sent))
    yield from _database(listener)
    for name in ("connected_replicas", "lag_entries", "lag_seconds"):
        yield from gauge(f"rstmdb_replication_{name}", "There is no replication here.", {(): 0})
    for name in ("entries_sent", "slow_replica_disconnects", "sync_timeouts"):
        yield from counter(f"rstmdb_replication_{name}_total", "There is no replication here.", {(): 0})
    yield from _process()


def _database(listener: Listener) -> Iterator[str]:
    machines, info = listener.database.machines, listener.database.info()
    versions = sum(len(machine.versions) for machine in machines.definitions())
    yield from gauge("rstmdb_instances_total", "Instances.", {(): machines.count()})
    yield from gauge("rstmdb_machines_total", "Machines, each version of them.", {(): versions})
    yield from gauge("rstmdb_wal_entries", "Commits.", {(): info.version})
    yield from gauge("rstmdb_wal_segments", "Files of the log.", {(): info.files.log.segments})
    yield from gauge("rstmdb_wal_size_bytes", "Of these.", {(): info.files.log.bytes})
    written = info.written.log + info.written.runs
    for name, says, number in (
        ("bytes_written", "Bytes that were written.", written),
        ("bytes_read", "Not counted here.", 0),
        ("writes", "Operations that write.", listener.writes),
        ("reads", "Not counted here.", 0),
        ("fsyncs", "Not counted here.", 0),
    ):
        yield from counter(f"rstmdb_wal_{name}_total", says, {(): number})


def _process() -> Iterator[str]:
    """Yield what the system says of this process, where it does."""
    yield from counter("process_cpu_seconds_total", "Of this process.", {(): time.process_time()})
    own = Path("/proc/self")
    if not own.is_dir():
        return
    pages = [int(word) for word in (own / "statm").read_text().split()[:2]]
    size = os.sysconf("SC_PAGE_SIZE")
    yield from gauge("process_virtual_memory_bytes", "Of this process.", {(): pages[0] * size})
    yield from gauge("process_resident_memory_bytes", "Of this process.", {(): pages[1] * size})
    yield from gauge("process_open_fds", "Of this process.", {(): len(os.listdir(own / "fd"))})
    yield from gauge("process_max_fds", "That it may have.", {(): os.sysconf("SC_OPEN_MAX")})


def _by(label: str, counts: Mapping[str, float]) -> dict[tuple[tuple[str, str], ...], float]:
    return {((label, name),): number for name, number in sorted(counts.items())}
