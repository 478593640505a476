"""Bundles and backups: what a database holds, as one file or a second directory, and a database again."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from strata.api.encryption import Keys, OneKey, id_in, key_bytes, with_keys
from strata.api.instants import Instant
from strata.core.clock import to_datetime, to_micros
from strata.core.errors import InvalidInput
from strata.core.keys import check_int, check_name
from strata.core.protocols import Store

AnyPath = str | os.PathLike[str]


@dataclass(frozen=True, slots=True)
class BundleInfo:
    """What a bundle holds."""

    history: bool
    """All versions with their commits, or only the newest."""
    branches: tuple[str, ...]
    rows: int
    bytes: int
    """The length of the file."""
    sha256: str
    """Of all but the last 32 bytes, which say it, too. Without history: the same for the same content."""
    key_id: str | None
    """Of the key that it is encrypted with; None when it is not."""


@dataclass(frozen=True, slots=True)
class BackupInfo:
    """What a backup holds, and what it took."""

    version: int
    """Everything up to this version is in it."""
    timestamp: datetime | None
    """When `version` was committed; None before the first commit."""
    runs: int
    bytes: int
    """Of the runs."""
    new_runs: int
    """Those that an earlier backup had not left there."""
    linked_runs: int
    """Of the new ones, those that are the same file as the database's: they took no space."""
    copied_bytes: int
    removed_runs: int


@dataclass(frozen=True, slots=True)
class RestoreInfo:
    """What was restored."""

    version: int
    timestamp: datetime | None
    branches: tuple[str, ...]
    rows: int


def backup(store: Store, to: AnyPath, progress: Callable[[int, int], object] | None) -> BackupInfo:
    """Make a directory a backup of what is committed."""
    made = store.backup(check_path(to), progress)
    return BackupInfo(timestamp=_instant(made.pop("time")), **made)


def restore(
    backup: AnyPath, path: AnyPath, *, at: Instant | None = None, key: Keys | None = None
) -> RestoreInfo:
    """Make the database `path` of the one in directory `backup`, as it is or as it was `at` some point.

    `backup` may be a backup, or any database that nobody has open to write; it is only read. The new one has
    an id of its own, and `path` appears when all is there. Branches are called as they are now; those that
    are younger than `at` are gone, and so is what was written later.

    Args:
        at: a version, an aware datetime or ISO 8601 text. Left out: the newest.
        key: of a `backup` that is encrypted, in any form that `strata.open` takes; the new database is
            encrypted with it, too. Of a sequence the first encrypts, and all of them open.
    Raises: AlreadyExists when there is something at `path`; NotFound when there is nothing in `backup`;
        Locked when it is open elsewhere; Corrupt when it is damaged; HistoryTrimmed when `at` is not kept;
        NeedsKey when it is encrypted with another key.
    Cost: reads all rows and writes those that are kept, in little memory.
    """
    from strata.store import restore

    version = check_int(at, "version") if type(at) is int else None
    time = to_micros(at) if at is not None and version is None else None
    source, target = check_path(backup), check_path(path)

    def attempt(keys: list[bytes]) -> dict[str, Any]:
        return restore(source, target, version, time, keys)

    made = with_keys(key, attempt, first=lambda: id_in(source))
    return RestoreInfo(made["version"], _instant(made["time"]), tuple(made["branches"]), made["rows"])


def _instant(time: int) -> datetime | None:
    return to_datetime(time) if time else None


def export(store: Store, path: AnyPath, branch: str | None, history: bool, key: OneKey | None) -> BundleInfo:
    """Write a bundle of what is committed."""
    if branch is not None:
        check_name(branch, "branch")
    if type(history) is not bool:
        raise InvalidInput(f"history is True or False, not {history!r}")
    keys = None if key is None else [key_bytes(key)]
    return _info(store.export(check_path(path), branch, history, keys))


def import_(bundle: AnyPath, path: AnyPath, *, key: Keys | None = None) -> BundleInfo:
    """Make the database `path` of a bundle, and return what it holds. Open it with `strata.open(path)`.

    All of the bundle is checked before anything is written, and `path` appears when all is there. A bundle
    with history gives every version as it was; one without gives each branch as one commit. Where the bundle
    has no branch `main`, an empty one is added.

    Args:
        key: encrypt the new database with it, and open the bundle with it if that is encrypted. Of a sequence
            the first encrypts, and all of them open. Left out, the new database is not encrypted.
    Raises: AlreadyExists when there is something at `path`; Corrupt, with the offset, when the bundle is not
        as an export wrote it; InvalidInput when it is no plain file; ReadOnly when a newer version wrote it;
        NeedsKey when it is encrypted with another key.
    Cost: reads the bundle twice and writes as much, in little memory.
    """
    from strata.store import import_bundle  # here, so that `import strata` does not load the kernel

    source, target = check_path(bundle), check_path(path)
    return _info(with_keys(key, lambda keys: import_bundle(source, target, keys), first=lambda: None))


def verify_bundle(bundle: AnyPath, *, key: Keys | None = None) -> BundleInfo:
    """Read a bundle to its end, checking everything that `import_` does, and return what it holds.

    Args:
        key: of a bundle that is encrypted.
    Raises: what `import_` raises for the bundle.
    """
    from strata.store import verify_bundle

    source = check_path(bundle)
    return _info(with_keys(key, lambda keys: verify_bundle(source, keys)))


def check_path(path: object, hint: str = "") -> str:
    """Return `path` as text if it can be one."""
    given: object = os.fspath(path) if isinstance(path, str | os.PathLike) else path
    if not isinstance(given, str) or not given or "\0" in given:
        raise InvalidInput(f"a path is a str or a Path, not {path!r}", hint=hint)
    return given


def _info(found: dict[str, Any]) -> BundleInfo:
    return BundleInfo(
        found["history"],
        tuple(found["branches"]),
        found["rows"],
        found["bytes"],
        found["sha256"].hex(),
        found["key_id"],
    )
