"""Outcomes: what became of each plan, measured, as a table; the best of them, and its merge.

A measure is a function of the run, which is a branch with all that the plan left on it. What a measure raises
is a problem of that outcome alone: it has None there, and is not the best by that measure.

Only what the plan itself did is measured: traces and events that were there when it was forked off are not.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from html import escape
from typing import Any, Final, Literal

from strata.api import Branches, Run
from strata.api.table import html_table, text_table
from strata.core.errors import InvalidInput, NotFound
from strata.core.values import one_line, text_of
from strata.history.merge import MergeInfo
from strata.history.plan import Strategy
from strata.primitives import Event, Trace

Measure = Callable[[Run], Any]
Keep = Literal["all", "winner", "none"]

_KEEPS: Final = ("all", "winner", "none")
_LEAST: Final = frozenset({"latency_ms", "tool_calls", "tokens"})  # of these, less is better
_BUILT_IN: Final = ("success", *sorted(_LEAST))
_ROWS_SHOWN: Final = 50
_CELL_CHARS: Final = 60
# Where people write how many tokens a call took: ours, the API of OpenAI, OpenTelemetry.
_TOTALS: Final = ("tokens", "total_tokens")
_PARTS: Final = (
    ("input_tokens", "output_tokens"),
    ("prompt_tokens", "completion_tokens"),
    ("gen_ai.usage.input_tokens", "gen_ai.usage.output_tokens"),
)
_INSIDE: Final = ("usage", "attributes")


@dataclass(frozen=True, slots=True, eq=False)
class Outcome:
    """What became of one plan."""

    run: Run
    status: str
    error: str | None
    result: Any
    measures: dict[str, Any]
    problems: dict[str, str] = field(default_factory=dict)  # measure: what it raised

    @property
    def name(self) -> str:
        """The name that the run was begun with, else its id."""
        return self.run.info.name or self.run.id

    @property
    def success(self) -> bool:
        """Whether the plan came to its end."""
        return self.status == "completed"


class Outcomes(list[Outcome]):
    """The outcomes of plans, in their order. `print` gives aligned columns, a notebook a small table."""

    __slots__ = ()

    def best(self, by: str | Callable[[Outcome], Any] = "success", *, least: bool | None = None) -> Outcome:
        """Return the best of the plans that came to their end; of several as good, the first.

        Args:
            by: a measure, or a function of the outcome. Those that have None or NaN there are left out.
            least: whether less is better; left out, it is for "latency_ms", "tool_calls" and "tokens".
        Raises: NotFound when no plan came to its end, or none has the measure; InvalidInput for values that
            cannot be compared.
        """
        value = by if callable(by) else lambda outcome: outcome.measures[by]
        if not callable(by):
            self._check_measure(by)
            least = by in _LEAST if least is None else least
        found = [(value(outcome), outcome) for outcome in self if outcome.success]
        found = [(worth, outcome) for worth, outcome in found if _is_worth(worth)]
        if not found:
            raise NotFound(
                f"none of {len(self)} plans came to its end with a value for {by!r}",
                what="winner",
                name=str(by),
                hint="print the outcomes: they say what became of each",
            )
        try:
            return (min if least else max)(found, key=lambda pair: pair[0])[1]
        except TypeError as error:
            raise InvalidInput(f"the values of {by!r} cannot be compared: {error}") from None

    def merge_winner(
        self,
        by: str | Callable[[Outcome], Any] = "success",
        *,
        least: bool | None = None,
        into: str | None = None,
        strategy: Strategy = "strict",
        keep: Keep = "all",
        message: str | None = None,
        actor: str | None = None,
    ) -> MergeInfo:
        """Merge the branch of the best plan into the one that it was forked off, as one commit.

        Args:
            by, least: as for `best`.
            into: another branch.
            strategy: for what both changed since, as for `branches.merge`.
            keep: whose branches stay: those of "all", of the "winner", or "none". Those of the runs that a
                plan has begun go with it. What is known of runs stays, but without a branch none is replayed.
        Raises: as `best` and `branches.merge`; then nothing is merged, and all branches stay.
        """
        if keep not in _KEEPS:
            raise InvalidInput(f"keep={keep!r} is unknown", hint=f"one of {', '.join(_KEEPS)}")
        winner = self.best(by, least=least)
        branches = Branches(winner.run._store, winner.run._space)
        target = winner.run.info.source if into is None else into
        said = f"the best of {len(self)} plans: {winner.name}" if message is None else message
        merged = branches.merge(winner.run.name, target, strategy, message=said, actor=actor)
        for outcome in self:
            if keep == "none" or (keep == "winner" and outcome is not winner):
                drop(branches, outcome.run)
        return merged

    def __str__(self) -> str:
        head, rows, left_out = self._cells()
        return text_table(head, rows) + (f"\n... and {left_out} more" if left_out else "")

    def _repr_html_(self) -> str:
        head, rows, left_out = self._cells()
        return html_table(head, rows) + (f"<p>… and {escape(str(left_out))} more</p>" if left_out else "")

    def _check_measure(self, name: str) -> None:
        known = self[0].measures if self else ()
        if self and name not in known:
            raise InvalidInput(f"there is no measure {name!r}", hint=f"one of {', '.join(known)}")

    def _cells(self) -> tuple[list[str], list[list[str]], int]:
        if not self:
            return ["(none)"], [], 0
        measures = [*self[0].measures]
        rows = [
            [
                one_line(outcome.name, _CELL_CHARS),
                outcome.status,
                *(_cell(outcome, name) for name in measures),
                one_line(outcome.error or "", _CELL_CHARS),
            ]
            for outcome in self[:_ROWS_SHOWN]
        ]
        return ["plan", "status", *measures, "error"], rows, len(self) - len(rows)


def evaluate(runs: Iterable[Run], measures: Mapping[str, Measure] | None = None) -> Outcomes:
    """Return what became of runs, each with its measures.

    Always measured are "success", "latency_ms" (how long the run was active; from `run_plans`, how long the
    plan took), "tool_calls" (its traces of that kind) and "tokens" (what its traces and events say of usage).

    Args:
        measures: more, by name: functions of the run.
    Raises: InvalidInput for what is no run, and for a measure with the name of one of those above.
    Cost: grows with what the runs changed.
    """
    return outcomes_of(list(runs), dict(measures or {}), {})


def outcomes_of(runs: list[Run], measures: dict[str, Measure], took_ms: dict[str, float]) -> Outcomes:
    """Return what became of runs; `took_ms` says for the id of a run how long its plan took."""
    check_measures(measures)
    check_runs(runs)
    return Outcomes(_outcome(run, measures, took_ms.get(run.id)) for run in runs)


def check_measures(measures: Mapping[str, Any]) -> None:
    """Raise InvalidInput unless all are functions with names of their own."""
    for name, measure in measures.items():
        if type(name) is not str or name in _BUILT_IN or not callable(measure):
            raise InvalidInput(
                f"measure {name!r} is not a function with a name of its own",
                hint=f"taken are {', '.join(_BUILT_IN)}",
            )


def check_runs(runs: Iterable[Any]) -> None:
    """Raise InvalidInput unless all are runs."""
    for run in runs:
        if not isinstance(run, Run):
            raise InvalidInput(
                f"{run!r} is no run", hint="agents.fork_many makes runs, as does db.runs.begin"
            )


def drop(branches: Branches, run: Run) -> None:
    """Delete the branch of a run and those of the runs that it has begun, as far as they are there."""
    ids = [run.id]
    for id in ids:  # which grows
        ids += [child.id for child in run.runs.list(parent=id)]
        try:
            branches.delete(run.run(id).name)
        except NotFound:
            pass


def _outcome(run: Run, measures: dict[str, Measure], took_ms: float | None) -> Outcome:
    info = run.info
    found: dict[str, Any] = {"success": info.status == "completed"}
    if took_ms is None and info.duration_us is not None:
        took_ms = info.duration_us / 1000
    found["latency_ms"] = took_ms
    problems: dict[str, str] = {}
    for name, measure in {"tool_calls": _tool_calls, "tokens": _tokens, **measures}.items():
        try:
            found[name] = measure(run)
        except Exception as error:
            found[name], problems[name] = None, f"{type(error).__name__}: {error}"
    return Outcome(run, info.status, info.error, info.result, found, problems)


def _tool_calls(run: Run) -> int:
    return sum(1 for trace in _new(run, "traces") if trace.kind == "tool_call")


def _tokens(run: Run) -> int:
    traces: Iterator[Trace] = _new(run, "traces")
    events: Iterator[Event] = _new(run, "events")
    return sum(_tokens_in(trace.metadata) for trace in traces) + sum(
        _tokens_in(event.payload) for event in events
    )


def _new(run: Run, primitive: str) -> Iterator[Any]:
    """Yield the traces or events that the run made."""
    for change in run.diff(run.info.fork_version, primitive=primitive):
        if isinstance(change.new, list):
            yield from change.new
        elif change.new is not None:
            yield change.new


def _tokens_in(said: Any) -> int:
    """Return how many tokens a map says were used, in the first of the ways that are known."""
    if not isinstance(said, dict):
        return 0
    for names in (*((total,) for total in _TOTALS), *_PARTS):
        counts = [said[name] for name in names if type(said.get(name)) is int]
        if counts:
            return sum(counts)
    return sum(_tokens_in(said[name]) for name in _INSIDE if name in said)


def _is_worth(value: Any) -> bool:
    return value is not None and not (isinstance(value, float) and math.isnan(value))


def _cell(outcome: Outcome, measure: str) -> str:
    if measure in outcome.problems:
        return one_line(f"! {outcome.problems[measure]}", _CELL_CHARS)
    value = outcome.measures[measure]
    if value is None:
        return ""
    return f"{value:.1f}" if isinstance(value, float) else one_line(text_of(value), _CELL_CHARS)
