"""`strata worker`: what comes with time, for a database that others serve or have open, until a signal."""

from __future__ import annotations

import os
import signal
import threading
from argparse import ArgumentParser, Namespace
from typing import TYPE_CHECKING

import strata
from strata.cli.opening import open_database
from strata.core.errors import InvalidInput
from strata.server.logs import say

if TYPE_CHECKING:
    from strata.worker import Worker


def add_arguments(worker: ArgumentParser) -> None:
    """Say what `strata worker` takes."""
    worker.add_argument("--no-timers", action="store_true", help="fire no timers of machines")
    worker.add_argument("--no-webhooks", action="store_true", help="deliver no webhooks")
    add_options(worker)


def add_options(command: ArgumentParser) -> None:
    """Say what a worker takes, wherever it runs."""
    command.add_argument(
        "--timers-of",
        action="append",
        metavar="BRANCH",
        help="fire the timers of this branch (main); may be given again",
    )
    command.add_argument(
        "--webhooks-allow-private", action="store_true", help="send to this machine and to private networks"
    )
    command.add_argument(
        "--webhooks-allow",
        action="append",
        default=[],
        metavar="NETWORK",
        help="send to these addresses, as 10.1.0.0/16; may be given again",
    )
    command.add_argument(
        "--webhooks-allow-http", action="store_true", help="send to public addresses without TLS"
    )


def worker_of(
    db: strata.Database, arguments: Namespace, *, timers: bool = True, webhooks: bool = True
) -> Worker:
    """Return the worker that options say. It has not begun."""
    from strata.worker import Allowed, HttpTransport, Worker, network_of

    networks = tuple(map(network_of, arguments.webhooks_allow))
    allowed = Allowed(arguments.webhooks_allow_private, networks, arguments.webhooks_allow_http)
    return Worker(
        db,
        branches=arguments.timers_of,
        timers=timers,
        webhooks=webhooks,
        transport=HttpTransport(allowed) if webhooks else None,
        log=say,
    )


def run(arguments: Namespace) -> int:
    """Work until a signal."""
    if arguments.no_timers and arguments.no_webhooks:
        raise InvalidInput("without timers and webhooks there is nothing to do")
    woken = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: woken.set())
    with (
        open_database(arguments, create=False) as db,
        worker_of(
            db, arguments, timers=not arguments.no_timers, webhooks=not arguments.no_webhooks
        ) as worker,
    ):
        say("working", strata=strata.__version__, pid=os.getpid(), path=str(arguments.path))
        while not woken.wait(1.0):  # with a limit, so that signals are seen on every platform
            pass
        say("draining")
        worker.stop()
    say("ended")
    return 0
