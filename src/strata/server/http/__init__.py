"""HTTP: every operation of the catalogue for whoever has curl, a browser, or another language.

    app         the ASGI application: operations, resources, watches, OpenAPI, a page to read
    admin_app   another one, for those who run it: alive, ready, metrics
    serve_http  either on a port, in a thread of its own

Nothing here lists operations; a request is checked, run by `api.dispatch`, and its result or error written.

    service    what a request is answered        guard      what no honest client sends
    calls      an operation by its name          access     who may do what: the one place
    resources  keys, cells, documents by URL     body       bytes in, bytes out, within limits
    watching   commits as they come              query      arguments in a URL
    openapi    the description, for programs     statuses   which error is which status
    page       the same, for people              web        the only import of starlette
    admin      health and metrics                serving    the only import of uvicorn
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Final, Literal

from strata.core.errors import InvalidInput
from strata.server.http.limits import HttpLimits
from strata.server.http.stats import Stats

if TYPE_CHECKING:
    from strata.api.database import Database
    from strata.server.http.admin import Admin
    from strata.server.http.service import Service
    from strata.server.http.serving import Serving
    from strata.server.logs import Log
    from strata.server.tls import ServerTls

__all__ = ["HttpLimits", "Role", "Stats", "admin_app", "app", "serve_http"]

Role = Literal["read", "write", "admin"]
Authorize = Callable[[str | None], Role]
_EXTRA: Final = frozenset({"anyio", "h11", "starlette", "uvicorn"})


def app(
    database: Database,
    *,
    authorize: Authorize | None = None,
    read_only: bool = False,
    files: bool = False,
    origins: Iterable[str] = (),
    limits: HttpLimits | None = None,
    log: Log | None = None,
) -> Service:
    """Return the ASGI application that serves a database. `close` it before the database.

    Args:
        authorize: what a token (None: there is none) allows; raises AccessDenied for one that it does not
            know. It is asked for each request, in the loop, so it must be quick. Left out, everybody may do
            everything, and only requests to this machine by name are answered.
        read_only: refuse whatever writes, also to administrators.
        files: allow operations that name files on this machine (backup, export).
        origins: of web pages on other hosts that may send requests, as in "https://example.com".
        log: told of connections and requests; whoever made it closes it.
    Raises: InvalidInput where the extra `server` is not installed.
    """
    try:
        from strata.server.http.service import Service
    except ModuleNotFoundError as error:
        raise _missing(error) from error
    return Service(
        database, authorize=authorize, read_only=read_only, files=files, origins=frozenset(origins),
        limits=limits or HttpLimits(), log=log,
    )  # fmt: skip


def admin_app(database: Database, server_stats: Callable[[], Stats], more: Callable[[], str] = str) -> Admin:
    """Return the ASGI application with /healthz, /readyz and /metrics. It asks for no token: keep it inside.

    Args:
        server_stats: called for each look, from any thread.
        more: returns more metrics, as they are to be read; called likewise.
    Raises: InvalidInput where the extra `server` is not installed.
    """
    try:
        from strata.server.http.admin import Admin
    except ModuleNotFoundError as error:
        raise _missing(error) from error
    return Admin(database, server_stats, more)


def serve_http(
    app: Service | Admin,
    host: str = "127.0.0.1",
    port: int = 0,
    *,
    tls: ServerTls | None = None,
) -> Serving:
    """Return a server of an application, which listens already; it has an `address`, and `close` to end it.

    Args:
        port: 0 is any that is free.
        tls: certificate and key; renewed while it runs, new connections have the new ones.
    Raises: InvalidInput for an address that cannot be had, for one that other machines reach where nobody is
        asked who they are, and where the extra `server` is not installed.
    """
    try:
        from strata.server.http.serving import Serving
    except ModuleNotFoundError as error:
        raise _missing(error) from error
    return Serving(app, host, port, tls)


def _missing(error: ModuleNotFoundError) -> Exception:
    """Return what to say of a package that is not there; of a module of ours, the error itself."""
    if (error.name or "").partition(".")[0] not in _EXTRA:
        return error
    return InvalidInput(
        f"serving HTTP needs the package {error.name}", hint="install the extra: strata-embedded[server]"
    )
