"""F7: the disk is full. A small tmpfs or ext4, one without inodes, or a limit on the size of files.

Writes fail with a typed error (ENOSPC, EFBIG) and reads go on; nothing acknowledged is lost, neither while
the disk is full nor when the database is opened again on the full disk; and once there is space, opening it
again lets writes go on.
"""

from __future__ import annotations

import argparse
import errno
import random
import resource
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import strata
from crash import operations, private, rows
from crash.child import Spec, micros, opened
from crash.judge import Judge, Violation, alike
from crash.life import Ack, Life
from crash.operations import Op
from strata.errors import Conflict, NotFound, OutcomeUnknown, StorageError
from strata.store import KernelStore

SMALLEST_BYTES, LARGEST_BYTES, STEP_BYTES = 256 << 10, 4 << 20, 4 << 10
# What the system says when there is no more room: on the device, for the user, in the file.
NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
STEPS_MAX = 5000  # a disk that takes more is not full


class Room:
    """A place that fills up. `grow` makes space."""

    def __init__(self, at: Path, chance: random.Random) -> None:
        self.kind = chance.choice(("tmpfs", "tmpfs", "ext4", "inodes", "file"))
        self.bytes = chance.randrange(SMALLEST_BYTES, LARGEST_BYTES + 1, STEP_BYTES)
        self.top, self.path = at, at / "room"
        self.path.mkdir()
        getattr(self, f"_{self.kind}")()

    def _tmpfs(self) -> None:
        private.shell("mount", "-t", "tmpfs", "-o", f"size={self.bytes}", "none", str(self.path))
        self.grow = lambda: private.shell("mount", "-o", "remount,size=128m", str(self.path))

    def _inodes(self) -> None:
        number = 6 + self.bytes // STEP_BYTES % 20
        private.shell("mount", "-t", "tmpfs", "-o", f"size=128m,nr_inodes={number}", "none", str(self.path))
        self.grow = lambda: private.shell("mount", "-o", "remount,nr_inodes=1000", str(self.path))

    def _ext4(self) -> None:
        self.path.rmdir()
        image = private.Image(self.top, 16 * LARGEST_BYTES)
        self.path = image.at
        filler = image.at / "filler"
        with open(filler, "wb") as file:
            free = rows.free_bytes(image.at)
            file.write(bytes(max(0, free - self.bytes)))
        self.grow = lambda: filler.unlink(missing_ok=True)

    def _file(self) -> None:
        # Some are less than a segment, most less than a large commit.
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        limit = (8 << 10) + self.bytes // 128
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
        self.grow = lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))

    grow: Callable[[], object]


class Writes:
    """Writes until there is no room, and remembers what was acknowledged."""

    def __init__(self, spec: Spec, no_room: tuple[int, ...] = NO_ROOM) -> None:
        self.no_room = no_room
        self.life, self.plan, self.step = Life(spec), spec.plan(0), 0
        self.life.unknown = []
        self.chance = random.Random(f"{spec.seed} {spec.life} fill")

    def one(self, db: strata.Database) -> bool:
        """Try an operation; return whether there was room. Raises: Violation for an error of no type."""
        op, began = self._draw(), micros()
        try:
            version = operations.do(db, op)
        except (Conflict, NotFound):
            return True  # of a branch that could not be made, there is none
        except OutcomeUnknown:
            self.life.unknown.append(op)
            return False
        except StorageError as error:
            if error.errno not in self.no_room:
                raise Violation(f"{op} gave {error!r} with errno {error.errno}") from error
            return False
        fork_version = db.branches.get(op.target).fork_version if op.kind == "fork" else 0
        if version:
            self.life.acks.append(Ack(op, version, fork_version or 0, began, micros()))
        return True

    def _draw(self) -> Op:
        """Small operations as planned, and in between large ones, or it would take long."""
        op = self.plan.op(self.step)
        self.step += 1
        if op.kind not in ("fork", "rename", "delete") and self.chance.random() < 0.3:
            return Op(op.name, "blob", "main", key=op.key, amount=self.chance.randrange(64 << 10))
        return op


def fill(room: Room, seed: int, durability: str, row: rows.Row) -> None:
    """One database in one room. Raises: Violation."""
    path = room.path / "full.strata"
    judge = Judge(path, seed)
    spec = Spec(str(path), durability, seed, 0, 1)
    try:
        judge.create(spec)
    except StorageError as error:
        # Too little room to begin with: it says so, and goes on when there is more.
        if error.errno not in NO_ROOM:
            raise Violation(f"creating gave {error!r}") from error
        room.grow()
        with opened(spec, create=True) as db:
            db.kv.put("there is", "room")
            if not db.verify().ok:
                raise Violation(f"verify says {db.verify()}") from error
        row.count("uncreated")
        return
    writes = Writes(spec)
    refused = use(writes, judge, row)
    look_at_full_disk(path, writes, durability)
    room.grow()
    judge.examine(writes.life)
    row.count("refused", refused)
    again = Writes(Spec(str(path), durability, seed, 1, 1, judge.leftovers()))
    with opened(again.life.spec) as db:
        for _ in range(50):
            if not again.one(db):
                raise Violation("there is room again, and a write was refused")
        db.checkpoint()
    judge.examine(again.life)


def use(writes: Writes, judge: Judge, row: rows.Row) -> int:
    """Write until it is refused, and some more. What is read stays. Returns how much was refused."""
    refused = 0
    db = opened(writes.life.spec)
    try:
        while writes.one(db):
            if len(writes.life.acks) > STEPS_MAX:
                raise Violation("the disk does not get full")
        before = heads(db)
        for _ in range(30):
            refused += not writes.one(db)
        acked = {ack.op.branch for ack in writes.life.acks[-30:]}
        for name, version in before.items():
            if name in db.branches and name not in acked and db.branch(name).version != version:
                raise Violation(f"{name} was at {version} and is at {db.branch(name).version}")
        for name in db.branches:
            alike(db.branch(name), db.branch(name), name)  # all of it can be read
    finally:
        close(db)
    return refused + 1


def heads(db: strata.Database) -> dict[str, int]:
    return {name: db.branch(name).version for name in db.branches}


def close(db: strata.Database) -> None:
    """A poisoned handle may say so again when it is closed."""
    try:
        db.close()
    except StorageError as error:
        if error.errno not in NO_ROOM:
            raise Violation(f"closing gave {error!r}") from error


def look_at_full_disk(path: Path, writes: Writes, durability: str) -> None:
    """Open it while there is no room: for reading always; for writing it may be refused."""
    with strata.open(path, read_only=True) as db:
        check_acknowledged(db, writes)
    try:
        db = strata.open(path, durability=durability)
    except StorageError as error:
        if error.errno not in NO_ROOM:
            raise Violation(f"opening gave {error!r}") from error
        return
    check_acknowledged(db, writes)
    close(db)


def check_acknowledged(db: strata.Database, writes: Writes) -> None:
    newest = db.verify().version
    lost = [ack for ack in writes.life.acks if ack.version > newest]
    if lost:
        raise Violation(f"{len(lost)} acknowledged commits are lost, {lost[0]} the first: found {newest}")
    for name in db.branches:
        alike(db.branch(name), db.branch(name), name)


@contextmanager
def held(db: strata.Database) -> Iterator[strata.Database]:
    try:
        yield db
    finally:
        close(db)


def make_room(at: Path, seed: int, durability: str, row: rows.Row) -> None:
    """On a disk that is full of one database, what deletes is taken, before and after opening it again."""
    chance = random.Random(f"{seed} make room")
    size = chance.randrange(3 << 20, 12 << 20, STEP_BYTES)
    private.shell("mount", "-t", "tmpfs", "-o", f"size={size}", "none", str(at))
    path, values = at / "full.strata", {}
    spec = Spec(str(path), durability, seed, 0, 1)
    # Large segments are the hard case: one of them is more than the whole disk.
    options = {**spec.options, "segment_bytes": chance.choice((128 << 10, 1 << 20, 16 << 20))}
    with held(
        strata.Database(KernelStore.open(str(path), durability, True, False, options), path=path)
    ) as db:
        db.branches.fork("main", "old")
        fill_up(db, chance, values, size)
        for key in chance.sample(sorted(values), min(20, len(values) // 2)):
            delete(db, key, values)
        db.branches.delete("old")
    with held(strata.open(path, durability=durability)) as db:
        assert {key: len(value) for key, value in db.kv.scan()} == values
        delete(db, min(values), values)
        try:
            # These take room for what is written anew: more than is kept free, if that is much.
            for key in sorted(values)[10:]:
                db.kv.delete(key)
                del values[key]
            db.retention.set(strata.KeepLast(1))
            db.compact()
        except StorageError as error:
            assert error.errno in NO_ROOM, error
            row.count("uncompacted")
        else:
            db.kv.put("there is", b"room" * 100)
            values["there is"] = 400
    with strata.open(path, read_only=True) as db:
        assert {key: len(value) for key, value in db.kv.scan()} == values and db.verify().ok
    row.count("made_room")


def delete(db: strata.Database, key: str, values: dict[str, int]) -> None:
    """At the first try: what goes on in the background does not take what is kept for it."""
    assert db.kv.delete(key), key
    del values[key]


def fill_up(db: strata.Database, chance: random.Random, values: dict[str, int], size: int) -> None:
    """Put until it is refused again and again: what goes on in the background may still make room."""
    refused = 0
    for number in range(size):
        key, length = f"{len(values)}/{number:06}", chance.choice((10, 1000, 20_000))
        try:
            db.kv.put(key, chance.randbytes(length))
        except StorageError as error:
            assert error.errno in NO_ROOM, error
            refused += 1
            if refused == 30:
                return
        else:
            values[key], refused = length, 0
    raise Violation("the disk does not get full")


def run(row: rows.Row, arguments: argparse.Namespace, seed: int) -> None:
    with tempfile.TemporaryDirectory(prefix="strata-full-", ignore_cleanup_errors=True) as directory:
        room = Room(Path(directory), random.Random(seed))
        try:
            fill(room, seed, arguments.durability, row)
        except AssertionError as error:
            raise Violation(f"{room.kind} of {room.bytes} bytes: {error}") from error
        finally:
            room.grow()
            private.shell_quietly("umount", "--lazy", str(room.path))
        try:
            (Path(directory) / "second").mkdir()
            make_room(Path(directory) / "second", seed, arguments.durability, row)
        except AssertionError as error:
            raise Violation(f"making room: {error}") from error
        finally:
            private.shell_quietly("umount", "--lazy", f"{directory}/second")
            private.shell_quietly("umount", "--lazy", str(room.path))
            private.shell_quietly("umount", "--lazy", directory)
        row.runs += 1
        row.count(room.kind)


if __name__ == "__main__":
    rows.main("F7", "full", run, is_private=True)
