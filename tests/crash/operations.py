"""What the threads of a child do: a plan that follows from the seed alone, so that its judge knows it, too.

Every operation can be found again in a database by a mark that no other leaves: its name is in the value, in
the message of its commit, or in the name of a branch; an increment adds an amount of its own. That is how the
judge tells which of those that were under way when the process died were committed.

Threads share `main` and `side`, and each forks, renames and deletes branches of its own.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import strata

SHARED = ("main", "main", "main", "side")
SPACES = ("default", "default", "notes")
KEYS = tuple(f"k{number}" for number in range(8))
STREAMS = ("main", "log")
CYCLE = 24  # operations from one fork of a thread to its next


@dataclass(frozen=True, slots=True)
class Op:
    """One operation. `name` is unlike that of any other in the life of a database."""

    name: str
    kind: str
    branch: str
    target: str = ""  # of branch operations: the other name
    space: str = "default"
    key: str = ""
    amount: int = 0


@dataclass(frozen=True, slots=True)
class Plan:
    """All that a thread will do. `life` counts the processes that wrote to this database."""

    seed: int
    life: int
    thread: int
    leftovers: tuple[str, ...]  # branches of earlier lives, to be deleted first

    def op(self, step: int) -> Op:
        """Return the operation number `step`."""
        name = f"{self.life}.{self.thread}.{step}"
        if step < len(self.leftovers):
            return Op(name, "delete", self.leftovers[step])
        turn, phase = divmod(step - len(self.leftovers), CYCLE)
        first, renamed, second = (f"{letter}{self.life}.{self.thread}.{turn}" for letter in "brc")
        match phase:
            case 0:
                return Op(name, "fork", SHARED[turn % len(SHARED)], first)
            case 6:
                return Op(name, "rename", first, renamed)
            case 12:
                return Op(name, "fork", renamed, second)
            case 18:
                return Op(name, "delete", renamed)
            case 23:
                return Op(name, "delete", second)
        own = first if phase < 6 else renamed if phase < 12 else second
        return self._write(name, own)

    def _write(self, name: str, own: str) -> Op:
        chance = random.Random(f"{self.seed} {name}")
        return Op(
            name,
            kind=chance.choice(WRITES),
            branch=chance.choice((*SHARED, own)),
            space=chance.choice(SPACES),
            key=chance.choice(KEYS),
            amount=1 + self.thread,
        )


def padded(op: Op) -> dict[str, Any]:
    """A value that carries the name, of a few bytes mostly, and long enough to be packed now and then."""
    size = random.Random(op.name).choice((0, 10, 100, 100, 8000))
    return {"op": op.name, "pad": op.name[:1] * size}


def put(db: strata.Space, op: Op) -> int | None:
    return db.kv.put(op.key, padded(op))


def put_many(db: strata.Space, op: Op) -> int | None:
    return db.kv.put_many({op.key: padded(op), "a": op.name, "z": op.name})


def incr(db: strata.Space, op: Op) -> int | None:
    return db.kv.incr("n", op.amount)


def cas(db: strata.Space, op: Op) -> int | None:
    entry = db.kv.entry("swapped")
    return db.kv.cas("swapped", {"op": op.name}, expected_version=entry.version if entry else 0)


def set_state(db: strata.Space, op: Op) -> int | None:
    return db.state.set(op.key, {"op": op.name})


def transition(db: strata.Space, op: Op) -> int | None:
    def step(old: Any) -> Any:
        return {"op": op.name, "n": old["n"] + 1}

    return db.state.transition("machine", step, default={"n": 0})


def append(db: strata.Space, op: Op) -> int | None:
    return db.events.append("step", {"op": op.name}, stream=STREAMS[op.amount % 2]).version


def set_json(db: strata.Space, op: Op) -> int | None:
    return db.json.set("doc", f"$.{op.key}.{op.key}", {"op": op.name})


def merge_json(db: strata.Space, op: Op) -> int | None:
    return db.json.merge("doc", {"last": op.name, "all": {f"t{op.amount}": op.name}})


def transfer(db: strata.Branch, op: Op) -> int | None:
    """One transaction over all primitives, which reads what others write."""

    def body(tx: Any) -> Any:
        at = tx.space(op.space)
        total = at.kv.get("total", 0) + 1
        at.kv.put("total", total)
        at.kv.delete(op.key)
        at.kv.put(f"tx-{op.key}", {"op": op.name, "total": total})
        at.events.append("transfer", {"op": op.name, "total": total}, stream="transfers")
        at.state.set("total", total)
        at.json.set("totals", f"$.t{op.amount}", total)
        return tx

    return db.transact(body, message=op.name, retries=100).version


def rows(db: strata.Branch, op: Op) -> int | None:
    """A transaction of many blind writes."""
    with db.transaction(message=op.name, isolation="snapshot" if op.amount % 2 else "serializable") as tx:
        for number in range(30):
            tx.space(op.space).kv.put(f"row{number:02}", number * op.amount)
    return tx.version


def blob(db: strata.Space, op: Op) -> int | None:
    """As many bytes that cannot be packed as the amount says."""
    return db.kv.put(op.key, {"op": op.name, "bytes": random.Random(op.name).randbytes(op.amount)})


DO: dict[str, Callable[[Any, Op], int | None]] = {
    "put": put,
    "put_many": put_many,
    "incr": incr,
    "cas": cas,
    "set_state": set_state,
    "transition": transition,
    "append": append,
    "set_json": set_json,
    "merge_json": merge_json,
    "transfer": transfer,
    "rows": rows,
}
WRITES = (*DO, "put", "put", "append", "append", "transfer")
DO["blob"] = blob  # where room is to be filled, and nowhere else


def do(db: strata.Database, op: Op, fork_version: int | None = None) -> int | None:
    """Do it, and return the version of its commit. Only a fork looks at `fork_version`: None is now."""
    match op.kind:
        case "fork":
            return db._store.fork(op.branch, op.target, fork_version)  # the public way keeps its version
        case "rename":
            return db.branches.rename(op.branch, op.target)
        case "delete":
            return db.branches.delete(op.branch)
    place = db.branch(op.branch)
    return DO[op.kind](place if op.kind in ("transfer", "rows") else place.space(op.space), op)
