"""Watches: the log on its way to those who subscribed, page by page.

There is no queue that could overflow. A subscription holds a position in the log, and goes on from there
whenever its client has room and there is more: so a slow client gets all of it later, and holds nobody up. It
ends, and is told so, only where what comes next cannot be read any more.

Who waits for commits is one thread, and only while there are subscriptions. Commits that come through this
listener are noticed without it.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Final

from strata.core.errors import LimitExceeded, StrataError
from strata.server.rcp.envelopes import End, encode
from strata.server.rcp.frames import PAYLOAD_BYTES_MAX
from strata.server.rcp.log import Record

if TYPE_CHECKING:
    from strata.server.rcp.listener import Listener
    from strata.server.rcp.subscriptions import Subscription

# JS and .NET clients drop what comes before the answer to WATCH has reached their user's code.
HELD_S: Final = 0.025
# Between pages of a replay: some clients keep 256 events for their users, and drop the oldest.
PACE_S: Final = 0.005
_NEAR: Final = 256  # commits behind the head that are read at once; more is read by a thread
_WAIT_S: Final = 10.0  # after which the waiting thread looks whether somebody still watches
Read = tuple[int, list[Record]] | StrataError


class Watches:
    """All subscriptions of a listener."""

    def __init__(self, listener: Listener) -> None:
        self._listener = listener
        self._log = listener.log
        self._all: dict[str, Subscription] = {}
        self._is_waiting = False
        self._is_told = False
        self.sent: Counter[str] = Counter()  # events, by kind

    def __len__(self) -> int:
        return len(self._all)

    def count(self, kind: str) -> int:
        """Return how many there are of a kind."""
        return sum(one.kind == kind for one in [*self._all.values()])

    def add(self, made: Subscription) -> None:
        """Take a subscription in, whose answer is on its way."""
        self._all[made.id] = made
        self._wait()

    def begin(self, made: Subscription) -> None:
        """Let the events of a subscription come, in a moment."""
        self._listener.server.loop.call_later(HELD_S, self._release, made)

    def remove(self, id: str) -> None:
        """Forget a subscription."""
        found = self._all.pop(id, None)
        if found is not None:
            found.is_over = True
            found.rest.clear()
        if not self._all:
            self._log.forget_page()

    def end(self, one: Subscription, reason: str) -> None:
        """Tell a client that nothing more comes, and forget the subscription."""
        if one.is_over:
            return
        self.remove(one.id)
        one.connection.forget(one)
        one.connection.push(encode(End(one.id, reason)), one.is_line)
        one.connection.flush()

    def moved(self) -> None:
        """Note that there may be new commits. They are looked at once the answers are out."""
        if self._all and not self._is_told:
            self._is_told = True
            self._listener.server.loop.call_soon(self._look)

    def _look(self) -> None:
        self._is_told = False
        for one in [*self._all.values()]:
            self.go_on(one)

    def _release(self, one: Subscription) -> None:
        one.is_held = False
        self.go_on(one)

    def go_on(self, one: Subscription) -> None:
        """Send what there is for a subscription, as far as its client has room."""
        while not (one.is_held or one.is_reading or one.is_over) and one.connection.has_room:
            if one.rest:
                self._send(one)
                continue
            try:
                behind = self._log.head - one.after
                if behind <= 0:
                    one.is_replay = False
                    return
                if behind > _NEAR:
                    self._read_behind(one)
                    return
                self._take(one, self._log.page(one.after))
            except StrataError as error:
                self.end(one, str(error))

    def _take(self, one: Subscription, page: tuple[int, list[Record]]) -> None:
        one.after = page[0]
        one.rest.extend(page[1])

    def _send(self, one: Subscription) -> None:
        """Send what is left of a page. It is not taken as a whole where the client does not read."""
        connection, rest = one.connection, one.rest
        while rest and connection.has_room:
            record = rest.popleft()
            said = one.event(record)
            if said is not None and len(said) > PAYLOAD_BYTES_MAX:
                self.end(one, f"the event at offset {record.offset} is larger than a frame may be")
            elif said is not None:
                self.sent[one.kind] += 1
                connection.push(said, one.is_line)
        connection.flush()

    def _read_behind(self, one: Subscription) -> None:
        """Let a thread read a page of what is far behind."""

        def read() -> Read:
            try:
                return self._log.page(one.after)
            except StrataError as error:
                return error

        one.is_reading = True
        server = self._listener.server
        server.run(server.reading, one.connection, read, lambda found: self._was_read(one, found))

    def _was_read(self, one: Subscription, found: Read) -> None:
        one.is_reading = False
        if one.is_over:
            return
        if isinstance(found, StrataError):
            self.end(one, str(found))
            return
        self._take(one, found)
        self._send(one)
        if one.rest:
            return  # until the client reads
        if one.is_replay:
            self._listener.server.loop.call_later(PACE_S, self.go_on, one)
        else:
            self.go_on(one)

    # -- commits that others make

    def _wait(self) -> None:
        if self._is_waiting or not self._all or self._listener.server.is_draining:
            return
        self._is_waiting = True
        branch, seen = self._listener.branch, self._log.head

        def wait() -> str | None:
            try:
                branch.wait(seen, _WAIT_S, branch.sealed, self._is_done)
            except StrataError as error:
                return str(error)
            return None

        try:
            self._listener.server.wait(self, wait, self._waited)
        except LimitExceeded:  # others wait with all threads there are for it
            self._is_waiting = False
            self._listener.server.loop.call_later(_WAIT_S, self._wait)

    def _is_done(self) -> bool:
        return not self._all or self._listener.server.is_draining

    def _waited(self, failed: str | None) -> None:
        self._is_waiting = False
        for one in [*self._all.values()]:
            if failed is None:
                self.go_on(one)
            else:
                self.end(one, failed)
        self._wait()
