"""The catalogue: every public operation once. Whatever lists operations is made from it.

An operation is a public method or property of a class below. Its summary, request, result and errors are read
from the method itself, so only what the code cannot say stands here: the access it needs, and whether doing
it twice does no more than doing it once. Examples are in `examples`. A test fails when a public method is
missing.

    operations   which there are          requests   what each takes       dispatch   runs one by its name
    examples     one of each, tested      plain      values and results    schema     JSON Schema of all that
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final, Literal, get_args, get_origin, get_type_hints

from strata.api.branches import Branches
from strata.api.database import Database
from strata.api.face import Spaces
from strata.api.indexes import Indexes
from strata.api.place import Place
from strata.api.replay import Replay
from strata.api.retention import Retention
from strata.api.runs import Runs
from strata.api.search import Searchable
from strata.api.table import Table
from strata.api.webhooks import Webhooks
from strata.history.diff import Diff
from strata.primitives import PRIMITIVES, Events, Json, Kv, Machines, RunRecords, State, Traces, Vectors
from strata.primitives.machines_reads import MachineReads

if TYPE_CHECKING:
    from msgspec import Struct

    from strata.api.examples import Example

Access = Literal["read", "write", "admin"]
Pages = Literal["", "key", "sequence", "version", "skip"]  # what the next page goes on from; "": no pages

_BY_KEY: Final = ("kv.keys", "kv.scan", "state.list", "json.list")
_BY_SEQUENCE: Final = ("events.range", "events.by_type")
_BOUNDED: Final = ("kv.get_many", "vectors.query")  # lists as long as what was asked for
_COUNTS: Final = ("kv.delete_many", "vectors.delete_where")  # give a number that is no version
_SECTION: Final = re.compile(r"^Raises: (.*?)(?=^[A-Z][a-z]+:|\Z)", re.M | re.S)
_ERROR: Final = re.compile(r"\b[A-Z][a-z]+[A-Z]\w*|\b(?:Closed|Conflict|Protected|Locked|Corrupt)\b")
# Methods that touch one key of a primitive.
_POINTS: Final = frozenset(
    {"get", "entry", "exists", "head", "len", "put", "incr", "cas", "append", "init", "set", "delete"}
)


@dataclass(frozen=True, eq=False)  # each is there once; so it is found in caches by what it is
class Operation:
    """One public operation, such as kv.put."""

    name: str
    owner: type[Any]
    access: Access
    idempotent: bool

    @cached_property
    def method(self) -> str:
        """The name of the method or property on its owner."""
        return self.name.rpartition(".")[2]

    @property
    def summary(self) -> str:
        """What comes back: the first paragraph of the docstring, on one line."""
        paragraph = (inspect.getdoc(self._function) or "").split("\n\n")[0]
        return " ".join(paragraph.split())

    @property
    def docs(self) -> str:
        """The whole docstring."""
        return inspect.getdoc(self._function) or ""

    @property
    def errors(self) -> tuple[str, ...]:
        """The classes of errors that the docstring names; any may also raise what places and storage do."""
        section = _SECTION.search(self.docs)
        said = "" if section is None else section[1]
        found = set(_ERROR.findall(said)) - {"NaN"}
        for other in re.findall(r"\b(?:as|what) `(\w+)`", said):
            found.update(OPERATIONS[f"{self.group}.{other}"].errors)
        return tuple(sorted(found))

    @property
    def example(self) -> Example:
        """A call of it that runs, and what has to be there for it."""
        from strata.api.examples import EXAMPLES

        return EXAMPLES[self.name]

    @cached_property
    def request_type(self) -> type[Struct]:
        """The request as a Struct, of plain data."""
        from strata.api.requests import request_type

        return request_type(self)

    @cached_property
    def is_direct(self) -> bool:
        """Whether the method takes the fields of the request just as they are, in their order."""
        from strata.api.requests import is_direct

        return is_direct(self)

    @cached_property
    def by_place(self) -> int:
        """How many arguments may be given by place; the rest only by name."""
        kinds = [parameter.kind for parameter in self.request.values()]
        return sum(kind is inspect.Parameter.POSITIONAL_OR_KEYWORD for kind in kinds)

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
    def group(self) -> str:
        """What comes before the method in the name: "kv", "branches", or nothing."""
        return self.name.rpartition(".")[0]

    @cached_property
    def is_property(self) -> bool:
        """Whether it is read rather than called."""
        return isinstance(inspect.getattr_static(self.owner, self.method), property)

    @cached_property
    def pages(self) -> Pages:
        """What a page of results goes on from, where there may be many; else ""."""
        result = self.result
        many = get_origin(result) in (Iterator, list, Table) or result in (Diff, Replay)
        if self.access != "read" or not many or self.name in _BOUNDED:
            return ""
        if self.name in _BY_KEY:
            return "key"
        if self.name in _BY_SEQUENCE:
            return "sequence"
        return "version" if self.method in ("history", "log") else "skip"

    @cached_property
    def takes_limit(self) -> bool:
        """Whether the method itself takes a limit."""
        return "limit" in self.request

    @cached_property
    def takes_options(self) -> bool:
        """Whether the method takes options by any name."""
        return any(parameter.kind is parameter.VAR_KEYWORD for parameter in self.request.values())

    @cached_property
    def is_point(self) -> bool:
        """Whether it ends in microseconds, whatever is stored: it is of one key of one primitive."""
        is_one = self.group in PRIMITIVES and self.method in _POINTS
        return is_one and self.is_direct and not self.pages

    @cached_property
    def names_files(self) -> bool:
        """Whether an argument is a path on the machine that the database is on."""
        return self.name in ("backup", "export", "import_rstmdb", "export_rstmdb")

    @cached_property
    def on_views(self) -> bool:
        """Whether it reads what was there at a point in history as well."""
        if self.group in PRIMITIVES:
            return self.access == "read" and self.owner is not Runs
        return self.group == "spaces" or self.name in ("search", "version")

    @cached_property
    def in_transactions(self) -> bool:
        """Whether it runs inside of a transaction too."""
        on_face = self.group in PRIMITIVES and self.owner is not Runs
        return on_face or self.group == "spaces" or self.name == "search"

    @cached_property
    def gives_version(self) -> bool:
        """Whether its result is the version of its commit."""
        kinds = set(get_args(self.result))
        return self.access == "write" and kinds == {int, type(None)} and self.name not in _COUNTS

    @cached_property
    def is_plain(self) -> bool:
        """Whether the result is plain data as it is."""
        kinds = {self.result, *get_args(self.result)}
        return kinds <= {Any, str, int, float, bool, bytes, type(None), self.result} and (
            self.result in (Any, str, int, float, bool, bytes, type(None)) or type(None) in kinds
        )

    def access_for(self, request: Any) -> Access:
        """Return the access that a request needs: a search that is to be logged writes."""
        return "write" if getattr(request, "log_recall", False) else self.access

    @cached_property
    def _hints(self) -> dict[str, Any]:
        return get_type_hints(self._function, localns=self._later)

    @property
    def _later(self) -> dict[str, Any] | None:
        """The types in annotations whose modules are imported only when they are needed."""
        if self.name == "info":
            from strata.api.info import DatabaseInfo

            return {"DatabaseInfo": DatabaseInfo}
        if self.name == "import_rstmdb":
            from strata.api.rstmdb.importing import Progress, RstmdbImport

            return {"Progress": Progress, "RstmdbImport": RstmdbImport}
        if self.name == "export_rstmdb":
            from strata.api.rstmdb.exporting import RstmdbExport

            return {"RstmdbExport": RstmdbExport}
        return None

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
    *_operations(
        "machines.", MachineReads,
        read="machine definitions get exists possible list count find explain_plan history",
    ),
    *_operations(
        "machines.", Machines,
        read="validate next_due",
        write="define delete clear",
        step="create apply batch migrate fire_due",
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
    *_operations(
        "webhooks.", Webhooks,
        admin="add get list status remove pause resume rotate dead retry discard",
    ),
    *_operations("", Searchable, read="search"),
    *_operations(
        "", Place,
        read="version log diff replay replay_until replay_range explain",
        write="ingest_otlp ingest_transcript",
        admin="import_rstmdb export_rstmdb",
    ),
    *_operations(
        "", Database,
        read="durable_version outcome info",
        admin="flush checkpoint compact forget verify export backup rotate_key",
    ),
)  # fmt: skip

OPERATIONS: Final[dict[str, Operation]] = {operation.name: operation for operation in _ALL}

# An operation that does not end by itself, for what can carry that: the wire. Elsewhere it is a handle.
WATCH: Final = Operation("watch", Place, "read", True)

# Public names that are no operations: they make handles, or concern this process alone.
HANDLES: Final[dict[type[Any], frozenset[str]]] = {
    Place: frozenset(
        {"branch", "run", "space", "at", "transaction", "transact", "transactional", "spaces", "watch"}
    ),
    Database: frozenset({"name", "closed", "close"}),
    State: frozenset({"transition"}),  # takes a function; elsewhere it is get and cas
}
