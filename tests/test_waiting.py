"""Waiting at the seam: for what becomes of a branch, over oracle and kernel."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest
import stores

from strata.errors import Closed, NotFound


def test_waiting_ends_with_news_and_not_before(store):
    branch = store.branch("main")
    place = stores.Place(store)
    assert branch.wait(branch.head, 0) == branch.head
    version = place.kv.put("k", 1)
    assert branch.wait(version - 1) == version == branch.wait(version, 0.001)
    asked: list[int] = []
    assert branch.wait(version, None, None, lambda: bool(asked) or asked.append(1)) == version
    store.seal("main", "for a while")
    assert branch.wait(version) == version  # it is sealed for another reason than none
    assert branch.wait(version, 0, "for a while") == version and branch.sealed == "for a while"
    store.seal("main", None)
    assert branch.sealed is None and branch.oldest() == 0


def test_there_is_nothing_to_wait_for_once_the_branch_or_the_store_is_gone(store):
    store.create("b")
    main, other = store.branch("main"), store.branch("b")
    store.delete("b")
    for ask in (lambda: other.wait(0), lambda: other.sealed, other.oldest):
        with pytest.raises(NotFound):
            ask()
    store.close()
    for ask in (lambda: main.wait(0), lambda: main.sealed, main.oldest):
        with pytest.raises(Closed):
            ask()


@pytest.mark.parametrize("happens", ["commit", "seal", "delete", "close"])
def test_who_waits_is_woken(store, happens):
    store.create("b")
    branch = store.branch("b")
    acts: dict[str, Callable[[], object]] = {
        "commit": lambda: stores.Place(store, "b").kv.put("k", 1),
        "seal": lambda: store.seal("b", "it is over"),
        "delete": lambda: store.delete("b"),
        "close": store.close,
    }
    ended: list[type] = []

    def wait() -> None:
        try:
            ended.append(type(branch.wait(branch.head)))
        except (NotFound, Closed) as error:
            ended.append(type(error))

    threads = [threading.Thread(target=wait) for _ in range(3)]
    for thread in threads:
        thread.start()
    acts[happens]()
    for thread in threads:
        thread.join(60)
    wanted = {"delete": {NotFound}, "close": {Closed}}.get(happens, {int})
    assert len(ended) == 3 and set(ended) <= wanted | {int}


def test_two_that_answer_each_other_lose_no_call(store):
    """Each waits for the other's commit before its own. Here a call that was lost would only be
    late: the twin in kernel/strata-kernel/tests/wait.rs would hang."""
    rounds = 1000
    for name in ("ping", "pong"):
        store.create(name)
    heads = {name: store.branch(name).head for name in ("ping", "pong")}

    def play(mine: str, other: str) -> None:
        place, opposite, heard = stores.Place(store, mine), store.branch(other), heads[other]
        for number in range(rounds):
            if mine == "pong":
                heard = opposite.wait(heard)
            place.kv.put("k", number)
            if mine == "ping":
                heard = opposite.wait(heard)

    threads = [threading.Thread(target=play, args=names) for names in (("ping", "pong"), ("pong", "ping"))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not any(thread.is_alive() for thread in threads)
    for name in ("ping", "pong"):
        assert len(store.branch(name).commits(None, None, False, None)) == rounds
