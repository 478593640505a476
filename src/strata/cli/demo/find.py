"""The third act: what was written is found again by words, on any branch and at any version.

The index was declared before the first document was written (`story.record`), and followed each commit. A
question in plain words finds what answers it, with the part of each word in its score; the same question to a
branch on which the text was changed, inside a transaction that changes it, and to earlier versions gives the
answer of that state. All of it is held against an index that is declared only then. Where words are spelt
wrong, vectors of their pieces find what they meant.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

import strata
from strata.api.table import text_table
from strata.cli.demo.source import Question
from strata.cli.demo.story import INDEX, Scene
from strata.search import Hit

BRANCH: Final = "reworded"
AGAIN: Final = "made-only-now"
SPACE: Final = "openings"
COLLECTION: Final = "vectors"
WORDS: Final = "words of them"
_MOVED: Final = "This was said elsewhere."
_ASKED: Final = 50  # times, for a steady time
_SHOWN: Final = 2  # hits of a question
_ENOUGH: Final = 10  # hits to compare
_PLENTY: Final = 1000  # hits: all of a few modules
_WIDTH: Final = 105
_LINES: Final = 2  # of a snippet
_DIGITS: Final = 9  # to which sums agree, whatever their order

Answer = list[tuple[str, float]]  # keys and scores, best first
States = Mapping[str, Any]  # what can be searched


def ask(scene: Scene) -> None:
    """Ask in plain words, and show why something was found."""
    stage, db, questions = scene.stage, scene.db, scene.source.questions
    stage.headline("Find it again: questions in plain words, and why the answer is one")
    if not questions:
        stage.say("The text is too short, or too much alike, to ask for a part of it.")
        return
    with stage.timed("the first question", 1, "question"):
        db.search(questions[0].text, indexes=[INDEX])
    for question in questions:
        found = db.search(question.text, indexes=[INDEX], k=max(question.within, _SHOWN), explain=True)
        stage.say("\n".join([f"\n{question.text}", *(_shown(hit, stage.marks) for hit in found[:_SHOWN])]))
        stage.check(_claim(question), question.key in _keys(found[: question.within]))
        parts = [sum(term.contribution for term in hit.signals[INDEX].terms) for hit in found]
        scores = [round(hit.score, _DIGITS) for hit in found]
        stage.check("its score is the sum of its words", [round(part, _DIGITS) for part in parts], scores)
    scene.answers = answers(db, questions)
    with stage.timed("ask", _ASKED * len(questions), "questions"):
        asked = [answers(db, questions) for _ in range(_ASKED)]
    stage.check(f"asked {_ASKED} times, each has one answer", asked, [scene.answers] * _ASKED)


def elsewhere(scene: Scene) -> None:
    """Ask the same on a branch that says something else, and of what was known earlier."""
    stage, db, source = scene.stage, scene.db, scene.source
    if not source.questions:
        return
    question = source.questions[0]
    key = question.key
    stage.headline("The same question on a branch, inside a transaction, and of earlier versions")
    reworded = db.branches.fork("main", BRANCH)
    with reworded.transaction(message="say it elsewhere", actor="student") as tx:
        tx.json.set(key, f"$.{source.text}", _MOVED)
        inside, outside = (key in dict(_answer(face, question)) for face in (tx, reworded))
    stage.say(f"{question.text}  On {BRANCH!r}, {key} says {_MOVED!r} now.")
    before, after = _around(scene, key)
    states = {"main": db, BRANCH: reworded, "before": db.at(before), "after": db.at(after)}
    now, moved, then, learned = (_answer(state, question) for state in states.values())
    places = ("on main", f"on {BRANCH}", f"at {before}", f"at {after}")
    rows = zip(places, (now, moved, then, learned), strict=True)
    stage.say(text_table(("", "found first", "score"), [(place, *_first(answer)) for place, answer in rows]))
    stage.check("in its transaction it was gone at once, outside not yet", (inside, outside), (False, True))
    stage.check("main answers as it did", now, scene.answers[0])
    stage.check(f"on {BRANCH} it is not found any more", key in dict(moved), False)
    unknown = [found for found, _ in then if not db.at(before).json.exists(found)]
    stage.check(
        f"version {before:,} finds only what was known then", (key in dict(then), unknown), (False, [])
    )
    found = db.search(question.text, indexes=[INDEX], k=question.within, over=(before, after))
    assert found.over is not None
    entered = key in dict(learned), key in _keys(found.over.entered)
    stage.check(f"version {after:,} finds {key}: it entered with that commit", entered, (True, True))
    _compare(scene, states)


def _compare(scene: Scene, states: States) -> None:
    """Hold what was found in `states` against an index that is made only now."""
    stage, db, questions = scene.stage, scene.db, scene.source.questions
    there = [_answer(state, question) for state in states.values() for question in questions]
    db.indexes.create(AGAIN, primitive="json", paths=f"$.{scene.source.text}")
    with stage.timed("index all again, and ask", len(there), "questions"):
        again = [_answer(state, question, AGAIN) for state in states.values() for question in questions]
    db.indexes.drop(AGAIN)
    claim = f"an index made only now finds the same, hit for hit and score for score, {len(there)} times"
    stage.check(claim, again, there)


def both(scene: Scene) -> None:
    """Put what words find and what vectors find together, for a question that is spelt wrong."""
    stage, asked = scene.stage, scene.source.misspelt
    if asked is None:
        return
    stage.headline("Words and vectors together: a question that is spelt wrong, and no model")
    near, key, texts = scene.db.space(SPACE), f"{COLLECTION}/{asked.key}", _openings(scene)
    with stage.timed("make vectors of texts", len(texts), "texts"):
        _embed(scene.db, texts)
    found = {name: _near(near, asked, indexes=[name]) for name in (WORDS, COLLECTION)}
    found["both"] = _near(near, asked)
    stage.say(f"{asked.text}  Asked of {len(texts)} first paragraphs, with the hashing embedder.")
    rows = [(name, str(_place(key, hits)), hits[0].key) for name, hits in found.items()]
    stage.say(text_table(("", "place of the answer", "found first"), rows))
    words, vectors, together = (_place(key, hits) for hits in found.values())
    stage.check("the words that are spelt right lead to another first", words > 1)
    stage.check("pieces of words lead to it, and so do both together", (vectors, together), (1, 1))
    sums = [sum(1 / (60 + (by.rank or 0)) for by in hit.signals.values()) for hit in found["both"]]
    scores = [round(hit.score, _DIGITS) for hit in found["both"]]
    stage.check("a score is the sum of 1 / (60 + place)", [round(part, _DIGITS) for part in sums], scores)
    before = near.version
    near.vectors.delete(COLLECTION, asked.key)
    gone, there = _place(key, _near(near, asked)), _place(key, _near(near, asked, at=before))
    stage.check(f"deleted, it is found no more; at version {before:,} it still is", (gone, there), (0, 1))


def _openings(scene: Scene) -> dict[str, str]:
    """Return the first paragraph of each document in the chapters of the answers."""
    source, keys = scene.source, [question.key for question in scene.source.questions]
    chapters = [chapter for chapter in source.chapters if any(key in chapter.documents for key in keys)]
    return {
        key: document[source.text].split("\n\n")[0]
        for chapter in chapters
        for key, document in chapter.documents.items()
    }


def _embed(db: strata.Database, texts: Mapping[str, str]) -> None:
    """Store texts as vectors, and let their words be found too."""
    near = db.space(SPACE)
    near.vectors.create_collection(COLLECTION, embedder="hashing-256")
    db.indexes.create(WORDS, primitive="vectors", space=SPACE, paths="$.text")
    said = list(texts.values())
    near.vectors.upsert_many(COLLECTION, list(texts), texts=said, metadata=[{"text": text} for text in said])


def _near(near: strata.Space, question: Question, **options: Any) -> Sequence[Hit]:
    found: Sequence[Hit] = near.search(question.text, k=_PLENTY, primitives=["vectors"], **options)
    return found


def _place(key: str, hits: Sequence[Hit]) -> int:
    """Return the place of a key among hits, from 1; 0 where it is none of them."""
    return next((hit.rank for hit in hits if hit.key == key), 0)


def _around(scene: Scene, key: str) -> tuple[int, int]:
    """Return the versions before and after a document was learned."""
    chapters = zip(scene.source.chapters, scene.versions, strict=True)
    after = next(version for chapter, version in chapters if key in chapter.documents)
    return after - 1, after


def answers(db: strata.Database, questions: Sequence[Question]) -> list[Answer]:
    """Return what a database answers to each question."""
    return [_answer(db, question) for question in questions]


def _answer(face: Any, question: Question, index: str = INDEX) -> Answer:
    found = face.search(question.text, k=max(question.within, _ENOUGH), indexes=[index])
    return [(hit.key, hit.score) for hit in found]


def _keys(hits: Iterable[Hit]) -> list[str]:
    return [hit.key for hit in hits]


def _first(answer: Answer) -> tuple[str, str]:
    return (answer[0][0], f"{answer[0][1]:.2f}") if answer else ("nothing", "")


def _claim(question: Question) -> str:
    return f"{question.key} is found" + (" first" if question.within == 1 else "")


def _shown(hit: Hit, marks: tuple[str, str]) -> str:
    """Return a hit as lines: its score as a sum, and of the first one what of its text shows why."""
    terms = " + ".join(f"{term.text} {term.contribution:.2f}" for term in hit.signals[INDEX].terms)
    line = f"{hit.rank}. {hit.key}  {hit.score:.2f} = {terms}"
    if hit.rank > 1:
        return line
    # One character for each mark, until the lines are broken. Snippets show the end of a line as \\n.
    text = " ".join(hit.snippet.marked("\1", "\2").replace("\\n", " ").split())
    lines = [f"   {line}" for line in textwrap.wrap(text, _WIDTH, max_lines=_LINES, placeholder=" …")]
    return "\n".join([line, *lines]).replace("\1", marks[0]).replace("\2", marks[1])


STEPS = (ask, elsewhere, both)
