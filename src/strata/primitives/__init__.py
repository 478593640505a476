"""The kinds of data. Each is one file over a `Txn`, with its key and value layout at the top."""

from strata.primitives.events import ChainReport, Event, Events, Origin
from strata.primitives.json import Json
from strata.primitives.kv import Kv
from strata.primitives.runs import RunInfo, RunRecords, RunStats, RunStep
from strata.primitives.state import Cell, State
from strata.primitives.traces import Trace, Traces, TraceTree

__all__ = [
    "Cell",
    "ChainReport",
    "Event",
    "Events",
    "Json",
    "Kv",
    "Origin",
    "RunInfo",
    "RunRecords",
    "RunStats",
    "RunStep",
    "State",
    "Trace",
    "TraceTree",
    "Traces",
]
