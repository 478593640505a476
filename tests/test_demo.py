"""The demo: what it reads, that it ends well, and that it would not if something were wrong."""

from __future__ import annotations

import inspect
import io
import json
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

import strata
from strata.cli import main
from strata.cli.demo import chat, crash, edits, find, repair, stdlib, story
from strata.cli.demo.source import Chapter, Question, Source
from strata.cli.demo.stage import Mismatch, Stage, duration
from strata.errors import InvalidInput, NotFound
from strata.testing import Model

LOCOMO = Path(__file__).resolve().parents[2] / "shared" / "data" / "locomo10.json"


class Screen(io.StringIO):
    """A terminal that remembers."""

    encoding = "utf-8"

    def isatty(self):
        return True


@pytest.fixture
def stage():
    return Stage(io.StringIO())


def demo(*arguments):
    """Run the demo as a user does; return what it printed."""
    command = [sys.executable, "-m", "strata.cli", "demo", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stderr == ""
    assert re.search(r"\nAll \d\d checks held, in ", done.stdout)
    assert "\r" not in done.stdout and "\x1b" not in done.stdout
    return done.stdout


# -- the whole story -------------------------------------------------------------------------------


def test_quick():
    out = demo("--quick")
    for told in (
        "standard library",
        "side by side",
        "40 plans",
        "the line is the one",
        "urllib.parse:urljoin is found first",
        "an index made only now finds the same",
        "has the answer that it had",
        "and so do both together",
        "kill -9",
        "How long",
    ):
        assert told.lower() in out.lower()
    assert out.rstrip().endswith("The database was removed.")


def test_keep(tmp_path):
    out = demo("--quick", "--keep", tmp_path / "kept")
    assert str(tmp_path / "kept" / "demo.strata") in out
    with strata.open(tmp_path / "kept" / "demo.strata", create=False) as db:
        assert db.json.get("json:__doc__", "$.kind") == "module"
        assert {story.DRAFT, "main"} <= set(db.branches) and len(db.branches) == 43
        assert db.branch(find.BRANCH).search("wait for a coroutine")[0].value["module"].startswith("asyncio")


@pytest.mark.skipif(not LOCOMO.exists(), reason=f"SKIPPED: {LOCOMO.name} is not in ../shared/data")
def test_locomo():
    out = demo("--quick", "--input", LOCOMO)
    assert "5,882 turns in 272 sessions" in out and "conv-26/01:00012 is found" in out


@pytest.mark.parametrize("turns", [1, 2, 45])
def test_chat_logs_of_any_length(tmp_path, turns):
    log = tmp_path / "chat.jsonl"
    lines = [{"role": "user", "content": f"Turn {turn}. It says little."} for turn in range(turns)]
    log.write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    assert f"{turns} turns" in demo("--quick", "--input", log)


def test_what_is_there_is_not_overwritten(tmp_path, capsys):
    (tmp_path / "demo.strata").mkdir()
    assert main(["demo", "--quick", "--keep", str(tmp_path)]) == 1
    assert "exists already" in capsys.readouterr().err


def source(chapters=4, documents=3):
    """A small text."""

    def chapter(name):
        texts = {f"{name}:{n}": f"Text {n} of {name}. It goes on." for n in range(documents)}
        return Chapter(name, {key: {"text": text, "words": len(text.split())} for key, text in texts.items()})

    questions = [Question("text of c2", "c2:0"), Question('"1 of c3"', "c3:1")]
    made = [chapter(f"c{n}") for n in range(chapters)]
    return Source("a small text", made, "text", "texts", "chapters", questions)


def test_the_story_holds_over_the_model(stage):
    scene = story.Scene(stage, Path(), source(), strata.Database(Model()))
    for step in story.STEPS:
        step(scene)


@pytest.mark.parametrize("number", range(len(story.STEPS)))
def test_each_step_notices_what_is_wrong(stage, number):
    """A document is missing or changed behind the back of the story: the step at hand must say so."""
    scene = story.Scene(stage, Path(), source(), strata.Database(Model()))
    for step in story.STEPS[:number]:
        step(scene)
    key = next(iter(scene.chapter.documents))
    if number == 0:
        scene.db.json.create("stowaway", {})
    elif story.STEPS[number] is story.branch:
        scene.db.branches.create("stowaway")
    elif story.STEPS[number] is story.look_back:
        scene.versions = [*scene.versions[1:], scene.db.version]
    else:
        scene.db.json.set(key, "$.text", "changed")
    with pytest.raises(Mismatch):
        story.STEPS[number](scene)


@pytest.fixture(params=["model", "kernel"])
def scene(request, stage):
    with strata.Database(Model()) if request.param == "model" else strata.open() as db:
        yield story.Scene(stage, Path(), source(), db)


def test_the_second_act_holds(scene):
    for step in repair.STEPS:
        step(scene)
    assert "repair-32" in scene.stage._out.getvalue()


@pytest.mark.parametrize("number", range(len(repair.STEPS)))
def test_each_step_of_the_second_act_notices_what_is_wrong(scene, number, monkeypatch):
    code = scene.db.space(repair.SPACE)
    for step in repair.STEPS[:number]:
        step(scene)
    if number == 0:
        monkeypatch.setattr(repair, "_mends", lambda lines, made: True)
    elif number == 1:
        code.runs.begin().end()
    elif number == 2:
        code.json.set(repair.NAME, "$.lines[2]", "    low, high = 0, 7")
    else:
        code.kv.put("failing", 100)
    with pytest.raises(Mismatch):
        repair.STEPS[number](scene)


@pytest.fixture
def written(stage):
    """After the first act; on the kernel, as the model says no parts of scores."""
    with strata.open() as db:
        scene = story.Scene(stage, Path(), source(), db)
        for step in story.STEPS:
            step(scene)
        yield scene


def test_the_third_act_holds(written):
    for step in find.STEPS:
        step(written)
    told = written.stage._out.getvalue()
    assert "c2:0 is found first" in told and "**Text** 0 of **c2**" in told


def test_a_text_that_cannot_be_asked_for_is_not_asked(written):
    written.source.questions.clear()
    told = len(written.stage._out.getvalue())
    for step in find.STEPS:
        step(written)
    assert "too short" in written.stage._out.getvalue()[told:] and not written.answers


def reworded(scene):
    scene.db.json.set("c2:0", "$.text", "Changed.")


def scored_otherwise(scene):
    scene.db.indexes.drop(story.INDEX)
    scene.db.indexes.create(story.INDEX, primitive="json", paths="$.text", b=0.1)
    scene.answers = find.answers(scene.db, scene.source.questions)


def written_earlier(scene):
    scene.versions = [version + 1 for version in scene.versions]


@pytest.mark.parametrize(
    ("number", "wrong", "said"),
    [
        (0, reworded, "found first"),
        (1, reworded, "outside not yet"),
        (1, written_earlier, "only what was known"),
        (1, scored_otherwise, "made only now"),
    ],
)
def test_each_step_of_the_third_act_notices_what_is_wrong(written, number, wrong, said):
    for step in find.STEPS[:number]:
        step(written)
    wrong(written)
    with pytest.raises(Mismatch, match=said):
        find.STEPS[number](written)


@pytest.fixture
def misspelt(stage):
    """A few texts, and a question that is spelt wrong."""
    texts = {
        "m:run": "Asynchronously run a function in a separate thread.\n\nThreads are not said again.",
        "m:doc": "On threads.",
        "m:parts": "Separate the parts.",
        "m:sum": "Return the sum of many numbers.",
    }
    asked, chapter = (
        Question("seprate thread", "m:run"),
        Chapter("m", {k: {"doc": t} for k, t in texts.items()}),
    )
    made = Source("a few texts", [chapter], "doc", "texts", "modules", [asked], asked)
    with strata.open() as db:
        yield story.Scene(stage, Path(), made, db)


def test_words_and_vectors_together(misspelt):
    find.both(misspelt)
    told = misspelt.stage._out.getvalue()
    assert "Asked of 4 first paragraphs" in told and "at version" in told


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("separate thread", "lead to another first"),
        ("sum of the thread", "pieces of words"),
    ],
)
def test_a_question_whose_answer_is_another_is_noticed(misspelt, monkeypatch, text, said):
    monkeypatch.setattr(misspelt, "source", replace(misspelt.source, misspelt=Question(text, "m:run")))
    with pytest.raises(Mismatch, match=said):
        find.both(misspelt)


def test_edits_are_python_and_small():
    lines = [
        "def f(a, b):",
        '    """7"""',
        "    while a <= 3:",
        "        a = max(b, a * 2)",
        "    return a, b",
    ]
    found = [str(edit) for edit in edits.edits(lines)]
    assert "while a <= 3:  ->  while a < 3:" in found and "while a <= 3:  ->  while a <= 4:" in found
    assert "a = max(b, a * 2)  ->  a = max(a * 2, b)" in found and "return a, b  ->  return b, a" in found
    assert (
        "a = max(b, a * 2)  ->  a = max(b, a // 2)" in found
        and "a = max(b, a * 2)  ->  a = max(b, a)" in found
    )
    assert len(found) == len(set(found)) == 11


def test_a_test_that_runs_for_ever_fails():
    lines = ["def f(n):", "    while n > 0:", "        n = n + 1", "    return n, n"]
    tests = [
        {"call": "f(1)", "gives": [0, 0]},
        {"call": "f(0)", "gives": [0, 0]},
        {"call": "g(0)", "gives": []},
    ]
    assert edits.failures(lines, tests) == ["f(1) raises TooLong", "g(0) raises NameError"]


def test_a_lost_commit_is_noticed(stage, tmp_path, monkeypatch):
    scene = story.begin(stage, tmp_path / "demo.strata", source(), quick=True)
    for step in (*story.STEPS, crash.verify):
        step(scene)
    monkeypatch.setattr(crash, "write_until_killed", lambda path, commits: 1)
    scene.db.space("crash").kv.put("tick:1", 1)
    scene.db.space("crash").kv.put("count", 1)
    scene.db.space("crash").events.append("tick", {}, stream="ticks")
    scene.db.space("crash").events.append("tick", {}, stream="ticks")
    with pytest.raises(Mismatch):
        crash.kill(scene)


# -- what it reads ---------------------------------------------------------------------------------


def test_the_standard_library(stage):
    found = stdlib.read(stage, quick=True)
    documents = found.documents
    assert len(documents) > 500
    decode = documents["json.decoder:JSONDecoder.decode"]
    assert (decode["module"], decode["name"], decode["kind"]) == (
        "json.decoder",
        "JSONDecoder.decode",
        "method",
    )
    assert decode["signature"].startswith("decode(self, s") and "Python representation" in decode["doc"]
    assert 0 < decode["lines"]["first"] < decode["lines"]["last"]
    assert documents["json:dumps"]["doc"] == inspect.getdoc(json.dumps)
    assert documents["json:__doc__"]["kind"] == "module"
    assert documents["json.decoder:JSONDecoder"]["signature"] == "class JSONDecoder(object)"
    assert all(key.startswith(chapter.prefix) for chapter in found.chapters for key in chapter.documents)


def test_sources_that_cannot_be_parsed_are_passed_over(tmp_path):
    for name, text in {"bad.py": b"def (", "nul.py": b"\0", "latin.py": b"'''\xff'''"}.items():
        (tmp_path / name).write_bytes(text)
        assert stdlib.chapter(tmp_path, tmp_path / name).documents == {}
    (tmp_path / "odd.py").write_text(
        '"""\\ud800 alone."""\nif 1:\n  def f(): "one"\nelse:\n  def f(): "two"\n'
    )
    documents = stdlib.chapter(tmp_path, tmp_path / "odd.py").documents
    assert documents["odd:__doc__"]["doc"] == "? alone."
    assert documents["odd:f"]["doc"] == "two"


def read(stage, tmp_path, *lines):
    log = tmp_path / "chat.jsonl"
    log.write_text("\n".join(line if isinstance(line, str) else json.dumps(line) for line in lines), "utf-8")
    return chat.read(stage, log)


def test_chat_logs(stage, tmp_path):
    call = {"id": "1", "type": "function", "function": {"name": "look", "arguments": "{}"}}
    found = read(
        stage,
        tmp_path,
        {"role": "user", "content": "Hello\u2028there"},
        "",
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "1", "content": [{"type": "text", "text": "a"}, {"type": "image"}]},
    )
    hello, look, tool = found.documents.values()
    assert hello == {
        "conversation": "chat/0001",
        "turn": 1,
        "speaker": "user",
        "text": "Hello\u2028there",
        "words": 2,
    }
    assert (look["text"], look["tool_calls"]) == ("", [call])
    assert (tool["text"], tool["tool_call_id"]) == ("a", "1")


def test_chat_logs_with_a_conversation_in_each_line(stage, tmp_path):
    found = read(stage, tmp_path, *({"messages": [{"role": "user", "content": text}] * 2} for text in "abc"))
    assert [len(chapter.documents) for chapter in found.chapters] == [2, 2, 2]


def test_questions_about_a_chat_are_words_of_one_turn(stage, tmp_path):
    said = [
        "Our archaeological plans.",
        "Nothing.",
        "Our archaeological plans, again: archaeological!",
        "extraordinarily",
    ]
    lines = [{"role": "user", "content": text} for text in [*said, *said[:1]]]
    asked = read(stage, tmp_path, *lines).questions
    assert [(question.text, question.key[-1]) for question in asked] == [
        ('"our archaeological plans again archaeological"', "3"),
        ('"extraordinarily"', "4"),
    ]


def test_a_json_list_of_messages(stage, tmp_path):
    found = read(stage, tmp_path, json.dumps([{"role": "user", "content": "a"}] * 41))
    assert [len(chapter.documents) for chapter in found.chapters] == [20, 20, 1]


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ([], "no message"),
        (["", "  "], "no message"),
        (["[]"], "no message"),
        (["not json"], "line 1"),
        (['{"role": "user", "content": "a"}', '{"role": "user"'], "line 2"),
        (['{"content": "a"}'], "role"),
        (['{"role": 7, "content": "a"}'], "role"),
        (['{"role": "user", "content": 7}'], "content"),
        (['{"role": "user", "content": NaN}'], "NaN"),
        (["7"], "role"),
        (["[[[["], "JSON"),
        (['[{"conversation": {"session_1": [{"speaker": "A"}]}}]'], "session_1"),
        (["[" * 100_000], "JSON"),
    ],
)
def test_what_is_no_chat_log(stage, tmp_path, lines, message):
    with pytest.raises(InvalidInput) as error:
        read(stage, tmp_path, *lines)
    assert message in str(error.value)


def test_files_that_cannot_be_read(stage, tmp_path):
    with pytest.raises(NotFound):
        chat.read(stage, tmp_path / "none")
    (tmp_path / "latin").write_bytes(b'{"role": "\xff"}')
    with pytest.raises(InvalidInput, match="UTF-8"):
        chat.read(stage, tmp_path / "latin")
    with pytest.raises(InvalidInput):
        chat.read(stage, tmp_path)


# -- the terminal ----------------------------------------------------------------------------------


def test_a_terminal_gets_a_bar():
    screen, now = Screen(), iter(range(1000))
    stage = Stage(screen, lambda: next(now))
    assert list(stage.progress(range(4), 4, "things")) == [0, 1, 2, 3]
    assert "2 of 4 things" in screen.getvalue() and "━" in screen.getvalue()
    assert screen.getvalue().endswith("\r\x1b[K")


def test_other_outputs_get_plain_lines(stage):
    assert list(stage.progress(range(4), 4, "things")) == [0, 1, 2, 3]
    assert stage._out.getvalue() == ""


def test_narrow_encodings_get_what_they_can_show():
    out = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    stage = Stage(out)
    stage.headline("Größe")
    stage.check("holds", 1, 1)
    stage.fail("does not")
    out.flush()
    assert out.buffer.getvalue().decode("ascii").startswith("\n1. Gr??e\n   ok holds\n")


def test_a_mismatch_ends_with_exit_code_1(monkeypatch, capsys):
    from strata.cli import demo as module

    def wrong(*_):
        raise Mismatch("one is two\n       expected 1\n       found    2")

    monkeypatch.setattr(module, "play", wrong)
    assert main(["demo"]) == 1
    out = capsys.readouterr().out
    assert "one is two" in out and "failed" in out


def test_durations_have_the_unit_that_suits_them():
    assert [duration(seconds) for seconds in (0.0000015, 0.0123, 2.5)] == ["1.5 us", "12.3 ms", "2.50 s"]
