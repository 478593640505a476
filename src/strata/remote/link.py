"""The link of a store to its channel: calls, and what becomes of them when the other side goes away.

A thing that a handle stands for knows how it was opened, so on another channel it is opened again and used
on: branches by their id, views by version and time. An open transaction cannot be: TransactionLost.

A call whose answer did not come is made again where it may be: reads always, writes with the idempotency key
that each of them carries for this. The rest (making and deleting branches, and the like) is OutcomeUnknown.
Where each new channel is lost as well, that ends after some time, too.
"""

from __future__ import annotations

import os
import random
import threading
import time
import weakref
from collections.abc import Callable
from typing import Any, Final

from strata.core.errors import Closed, Locked, OutcomeUnknown, RemoteError, TransactionLost
from strata.remote.channel import Channel, Lost, Progress
from strata.wire.asks import ASKS
from strata.wire.frames import ABSENT

PATIENCE_S: Final = 20.0  # with channels that are lost again and again
_LOSSES_LEAST: Final = 3  # whatever time they took: a call may be long
_PAUSE_MIN_S: Final = 0.005
_PAUSE_MAX_S: Final = 0.5
Connect = Callable[[int], Channel]  # a new channel of the given number; raises when there is none to be had


class Link:
    """Which channel to use now."""

    def __init__(self, connect: Connect, channel: Channel, patience_s: float = PATIENCE_S) -> None:
        """Use `channel`, and after it what `connect` gives.

        Args:
            patience_s: for how long one call goes on with channels of which each is lost.
        """
        self.patience_s = patience_s
        self._connect = connect
        self._channel = channel
        self._lock = threading.Lock()
        self._numbers = channel.number
        self.is_closed = False
        # Of keys that make a write happen at most once: no two links have the same, nor two calls of one.
        self._name = os.urandom(12).hex()
        self._count = 0
        _links.add(self)

    @property
    def channel(self) -> Channel:
        """The channel that is used now.

        Raises: Closed.
        """
        if self.is_closed:
            raise Closed("the database is closed")
        return self._channel

    def once(self) -> str:
        """Return a key for one write."""
        with self._lock:
            self._count += 1
            return f"_{self._name}-{self._count}"

    def renew(self, lost: Channel) -> None:
        """Find another channel in the place of one that is lost, unless that was done already.

        Raises: what connecting raises; Closed.
        """
        with self._lock:
            if self.is_closed:
                raise Closed("the database is closed")
            if self._channel is lost:
                lost.close()
                self._numbers += 1
                self._channel = self._connect(self._numbers)

    def close(self) -> None:
        self.is_closed = True
        with self._lock:  # a channel that is being found is closed, too, and not left behind
            self._channel.close()


class Losses:
    """How often one call has lost its channel, and when it is asked no more."""

    def __init__(self, patience_s: float) -> None:
        self._until = time.monotonic() + patience_s
        self.count = 0

    def go_on(self) -> bool:
        """Return whether to ask again, after a pause: none at first, then longer and longer ones."""
        self.count += 1
        if self.count == 1:
            return True
        pause_s = random.uniform(0, min(_PAUSE_MIN_S * 2**self.count, _PAUSE_MAX_S))
        if self.count >= _LOSSES_LEAST and time.monotonic() + pause_s > self._until:
            return False
        time.sleep(pause_s)
        return True


class Thing:
    """What a handle stands for at the other side, here."""

    __slots__ = ("__weakref__", "_arguments", "_asks", "_channel", "_handle", "_link", "_method", "_parent")

    KIND: str

    def __init__(self, link: Link, parent: Thing | None, method: str, arguments: tuple[Any, ...]) -> None:
        self._link = link
        self._parent = parent
        self._method = method
        self._arguments = arguments
        self._channel: Channel | None = None  # where it was opened last
        self._handle = 0
        self._asks = ASKS[self.KIND]

    def _find(self, channel: Channel) -> int:
        """Return the handle on a channel, opened there if need be."""
        if self._channel is not channel:
            assert self._parent is not None, "the root is open on every channel"
            self._handle = channel.open(self._parent._find(channel), self._method, self._arguments)
            self._channel = channel
        return self._handle

    def _call(
        self, method: str, *arguments: Any, progress: Progress | None = None, other: Thing | None = None
    ) -> Any:
        """Return what a method returns, or raise what it raises.

        Args:
            other: a thing that goes in front of the arguments, by its handle.
        """
        ask = self._asks[method]
        once = self._link.once() if ask.once and self._writes_itself() else None
        is_again, losses = False, None
        while True:
            channel = self._link.channel
            try:
                handle = self._find(channel)
                given = arguments if other is None else (other._find(channel), *arguments)
                # What was asked elsewhere before may have happened, so it needs its key also where nothing
                # can be lost.
                key = once if is_again or channel.can_be_lost else None
                return channel.call(handle, method, given, key, progress)
            except Lost as lost:
                is_again = is_again or lost.sent
                self._renew(channel, method, once=once, may_be_made=is_again and ask.access != "read")
                self._check_again(method, is_again=is_again, once=once)
                losses = losses or Losses(self._link.patience_s)
                if not losses.go_on():
                    raise _given_up(method, losses.count, once if is_again else None) from None

    def _renew(self, lost: Channel, method: str, *, once: str | None, may_be_made: bool) -> None:
        """Find another channel. Where there is none, nobody knows what became of a write that was sent."""
        try:
            self._link.renew(lost)
        except (RemoteError, Locked) as error:
            if not may_be_made:
                raise
            raise OutcomeUnknown(
                f"the other side went away during {method}: {error}",
                transaction=once or "",
                hint="look what became of it",
            ) from error

    def _writes_itself(self) -> bool:
        return True

    def _check_again(self, method: str, *, is_again: bool, once: str | None) -> None:
        """Raise unless a call that was lost may be made again."""
        ask = self._asks[method]
        if is_again and ask.access != "read" and once is None:
            raise OutcomeUnknown(
                f"the other side went away during {method}", transaction="", hint="look what became of it"
            )

    def __del__(self) -> None:
        channel = getattr(self, "_channel", None)
        if channel is not None and self._handle:
            channel.release(self._handle)


def _given_up(method: str, times: int, once: str | None) -> Exception:
    """Return the error of a call that lost its channel too often; `once` when it may have been made."""
    said = f"the connection was lost {times} times during {method}"
    if once is not None:
        return OutcomeUnknown(said, transaction=once, hint="look what became of it")
    return RemoteError(said, hint="something between here and the server may end connections")


class Bound(Thing):
    """What belongs to one channel and ends with it: a transaction, and what is inside one."""

    __slots__ = ()

    def _find(self, channel: Channel) -> int:
        if self._channel is None:
            return super()._find(channel)
        if self._channel is not channel:
            raise TransactionLost()
        return self._handle

    def _check_again(self, method: str, *, is_again: bool, once: str | None) -> None:
        raise TransactionLost()


def or_default(value: Any, default: Any) -> Any:
    """Return what a read gave, or the default where nothing was."""
    return default if value is ABSENT else value


# In a forked child the connections are its parent's: what is sent on them would be taken for the parent's.
_links: Final[weakref.WeakSet[Link]] = weakref.WeakSet()


def _after_fork_in_child() -> None:
    for link in list(_links):
        link.is_closed = True


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)
