"""Params: what each operation takes. What is optional may also be null, and what is not known is ignored."""

from __future__ import annotations

from typing import Annotated, Any

from msgspec import Meta, Raw, Struct

Map = dict[str, Any]
Count = Annotated[int, Meta(ge=0)]
Number = Annotated[int, Meta(ge=1, le=2**32 - 1)]


class Nothing(Struct):
    """No params."""


class Hello(Struct):
    protocol_version: int
    client_name: str | None = None
    wire_modes: list[str] | None = None
    wire_mode: str | None = None  # as clients for Java and .NET say it
    features: list[str] | None = None


class Auth(Struct):
    token: str
    method: str | None = None


class PutMachine(Struct):
    machine: str
    version: Number
    definition: Map
    checksum: str | None = None


class GetMachine(Struct):
    machine: str
    version: Number | None = None  # the newest


class CreateInstance(Struct):
    machine: str
    version: Number
    instance_id: str | None = None
    initial_ctx: Map | None = None
    idempotency_key: str | None = None


class InstanceId(Struct):
    instance_id: str


class ListInstances(Struct):
    machine: str | None = None
    state: str | None = None
    limit: Count | None = None
    offset: Count | None = None


class DeleteInstance(Struct):
    instance_id: str
    idempotency_key: str | None = None


class ApplyEvent(Struct):
    instance_id: str
    event: str
    payload: Map | None = None
    expected_state: str | None = None
    expected_wal_offset: Count | None = None
    event_id: str | None = None
    idempotency_key: str | None = None


class BatchItem(Struct):
    op: str
    params: Raw = Raw(b"null")


class Batch(Struct):
    mode: str | None = None
    ops: list[Raw] | None = None
    operations: list[Raw] | None = None


class WatchInstance(Struct):
    instance_id: str
    include_ctx: bool | None = None
    from_offset: Count | None = None


class WatchAll(Struct):
    include_ctx: bool | None = None
    from_offset: Count | None = None
    machines: list[str] | None = None
    from_states: list[str] | None = None
    to_states: list[str] | None = None
    events: list[str] | None = None


class Unwatch(Struct):
    subscription_id: str


class WalRead(Struct):
    from_offset: Count | None = None
    limit: Count | None = None
    fromOffset: str | None = None  # as the client for JavaScript says it


class Compact(Struct):
    force_snapshot: bool | None = None


class BackupBegin(Struct):
    compression: str | None = None


class BackupChunk(Struct):
    backup_id: str
    offset: Count
    len: Count | None = None


class BackupEnd(Struct):
    backup_id: str
