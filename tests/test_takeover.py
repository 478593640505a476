"""What becomes of a call whose answer was lost, when who asked becomes the owner of the store: it is asked
again, and happens once."""

from __future__ import annotations

from typing import Any

import pytest
import stores

from strata.core.errors import NotFound, TransactionLost
from strata.primitives import Events, Kv
from strata.remote.channel import LocalChannel, Lost
from strata.remote.link import Link
from strata.remote.store import RemoteStore
from strata.wire.session import Session


class Dying(LocalChannel):
    """A channel whose other side does the n-th write and dies, before or after that."""

    can_be_lost = True

    def __init__(self, session: Session, *, does: bool) -> None:
        super().__init__(session, 1)
        self._does = does
        self.dies = False
        self.dies_at: str | None = None  # a method

    def call(self, handle: int, method: str, arguments: Any, once: str | None, progress: Any) -> Any:
        if not self.dies and method != self.dies_at:
            return super().call(handle, method, arguments, once, progress)
        if self._does:
            super().call(handle, method, arguments, once, progress)
        self._session.close()
        raise Lost("it died", sent=True)


@pytest.fixture(params=[True, False], ids=["did it", "did not"])
def place(request, store):
    """A remote store whose channel dies with its next call, and who asks becomes the owner."""
    channel = Dying(Session(store), does=request.param)
    remote = RemoteStore(Link(lambda number: LocalChannel(Session(store), number), channel))
    yield stores.Place(remote), channel
    remote.close()


def test_an_append_is_there_once(place, store):
    place, channel = place
    place.events.append("t", {"n": 0})
    channel.dies = True
    assert place.events.append("t", {"n": 1}).sequence == 1
    assert [event.payload for event in stores.Place(store).events] == [{"n": 0}, {"n": 1}]
    assert place.events.append("t", {"n": 2}).sequence == 2


def test_an_addition_is_made_once(place, store):
    place, channel = place
    txn = place.branch.keyspace("default", Kv.LAYOUT)
    assert txn.add("n", 5) == 1
    channel.dies = True
    assert txn.add("n", 5) == 2
    assert store.branch("main").keyspace("default", Kv.LAYOUT).get("n") == 10
    assert txn.delete("n") is True
    assert txn.delete("n") is False


@pytest.mark.parametrize(
    "write",
    [
        lambda place: place.state.set("s", 2),
        lambda place: place.kv.cas("k", 2, expected=1),
        lambda place: place.json.create("d", {"n": 2}),
    ],
    ids=["state.set", "kv.cas", "json.create"],
)
@pytest.mark.parametrize("at", ["at the read", "at the commit"])
def test_a_step_that_reads_and_writes_is_done_once(place, store, write, at):
    place, channel = place
    place.state.set("s", 1)
    place.kv.put("k", 1)
    if at == "at the read":
        channel.dies = True
    else:
        channel.dies_at = "finish"
    version = write(place)
    assert version == 3 == place.branch.head
    there = stores.Place(store)
    assert 2 in (there.state.get("s"), there.kv.get("k"), there.json.get("d", "$.n"))


def test_a_commit_is_made_once_or_lost(place, store):
    place, channel = place
    inside = place.begin()
    inside.kv.put("a", 1)
    channel.dies = True
    try:
        version = inside.commit()
    except TransactionLost as error:
        assert error.hint
        version = 0
    assert store.branch("main").head == version


def test_a_key_that_was_given_counts_also_where_the_store_is_ours(store):
    remote = RemoteStore(
        Link(lambda number: pytest.fail("nothing was lost"), LocalChannel(Session(store), 1))
    )
    for _ in range(2):
        transaction = remote.branch("main").begin()
        transaction.keyspace("default", Events.LAYOUT).append(b"main\0", "t", {})
        assert transaction.commit(None, None, None, "mine") == 1
    assert store.branch("main").result_of("mine") == 1
    remote.close()


def renamed(store):
    store.rename("draft", "final")


def renamed_and_its_name_taken(store):
    store.rename("draft", "final")
    stores.Place(store, store.fork("main", "draft") and "draft").kv.put("k", "another")


def renamed_twice(store):
    store.rename("draft", "between")
    store.rename("between", "final")


@pytest.mark.parametrize("happens", [renamed, renamed_and_its_name_taken, renamed_twice])
def test_a_branch_that_another_process_renamed_is_still_that_branch(place, store, happens):
    """It was looked for by its old name at who took over, and was not found, or was another one."""
    place, channel = place
    place.store.fork("main", "draft")
    draft = stores.Place(place.store, "draft")
    draft.kv.put("k", 1)
    view = draft.at(draft.branch.head)
    happens(store)
    channel.dies = True
    assert (draft.kv.get("k"), draft.branch.name) == (1, "final")
    draft.kv.put("k", 2)
    assert stores.Place(store, "final").kv.get("k") == 2 and view.kv.get("k") == 1
    with pytest.raises(NotFound):
        stores.Place(place.store, "between")


def deleted(store):
    store.delete("draft")


def deleted_and_its_name_taken(store):
    store.delete("draft")
    store.fork("main", "draft")


@pytest.mark.parametrize("happens", [deleted, deleted_and_its_name_taken])
def test_a_branch_that_another_process_deleted_is_no_other_one(place, store, happens):
    place, channel = place
    place.store.fork("main", "draft")
    draft = stores.Place(place.store, "draft")
    happens(store)
    channel.dies = True
    with pytest.raises(NotFound) as caught:
        draft.kv.put("k", 1)
    assert (caught.value.what, caught.value.name) == ("branch", "draft")
