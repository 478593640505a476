"""How much of what matters is found: LoCoMo's questions, asked of its conversations.

    make bench-recall                      every row
    make bench-recall ARGS="--rows 3"      the first three

LoCoMo (Maharana et al., ACL 2024) has ten long conversations with questions, each with the turns that hold
the answer. A row is one configuration: what a document is (a turn or a session), and how it is searched.
Recall at n of a question is the share of its turns (or of their sessions) among the first n hits:

    any     whether one of them is there         all     whether all are
    mean    the share of them that is there: what R@n means where nothing else is said

averaged over the 1,982 questions whose evidence names turns that exist. No model, no download, no tuning by
conversation: one index for each, with the options in the row.

The data may not be shipped (CC BY-NC); it lies in ../shared/data, or where LOCOMO says.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, NamedTuple

import strata

DATA: Final = Path(
    os.environ.get("LOCOMO", Path(__file__).resolve().parents[2] / "shared/data/locomo10.json")
)
CUTS: Final = (5, 10, 20)
MEASURES: Final = ("any", "all", "mean")
CATEGORIES: Final = {1: "multi-hop", 2: "temporal", 3: "open-domain", 4: "single-hop", 5: "adversarial"}
# Some are malformed ("D8:6; D9:17", "D:11:26", "D30:05"), so they are looked for inside the text.
_EVIDENCE: Final = re.compile(r"D:?(\d+):(\d+)")
_COLLECTION: Final = "turns"
_SESSION: Final = re.compile(r"session_(\d+)")


class Turn(NamedTuple):
    """One turn of a conversation."""

    session: int
    number: int
    content: dict[str, str]  # speaker, text, caption

    @property
    def key(self) -> str:
        """Its key: turns of a session are in order."""
        return f"{self.session:02}/{self.number:03}"


class Question(NamedTuple):
    """A question, and where its answer is."""

    text: str
    category: int
    turns: frozenset[str]  # keys

    @property
    def sessions(self) -> frozenset[str]:
        """The keys of their sessions."""
        return frozenset(key.partition("/")[0] for key in self.turns)


class Conversation(NamedTuple):
    """What two people said, and what may be asked about it."""

    name: str
    turns: list[Turn]
    questions: list[Question]


@dataclass(frozen=True)
class Configuration:
    """One row: a kind of document, the options of its index, and those of the search."""

    unit: str  # "turn" or "session"
    index: Mapping[str, Any] = field(default_factory=dict)
    search: Mapping[str, Any] = field(default_factory=dict)
    embedder: str | None = None  # turns are vectors of it, too

    def __str__(self) -> str:
        options = {**self.index, **self.search}
        if self.embedder is not None:
            options["embedder"] = self.embedder
        return ", ".join([self.unit, *(f"{name}={value}" for name, value in options.items())])


ROWS: Final = (
    Configuration("turn"),
    Configuration("turn", search={"context": 1}),
    Configuration("turn", search={"context": 2}),
    Configuration("turn", search={"context": 3}),
    Configuration("turn", {"k1": 0.9, "b": 0.4}),
    Configuration("turn", {"k1": 0.9, "b": 0.4}, {"context": 2}),
    Configuration("turn", {"stop_words": False}),
    Configuration("turn", {"language": None}),
    Configuration("turn", search={"weights": {"text": 0}}, embedder="hashing-512"),
    Configuration("turn", search={"weights": {"vector": 0.1}, "context": 2}, embedder="hashing-512"),
    Configuration("session"),
    Configuration("session", {"k1": 0.9, "b": 0.4}),
)

Found = list[tuple[Question, list[str]]]  # each question, with the keys of its hits


def load(path: Path = DATA) -> list[Conversation]:
    """Return the conversations."""
    return [_conversation(sample) for sample in json.loads(path.read_text("utf-8"))]


def _conversation(sample: dict[str, Any]) -> Conversation:
    talk = sample["conversation"]
    sessions = sorted(int(found[1]) for name in talk if (found := _SESSION.fullmatch(name)))
    turns, by_id = [], {}
    for session in sessions:
        for number, said in enumerate(talk[f"session_{session}"]):
            content = {"speaker": said["speaker"], "text": said["text"]}
            if said.get("blip_caption"):
                content["caption"] = said["blip_caption"]
            turns.append(turn := Turn(session, number, content))
            by_id[said["dia_id"]] = turn.key
    questions = []
    for asked in sample["qa"]:
        named = (f"D{int(a)}:{int(b)}" for text in asked["evidence"] for a, b in _EVIDENCE.findall(text))
        keys = frozenset(by_id[id] for id in named if id in by_id)
        if keys:
            questions.append(Question(asked["question"], asked["category"], keys))
    return Conversation(sample["sample_id"], turns, questions)


def store(db: strata.Database, talk: Conversation, row: Configuration) -> strata.Space:
    """Write a conversation into a space of its own, with its index, and return that."""
    space = db.space(f"{talk.name}")
    if row.embedder is not None:
        space.vectors.create_collection(_COLLECTION, embedder=row.embedder)
        db.indexes.create(talk.name, primitive="vectors", space=talk.name, **row.index)
        texts = [" ".join(turn.content.values()) for turn in talk.turns]
        space.vectors.upsert_many(_COLLECTION, [turn.key for turn in talk.turns], texts=texts)
        return space
    paths = ["$.speaker", "$.text", "$.caption"] if row.unit == "turn" else "$.turns"
    db.indexes.create(talk.name, primitive="json", space=talk.name, paths=paths, **row.index)
    with space.transaction() as tx:
        for key, document in _documents(talk, row.unit):
            tx.json.set(key, "$", document)
    return space


def _documents(talk: Conversation, unit: str) -> Iterator[tuple[str, dict[str, Any]]]:
    if unit == "turn":
        yield from ((turn.key, turn.content) for turn in talk.turns)
        return
    sessions: dict[str, list[str]] = {}
    for turn in talk.turns:
        sessions.setdefault(turn.key.partition("/")[0], []).append(" ".join(turn.content.values()))
    yield from ((key, {"turns": said}) for key, said in sessions.items())


def ask(place: Any, talk: Conversation, row: Configuration) -> Found:
    """Return the hits of each question, best first."""
    return [
        (asked, [_key(hit.key, row) for hit in place.search(asked.text, k=max(CUTS), **row.search)])
        for asked in talk.questions
    ]


def _key(key: str, row: Configuration) -> str:
    return key if row.embedder is None else key.removeprefix(f"{_COLLECTION}/")


def recall(found: Iterable[tuple[frozenset[str], Sequence[str]]], cut: int) -> dict[str, float]:
    """Return each measure at a cut, in percent: of what should be found, and what was."""
    shares = [len(wanted & set(hits[:cut])) / len(wanted) for wanted, hits in found]
    return {
        "any": 100 * sum(share > 0 for share in shares) / len(shares),
        "all": 100 * sum(share == 1 for share in shares) / len(shares),
        "mean": 100 * sum(shares) / len(shares),
    }


def measure(talks: list[Conversation], row: Configuration) -> tuple[Found, float]:
    """Return what a configuration finds, and the microseconds of a question."""
    found: Found = []
    took = 0.0
    with strata.open() as db:
        for talk in talks:
            place = store(db, talk, row)
            place.search("warm")
            began = time.perf_counter()
            answers = ask(place, talk, row)
            took += time.perf_counter() - began
            found += answers
    return found, took / len(found) * 1e6


def is_the_same_elsewhere(talk: Conversation, row: Configuration) -> bool:
    """Whether a fork, and the version before all was wiped, give hit for hit what was found at first."""
    with strata.open() as db:
        place = store(db, talk, row)
        before, version = ask(place, talk, row), db.version
        fork = db.branches.fork("main", "fork")
        if row.embedder is None:
            for key in list(place.json.list()):
                place.json.destroy(key)
        else:
            place.vectors.delete_where(_COLLECTION, {})
        if any(hits for _, hits in ask(place, talk, row)):
            return False
        earlier = place.at(version)
        return ask(fork.space(talk.name), talk, row) == before == ask(earlier, talk, row)


def wanted(found: Found, unit: str, category: int | None = None) -> list[tuple[frozenset[str], list[str]]]:
    """Return what each question should find and what it found, of one category or all."""
    return [
        (asked.turns if unit == "turn" else asked.sessions, hits)
        for asked, hits in found
        if category in (None, asked.category)
    ]


def report(rows: Sequence[Configuration], talks: list[Conversation]) -> Iterator[str]:
    """Yield the lines of the report, as rows are done."""
    turns, questions = (sum(len(talk[at]) for talk in talks) for at in (1, 2))
    yield f"LoCoMo: {len(talks)} conversations, {turns} turns, {questions} questions"
    head = "".join(f"{f'{name}@{cut}':>9}" for cut in CUTS for name in MEASURES)
    yield f"{head}{'us':>7}  configuration"
    details = []
    for row in rows:
        found, took_us = measure(talks, row)
        figures = "".join(
            f"{recall(wanted(found, row.unit), cut)[name]:9.1f}" for cut in CUTS for name in MEASURES
        )
        yield f"{figures}{took_us:7.0f}  {row}"
        details.append((row, found))
    yield "\nmean@10 by category"
    yield "".join(f"{name:>13}" for name in CATEGORIES.values()) + "  configuration"
    for row, found in details:
        of = [recall(wanted(found, row.unit, category), 10)["mean"] for category in CATEGORIES]
        yield "".join(f"{figure:13.1f}" for figure in of) + f"  {row}"


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the report; return 1 where a fork or an earlier version answers otherwise."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--rows", type=int, default=len(ROWS), help="only the first so many")
    options = parser.parse_args(arguments)
    if not DATA.is_file():
        print(f"bench-recall: SKIPPED, LoCoMo is not there: {DATA}\nset LOCOMO=path/to/locomo10.json")
        return 0
    talks = load()
    rows = ROWS[: options.rows]
    for line in report(rows, talks):
        print(line, flush=True)
    same: list[Callable[[], bool]] = [
        lambda row=row: is_the_same_elsewhere(talks[0], row) for row in rows[:3]
    ]  # fmt: skip
    agree = all(check() for check in same)
    print(f"\non a fork, and as of the version before a wipe: {'the same' if agree else 'DIFFERENT'}")
    return 0 if agree else 1


if __name__ == "__main__":
    sys.exit(main())
