"""Webhooks as they are declared: what a hook is, what is refused, where it is kept."""

from __future__ import annotations

import base64

import databases
import pytest
from receivers import SECRET, URL, Remembers, failing, receiving

import strata
from strata.api.webhooks_rows import HOME, LAYOUT, SPACE
from strata.errors import AlreadyExists, InvalidInput, LimitExceeded, NotFound
from strata.testing import FakeClock
from strata.worker import Allowed, HttpTransport, Worker


@pytest.fixture(params=databases.KINDS)
def db(request):
    with databases.make(request.param, FakeClock()) as database:
        yield database


def test_a_webhook_is_delivered_once_end_to_end(tmp_path):
    """From a commit over the worker's own threads to a receiver that verifies, and to a timer behind it."""
    with receiving() as receiver, strata.open(tmp_path / "a.strata") as db:
        db.webhooks.add("all", receiver.url, secret=SECRET, primitive="machines")
        states = {"states": ["open", "closed"], "initial": "open"}
        close = {"from": "open", "event": "CLOSE", "to": "closed"}
        timer = {"state": "open", "after": 0.05, "event": "CLOSE"}
        db.machines.define("ticket", 1, {**states, "transitions": [close], "timers": [timer]})
        with Worker(db, transport=HttpTransport(Allowed(private=True))):
            db.machines.create("ticket", "t1")
            receiver.wait(3)
        assert len(set(receiver.ids)) == 3
        said = {message["type"]: message["data"] for message in receiver.messages}
        assert said.keys() == {"machines.define", "machines.create", "machines.apply"}
        assert said["machines.apply"]["transitions"] == [
            {"event": "CLOSE", "from_state": "open", "to_state": "closed", "context": {}}
        ]
        status = db.webhooks.status("all")
        assert (status.delivered, status.failed, status.waiting, status.error) == (3, 0, 0, None)


def test_a_secret_is_shown_once(db):
    made = db.webhooks.add("all", URL)
    assert made.secret.startswith("whsec_")
    assert len(base64.b64decode(made.secret.removeprefix("whsec_"))) == 32
    for shown in (db.webhooks.get("all"), *db.webhooks.list()):
        assert shown.secret is None
    for text in (repr(db.webhooks), db.webhooks._repr_html_(), str(db.webhooks.list()), repr(made)):
        assert made.secret not in text or text == repr(made)
    assert db.webhooks.add("own", URL, secret=SECRET).secret == SECRET


@pytest.mark.parametrize(
    "url",
    [
        "ftp://example.com",
        "example.com/x",
        "https://",
        "https://user:pass@example.com/",
        "https://user@example.com/",
        "https://example.com/#part",
        "https://example.com:0/",
        "https://example.com:70000/",
        "https://example.com:x/",
        "https://exa mple.com/",
        "https://example.com/\n",
        "https://exämple.com/",
        "https://[::1/",
        "",
        None,
        7,
        b"https://example.com",
    ],
)
def test_what_is_no_url(db, url):
    with pytest.raises(InvalidInput):
        db.webhooks.add("a", url)
    assert db.webhooks.list() == []


def test_urls_have_a_longest(db):
    with pytest.raises(LimitExceeded):
        db.webhooks.add("a", "https://example.com/" + "x" * 2048)


@pytest.mark.parametrize(
    "wrong",
    [
        {"secret": "short"},
        {"secret": "whsec_c2hvcnQ="},
        {"secret": SECRET.removeprefix("whsec_")},
        {"secret": "whsec_" + "!" * 40},
        {"secret": 7},
        {"primitive": "tables"},
        {"space": "_strata"},
        {"prefix": 7},
        {"type": "moved", "primitive": "kv"},
        {"machine": "order", "primitive": "kv"},
        {"machine": "order", "type": "moved"},
        {"events": "PAY"},
        {"events": []},
        {"to_states": [7]},
        {"events": 7},
        {"from_version": -1},
    ],
)
def test_what_is_no_filter_and_no_secret(db, wrong):
    with pytest.raises(InvalidInput):
        db.webhooks.add("a", URL, **wrong)
    assert db.webhooks.list() == []


def test_names(db):
    db.webhooks.add("a", URL)
    with pytest.raises(AlreadyExists):
        db.webhooks.add("a", URL)
    for name in ("_a", "", "a\n", 7, None):
        with pytest.raises(InvalidInput):
            db.webhooks.add(name, URL)
    for branch, version in (("draft", None), (None, 99)):
        with pytest.raises(NotFound):
            db.webhooks.add("b", URL, branch=branch, from_version=version)
    assert [hook.name for hook in db.webhooks.list()] == ["a"]


def test_there_may_be_none(db):
    """Before the first hook, and for a name that is none."""
    for use in (
        db.webhooks.get, db.webhooks.status, db.webhooks.pause, db.webhooks.resume, db.webhooks.rotate,
        db.webhooks.dead, db.webhooks.retry, db.webhooks.discard,
    ):  # fmt: skip
        with pytest.raises(NotFound):
            use("none")
    assert db.webhooks.list() == [] and not db.webhooks.remove("none")
    db.webhooks.add("a", URL)
    for use in (db.webhooks.get, db.webhooks.status, db.webhooks.pause, db.webhooks.dead):
        with pytest.raises(NotFound):
            use("none")
    assert not db.webhooks.remove("none")


def test_they_are_nowhere_to_be_seen(db):
    """Hooks are kept on a branch of their own, which is nobody's history."""
    db.kv.put("k", 1)
    log = db.log()
    db.webhooks.add("a", URL, from_version=0)
    transport = Remembers()
    Worker(db, transport=transport).step()
    assert transport.got == [("k", 1)]
    assert db.log() == log and db.version == log[0].version
    assert list(db.branches) == [info.name for info in db.branches.list()] == ["main"]
    assert len(db.branches) == 1 and "_webhooks" not in db.branches
    assert [info.name for info in db.info().branches] == ["main"]
    assert db.retention.list() == []
    with pytest.raises(NotFound):
        db.branches.get("_webhooks")
    with pytest.raises(NotFound):
        db.branches.delete("_webhooks")
    for use in (
        db.branch,
        lambda name: db.branches.fork(name, "copy"),
        lambda name: db.branches.rename(name, "other"),
        lambda name: db.runs.begin(from_=name),
    ):
        with pytest.raises(InvalidInput):
            use("_webhooks")


def test_a_hook_is_of_one_branch_and_not_of_its_forks(db):
    db.branches.fork("main", "before")
    db.webhooks.add("a", URL)
    db.branches.fork("main", "after")
    transport = Remembers()
    worker = Worker(db, transport=transport)
    for branch in ("before", "after"):
        db.branch(branch).kv.put(branch, 1)
    worker.step()
    assert transport.got == []
    version = db.branches.merge("after", "main").version
    worker.step()
    assert transport.got == [("after", version)]
    db.webhooks.add("b", URL, branch="before", from_version=0)
    worker.step()
    assert [key for key, _ in transport.got] == ["after", "before"]


def test_a_branch_that_gets_another_name_keeps_its_hooks(db):
    db.branches.create("draft")
    db.webhooks.add("a", URL, branch="draft")
    db.branches.rename("draft", "final")
    assert db.webhooks.get("a").branch == "final"
    transport = Remembers()
    db.branch("final").kv.put("k", 1)
    worker = Worker(db, transport=transport)
    worker.step()
    db.branches.rename("final", "last")
    db.branch("last").kv.put("l", 1)
    worker.step()
    assert [key for key, _ in transport.got] == ["k", "l"]


def test_a_branch_that_is_deleted_pauses_its_hooks(db):
    db.branches.create("draft")
    db.webhooks.add("a", URL, branch="draft")
    db.webhooks.add("b", URL)
    worker = Worker(db, transport=(transport := Remembers()))
    worker.step()
    db.branches.delete("draft")
    db.kv.put("k", 1)
    worker.step()
    assert "deleted" in db.webhooks.get("a").paused and db.webhooks.get("a").branch is None
    assert [key for key, _ in transport.got] == ["k"]


def test_a_hook_that_is_removed_leaves_nothing(db):
    transport = Remembers()
    transport.answers["*"] = failing()
    db.webhooks.add("a", URL)
    db.kv.put("k", 1)
    worker = Worker(db, transport=transport)
    worker.step()
    assert db.webhooks.status("a").waiting == 1
    assert db.webhooks.remove("a") is True
    rows = db._store.branch(HOME).keyspace(SPACE, LAYOUT)
    assert [key for key in rows.scan_keys(None, None, None, False, None) if key != "lease"] == []
    db.webhooks.add("a", URL)
    transport.answers.clear()
    db.kv.put("l", 1)
    worker.step()
    assert [key for key, _ in transport.got] == ["l"]


@pytest.mark.parametrize("history", [False, True])
def test_a_bundle_has_the_hooks_and_none_comes_to_another_branch(tmp_path, history):
    """Without history branches get other numbers: a hook must not tell of a branch that it is not of."""
    transport = Remembers()
    with strata.open(tmp_path / "a.strata") as db:
        db.branches.create("beta")
        db.branches.create("alpha")
        for branch in ("main", "alpha", "beta"):
            db.webhooks.add(branch, f"{URL}/{branch}", branch=branch)
        db.export(tmp_path / "bundle", history=history)
    strata.import_(tmp_path / "bundle", tmp_path / "b.strata")
    with strata.open(tmp_path / "b.strata") as db:
        for branch in ("main", "alpha", "beta"):
            db.branch(branch).kv.put(branch, 1)
        worker = Worker(db, transport=transport)
        worker.step()
        worker.stop()
        assert [hook.paused is None for hook in db.webhooks.list()] == [history] * 3
        assert [hook.branch == hook.name for hook in db.webhooks.list()] == [history] * 3
        db.webhooks.add("again", URL)
        assert [policy[0] for policy in db._store.policies()] == [HOME]
    told = {(one["url"], one["data"]["key"]) for one in transport.tried}
    assert told == ({(f"{URL}/{name}", name) for name in ("main", "alpha", "beta")} if history else set())


def test_a_backup_has_the_hooks(tmp_path):
    transport = Remembers()
    with strata.open(tmp_path / "a.strata") as db:
        db.webhooks.add("a", URL, secret=SECRET)
        db.kv.put("k", 1)
        worker = Worker(db, transport=transport)
        worker.step()
        worker.stop()  # else it is who delivers, also in the copy, until that has run out
        db.kv.put("l", 1)
        db.backup(tmp_path / "b")
    strata.restore(tmp_path / "b", tmp_path / "c.strata")
    with strata.open(tmp_path / "c.strata") as db:
        assert [hook.name for hook in db.webhooks.list()] == ["a"]
        worker = Worker(db, transport=transport)
        worker.step()
    assert [key for key, _ in transport.got] == ["k", "l"]
