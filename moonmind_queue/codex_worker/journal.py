"""What one run leaves to read: a log for people, Codex's events as they came, and progress.

The log is read along while it grows, and kept as a file; both get the same lines.

Everything passes the redactor here, before it reaches a disk or the queue. Both files are
bounded: of a run that prints too much, the beginning and the end are kept.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

from moonmind_queue.executors import Context
from moonmind_queue.redact import Redactor

PROGRESS_LIMIT = 300  # events of one run; the rest is in the log only
MESSAGE_LIMIT = 500  # characters of one event's message

LOG = "logs/codex_exec.log"
EVENTS = "logs/codex_events.jsonl"


class Journal:
    """The sinks of one run."""

    def __init__(self, folder: Path, redactor: Redactor, limit: int, context: Context) -> None:
        self.redactor = redactor
        self.stage = "prepare"
        self.files = {name: BoundedFile(folder / name, limit) for name in (LOG, EVENTS)}
        self._context = context
        self._reported = 0

    def log(self, text: str | bytes, stream: str = "stdout") -> None:
        """Add a line, or several, to the log."""
        data = text.encode(errors="surrogateescape") if isinstance(text, str) else text
        redacted = self.redactor.line(data)
        self.files[LOG].write(redacted + b"\n")
        self._context.log(redacted.decode(errors="replace"), stream=stream, stage=self.stage)

    def event(self, line: bytes) -> None:
        """Keep an event as Codex printed it."""
        self.files[EVENTS].write(self.redactor.line(line) + b"\n")

    def progress(
        self, message: str, data: Mapping[str, Any] | None = None, *, level: str = "info"
    ) -> None:
        """Add an event to the job's history, as long as there are not too many."""
        self._reported += 1
        if self._reported < PROGRESS_LIMIT:
            self._context.progress(self.shorten(message), data, level=level)
        elif self._reported == PROGRESS_LIMIT:
            self._context.progress(f"further progress is in {LOG} only", level="warn")

    def shorten(self, text: str, limit: int = MESSAGE_LIMIT) -> str:
        """Redact a text, make it storable, and bound it: beginning and end are kept."""
        text = self.redactor.text(text).replace("\0", "\N{REPLACEMENT CHARACTER}").strip()
        text = text.encode(errors="replace").decode()
        if len(text) <= limit:
            return text
        head = limit * 2 // 3
        return f"{text[:head]} … {text[len(text) - (limit - head - 3) :]}"

    def close(self) -> None:
        """Finish the files."""
        for file in self.files.values():
            file.close()


class BoundedFile:
    """A file that keeps its head and its tail within a limit, whatever is written to it.

    The first half goes straight to the file. What follows runs through a ring on disk of nearly
    the other half, which is appended at the end, so neither memory nor disk grows with the
    output.
    """

    _MARK = b"\n[... %d bytes cut here ...]\n"
    _MARK_ROOM = 64

    def __init__(self, path: Path, limit: int) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self.path = path
        self._file: IO[bytes] = path.open("wb")
        self._ring: IO[bytes] | None = None
        self._head = limit // 2 if limit >= 4 * self._MARK_ROOM else limit
        self._tail = max(0, limit - self._head - self._MARK_ROOM)
        self._written = 0

    def write(self, data: bytes) -> None:
        """Add bytes at the end."""
        room = max(0, self._head - self._written)
        self._file.write(data[:room])
        self._written += len(data)
        if self._tail and (rest := data[room:]):
            self._write_ring(rest)

    def close(self) -> None:
        """Append the tail, and close; closing twice does nothing."""
        if self._file.closed:
            return
        if self._ring is not None:
            with self._ring as ring:
                self._append(ring, self._written - self._head)
        self._file.close()

    def _write_ring(self, data: bytes) -> None:
        if self._ring is None:
            # Unlinked while it is open: nothing is left of it, however the worker ends.
            path = self.path.with_name(f"{self.path.name}.tail")
            self._ring = path.open("w+b")
            path.unlink()
        begin = self._written - len(data) - self._head
        skipped = max(0, len(data) - self._tail)
        data, begin = data[skipped:], begin + skipped
        while data:
            at = begin % self._tail
            part = data[: self._tail - at]
            self._ring.seek(at)
            self._ring.write(part)
            data, begin = data[len(part) :], begin + len(part)

    def _append(self, ring: IO[bytes], total: int) -> None:
        cut = total - self._tail
        if cut > 0:
            self._file.write(self._MARK % cut)
        start = total % self._tail if cut > 0 else 0
        for begin, length in ((start, min(total, self._tail) - start), (0, start)):
            ring.seek(begin)
            while length > 0 and (part := ring.read(min(length, 1 << 20))):
                self._file.write(part)
                length -= len(part)
