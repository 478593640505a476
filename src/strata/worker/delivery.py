"""Delivery: what one hook is told, in rounds.

A round takes what is due of what failed before, and the next messages of the log; sends them, those of one
thing one after the other, those of others beside them; and writes down in one commit what became of them.
What was delivered before a crash and not written down is sent once more, by the same id: at least once. A
thing whose delivery failed is *parked*: what is newer of it waits behind it, in rows of its own, and the
position goes on. When too much is parked nothing more is taken: the log is the queue.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, Final

from msgspec.structs import replace

from strata.api.webhooks_rows import Dead, Hook, Lane, Message, Progress, branch_of, read, scan, write
from strata.core.atomic import atomically
from strata.core.errors import Closed, HistoryTrimmed, NotFound, StrataError
from strata.core.protocols import Branch, Store, Txn
from strata.history.watch import Watch
from strata.worker.leases import has_lease
from strata.worker.messages import limits_of, messages_of
from strata.worker.retries import Retries
from strata.worker.sending import Answer, Transport
from strata.worker.signing import signed

NEVER: Final = 1 << 62  # an instant
LANES_MAX: Final = 100  # things that are parked, before no more is taken
WAITING_MAX: Final = 1000  # messages that are
_BATCH: Final = 64  # messages of a round
_ROUND_S: Final = 5.0  # then what is left of it waits for the next one
_LATER_US: Final = 60_000_000  # until it is written down how far a hook is that had nothing to be told
DEAD_MAX: Final = 1000  # dead letters; then a hook is paused, as more of them help nobody
_NO_BRANCH: Final = "_none"
_WAITS: Final = (429, 503)  # answers that mean the whole hook
Log = Callable[..., None]


@dataclass(slots=True)
class Work:
    """What is to be sent of one thing, and what became of it."""

    lane: str
    before: Lane | None = None  # where it was parked already
    messages: list[Message] = field(default_factory=list)
    stored: int = 0  # how many of the messages, from the first, are in rows
    is_whole: bool = True  # whether no others are in rows
    answers: list[Answer] = field(default_factory=list)  # of the messages in their order, as far as it got


class LeaseLost(Exception):
    """Somebody else delivers now."""


class Cursor:
    """The messages of a hook from a place in its log on, the same ones however often they are read."""

    def __init__(self, hook: Hook, branch: Branch, at: Progress) -> None:
        """Begin at a place. Raises: NotFound where the branch never got there, as after an import."""
        if at.position > branch.head:
            raise NotFound(what="version", name=str(at.position))
        self._hook = hook
        self._branch = branch
        self._watch = Watch(branch, at.position, limits_of(hook), hook.type)
        self._skip = at.within, at.offset
        self._coming: Iterator[Message | None] | None = None  # of the commit `within`
        self.position, self.within, self.offset = at.position, at.within, at.offset

    @property
    def seen(self) -> int:
        """Up to where the log was looked at."""
        return self._watch.version

    def take(self, most: int) -> list[Message]:
        """Return the next messages, as far as they are there; the place is then behind them.

        Raises: HistoryTrimmed; NotFound.
        """
        found: list[Message] = []
        while len(found) < most and (self._coming is not None or self._read()):
            found += self._some(most - len(found))
        return found

    def _read(self) -> bool:
        """Make the next commit that is watched ready; return whether there is one."""
        step = self._watch.next(timeout_s=0)
        if step is None:
            if self._watch.version > self.position:
                self.position, self.offset = self._watch.version, 0
            return False
        self.within, self.offset = step.version, 0
        self._coming = messages_of(self._hook, self._branch, step)
        if self._skip[0] == step.version:
            self.offset = sum(1 for _ in islice(self._coming, self._skip[1]))
        return True

    def _some(self, most: int) -> list[Message]:
        """Return further messages of the commit."""
        assert self._coming is not None
        found: list[Message] = []
        for message in self._coming:
            self.offset += 1
            found += [] if message is None else [message]
            if len(found) == most:
                return found
        self._coming = None
        self.position, self.offset = self.within, 0
        return found


class Delivery:
    """What one hook is told."""

    def __init__(
        self,
        store: Store,
        rows: Txn,
        name: str,
        holder: str,
        transport: Transport,
        *,
        retries: Retries,
        senders: int,
        log: Log,
    ) -> None:
        self.name = name
        self._store = store
        self._rows = rows
        self.holder = holder
        self._transport = transport
        self._retries = retries
        self._log = log
        self._cursor: Cursor | None = None
        self._written: tuple[str, tuple[int, int, int]] | None = None  # where the rows say that it is
        self._halt = threading.Event()  # until the end of a round
        self.stopped = threading.Event()
        self.has_begun = False  # whether a thread does its rounds
        self._pool = ThreadPoolExecutor(senders, "strata-send") if senders > 1 else None
        self._write_by = 0
        self.branch: Branch | None = None
        self.seen: int | None = None  # up to where its log was looked at; None where nothing of it is wanted

    def stop(self) -> None:
        """Let the round that is under way end after what is being sent."""
        self.stopped.set()

    def close(self) -> None:
        """Let go of what it holds."""
        self.stop()
        if self._pool is not None:
            self._pool.shutdown(wait=False)

    @property
    def now(self) -> int:
        """The clock of the database."""
        return self._rows.now

    def round(self) -> int:
        """Do what can be done now; return when to come again, 0 for at once.

        Raises: LeaseLost; StorageError and the like, after which the next round begins at what is written.
        """
        rows, self.seen = self._rows.pinned(), None
        hook = read(rows, f"hook/{self.name}", Hook)
        if hook is None or hook.paused is not None:
            self._cursor = None
            return NEVER
        at = read(rows, f"at/{hook.id}", Progress)
        assert at is not None, "it comes and goes with its hook"
        now = self._rows.now
        if at.not_before > now:
            return at.not_before
        try:
            return self._round(hook, at, rows, now)
        except BaseException as error:
            self._cursor = None  # what was taken and not written down comes again
            if isinstance(error, Exception) and not isinstance(error, LeaseLost | Closed):
                self._note(hook, error)
            raise

    def _round(self, hook: Hook, at: Progress, rows: Txn, now: int) -> int:
        lanes = dict(scan(rows, f"lane/{hook.id}/", Lane))
        work = self._parked(rows, hook, lanes, now)
        waiting = rows.count(f"message/{hook.id}/", None, None)
        room = min(_BATCH, WAITING_MAX - waiting) if len(lanes) < LANES_MAX else 0
        try:
            cursor = self._at(hook, at)
            taken = cursor.take(room) if room > 0 else []
        except (HistoryTrimmed, NotFound) as error:
            return self._lost(hook, at, error, now)
        behind: list[Message] = []
        for message in taken:
            if message.lane in lanes and not (message.lane in work and work[message.lane].is_whole):
                behind.append(message)
            else:
                work.setdefault(message.lane, Work(message.lane)).messages.append(message)
        self._send(hook, list(work.values()))
        # Where nothing was for the hook, how far it is need not be written each time.
        has_moved = cursor.position > at.position
        if work or behind or (has_moved and now >= self._write_by):
            self._settle(hook, list(work.values()), behind, cursor)
            self._write_by, has_moved = now + _LATER_US, False
        due = self._next(hook, cursor, room, len(taken))
        return min(due, self._write_by) if has_moved else due

    def _next(self, hook: Hook, cursor: Cursor, room: int, taken: int) -> int:
        """Return when there is more to do."""
        if room > 0:  # else nothing of the log is wanted, however much there is
            self.seen = cursor.seen
            if taken == room:
                return 0
        return min((lane.due for _, lane in scan(self._rows, f"lane/{hook.id}/", Lane)), default=NEVER)

    def _parked(self, rows: Txn, hook: Hook, lanes: dict[str, Lane], now: int) -> dict[str, Work]:
        """Return what is due of what failed before: what has waited longest, as much as a round takes."""
        found, room = dict[str, Work](), _BATCH
        for lane, row in sorted(lanes.items(), key=lambda item: item[1].due):
            if row.due > now or room == 0:
                break
            messages = list(scan(rows, f"message/{hook.id}/{lane}/", Message, room + 1))
            some = [message for _, message in messages[:room]]
            found[lane] = Work(lane, row, some, len(some), len(messages) <= room)
            room -= len(some)
        return found

    def _at(self, hook: Hook, at: Progress) -> Cursor:
        """Return where the log is to be read. Raises: NotFound."""
        place = at.position, at.within, at.offset
        if self._cursor is None or self._written != (hook.id, place):
            found = branch_of(self._store, hook)
            self.branch = self._store.branch(_NO_BRANCH if found is None else found.name)
            self._cursor = Cursor(hook, self.branch, at)
            self._written = hook.id, place
        return self._cursor

    def _lost(self, hook: Hook, at: Progress, error: HistoryTrimmed | NotFound, now: int) -> int:
        """Do what can be done where the log cannot be read; return when to come again."""
        self._cursor = None
        if isinstance(error, NotFound) and branch_of(self._store, hook) is None:
            self._pause(hook, "its branch was deleted, or is not in this copy: declare the hook again")
            return NEVER
        assert self.branch is not None
        self._jump(hook, at, error.oldest if isinstance(error, HistoryTrimmed) else self.branch.head)
        return now

    # -- sending

    def _send(self, hook: Hook, work: list[Work]) -> None:
        """Send what there is, until it fails, takes too long, or is to stop."""
        self._halt.clear()
        until = time.monotonic() + _ROUND_S

        def send(one: Work) -> None:
            for message in one.messages:
                if self._halt.is_set() or self.stopped.is_set() or time.monotonic() > until:
                    return
                answer = self._attempt(hook, message)
                one.answers.append(answer)
                if answer.is_gone or (answer.status in _WAITS and answer.retry_after_s):
                    self._halt.set()
                if not answer.is_ok:
                    return

        if self._pool is None or len(work) < 2:
            for one in work:
                send(one)
        else:
            list(self._pool.map(send, work))

    def _attempt(self, hook: Hook, message: Message) -> Answer:
        now = self._rows.now
        secrets = [secret for secret, until in hook.secrets if until is None or until > now]
        headers = {"Content-Type": "application/json", "User-Agent": "Strata-Webhooks"}
        headers |= signed(message.id, now // 1_000_000, message.body, secrets)
        try:
            answer = self._transport(hook.url, headers, message.body)
        except Exception as error:
            answer = Answer(0, f"{type(error).__name__}: {error}")
        said: dict[str, Any] = {"hook": hook.name, "id": message.id, "version": message.version}
        if not answer.is_ok:
            self._log("not delivered", level="warning", **said, why=answer.error)
        return answer

    # -- what became of it

    def _settle(self, hook: Hook, work: list[Work], behind: list[Message], cursor: Cursor) -> None:
        """Write down what became of a round, in one commit."""

        def settle(txn: Txn) -> bool:
            found = self._check(txn, hook)
            at = read(txn, f"at/{hook.id}", Progress)
            if found is None or at is None:
                return False
            for message in behind:
                write(txn, f"message/{hook.id}/{message.place}", message)
            for one in work:
                self._settle_one(txn, hook, one)
            answers = [answer for one in work for answer in one.answers]
            write(txn, f"at/{hook.id}", self._progress(at, answers, cursor, txn.now))
            why = self._why_to_pause(txn, hook, answers)
            if why is not None:
                write(txn, f"hook/{hook.name}", replace(found, paused=why))
            return True

        is_there = atomically(self._rows, settle)[0]
        self._written = hook.id, (cursor.position, cursor.within, cursor.offset)
        if not is_there:
            self._cursor = None  # the hook is gone, or another one has its name

    def _why_to_pause(self, txn: Txn, hook: Hook, answers: list[Answer]) -> str | None:
        if any(answer.is_gone for answer in answers):
            return "it answered 410: nothing more is wanted"
        has_failed = not all(answer.is_ok for answer in answers)
        if has_failed and txn.count(f"dead/{hook.id}/", None, None) >= DEAD_MAX:
            return f"{DEAD_MAX} dead letters: retry or discard them, and resume"
        return None

    def _settle_one(self, txn: Txn, hook: Hook, work: Work) -> None:
        """Write down what became of what was sent of one thing."""
        delivered = sum(answer.is_ok for answer in work.answers)
        for number, message in enumerate(work.messages):
            key = f"message/{hook.id}/{message.place}"
            if number < delivered:
                if number < work.stored:
                    txn.delete(key)
            elif number >= work.stored:
                write(txn, key, message)
        key = f"lane/{hook.id}/{work.lane}"
        lane = Lane() if delivered or work.before is None else work.before
        if len(work.answers) > delivered:
            lane = self._failed(txn, hook, lane, work.messages[delivered], work.answers[delivered])
        if txn.scan_keys(f"message/{hook.id}/{work.lane}/", None, None, False, 1):
            write(txn, key, lane)
        else:
            txn.delete(key)

    def _failed(self, txn: Txn, hook: Hook, lane: Lane, message: Message, answer: Answer) -> Lane:
        """Return the lane of a message that failed; one that failed too often is given up."""
        now, error = txn.now, answer.error or ""
        attempts, since = lane.attempts + 1, lane.since or now
        if answer.is_gone:
            return Lane(
                lane.attempts, since, 0, error
            )  # the hook is paused, and this is tried when it is not
        if not self._retries.is_over(now, attempts, since):
            return Lane(attempts, since, self._retries.due(now, attempts), error)
        dead = Dead(message, attempts, since, now, error)
        write(txn, f"dead/{hook.id}/{message.version:016x}/{message.lane}", dead)
        txn.delete(f"message/{hook.id}/{message.place}")
        self._log("given up", level="error", hook=hook.name, id=message.id, attempts=attempts, why=error)
        return Lane()

    def _progress(self, at: Progress, answers: list[Answer], cursor: Cursor, now: int) -> Progress:
        delivered = sum(answer.is_ok for answer in answers)
        found = replace(
            at,
            position=cursor.position,
            within=cursor.within,
            offset=cursor.offset,
            delivered=at.delivered + delivered,
            failed=at.failed + len(answers) - delivered,
        )
        if delivered:
            found = replace(found, delivered_at=now, error=None, error_at=None)
        for answer in answers:
            if not answer.is_ok:
                found = replace(found, error=answer.error, error_at=now)
            if answer.status in _WAITS:
                asked = self._retries.not_before(now, answer.retry_after_s)
                found = replace(found, not_before=max(found.not_before, asked))
        return found

    def _jump(self, hook: Hook, at: Progress, position: int) -> None:
        """Go on where history is kept, and count what was lost."""
        why = f"history was let go of before it was delivered: versions {at.position} to {position}"

        def jump(txn: Txn) -> None:
            found = read(txn, f"at/{hook.id}", Progress)
            if self._check(txn, hook) is not None and found is not None:
                moved = replace(found, position=position, offset=0, gaps=found.gaps + 1)
                write(txn, f"at/{hook.id}", replace(moved, error=why, error_at=txn.now))

        atomically(self._rows, jump)
        self._log("gap", level="error", hook=hook.name, why=why)

    def _note(self, hook: Hook, error: Exception) -> None:
        """Let the status of a hook say what went wrong here, and not at the other side."""
        why = f"not tried: {type(error).__name__}: {error}"

        def note(txn: Txn) -> None:
            at = read(txn, f"at/{hook.id}", Progress)
            if at is not None and at.error != why and self._check(txn, hook) is not None:
                write(txn, f"at/{hook.id}", replace(at, error=why, error_at=txn.now))

        with contextlib.suppress(StrataError, LeaseLost):  # which may be what went wrong
            atomically(self._rows, note)

    def _pause(self, hook: Hook, why: str) -> None:
        def pause(txn: Txn) -> None:
            found = self._check(txn, hook)
            if found is not None:
                write(txn, f"hook/{hook.name}", replace(found, paused=why))

        atomically(self._rows, pause)
        self._log("paused", level="error", hook=hook.name, why=why)

    def _check(self, txn: Txn, hook: Hook) -> Hook | None:
        """Return the hook as it is now; None when it is gone. Raises: LeaseLost."""
        if not has_lease(txn, self.holder):
            raise LeaseLost
        found = read(txn, f"hook/{hook.name}", Hook)
        return found if found is not None and found.id == hook.id else None
