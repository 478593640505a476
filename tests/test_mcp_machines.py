"""State machines through the tools of `strata mcp`: what they allow happens, what they refuse is told why."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

pytest.importorskip("mcp")

from mcp_client import Refused, Tools, tools_of

import strata

TICKET = {
    "states": ["open", "waiting", "closed"],
    "initial": "open",
    "transitions": [
        {"from": "open", "event": "ASK", "to": "waiting"},
        {"from": ["open", "waiting"], "event": "CLOSE", "to": "closed", "guard": "ctx.answer"},
    ],
}


@pytest.fixture
def db() -> Iterator[strata.Database]:
    with strata.open() as opened:
        yield opened


@pytest.fixture
def tools(db: strata.Database) -> Iterator[Tools]:
    with tools_of(db) as connected:
        yield connected


def write(tools: Tools, key: str, action: str, **more: object) -> dict:
    return tools.write(primitive="machines", key=key, action=action, **more)


def test_an_instance_goes_its_way(tools: Tools, db: strata.Database) -> None:
    made = write(tools, "_machine/ticket/1", "set", value=TICKET)
    assert tools.read(ref=made["ref"])["stored"]["definition"]["initial"] == "open"
    write(tools, "t-1", "create", type="ticket", value={"about": "tea"})
    shown = tools.read(primitive="machines", key="t-1")
    assert shown["stored"]["state"] == "open" and shown["takes"] == ["ASK", "CLOSE"]
    write(tools, "t-1", "apply", type="ASK", value={"asked": "Ada"}, message="she knows")
    instance = db.machines.get("t-1")
    assert instance is not None
    assert (instance.state, instance.context) == ("waiting", {"about": "tea", "asked": "Ada"})
    then, first = tools.history(primitive="machines", key="t-1")["versions"]
    assert then["message"] == "she knows" and first["stored"]["state"] == "open"
    assert then["stored"]["transitions"] == [{"event": "ASK", "from": "open", "to": "waiting"}]
    assert tools.read(primitive="machines", key="t-1", at=first["version"])["stored"]["state"] == "open"
    assert tools.explain(primitive="machines", key="t-1")["reasons"][0]["found"]
    assert {"machines": ["t-1"]}.items() <= {
        row["primitive"]: row["examples"] for row in tools.guide()["holds"]
    }.items()
    write(tools, "t-1", "delete")
    assert not tools.read(primitive="machines", key="t-1")["found"]
    assert tools.history(primitive="machines", key="t-1")["versions"][0]["deleted"]


def test_what_the_machine_does_not_allow_is_told(tools: Tools) -> None:
    write(tools, "_machine/ticket/1", "set", value=TICKET)
    made = write(tools, "t-1", "create", type="ticket")
    for code, more in (
        ("guard_failed", {"type": "CLOSE"}),
        ("invalid_transition", {"type": "REOPEN"}),
        ("unexpected_state", {"type": "ASK", "expected_version": made["version"] - 1}),
        ("invalid_input", {"type": "ASK", "value": [1]}),
    ):
        with pytest.raises(Refused) as refused:
            write(tools, "t-1", "apply", **more)
        assert refused.value.code == code
    assert tools.read(primitive="machines", key="t-1")["version"] == made["version"]
    assert write(tools, "t-1", "apply", type="ASK", expected_version=made["version"])["changed"]


@pytest.mark.parametrize(
    ("key", "action", "more"),
    [
        ("t-1", "set", {"value": {}}),
        ("t-1", "create", {}),
        ("t-1", "apply", {}),
        ("t-1", "delete", {"type": "ticket"}),
        ("t-1", "create", {"type": "ticket", "expected_version": 0}),
        ("_machine/ticket/2", "apply", {"type": "ASK"}),
        ("_machine/ticket", "set", {"value": TICKET}),
        ("_machine/ticket/2", "set", {"value": {"states": []}}),
        ("_machine/ticket/1", "set", {"value": {**TICKET, "initial": "closed"}}),
    ],
)
def test_what_does_not_go_together_is_refused(tools: Tools, key: str, action: str, more: dict) -> None:
    write(tools, "_machine/ticket/1", "set", value=TICKET)
    with pytest.raises(Refused) as refused:
        write(tools, key, action, **more)
    assert refused.value.code in ("invalid_input", "already_exists")


def test_the_actions_of_machines_are_for_machines(tools: Tools) -> None:
    for action in ("create", "apply"):
        with pytest.raises(Refused):
            tools.write(primitive="kv", key="a", action=action, value=1)
    with pytest.raises(Refused):
        tools.history(primitive="machines", key="_machine/ticket/1")
