"""The official client in front of a server of ours, call by call."""

from __future__ import annotations

import atexit
import json
from collections.abc import Awaitable, Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import cache
from typing import Any

from anyio.from_thread import BlockingPortal, start_blocking_portal
from mcp import Client

import strata
from strata.server.mcp.host import make_server
from strata.server.mcp.scope import Scope


class Refused(Exception):
    """A tool said no."""

    def __init__(self, error: dict[str, Any]) -> None:
        super().__init__(error)
        self.code, self.message, self.hint = error["code"], error["message"], error.get("hint", "")
        self.fields = error.get("fields", {})


class Tools:
    """Tools by their names: `tools.recall(query="tea")` is the structured answer, or raises Refused.

    The client holds every answer against the schema that the server gave for it.
    """

    def __init__(self, portal: BlockingPortal, client: Client) -> None:
        self._portal = portal
        self.client = client
        self.database: Any = None

    def __getattr__(self, name: str) -> Callable[..., dict[str, Any]]:
        return lambda **arguments: self.call(name, arguments)

    def call(self, name: str, arguments: dict[str, Any]) -> dict[str, Any]:
        return answer_of(self.run(self.client.call_tool, name, arguments))

    def names(self) -> set[str]:
        return {tool.name for tool in self.run(self.client.list_tools).tools}

    def run(self, method: Callable[..., Awaitable[Any]], *arguments: Any) -> Any:
        return self._portal.call(method, *arguments)


@cache
def portal() -> BlockingPortal:
    """One event loop in a thread, for all tests; it ends with the process."""
    stack = ExitStack()
    atexit.register(stack.close)
    return stack.enter_context(start_blocking_portal())


@contextmanager
def connected(server: Any, **options: Any) -> Iterator[Tools]:
    """A client of a server: one of ours, a command to run, or an address."""
    failed = None
    with portal().wrap_async_context_manager(Client(server, **options)) as client:
        try:
            yield Tools(portal(), client)
        except BaseException as error:  # the client would wrap it into a group of errors, twice
            failed = error
    if failed is not None:
        raise failed


@contextmanager
def tools_of(db: strata.Database, scope: Scope | None = None, embedder: Any = None) -> Iterator[Tools]:
    with connected(make_server(db, scope, embedder)) as tools:
        tools.database = db
        yield tools


def answer_of(result: Any) -> dict[str, Any]:
    """The structured answer, which the text says as well."""
    found: dict[str, Any] = result.structured_content
    (text,) = result.content
    assert json.loads(text.text) == found
    if result.is_error:
        raise Refused(found["error"])
    return found
