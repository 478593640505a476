"""The catalogue: every public operation once. Whatever lists operations is made from it.

An operation is a public method or property of a class below. Its summary, request and result are read from
the method itself, so only what the code cannot say stands here: the access it needs, and whether doing it
twice does no more than doing it once. A test fails when a public method is missing.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final, Literal, get_type_hints

from strata.api.branches import Branches
from strata.api.database import Database
from strata.api.face import Spaces
from strata.api.indexes import Indexes
from strata.api.place import Place
from strata.api.retention import Retention
from strata.api.runs import Runs
from strata.api.search import Searchable
from strata.primitives import Events, Json, Kv, RunRecords, State, Traces, Vectors

Access = Literal["read", "write", "admin"]


@dataclass(frozen=True)
class Operation:
    """One public operation, such as kv.put."""

    name: str
    owner: type[Any]
    access: Access
    idempotent: bool

    @property
    def method(self) -> str:
        """The name of the method or property on its owner."""
        return self.name.rpartition(".")[2]

    @property
    def summary(self) -> str:
        """What comes back: the first paragraph of the docstring, on one line."""
        paragraph = (inspect.getdoc(self._function) or "").split("\n\n")[0]
        return " ".join(paragraph.split())

    @property
    def request(self) -> dict[str, inspect.Parameter]:
        """The parameters by name, their annotations as types."""
        hints = self._hints
        parameters = list(inspect.signature(self._function).parameters.values())[1:]  # without self
        return {p.name: p.replace(annotation=hints.get(p.name, p.annotation)) for p in parameters}

    @property
    def result(self) -> Any:
        """The type of what comes back."""
        return self._hints["return"]

    @cached_property
    def _hints(self) -> dict[str, Any]:
        return get_type_hints(self._function)

    @cached_property
    def _function(self) -> Any:
        found = inspect.getattr_static(self.owner, self.method)
        return found.fget if isinstance(found, property) else found


def _operations(prefix: str, owner: type[Any], **names: str) -> Iterator[Operation]:
    """The operations of one class: `read`, `write` and `admin` are idempotent, `step` (a write) is not."""
    for group, methods in names.items():
        access: Any = "write" if group == "step" else group
        for method in methods.split():
            yield Operation(f"{prefix}{method}", owner, access, group != "step")


_ALL: Final = (
    *_operations(
        "kv.", Kv,
        read="get get_many entry exists keys scan count history",
        write="put put_many delete delete_many",
        step="incr cas",
    ),
    *_operations(
        "events.", Events,
        read="get head len range by_type between streams types verify",
        step="append append_many adopt",
    ),
    *_operations(
        "state.", State,
        read="get entry exists list count history",
        write="delete",
        step="init set cas",
    ),
    *_operations(
        "json.", Json,
        read="get entry exists list count history find explain_plan",
        write="set delete destroy merge",
        step="create patch cas append insert",
    ),
    *_operations(
        "traces.", Traces,
        read="get exists children tree roots by_kind by_tag between list count",
        step="record",
    ),
    *_operations(
        "vectors.", Vectors,
        read="get exists keys count history query collection collections stats",
        write="upsert upsert_many delete delete_where drop",
        step="create_collection",
    ),
    *_operations("runs.", RunRecords, read="get exists list children count stats steps"),
    *_operations(
        "runs.", Runs,
        read="orphans",
        step="begin end fail cancel pause resume archive take_over",
    ),
    *_operations(
        "branches.", Branches,
        read="get list tags notes preview",
        write="note reset",
        step="merge cherry_pick revert undo",
        admin="create fork rename delete protect unprotect tag untag",
    ),
    *_operations("spaces.", Spaces, read="list"),
    *_operations("indexes.", Indexes, read="get list", admin="create drop rebuild"),
    *_operations("retention.", Retention, read="get list", admin="set clear"),
    *_operations("", Searchable, read="search"),
    *_operations(
        "", Place,
        read="version log diff replay replay_until replay_range explain",
        write="ingest_otlp ingest_transcript",
    ),
    *_operations(
        "", Database,
        read="durable_version outcome info",
        admin="flush checkpoint compact forget verify export backup rotate_key",
    ),
)  # fmt: skip

OPERATIONS: Final[dict[str, Operation]] = {operation.name: operation for operation in _ALL}

# Public names that are no operations: they make handles, or concern this process alone.
HANDLES: Final[dict[type[Any], frozenset[str]]] = {
    Place: frozenset({"branch", "run", "space", "at", "transaction", "transact", "transactional", "spaces"}),
    Database: frozenset({"name", "closed", "close"}),
    State: frozenset({"transition"}),  # takes a function; elsewhere it is get and cas
}
