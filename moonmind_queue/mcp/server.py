"""Gives a profile's tools to MCP clients, with the official SDK."""

import logging
import signal
from functools import partial
from typing import Any

import anyio
import anyio.to_thread
import structlog
from mcp.server import Server, ServerRequestContext
from mcp.server.stdio import stdio_server
from mcp_types import (
    CallToolRequestParams,
    CallToolResult,
    ListToolsResult,
    PaginatedRequestParams,
    TextContent,
    ToolAnnotations,
)
from mcp_types import Tool as ListedTool

from moonmind_queue import __version__
from moonmind_queue.mcp.tools import Answer, Profile, Tool

AT_ONCE = 16  # calls, each with a connection to the database

log = structlog.get_logger()


def serve(profile: Profile) -> None:
    """Serve one client over standard input and output, until it closes them."""
    listen_to_sdk()
    # What waits for input in a thread does not hear Ctrl-C; nothing is lost when it ends at once.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    log.info("mcp.serving", profile=profile.name, over="stdio")
    try:
        anyio.run(_over_stdio, build(profile))
    except* BrokenPipeError:
        log.info("mcp.client_gone")


async def _over_stdio(server: "Server[Any]") -> None:
    async with stdio_server() as (read, write):
        await server.run(read, write, server.create_initialization_options())


def listen_to_sdk() -> None:
    """Bring what the SDK and its web server complain of into our log."""
    logging.basicConfig(level=logging.WARNING, handlers=[_Complaints()])


class _Complaints(logging.Handler):
    """Writes a line each, without the traceback: values of a call may stand in it."""

    def emit(self, record: logging.LogRecord) -> None:
        kind = record.exc_info[0] if record.exc_info else None
        error = kind.__name__ if kind else None
        log.warning("mcp.sdk", by=record.name, told=record.getMessage()[:200], error=error)


def build(profile: Profile) -> "Server[Any]":
    """Return the SDK's server of a profile; each call runs in a thread."""
    listed = [_listed(tool) for tool in profile.tools]
    schemas = {tool.name: tool.input_schema for tool in listed}
    room = anyio.CapacityLimiter(AT_ONCE)

    async def list_tools(
        _: ServerRequestContext[Any], __: PaginatedRequestParams | None
    ) -> ListToolsResult:
        return ListToolsResult(tools=listed)

    async def call_tool(
        _: ServerRequestContext[Any], asked: CallToolRequestParams
    ) -> CallToolResult:
        call = partial(profile.ask, asked.name, asked.arguments or {})
        return _result(await anyio.to_thread.run_sync(call, limiter=room))

    return Server(
        f"moonmind-{profile.name}",
        version=__version__,
        instructions=profile.instructions,
        get_tool_input_schema=schemas.get,
        on_list_tools=list_tools,
        on_call_tool=call_tool,
    )


def _listed(tool: Tool) -> ListedTool:
    return ListedTool(
        name=tool.name,
        description=tool.description,
        input_schema=tool.schema,
        annotations=ToolAnnotations(
            read_only_hint=tool.reads,
            destructive_hint=tool.destroys,
            idempotent_hint=tool.reads or tool.again,
            open_world_hint=False,
        ),
    )


def _result(answer: Answer) -> CallToolResult:
    """Return an answer as text, and as structured content, which has to be an object."""
    structured = answer.content if isinstance(answer.content, dict) else {"result": answer.content}
    return CallToolResult(
        content=[TextContent(type="text", text=answer.text)],
        structured_content=structured,
        is_error=answer.refused,
    )
