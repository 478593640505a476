"""Bundles: what a database holds, as one file to keep, to send, and to make a database of again."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

from strata.core.errors import InvalidInput
from strata.core.keys import check_name
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


def export(store: Store, path: AnyPath, branch: str | None, history: bool) -> BundleInfo:
    """Write a bundle of what is committed."""
    if branch is not None:
        check_name(branch, "branch")
    if type(history) is not bool:
        raise InvalidInput(f"history is True or False, not {history!r}")
    return _info(store.export(check_path(path), branch, history))


def import_(bundle: AnyPath, path: AnyPath) -> BundleInfo:
    """Make the database `path` of a bundle, and return what it holds. Open it with `strata.open(path)`.

    All of the bundle is checked before anything is written, and `path` appears when all is there. A bundle
    with history gives every version as it was; one without gives each branch as one commit. Where the bundle
    has no branch `main`, an empty one is added.

    Raises: AlreadyExists when there is something at `path`; Corrupt, with the offset, when the bundle is not
        as an export wrote it; InvalidInput when it is no plain file; ReadOnly when a newer version wrote it.
    Cost: reads the bundle twice and writes as much, in little memory.
    """
    from strata.store import import_bundle  # here, so that `import strata` does not load the kernel

    return _info(import_bundle(check_path(bundle), check_path(path)))


def verify_bundle(bundle: AnyPath) -> BundleInfo:
    """Read a bundle to its end, checking everything that `import_` does, and return what it holds.

    Raises: what `import_` raises for the bundle.
    """
    from strata.store import verify_bundle

    return _info(verify_bundle(check_path(bundle)))


def check_path(path: object, hint: str = "") -> str:
    """Return `path` as text if it can be one."""
    given: object = os.fspath(path) if isinstance(path, str | os.PathLike) else path
    if not isinstance(given, str) or not given or "\0" in given:
        raise InvalidInput(f"a path is a str or a Path, not {path!r}", hint=hint)
    return given


def _info(found: dict[str, Any]) -> BundleInfo:
    return BundleInfo(
        found["history"], tuple(found["branches"]), found["rows"], found["bytes"], found["sha256"].hex()
    )
