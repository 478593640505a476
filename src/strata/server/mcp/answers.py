"""Answers: what tools return. What comes from the database stands in `stored`, `old`, `new`, `snippet`, in
keys and names, and nowhere else; `host` puts the notice in front that this is data.

Fields that have nothing to say are left out.
"""

from __future__ import annotations

from typing import Any, Literal

from msgspec import Struct

from strata.server.mcp.requests import Primitive


class Answer(Struct, kw_only=True, omit_defaults=True):
    """What a tool returns."""


class Remembered(Answer):
    """The memory that is there now."""

    ref: str
    key: str
    version: int
    outcome: Literal["created", "replaced", "unchanged"]
    indexed: bool = True


class Term(Answer):
    """What a word gave to the score of a hit."""

    text: str
    contribution: float
    documents: int  # that have it


class Why(Answer):
    """What one index or rule gave to the score of a hit."""

    index: str
    score: float
    rank: int | None = None
    terms: list[Term] = []


class Hit(Answer):
    """One thing that was found."""

    ref: str
    key: str
    score: float
    rank: int
    snippet: str  # with ** around what was asked for
    stored: Any
    time: str | None = None  # when it was written
    truncated: bool = False  # `read` has all of it
    why: list[Why] = []


class NearMiss(Answer):
    """What would have been a hit, but for a little."""

    ref: str
    score: float
    reason: str


class Recalled(Answer):
    """What was found, best first."""

    hits: list[Hit]
    version: int  # of the state that was searched
    near_misses: list[NearMiss] = []
    hint: str | None = None
    truncated: bool = False


class Part(Answer):
    """A piece of the JSON text of a value that is too long for one answer."""

    text: str
    offset: int
    total_chars: int
    next_offset: int | None = None


class Thing(Answer):
    """One thing as it is, or was."""

    ref: str
    found: bool
    stored: Any = None
    version: int | None = None  # of the commit that wrote it
    time: str | None = None
    expires: str | None = None
    counter: int | None = None  # of a cell: how often it changed
    events: list[Any] = []  # the newest of a stream, oldest first
    takes: list[str] = []  # of an instance of a machine: the events that its state knows
    part: Part | None = None
    truncated: bool = False


class Wrote(Answer):
    """What a write made."""

    ref: str
    version: int
    changed: bool  # no: it was so already, or this idempotency key was used before


class Entry(Answer):
    """One version of a thing."""

    version: int
    time: str | None = None
    stored: Any = None
    deleted: bool = False
    actor: str | None = None
    message: str | None = None
    truncated: bool = False


class Commit(Answer):
    """One commit, and some of what it wrote."""

    version: int
    branch: str
    time: str
    actor: str | None = None
    message: str | None = None
    cause: str | None = None


class Past(Answer):
    """Versions of a thing, or commits of a branch; newest first."""

    ref: str | None = None
    versions: list[Entry] = []
    commits: list[Commit] = []
    next_before: int | None = None
    truncated: bool = False


class BranchLine(Answer):
    """What is known of a branch."""

    name: str
    head: int
    parent: str | None = None
    fork_version: int | None = None
    protected: str | None = None  # why it takes no writes


class Difference(Answer):
    """One thing, or one place in a document, that differs."""

    what: Literal["added", "removed", "changed"]
    ref: str
    old: Any = None
    new: Any = None


class Branched(Answer):
    """Branches, or what differs between two states."""

    branches: list[BranchLine] = []
    changes: list[Difference] = []
    version: int | None = None  # of the commit that made or deleted a branch
    truncated: bool = False


class Conflict(Answer):
    """What both branches changed, each in its own way. A side that is left out has nothing there."""

    ref: str
    base: Any = None
    source: Any = None
    target: Any = None


class Merged(Answer):
    """What a merge changed, or would change."""

    preview: bool
    changes: list[Difference]
    conflicts: list[Conflict]
    version: int | None = None
    truncated: bool = False


class Reason(Answer):
    """One thing of an explanation, `level` steps behind the question."""

    level: int
    role: str  # what it is to the one above: read by it, its cause, merged into it, what was there before
    found: str
    ref: str | None = None
    stored: Any = None
    label: str | None = None
    action: str | None = None
    version: int | None = None
    time: str | None = None
    actor: str | None = None
    message: str | None = None
    also_wrote: list[str] = []
    traces: list[str] = []
    events: list[str] = []
    unknown: list[str] = []  # what cannot be said, and why


class Explained(Answer):
    """Why something is what it is: each line is followed by what is behind it."""

    reasons: list[Reason]
    truncated: bool = False


class Holding(Answer):
    """How much of one primitive there is."""

    primitive: Primitive
    count: int
    examples: list[str] = []


class IndexLine(Answer):
    """What can be searched."""

    name: str
    primitive: str
    kind: str
    space: str
    prefix: str | None = None


class Guided(Answer):
    """How to use this memory, and what is in it."""

    advice: list[str]
    branch: str
    space: str
    version: int
    read_only: bool
    branches: list[str]
    spaces: list[str]
    holds: list[Holding]
    indexes: list[IndexLine]
    tags: list[str] = []  # of memories, of the newest of them
    truncated: bool = False
