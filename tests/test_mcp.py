"""The tools of `strata mcp`, each through the official client."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("mcp")

import anyio
from mcp_client import Refused, Tools, connected, tools_of

import strata
from strata.search import CallableEmbedder, registered
from strata.server.mcp.host import make_server
from strata.server.mcp.scope import Scope
from strata.server.mcp.shown import NOTICE

ALL = {"recall", "read", "history", "explain", "guide", "remember", "write", "branch", "merge"}
READING = {"recall", "read", "history", "explain", "guide", "branch"}


@pytest.fixture
def db() -> Iterator[strata.Database]:
    with strata.open() as opened:
        yield opened


@pytest.fixture
def tools(db: strata.Database) -> Iterator[Tools]:
    with tools_of(db) as connected:
        yield connected


def test_the_tools_are_few_and_described(tools: Tools) -> None:
    listed = tools.run(tools.client.list_tools).tools
    assert {tool.name for tool in listed} == ALL
    for tool in listed:
        assert 60 < len(tool.description) < 500
        assert tool.input_schema["additionalProperties"] is False
        silent = [
            name for name, field in tool.input_schema["properties"].items() if "description" not in field
        ]
        assert not silent, f"{tool.name}: say what {silent} are"
        assert tool.output_schema["type"] == "object"
    assert sum(len(str(tool.input_schema)) for tool in listed) < 20_000  # a model reads them each time


def test_the_reference_has_every_tool_and_argument(tools: Tools) -> None:
    page = (Path(__file__).parent.parent / "docs" / "reference" / "mcp.md").read_text("utf-8")
    rows = {row.split("`")[1]: row for row in page.splitlines() if row.startswith("| `")}
    for tool in tools.run(tools.client.list_tools).tools:
        arguments = set(tool.input_schema["properties"]) - {"branch", "space"}
        missing = sorted(name for name in arguments if f"`{name}`" not in rows[tool.name])
        assert not missing, f"docs/reference/mcp.md: {tool.name} lacks {', '.join(missing)}"


def test_hosts_of_earlier_protocols_are_served(db: strata.Database) -> None:
    with connected(make_server(db), mode="legacy") as tools:
        assert tools.remember(text="Likes tea")["outcome"] == "created"
        assert tools.recall(query="tea")["hits"]
        assert tools.client.instructions


def test_hints_say_which_tools_write(tools: Tools) -> None:
    listed = tools.run(tools.client.list_tools).tools
    read_only = {tool.name for tool in listed if tool.annotations.read_only_hint}
    assert read_only == {"recall", "read", "history", "explain", "guide"}


# -- remember and recall


def test_what_is_remembered_is_recalled_at_once(tools: Tools, db: strata.Database) -> None:
    made = tools.remember(text="Ada moved to Turin", tags=["home"], metadata={"sure": 0.9})
    assert made["outcome"] == "created"
    (hit,) = tools.recall(query="where does she move?")["hits"]
    assert hit["ref"] == made["ref"] and hit["rank"] == 1
    assert hit["stored"] == {"text": "Ada moved to Turin", "tags": ["home"], "metadata": {"sure": 0.9}}
    assert "**moved**" in hit["snippet"]
    assert db.json.get(made["key"], "$.text") == "Ada moved to Turin"


def test_the_same_text_is_kept_once(tools: Tools, db: strata.Database) -> None:
    first = tools.remember(text="Likes tea", tags=["a"], metadata={"x": 1})
    again = tools.remember(text="Likes tea", tags=["b"], metadata={"y": 2})
    assert again["ref"] == first["ref"] and again["outcome"] == "replaced"
    assert db.json.get(first["key"]) == {
        "text": "Likes tea",
        "tags": ["a", "b"],
        "metadata": {"x": 1, "y": 2},
    }
    db.kv.put("meanwhile", 1)
    third = tools.remember(text="Likes tea")
    assert third["outcome"] == "unchanged" and third["version"] == again["version"]


def test_a_key_is_replaced_and_its_history_stays(tools: Tools) -> None:
    tools.remember(text="lives in Turin", key="user/home", tags=["home"])
    made = tools.remember(text="lives in Lisbon", key="user/home")
    assert made["outcome"] == "replaced"
    assert tools.read(ref=made["ref"])["stored"] == {"text": "lives in Lisbon"}
    versions = tools.history(ref=made["ref"])["versions"]
    assert [version["stored"]["text"] for version in versions] == ["lives in Lisbon", "lives in Turin"]
    assert not tools.recall(query="Turin")["hits"]
    (hit,) = tools.recall(query="Turin", at=versions[-1]["version"])["hits"]
    assert hit["time"] == versions[-1]["time"]
    again = tools.remember(text="lives in Porto", key=made["key"])  # as answers have it
    assert again["ref"] == made["ref"]
    tools.write(primitive="json", key=made["key"], action="delete")
    assert not tools.recall(query="Porto")["hits"]


def test_an_idempotency_key_makes_a_retry_change_nothing(tools: Tools, db: strata.Database) -> None:
    made = tools.remember(text="one", idempotency_key="call-1")
    again = tools.remember(text="two", idempotency_key="call-1")
    assert again == {**made, "outcome": "unchanged"}
    assert db.json.get(made["key"], "$.text") == "one" and db.json.count("memory/") == 1


def test_many_calls_at_once_lose_nothing(tools: Tools, db: strata.Database) -> None:
    """A host may call without waiting for answers; two of its models may remember under one key."""

    async def together() -> None:
        async with anyio.create_task_group() as group:
            for number in range(24):
                arguments = {"text": f"note {number}", "key": f"key/{number % 3}", "tags": [str(number)]}
                group.start_soon(tools.client.call_tool, "remember", arguments)
                group.start_soon(tools.client.call_tool, "write", event)
                group.start_soon(tools.client.call_tool, "recall", {"query": "note"})

    event = {"primitive": "events", "key": "log", "type": "t", "value": {}}
    tools.run(together)
    assert db.events.len("log") == 24 and db.json.count("memory/") == 3
    assert sum(len(db.json.history(f"memory/key/{number}")) for number in range(3)) == 24
    assert len(tools.recall(query="note")["hits"]) == 3


def test_memories_expire(tools: Tools, db: strata.Database) -> None:
    made = tools.remember(text="for an hour", expires_in_s=3600.0)
    entry = db.json.entry(made["key"])
    assert entry is not None and entry.expires is not None
    assert tools.read(ref=made["ref"])["expires"] == entry.expires.isoformat().replace("+00:00", "Z")


def test_words_and_vectors_are_searched_together(tools: Tools) -> None:
    near = tools.remember(text="the sky is blue", vector=[1.0, 0.0])
    far = tools.remember(text="tea is green", vector=[0.0, 1.0])
    assert [hit["ref"] for hit in tools.recall(vector=[0.9, 0.1])["hits"]] == [near["ref"], far["ref"]]
    found = tools.recall(query="tea", vector=[0.9, 0.1], why=True)
    both = {hit["ref"]: {why["index"] for why in hit["why"]} for hit in found["hits"]}
    assert both[far["ref"]] == {"memories", "memories by vector"}
    assert "vector" not in found["hits"][0]["stored"]
    with pytest.raises(Refused, match="invalid_input"):
        tools.remember(text="of another length", vector=[1.0])
    with pytest.raises(Refused, match="invalid_input"):
        tools.recall(vector=[1.0])


def test_an_embedder_makes_vectors_of_texts(db: strata.Database, tools: Tools) -> None:
    tools.remember(text="the harbour at night")
    with tools_of(db, embedder=registered("hashing-256")) as embedding:
        assert embedding.recall(query="harbour")["hits"]  # before there are vectors
        made = embedding.remember(text="favourite colour turquoise")
        assert embedding.remember(text="favourite colour turquoise")["outcome"] == "unchanged"
        assert len(db.json.get(made["key"], "$.vector")) == 256
        assert not tools.recall(query="turqoise")["hits"]
        found = embedding.recall(query="turqoise", why=True)["hits"]
        assert found[0]["ref"] == made["ref"] and found[0]["why"][0]["index"] == "memories by vector"
        assert embedding.recall(query="harbour")["hits"][0]["stored"]["text"] == "the harbour at night"
    with tools_of(db, embedder=registered("hashing-512")) as other:
        found = other.recall(query="turquoise")
        assert len(found["hits"]) == 1 and "256" in found["hint"]
        with pytest.raises(Refused, match="invalid_input"):
            other.remember(text="of another length")


def test_an_embedder_that_fails_keeps_nothing(db: strata.Database) -> None:
    def fails(texts: list[str]) -> Any:
        raise OSError("no route to the model")

    with tools_of(db, embedder=CallableEmbedder(fails, name="broken", dim=8)) as tools:
        with pytest.raises(Refused) as refused:
            tools.remember(text="Likes tea")
        assert refused.value.code == "remote_error" and db.json.count() == 0
        assert tools.recall(query="tea")["hits"] == []


def test_filters_pages_and_reasons(tools: Tools) -> None:
    for number in range(6):
        tags = ["even"] if number % 2 == 0 else ["odd"]
        tools.remember(text=f"note number {number}", tags=tags, metadata={"n": number})
    even = tools.recall(query="note", tags=["even"])["hits"]
    assert {hit["stored"]["metadata"]["n"] for hit in even} == {0, 2, 4}
    big = tools.recall(query="note", tags=["even"], where={"$.metadata.n": {"gt": 1}})["hits"]
    assert {hit["stored"]["metadata"]["n"] for hit in big} == {2, 4}
    first, second = tools.recall(query="note", k=4), tools.recall(query="note", k=4, offset=4)
    refs = [hit["ref"] for hit in first["hits"] + second["hits"]]
    assert len(set(refs)) == 6
    said = tools.recall(query="note 3", k=1, why=True)
    assert {term["text"] for term in said["hits"][0]["why"][0]["terms"]} == {"note", "3"}
    assert said["near_misses"]


def test_recall_where_nothing_is_indexed_says_so(tools: Tools, db: strata.Database) -> None:
    db.kv.put("goal", "rest")
    found = tools.recall(query="rest")
    assert found["hits"] == [] and "everything" in found["hint"]
    assert tools.recall(query="rest", everything=True)["hits"][0]["ref"] == "strata://main/default/kv/goal"
    assert tools.recall(query="rest", space="elsewhere")["hits"] == []


# -- read, write, history


@pytest.mark.parametrize(
    ("arguments", "stored"),
    [
        ({"primitive": "kv", "key": "a", "value": {"x": [1, None, "[1]"]}}, {"x": [1, None, "[1]"]}),
        ({"primitive": "kv", "key": "a", "value": "null"}, "null"),
        ({"primitive": "kv", "key": "a", "value": {"$bytes": "aGk="}}, {"$bytes": "aGk="}),
        ({"primitive": "json", "key": "doc", "value": {"name": "Ada"}}, {"name": "Ada"}),
        ({"primitive": "json", "key": "doc", "path": "$.a.b", "value": 1}, {"a": {"b": 1}}),
        ({"primitive": "state", "key": "mood", "value": "calm"}, "calm"),
    ],
)
def test_what_is_written_is_read(tools: Tools, arguments: dict[str, Any], stored: Any) -> None:
    made = tools.write(**arguments, message="because")
    assert made["changed"]
    found = tools.read(primitive=arguments["primitive"], key=arguments["key"])
    assert found["found"] and found["stored"] == stored and found["version"] == made["version"]
    (version,) = tools.history(primitive=arguments["primitive"], key=arguments["key"])["versions"]
    assert version["message"] == "because" and version["actor"].startswith("mcp")


def test_events_are_appended_and_read(tools: Tools) -> None:
    made = [tools.write(primitive="events", key="log", type="ask", value={"n": n}) for n in range(3)]
    assert made[2]["ref"] == "strata://main/default/events/log/2"
    assert tools.read(ref=made[1]["ref"])["stored"]["payload"] == {"n": 1}
    stream = tools.read(primitive="events", key="log")
    assert [event["sequence"] for event in stream["events"]] == [0, 1, 2]
    again = [tools.write(primitive="events", key="log", type="x", idempotency_key="k") for _ in range(2)]
    assert again[0]["ref"] == again[1]["ref"] and [each["changed"] for each in again] == [True, False]


def test_everything_has_an_address(tools: Tools, db: strata.Database) -> None:
    db.traces.record("thought", "plan", id="t1", output="go")
    db.runs.begin("plan", id="r1")
    db.vectors.create_collection("facts", 2)
    db.vectors.upsert("facts", "sky", [1.0, 0.0], {"colour": "blue"})
    assert tools.read(primitive="traces", key="t1")["stored"]["output"] == "go"
    assert tools.read(ref="strata://main/default/runs/r1")["stored"]["status"] == "active"
    assert tools.read(primitive="vectors", key="facts/sky")["stored"]["metadata"] == {"colour": "blue"}
    assert tools.read(primitive="vectors", key="facts")["stored"]["vectors"] == 1
    assert tools.read(primitive="kv", key="nothing")["found"] is False
    assert tools.read(primitive="traces", key="t9")["found"] is False


def test_reading_earlier_versions_and_places_in_documents(tools: Tools, db: strata.Database) -> None:
    tools.write(primitive="json", key="doc", value={"name": "Ada", "tags": ["x"]})
    db.branches.tag("first")
    tools.write(primitive="json", key="doc", path="$.name", value="Ada L.")
    assert tools.read(primitive="json", key="doc", path="$.name")["stored"] == "Ada L."
    for at in (1, "1", "first"):
        assert tools.read(primitive="json", key="doc", path="$.name", at=at)["stored"] == "Ada"
    assert tools.read(ref="strata://main/default/json/doc#$.name@1")["stored"] == "Ada"
    assert tools.read(primitive="json", key="doc", path="$.age")["found"] is False
    with pytest.raises(Refused, match="invalid_input"):
        tools.read(ref="strata://main/default/json/doc@1", at=2)


def test_expected_version_and_deletion(tools: Tools) -> None:
    tools.write(primitive="kv", key="a", value=1, expected_version=0)
    began = time.monotonic()
    with pytest.raises(Refused) as refused:
        tools.write(primitive="kv", key="a", value=2, expected_version=0)
    assert refused.value.code == "conflict" and time.monotonic() - began < 5  # it does not retry in vain
    tools.write(primitive="kv", key="a", value=2, expected_version=1)
    assert tools.write(primitive="kv", key="a", action="delete")["changed"]
    assert tools.read(primitive="kv", key="a")["found"] is False
    versions = tools.history(primitive="kv", key="a")["versions"]
    assert [version.get("deleted", False) for version in versions] == [True, False, False]


def test_history_in_pages(tools: Tools) -> None:
    for number in range(5):
        tools.write(primitive="kv", key="a", value=number)
    page = tools.history(primitive="kv", key="a", limit=2)
    rest = tools.history(primitive="kv", key="a", before=page["next_before"])
    assert [version["stored"] for version in page["versions"] + rest["versions"]] == [4, 3, 2, 1, 0]
    commits = tools.history(limit=3)
    assert [commit["version"] for commit in commits["commits"]] == [5, 4, 3] and commits["next_before"] == 3


# -- branches


def test_a_branch_from_fork_to_merge(tools: Tools, db: strata.Database) -> None:
    tools.write(primitive="kv", key="goal", value="rest")
    assert tools.branch(action="fork", name="try")["branches"][0]["parent"] == "main"
    tools.write(primitive="kv", key="goal", value="work", branch="try")
    (change,) = tools.branch(action="diff", old="main", new="try")["changes"]
    assert (change["old"], change["new"]) == ("rest", "work")
    preview = tools.merge(source="try", preview=True)
    assert preview["preview"] and preview["changes"] and db.kv.get("goal") == "rest"
    assert tools.merge(source="try", message="take it")["version"] == db.version
    assert db.kv.get("goal") == "work"
    tools.branch(action="delete", name="try")
    assert [line["name"] for line in tools.branch(action="list")["branches"]] == ["main"]


def test_conflicts_are_named(tools: Tools, db: strata.Database) -> None:
    tools.write(primitive="kv", key="goal", value="rest")
    tools.branch(action="fork", name="try")
    tools.write(primitive="kv", key="goal", value="work", branch="try")
    tools.write(primitive="kv", key="goal", value="play")
    with pytest.raises(Refused) as refused:
        tools.merge(source="try")
    (conflict,) = refused.value.fields["conflicts"]
    assert refused.value.code == "merge_conflict" and db.kv.get("goal") == "play"
    assert conflict == {
        "ref": "strata://main/default/kv/goal", "base": "rest", "source": "work", "target": "play",
    }  # fmt: skip
    assert tools.merge(source="try", strategy="source")["conflicts"] == [conflict]


def test_explain_and_guide(tools: Tools) -> None:
    tools.remember(text="Likes tea", key="drink")
    (reason,) = tools.explain(primitive="json", key="memory/drink")["reasons"]
    old = tools.explain(ref="strata://main/default/json/memory/drink@1")["reasons"]
    assert old == [reason]
    assert reason["message"] == "remember" and reason["stored"] == {"text": "Likes tea"} and reason["unknown"]
    guide = tools.guide()
    assert guide["holds"] == [{"primitive": "json", "count": 1, "examples": ["memory/drink"]}]
    assert [index["name"] for index in guide["indexes"]] == ["memories"] and len(guide["advice"]) > 4
    with pytest.raises(Refused) as refused:
        tools.explain(primitive="kv", key="never")
    assert refused.value.code == "not_found"


# -- scopes


def test_read_only_has_no_tool_that_writes(db: strata.Database, tools: Tools) -> None:
    tools.remember(text="Likes tea")
    with tools_of(db, Scope(read_only=True)) as reading:
        assert reading.names() == READING
        assert reading.recall(query="tea")["hits"] and reading.guide()["read_only"]
        for name in ALL - READING:
            with pytest.raises(Refused, match="not_found"):
                reading.call(name, {"text": "x"})
        with pytest.raises(Refused, match="invalid_input"):
            reading.branch(action="fork", name="x")
    assert db.version == 1


def test_a_pinned_branch_is_the_only_one(db: strata.Database) -> None:
    db.kv.put("goal", "rest")
    db.branches.fork("main", "mine")
    db.branches.fork("main", "secret")
    db.branch("secret").kv.put("password", "hunter2")
    with tools_of(db, Scope(branch="mine")) as tools:
        assert tools.names() == ALL - {"merge"}
        tools.write(primitive="kv", key="a", value=1)
        assert db.branch("mine").kv.get("a") == 1 and db.kv.get("a") is None
        assert tools.read(primitive="kv", key="goal")["stored"] == "rest"
        assert [line["name"] for line in tools.branch(action="list")["branches"]] == ["mine"]
        assert tools.guide()["branches"] == ["mine"]
        outside: list[tuple[str, dict[str, Any]]] = [
            ("read", {"ref": "strata://secret/default/kv/password"}),
            ("read", {"primitive": "kv", "key": "password", "branch": "secret"}),
            ("write", {"primitive": "kv", "key": "x", "value": 1, "branch": "main"}),
            ("remember", {"text": "x", "branch": "main"}),
            ("recall", {"query": "x", "branch": "main"}),
            ("history", {"branch": "main"}),
            ("explain", {"ref": "strata://main/default/kv/goal"}),
            ("branch", {"action": "diff", "old": "secret"}),
            ("branch", {"action": "diff", "old": 1, "new": "secret"}),
            ("branch", {"action": "fork", "name": "x"}),
            ("guide", {"branch": "secret"}),
        ]
        for name, arguments in outside:
            with pytest.raises(Refused) as refused:
                tools.call(name, arguments)
            assert refused.value.code == "invalid_input", name
        schemas = tools.run(tools.client.list_tools).tools
        assert all("branch" not in tool.input_schema["properties"] for tool in schemas)


def test_a_pinned_space_is_the_only_one(db: strata.Database) -> None:
    with db.transaction(message="both", actor="import") as tx:
        tx.kv.put("secret", "hunter2")
        tx.space("notes").kv.put("open", 1)
        tx.traces.record("thought", "secret", id="t1")
    with tools_of(db, Scope(space="notes")) as tools:
        assert tools.read(primitive="kv", key="open")["stored"] == 1
        assert tools.guide()["spaces"] == ["notes"]
        tools.remember(text="Likes tea")
        assert tools.recall(query="tea")["hits"][0]["ref"].startswith("strata://main/notes/")
        (reason,) = tools.explain(primitive="kv", key="open")["reasons"]
        assert "also_wrote" not in reason and "traces" not in reason
        tools.branch(action="fork", name="try")
        db.branch("try").kv.put("secret", "more")
        tools.write(primitive="kv", key="open", value=2, branch="try")
        assert len(tools.branch(action="diff", old="main", new="try")["changes"]) == 1
        assert len(tools.merge(source="try")["changes"]) == 1 and db.kv.get("secret") == "hunter2"
        outside: list[tuple[str, dict[str, Any]]] = [
            ("read", {"ref": "strata://main/default/kv/secret"}),
            ("write", {"primitive": "kv", "key": "x", "value": 1, "space": "default"}),
            ("merge", {"source": "try", "space": "default"}),
            ("branch", {"action": "delete", "name": "try"}),
            ("history", {}),
        ]
        for name, arguments in outside:
            with pytest.raises(Refused) as refused:
                tools.call(name, arguments)
            assert refused.value.code == "invalid_input", name


def test_an_explanation_ends_where_the_scope_does(db: strata.Database) -> None:
    db.kv.put("base", 1)
    db.branches.fork("main", "mine")
    db.branches.fork("main", "secret")
    db.branch("secret").kv.put("merged", "from the secret branch")
    db.branches.merge("secret", "mine")
    with tools_of(db, Scope(branch="mine")) as tools:
        reasons = tools.explain(primitive="kv", key="merged")["reasons"]
    assert [reason["ref"].split("@")[0] for reason in reasons] == ["strata://mine/default/kv/merged"]


# -- resources, prompts, completion


def text_of(tools: Tools, uri: str) -> dict[str, Any]:
    (content,) = tools.run(tools.client.read_resource, uri).contents
    assert content.mime_type == "application/json"
    found: dict[str, Any] = json.loads(content.text)
    assert found.pop("notice") == NOTICE
    return found


def test_resources_are_listed_and_read(tools: Tools, db: strata.Database) -> None:
    tools.write(primitive="kv", key="a/b#c", value="x", message="why not")
    tools.write(primitive="events", key="log", type="t", value={"n": 1})
    db.space("notes").kv.put("n", 1)
    db.kv.put("gone", 1)
    db.kv.delete("gone")
    db.branches.fork("main", "try")
    listed = tools.run(tools.client.list_resources).resources
    uris = [str(resource.uri) for resource in listed]
    assert uris == [
        "strata+recent://main",
        "strata://main",
        "strata://try",
        "strata://main/default",
        "strata://main/notes",
        "strata://main/notes/kv/n",
        "strata://main/default/events/log/0",
        "strata://main/default/kv/a/b%23c",
    ]
    assert all(text_of(tools, uri) for uri in uris)
    assert text_of(tools, uris[-1])["stored"] == "x"
    assert text_of(tools, "strata://main")["spaces"] == ["default", "notes"]
    assert text_of(tools, "strata://main/notes")["holds"][0]["examples"] == ["n"]
    recent = text_of(tools, "strata+recent://main")["writes"]
    assert [write["ref"] for write in recent] == uris[5:] and recent[-1]["message"] == "why not"
    (template,) = tools.run(tools.client.list_resource_templates).resource_templates
    assert template.uri_template == "strata://{branch}/{space}/{primitive}/{+key}"


def test_a_long_list_of_resources_has_pages(tools: Tools, db: strata.Database) -> None:
    for number in range(120):
        db.branches.create(f"b{number:03}")
    first = tools.run(tools.client.list_resources)
    rest = tools.run(lambda: tools.client.list_resources(cursor=first.next_cursor))
    uris = [str(each.uri) for each in first.resources + rest.resources]
    assert len(uris) == len(set(uris)) == 123 and rest.next_cursor is None


@pytest.mark.parametrize(
    "uri",
    ["strata://main/default/kv/nothing", "strata://nope", "strata://main/nope", "strata://main/default/kv",
     "strata://", "strata:///", "strata+recent://", "file:///etc/passwd", "x", "strata://main/default/nope/k",
     "strata://main/default/kv/a@x", "strata://main/default/kv/%ff", "strata://main/../kv/../../x"],
)  # fmt: skip
def test_what_is_no_resource_is_refused(tools: Tools, uri: str) -> None:
    from mcp.shared.exceptions import MCPError

    with pytest.raises(MCPError) as refused:
        tools.run(tools.client.read_resource, uri)
    assert refused.value.error.code == -32602 and refused.value.error.data["code"]


def test_scopes_hold_for_resources(db: strata.Database) -> None:
    from mcp.shared.exceptions import MCPError

    with db.transaction() as tx:
        tx.kv.put("secret", 1)
        tx.space("notes").kv.put("open", 1)
    db.branches.fork("main", "other")
    with tools_of(db, Scope("main", "notes")) as tools:
        uris = [str(each.uri) for each in tools.run(tools.client.list_resources).resources]
        assert uris == [
            "strata+recent://main", "strata://main", "strata://main/notes", "strata://main/notes/kv/open"
        ]  # fmt: skip
        for uri in ("strata://other", "strata://main/default", "strata://main/default/kv/secret"):
            with pytest.raises(MCPError):
                tools.run(tools.client.read_resource, uri)
        assert text_of(tools, "strata://main")["spaces"] == ["notes"]


def test_prompts(tools: Tools, db: strata.Database) -> None:
    from mcp.shared.exceptions import MCPError

    names = {prompt.name for prompt in tools.run(tools.client.list_prompts).prompts}
    assert names == {"what-do-you-know", "take-notes"}
    got = tools.run(tools.client.get_prompt, "what-do-you-know", {"topic": "{tea} and so on"})
    assert got.messages[0].content.text.endswith("Topic: {tea} and so on")
    for name, arguments in (("nope", {}), ("take-notes", {}), ("take-notes", {"topic": "x"})):
        with pytest.raises(MCPError):
            tools.run(tools.client.get_prompt, name, arguments)
    with tools_of(db, Scope(read_only=True)) as reading:
        assert [each.name for each in reading.run(reading.client.list_prompts).prompts] == [
            "what-do-you-know"
        ]


def test_addresses_are_completed(tools: Tools, db: strata.Database) -> None:
    from mcp_types import ResourceTemplateReference

    db.kv.put_many({"user/name": 1, "user/home": 2, "goal": 3})
    db.branches.fork("main", "mind")
    reference = ResourceTemplateReference(uri="strata://{branch}/{space}/{primitive}/{+key}")

    def completed(name: str, value: str, **known: str) -> list[str]:
        argument = {"name": name, "value": value}
        found = tools.run(lambda: tools.client.complete(reference, argument, known or None))
        values: list[str] = found.completion.values
        return values

    assert completed("branch", "m") == ["main", "mind"]
    assert completed("space", "") == ["default"]
    assert completed("primitive", "k") == ["kv"]
    assert completed("key", "user/", primitive="kv") == ["user/home", "user/name"]
    assert completed("key", "", branch="nope") == [] and completed("other", "") == []
