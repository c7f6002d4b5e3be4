"""Runs tasks as their executors do, and leaves files of each run on this machine too.

What an executor prints and attaches goes to the database as always; here it is also put below
``artifacts/<task>/<run>/``, for tools that read files. A disk that is full or gone costs these
copies and not the task.
"""

import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import structlog

from moonmind_queue.agentmux.folder import Folder, run_folder, run_id
from moonmind_queue.errors import InvalidArgument
from moonmind_queue.executors import Block, Context, Runner
from moonmind_queue.model import ClaimedJob

log = structlog.get_logger()


class Recorded:
    """An executor whose runs leave files; ``changed`` is called when one begins or has ended."""

    def __init__(self, executor: Runner, folder: Folder, changed: Callable[[], None]) -> None:
        self._executor, self._folder, self._changed = executor, folder, changed
        self.validate = executor.validate

    def run(self, job: ClaimedJob, context: Context) -> Mapping[str, Any]:
        """Do the work of one attempt."""
        self._changed()
        copying = _Copying(context, self._folder, job)
        try:
            return self._executor.run(job, copying)
        finally:
            copying.close()
            self._changed()


class Unable:
    """Stands for a kind that this worker cannot run, and says why instead of running it."""

    def __init__(self, why: str) -> None:
        self._why = why

    def validate(self, payload: Mapping[str, Any]) -> dict[str, Any]:
        """Take whatever there is: nobody here knows better."""
        return dict(payload)

    def run(self, job: ClaimedJob, context: Context) -> Mapping[str, Any]:
        """Block the task: a person has to act."""
        raise Block(self._why)


class _Copying:
    """The context of an attempt, with copies of what is printed and attached."""

    def __init__(self, context: Context, folder: Folder, job: ClaimedJob) -> None:
        self._context, self._folder = context, folder
        self._below = run_folder(job.key or str(job.id), run_id(job.attempt, job.token))
        self._logs: dict[str, BinaryIO | None] = {}  # None: it could not be opened
        self.progress = context.progress
        self.enqueue = context.enqueue
        self.steps, self.pushed = context.steps, context.pushed
        self.fetch, self.latest, self.hear = context.fetch, context.latest, context.hear
        self.begin_step, self.end_step = context.begin_step, context.end_step
        self.count_usage = context.count_usage

    @property
    def stop(self) -> threading.Event:
        return self._context.stop

    def log(self, text: str, *, stream: str = "stdout", stage: str = "") -> None:
        self._context.log(text, stream=stream, stage=stage)
        line = text if text.endswith("\n") else f"{text}\n"
        self._copy(lambda: self._add(stream, line.encode(errors="replace")))

    def close(self) -> None:
        for file in self._logs.values():
            if file is not None:
                file.close()

    def attach(
        self, name: str, source: Path | bytes, content_type: str = "application/octet-stream"
    ) -> None:
        path = f"{self._below}/{name}"
        if isinstance(source, bytes):
            self._copy(lambda: self._folder.write(path, source))
        else:
            self._copy(lambda: self._folder.copy(path, source))
        self._context.attach(name, source, content_type)

    def _add(self, stream: str, content: bytes) -> None:
        if stream not in self._logs:
            self._logs[stream] = None
            self._logs[stream] = self._folder.appending(f"{self._below}/live/{stream}.log")
        if file := self._logs[stream]:
            file.write(content)

    def _copy(self, act: Callable[[], None]) -> None:
        try:
            act()
        except (OSError, InvalidArgument) as error:
            log.warning("run.file_lost", folder=self._below, error=str(error))
