"""An MCP server that runs elsewhere and is reached by HTTP: nothing to start, nothing to end.

What the SDK's transports do not do is done here: what comes is bounded, an answer may take as long
as the call may, and what the server's status meant is remembered.
"""

import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import urljoin, urlsplit

import anyio
import httpx2
from mcp.client.sse import sse_client
from mcp.client.streamable_http import streamable_http_client

from moonmind_queue.executors import Block, Fail, Outcome, Retry
from moonmind_queue.executors.mcp_config import HttpServer

CONNECT_TIMEOUT = 30.0  # seconds; also for sending, and for a connection of the pool

_PASSING = (404, 408, 425, 429)  # 404 too: a session or a route that is gone may come back


class HttpPeer:
    """A server that is spoken to over streamable HTTP, or over SSE where the file says so.

    A message of the server may have ``limit`` bytes.
    """

    def __init__(self, server: HttpServer, limit: int) -> None:
        self._server, self._limit = server, limit
        url = urlsplit(server.url)
        self._origin = f"{url.scheme}://{url.netloc.rpartition('@')[2]}"
        self._status, self._answer = 0, ""
        self._excess: Fail | None = None
        self._refused = anyio.Event()

    @asynccontextmanager
    async def streams(self) -> AsyncIterator[tuple[Any, Any]]:
        """Carry messages between the server and the streams of a session."""
        if self._server.sse:  # of which the SDK takes messages up to 1 MiB
            async with (
                anyio.create_task_group() as group,
                sse_client(self._server.url, httpx_client_factory=self._client) as streams,
            ):
                group.start_soon(self._give_up)
                yield streams
                group.cancel_scope.cancel()
            return
        async with (
            self._client() as client,
            streamable_http_client(
                self._server.url, http_client=client, max_sse_event_size=self._limit
            ) as streams,
        ):
            yield streams

    def end(self, stop: threading.Event, *, hurry: bool) -> None:
        """Leave the server running: it is not ours."""

    def trouble(self, *, answered: bool) -> Outcome | None:
        """Return how the server refused to answer, if it did."""
        if self._excess is not None:
            return self._excess
        if not self._status:
            return None
        text = f"server {self._server.name!r} at {self._origin} answers {self._answer}"
        if self._status >= 500 or self._status in _PASSING:
            return Retry(text)
        return Block(
            f"{text}: look at its url and headers in the file that MOONMIND_MCP_CONFIG names"
        )

    def _client(
        self, headers: Any = None, timeout: Any = None, auth: Any = None
    ) -> httpx2.AsyncClient:
        """Make the client of a transport; what that would like to set is ours to say."""
        return httpx2.AsyncClient(
            headers={"Accept-Encoding": "identity", **self._server.headers},
            timeout=httpx2.Timeout(CONNECT_TIMEOUT, read=None),
            event_hooks={"response": [self._look]},
        )

    async def _look(self, response: httpx2.Response) -> None:
        # Over streamable HTTP a server may refuse GET and DELETE, and often does.
        if response.request.method == "POST" or self._server.sse:
            self._status = response.status_code if response.status_code >= 300 else 0
            self._answer = f"{response.status_code} {response.reason_phrase}".strip()
            if response.has_redirect_location:  # the transport follows what stays at the origin
                self._answer += f" ({self._elsewhere(response)})"
            if self._status >= 400:
                self._refused.set()
        # What is bounded here would be of any size once it was unpacked.
        response.headers.pop("content-encoding", None)
        events = "text/event-stream" in response.headers.get("content-type", "")
        response.stream = _Bounded(response.stream, events, self._limit, self._exceeded)

    async def _give_up(self) -> None:
        """End the session when a message is refused: the SDK's SSE transport would wait on."""
        await self._refused.wait()
        if trouble := self.trouble(answered=True):
            raise trouble

    def _elsewhere(self, response: httpx2.Response) -> str:
        """Return where a response leads, without what may be secret there."""
        url = urlsplit(urljoin(str(response.request.url), response.headers["location"]))
        return f"{url.scheme}://{url.netloc.rpartition('@')[2]}{url.path}"

    def _exceeded(self) -> Fail:
        self._excess = Fail(
            f"server {self._server.name!r} sent a message of more than {self._limit} bytes, "
            "which MOONMIND_ARTIFACT_MAX_BYTES decides"
        )
        return self._excess


class _Bounded(httpx2.AsyncByteStream):
    """The body of a response: of ``events`` each, of anything else the whole is bounded."""

    def __init__(
        self, stream: Any, events: bool, limit: int, exceeded: Callable[[], Exception]
    ) -> None:
        self._stream, self._events = stream, events
        self._limit, self._exceeded = limit, exceeded

    async def __aiter__(self) -> AsyncIterator[bytes]:
        size, last = 0, b""
        async for chunk in self._stream:
            size += len(chunk)
            if self._events:
                seen = last + chunk  # for a blank line may come in two pieces
                last = seen[-3:]
                _, ended, begun = seen.replace(b"\r\n", b"\n").rpartition(b"\n\n")
                size = len(begun) if ended else size
            if size > self._limit:
                raise self._exceeded()
            yield chunk

    async def aclose(self) -> None:
        """Let go of the connection."""
        await self._stream.aclose()
