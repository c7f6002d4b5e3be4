"""Tells the database how jobs ended: from a thread of its own, all that have ended in one call.

While one report is under way the next ones gather, so that a worker of many short jobs needs few
calls and one of long jobs waits for nobody. What the database cannot hear now is told when it is
back; until then the leases are kept.
"""

import threading
from collections.abc import Callable, Sequence
from contextlib import nullcontext, suppress
from queue import Empty, SimpleQueue

import structlog

from moonmind_queue._attempt import Attempt, Ending
from moonmind_queue._connection import reconnect_delay
from moonmind_queue.errors import (
    DatabaseError,
    DatabaseUnavailable,
    InvalidArgument,
    LeaseLost,
    NotAllowed,
)
from moonmind_queue.model import ClaimedJob
from moonmind_queue.queue import Queue, connect

log = structlog.get_logger()

IDLE = 60.0  # seconds without a report after which the connection is given back

Report = tuple[Attempt, Ending]


class Reporter:
    """The reporting thread of one worker; ``settled`` hears of attempts that are nobody's concern
    any more.
    """

    def __init__(self, dsn: str, settled: Callable[[Sequence[Attempt]], None]) -> None:
        self._dsn, self._settled = dsn, settled
        self._ended: SimpleQueue[Report | None] = SimpleQueue()
        self._unreported: list[Report] = []
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._serve, name="reports", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def stop(self) -> None:
        """End the thread, when nothing is left to report or nobody is left to hear it."""
        self._done.set()
        self._ended.put(None)
        self._thread.join(timeout=1)

    def put(self, attempt: Attempt, ending: Ending) -> None:
        """Report how an attempt ended, soon."""
        self._ended.put((attempt, ending))

    def _serve(self) -> None:
        failures = 0
        while not self._done.is_set():
            try:
                if not self._unreported:
                    self._gather(None)
                with connect(self._dsn, application_name="moonmind-queue reports") as queue:
                    while self._unreported:
                        self._report(queue)
                        failures = 0
                        self._gather(IDLE)
            except DatabaseUnavailable as error:
                failures += 1
                log.warning("reports.unreachable", error=str(error), failures=failures)
                self._done.wait(reconnect_delay(failures, 5))

    def _gather(self, patience: float | None) -> None:
        """Wait for an ending; take all that have come by then."""
        with suppress(Empty):
            report = self._ended.get(timeout=patience)
            while True:
                if report:
                    self._unreported.append(report)
                report = self._ended.get_nowait()

    def _report(self, queue: Queue) -> None:
        done = [each for each in self._unreported if each[1].verdict == "done" and not each[1].jobs]
        if len(done) > 1 and self._complete_many(queue, done):
            if len(done) == len(self._unreported):
                self._unreported = []
                return
            told = {id(attempt) for attempt, _ in done}
            self._unreported = [each for each in self._unreported if id(each[0]) not in told]
        while self._unreported:
            attempt, ending = self._unreported[0]
            self._settle(queue, attempt, ending)
            self._unreported.pop(0)
            self._settled([attempt])

    def _complete_many(self, queue: Queue, done: Sequence[Report]) -> bool:
        try:
            ended = queue.complete_many([(each.job, how.result or {}) for each, how in done])
        except (InvalidArgument, DatabaseError):
            return False  # one result cannot be stored: find it one by one
        for attempt, _ in done:
            if attempt.job.id in ended:
                log.info("job.ended", job=attempt.job.id, state=ended[attempt.job.id])
            else:
                attempt.lose("another worker has it")
        self._settled([attempt for attempt, _ in done])
        return True

    def _settle(self, queue: Queue, attempt: Attempt, ending: Ending) -> None:
        job = attempt.job
        if attempt.lost and ending.verdict == "stopped":
            return  # nothing to say, and nobody to say it to; a result is still worth a try
        try:
            if attempt.begun and ending.verdict != "done":
                attempt.start(queue)
            if ending.verdict == "done":
                try:
                    self._complete(queue, job, ending)
                    log.info("job.ended", job=job.id, state="succeeded")
                except (InvalidArgument, DatabaseError, NotAllowed) as error:
                    queue.fail(job, f"the result cannot be stored: {error}", outcome="fail")
            elif ending.verdict == "cool_down" and ending.after is not None:
                until = queue.cool_down(job, ending.after, ending.reason)
                log.warning("agent.cooling_down", agent=job.agent, until=until.isoformat())
            elif ending.verdict == "stopped":
                queue.release(job, ending.reason, rest=ending.after)
                log.info("job.released", job=job.id)
            else:
                state = queue.fail(
                    job,
                    ending.reason,
                    outcome=ending.verdict,
                    retry_in=ending.after,
                    source=ending.source,
                )
                log.warning("job.ended", job=job.id, state=state, error=ending.reason)
        except LeaseLost as error:
            attempt.lose(str(error))
        except (InvalidArgument, DatabaseError, NotAllowed):
            log.exception("job.unreported", job=job.id)  # its lease will run out

    def _complete(self, queue: Queue, job: ClaimedJob, ending: Ending) -> None:
        """End the job and add the jobs that it asked for, all or nothing."""
        with queue.connection.transaction() if ending.jobs else nullcontext():
            if ending.jobs:
                queue.enqueue_many([{"made_by": job.id, **each} for each in ending.jobs])
            queue.complete(job, ending.result)
