"""An MCP server that is a program of ours: started for one call, and gone with all it started.

The SDK's own transport for programs ends their process group only, relies on a server to end by
itself when the worker is killed, holds lines of any length in memory and waits for ever for an
answer that cannot be understood. This one starts a program as every executor does
(``process.py``), in a session of its own and with a mark in its environment by which whatever it
started is found, and speaks to the SDK's session through the same pair of streams.
"""

import os
import signal
import subprocess
import threading
import uuid
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import IO

import anyio
from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream
from mcp.shared.message import SessionMessage
from mcp_types import jsonrpc_message_adapter
from pydantic_core import from_json

from moonmind_queue.executors import Fail, Outcome, Retry, process, sessions
from moonmind_queue.executors.lines import Lines, TooMuch, Whole
from moonmind_queue.executors.mcp_config import StdioServer
from moonmind_queue.executors.mcp_log import CallLog

MARK = "MOONMIND_MCP_CALL"
PATIENCE = 2.0  # seconds a server has to end by itself once its standard input is closed
GRACE = 0.5  # seconds between SIGTERM and SIGKILL
DRAIN = 0.2  # seconds for what a server that has ended left in its pipe
STDERR_LIMIT = 256 * 1024  # bytes of one line

Incoming = MemoryObjectSendStream[SessionMessage | Exception]
Outgoing = MemoryObjectReceiveStream[SessionMessage]
Streams = tuple[
    MemoryObjectReceiveStream[SessionMessage | Exception], MemoryObjectSendStream[SessionMessage]
]


class StdioPeer:
    """A server that runs until :meth:`end`; raises ``Retry`` when it cannot be started."""

    def __init__(
        self, server: StdioServer, environ: Mapping[str, str], log: CallLog, limit: int
    ) -> None:
        self._server, self._log, self._limit = server, log, limit
        self._mark = f"{MARK}={uuid.uuid4().hex}"
        try:
            self._program = process.Plain(
                server.argv, server.cwd, self._environment(environ), subprocess.PIPE
            )
        except OSError as error:
            raise Retry(
                f"server {server.name!r} cannot be started: {error.strerror}: {error.filename}"
            ) from None
        self._process = self._program.process
        for pipe in (self._process.stdin, self._process.stdout, self._process.stderr):
            if pipe is not None:
                os.set_blocking(pipe.fileno(), False)
        self._errors = Lines(log.stderr, STDERR_LIMIT)
        self._hung_up = False  # whether the server closed a pipe before we did
        self._trouble: Outcome | None = None

    @asynccontextmanager
    async def streams(self) -> AsyncIterator[Streams]:
        """Carry messages between the server's pipes and the streams of a session."""
        self._reading = anyio.CancelScope()
        incoming, read_stream = anyio.create_memory_object_stream[SessionMessage | Exception](0)
        write_stream, outgoing = anyio.create_memory_object_stream[SessionMessage](0)
        with incoming, read_stream, write_stream, outgoing:
            async with anyio.create_task_group() as group:
                group.start_soon(self._read, incoming)
                group.start_soon(self._write, outgoing)
                group.start_soon(self._read_errors)
                group.start_soon(self._notice_exit)
                try:
                    yield read_stream, write_stream
                finally:
                    group.cancel_scope.cancel()

    def end(self, stop: threading.Event, *, hurry: bool) -> None:
        """Let the server end as the protocol has it, then kill whatever is left.

        In a ``hurry`` it is told to end at once; when ``stop`` is set, too.
        """
        died = self._hung_up or sessions.exited(self._process)
        ended = process.attend(
            self._program,
            stdout=Lines(lambda _: None),
            stderr=self._errors,
            stop=stop,
            timeout=0 if hurry else PATIENCE,
            interrupt=signal.SIGTERM,
            grace=GRACE,
            markers=lambda: [self._mark],
        )
        if died and ended.end is process.End.EXITED:
            status = ended.returncode
            how = f"exit status {status}" if status >= 0 else f"signal {-status}"
            said = self._log.complaint
            text = f"server {self._server.name!r} ended with {how}"
            self._trouble = Retry(f"{text}: {said}" if said else text)

    def trouble(self, *, answered: bool) -> Outcome | None:
        """Return how the server ended, if it did so unasked and without an answer.

        Known after :meth:`end`.
        """
        return None if answered else self._trouble

    def _environment(self, environ: Mapping[str, str]) -> dict[str, str]:
        name, _, value = self._mark.partition("=")
        return {
            "PATH": environ.get("PATH") or os.defpath,
            "HOME": environ.get("HOME") or str(Path.home()),
            "LANG": "C.UTF-8",
            **self._server.env,
            name: value,
        }

    async def _read(self, incoming: Incoming) -> None:
        lines: list[bytes] = []
        cutter = Whole(lines.append, self._limit)
        with incoming, self._reading:
            while data := await _receive(self._process.stdout):
                try:
                    cutter.feed(data)
                except TooMuch:
                    raise Fail(
                        f"server {self._server.name!r} sent a message of more than {self._limit} "
                        "bytes, which MOONMIND_ARTIFACT_MAX_BYTES decides"
                    ) from None
                for line in lines:
                    await self._take(line, incoming)
                lines.clear()
            self._hung_up = True

    async def _take(self, line: bytes, incoming: Incoming) -> None:
        """Hand a message on; what is none was printed by mistake and goes to the log."""
        try:
            message = jsonrpc_message_adapter.validate_json(line, by_name=False)
        except ValueError:
            if line.strip():
                self._log.line(line)
            if _answers(line):
                raise Fail(
                    f"server {self._server.name!r} sent an answer that is not of the protocol"
                ) from None
            return
        try:
            await incoming.send(SessionMessage(message))
        except (anyio.BrokenResourceError, anyio.ClosedResourceError):
            self._reading.cancel()  # the session is over

    async def _write(self, outgoing: Outgoing) -> None:
        with outgoing:
            async for item in outgoing:
                text = item.message.model_dump_json(by_alias=True, exclude_unset=True)
                try:
                    await _send(self._process.stdin, text.encode() + b"\n")
                except OSError:
                    self._hung_up = True
                    self._reading.cancel()  # nobody reads: there will be no answers
                    return

    async def _read_errors(self) -> None:
        while data := await _receive(self._process.stderr):
            self._errors.feed(data)

    async def _notice_exit(self) -> None:
        """End the connection with the server, though a child of it may hold the pipe open."""
        while not sessions.exited(self._process):
            await anyio.sleep(process.TICK)
        await anyio.sleep(DRAIN)
        self._reading.cancel()


def _answers(line: bytes) -> bool:
    """Say whether a line was meant as an answer: then no other one will come."""
    try:
        found = from_json(line)
    except ValueError:
        return False
    return isinstance(found, dict) and found.get("id") is not None and "method" not in found


async def _receive(pipe: IO[bytes] | None) -> bytes:
    """Return what comes next, or nothing at the end."""
    if pipe is None:
        return b""
    while True:
        await anyio.wait_readable(pipe.fileno())
        try:
            return os.read(pipe.fileno(), process.CHUNK)
        except BlockingIOError:
            continue


async def _send(pipe: IO[bytes] | None, data: bytes) -> None:
    if pipe is None:
        return
    rest = memoryview(data)
    while rest:
        await anyio.wait_writable(pipe.fileno())
        try:
            rest = rest[os.write(pipe.fileno(), rest[: process.CHUNK]) :]
        except BlockingIOError:
            continue
