"""The shell: what lines do, where one is, transactions, completion, and the session in the documentation."""

from __future__ import annotations

import io
import re
import stat
import sys
from pathlib import Path

import databases
import pytest
from test_cli import strata_
from test_docs import FENCE, matches

import strata
from strata.cli.session import Session, loop
from strata.errors import Conflict, InvalidInput, NotFound
from strata.testing import FakeClock

PAGE = Path(__file__).resolve().parent.parent / "docs" / "how-to" / "shell.md"


@pytest.fixture(params=databases.KINDS)
def session(request):
    with databases.make(request.param, FakeClock()) as db:
        db.kv.put_many({"city": "Turin", "count": 1})
        db.branches.fork("main", "draft").kv.put("city", "Rome")
        yield Session(db)


@pytest.fixture
def say(session, capsys):
    def say(*lines):
        for line in lines:
            session.run(line)
        return capsys.readouterr().out

    return say


def test_the_session_in_the_documentation(capsys, tmp_path, monkeypatch):
    """Everything that the page shows is what one gets, line for line."""
    (fence,) = [fence for fence in FENCE.finditer(PAGE.read_text("utf-8")) if fence["kind"] == "console"]
    first, *expected = fence["body"].splitlines()
    lines = iter([line for line in expected if re.match(r"[\w/]+\*?> ", line)])
    assert first == "$ strata shell notes.strata"
    monkeypatch.setattr(sys, "stderr", sys.stdout)

    def ask(prompt: str) -> str:
        shown = next(lines)
        assert shown.startswith(prompt), f"the prompt is {prompt!r} where the page has {shown!r}"
        print(shown)
        return shown.removeprefix(prompt)

    with strata.open(tmp_path / "notes.strata") as db:
        assert loop(Session(db), ask, stop=False) == 0
    printed = capsys.readouterr().out
    assert next(lines, None) is None
    assert matches("\n".join(expected), printed), printed


def test_where_one_is(session, say):
    assert session.prompt == "main> " and say("get city") == '"Turin"\n'
    assert say("use draft", "get city") == '"Rome"\n' and session.prompt == "draft> "
    assert say("get city --branch main", "kv get city --at 0") == '"Turin"\nnull\n'
    assert say("use main notes", "put k 1", "spaces list") == '4\n["default",\n "notes"]\n'
    assert session.prompt == "main/notes> " and session.database.space("notes").kv.get("k") == 1
    with pytest.raises(NotFound):
        session.run("use mian")
    assert session.prompt == "main/notes> "


def test_transactions(session, say):
    before = session.database.version
    assert say("begin a plan", "put city '\"Oslo\"'", "incr count --by 2", "get city") == '"Oslo"\n'
    assert session.prompt == "main*> " and session.database.kv.get("city") == "Turin"
    assert say("scan --nl") == '["city", "Oslo"]\n["count", 3]\n'
    assert say("put k 1 --space notes", "get k --space notes") == "1\n"
    assert say("branches list --nl").count("\n") == 2 and say("version") == f"{before}\n"
    assert int(say("commit")) == session.database.version
    assert session.prompt == "main> " and session.database.kv.get("count") == 3
    assert session.database.log(limit=1)[0].message == "a plan"
    say("begin", "delete city", "rollback")
    assert session.database.kv.get("city") == "Oslo"
    say("begin", "put k 1", "commit why it was done")
    assert session.database.log(limit=1)[0].message == "why it was done"


def test_a_conflict_ends_the_transaction(session, say):
    say("begin", "get city", "put city 1")
    session.database.kv.put("city", "elsewhere")
    with pytest.raises(Conflict):
        session.run("commit")
    assert session.prompt == "main> " and session.database.kv.get("city") == "elsewhere"


@pytest.mark.parametrize(
    "line",
    ["branches fork main b", "begin", "use draft", "get city --branch draft", "get city --at 1",
     "put k 1 --message m", "runs begin", "put k {", "put k", "nonsense", "put k 'x"],
)  # fmt: skip
def test_what_a_transaction_refuses_leaves_it_open(session, say, line):
    before = session.database.version
    say("begin", "put kept 1")
    with pytest.raises(InvalidInput):
        session.run(line)
    assert say("get kept") == "1\n" and session.database.version == before
    say("commit")
    assert session.database.kv.get("kept") == 1


@pytest.mark.parametrize("line", ["commit", "rollback", "use", "mode xml", "mode", "put k -", "help nothing"])
def test_lines_that_make_no_sense(session, line):
    with pytest.raises(InvalidInput):
        session.run(line)


def test_modes_and_comments(session, say):
    assert say("mode csv", "scan # all") == "key,value\ncity,Turin\ncount,1\n"
    assert say("get city --json") == '"Turin"\n'
    assert say("scan --nl --prefix ci") == '["city", "Turin"]\n'
    assert say("", "  # nothing") == ""


def test_help(session, say):
    assert "cherry-pick" in say("help") and "usage: kv put " in say("help kv put")
    assert say("help put") == say("help kv put")


def test_a_line_at_a_time_until_the_end(session, capsys):
    lines = iter(["put a 1", "put b {", "put c", "get a", "begin", "put d 4"])

    def ask(prompt):
        return next(lines, None) or (_ for _ in ()).throw(EOFError)

    assert loop(session, ask, stop=False) == 1  # of the transaction that was left
    captured = capsys.readouterr()
    assert captured.out == "4\n1\n" and captured.err.count("error: ") == 3
    assert not session.in_transaction and session.database.kv.get("d") is None


def script(capsys, monkeypatch, path, text):
    monkeypatch.setattr("sys.stdin", io.StringIO(text))
    return strata_(capsys, "shell", path)


def test_from_a_pipe(capsys, tmp_path, monkeypatch):
    path = tmp_path / "db"
    code, out, errors = script(capsys, monkeypatch, path, "begin\nput a 1\ncommit\nget a\n.quit\nput b 1\n")
    assert (code, out, errors) == (0, "1\n1\n", "")
    code, out, errors = script(capsys, monkeypatch, path, "begin\nput a 2\nget a --branch x\ncommit\n")
    assert code == 1 and out == "" and errors.count("error: ") == 2
    assert script(capsys, monkeypatch, path, "get a --nonsense\nput a 3\n")[0] == 2
    assert script(capsys, monkeypatch, path, "get a")[:2] == (0, "1\n")
    code, out, errors = script(capsys, monkeypatch, path, "begin\nput a 5")
    assert code == 1 and "rolled back" in errors
    with strata.open(path) as db:
        assert db.kv.get("a") == 1 and db.version == 1


def test_read_only(capsys, tmp_path, monkeypatch):
    assert strata_(capsys, "shell", tmp_path / "none", "--read-only")[0] == 1
    strata.open(tmp_path / "db").close()
    monkeypatch.setattr("sys.stdin", io.StringIO("put a 1"))
    assert strata_(capsys, "shell", tmp_path / "db", "--read-only")[0] == 1


def test_completion(session):
    session.database.events.append("moved", {}, stream="life")
    session.database.kv.put("two words", 1)
    session.database.vectors.create_collection("facts", 2)
    complete = session.complete
    assert "kv" in complete("") and "use" in complete("") and "get" in complete("")
    assert complete("branches che") == ["cherry-pick"]
    assert complete("kv get c") == ["city", "count"] == complete("get c")
    assert complete("get t") == ["'two words'"]
    assert complete("use d") == ["draft"] == complete("branches delete d") == complete("branches merge d")
    assert complete("use main d") == ["default"]
    assert complete("scan --re") == ["--reverse"]
    assert complete("events range --stream l") == ["life"]
    assert complete("events range --reverse --stream l") == ["life"]
    assert complete("vectors query f") == ["facts"]
    assert complete("get-many city c") == ["city", "count"]
    assert complete("traces record th") == ["thought"]
    assert complete("help kv p") == ["put", "put-many"] and complete("mode t") == ["table"]
    for text in ("get 'ci", "nonsense x", "put city ", "use a b c", "kv"):
        assert complete(text) in ([], ["kv"])


def test_completion_sees_the_transaction(session, say):
    say("begin", "put new 1")
    assert session.complete("get n") == ["new"]
    session.rollback()
    assert session.complete("get n") == []


def test_at_a_terminal(session, monkeypatch, tmp_path):
    """With prompt_toolkit lines are kept where only their owner reads them."""
    from prompt_toolkit.application import create_app_session
    from prompt_toolkit.input import create_pipe_input
    from prompt_toolkit.output import DummyOutput

    from strata.cli.shell import _asker

    file = tmp_path / "state" / "lines"
    monkeypatch.setenv("STRATA_HISTORY", str(file))
    with create_pipe_input() as keys, create_app_session(input=keys, output=DummyOutput()):
        ask = _asker(session)
        keys.send_text("branches list\n")
        assert ask("main> ") == "branches list"
    assert "branches list" in file.read_text() and stat.S_IMODE(file.stat().st_mode) == 0o600


def test_tab_completes(session):
    from prompt_toolkit.document import Document

    from strata.cli.shell import _completer

    found = [*_completer(session).get_completions(Document("get ci"), None)]
    assert [(one.text, one.start_position) for one in found] == [("city", -2)]


def test_without_prompt_toolkit(session, monkeypatch, capsys):
    from strata.cli.shell import _asker

    monkeypatch.setitem(sys.modules, "prompt_toolkit", None)
    assert _asker(session) is input
    assert "[cli]" in capsys.readouterr().err


def test_no_history_is_kept_where_none_is_wanted(monkeypatch, tmp_path):
    from strata.cli.shell import _history

    monkeypatch.setenv("STRATA_HISTORY", "")
    assert _history() is None
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("STRATA_HISTORY", str(tmp_path / "file" / "below"))
    assert _history() is None
