"""Memories against a model of them: what was remembered, and not taken back, is recalled, then and now."""

from __future__ import annotations

from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

import strata
from strata.server.mcp.scope import Door, Scope
from strata.server.mcp.tools import tools

WORDS = ["apple", "river", "stone", "cloud"]
TEXTS = st.lists(st.sampled_from(WORDS), min_size=1, max_size=3, unique=True).map(" ".join)
TAGS = st.lists(st.sampled_from(["x", "y"]), max_size=2, unique=True)
KEYS = st.sampled_from(["a", "b", "c/d"])
Memories = dict[str, dict[str, Any]]  # by key: text and tags


class Remembering(RuleBasedStateMachine):
    """One branch forked off another at times; each is what was remembered on it, at every version."""

    def __init__(self) -> None:
        super().__init__()
        self.db = strata.open()
        self.door, self.tools = Door(self.db, Scope()), tools(Scope())
        self.now: dict[str, Memories] = {"main": {}}
        self.then: list[tuple[str, int, Memories]] = []  # a branch at a version
        self.retries: dict[str, tuple[str, dict[str, Any]]] = {}  # by idempotency key: branch, answer

    def teardown(self) -> None:
        self.db.close()

    def call(self, name: str, /, **arguments: Any) -> dict[str, Any]:
        return self.tools[name].call(self.door, arguments, "test")

    def noted(self, branch: str) -> None:
        self.then.append((branch, self.db.branch(branch).version, dict(self.now[branch])))

    @rule(data=st.data(), text=TEXTS, tags=TAGS, key=st.none() | KEYS)
    def remember(self, data: st.DataObject, text: str, tags: list[str], key: str | None) -> None:
        branch = data.draw(st.sampled_from(sorted(self.now)))
        arguments = {"text": text, "tags": tags, "branch": branch, **({} if key is None else {"key": key})}
        made = self.call("remember", **arguments)
        old = self.now[branch].get(made["key"])
        if key is None and old is not None:
            assert old["text"] == text
            tags = list(dict.fromkeys([*old["tags"], *tags]))
        new = {"text": text, "tags": tags}
        assert made["outcome"] == ("created" if old is None else "unchanged" if old == new else "replaced")
        self.now[branch][made["key"]] = new
        self.noted(branch)

    @rule(data=st.data(), text=TEXTS, once=st.sampled_from(["1", "2"]))
    def retry(self, data: st.DataObject, text: str, once: str) -> None:
        branch = (
            self.retries[once][0] if once in self.retries else data.draw(st.sampled_from(sorted(self.now)))
        )
        made = self.call("remember", text=text, idempotency_key=once, branch=branch)
        if once in self.retries:
            assert made == {**self.retries[once][1], "outcome": "unchanged"}
            return
        self.retries[once] = (branch, made)
        self.now[branch][made["key"]] = {"text": text, "tags": []}
        self.noted(branch)

    @precondition(lambda self: any(self.now.values()))
    @rule(data=st.data())
    def take_back(self, data: st.DataObject) -> None:
        branch = data.draw(st.sampled_from(sorted(name for name, held in self.now.items() if held)))
        key = data.draw(st.sampled_from(sorted(self.now[branch])))
        self.call("write", primitive="json", key=key, action="delete", branch=branch)
        del self.now[branch][key]
        self.noted(branch)

    @precondition(lambda self: len(self.now) < 3)
    @rule(data=st.data())
    def fork(self, data: st.DataObject) -> None:
        source, name = data.draw(st.sampled_from(sorted(self.now))), f"fork-{len(self.now)}"
        self.call("branch", action="fork", branch=source, name=name)
        self.now[name] = dict(self.now[source])

    @rule(data=st.data(), word=st.sampled_from(WORDS), tag=st.none() | st.sampled_from(["x", "y"]))
    def recall(self, data: st.DataObject, word: str, tag: str | None) -> None:
        places: list[tuple[str, int | None, Memories]] = [
            (name, None, held) for name, held in self.now.items()
        ]
        branch, version, held = data.draw(st.sampled_from([*places, *self.then]))
        limits: dict[str, Any] = {} if version is None else {"at": version}
        limits |= {} if tag is None else {"tags": [tag]}
        found = self.call("recall", query=word, k=50, branch=branch, **limits)["hits"]
        expected = {
            key: memory
            for key, memory in held.items()
            if word in memory["text"].split() and (tag is None or tag in memory["tags"])
        }
        assert {hit["key"]: {"tags": [], **hit["stored"]} for hit in found} == expected

    @invariant()
    def every_memory_is_there_once(self) -> None:
        for branch, held in self.now.items():
            assert self.db.branch(branch).json.count("memory/") == len(held)


TestRemembering = Remembering.TestCase
TestRemembering.settings = settings(max_examples=30, stateful_step_count=25, deadline=None)
