"""A program for tests: an MCP server with one tool for each thing that can happen to a call.

``mcp_toolbox.py stdio`` talks on its standard input and output; ``streamable-http`` and ``sse``
listen on a free port of 127.0.0.1 and print it first.
"""

import base64
import gzip
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import anyio
import uvicorn
from mcp.server.mcpserver import Context, MCPServer
from mcp_types import (
    AudioContent,
    BlobResourceContents,
    CallToolResult,
    EmbeddedResource,
    ImageContent,
    ResourceLink,
    TextContent,
    TextResourceContents,
    Tool,
    ToolAnnotations,
)
from pydantic import BaseModel
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

PIXEL = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNkYPhfDwAChwGA60e6kgAAAABJRU5ErkJggg=="
)
WIRE = os.dup(1)  # the SDK takes standard output away from everybody else


class Toolbox(MCPServer[Any]):
    """A server one of whose tools promises what it does not keep."""

    async def list_tools(self) -> list[Tool]:
        """List the tools."""
        tools = await super().list_tools()
        for tool in tools:
            if tool.name == "lies":
                tool.output_schema = {"type": "object", "required": ["truth"]}
            if tool.name == "unclear":
                tool.input_schema = {"type": "object", "properties": {"a": {"$ref": "http://x/"}}}
        return tools


class Sum(BaseModel):
    """What ``add`` answers."""

    total: int
    terms: list[int]


box = Toolbox("toolbox", log_level="WARNING")
plain = box.tool(structured_output=False)


@plain
def echo(text: str) -> str:
    """Say the same."""
    return text


@box.tool()
def add(terms: list[int]) -> Sum:
    """Add numbers."""
    return Sum(total=sum(terms), terms=terms)


@plain
def show() -> CallToolResult:
    """Answer with a block of every kind."""
    note = TextResourceContents(uri="note://1", mime_type="text/markdown", text="# Ärger\n")
    blob = BlobResourceContents(
        uri="file:///x.pdf",
        mime_type="application/pdf",
        blob=base64.b64encode(b"%PDF-1.7").decode(),
    )
    return CallToolResult(
        content=[
            TextContent(text="here you are"),
            ImageContent(data=base64.b64encode(PIXEL).decode(), mime_type="image/png"),
            AudioContent(data=base64.b64encode(b"RIFF").decode(), mime_type="audio/wav"),
            EmbeddedResource(resource=note),
            EmbeddedResource(resource=blob),
            ResourceLink(name="elsewhere", uri="https://example.com/"),
        ]
    )


@plain
def fail(text: str) -> CallToolResult:
    """Fail for the reason given."""
    return CallToolResult(content=[TextContent(text=text)], is_error=True)


@box.tool(structured_output=False, annotations=ToolAnnotations(read_only_hint=True))
def look(text: str) -> CallToolResult:
    """Fail, too, having changed nothing."""
    return CallToolResult(content=[TextContent(text=text)], is_error=True)


@plain
def lies() -> CallToolResult:
    """Answer with other content than was promised."""
    return CallToolResult(content=[TextContent(text="done")], structured_content={"untruth": 1})


@plain
def unclear(a: str) -> str:
    """Have a schema that nobody can check."""
    return a


@plain
async def slow(note: str, context: Context) -> str:
    """Take ten minutes; note how it ended in a file."""
    try:
        await context.report_progress(1, 2, "half of it")
        await anyio.sleep(600)
    except anyio.get_cancelled_exc_class():
        Path(note).write_text("cancelled")
        raise
    return "done"


@plain
async def chatter(count: int, context: Context) -> str:
    """Report progress often, and log."""
    await context.session.send_log_message(
        level="warning", data="I talk", logger="toolbox", related_request_id=context.request_id
    )
    for step in range(1, count + 1):
        await context.report_progress(step, count, "talking")
    return "talked"


@plain
async def stubborn() -> str:
    """Ignore every request to end, and say who does."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    os.write(WIRE, b"I stay, %d\n" % os.getpid())
    signal.pause()
    return "done"


@plain
def escape(nap: str) -> str:
    """Leave a process behind, in a session of its own, that holds our pipes open."""
    child = subprocess.Popen(["sleep", nap], start_new_session=True, stdout=WIRE)
    return f"{child.pid}"


@plain
def print_things(text: str) -> str:
    """Print where only messages belong, and on standard error."""
    os.write(WIRE, text.encode() + b"\n\n{}\n[1, 2]\n")
    os.write(2, b"stderr: " + text.encode() + b"\n")
    return "printed"


@plain
def die(nap: str) -> str:
    """End at once, with a reason and a child that lives on."""
    subprocess.Popen(["sleep", nap], stdout=WIRE)
    os.write(2, b"Traceback\nOSError: the disk is gone\n")
    os._exit(7)


@box.tool()
def environment() -> dict[str, str]:
    """Show the environment and the working directory."""
    return dict(os.environ) | {"cwd": str(Path.cwd())}


@plain
def headers(context: Context) -> str:
    """Show the headers of the request."""
    return repr(dict(context.headers or {}))


@plain
def flood(size: int) -> str:
    """Answer with a long text."""
    return "x" * size


@plain
def stderr_flood(size: int) -> str:
    """Print a lot, in lines."""
    for line in range(size // 100):
        os.write(2, b"%010d %s\n" % (line, b"e" * 88))
    return "printed"


@box.custom_route("/refuse/{status}", methods=["POST", "GET"])
async def refuse(request: Request) -> Response:
    """Answer with a status."""
    return Response("no", status_code=int(request.path_params["status"]))


@box.custom_route("/endless", methods=["POST"])
async def endless(_: Request) -> Response:
    """Answer with a body that is too long."""
    return Response("[" + " " * 3_000_000 + "]", media_type="application/json")


@box.custom_route("/packed", methods=["POST"])
async def packed(request: Request) -> Response:
    """Answer with little that would become a lot."""
    number = (await request.json()).get("id")
    error = {"jsonrpc": "2.0", "id": number, "error": {"code": -32603, "message": "unpacked"}}
    body = gzip.compress(json.dumps(error).encode() + b" " * 100_000_000)
    return Response(body, media_type="application/json", headers={"content-encoding": "gzip"})


@box.custom_route("/moved", methods=["POST"])
async def moved(request: Request) -> Response:
    """Send the client to another address."""
    return Response(status_code=307, headers={"location": request.query_params["to"]})


@box.custom_route("/deaf", methods=["GET"])
async def deaf(_: Request) -> Response:
    """Open a stream of the older transport whose messages are refused."""

    async def events() -> AsyncIterator[str]:
        yield "event: endpoint\ndata: /refuse/403\n\n"
        await anyio.sleep(600)

    return StreamingResponse(events(), media_type="text/event-stream")


@box.custom_route("/garbage", methods=["POST"])
async def garbage(request: Request) -> Response:
    """Answer with what is no message, and repeat a secret."""
    text = f'{{"jsonrpc": "2.0", "id": 1, "oops": "{request.query_params["key"]}"}}'
    return Response(text, media_type="application/json")


def in_pieces(app: Any) -> Any:
    """Send what a client wants in pieces, by its header, with a cut in each blank line."""

    async def serve(scope: Any, receive: Any, send: Any) -> None:
        async def cut(message: Any) -> None:
            body = message.get("body", b"")
            for piece in (body[:-2], body[-2:]):
                await send({**message, "body": piece, "more_body": message.get("more_body", False)})

        wanted = (b"x-pieces", b"yes") in scope.get("headers", ())

        async def choose(message: Any) -> None:
            events = message["type"] == "http.response.body" and message.get("more_body")
            await (cut if events and wanted else send)(message)

        await app(scope, receive, choose)

    return serve


def main() -> None:
    """Serve."""
    transport = sys.argv[1]
    if transport == "stdio":
        os.write(1, b"toolbox 1.0 is starting\n")
        box.run()
        return
    app = box.sse_app() if transport == "sse" else box.streamable_http_app()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        os.write(1, b"%d\n" % listener.getsockname()[1])
        uvicorn.Server(uvicorn.Config(in_pieces(app), log_level="warning")).run(sockets=[listener])


if __name__ == "__main__":
    main()
