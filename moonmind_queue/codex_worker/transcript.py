"""Reads the events of ``codex exec --json`` as they come, into the log and the progress.

Codex adds types of events and items with every release: what is not known here is kept in the
event file and passed over. A line that is not an event is logged as it is.
"""

import json
import shlex
from collections import deque
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from moonmind_queue.codex_worker.journal import Journal

COMMAND_LIMIT = 200  # characters of a command in a progress event


class Transcript:
    """What Codex has said and done so far."""

    def __init__(self, journal: Journal, root: Path) -> None:
        self.thread_id: str | None = None
        self.begun = False  # whether the model was asked
        self.last_message: str | None = None
        self.usage: dict[str, int] = {}
        self.error: str | None = None
        self.complaint: str | None = None
        self._journal = journal
        self._root = root
        self.commands: deque[str] = deque(maxlen=20)  # the latest, with how they ended
        self.succeeded = 0  # commands that ended with 0
        self._begun: set[str] = set()

    @property
    def ran(self) -> int:
        """How many commands were begun."""
        return len(self._begun)

    def stdout(self, line: bytes) -> None:
        """Take one line of Codex's standard output."""
        self._journal.event(line)
        try:
            event = json.loads(line)
        except (ValueError, RecursionError):
            event = None
        if isinstance(event, dict):
            self._event(event)
        else:
            self._journal.log(line)

    def stderr(self, line: bytes) -> None:
        """Take one line of Codex's standard error: why it did not start, or a warning."""
        self._journal.log(line, "stderr")
        if text := line.decode(errors="replace").strip():
            self.complaint = text

    def markers(self) -> list[str]:
        """Return what every command of this thread has in its environment."""
        return [f"CODEX_THREAD_ID={self.thread_id}"] if self.thread_id else []

    def _event(self, event: Mapping[str, Any]) -> None:
        match event:
            case {"type": "thread.started", "thread_id": str(thread_id)}:
                self.thread_id = thread_id
                self._journal.progress("thread started", {"thread_id": thread_id})
            case {"type": "turn.started"}:
                self.begun = True
            case {"type": "item.started", "item": {"type": "command_execution"} as item}:
                self._begin(item)
            case {"type": "item.completed", "item": {"type": str(kind)} as item}:
                self._item(kind, item)
            case {"type": "turn.completed", "usage": dict(usage)}:
                self.usage = {name: n for name, n in usage.items() if isinstance(n, int)}
                self._journal.log(f"tokens: {json.dumps(self.usage)}")
                self._journal.progress("tokens used", self.usage)
            case {"type": "turn.failed", "error": {"message": str(message)}}:
                self._failed(message)
            case {"type": "error", "message": str(message)}:
                self._failed(message)

    def _item(self, kind: str, item: Mapping[str, Any]) -> None:
        match kind, item:
            case "agent_message", {"text": str(text)}:
                self.last_message = text
                self._journal.log(f"agent: {text}")
                self._journal.progress(text or "(an empty message)", {"type": kind})
            case "command_execution", {"command": str(command)}:
                self._command(command, item)
            case "file_change", {"changes": list(changes)}:
                self._changes(changes)
            case "error", {"message": str(message)}:
                self._journal.log(f"warning: {message}")
                self._journal.progress(message, {"type": kind}, level="warn")

    def _begin(self, item: Mapping[str, Any]) -> None:
        self._begun.add(str(item.get("id")))
        self._journal.log(f"$ {_unwrap(str(item.get('command')))}")

    def _command(self, command: str, item: Mapping[str, Any]) -> None:
        if str(item.get("id")) not in self._begun:
            self._begin(item)
        status = item.get("exit_code")
        self.succeeded += status == 0
        output = str(item.get("aggregated_output") or "")
        self._journal.log(f"{output.rstrip()}\n[exit status {status}]".lstrip("\n"))
        shown = self._journal.shorten(_unwrap(command), COMMAND_LIMIT)
        self.commands.append(f"{shown} (exit status {status})")
        self._journal.progress(
            f"command: {shown}",
            {"exit_code": status},
            level="info" if status == 0 else "warn",
        )

    def _changes(self, changes: list[Any]) -> None:
        paths = [
            (str(change.get("kind")), self._relative(str(change.get("path"))))
            for change in changes
            if isinstance(change, dict)
        ]
        text = ", ".join(f"{kind} {path}" for kind, path in paths)
        self._journal.log(f"files: {text}")
        self._journal.progress(f"files changed: {text}", {"files": len(paths)})

    def _relative(self, path: str) -> str:
        return path.removeprefix(f"{self._root}/")

    def _failed(self, message: str) -> None:
        """Keep the last error, which Codex tells twice; it counts only if Codex exits with one."""
        if message == self.error:
            return
        self.error = message
        self._journal.log(f"error: {message}")
        self._journal.progress(message, {"type": "error"}, level="warn")


def _unwrap(command: str) -> str:
    """Return what a login shell was told to run: Codex wraps every command in one."""
    try:
        words = shlex.split(command)
    except ValueError:
        return command
    return words[2] if len(words) == 3 and words[1] in ("-lc", "-c") else command
