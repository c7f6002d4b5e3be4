"""One attempt at a job inside a worker: its executor's thread, its context and its ending."""

import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar

import psycopg
import structlog
from psycopg_pool import ConnectionPool, PoolClosed, PoolTimeout

from moonmind_queue._live_log import LiveLog, Piece
from moonmind_queue.errors import (
    DatabaseError,
    DatabaseUnavailable,
    InvalidPayload,
    LeaseLost,
    QueueError,
)
from moonmind_queue.executors import (
    Block,
    CoolDown,
    Fail,
    Postpone,
    Retry,
    Runner,
    Stopped,
    Unfit,
)
from moonmind_queue.model import Artifact, ClaimedJob, Overspent, Step, Tokens
from moonmind_queue.queue import Queue

log = structlog.get_logger()

Answer = TypeVar("Answer")
Pool = ConnectionPool[psycopg.Connection[Any]]
_making = threading.Lock()  # of what few attempts need and any thread may ask for first
UPLOAD_PATIENCE = 60.0  # seconds for which a lost database does not lose an artifact
REFUSALS = (0.2, 1.0, 5.0)  # seconds until what the server failed to do, as with a full disk, again


@dataclass(frozen=True, slots=True)
class Ending:
    """How the work ended: ``done`` with a result, or retry, block, fail, cool_down, stopped."""

    verdict: str
    result: Mapping[str, Any] | None = None
    reason: str = ""
    after: timedelta | None = None
    source: str | None = None  # of the reason; the rules for failures say what it means
    jobs: Sequence[Mapping[str, Any]] = ()  # to be added with the success
    unfit: bool = False  # this machine cannot do such work


@dataclass(frozen=True, slots=True)
class Shared:
    """What all attempts of one worker share."""

    pool: Pool
    artifact_max_bytes: int
    live_log: bool


class Attempt:
    """A claimed job while this worker holds it.

    ``deadline`` is when the lease ends by this machine's monotonic clock, counted from before
    the request that gave or renewed it, so that it can only be too early.
    """

    __slots__ = (
        *("_shared", "_stop", "abandoned", "begun"),
        *("deadline", "job", "lost", "overspent", "started", "stopping"),
    )

    def __init__(self, job: ClaimedJob, deadline: float, shared: Shared, *, started: bool) -> None:
        self.job = job
        self.deadline = deadline
        self.started = started  # whether the database knows that it runs
        self.begun = False
        self.lost = False
        self.abandoned = False  # handed back although it did not end
        self.stopping = False
        self.overspent: Overspent | None = None  # why it must end
        self._shared = shared
        self._stop: threading.Event | None = None  # most jobs never ask for it

    @property
    def stopped(self) -> threading.Event:
        """The event that is set when the work must end."""
        with _making:
            if self._stop is None:
                self._stop = threading.Event()
                if self.stopping:
                    self._stop.set()
            return self._stop

    def stop(self) -> None:
        """Ask the work to end, or keep it from beginning."""
        with _making:
            self.stopping = True
            if self._stop is not None:
                self._stop.set()

    def start(self, queue: Queue) -> None:
        """Let the database know that the work has begun, if it does not yet; ``LeaseLost``."""
        if not self.started:
            queue.start(self.job)
            self.started = True

    def lose(self, why: str) -> None:
        """Stop the work: somebody else may have the job by now."""
        if not self.lost:
            self.lost = True
            log.warning("job.lease_lost", job=self.job.id, attempt=self.job.attempt, why=why)
        self.stop()

    def run(self, executor: Runner) -> Ending:
        """Do the work and return how it ended."""
        if self.stopping:
            return Ending("stopped", reason="stopped before it began")
        self.begun = True
        context = JobContext(self, self._shared)
        ending = self._run(executor, context)
        context.close()
        return ending

    def _run(self, executor: Runner, context: "JobContext") -> Ending:
        try:
            payload = executor.validate(self.job.payload)
            job = self.job if payload == self.job.payload else replace(self.job, payload=payload)
            result = executor.run(job, context)
            return Ending("done", result=result, jobs=context.jobs)
        except Stopped as stopped:
            if self.overspent and not self.lost:
                verdict = "block" if self.overspent.outcome == "block" else "stopped"
                return Ending(verdict, reason=self.overspent.reason)
            if self.stopping:
                return Ending("stopped", reason=str(stopped))
            return Ending("retry", reason=f"stopped by itself: {stopped}")
        except InvalidPayload as error:
            return Ending("fail", reason=str(error))
        except Fail as error:
            return Ending("fail", reason=str(error), source=error.source)
        except Block as error:
            unfit = isinstance(error, Unfit)
            return Ending("block", reason=str(error), source=error.source, unfit=unfit)
        except Retry as error:
            return Ending("retry", reason=str(error), after=error.after, source=error.source)
        except Postpone as error:
            return Ending("stopped", reason=str(error), after=error.after)
        except CoolDown as error:
            return Ending("cool_down", reason=str(error), after=error.lasting)
        except LeaseLost as error:
            self.lose(str(error))
            return Ending("stopped", reason=str(error))
        except BaseException as error:  # SystemExit too: a thread must never end without an ending
            log.warning("job.raised", job=self.job.id, exc_info=True)
            return Ending("retry", reason=f"{type(error).__name__}: {error}")


class JobContext:
    """What an executor may do to its job; see :class:`moonmind_queue.executors.Context`."""

    def __init__(self, attempt: Attempt, shared: Shared) -> None:
        self.jobs: list[dict[str, Any]] = []
        self._attempt, self._job, self._shared = attempt, attempt.job, shared
        self._log: LiveLog | None = None

    @property
    def stop(self) -> threading.Event:
        """Set when the attempt must end."""
        return self._attempt.stopped

    def enqueue(self, kind: str, payload: Mapping[str, Any] | None = None, **options: Any) -> None:
        """Add a job when this attempt succeeds."""
        self.jobs.append({"kind": kind, "payload": dict(payload or {}), **options})

    def progress(
        self, message: str, data: Mapping[str, Any] | None = None, *, level: str = "info"
    ) -> None:
        """Add a ``progress`` event; a failure is logged and never fails the job."""
        try:
            with self._queue(5) as queue:
                queue.append_event(self._job, "progress", message, level=level, data=data)
        except LeaseLost:
            self._attempt.stop()
        except (QueueError, psycopg.Error, PoolTimeout, PoolClosed) as error:
            log.warning("job.event_lost", job=self._job.id, message=message, error=str(error))

    def log(self, text: str, *, stream: str = "stdout", stage: str = "") -> None:
        """Add lines to the live log, if there is one; never fails the job."""
        if not self._shared.live_log:
            return
        with _making:
            if self._log is None:
                self._log = LiveLog(self._send, self._shared.artifact_max_bytes)
        self._log.write(text, stream, stage)

    def close(self) -> None:
        """Send what is left of the live log."""
        if self._log and not self._log.close():
            log.warning("job.log_lost", job=self._job.id)

    def _send(self, pieces: Sequence[Piece]) -> bool:
        try:
            with self._queue(5) as queue, queue.connection.transaction():
                for piece in pieces:
                    queue.append_log(
                        self._job, piece.content, stream=piece.stream, stage=piece.stage
                    )
        except LeaseLost:
            self._attempt.stop()  # it is nobody's any more
        except (DatabaseUnavailable, psycopg.Error, PoolTimeout, PoolClosed) as error:
            log.warning("job.log_late", job=self._job.id, error=str(error))
            return False
        except QueueError as error:  # refused for good: what comes later must not wait behind it
            log.warning("job.log_refused", job=self._job.id, error=str(error))
        return True

    @contextmanager
    def _queue(self, patience: float) -> Iterator[Queue]:
        with self._shared.pool.connection(timeout=patience) as connection:
            queue = Queue(connection)
            self._attempt.start(queue)  # what it says comes after that
            yield queue

    def steps(self) -> list[Step]:
        """Return what earlier attempts began or did outside of the database."""
        return self._persist("steps", lambda queue: queue.steps(self._job.id))

    def pushed(self) -> list[str]:
        """Return every commit that this job has ever pushed, or was about to."""
        return self._persist("pushed", lambda queue: queue.pushed(self._job.id))

    def count_usage(
        self, thread: str, model: str | None, used: Tokens, *, done: bool = False
    ) -> None:
        """Say what a thread has used; ends the attempt when that is too much, and fails none."""
        try:
            with self._queue(10) as queue:
                verdict = queue.count_usage(self._job, thread, model, used)
        except LeaseLost:
            self._attempt.stop()
        except (QueueError, psycopg.Error, PoolTimeout, PoolClosed) as error:
            log.warning("job.usage_lost", job=self._job.id, thread=thread, error=str(error))
        else:
            if verdict and not done and not self._attempt.stopping:
                log.warning("job.overspent", job=self._job.id, reason=verdict.reason)
                self._attempt.overspent = verdict
                self._attempt.stop()

    def begin_step(
        self, step: str, content: str = "", data: Mapping[str, Any] | None = None
    ) -> Step:
        """Write what comes next; waits a while for a database that is away."""
        return self._persist(step, lambda queue: queue.begin_step(self._job, step, content, data))

    def end_step(self, step: str, content: str = "", data: Mapping[str, Any] | None = None) -> None:
        """Write that it has happened; waits a while for a database that is away."""
        self._persist(step, lambda queue: queue.end_step(self._job, step, content, data))

    def hear(self, *, everything: bool = False) -> list[str]:
        """Take what was said to the agent; waits a while for a database that is away."""
        return self._persist("hear", lambda queue: queue.hear(self._job, everything=everything))

    def fetch(self, sha256: str, target: Path) -> bool:
        """Write an artifact of this job to a file; False when there is none."""

        def read(queue: Queue) -> bool:
            found = (each for each in queue.artifacts(self._job.id) if each.sha256 == sha256)
            return _write(queue, next(found, None), target)

        return self._persist("fetch", read)

    def latest(self, name: str, target: Path) -> bool:
        """Write the newest artifact of a name to a file; False when there is none."""

        def read(queue: Queue) -> bool:
            return _write(queue, queue.latest_artifact(self._job.id, name), target)

        return self._persist(name, read)

    def attach(
        self, name: str, source: Path | bytes, content_type: str = "application/octet-stream"
    ) -> None:
        """Store an artifact; waits a while for a database that is away, while the lease holds."""

        def put(queue: Queue) -> None:
            queue.put_artifact(
                self._job, name, source, content_type, max_bytes=self._shared.artifact_max_bytes
            )

        self._persist(f"artifact {name}", put)

    def _persist(self, what: str, act: Callable[[Queue], Answer]) -> Answer:
        """Do something that must not be lost with a connection, while the lease holds."""
        patience, pauses = time.monotonic() + UPLOAD_PATIENCE, iter(REFUSALS)
        while True:
            try:
                with self._queue(10) as queue:
                    return act(queue)
            except (DatabaseUnavailable, PoolTimeout) as error:
                if time.monotonic() > patience or self.stop.wait(1):
                    raise DatabaseUnavailable(f"{what} was not stored: {error}") from error
            except DatabaseError:
                if (pause := next(pauses, None)) is None or self.stop.wait(pause):
                    raise


def _write(queue: Queue, artifact: Artifact | None, target: Path) -> bool:
    if artifact is None:
        return False
    with target.open("wb") as file:
        file.writelines(queue.read_artifact(artifact))
    return True
