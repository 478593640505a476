"""Metrics: what a server counted and what its database is, as the text that Prometheus reads."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final

from strata.api.info import DatabaseInfo
from strata.server.http import exposition
from strata.server.http.stats import Stats

TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"

Samples = Mapping[str, float]


def text(stats: Stats, info: DatabaseInfo, uptime_s: float) -> str:
    """Return all metrics."""
    return "".join(_lines(stats, info, uptime_s))


def _lines(stats: Stats, info: DatabaseInfo, uptime_s: float) -> Iterator[str]:
    yield from _counter("operations", "Operations that were asked for.", "operation", stats.operations)
    yield from _counter("errors", "Requests that were answered with an error.", "code", stats.errors)
    yield from _gauge("connections", "Connections that are open.", stats.connections)
    yield from _gauge("draining", "1 while the server ends.", int(stats.draining))
    yield from _gauge("uptime_seconds", "Since the server began.", round(uptime_s, 3))
    yield from _gauge("version", "Of the newest commit.", info.version)
    yield from _gauge("durable_version", "Up to which all survives a power cut.", info.durable_version)
    yield from _gauge(
        "durable_lag_versions", "Commits that a power cut would take.", info.version - info.durable_version
    )
    yield from _gauge("branches", "Branches.", len(info.branches))
    yield from _gauge("disk_bytes", "Of all files.", info.files.bytes)
    yield from _gauge("log_bytes", "Of the log, of all files.", info.files.log.bytes)
    yield from _gauge("runs", "Sorted files.", info.files.runs.count)
    yield from _gauge("memory_bytes", "Of what was written and read last.", info.memory.tables)
    written = {"payload": info.written.payloads, "log": info.written.log, "runs": info.written.runs}
    yield from _counter("written_bytes", "Since the database was opened, by where to.", "to", written)


def _counter(name: str, says: str, label: str, samples: Samples) -> Iterator[str]:
    by: exposition.Samples = {((label, value),): number for value, number in sorted(samples.items())}
    yield from exposition.counter(f"strata_{name}_total", says, by)


def _gauge(name: str, says: str, number: float) -> Iterator[str]:
    yield from exposition.gauge(f"strata_{name}", says, {(): number})
