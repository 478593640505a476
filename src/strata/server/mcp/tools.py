"""The tools: what each is called, takes, returns and is good for, and which a scope leaves."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any, Final

import msgspec

from strata.api.operations import Access
from strata.api.requests import converted
from strata.server.mcp import answers, branching, entities, guidance, memory, requests
from strata.server.mcp.scope import Door, Scope
from strata.server.mcp.shown import NOTICE

Schema = dict[str, Any]
Run = Callable[[Door, Any, str | None], answers.Answer]


@dataclass(frozen=True, slots=True)
class Tool:
    """One tool. `run` takes the door, the request and who calls."""

    name: str
    title: str
    description: str
    request: type[requests.Request]
    answer: type[answers.Answer]
    run: Run
    writes: bool = False
    destroys: bool = False  # may take away or replace; its history stays in any case
    idempotent: bool = True
    stored: bool = True  # whether what it returns may hold what is stored

    def call(self, door: Door, arguments: dict[str, Any], actor: str | None) -> Schema:
        """Run it, and return its answer as JSON.

        Raises: InvalidInput, naming the field, for an unknown or wrong argument; what the tool raises.
        """
        request = converted(arguments, self.request, self.name)
        found: Schema = msgspec.to_builtins(self.run(door, request, actor))
        return {"notice": NOTICE, **found} if self.stored else found

    def input_schema(self, scope: Scope) -> Schema:
        """Return the JSON Schema of its arguments, without those that a scope has settled."""
        schema = schema_of(self.request)
        settled = [name for name in ("branch", "space") if getattr(scope, name) is not None]
        fields = {name: field for name, field in schema["properties"].items() if name not in settled}
        return {**schema, "properties": fields}

    def output_schema(self) -> Schema:
        """Return the JSON Schema of its answers."""
        schema = schema_of(self.answer)
        if not self.stored:
            return schema
        notice = {"const": NOTICE, "description": "What the rest of this is."}
        required = ["notice", *schema.get("required", [])]
        return {**schema, "properties": {"notice": notice, **schema["properties"]}, "required": required}


@cache
def schema_of(kind: type[msgspec.Struct]) -> Schema:
    """Return the JSON Schema of a Struct, an object at its root."""
    (root,), definitions = msgspec.json.schema_components([kind], ref_template="#/$defs/{name}")
    name = root["$ref"].rpartition("/")[2]
    found: Schema = dict(definitions.pop(name))
    found.pop("title", None)
    found.pop("description", None)
    return {**found, "$defs": definitions} if definitions else found


_READING: Final = (
    Tool(
        "recall", "Recall",
        "Find what was remembered, best first: by words, by an embedding, or both; with filters, and also as"
        " it was at an earlier time. Do this before answering what may depend on earlier conversations. Finds"
        " memories and whatever else has an index.",
        requests.Recall, answers.Recalled, memory.recall,
    ),
    Tool(
        "read", "Read",
        "Get one thing whole, by its ref or by primitive and key: a value, a document or a place in it, a"
        " cell, an event or the newest of a stream, a trace, a run, a vector. Also as it was (`at`).",
        requests.Read, answers.Thing, entities.read,
    ),
    Tool(
        "history", "History",
        "List the versions of one thing, newest first, with who wrote them and why. Without a thing: the"
        " commits of the branch.",
        requests.History, answers.Past, entities.history,
    ),
    Tool(
        "explain", "Explain",
        "Say why one thing is what it is: the commit that wrote it, who, when and why, what that had read,"
        " and so on backwards.",
        requests.Explain, answers.Explained, guidance.explain,
    ),
    Tool(
        "guide", "Guide",
        "How to use this memory well, and what is in it: branches, spaces, how much of what, tags, indexes."
        " Call it once at the start.",
        requests.Guide, answers.Guided, guidance.guide,
    ),
)  # fmt: skip
_LOOK: Final = Tool(
    "branch", "Branches",
    "List the branches (lines of history that do not see each other), or say what differs between two, or"
    " between two versions.",
    requests.BranchLook, answers.Branched, branching.branch,
)  # fmt: skip
_WRITING: Final = (
    Tool(
        "remember", "Remember",
        "Keep a fact for later conversations. It can be recalled at once. The same text is kept once; with a"
        " key, the memory of this key is replaced.",
        requests.Remember, answers.Remembered, memory.remember, writes=True, destroys=True, stored=False,
    ),
    Tool(
        "write", "Write",
        "Store something with a structure: a value, a place in a document, a counted cell, an event. For"
        " facts in plain words use remember.",
        requests.Write, answers.Wrote, entities.write, writes=True, destroys=True, idempotent=False,
        stored=False,
    ),
    Tool(
        "branch", "Branches",
        "Try something without touching what is: fork a branch, write to it, compare (diff), then merge or"
        " delete it. Also lists the branches.",
        requests.BranchChange, answers.Branched, branching.branch, writes=True, destroys=True,
        idempotent=False,
    ),
    Tool(
        "merge", "Merge",
        "Bring what changed on a branch into another, as one commit. Call it with preview first; strict"
        " refuses where both changed the same, and names it.",
        requests.Merge, answers.Merged, branching.merge, writes=True, destroys=True,
    ),
)  # fmt: skip


def tools(scope: Scope, access: Access = "admin") -> dict[str, Tool]:
    """Return the tools that a scope and an access leave, by name.

    With one branch none needs a second one. Branches are made and deleted by admins, as in the catalogue.
    """
    found = {tool.name: tool for tool in (*_READING, _LOOK)}
    if scope.read_only or access == "read":
        return found
    is_pinned = scope.branch is not None
    without = {"branch"} if is_pinned or access != "admin" else set()
    without |= {"merge"} if is_pinned else set()
    return found | {tool.name: tool for tool in _WRITING if tool.name not in without}
