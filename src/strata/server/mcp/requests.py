"""Requests: what each tool takes. The descriptions are for models; unknown fields are refused."""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal

from msgspec import Meta, Struct

K_MAX: Final = 50
LIMIT_MAX: Final = 200

Primitive = Literal["kv", "json", "state", "events", "traces", "runs", "vectors", "machines"]
Written = Literal["kv", "json", "state", "events", "machines"]
Natural = Annotated[int, Meta(ge=0)]
Strategy = Literal["strict", "source", "target"]

Branch = Annotated[str | None, Meta(description="The branch; left out: the usual one.")]
Space = Annotated[str | None, Meta(description="The space, a namespace; left out: the usual one.")]
When = Annotated[
    int | str | None,
    Meta(
        description="A point in history instead of now: a version, the name of a tag, or a time such as"
        " 2026-01-31T12:00Z."
    ),
]
Ref = Annotated[
    str | None,
    Meta(
        description="The address of one thing, as other tools return it: strata://branch/space/primitive/key,"
        " perhaps with #$.path of a place in a document and @version. Instead of primitive and key."
    ),
]
Kind = Annotated[Primitive | None, Meta(description="What kind of thing `key` names.")]
Key = Annotated[
    str | None,
    Meta(
        description="The key, document or cell; of events the stream, or stream/sequence for one of them;"
        " of vectors collection/key; of machines the instance, or _machine/name/version for a definition."
    ),
]
Message = Annotated[str | None, Meta(description="Why, in a few words; kept in the history.")]
Once = Annotated[
    str | None,
    Meta(description="Any text of your own: the same call again with it changes nothing. Use it to retry."),
]


class Request(Struct, kw_only=True, forbid_unknown_fields=True):
    """What a tool takes."""


class Remember(Request):
    """What `remember` takes."""

    text: Annotated[str, Meta(description="What to remember: one fact, whole without its context.")]
    key: Annotated[
        str | None,
        Meta(
            description="A name of your own, such as user/name. A memory with this key is replaced (its"
            " history stays). Left out: a memory with the very same text is kept once."
        ),
    ] = None
    tags: Annotated[list[str] | None, Meta(description="Labels to recall it by.")] = None
    metadata: Annotated[
        dict[str, Any] | None, Meta(description='More about it, such as {"project": "x", "sure": 0.9}.')
    ] = None
    vector: Annotated[
        list[float] | None,
        Meta(description="Its embedding, if you have one; all memories need the same length."),
    ] = None
    expires_in_s: Annotated[
        float | None, Meta(description="Forget it by itself after so many seconds; left out: keep it.")
    ] = None
    idempotency_key: Once = None
    branch: Branch = None
    space: Space = None


class Recall(Request):
    """What `recall` takes."""

    query: Annotated[
        str | None,
        Meta(
            description='Words to look for, best with the words that the memory has. Also "a phrase", +must,'
            " -not, prefix*."
        ),
    ] = None
    vector: Annotated[
        list[float] | None, Meta(description="An embedding to look near, beside or instead of the query.")
    ] = None
    k: Annotated[int, Meta(description="How many at most.", ge=1, le=K_MAX)] = 8
    offset: Annotated[int, Meta(description="How many of the best to leave out: the next page.", ge=0)] = 0
    tags: Annotated[list[str] | None, Meta(description="Only memories with all of these.")] = None
    where: Annotated[
        dict[str, Any] | None,
        Meta(
            description='A filter by path, such as {"$.metadata.project": "x"} or {"$.metadata.sure": {"gte":'
            " 0.5}}; operators eq ne gt gte lt lte in contains exists, and/or/not."
        ),
    ] = None
    since: Annotated[str | None, Meta(description="Only what was written at this time or later.")] = None
    until: Annotated[str | None, Meta(description="Only what was written before this time.")] = None
    at: When = None
    everything: Annotated[
        bool, Meta(description="Also read through what has no index. Slow where there is much.")
    ] = False
    why: Annotated[bool, Meta(description="Also say what each word gave, and what was nearly found.")] = False
    branch: Branch = None
    space: Space = None


class Read(Request):
    """What `read` takes."""

    ref: Ref = None
    primitive: Kind = None
    key: Key = None
    path: Annotated[str | None, Meta(description="A place in a json document, such as $.name.")] = None
    at: When = None
    offset: Annotated[
        int, Meta(description="Go on here in a long value: `next_offset` of the answer before.", ge=0)
    ] = 0
    branch: Branch = None
    space: Space = None


class Write(Request):
    """What `write` takes."""

    primitive: Annotated[
        Written,
        Meta(
            description="kv: any value under a key. json: a document, changed by path. state: a cell that"
            " counts its changes. events: an append-only stream, never changed. machines: an instance of a"
            " state machine, changed by events only."
        ),
    ]
    key: Annotated[
        str, Meta(description="The key, document or cell; of events the stream; of machines the instance.")
    ]
    value: Annotated[
        Any,
        Meta(
            description="What to store: any JSON. Of events a map. Of machines what is merged into the"
            " context, a map. Left out only to delete."
        ),
    ] = None
    action: Annotated[
        Literal["set", "delete", "create", "apply"],
        Meta(
            description="delete takes it away; its history stays. machines: create makes an instance, apply"
            " lets an event happen to it, if its state and guards allow that."
        ),
    ] = "set"
    path: Annotated[
        str | None, Meta(description="json: the place in the document, such as $.name; left out: all of it.")
    ] = None
    type: Annotated[
        str | None,
        Meta(
            description="events: what kind of event it is. machines: the machine to create of, or the event."
        ),
    ] = None
    expected_version: Annotated[
        Natural | None,
        Meta(description="Only if it was last written at this version; 0: only if it is not there."),
    ] = None
    message: Message = None
    idempotency_key: Once = None
    branch: Branch = None
    space: Space = None


class History(Request):
    """What `history` takes."""

    ref: Ref = None
    primitive: Kind = None
    key: Key = None
    before: Annotated[
        Natural | None, Meta(description="Only before this version: `next_before` of the answer before.")
    ] = None
    limit: Annotated[int, Meta(description="How many at most.", ge=1, le=LIMIT_MAX)] = 20
    branch: Branch = None
    space: Space = None


class Differing(Request):
    """What a comparison takes."""

    old: Annotated[
        int | str | None, Meta(description="diff: a branch, or a version of `branch`: what was.")
    ] = None
    new: Annotated[
        int | str | None, Meta(description="diff: a branch or version likewise; left out: `branch` as it is.")
    ] = None
    primitive: Annotated[Primitive | None, Meta(description="diff: only this kind of thing.")] = None
    prefix: Annotated[str | None, Meta(description="diff: only keys that begin so.")] = None
    limit: Annotated[int, Meta(description="How many at most.", ge=1, le=LIMIT_MAX)] = 50
    branch: Branch = None
    space: Annotated[str | None, Meta(description="diff: only this space.")] = None


class BranchLook(Differing, kw_only=True):
    """What `branch` takes of a host that may make none."""

    action: Annotated[
        Literal["list", "diff"],
        Meta(description="list: which there are. diff: what differs between `old` and `new`."),
    ]


class BranchChange(Differing, kw_only=True):
    """What `branch` takes."""

    action: Annotated[
        Literal["list", "fork", "diff", "delete"],
        Meta(
            description="list: which there are. fork: make `name`, which begins as `branch` is and copies"
            " nothing. diff: what differs between `old` and `new`. delete: take `name` away."
        ),
    ]
    name: Annotated[str | None, Meta(description="fork, delete: the branch to make or to delete.")] = None
    at: When = None


class Merge(Request):
    """What `merge` takes."""

    source: Annotated[str, Meta(description="The branch whose changes are brought.")]
    target: Annotated[
        str | None, Meta(description="The branch that takes them; left out: the usual one.")
    ] = None
    strategy: Annotated[
        Strategy,
        Meta(
            description="What wins where both changed the same thing: strict refuses and names the conflicts,"
            " source, target."
        ),
    ] = "strict"
    preview: Annotated[bool, Meta(description="Only say what would change. Do this first.")] = False
    primitive: Annotated[Primitive | None, Meta(description="Only this kind of thing.")] = None
    prefix: Annotated[str | None, Meta(description="Only keys that begin so.")] = None
    message: Message = None
    limit: Annotated[int, Meta(description="How many changes to list at most.", ge=1, le=LIMIT_MAX)] = 50
    space: Annotated[str | None, Meta(description="Only this space.")] = None


class Explain(Request):
    """What `explain` takes."""

    ref: Ref = None
    primitive: Kind = None
    key: Key = None
    depth: Annotated[int, Meta(description="How many commits deep.", ge=0, le=10)] = 3
    branch: Branch = None
    space: Space = None


class Guide(Request):
    """What `guide` takes."""

    branch: Branch = None
    space: Space = None
