"""What one run leaves to read: a log for people, Codex's events as they came, and progress.

The log is read along while it grows, and kept as a file; both get the same lines.

Everything passes the redactor here, before it reaches a disk or the queue. Both files are
bounded: of a run that prints too much, the beginning and the end are kept.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from moonmind_queue.executors import Context
from moonmind_queue.executors.bounded import BoundedFile
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
