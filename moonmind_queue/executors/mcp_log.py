"""What one MCP call leaves to read: what the server prints and says, and how the call went.

Everything passes the redactor here, before it reaches the queue. The log is read along while it
grows and kept as an artifact; of a server that prints too much, beginning and end are kept.
"""

import logging
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from moonmind_queue.executors import Context
from moonmind_queue.redact import Redactor

LOG_LIMIT = 1024 * 1024  # bytes that are kept: half from the beginning, half from the end
LINE_LIMIT = 64 * 1024  # bytes of one line
PROGRESS_LIMIT = 100  # events of one call; the rest is in the log only
MESSAGE_LIMIT = 500  # characters of one event's message


class CallLog:
    """The sinks of one call."""

    def __init__(self, redactor: Redactor, context: Context, limit: int = LOG_LIMIT) -> None:
        self.redactor = redactor
        self._last = b""  # line of standard error
        self._context = context
        self._half = max(limit // 2, 1)
        self._head = bytearray()
        self._tail: deque[bytes] = deque()
        self._tail_size = 0
        self._cut = 0
        self._reported = 0

    def line(self, text: str | bytes, stream: str = "stdout") -> None:
        """Add a line, or several."""
        data = text.encode(errors="replace") if isinstance(text, str) else text
        data = self.redactor.line(data)[:LINE_LIMIT]
        self._context.log(data.decode(errors="replace"), stream=stream, stage="mcp-call")
        self._keep(data + b"\n")

    def stderr(self, line: bytes) -> None:
        """Add a line of the server's standard error."""
        if line.strip():
            self._last = line
        self.line(line, "stderr")

    @property
    def complaint(self) -> str:
        """The last line of the server's standard error, which says most when it dies."""
        return self.shorten(self._last.decode(errors="replace"))

    def progress(
        self, message: str, data: Mapping[str, Any] | None = None, *, level: str = "info"
    ) -> None:
        """Add a line, and an event to the job's history as long as there are not too many."""
        self.line(message)
        self._reported += 1
        if self._reported < PROGRESS_LIMIT:
            self._context.progress(self.shorten(message), data, level=level)
        elif self._reported == PROGRESS_LIMIT:
            self._context.progress("further progress is in the log only", level="warn")

    def shorten(self, text: str, limit: int = MESSAGE_LIMIT) -> str:
        """Redact a text, make it storable, and bound it: beginning and end are kept."""
        text = self.redactor.text(text.encode(errors="replace").decode())
        text = text.replace("\0", "\N{REPLACEMENT CHARACTER}").strip()
        if len(text) <= limit:
            return text
        head = limit * 2 // 3
        return f"{text[:head]} … {text[len(text) - (limit - head - 3) :]}"

    def content(self) -> bytes:
        """Return what was kept."""
        mark = b"[... %d bytes cut here ...]\n" % self._cut if self._cut else b""
        return bytes(self._head) + mark + b"".join(self._tail)

    def _keep(self, data: bytes) -> None:
        if not self._tail and len(self._head) + len(data) <= self._half:
            self._head += data
            return
        self._tail.append(data)
        self._tail_size += len(data)
        while self._tail_size > self._half and len(self._tail) > 1:
            gone = len(self._tail.popleft())
            self._tail_size -= gone
            self._cut += gone


# --- what the SDK logs --------------------------------------------------------------------------

_current: ContextVar[CallLog | None] = ContextVar("current", default=None)
_SOURCES = ("mcp", "client", "httpx2")  # the SDK's loggers, and that of its HTTP client


class _ToCallLog(logging.Handler):
    """Keeps the SDK's warnings off the worker's own output, where nothing would redact them."""

    def emit(self, record: logging.LogRecord) -> None:
        log = _current.get()
        if log is None:
            if logging.lastResort is not None:
                logging.lastResort.handle(record)
            return
        error = record.exc_info[1] if record.exc_info else None
        log.line(log.shorten(f"{record.getMessage()}{f': {error}' if error else ''}"), "stderr")


_HANDLER = _ToCallLog(logging.WARNING)


@contextmanager
def collecting(log: CallLog) -> Iterator[None]:
    """Let the warnings that the SDK logs on behalf of one call go to the call's own log."""
    for name in _SOURCES:
        logger = logging.getLogger(name)
        logger.addHandler(_HANDLER)  # once, however often it is added
        logger.propagate = False
    token = _current.set(log)
    try:
        yield
    finally:
        _current.reset(token)
