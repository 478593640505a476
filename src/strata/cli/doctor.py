"""`strata doctor`: look at a database and at where it lies, and say what to do.

It changes nothing, and reads everything only where that is quick. What concerns a machine that is not this
one is left out for a URL.
"""

from __future__ import annotations

import os
import platform
import shutil
import stat
from argparse import Namespace
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal

import strata
from strata.cli.opening import is_url, open_database, open_whole
from strata.cli.output import json_text
from strata.core.errors import AccessDenied, Locked, NeedsKey, RemoteError, StrataError

if TYPE_CHECKING:
    from strata.api.info import DatabaseInfo

State = Literal["ok", "warn", "bad"]

QUICK: Final = 256 << 20  # bytes of files: below it all are read in about a second
_FREE_MIN: Final = 1 << 30
_CHECKPOINT_LATE: Final = 256 << 20  # of log that opening has to read, at some 200 MB/s
# Where a lock of one machine is not seen by others, or not for certain.
_NETWORK: Final = {"nfs", "nfs4", "cifs", "smb3", "smbfs", "9p", "ceph", "fuse.sshfs", "glusterfs", "lustre"}
_PASSING: Final = {"tmpfs", "ramfs"}
_SIGNS: Final = {"ok": "ok  ", "warn": "WARN", "bad": "BAD "}


@dataclass(frozen=True, slots=True)
class Finding:
    """What one check found."""

    check: str
    state: State
    said: str
    todo: str = ""


def run(given: Namespace) -> int:
    """Print what was found, one check a line; exit code 1 when something is bad."""
    findings = []
    for finding in _findings(given):
        findings.append(finding)
        if not given.json:
            print(f"{_SIGNS[finding.state]} {finding.check}: {finding.said}")
            if finding.todo:
                print(f"     -> {finding.todo}")
    if given.json:
        print(json_text([asdict(finding) for finding in findings]))
    return 1 if any(finding.state == "bad" for finding in findings) else 0


def _findings(given: Namespace) -> Iterator[Finding]:
    yield _versions()
    if not is_url(given.path):
        path = Path(given.path)
        if not any((path / name).exists() for name in ("MANIFEST", "MANIFEST.bak")):
            yield _no_database(path)
            return
        yield from _place(path)
    yield from _database(given)


def _versions() -> Finding:
    brought = [name for name in ("prompt_toolkit", "pyarrow", "numpy") if find_spec(name)]
    said = f"strata {strata.__version__}, Python {platform.python_version()}, {platform.system()}"
    return Finding("versions", "ok", f"{said} {platform.machine()}; with {', '.join(brought) or 'no extras'}")


def _no_database(path: Path) -> Finding:
    if not path.exists():
        return Finding("path", "bad", f"there is nothing at {path}", "check the path; writing verbs make one")
    if not path.is_dir():
        return Finding("path", "bad", f"{path} is no directory", "strata inspect says what stands in a file")
    if any((path / name).exists() for name in ("WAL", "DATA")):
        return Finding("path", "bad", f"{path} has no MANIFEST", "restore a backup, or salvage PATH TO")
    return Finding("path", "bad", f"{path} holds no database", "check the path")


# -- where it lies ---------------------------------------------------------------------------------


def _place(path: Path) -> Iterator[Finding]:
    yield _permissions(path)
    yield _disk(path)
    kind = _file_system(path)
    if kind in _NETWORK:
        yield Finding(
            "file system", "warn", f"{path} is on {kind}, where another machine may not see the lock",
            "keep the database on a disk of one machine",
        )  # fmt: skip
    elif kind in _PASSING:
        yield Finding("file system", "warn", f"{path} is on {kind}: a restart empties it", "move it")
    else:
        yield Finding("file system", "ok", kind or "unknown")


def _permissions(path: Path) -> Finding:
    files = dict(_files(path))
    closed = [file for file in (path, *files) if not os.access(file, os.R_OK | os.W_OK)]
    if closed:
        todo = f"chown -R {_user()} {path}, or run as its owner"
        return Finding("permissions", "bad", f"this user may not read and write {closed[0]}", todo)
    if any(found.st_mode & stat.S_IWOTH for found in files.values()):
        return Finding("permissions", "bad", "everybody may write to its files", f"chmod -R o-w {path}")
    # The LOCK holds no data: only who has the database open, and where that serves others of the same user.
    held = {file: found for file, found in files.items() if file.name != "LOCK" and found.st_size}
    readable = [file for file, found in held.items() if found.st_mode & stat.S_IROTH]
    if readable and path.stat().st_mode & stat.S_IXOTH:
        return Finding("permissions", "warn", f"others may read {readable[0].name}", f"chmod -R o-rwx {path}")
    return Finding("permissions", "ok", f"{_user()} may read and write, and nobody else")


def _files(path: Path) -> Iterator[tuple[Path, os.stat_result]]:
    """Yield the files of a database, without those that go while we look."""
    for file in path.rglob("*"):
        try:
            found = file.stat()
        except OSError:
            continue
        if stat.S_ISREG(found.st_mode):
            yield file, found


def _user() -> str:
    import getpass

    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return str(os.getuid())


def _disk(path: Path) -> Finding:
    usage = shutil.disk_usage(path)
    takes = sum(found.st_size for _, found in _files(path))
    said = f"{_size(usage.free)} free of {_size(usage.total)}; the database takes {_size(takes)}"
    if usage.free < max(_FREE_MIN, takes // 4):  # a compaction writes what it keeps before it removes the old
        return Finding("disk", "warn", said, "make room: strata compact PATH gives back what nobody can read")
    return Finding("disk", "ok", said)


def _file_system(path: Path) -> str:
    """Return the kind of the file system that a path is on; "" where nothing says so."""
    try:
        mounts = Path("/proc/mounts").read_text("utf-8", "replace").splitlines()
    except OSError:
        return ""
    best, kind = "", ""
    for line in mounts:
        _, at, found, *_ = line.split(" ")
        if len(at) >= len(best) and path.resolve().is_relative_to(at):
            best, kind = at, found
    return kind


# -- the database itself ---------------------------------------------------------------------------


def _database(given: Namespace) -> Iterator[Finding]:
    try:
        yield _lock(given)
        with open_whole(given) as database:
            info = database.info()
            yield from _said(info)
            yield _verified(database, info, given)
    except Locked as error:
        yield Finding("open", "warn", str(error), "it is in use, and was not looked into: try when that ends")
    except NeedsKey as error:
        yield Finding("encryption", "bad", str(error), "say --key-file FILE, or set STRATA_KEY_FILE")
    except RemoteError as error:
        yield Finding("server", "bad", str(error), error.hint or "see whether it runs: strata serve")
    except StrataError as error:
        yield Finding("open", "bad", str(error), error.hint or "strata inspect PATH says where; then salvage")


def _lock(given: Namespace) -> Finding:
    """Say who has it open: the process that holds the lock serves all others."""
    if is_url(given.path):
        return Finding("server", "ok", given.path)
    try:
        open_database(given, create=False, read_only=True, shared=False).close()
    except Locked as error:
        return Finding("lock", "ok", f"open in another process: {error.owner}")
    return Finding("lock", "ok", "nobody has it open")


def _said(info: DatabaseInfo) -> Iterator[Finding]:
    keyed = f"encrypted with key {info.key_id}" if info.encrypted else "not encrypted"
    yield Finding("encryption", "ok", keyed)
    yield Finding("format", "ok", f"{info.format}, version {info.version:,}, {len(info.branches)} branches")
    if info.recovery.cut_bytes:
        yield Finding("recovery", "ok", f"a crash cut {info.recovery.cut_bytes:,} bytes of one write")
    late = info.files.log.since_checkpoint
    if late > _CHECKPOINT_LATE:
        yield Finding("log", "warn", f"opening reads {_size(late)} of log", "strata checkpoint PATH")
    else:
        yield Finding("log", "ok", f"{_size(late)} since the last checkpoint")


def _verified(database: strata.Database, info: DatabaseInfo, given: Namespace) -> Finding:
    if info.files.bytes > QUICK and not given.full:
        return Finding("content", "ok", f"{_size(info.files.bytes)} were not read: --full does")
    try:
        report = database.verify()
    except AccessDenied:
        return Finding("content", "ok", "not read, which takes a token that allows admin")
    if report.ok:
        return Finding("content", "ok", f"{report.rows:,} rows and {report.records:,} records are whole")
    first = report.problems[0]
    said = f"{len(report.problems)} places are damaged, first {first.place} at {first.at}: {first.reason}"
    return Finding("content", "bad", said, "restore a backup, or strata salvage PATH TO")


def _size(count: float) -> str:
    for unit in ("bytes", "KiB", "MiB", "GiB"):
        if count < 1024:
            return f"{count:,.0f} {unit}" if unit == "bytes" else f"{count:,.1f} {unit}"
        count /= 1024
    return f"{count:,.1f} TiB"
