"""The worker: does by itself what comes with time. Timers of machines fire, and webhooks are delivered.

    a thread for each branch       waits for commits, or for the next timer, and fires what is due
    a thread for the hooks         has the lease, and a thread for each hook
    a thread for each hook         waits for commits of its branch, or for the next attempt, and delivers

What goes wrong is logged and tried again, later and later up to a minute. Any number of workers may be on one
database: a timer fires once whoever fires it, and one of them delivers.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Callable, Iterable
from functools import cached_property, partial
from types import TracebackType
from typing import Any, Final

from strata.api.database import Database
from strata.api.webhooks_rows import home_of, hooks, rows_of
from strata.core.errors import Closed, InvalidInput, StrataError
from strata.core.keys import check_int, check_name
from strata.core.protocols import Branch, Txn
from strata.worker.delivery import Delivery, LeaseLost, Log
from strata.worker.leases import Tenant
from strata.worker.retries import Retries
from strata.worker.sending import HttpTransport, Transport
from strata.worker.timers import Timers

_SECOND: Final = 1_000_000
_PIECE_S: Final = 0.25  # of a wait, after which other reasons to go on are looked for
_PIECE_US: Final = round(_PIECE_S * _SECOND)
_GATHER_S: Final = 0.005  # after a commit, as more often come: to look at each alone would slow who writes
_IDLE_S: Final = 2.0  # until hooks and the lease are looked at again, when nothing else happens
_PAUSE_MIN_S: Final = 0.1  # after an error
_PAUSE_MAX_S: Final = 60.0
_STOP_S: Final = 30.0
_SENDERS: Final = 4
_logger: Final = logging.getLogger("strata.worker")
_LEVELS: Final = {"info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}


def log(event: str, *, level: str = "info", **fields: Any) -> None:
    """Write to the logger "strata.worker"; fields are in `extra`, as `strata`."""
    said = " ".join(f"{name}={value!r}" for name, value in fields.items())
    _logger.log(_LEVELS[level], "%s %s", event, said, extra={"strata": {"event": event, **fields}})


class Worker:
    """Fires timers and delivers webhooks of a database, in threads of its own, until it is stopped.

    Use it in a `with` block, or call `start` and `stop`. `step` does by hand what is due now.
    """

    def __init__(
        self,
        database: Database,
        *,
        branches: Iterable[str] | None = None,
        timers: bool = True,
        webhooks: bool = True,
        transport: Transport | None = None,
        retries: Retries | None = None,
        senders: int = _SENDERS,
        log: Log = log,
    ) -> None:
        """Return a worker that has not begun.

        Args:
            branches: whose timers fire; left out, those of the database's own branch. Webhooks are those of
                all branches.
            timers, webhooks: whether there is anything to do of these.
            transport: what sends messages; left out, `HttpTransport()`, to public addresses over https.
            retries: when a delivery that failed is tried again.
            senders: how many messages of one hook are under way at once, each of another thing.
            log: called with what happened, as a name, a `level` and fields; left out, the logger
                "strata.worker".
        Raises: NotFound for a branch.
        """
        store = database._store
        names = [database._branch.name] if branches is None else list(branches)
        self._store = store
        self._stopped = threading.Event()
        self._timers = [
            Timers(store.branch(check_name(name, "branch")), self._stopped.is_set)
            for name in (names if timers else ())
        ]
        self._delivers = webhooks
        self._transport = transport
        self._retries = retries or Retries()
        self._senders = check_int(senders, "senders", 1)
        self._log = log
        self._tenant = Tenant()
        self._deliveries: dict[str, Delivery] = {}
        self._threads: list[threading.Thread] = []
        self._lock = threading.Lock()

    # -- by hand

    def step(self) -> int:
        """Do all that is due now, and return how many timers fired. What cannot be delivered is due later.

        Raises: InvalidInput where threads do it; what the database does. A message that fails is no error.
        """
        if self._threads:
            raise InvalidInput("this worker runs by itself", hint="make another one to do it by hand")
        fired = sum(timers.fire() for timers in self._timers if timers.branch.sealed is None)
        home = home_of(self._store) if self._delivers else None
        if home is not None and not self._lead(rows_of(home)):
            with contextlib.suppress(LeaseLost):  # then somebody else delivers
                for delivery in list(self._deliveries.values()):
                    while delivery.round() <= delivery.now and not self._stopped.is_set():
                        pass
        return fired

    # -- by itself

    def start(self) -> Worker:
        """Begin, in threads, and return itself. Raises: InvalidInput for one that has begun before."""
        with self._lock:
            if self._threads or self._stopped.is_set():
                raise InvalidInput("this worker has begun before", hint="make another one")
            for timers in self._timers:
                self._begin(f"timers of {timers.branch.name}", partial(self._fire, timers), self._stopped)
            if self._delivers:
                self._begin("webhooks", self._supervise, self._stopped)
        return self

    def stop(self, timeout_s: float = _STOP_S) -> bool:
        """Let what is being sent end, and send nothing more; return whether all ended in time. Idempotent."""
        self._stopped.set()
        for delivery in list(self._deliveries.values()):
            delivery.stop()
        until = time.monotonic() + timeout_s
        for thread in list(self._threads):
            thread.join(max(0.0, until - time.monotonic()))
        for delivery in self._deliveries.values():
            delivery.close()
        has_ended = not any(thread.is_alive() for thread in self._threads)
        if has_ended and self._delivers:
            with contextlib.suppress(StrataError):
                home = home_of(self._store)
                if home is not None:
                    self._tenant.give_back(rows_of(home))
        return has_ended

    def __enter__(self) -> Worker:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def __repr__(self) -> str:
        state = "stopped" if self._stopped.is_set() else "running" if self._threads else "not begun"
        return f"<Worker {state}>"

    # -- what the threads do

    def _begin(self, name: str, step: Callable[[], None], ended: threading.Event) -> None:
        work = threading.Thread(
            target=self._run, args=(name, step, ended), name=f"strata {name}", daemon=True
        )
        self._threads = [thread for thread in self._threads if thread.is_alive()] + [work]
        work.start()

    def _run(self, name: str, step: Callable[[], None], ended: threading.Event) -> None:
        """Do a step again and again. What goes wrong is logged, and tried again after a pause."""
        pause_s = _PAUSE_MIN_S
        while not (ended.is_set() or self._stopped.is_set()):
            try:
                step()
                pause_s = _PAUSE_MIN_S
            except Closed:
                return
            except LeaseLost:
                ended.wait(_PAUSE_MIN_S)  # the thread for the hooks finds out who has it
            except Exception as error:
                self._log("failed", level="error", what=name, error=type(error).__name__, why=str(error))
                ended.wait(pause_s)
                pause_s = min(2 * pause_s, _PAUSE_MAX_S)

    def _fire(self, timers: Timers) -> None:
        """Fire what is due, and wait for what comes next, or for a commit, which may set an earlier one."""
        branch, head, sealed = timers.branch, timers.branch.head, timers.branch.sealed
        due = None
        if sealed is None:
            timers.fire()
            due = timers.next_due()
        while not self._stopped.is_set():
            left_us = _PIECE_US if due is None else min(_PIECE_US, due - timers.now)
            if left_us <= 0 or branch.sealed != sealed:
                return
            if branch.wait(head, left_us / _SECOND, sealed) > head:
                self._stopped.wait(_GATHER_S)
                return

    def _supervise(self) -> None:
        """Have the lease, and a thread for each hook."""
        home = home_of(self._store)
        if home is None:
            self._stopped.wait(_IDLE_S)
            return
        rows, noticed = rows_of(home), home.head
        self._lead(rows)
        for name, delivery in self._deliveries.items():
            if not delivery.has_begun:
                delivery.has_begun = True
                self._begin(f"webhook {name}", partial(self._deliver, home, delivery), delivery.stopped)
        until = time.monotonic() + _IDLE_S
        while not self._stopped.is_set() and time.monotonic() < until:
            if home.wait(noticed, _PIECE_S) > noticed:
                return

    def _lead(self, rows: Txn) -> int:
        """Have a delivery for each hook, or none where somebody else delivers; return until when they do."""
        until = self._tenant.take(rows)
        found = set() if until else {hook.name for hook in hooks(rows)}
        lost = {name for name, one in self._deliveries.items() if one.holder != self._tenant.holder}
        for name in lost | (self._deliveries.keys() - found):
            self._deliveries.pop(name).close()
        for name in found - self._deliveries.keys():
            self._deliveries[name] = Delivery(
                self._store,
                rows,
                name,
                self._tenant.holder,
                self._sender,
                retries=self._retries,
                senders=self._senders,
                log=self._log,
            )
        return until

    @cached_property
    def _sender(self) -> Transport:
        """What sends. Made when there is a hook, as it loads certificates."""
        return self._transport or HttpTransport()

    def _deliver(self, home: Branch, delivery: Delivery) -> None:
        """Deliver what there is, and wait for more."""
        noticed = home.head
        due = delivery.round()
        while not delivery.stopped.is_set() and home.head == noticed:
            left_us = min(_PIECE_US, due - delivery.now)
            if left_us <= 0:
                return
            branch, seen = delivery.branch, delivery.seen
            if branch is None or seen is None:
                home.wait(noticed, left_us / _SECOND)
            elif branch.wait(seen, left_us / _SECOND, branch.sealed) > seen:
                delivery.stopped.wait(_GATHER_S)
                return
