"""`strata serve`: a database for other processes and machines, until a signal ends it.

SIGTERM and SIGINT let what is under way end, and close. SIGHUP reads tokens and certificates again.
"""

from __future__ import annotations

import os
import signal
import socket
import sys
import threading
from argparse import ArgumentParser, Namespace
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any, Final

import strata
from strata.cli.opening import open_database
from strata.cli.worker import add_options, worker_of
from strata.core.errors import InvalidInput, StrataError
from strata.server.access import hash_of, new_token, read_tokens
from strata.server.descriptors import raise_limit
from strata.server.limits import Limits
from strata.server.logs import Log, say
from strata.server.server import Server
from strata.server.tls import ServerTls

PORT: Final = 6380
DEFAULT: Final = f"127.0.0.1:{PORT}"
# How long a thread has the interpreter while the loop wants it, which answers what takes microseconds.
_SWITCH_S: Final = 0.0005


def add_arguments(serve: ArgumentParser) -> None:
    """Say what `strata serve` takes."""
    limits = Limits()
    serve.add_argument("--listen", metavar="H:P", help=f"for clients of Strata ({DEFAULT})")
    serve.add_argument("--socket", metavar="FILE", help="also at a local socket, for this user")
    serve.add_argument("--http", metavar="H:P", help="also over HTTP")
    serve.add_argument("--admin", metavar="H:P", help="health and metrics over HTTP, without tokens")
    serve.add_argument("--rcp", metavar="H:P", help="also for clients of rstmdb (theirs is 127.0.0.1:7401)")
    serve.add_argument("--rcp-allow-flush-all", action="store_true", help="let FLUSH_ALL remove everything")
    serve.add_argument("--rcp-no-recreate", action="store_true", help="ids of deleted instances stay taken")
    serve.add_argument(
        "--rcp-max-machine-versions", type=int, default=0, metavar="N", help="of one machine (0: no limit)"
    )
    serve.add_argument("--tokens", metavar="FILE", help="who may do what; `strata token` makes its lines")
    serve.add_argument("--tls-certificate", metavar="FILE", help="in PEM; with --tls-key")
    serve.add_argument("--tls-key", metavar="FILE", help="of the certificate")
    serve.add_argument("--tls-client-authority", metavar="FILE", help="whose certificates clients need")
    serve.add_argument("--read-only", action="store_true", help="nobody may write")
    serve.add_argument("--durability", choices=("buffered", "strict"), help="of what is written (buffered)")
    serve.add_argument("--log-requests", action="store_true", help="a line for each, and who comes and goes")
    slow = "a line for requests that take as long (1); 0: for none"
    serve.add_argument("--log-slow-s", type=float, default=1.0, metavar="S", help=slow)
    serve.add_argument("--create", action="store_true", help="make the database when it is not there")
    serve.add_argument("--no-worker", action="store_true", help="fire no timers, and deliver no webhooks")
    add_options(serve)
    for name, what in (
        ("connections", "at once"),
        ("in-flight", "calls of one that wait for the disk or work long"),
        ("frame-bytes", "of one request"),
        ("threads", "that work on such calls"),
    ):
        default = getattr(limits, name.replace("-", "_"))
        said = f"{what} ({default})"
        serve.add_argument(f"--max-{name}", type=int, default=default, metavar="N", help=said)
    for name, what in (
        ("idle-s", "close connections that ask nothing; 0: never"),
        ("transaction-idle-s", "roll back transactions that nobody goes on with"),
        ("drain-s", "wait for calls under way at the end"),
    ):
        default = getattr(limits, name.replace("-", "_"))
        said = f"{what} ({default:g})"
        serve.add_argument(f"--{name}", type=float, default=default, metavar="S", help=said)


def token(arguments: Namespace) -> int:
    """Print a new token on standard error, and the line for the file of tokens on standard output."""
    made = new_token()
    print(f"token: {made}", file=sys.stderr)
    print(f"{hash_of(made)} {arguments.access} {arguments.name}".rstrip())
    return 0


def run(arguments: Namespace) -> int:
    """Serve until a signal."""
    sys.setswitchinterval(_SWITCH_S)
    limits = Limits(
        connections=arguments.max_connections,
        in_flight=arguments.max_in_flight,
        frame_bytes=arguments.max_frame_bytes,
        threads=arguments.max_threads,
        idle_s=arguments.idle_s,
        transaction_idle_s=arguments.transaction_idle_s,
        drain_s=arguments.drain_s,
    )
    tls = _tls(arguments)
    tokens = None if arguments.tokens is None else read_tokens(Path(arguments.tokens))
    settings: dict[str, Any] = {"create": arguments.create, "read_only": arguments.read_only}
    if arguments.durability is not None:
        settings["durability"] = arguments.durability
    if arguments.log_slow_s < 0:
        raise InvalidInput("--log-slow-s is a number of seconds, or 0")
    descriptors = raise_limit(limits.connections)
    log = Log(requests=arguments.log_requests, slow_s=arguments.log_slow_s)
    with open_database(arguments, **settings) as db:
        server = Server(db._store, limits=limits, tokens=tokens, read_only=arguments.read_only, log=log)
        ends: list[Callable[[], object]] = [log.close, server.close]
        signals = Signals()  # before anybody knows that we are here, and may end us
        try:
            addresses = _listen(arguments, server, tls, ends)
            more = _listen_for_rcp(arguments, db, server, tls, addresses)
            addresses |= _listen_for_http(arguments, db, server, tls, ends, more)
            if not (arguments.read_only or arguments.no_worker):
                ends.append(partial(worker_of(db, arguments).start().stop, limits.drain_s))
            _warn_of_few_descriptors(server, descriptors)
            _banner(arguments, db, addresses)
            _wait(signals, arguments, server, tls)
        finally:
            say("draining", connections=len(server.connections))
            for end in reversed(ends):  # the worker first: what it writes needs the rest
                end()
    say("ended")
    return 0


def _warn_of_few_descriptors(server: Server, descriptors: int | None) -> None:
    most, wanted = server.connections_max, server.limits.connections
    if most < wanted:
        say("few descriptors", level="warning", descriptors=descriptors, connections=most, wanted=wanted)


def _tls(arguments: Namespace) -> ServerTls | None:
    if (arguments.tls_certificate is None) is not (arguments.tls_key is None):
        raise InvalidInput("certificate and key go together", hint="--tls-certificate FILE --tls-key FILE")
    if arguments.tls_certificate is None:
        if arguments.tls_client_authority is not None:
            raise InvalidInput("clients show certificates over TLS only", hint="--tls-certificate, --tls-key")
        return None
    return ServerTls(arguments.tls_certificate, arguments.tls_key, arguments.tls_client_authority)


def _listen(arguments: Namespace, server: Server, tls: ServerTls | None, ends: list[Any]) -> dict[str, str]:
    """Begin to listen everywhere; return where, by what."""
    found: dict[str, str] = {}
    if arguments.socket is not None:
        found["socket"] = f"unix:{_listen_locally(server, arguments.socket, ends)}"
    if arguments.listen is not None or arguments.socket is None:
        host, port = host_and_port(arguments.listen or DEFAULT)
        made = server.listen_tcp(host, port, None if tls is None else tls.context)
        found["clients"] = f"strata{'+tls' if tls else ''}://{_shown(*made)}"
    return found


def _listen_for_rcp(
    arguments: Namespace,
    db: strata.Database,
    server: Server,
    tls: ServerTls | None,
    addresses: dict[str, str],
) -> Callable[[], str]:
    """Begin to listen for clients of rstmdb, where that was asked for; return what says their metrics."""
    if arguments.rcp is None:
        return str
    from strata.server.rcp import Listener, Settings

    settings = Settings(
        allow_flush_all=arguments.rcp_allow_flush_all,
        recreate=not arguments.rcp_no_recreate,
        max_machine_versions=arguments.rcp_max_machine_versions,
    )
    listener = Listener(server, db, settings)
    context = None if tls is None else tls.context
    made = server.listen_tcp(*host_and_port(arguments.rcp), context, listener.connection)
    addresses["rcp"] = _shown(*made)
    return listener.metrics


def _listen_for_http(
    arguments: Namespace,
    db: strata.Database,
    server: Server,
    tls: ServerTls | None,
    ends: list[Any],
    more: Callable[[], str],
) -> dict[str, str]:
    """Begin to listen for HTTP, where that was asked for; return where, by what."""
    from strata.server.http import Stats, admin_app, app, serve_http

    found: dict[str, str] = {}
    counted: list[Callable[[], Stats]] = [
        lambda: Stats(server.counts, server.errors, len(server.connections), server.is_draining)
    ]
    if arguments.http is not None:
        authorize = None if server.tokens is None else lambda token: server.access_of(token)
        web = app(db, authorize=authorize, read_only=arguments.read_only, log=server.log)
        ends.append(web.close)
        serving = serve_http(web, *host_and_port(arguments.http), tls=tls)
        ends.append(serving.close)
        counted.append(serving.stats)
        found["http"] = f"http{'s' if tls else ''}://{_shown(*serving.address)}"
    if arguments.admin is not None:

        def stats() -> Stats:
            return sum((count() for count in counted[1:]), counted[0]())

        serving = serve_http(admin_app(db, stats, more), *host_and_port(arguments.admin))
        ends.append(serving.close)
        found["admin"] = f"http://{_shown(*serving.address)}"
    return found


def _listen_locally(server: Server, path: str, ends: list[Any]) -> str:
    """Listen at a local socket that only this user can connect to."""
    made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    new = f"{path}.{os.getpid()}"
    try:
        made.bind(new)
        os.chmod(new, 0o600)  # before anybody can connect
        made.listen(1024)
        os.rename(new, path)
    except OSError as error:
        made.close()
        raise InvalidInput(f"there can be no socket at {path!r}: {error.strerror or error}") from None
    made.setblocking(False)
    server.listen_on(made)
    ends.append(lambda: Path(path).unlink(missing_ok=True))
    return path


def host_and_port(text: str) -> tuple[str, int]:
    """Return what H:P says.

    Raises: InvalidInput.
    """
    host, colon, port = text.rpartition(":")
    if not colon or not port.isdecimal() or int(port) > 65_535:
        raise InvalidInput(f"{text!r} is no address", hint="as in 127.0.0.1:6380")
    return host.strip("[]") or "127.0.0.1", int(port)


def _shown(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _banner(arguments: Namespace, db: strata.Database, addresses: dict[str, str]) -> None:
    info = db.info()
    say(
        "serving",
        strata=strata.__version__,
        pid=os.getpid(),
        path=str(arguments.path),
        database=info.id,
        version=info.version,
        durability=info.durability,
        read_only=arguments.read_only,
        tokens=arguments.tokens is not None,
        at=addresses,
    )


class Signals:
    """Signals that say what to do, noted until somebody takes them."""

    def __init__(self) -> None:
        self._noted: list[int] = []
        self._woken = threading.Event()
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, self._note)

    def _note(self, number: int, _: FrameType | None) -> None:
        self._noted.append(number)
        self._woken.set()

    def next(self) -> int:
        """Return the next signal, once there is one."""
        while not self._noted:
            self._woken.wait(1.0)  # with a limit, so that signals are seen on every platform
            self._woken.clear()
        return self._noted.pop(0)


def _wait(signals: Signals, arguments: Namespace, server: Server, tls: ServerTls | None) -> None:
    """Return at a signal that ends; read tokens and certificates again at one that asks for it."""
    while (found := signals.next()) == signal.SIGHUP:
        _reload(arguments, server, tls)
    say("signal", name=signal.Signals(found).name)


def _reload(arguments: Namespace, server: Server, tls: ServerTls | None) -> None:
    try:
        if arguments.tokens is not None:
            server.renew_tokens(read_tokens(Path(arguments.tokens)))
        if tls is not None:
            tls.renew()
    except StrataError as error:
        say("not reloaded", level="error", why=str(error))
    else:
        say("reloaded", tokens=0 if server.tokens is None else len(server.tokens))
