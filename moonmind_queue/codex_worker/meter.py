"""Tells what a run of Codex uses while it runs, so that a budget can end it.

Codex prints its counters when a turn has ended, which is too late for a budget and never when the
run is killed. The file in which it keeps the conversation (``sessions/…/rollout-….jsonl`` of its
home) has them after every answer of the model: measured with 0.163.0, the counters of an answer
are there when the command that it asked for has ended. They count from the beginning of the
conversation, also when an older one is gone on with; the database takes off what it knows.
"""

import json
import threading
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from moonmind_queue.codex_worker.transcript import Transcript
from moonmind_queue.executors import Context
from moonmind_queue.model import Tokens

BETWEEN = 0.5  # seconds from one look to the next
WANTED = (b'"token_count"', b'"turn_context"')  # other lines are long, and not even read


class Meter:
    """Looks at what a run uses while inside ``with``, from a thread of its own.

    ``home`` is Codex's own; ``model`` is what was asked for, until the file says what it is.
    """

    def __init__(
        self, context: Context, transcript: Transcript, home: Path, model: str | None
    ) -> None:
        self._context, self._transcript, self._home = context, transcript, home
        self._model = model
        self._began = datetime.now(UTC)
        self._thread_id: str | None = None
        self._rollout: Path | None = None
        self._read = 0
        self._told: Tokens | None = None
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="meter", daemon=True)

    def __enter__(self) -> Self:
        """Start to look."""
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Look for the last time; without a file, what Codex printed has to do."""
        self._done.set()
        self._thread.join()
        self._look()
        if self._transcript.usage:
            self._tell(_counters(self._transcript.usage))

    def _watch(self) -> None:
        while not self._done.wait(BETWEEN):
            self._look()

    def _look(self) -> None:
        """Tell the latest counters that are new, after those with which the run began."""
        if self._transcript.thread_id != self._thread_id:  # one that could not be resumed is left
            self._thread_id = self._transcript.thread_id
            self._rollout, self._read, self._told = None, 0, None
        latest: Tokens | None = None
        for at, payload in self._records():
            if isinstance(payload.get("model"), str):  # of a turn's context
                self._model = payload["model"]
            if payload.get("type") == "token_count" and (used := _total(payload)):
                if at >= self._began and latest and self._told is None:
                    self._tell(latest)
                latest = used
        if latest:
            self._tell(latest)

    def _tell(self, used: Tokens) -> None:
        if self._thread_id and used != self._told:
            self._context.count_usage(self._thread_id, self._model, used, done=self._done.is_set())
            self._told = used

    def _records(self) -> Iterator[tuple[datetime, Mapping[str, Any]]]:
        """Yield what is new in the file: when it was written, and what it says."""
        if self._rollout is None and self._thread_id:
            found = (self._home / "sessions").glob(f"*/*/*/rollout-*-{self._thread_id}.jsonl")
            self._rollout = max(found, default=None)
        if self._rollout is None:
            return
        try:
            with self._rollout.open("rb") as file:
                file.seek(self._read)
                for line in file:
                    if not line.endswith(b"\n"):
                        return
                    self._read += len(line)
                    if record := _record(line):
                        yield record
        except OSError:
            return


def _counters(usage: Mapping[str, int]) -> Tokens:
    """Return the counters of Codex as the queue has them."""
    return Tokens(
        input=usage.get("input_tokens", 0),
        cached_input=usage.get("cached_input_tokens", 0),
        output=usage.get("output_tokens", 0),
        reasoning=usage.get("reasoning_output_tokens", 0),
    )


def _record(line: bytes) -> tuple[datetime, Mapping[str, Any]] | None:
    if not any(word in line for word in WANTED):
        return None
    try:
        match json.loads(line):
            case {"timestamp": str(at), "payload": dict(payload)}:
                return datetime.fromisoformat(at).astimezone(UTC), payload
    except (ValueError, RecursionError):
        pass
    return None


def _total(payload: Mapping[str, Any]) -> Tokens | None:
    match payload:
        case {"info": {"total_token_usage": dict(usage)}}:
            return _counters({name: n for name, n in usage.items() if isinstance(n, int)})
    return None
