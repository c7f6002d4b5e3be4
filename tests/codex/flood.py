"""A program for one test: runs a job that prints a lot and reports what that cost."""

import json
import os
import re
from datetime import UTC, datetime, timedelta
from pathlib import Path
from threading import Event
from typing import Any

from moonmind_queue.codex_worker import transcript
from moonmind_queue.codex_worker.handlers import CodexExec
from moonmind_queue.model import ClaimedJob
from moonmind_queue.settings import Settings


class Context:
    """Counts what it is given."""

    stop = Event()
    events = 0
    live = 0
    sizes: dict[str, int] = {}  # noqa: RUF012
    tail = ""

    def progress(self, *_: Any, **__: Any) -> None:
        """Count an event."""
        self.events += 1

    def log(self, text: str, **_: Any) -> None:
        """Count what is printed."""
        self.live += len(text)

    def latest(self, *_: Any) -> bool:
        """There is no earlier attempt."""
        return False

    def hear(self, **_: Any) -> list[str]:
        """Nobody says anything."""
        return []

    def count_usage(self, *_: Any, **__: Any) -> None:
        """Nobody asks."""

    def attach(self, name: str, source: Any, _: str = "") -> None:
        """Keep the size, and the end of the log."""
        self.sizes[name] = source.stat().st_size
        if name.endswith(".log"):
            with source.open("rb") as file:
                file.seek(-100, os.SEEK_END)
                self.tail = file.read().decode()


printed = 0
take = transcript.Transcript.stdout


def count(self: transcript.Transcript, line: bytes) -> None:
    """Count what Codex prints on its way."""
    global printed
    printed += len(line)
    take(self, line)


transcript.Transcript.stdout = count  # type: ignore[method-assign]
context = Context()
payload = {"repository": os.environ["REPOSITORY"], "instruction": "Print."}
CodexExec.configure(Settings.load()).run(
    ClaimedJob(
        id=1, kind="codex_exec", agent="codex", name=None, key=None, payload=payload, priority=0,
        attempt=1, max_attempts=1, token=1, expires_at=datetime.now(UTC),
        lasts=timedelta(minutes=2),
    ),
    context,
)  # fmt: skip
report = {
    "printed": printed,
    "rss": 1024 * int(re.search(r"VmHWM:\s+(\d+)", Path("/proc/self/status").read_text())[1]),
    "events": context.events,
    "sizes": context.sizes,
    "tail": context.tail,
    "left": [str(each) for each in Path(os.environ["MOONMIND_WORKDIR"]).iterdir()],
}
print(json.dumps(report))
