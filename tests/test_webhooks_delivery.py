"""Delivery: what is sent when, and what becomes of what fails."""

from __future__ import annotations

import contextlib
import json
import threading

import databases
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from receivers import URL, Remembers, failing

import strata
from strata.api.webhooks_rows import home_of, rows_of
from strata.errors import NotFound
from strata.testing import FakeClock
from strata.worker import Answer, Retries, Worker
from strata.worker.delivery import LANES_MAX

SECOND = 1_000_000
DAY = 24 * 3600 * SECOND


@pytest.fixture(params=databases.KINDS)
def db(request, clock):
    with databases.make(request.param, clock) as database:
        yield database


@pytest.fixture
def transport():
    return Remembers()


@pytest.fixture
def worker(db, transport):
    return Worker(db, transport=transport, senders=1, log=lambda *_, **__: None)


# -- what fails


def test_a_thing_that_fails_holds_back_only_itself(db, worker, transport, clock):
    db.webhooks.add("a", URL)
    transport.answers["k"] = failing()
    versions = {"k": [], "l": []}
    for number in range(3):
        for key in versions:
            versions[key].append(db.kv.put(key, number))
        worker.step()
    assert transport.of("l") == versions["l"] and transport.of("k") == []
    tried = [one["data"]["version"] for one in transport.tried if one["data"]["key"] == "k"]
    assert tried == versions["k"][:1]  # what is newer was not even tried
    status = db.webhooks.status("a")
    assert (status.waiting, status.failed, status.delivered) == (3, 1, 3)
    transport.answers.clear()
    worker.step()
    assert transport.of("k") == []  # not yet due
    clock.advance(7 * SECOND)
    worker.step()
    assert transport.of("k") == versions["k"]
    assert db.webhooks.status("a").waiting == 0


def test_it_is_tried_later_and_later_and_then_given_up(db, worker, transport, clock):
    db.webhooks.add("a", URL)
    transport.answers["k"] = failing(503)
    first = db.kv.put("k", 1)
    second = db.kv.put("k", 2)
    waits, before = [], clock()
    worker.step()
    while not db.webhooks.dead("a"):
        due = db.webhooks.status("a").retry_time
        waits.append((due - clock()) / SECOND)
        clock.set(due)
        worker.step()
    tried = [one["data"]["version"] for one in transport.tried]
    assert tried[:16] == [first] * 16
    expected = [min(5 * 3**n, 6 * 3600) for n in range(15)]
    assert all(0.75 * wait <= found <= 1.25 * wait for found, wait in zip(waits, expected, strict=True))
    (letter,) = db.webhooks.dead("a")
    assert (letter.version, letter.key, letter.attempts, letter.error) == (first, "k", 16, "it answered 503")
    assert json.loads(letter.body)["data"]["changes"][0]["value"] == 1
    assert letter.first_time == before and letter.time == clock()
    transport.answers.clear()
    clock.advance(10 * SECOND)
    worker.step()  # what is newer goes on without it
    assert transport.of("k") == [second]


def test_it_is_given_up_when_it_is_old(db, transport, clock):
    worker = Worker(db, transport=transport, senders=1, retries=Retries(attempts=1000, age_s=3600))
    db.webhooks.add("a", URL)
    transport.answers["k"] = failing()
    db.kv.put("k", 1)
    worker.step()
    clock.advance(DAY)
    worker.step()
    assert [letter.attempts for letter in db.webhooks.dead("a")] == [2]


def test_dead_letters_are_sent_again_or_dropped(db, transport, clock):
    worker = Worker(db, transport=transport, senders=1, retries=Retries(attempts=1))
    db.webhooks.add("a", URL)
    transport.answers["*"] = failing()
    versions = [db.kv.put(f"k{number}", 1) for number in range(5)]
    worker.step()
    dead = db.webhooks.dead("a")
    assert [letter.version for letter in dead] == versions
    assert [letter.version for letter in db.webhooks.dead("a", limit=2)] == versions[:2]
    assert [letter.version for letter in db.webhooks.dead("a", after=versions[1], limit=2)] == versions[2:4]
    assert db.webhooks.status("a").dead == 5
    with pytest.raises(NotFound):
        db.webhooks.retry("a", "msg_x")
    with pytest.raises(NotFound):
        db.webhooks.discard("a", "msg_x")
    assert db.webhooks.discard("a", dead[0].id) == 1
    transport.answers.clear()
    assert db.webhooks.retry("a", dead[3].id) == 1
    worker.step()
    assert transport.got == [("k3", versions[3])] and transport.tried[-1]["id"] == dead[3].id
    assert db.webhooks.retry("a") == 3
    worker.step()
    assert sorted(version for _, version in transport.got) == versions[1:]
    assert db.webhooks.dead("a") == [] and db.webhooks.retry("a") == db.webhooks.discard("a") == 0


def test_too_much_that_fails_and_the_log_is_the_queue(db, worker, transport, clock):
    db.webhooks.add("a", URL)
    transport.answers["*"] = failing()
    versions = [db.kv.put(f"{number:03}", 1) for number in range(3 * LANES_MAX)]
    worker.step()
    status = db.webhooks.status("a")
    assert LANES_MAX <= status.waiting < 2 * LANES_MAX
    assert status.position < versions[2 * LANES_MAX]
    transport.answers.clear()
    clock.advance(10 * SECOND)
    worker.step()
    assert sorted(version for _, version in transport.got) == versions


def test_one_thing_that_fails_and_changes_much_stops_at_a_limit(db, worker, transport, clock):
    db.webhooks.add("a", URL)
    transport.answers["k"] = failing()
    versions = [db.kv.put("k", number) for number in range(1500)]
    worker.step()
    assert db.webhooks.status("a").waiting == 1000
    transport.answers.clear()
    clock.advance(10 * SECOND)
    worker.step()
    assert transport.of("k") == versions


def test_what_is_due_is_tried_whatever_else_waits(db, transport, clock):
    """Things that failed at different times: each is tried when its own time has come, and not before."""
    retries = Retries(first_s=20, factor=1)
    worker = Worker(db, transport=transport, senders=1, retries=retries, log=lambda *_, **__: None)
    db.webhooks.add("a", URL)
    transport.answers["*"] = failing()
    for name in "ebdacf":
        db.kv.put(name, 1)
        worker.step()
        clock.advance(2 * SECOND)
    rows = rows_of(home_of(db._store))
    transport.answers.clear()
    for _ in range(60):
        clock.advance(SECOND // 2)
        lanes = rows.scan("lane/", None, None, False, None)
        before = len(transport.got)
        worker.step()
        assert len(transport.got) - before == sum(row["due"] <= clock() for _, row in lanes)
    assert len(transport.got) == 6


def test_gone_pauses_and_nothing_is_lost(db, worker, transport):
    db.webhooks.add("a", URL)
    transport.answers["k"] = Answer(410, "it answered 410")
    versions = [db.kv.put("k", 1), db.kv.put("k", 2)]
    worker.step()
    assert "410" in db.webhooks.get("a").paused and "410" in db.webhooks.status("a").paused
    versions.append(db.kv.put("k", 3))
    transport.answers.clear()
    worker.step()
    assert transport.got == []
    db.webhooks.resume("a")
    worker.step()
    assert transport.of("k") == versions and db.webhooks.get("a").paused is None


def test_paused_by_hand(db, worker, transport):
    db.webhooks.add("a", URL)
    db.webhooks.pause("a", "the receiver moves")
    versions = [db.kv.put("k", number) for number in range(3)]
    worker.step()
    assert transport.tried == [] and db.webhooks.get("a").paused == "the receiver moves"
    db.webhooks.resume("a")
    worker.step()
    assert transport.of("k") == versions


def test_retry_after_is_for_the_whole_hook_and_within_limits(db, worker, transport, clock):
    db.webhooks.add("a", URL)
    transport.answers["k"] = failing(429, 100)
    db.kv.put("k", 1)
    worker.step()
    db.kv.put("l", 1)
    transport.answers["k"] = failing(503, 1e9)
    clock.advance(99 * SECOND)
    worker.step()
    assert transport.got == [] and len(transport.tried) == 1
    clock.advance(1 * SECOND)
    worker.step()
    assert len(transport.tried) == 2
    assert db.webhooks.status("a").retry_time == clock() + 3600 * SECOND
    transport.answers.clear()
    clock.advance(3600 * SECOND)
    worker.step()
    assert {key for key, _ in transport.got} == {"k", "l"}
    transport.answers["*"] = failing(500, 100)  # an answer that means only this message
    db.kv.put("m", 1)
    worker.step()
    transport.answers.clear()
    db.kv.put("n", 1)
    worker.step()
    assert transport.got[-1][0] == "n"


def test_a_transport_that_raises_is_a_failure(db, worker, transport, clock):
    db.webhooks.add("a", URL)

    def broken():
        raise RuntimeError("a bug")

    transport.answers["k"] = broken
    db.kv.put("k", 1)
    worker.step()
    assert db.webhooks.status("a").error == "RuntimeError: a bug"
    transport.answers.clear()
    clock.advance(10 * SECOND)
    worker.step()
    assert db.webhooks.status("a").error is None and len(transport.got) == 1


def test_senders_work_side_by_side(db, clock):
    """Four things at once: each sender waits for the others, which only comes to an end if they are there."""
    meet, transport = threading.Barrier(4), Remembers()
    transport.answers["*"] = lambda: Answer(200, None) if meet.wait(20) >= 0 else failing()
    db.webhooks.add("a", URL)
    for name in "abcd":
        db.kv.put(name, 1)
    worker = Worker(db, transport=transport, senders=4)
    worker.step()
    assert sorted(key for key, _ in transport.got) == list("abcd")
    worker.stop()


def test_too_many_dead_letters_pause_the_hook(db, transport, monkeypatch):
    monkeypatch.setattr("strata.worker.delivery.DEAD_MAX", 3)
    worker = Worker(db, transport=transport, senders=1, retries=Retries(attempts=1))
    db.webhooks.add("a", URL)
    transport.answers["*"] = failing()
    for number in range(200):
        db.kv.put(f"{number}", 1)
    worker.step()
    assert "dead letters" in db.webhooks.get("a").paused
    assert 3 <= db.webhooks.status("a").dead <= 64
    transport.answers.clear()
    db.webhooks.retry("a")
    db.webhooks.resume("a")
    worker.step()
    assert len({key for key, _ in transport.got}) == 200


def test_what_goes_wrong_here_is_told_by_the_status(db, worker, transport, monkeypatch):
    from strata.worker import delivery

    db.webhooks.add("a", URL)
    db.kv.put("k", 1)

    def broken(*_):
        raise RuntimeError("a bug of ours")

    whole = delivery.messages_of
    monkeypatch.setattr(delivery, "messages_of", broken)
    with pytest.raises(RuntimeError):
        worker.step()
    assert db.webhooks.status("a").error == "not tried: RuntimeError: a bug of ours"
    monkeypatch.setattr(delivery, "messages_of", whole)
    worker.step()
    assert db.webhooks.status("a").error is None and transport.of("k")


def test_how_far_it_is_is_written_down_also_where_nothing_is_told(db, worker, transport, clock):
    db.webhooks.add("a", URL, primitive="events")
    home = home_of(db._store)
    worker.step()
    for number in range(5):
        db.kv.put("k", number)
        before = home.head
        worker.step()
    assert home.head == before  # which costs no commit for each
    (delivery,) = worker._deliveries.values()
    assert clock() < delivery.round() <= clock() + 60 * SECOND  # it is not left at that, though
    clock.advance(70 * SECOND)
    worker.step()
    assert db.webhooks.status("a").position == db.version


def test_a_crash_in_the_middle_of_a_large_commit(db, clock):
    """None of its things is lost, and what was written down does not come again."""
    db.webhooks.add("a", URL)
    names = [f"{number:03}" for number in range(200)]
    db.kv.put_many(dict.fromkeys(names, 1))
    db.kv.put("last", 1)
    delivered = []

    def dying(after):
        left = [after]

        def transport(url, headers, body):
            if not left[0]:
                raise KeyboardInterrupt
            left[0] -= 1
            delivered.append(json.loads(body)["data"]["key"])
            return Answer(200, None)

        return transport

    for after in (100, 70, 10, 1000):
        with contextlib.suppress(KeyboardInterrupt):
            Worker(db, transport=dying(after), senders=1).step()
        clock.advance(60 * SECOND)  # its lease runs out
    assert [*dict.fromkeys(delivered)] == [*names, "last"]
    # 64 a round: 100 = 64 + 36 that come again, then 70 = 64 + 6, then 10 of a round, and all.
    assert len(delivered) == 201 + 36 + 6 + 10


def test_a_hook_that_gets_the_name_of_another_is_told_its_own(db, worker, transport):
    db.webhooks.add("a", URL)
    db.kv.put("k", 1)
    worker.step()
    db.webhooks.remove("a")
    db.webhooks.add("a", URL, prefix="x")
    db.kv.put("l", 1)
    db.kv.put("x", 1)
    worker.step()
    assert [key for key, _ in transport.got] == ["k", "x"]


def test_a_position_that_its_branch_never_got_to_is_a_gap(db, worker, transport):
    db.webhooks.add("a", URL)
    rows = rows_of(home_of(db._store))
    (key,) = rows.scan_keys("at/", None, None, False, None)
    rows.put(key, rows.get(key) | {"position": db.version + 1000})
    worker.step()
    db.kv.put("k", 1)
    worker.step()
    assert transport.of("k") and db.webhooks.status("a").gaps == 1


# -- history that is gone


def test_a_gap_is_told_and_it_goes_on(tmp_path, transport):
    with strata.open(tmp_path / "a.strata") as db:
        worker = Worker(db, transport=transport, log=lambda *_, **__: None)
        db.webhooks.add("a", URL, primitive="kv")
        db.webhooks.pause("a")
        for number in range(10):
            db.kv.put("k", number)
        db.retention.set(strata.KeepLast(1))
        db.compact()
        last = db.kv.put("k", "last")
        db.webhooks.resume("a")
        worker.step()
        status = db.webhooks.status("a")
        assert status.gaps == 1
        assert transport.got[-1] == ("k", last) and len(transport.got) < 11
        assert db.webhooks.status("a").position == last


def test_what_was_forgotten_is_not_kept_for_a_hook(tmp_path, clock):
    """What waits for a receiver, what was given up, and what waited once: a copy each, and none may stay."""
    transport, path = Remembers(), tmp_path / "a.strata"
    retries = Retries(attempts=2, first_s=60, factor=1)
    with strata.open(path, clock=clock) as db:
        worker = Worker(db, transport=transport, senders=1, retries=retries, log=lambda *_, **__: None)
        db.webhooks.add("a", URL)
        for key in ("delivered", "dead", "waiting"):
            transport.answers[key] = failing()
            db.kv.put(key, f"sesame-{key}")
            db.space("other").kv.put(key, f"other-{key}")
            worker.step()
            if key == "delivered":
                transport.answers.clear()
            clock.advance(0 if key == "waiting" else 100 * SECOND)
            worker.step()
        status = db.webhooks.status("a")
        assert (status.waiting, status.dead, status.delivered) == (2, 2, 2)

        def kept():
            """All that is kept of rows for hooks, of older versions too."""
            home = home_of(db._store)
            return str(home.writes(0, home.head))

        assert kept().count("sesame") >= 3 and kept().count("other") >= 3
        for key in ("delivered", "dead", "waiting"):
            db.forget("kv", key)
        assert "sesame" not in kept() and kept().count("other") >= 2
        assert [letter.space for letter in db.webhooks.dead("a")] == ["other"]
        assert db.webhooks.status("a").waiting == 1
        transport.answers.clear()
        clock.advance(100 * SECOND)
        worker.step()
        assert transport.got[-1][0] == "waiting" and db.webhooks.status("a").waiting == 0
        worker.stop()


# -- any history


@st.composite
def plans(draw):
    """What happens: commits of one or several keys, failures, crashes of the worker, and time that passes."""
    keys = st.sampled_from("abc")
    commit = st.tuples(st.just("commit"), st.sets(keys, min_size=1))
    moment = st.one_of(
        commit,
        st.tuples(st.just("step"), st.none()),
        st.tuples(st.just("fail"), keys),
        st.tuples(st.just("heal"), st.none()),
        st.tuples(st.just("crash"), st.integers(1, 8)),
        st.tuples(st.just("pass"), st.sampled_from([1, 60, 3600])),
        st.tuples(st.just("restart"), st.none()),
        st.tuples(st.just("take over"), st.none()),
        st.tuples(st.sampled_from(["pause", "resume"]), st.none()),
    )
    return draw(st.lists(moment, max_size=40))


class Dying(Remembers):
    """Delivers or fails; and after so many messages the process ends, and nobody hears of the last one."""

    def __init__(self) -> None:
        super().__init__()
        self.left, self.failures = 0, set()

    def __call__(self, url, headers, body):
        if json.loads(body)["data"]["key"] in self.failures:
            return failing()
        answer = super().__call__(url, headers, body)
        self.left -= 1
        if self.left == 0:
            raise KeyboardInterrupt
        return answer


@settings(max_examples=60, deadline=None)
@given(plan=plans(), kind=st.sampled_from(["model", "kernel"]))
def test_each_change_is_delivered_at_least_once_and_in_order(plan, kind):
    """Whatever fails and dies when: none is lost, and the first deliveries of a thing come in its order."""
    clock, transport = FakeClock(), Dying()
    with databases.make(kind, clock) as db:
        db.webhooks.add("a", URL)
        committed = {key: [] for key in "abc"}

        def fresh():
            return Worker(
                db, transport=transport, senders=1, retries=Retries(attempts=10**6, age_s=1e9),
                log=lambda *_, **__: None,
            )  # fmt: skip

        worker = fresh()

        def step():
            nonlocal worker
            try:
                worker.step()
            except KeyboardInterrupt:
                worker = fresh()  # the old one is gone with its lease
                clock.advance(31 * SECOND)

        for what, given_ in plan:
            match what:
                case "commit":
                    version = db.kv.put_many(dict.fromkeys(given_, clock()))
                    for key in given_:
                        committed[key].append(version)
                case "step":
                    step()
                case "fail":
                    transport.failures.add(given_)
                case "heal":
                    transport.failures.clear()
                case "crash":
                    transport.left = given_
                case "pass":
                    clock.advance(given_ * SECOND)
                case "restart":
                    worker.stop()
                    worker = fresh()
                case "take over":
                    clock.advance(31 * SECOND)
                    worker = fresh()
                case "pause":
                    db.webhooks.pause("a")
                case "resume":
                    db.webhooks.resume("a")
        transport.failures.clear()
        transport.left = 0
        db.webhooks.resume("a")
        for _ in range(3):
            clock.advance(DAY)
            step()
        for key, versions in committed.items():
            assert list(dict.fromkeys(transport.of(key))) == versions
        status = db.webhooks.status("a")
        assert (status.waiting, status.dead, status.gaps) == (0, 0, 0)
        assert status.position == db.version
        worker.stop()
