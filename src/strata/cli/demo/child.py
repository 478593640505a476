"""The other processes of the demo: `python -m strata.cli.demo verify|write PATH`.

verify  check the event chain of the database, and print what was found as JSON
write   commit without end, and say so after each commit, until killed
"""

from __future__ import annotations

import json

import strata

SPACE = "crash"
STREAM = "ticks"


def verify(path: str, stream: str) -> None:
    """Print what `chain` finds."""
    with strata.open(path, create=False) as db:
        print(json.dumps(chain(db, stream)))


def chain(place: strata.Place, stream: str) -> dict[str, object]:
    """Verify the chain of a stream, and return whether it holds, its length and its newest hash."""
    report = place.events.verify(stream)
    head = place.events.head(stream)
    return {"ok": report.ok, "events": report.events, "hash": head.hash.hex() if head and head.hash else None}


def write(path: str) -> None:
    """Commit 1, 2, 3, ...: a key, a counter and an event each; print each number once it is committed."""
    with strata.open(path, create=False) as db:
        space = db.space(SPACE)
        number = space.kv.get("count") if SPACE in db.spaces else 0
        while True:
            number += 1
            with space.transaction(message=f"tick {number}") as tx:
                tx.kv.put(f"tick:{number:08}", number)
                tx.kv.put("count", number)
                tx.events.append("tick", {"number": number}, stream=STREAM)
            print(number, flush=True)
