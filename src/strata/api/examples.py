"""Examples: for each operation a call that runs, and what has to be there for it.

One source for the documentation of all surfaces: the arguments are plain data, so that the same example is
Python, JSON and a command line. A test runs all of them, each in an empty database, and compares what the
method returns with what dispatch does.
"""

from __future__ import annotations

import inspect
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from strata.api.operations import Operation


@dataclass(frozen=True, slots=True)
class Example:
    """A call of an operation."""

    arguments: dict[str, Any] = field(default_factory=dict)  # plain data
    setting: tuple[str, ...] = ()  # lines of Python that are run before, with `db`
    on_disk: bool = False  # whether the database has to be in files
    python: str = ""  # the call, where it is not what `code` makes of the arguments

    def code(self, operation: Operation) -> str:
        """Return the call as Python."""
        where = "db." + operation.name
        if self.python or operation.is_property:
            return self.python or where
        said, may_lead = [], True
        for name, parameter in operation.request.items():
            may_lead = may_lead and parameter.kind is inspect.Parameter.POSITIONAL_OR_KEYWORD
            if name not in self.arguments:
                may_lead = False
            elif may_lead:
                said.append(repr(self.arguments[name]))
            elif parameter.kind is parameter.VAR_KEYWORD:
                said.append(f"**{self.arguments[name]!r}")
            else:
                said.append(f"{name}={self.arguments[name]!r}")
        return f"{where}({', '.join(said)})"


def _example(*setting: str, on_disk: bool = False, python: str = "", **arguments: Any) -> Example:
    return Example(arguments, setting, on_disk, python)


_THREE: Final = 'db.kv.put_many({"a": 1, "b": 2, "c": 3})'
_GOAL: Final = 'db.kv.put("goal", "rest")'
_EVENTS: Final = 'db.events.append_many([("ask", {"text": "why?"}), ("tell", {"text": "so"})])'
_MOOD: Final = 'db.state.init("mood", "calm")'
_USER: Final = 'db.json.create("user", {"name": "Ada", "tags": ["x"]})'
_TRACE: Final = 'db.traces.record("thought", "plan", id="t1", output="go", tags=["deep"])'
_CHILD: Final = 'db.traces.record("tool_call", "search", id="t2", parent="t1")'
_FACTS: Final = 'db.vectors.create_collection("facts", 2)'
_SKY: Final = 'db.vectors.upsert("facts", "sky", [1.0, 0.0], {"colour": "blue"})'
_RUN: Final = 'db.runs.begin("plan", id="r1", tags=["daily"])'
_PAUSED: Final = 'db.runs.pause("r1")'
_FORK: Final = 'db.branches.fork("main", "draft")'
_CHANGED: Final = 'db.branch("draft").kv.put("goal", "work")'
_WORDS: Final = 'db.indexes.create("words", primitive="kv")'
_RECEIVER: Final = "https://example.com/hooks"
_SECRET: Final = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
_HOOK: Final = f"db.webhooks.add('all', {_RECEIVER!r})"
_STATES: Final = {
    "states": ["open", "closed"],
    "initial": "open",
    "transitions": [{"from": "open", "event": "CLOSE", "to": "closed"}],
}
_MACHINE: Final = f'db.machines.define("ticket", 1, {_STATES!r})'
_TICKET: Final = 'db.machines.create("ticket", "t1", {"team": "north"})'
_TIMED: Final = _STATES | {"timers": [{"state": "open", "after": 3600, "event": "CLOSE"}]}
_OPEN: Final = {"machine": "ticket", "state": "open"}
_ON_2026: Final[dict[str, Any]] = {"start": "2026-01-01T00:00Z", "end": "2026-01-02T00:00Z"}
_SPANS: Final = {
    "resourceSpans": [
        {
            "scopeSpans": [
                {
                    "spans": [
                        {
                            "traceId": "5b8efff798038103d269b633813fc60c",
                            "spanId": "eee19b7ec3c1b174",
                            "name": "plan",
                            "startTimeUnixNano": "1767225600000000000",
                            "endTimeUnixNano": "1767225601000000000",
                        }
                    ]
                }
            ]
        }
    ]
}

EXAMPLES: Final[dict[str, Example]] = {
    "kv.get": _example(_GOAL, key="goal"),
    "kv.get_many": _example(_THREE, keys=["a", "none", "c"], default=0),
    "kv.entry": _example(_GOAL, key="goal"),
    "kv.exists": _example(_GOAL, key="goal"),
    "kv.keys": _example(_THREE, start="b"),
    "kv.scan": _example(_THREE, reverse=True, limit=2),
    "kv.count": _example(_THREE, prefix="a"),
    "kv.history": _example(_GOAL, 'db.kv.delete("goal")', key="goal"),
    "kv.put": _example(key="goal", value={"what": "rest", "for": 3}),
    "kv.put_many": _example(items={"a": 1, "b": 2}),
    "kv.delete": _example(_GOAL, key="goal"),
    "kv.delete_many": _example(_THREE, keys=["a", "none"]),
    "kv.incr": _example(key="visits", by=2),
    "kv.cas": _example(_GOAL, key="goal", new="work", expected="rest"),
    "events.get": _example(_EVENTS, sequence=0),
    "events.head": _example(_EVENTS),
    "events.len": _example(_EVENTS),
    "events.range": _example(_EVENTS, start=1),
    "events.by_type": _example(_EVENTS, type="tell"),
    "events.between": _example(_EVENTS, **_ON_2026),
    "events.streams": _example(_EVENTS),
    "events.types": _example(_EVENTS),
    "events.verify": _example(_EVENTS),
    "events.append": _example(type="ask", payload={"text": "why?"}),
    "events.append_many": _example(items=[("ask", {"text": "why?"}), ("tell", {"text": "so"})]),
    "events.adopt": _example(
        'event = db.events.append("ask", {"text": "why?"}, stream="other")',
        python='db.events.adopt(event, branch="draft")',
    ),
    "state.get": _example(_MOOD, name="mood"),
    "state.entry": _example(_MOOD, name="mood"),
    "state.exists": _example(_MOOD, name="mood"),
    "state.list": _example(_MOOD),
    "state.count": _example(_MOOD),
    "state.history": _example(_MOOD, name="mood"),
    "state.delete": _example(_MOOD, name="mood"),
    "state.init": _example(name="mood", value="calm"),
    "state.set": _example(_MOOD, name="mood", value="glad"),
    "state.cas": _example(_MOOD, name="mood", expected=1, new="glad"),
    "json.get": _example(_USER, doc="user", path="$.name"),
    "json.entry": _example(_USER, doc="user"),
    "json.exists": _example(_USER, doc="user", path="$.age"),
    "json.list": _example(_USER),
    "json.count": _example(_USER),
    "json.history": _example(_USER, doc="user"),
    "json.find": _example(_USER, where={"$.name": "Ada"}, scan=True),
    "json.explain_plan": _example(
        'db.indexes.create("names", primitive="json", kind="ordered", paths="$.name")',
        _USER,
        where={"$.name": "Ada"},
    ),
    "json.set": _example(_USER, doc="user", path="$.age", value=36),
    "json.delete": _example(_USER, doc="user", path="$.tags"),
    "json.destroy": _example(_USER, doc="user"),
    "json.merge": _example(_USER, doc="user", patch={"age": 36, "tags": None}),
    "json.create": _example(doc="user", value={"name": "Ada"}),
    "json.patch": _example(
        _USER, doc="user", operations=[{"op": "replace", "path": "/name", "value": "Ada L."}]
    ),
    "json.cas": _example(_USER, doc="user", expected_version=1, path="$.name", value="Ada L."),
    "json.append": _example(_USER, doc="user", path="$.tags", value="y"),
    "json.insert": _example(_USER, doc="user", path="$.tags[0]", value="y"),
    "traces.get": _example(_TRACE, id="t1"),
    "traces.exists": _example(_TRACE, id="t1"),
    "traces.children": _example(_TRACE, _CHILD, id="t1"),
    "traces.tree": _example(_TRACE, _CHILD, id="t1"),
    "traces.roots": _example(_TRACE, _CHILD),
    "traces.by_kind": _example(_TRACE, kind="thought"),
    "traces.by_tag": _example(_TRACE, tag="deep"),
    "traces.between": _example(_TRACE, **_ON_2026),
    "traces.list": _example(_TRACE, _CHILD),
    "traces.count": _example(_TRACE, kind="thought"),
    "traces.record": _example(
        kind="tool_call", name="search", input={"q": "why"}, output=["so"], tags=["web"], id="t1",
        reads=["strata://main/default/kv/goal"],
    ),
    "vectors.get": _example(_FACTS, _SKY, collection="facts", key="sky"),
    "vectors.exists": _example(_FACTS, _SKY, collection="facts", key="sky"),
    "vectors.keys": _example(_FACTS, _SKY, collection="facts"),
    "vectors.count": _example(_FACTS, _SKY, collection="facts"),
    "vectors.history": _example(_FACTS, _SKY, collection="facts", key="sky"),
    "vectors.query": _example(_FACTS, _SKY, collection="facts", vector=[0.9, 0.1], k=1),
    "vectors.collection": _example(_FACTS, name="facts"),
    "vectors.collections": _example(_FACTS),
    "vectors.stats": _example(_FACTS, _SKY, name="facts"),
    "vectors.upsert": _example(
        _FACTS, collection="facts", key="sky", vector=[1.0, 0.0], metadata={"colour": "blue"}
    ),
    "vectors.upsert_many": _example(
        _FACTS, collection="facts", keys=["sky", "sea"], vectors=[[1.0, 0.0], [0.5, 0.5]]
    ),
    "vectors.delete": _example(_FACTS, _SKY, collection="facts", key="sky"),
    "vectors.delete_where": _example(_FACTS, _SKY, collection="facts", where={"$.colour": "blue"}),
    "vectors.drop": _example(_FACTS, name="facts"),
    "vectors.create_collection": _example(name="facts", dim=2, metric="dot"),
    "machines.define": _example(name="ticket", version=1, definition=_STATES),
    "machines.validate": _example(definition=_STATES),
    "machines.machine": _example(_MACHINE, name="ticket"),
    "machines.definitions": _example(_MACHINE),
    "machines.create": _example(_MACHINE, machine="ticket", id="t1", context={"team": "north"}),
    "machines.apply": _example(
        _MACHINE, _TICKET, id="t1", event="CLOSE", payload={"why": "solved"}, expected_state="open"
    ),
    "machines.delete": _example(_MACHINE, _TICKET, id="t1"),
    "machines.clear": _example(_MACHINE, _TICKET),
    "machines.batch": _example(
        _MACHINE,
        items=[
            {"op": "create", "machine": "ticket", "id": "t1"},
            {"op": "apply", "id": "t1", "event": "CLOSE"},
        ],
        atomic=True,
    ),
    "machines.migrate": _example(
        _MACHINE, _TICKET, f'db.machines.define("ticket", 2, {_TIMED!r})', machine="ticket", dry_run=True
    ),
    "machines.fire_due": _example(f'db.machines.define("ticket", 1, {_TIMED!r})', _TICKET),
    "machines.next_due": _example(_MACHINE, _TICKET),
    "machines.get": _example(_MACHINE, _TICKET, id="t1"),
    "machines.exists": _example(_MACHINE, _TICKET, id="t1"),
    "machines.possible": _example(_MACHINE, _TICKET, id="t1"),
    "machines.list": _example(_MACHINE, _TICKET, machine="ticket", state="open"),
    "machines.count": _example(_MACHINE, _TICKET, machine="ticket"),
    "machines.find": _example(_MACHINE, _TICKET, where=_OPEN, scan=True),
    "machines.explain_plan": _example(_MACHINE, _TICKET, where=_OPEN),
    "machines.history": _example(_MACHINE, _TICKET, id="t1"),
    "runs.get": _example(_RUN, id="r1"),
    "runs.exists": _example(_RUN, id="r1"),
    "runs.list": _example(_RUN, status="active"),
    "runs.children": _example(_RUN, 'db.run("r1").runs.begin("part", id="r2")', id="r1"),
    "runs.count": _example(_RUN),
    "runs.stats": _example(_RUN),
    "runs.steps": _example(_RUN, _PAUSED, id="r1"),
    "runs.orphans": _example(),
    "runs.begin": _example(name="plan", id="r1", metadata={"model": "small"}),
    "runs.end": _example(_RUN, id="r1", result={"score": 0.9}),
    "runs.fail": _example(_RUN, id="r1", error="no route"),
    "runs.cancel": _example(_RUN, id="r1", reason="not needed"),
    "runs.pause": _example(_RUN, id="r1"),
    "runs.resume": _example(_RUN, _PAUSED, id="r1"),
    "runs.archive": _example(_RUN, 'db.runs.end("r1")', id="r1"),
    "runs.take_over": _example(
        _RUN, "db.close()", 'db = strata.open("example.strata")', on_disk=True, id="r1"
    ),
    "branches.get": _example(_FORK, name="draft"),
    "branches.list": _example(_FORK),
    "branches.tags": _example(_GOAL, 'db.branches.tag("v1")'),
    "branches.notes": _example(_GOAL, 'db.branches.note(1, "the first")'),
    "branches.preview": _example(_GOAL, _FORK, _CHANGED, source="draft"),
    "branches.note": _example(_GOAL, version=1, text="the first"),
    "branches.reset": _example(_GOAL, 'db.kv.put("goal", "work")', branch="main", at=1),
    "branches.merge": _example(_GOAL, _FORK, _CHANGED, source="draft", message="take the draft"),
    "branches.cherry_pick": _example(_GOAL, _FORK, _CHANGED, source="draft", picks=3),
    "branches.revert": _example(_GOAL, 'db.kv.put("goal", "work")', first=2),
    "branches.undo": _example(_GOAL, _FORK, _CHANGED, 'db.branches.merge("draft")', version=4),
    "branches.create": _example(name="empty"),
    "branches.fork": _example(_GOAL, source="main", name="draft", at=1),
    "branches.rename": _example(_FORK, old="draft", new="plan"),
    "branches.delete": _example(_FORK, name="draft"),
    "branches.protect": _example(_FORK, name="draft", reason="it is released"),
    "branches.unprotect": _example(_FORK, 'db.branches.protect("draft")', name="draft"),
    "branches.tag": _example(_GOAL, name="v1", note="the first"),
    "branches.untag": _example(_GOAL, 'db.branches.tag("v1")', name="v1"),
    "spaces.list": _example('db.space("notes").kv.put("a", 1)'),
    "indexes.get": _example(_WORDS, name="words"),
    "indexes.list": _example(_WORDS),
    "indexes.create": _example(
        name="names", primitive="json", kind="ordered", paths=["$.name"], options={"unique": True}
    ),
    "indexes.drop": _example(_WORDS, name="words"),
    "indexes.rebuild": _example(_WORDS, name="words"),
    "retention.get": _example("db.retention.set(strata.KeepLast(3))"),
    "retention.list": _example('db.retention.set(strata.KeepLast(3), space="notes")'),
    "retention.set": _example(
        policy={"last": 3},
        primitive="kv",
        python='db.retention.set(strata.KeepLast(3), primitive="kv")',
    ),
    "retention.clear": _example("db.retention.set(strata.KeepLast(3))"),
    "webhooks.add": _example(
        name="tickets", url=_RECEIVER, secret=_SECRET, machine="ticket", to_states=["closed"]
    ),
    "webhooks.get": _example(_HOOK, name="all"),
    "webhooks.list": _example(_HOOK),
    "webhooks.status": _example(_HOOK, _GOAL, name="all"),
    "webhooks.remove": _example(_HOOK, name="all"),
    "webhooks.pause": _example(_HOOK, name="all", reason="the receiver moves"),
    "webhooks.resume": _example(_HOOK, 'db.webhooks.pause("all")', name="all"),
    "webhooks.rotate": _example(_HOOK, name="all", secret=_SECRET, keep_old=3600),
    "webhooks.dead": _example(_HOOK, name="all"),
    "webhooks.retry": _example(_HOOK, name="all"),
    "webhooks.discard": _example(_HOOK, name="all"),
    "search": _example(_WORDS, _GOAL, text="rest", k=3),
    "version": _example(_GOAL),
    "log": _example(_GOAL, 'db.kv.put("goal", "work")', limit=1),
    "diff": _example(_GOAL, _FORK, _CHANGED, old="main", new="draft"),
    "replay": _example(_RUN, 'db.run("r1").kv.put("a", 1)', run="r1"),
    "replay_until": _example(_GOAL, _RUN, 'db.run("r1").kv.put("a", 1)', run="r1", when=4),
    "replay_range": _example(_THREE, _GOAL, a=0, b=2),
    "explain": _example(_GOAL, ref="strata://main/default/kv/goal"),
    "ingest_otlp": _example(source=_SPANS),
    "ingest_transcript": _example(
        source=[{"role": "user", "content": "why?"}, {"role": "assistant", "content": "so"}], id="chat"
    ),
    "import_rstmdb": _example(
        "other = strata.open()",
        _MACHINE.replace("db.", "other."),
        _TICKET.replace("db.", "other."),
        'other.export_rstmdb("tickets.rstmbak", history=True)',
        path="tickets.rstmbak",
    ),
    "export_rstmdb": _example(_MACHINE, _TICKET, path="tickets.rstmbak", history=True),
    "durable_version": _example(_GOAL, "db.flush()"),
    "outcome": _example(_GOAL, transaction="1-1767225600000000"),
    "info": _example(_GOAL),
    "flush": _example(_GOAL),
    "checkpoint": _example(_GOAL, on_disk=True),
    "compact": _example(_GOAL, on_disk=True),
    "forget": _example(_GOAL, primitive="kv", key="goal"),
    "verify": _example(_GOAL, on_disk=True),
    "export": _example(_GOAL, path="all.bundle"),
    "backup": _example(_GOAL, on_disk=True, to="backup"),
    "rotate_key": _example(_GOAL, on_disk=True, key=bytes(range(32))),
}  # fmt: skip
