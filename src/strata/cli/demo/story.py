"""What the agent does with a text: learn it, use it, rethink a part of it on a branch, look back."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import strata
from strata.api.table import text_table
from strata.cli.demo.source import Chapter, Source
from strata.cli.demo.stage import Stage
from strata.core.clock import to_datetime

DRAFT = "in-short"
STREAM = "study"
INDEX = "words"
_SAMPLE = 1000  # documents read one by one; enough for a steady time
_COLLEAGUE = "A colleague corrected this while the agent was writing."


@dataclass
class Scene:
    """Where the story stands."""

    stage: Stage
    path: Path
    source: Source
    db: strata.Database
    quick: bool = False
    versions: list[int] = field(default_factory=list)  # after each chapter
    chapter: Chapter = field(init=False)  # the one that is rewritten on the branch
    chain: dict[str, object] = field(default_factory=dict)  # what verifying the events found
    answers: list[Any] = field(default_factory=list)  # what was found for each question

    def __post_init__(self) -> None:
        self.chapter = _chapter_to_rewrite(self.source.chapters)


def begin(stage: Stage, path: Path, source: Source, quick: bool) -> Scene:
    """Open the database that the story is about."""
    return Scene(stage, path, source, strata.open(path), quick)


def _chapter_to_rewrite(chapters: list[Chapter]) -> Chapter:
    """A chapter from the middle, of a size that one can look at; else the largest."""
    middle = chapters[len(chapters) // 2 :] + chapters[: len(chapters) // 2]
    return next(
        (c for c in middle if 5 <= len(c.documents) <= 40), max(chapters, key=lambda c: len(c.documents))
    )


def record(scene: Scene) -> None:
    """Write each chapter in one commit: its documents, an event, and where the agent stands."""
    stage, source, db = scene.stage, scene.source, scene.db
    chapters, documents = len(source.chapters), len(source.documents)
    stage.headline("Remember it: one transaction for each chapter, across documents, events and state")
    db.indexes.create(INDEX, primitive="json", paths=f"$.{source.text}")
    db.state.init(STREAM, {"status": "reading", "chapters": 0, "documents": 0})
    with stage.timed("record, buffered", documents, source.document_noun):
        for chapter in stage.progress(source.chapters, chapters, source.chapter_noun):
            scene.versions.append(_learn(db, chapter))
    db.state.transition(STREAM, lambda now: {**now, "status": "done"})
    stage.say(f"{documents:,} {source.document_noun} of {chapters:,} {source.chapter_noun} in {db.name!r}.")
    stage.say("An index of their words follows each commit; it was declared before the first.")
    stage.check(f"{documents:,} documents are there", db.json.count(), documents)
    stage.check(f"{chapters:,} events tell the session", db.events.len(STREAM), chapters)
    wanted = {"status": "done", "chapters": chapters, "documents": documents}
    stage.check("the state cell says that the session is done", db.state.get(STREAM), wanted)
    commits = len(db.log(after=scene.versions[0] - 1, before=scene.versions[-1] + 1))
    stage.check(f"it took {chapters:,} commits, one for each chapter", commits, chapters)


def _learn(db: strata.Database, chapter: Chapter) -> int:
    with db.transaction(message=f"learn {chapter.name}", actor="student") as tx:
        for key, document in chapter.documents.items():
            tx.json.create(key, document)
        words = sum(document["words"] for document in chapter.documents.values())
        lesson = {"chapter": chapter.name, "documents": len(chapter.documents), "words": words}
        tx.events.append("learned", lesson, stream=STREAM)
        now = tx.state.get(STREAM)
        done = {"chapters": now["chapters"] + 1, "documents": now["documents"] + len(chapter.documents)}
        tx.state.set(STREAM, {**now, **done})
    assert tx.version is not None
    return tx.version


def read_back(scene: Scene) -> None:
    """Read by key, by path and by prefix, and compare with what was read from the source."""
    stage, source, db = scene.stage, scene.source, scene.db
    documents = source.documents
    keys = random.Random(1).choices(list(documents), k=_SAMPLE)
    stage.headline("Recall it: by key, by path, by prefix")
    with stage.timed("recall by key", len(keys), "documents"):
        by_key = [db.json.get(key) for key in keys]
    with stage.timed("recall by path", len(keys), "texts"):
        by_path = [db.json.get(key, f"$.{source.text}") for key in keys]
    with stage.timed("recall by prefix", len(documents), "documents"):
        by_prefix = {chapter.name: _recall(db, chapter) for chapter in source.chapters}
    key = next(iter(scene.chapter.documents))
    stage.say(
        f"db.json.get({key!r}, '$.{source.text}') is:\n  {_line(db.json.get(key, f'$.{source.text}'), 90)}"
    )
    stage.check(f"{len(keys):,} documents by key are as they were", by_key, [documents[key] for key in keys])
    stage.check(
        f"{len(keys):,} texts by path are as they were", by_path, [documents[k][source.text] for k in keys]
    )
    wanted = {chapter.name: chapter.documents for chapter in source.chapters}
    stage.check(f"all {len(wanted):,} prefixes give their {source.document_noun}, no more", by_prefix, wanted)


def _recall(face: Any, chapter: Chapter) -> dict[str, Any]:
    return {key: face.json.get(key) for key in face.json.list(prefix=chapter.prefix)}


def branch(scene: Scene) -> None:
    """Fork, and rewrite a chapter on the fork, while a colleague gets in between."""
    stage, source, db, chapter = scene.stage, scene.source, scene.db, scene.chapter
    stage.headline(f"Think again on a branch: {chapter.name!r} in short, while somebody else writes too")
    with stage.timed("fork all of it", 1, "branch"):
        draft = db.branches.fork("main", DRAFT)
    first = next(iter(chapter.documents))
    attempts = 0

    def shorten(tx: strata.Transaction) -> int:
        nonlocal attempts
        attempts += 1
        for key in chapter.documents:
            text = tx.json.get(key, f"$.{source.text}")
            tx.json.set(key, f"$.{source.text}", _in_short(text))
        if attempts == 1:
            _elsewhere(lambda: draft.json.set(first, f"$.{source.text}", f"{_COLLEAGUE} {first}"))
        return len(chapter.documents)

    with stage.timed("rewrite in a transaction", len(chapter.documents), source.document_noun):
        changed = draft.transact(shorten, message=f"{chapter.name} in short", actor="student")
    stage.say(
        f"The first attempt met the colleague's commit and was refused; the next put in {changed} texts."
    )
    stage.check("the transaction ran twice", attempts, 2)
    stage.check(
        "the second attempt built on what the colleague wrote",
        draft.json.get(first, f"$.{source.text}"),
        _in_short(_COLLEAGUE),
    )
    stage.check(
        f"the branches are {DRAFT} and main", [info.name for info in db.branches.list()], [DRAFT, "main"]
    )


def _elsewhere(write: Callable[[], object]) -> None:
    """Run `write` on another thread, as a colleague would, and wait for it."""
    thread = threading.Thread(target=write)
    thread.start()
    thread.join()


def _in_short(text: str) -> str:
    return f"In short: {_line(text.split('. ')[0].rstrip('.'), 60)}."


def side_by_side(scene: Scene) -> None:
    """Show both branches, and count where they differ."""
    stage, source, db, chapter = scene.stage, scene.source, scene.db, scene.chapter
    draft = db.branch(DRAFT)
    stage.headline("Both branches side by side")
    with stage.timed("compare the branches", len(source.documents), "documents"):
        differing = {key for key in source.documents if db.json.get(key) != draft.json.get(key)}
    rows = [
        (
            _line(key.removeprefix(chapter.prefix), 20),
            *(_line(face.json.get(key, f"$.{source.text}"), 36) for face in (db, draft)),
        )
        for key in list(chapter.documents)[:4]
    ]
    stage.say(text_table((_line(chapter.name, 20), "main", DRAFT), rows))
    stage.check(
        f"they differ in {len(differing)} documents, those of the chapter", differing, set(chapter.documents)
    )
    stage.check("main is untouched", _recall(db, chapter), chapter.documents)


def look_back(scene: Scene) -> None:
    """Read what was true before, by version and by the clock."""
    stage, source, db, chapter = scene.stage, scene.source, scene.db, scene.chapter
    stage.headline("As it was before: every version stays readable")
    log = db.log(reverse=True)
    quarters = sorted({len(source.chapters) * quarter // 4 for quarter in (1, 2, 3)} - {0})
    for learned in quarters:
        documents = sum(len(chapter.documents) for chapter in source.chapters[:learned])
        view = db.at(scene.versions[learned - 1])
        seen = view.json.count(), view.state.get(STREAM)["documents"], view.events.len(STREAM)
        stage.check(
            f"version {view.version:,}: {documents:,} documents, {learned:,} chapters",
            seen,
            (documents, documents, learned),
        )
    middle = log[len(log) // 2]
    by_clock = max(commit.version for commit in log if commit.time <= middle.time)
    instant = to_datetime(middle.time)
    stage.check(f"{instant:%H:%M:%S.%f} UTC was version {by_clock:,}", db.at(instant).version, by_clock)
    before = db.branch(DRAFT).at(scene.versions[-1])
    with stage.timed("views of the past", _SAMPLE, "views"):
        for version in random.Random(2).choices(scene.versions, k=_SAMPLE):
            db.at(version)
    stage.check(f"before its rewriting, {DRAFT} read like main", _recall(before, chapter), chapter.documents)


def _line(text: str, width: int) -> str:
    text = " ".join(text.split())
    return text if len(text) <= width else f"{text[: width - 1]}…"


STEPS = (record, read_back, branch, side_by_side, look_back)
