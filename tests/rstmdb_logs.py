"""Logs and backups as rstmdb writes them, and as nobody should."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import struct
import tarfile
from datetime import UTC, datetime

from hypothesis import strategies as st

from strata.api.rstmdb import Record, write_segments
from strata.core.crc32c import crc32c

NOW = datetime(2026, 11, 30, 12, 0, tzinfo=UTC)
WHEN = {"created": NOW, "writer": "0.3.0"}
ORDER = {
    "states": ["created", "paid", "shipped"],
    "initial": "created",
    "transitions": [
        {"from": "created", "event": "PAY", "to": "paid"},
        {"from": "paid", "event": "SHIP", "to": "shipped", "guard": "ctx.total > 0"},
        {"from": ["created", "paid"], "event": "NOTE", "to": "created"},
    ],
}
PUT = {
    "type": "put_machine",
    "machine": "order",
    "version": 1,
    "definition_hash": "00000000",
    "definition": ORDER,
}

texts = st.text(st.characters(exclude_categories=("Cs",)), max_size=8)
values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False,
    allow_infinity=False) | texts | st.just("WLOG\x01"),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=5,
)  # fmt: skip
maps = st.dictionaries(texts, values, max_size=3)
entries = st.one_of(
    st.builds(
        lambda name, meta: {**PUT, "machine": name, "definition": {**ORDER, "meta": meta}}, texts, maps
    ),
    st.builds(lambda id, context: create(id, initial_ctx=context), texts, maps),
    st.builds(lambda id, payload, ctx: apply(id, payload=payload, ctx=ctx), texts, maps, maps),
    st.builds(lambda id: {"type": "delete_instance", "instance_id": id}, texts),
    st.builds(lambda time: {"type": "checkpoint", "timestamp": time}, st.integers(0, 2**40)),
    st.just({"type": "noop"}),
)


def create(id, **more):
    fields = {"instance_id": id, "machine": "order", "version": 1, "initial_state": "created"}
    return {"type": "create_instance", **fields, "initial_ctx": {}} | more


def apply(id, event="PAY", from_="created", to="paid", **more):
    fields = {"instance_id": id, "event": event, "from_state": from_, "to_state": to}
    return {"type": "apply_event", **fields, "payload": None, "ctx": {}} | more


def records(entries):
    return [Record(0, number, entry) for number, entry in enumerate(entries, 1)]


def raw(entry, sequence=1, kind=None, payload=None, magic=b"WLOG"):
    """A record, made without the code that is tested."""
    kinds = {"put_machine": 1, "create_instance": 2, "apply_event": 3, "delete_instance": 4, "noop": 255}
    text = json.dumps(entry).encode() if payload is None else payload
    kind = kinds[entry["type"]] if kind is None else kind
    return struct.pack(">4sBBHIIQ", magic, kind, 0, 0, len(text), crc32c(text), sequence) + text


def archive(files, *, compression=1, manifest=None, members=None, tail=b""):
    """A backup of files, by name; `members` are what is in it, where that is something else."""
    listed = [
        {"path": name, "size": len(content), "sha256": hashlib.sha256(content).hexdigest()}
        for name, content in files.items()
    ]
    said = {
        "format_version": 1,
        "kind": "physical",
        "rstmdb_version": "0.3.0",
        "created_at": "2026-11-30T12:00:00Z",
        "compression": "gzip",
        "wal_head_offset": 0,
        "wal_head_sequence": 0,
        "segment_count": 0,
        "snapshot_count": 0,
        "payload_sha256": hashlib.sha256("".join(file["sha256"] for file in listed).encode()).hexdigest(),
        "files": listed,
    } | (manifest or {})
    packed = io.BytesIO()
    with tarfile.TarFile(fileobj=packed, mode="w", format=tarfile.GNU_FORMAT) as tar:
        contents = files if members is None else members
        for name, content in [("manifest.json", json.dumps(said).encode()), *contents.items()]:
            member = content if isinstance(content, tarfile.TarInfo) else tarfile.TarInfo(name)
            member.size = member.size or (len(content) if isinstance(content, bytes) else 0)
            tar.addfile(member, io.BytesIO(content if isinstance(content, bytes) else b"\0" * member.size))
    body = packed.getvalue() + tail
    return b"RSTMBAK\x01" + bytes([compression]) + (gzip.compress(body, mtime=0) if compression else body)


def directory(tmp_path, *entries, name="data", **options):
    path = tmp_path / name
    write_segments(records(entries), path, **options)
    return path


def seen(db):
    """All that can be seen of machines and instances, but for when it was."""
    machines = db.machines
    return {
        "definitions": [
            (made.name, version, machines.machine(made.name, version).definition)
            for made in machines.definitions()
            for version in made.versions
        ],
        "instances": {
            found.id: (found.machine, found.machine_version, found.state, found.context, found.steps,
                       found.event_id)
            for found in machines
        },
        "listed": {
            (made.name, state): [found.id for found in machines.list(made.name, state)]
            for made in machines.definitions()
            for state in machines.machine(made.name).states
        },
        "history": {id: history(machines, id) for id in "abc"},
    }  # fmt: skip


def history(machines, id):
    return [
        (step.event, step.from_state, step.to_state, step.context, step.payload, step.event_id)
        for step in machines.history(id)
    ]


contexts = st.dictionaries(
    st.sampled_from(["total", "n", "who"]), st.integers(0, 3) | st.none() | st.just([1, {}])
)
calls = st.tuples(
    st.sampled_from("abc"),
    st.sampled_from(["create", "delete", "PAY", "SHIP", "NOTE", "PAY", "NOTE"]),
    st.none() | contexts,
    st.sampled_from([None, "e1", "e2"]),
)
