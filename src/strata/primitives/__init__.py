"""The kinds of data. Each is one file over a `Txn`, with its key and value layout at the top."""

from typing import Any, Final

from strata.primitives.events import ChainReport, Event, Events, Origin
from strata.primitives.json import Json
from strata.primitives.kv import Kv
from strata.primitives.machines import Machines
from strata.primitives.machines_batch import BatchResult, Refusal
from strata.primitives.machines_findings import Finding, Validation
from strata.primitives.machines_migration import Migration
from strata.primitives.machines_rows import Cleared, Instance, Machine, MachineVersions, Transition
from strata.primitives.machines_timers import Fired
from strata.primitives.runs import RunInfo, RunRecords, RunStats, RunStep
from strata.primitives.state import Cell, State
from strata.primitives.traces import Trace, Traces, TraceTree
from strata.primitives.vectors import Collection, CollectionStats, VectorEntry, VectorHit, Vectors

__all__ = [
    "PRIMITIVES",
    "BatchResult",
    "Cell",
    "ChainReport",
    "Cleared",
    "Collection",
    "CollectionStats",
    "Event",
    "Events",
    "Finding",
    "Fired",
    "Instance",
    "Json",
    "Kv",
    "Machine",
    "MachineVersions",
    "Machines",
    "Migration",
    "Origin",
    "Refusal",
    "RunInfo",
    "RunRecords",
    "RunStats",
    "RunStep",
    "State",
    "Trace",
    "TraceTree",
    "Traces",
    "Transition",
    "Validation",
    "VectorEntry",
    "VectorHit",
    "Vectors",
]

# By the name that they have as attributes and in refs. A primitive joins the product by a line here and its
# annotation in `api.face.Face`.
PRIMITIVES: Final[dict[str, type[Any]]] = {
    "kv": Kv,
    "events": Events,
    "state": State,
    "json": Json,
    "traces": Traces,
    "runs": RunRecords,
    "vectors": Vectors,
    "machines": Machines,
}
