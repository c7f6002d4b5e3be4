"""One call of one tool: connect, look at the tool, check the arguments, call it.

This and the transports (``mcp_stdio.py``, ``mcp_http.py``) are the only modules that import the
SDK; they are imported when the first call is made. The SDK is asynchronous: each call has an
event loop of its own, in the thread of its job.
"""

import threading
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any, Protocol

import anyio
from mcp import ClientSession, MCPError
from mcp.client import IncomingMessage
from mcp_types import (
    CONNECTION_CLOSED,
    INVALID_PARAMS,
    METHOD_NOT_FOUND,
    URL_ELICITATION_REQUIRED,
    CallToolRequest,
    CallToolRequestParams,
    CallToolResult,
    Implementation,
    LoggingMessageNotificationParams,
    PaginatedRequestParams,
    Tool,
)
from pydantic import RootModel, ValidationError

from moonmind_queue.executors import Block, Fail, Outcome, Retry, Stopped
from moonmind_queue.executors.mcp_config import HttpServer, Server
from moonmind_queue.executors.mcp_http import HttpPeer
from moonmind_queue.executors.mcp_log import CallLog, collecting
from moonmind_queue.executors.mcp_schema import faults
from moonmind_queue.executors.mcp_stdio import StdioPeer

TICK = 0.05  # seconds between two looks at the stop event
COURTESY = 0.5  # seconds to tell a server that its answer is not wanted any more
CLOSING = 2.0  # seconds to take leave of a server that has answered
PAGES = 100  # of the list of tools


class Peer(Protocol):
    """A server and the way to it."""

    def streams(self) -> Any:
        """Connect: an asynchronous context manager of the two streams of a session."""

    def end(self, stop: threading.Event, *, hurry: bool) -> None:
        """Leave nothing running that was started."""

    def trouble(self, *, answered: bool) -> Outcome | None:
        """Return how the server broke the connection, if it did.

        ``answered`` is whether it, or the transport in its place, answered with an error.
        """


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back: ``result`` as the server sent it, and whether its tool may run again."""

    result: dict[str, Any]
    repeatable: bool
    output_schema: dict[str, Any] | None


class _Raw(RootModel[dict[str, Any]]):
    """A result as it came: the SDK's own types drop what they do not know."""


class Call:
    """One call; :meth:`run` makes it."""

    def __init__(
        self, server: Server, tool: str, arguments: Mapping[str, Any], log: CallLog
    ) -> None:
        self._server, self._tool, self._arguments, self._log = server, tool, arguments, log
        self._answer: Answer | None = None
        self._doing = f"starting server {server.name!r}"
        self._agreed = False  # on a version of the protocol
        self._repeatable: bool | None = None  # whether the tool may run again; none until it runs
        self._late = False
        self._courtesy = 0.0  # seconds for taking leave, once there is somebody to leave

    def run(
        self, environ: Mapping[str, str], stop: threading.Event, seconds: float, limit: int
    ) -> Answer:
        """Make the call within ``seconds``; raises an ``Outcome``. Nothing is left running.

        ``limit`` is how many bytes a message of the server may have.
        """
        problem: Exception | None = None
        peer: Peer = (
            HttpPeer(self._server, limit)
            if isinstance(self._server, HttpServer)
            else StdioPeer(self._server, environ, self._log, limit)
        )
        try:
            with collecting(self._log):
                anyio.run(self._serve, peer, stop, seconds)
        except Exception as error:
            problem = error
        finally:
            peer.end(stop, hurry=self._late)
        if self._answer is not None:
            return self._answer
        if stop.is_set():
            raise Stopped(f"stopped while {self._doing}")
        if problem is None or self._late:
            raise Retry(f"exceeded {seconds:g} s while {self._doing}")
        raise self._outcome(problem, peer)

    # --- in the event loop -----------------------------------------------------------------

    async def _serve(self, peer: Peer, stop: threading.Event, seconds: float) -> None:
        async with anyio.create_task_group() as group:
            whole, calling = group.cancel_scope, anyio.CancelScope()
            group.start_soon(self._limit, calling, whole, stop, seconds)
            async with self._connected(peer) as session:
                self._courtesy = COURTESY
                with calling:
                    tool = await self._find(session)
                    self._check(tool)
                    self._answer = await self._call(session, tool)
                whole.deadline = anyio.current_time() + CLOSING
            whole.cancel()

    async def _limit(
        self,
        calling: anyio.CancelScope,
        whole: anyio.CancelScope,
        stop: threading.Event,
        seconds: float,
    ) -> None:
        """End the call when it is stopped or takes too long; the SDK then tells the server."""
        deadline = anyio.current_time() + seconds
        while not stop.is_set() and anyio.current_time() < deadline:
            await anyio.sleep(TICK)
        self._late = not stop.is_set()
        calling.cancel()
        await anyio.sleep(self._courtesy)
        whole.cancel()

    @asynccontextmanager
    async def _connected(self, peer: Peer) -> AsyncIterator[ClientSession]:
        async with (
            peer.streams() as (read_stream, write_stream),
            ClientSession(
                read_stream,
                write_stream,
                client_info=Implementation(
                    name="moonmind-queue", version=version("moonmind-queue")
                ),
                logging_callback=self._said,
                log_level="info",
                message_handler=self._heard,
            ) as session,
        ):
            await _shake_hands(session)
            yield session

    async def _find(self, session: ClientSession) -> Tool:
        self._agreed = True
        self._doing = f"listing the tools of server {self._server.name!r}"
        names: list[str] = []
        cursor: str | None = None
        for _ in range(PAGES):
            page = await session.list_tools(params=PaginatedRequestParams(cursor=cursor))
            for tool in page.tools:
                if tool.name == self._tool:
                    return tool
                names.append(tool.name)
            cursor = page.next_cursor
            if cursor is None:
                break
        raise Block(
            f"server {self._server.name!r} has no tool {self._tool!r}; "
            f"there are {', '.join(sorted(names)) or 'none'}"
        )

    def _check(self, tool: Tool) -> None:
        try:
            wrong = faults(tool.input_schema, self._arguments, "arguments")
        except ValueError as error:
            self._log.line(f"the arguments were not checked: {error}")
            return
        if wrong:
            raise Fail(f"tool {self._tool!r} of server {self._server.name!r}: {'; '.join(wrong)}")

    async def _call(self, session: ClientSession, tool: Tool) -> Answer:
        self._doing = f"calling tool {self._tool!r} of server {self._server.name!r}"
        self._log.progress(self._doing)
        hints = tool.annotations
        self._repeatable = bool(hints and (hints.read_only_hint or hints.idempotent_hint))
        params = CallToolRequestParams(name=self._tool, arguments=dict(self._arguments))
        # Not the session's own method: it drops a result that does not fit the tool's schema.
        answer = await session.send_request(
            CallToolRequest(params=params), _Raw, progress_callback=self._progressed
        )
        result = answer.root
        if result.get("resultType") == "input_required":
            raise Block(f"{self._doing}: it asks for input, which a task cannot give")
        CallToolResult.model_validate(result, by_name=False)
        return Answer(result=result, repeatable=self._repeatable, output_schema=tool.output_schema)

    # --- what the server says on the way ---------------------------------------------------

    async def _said(self, params: LoggingMessageNotificationParams) -> None:
        text = params.data if isinstance(params.data, str) else repr(params.data)
        source = f"{params.logger}: " if params.logger else ""
        self._log.line(f"[{params.level}] {source}{text}", "stderr")

    async def _heard(self, message: IncomingMessage) -> None:
        if isinstance(message, Exception):
            self._log.line(f"not understood: {message}", "stderr")

    async def _progressed(self, progress: float, total: float | None, message: str | None) -> None:
        done = f"{progress:g}/{total:g}" if total else f"{progress:g}"
        data = {"progress": progress, "total": total}
        self._log.progress(f"{message} ({done})" if message else f"progress {done}", data)

    # --- what an error means ---------------------------------------------------------------

    def _outcome(self, problem: Exception, peer: Peer) -> Outcome:
        errors = list(_leaves(problem))
        for error in errors:
            if isinstance(error, Outcome):
                return error
        error = errors[0]
        code = error.code if isinstance(error, MCPError) else CONNECTION_CLOSED
        answered = code != CONNECTION_CLOSED
        text = f"{self._doing}: {error}"
        if self._agreed and code in (INVALID_PARAMS, METHOD_NOT_FOUND):
            return Block(text) if self._repeatable is None else Fail(text)
        if trouble := peer.trouble(answered=answered):
            self._log.line(text)
            return trouble
        if isinstance(error, ValidationError):
            return Fail(f"{self._doing}: the answer is not of the protocol: {_first(error)}")
        if isinstance(error, RuntimeError) and not self._agreed:
            return Block(text)  # it has no version of the protocol that the SDK knows
        if not isinstance(error, MCPError):
            return Retry(f"{self._doing}: {type(error).__name__}: {error}")
        if code == URL_ELICITATION_REQUIRED:
            return Block(text)
        # As with a tool that failed, nobody knows what was done before.
        return Fail(text) if answered and self._repeatable is False else Retry(text)


async def _shake_hands(session: ClientSession) -> None:
    """Agree on a version of the protocol, the handshake of all older ones first.

    Servers of those end, or say nothing, when their first message is another; servers that have
    only the newest version say so.
    """
    try:
        await session.initialize()
    except MCPError as refusal:
        if refusal.code == CONNECTION_CLOSED:
            raise
        try:
            await session.discover()
        except (MCPError, RuntimeError, ValidationError):
            raise refusal from None


def _leaves(error: BaseException) -> Iterator[BaseException]:
    """Yield the errors in groups of groups, as task groups make them."""
    if isinstance(error, BaseExceptionGroup):
        for each in error.exceptions:
            yield from _leaves(each)
    else:
        yield error


def _first(error: ValidationError) -> str:
    fault = error.errors(include_input=False)[0]
    return f"{'.'.join(str(part) for part in fault['loc'])}: {fault['msg']}"
