"""The host's side: tools, resources and prompts as a server of the official SDK, and how it is served.

It is built on the SDK's `Server` rather than `MCPServer`, which reads JSON out of texts that it is given (a
value to store must stay the text that it is), takes numbers for texts, drops unknown arguments without a
word, lists the same resources forever, and installs a log handler of its own.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import partial
from typing import Any, Final, TypeVar, get_args

import anyio.to_thread
import mcp_types as types
import msgspec
from mcp.server.context import ServerRequestContext
from mcp.server.lowlevel.server import Server
from mcp.server.stdio import stdio_server
from mcp.shared.exceptions import MCPError

from strata.api.database import Database
from strata.api.opening import version
from strata.api.operations import Access
from strata.api.plain import error_data
from strata.core.embedding import Embedder
from strata.core.errors import InternalError, InvalidInput, NotFound, StrataError
from strata.server.mcp import resources
from strata.server.mcp.guidance import advice
from strata.server.mcp.prompts import filled, prompts
from strata.server.mcp.scope import Door, Scope
from strata.server.mcp.shown import NOTICE, Budget, clean
from strata.server.mcp.tools import Tool, tools

log = logging.getLogger("strata.mcp")
T = TypeVar("T")
Context = ServerRequestContext[Any]

_ACTOR_CHARS: Final = 100


def make_server(
    database: Database, scope: Scope | None = None, embedder: Embedder | None = None
) -> Server[Any]:
    """Return a server for a database, which stays the caller's to close.

    Args:
        scope: what hosts reach; left out, all.
        embedder: makes vectors of what is remembered, and of what is looked for.
    Raises: NotFound when the branch of the scope is not there; InvalidInput for what is no embedder.
    """
    host = Host(Door(database, scope or Scope(), embedder))
    return Server(
        "strata",
        title="Strata memory",
        version=version(),
        instructions="A memory that lasts. " + "; ".join(advice(host.door)) + ".",
        on_list_tools=host.list_tools,
        on_call_tool=host.call_tool,
        on_list_resources=host.list_resources,
        on_list_resource_templates=host.list_templates,
        on_read_resource=host.read_resource,
        on_list_prompts=host.list_prompts,
        on_get_prompt=host.get_prompt,
        on_completion=host.complete,
    )


class Host:
    """Answers the requests of a host. What touches the database runs in a thread, since it may wait."""

    def __init__(self, door: Door) -> None:
        self.door = door
        self._tools = {access: tools(door.scope, access) for access in get_args(Access)}
        self._prompts = {access: prompts(door.scope, access) for access in get_args(Access)}

    async def list_tools(
        self, context: Context, params: types.PaginatedRequestParams | None
    ) -> types.ListToolsResult:
        known = self._tools[_access(context)]
        return types.ListToolsResult(tools=[_shown(tool, self.door.scope) for tool in known.values()])

    async def call_tool(self, context: Context, params: types.CallToolRequestParams) -> types.CallToolResult:
        known = self._tools[_access(context)]
        tool = known.get(params.name)
        if tool is None:
            there = ", ".join(known)
            return _failed(
                {"code": "not_found", "message": f"there is no tool {params.name[:100]!r}", "hint": there}
            )
        call = partial(tool.call, self.door, params.arguments or {}, _actor(context))
        try:
            found = await anyio.to_thread.run_sync(call)
        except Exception as error:
            return _failed(_error(error, tool.name))
        return types.CallToolResult(content=[_json(found)], structured_content=found)

    async def list_resources(
        self, context: Context, params: types.PaginatedRequestParams | None
    ) -> types.ListResourcesResult:
        cursor = None if params is None else params.cursor
        lines, following = await _asked(resources.listed, self.door, cursor)
        shown = [
            types.Resource(
                uri=line.uri,
                name=line.name,
                title=line.title,
                description=line.description,
                mime_type=resources.JSON,
            )
            for line in lines
        ]
        return types.ListResourcesResult(resources=shown, next_cursor=following)

    async def list_templates(
        self, context: Context, params: types.PaginatedRequestParams | None
    ) -> types.ListResourceTemplatesResult:
        template = types.ResourceTemplate(
            uri_template=resources.TEMPLATE,
            name="thing",
            title="A stored thing",
            description="One thing by its address; @version at the end for an earlier one.",
            mime_type=resources.JSON,
        )
        return types.ListResourceTemplatesResult(resource_templates=[template])

    async def read_resource(
        self, context: Context, params: types.ReadResourceRequestParams
    ) -> types.ReadResourceResult:
        text = await _asked(resources.read, self.door, params.uri)
        shown = types.TextResourceContents(uri=params.uri, mime_type=resources.JSON, text=text)
        return types.ReadResourceResult(contents=[shown])

    async def list_prompts(
        self, context: Context, params: types.PaginatedRequestParams | None
    ) -> types.ListPromptsResult:
        shown = [
            types.Prompt(
                name=prompt.name,
                title=prompt.title,
                description=prompt.description,
                arguments=[
                    types.PromptArgument(name=prompt.argument, description=prompt.about, required=True)
                ],
            )
            for prompt in self._prompts[_access(context)].values()
        ]
        return types.ListPromptsResult(prompts=shown)

    async def get_prompt(
        self, context: Context, params: types.GetPromptRequestParams
    ) -> types.GetPromptResult:
        known = self._prompts[_access(context)]
        prompt, text = await _asked(filled, known, params.name, params.arguments or {})
        content = types.TextContent(type="text", text=text)
        message = types.PromptMessage(role="user", content=content)
        return types.GetPromptResult(description=prompt.description, messages=[message])

    async def complete(self, context: Context, params: types.CompleteRequestParams) -> types.CompleteResult:
        is_address = isinstance(params.ref, types.ResourceTemplateReference)
        known = {} if params.context is None else params.context.arguments or {}
        begun = params.argument
        found = (
            await _asked(resources.completions, self.door, begun.name, begun.value, known)
            if is_address
            else []
        )
        return types.CompleteResult(completion=types.Completion(values=found))


async def _asked(function: Callable[..., T], *arguments: Any) -> T:
    """Return what a function returns, and let its errors be those of the protocol."""
    try:
        return await anyio.to_thread.run_sync(function, *arguments)
    except Exception as error:
        found = _error(error, function.__name__)
        code = types.INVALID_PARAMS if isinstance(error, NotFound | InvalidInput) else types.INTERNAL_ERROR
        raise MCPError(code=code, message=found["message"], data=found) from None


def _shown(tool: Tool, scope: Scope) -> types.Tool:
    return types.Tool(
        name=tool.name,
        title=tool.title,
        description=tool.description,
        input_schema=tool.input_schema(scope),
        output_schema=tool.output_schema(),
        annotations=types.ToolAnnotations(
            title=tool.title,
            read_only_hint=not tool.writes,
            destructive_hint=tool.destroys,
            idempotent_hint=tool.idempotent,
            open_world_hint=False,
        ),
    )


def _access(context: Context) -> Access:
    """Return what whoever calls may do: what their token allows, and everything where none is asked for."""
    user = None if context.request is None else context.request.scope.get("user")
    scopes = getattr(user, "scopes", None)
    return scopes[0] if scopes else "admin"


def _actor(context: Context) -> str:
    """Return who calls, as commits are to say it: the program, by the name that it gives itself."""
    params = context.session.client_params
    name = "" if params is None else clean(params.client_info.name)[:_ACTOR_CHARS].strip()
    return f"mcp:{name}" if name else "mcp"


def _json(found: dict[str, Any]) -> types.TextContent:
    """Return an answer as text, for hosts that show no structure: JSON, which no stored text gets out of."""
    return types.TextContent(type="text", text=msgspec.json.encode(found).decode())


def _error(error: Exception, what: str) -> dict[str, Any]:
    """Return what went wrong as a tool's error: code, message, hint and typed fields.

    Whatever is no error of ours is a bug: it is logged, and the host learns no more than that.
    """
    if not isinstance(error, StrataError):
        log.error("%s failed", what, exc_info=error)
        error = InternalError(f"{what} failed; the server's log says how")
    shown: dict[str, Any] = Budget().fit(error_data(error))[0]
    return shown


def _failed(error: dict[str, Any]) -> types.CallToolResult:
    found = {"notice": NOTICE, "error": error}
    return types.CallToolResult(content=[_json(found)], structured_content=found, is_error=True)


async def serve_stdio(server: Server[Any]) -> None:
    """Serve one host over standard input and output, until it closes them."""
    async with stdio_server() as (reading, writing):
        await server.run(reading, writing, server.create_initialization_options())
