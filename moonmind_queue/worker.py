"""Runs jobs until told to stop.

Threads, each with a connection of its own:

    the caller's  claims jobs, hands them out, takes lost jobs back
    jobs-<n>      run jobs, one at a time; events and artifacts go through a small pool (``_crew``)
    reports       tells how jobs ended, many in one call                    (``_reporter``)
    leases        renews every lease in one call, whatever the jobs do       (``_keeper``)
    watchdog      stops work whose lease could not be renewed in time        (``_keeper``)
    listen        turns notifications into wake-ups                          (``_listener``)
    maintain      deletes what is too old, once an hour                      (``_caretaker``)
"""

import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import timedelta

import structlog
from psycopg_pool import ConnectionPool

from moonmind_queue._attempt import Attempt, Ending, Pool, Shared
from moonmind_queue._caretaker import Caretaker
from moonmind_queue._connection import (
    connection_options,
    prepare_only_directly,
    reconnect_delay,
    spread,
)
from moonmind_queue._crew import AHEAD, MOST, OVERDUE, Crew
from moonmind_queue._keeper import Keeper
from moonmind_queue._listener import Listener
from moonmind_queue._poll import Poll
from moonmind_queue._reporter import Reporter
from moonmind_queue._ticker import tick
from moonmind_queue.errors import DatabaseUnavailable, InvalidArgument, LeaseLost, WorkerUnfit
from moonmind_queue.executors import Runner
from moonmind_queue.model import ClaimedJob
from moonmind_queue.queue import Queue, connect

log = structlog.get_logger()

GRACE = 8.0  # seconds that jobs get to end after stop(); then they are handed back regardless
BREATH = 0.05  # seconds until another look at what others hold
NAP = 0.005  # seconds until another look at work that may not have been notified; doubles
DEADLINE = 9.5  # seconds after stop() at which run() returns whatever the database does


class Worker:
    """One process's share of the work.

    ``executors`` maps each kind to its executor; only these kinds are claimed, unless ``any_kind``
    says that it has an answer to all. ``agents`` limits the claims to jobs of those agents
    (``None``: all). ``slots`` jobs run at once. Leases are
    renewed every ``renew`` (``None``: a third of ``lease``), and once a minute at least, which
    shows that the worker lives; ``renew`` is less than half of ``lease``, so that a renewal that
    fails is tried again in time. A notification starts a job within milliseconds; ``poll`` is the
    fallback when one is lost: one wait, or several of which the last is repeated until a job is
    claimed. ``listen_dsn`` is for LISTEN where ``dsn`` leads through a pooler; ``"none"`` is to
    poll only. Without ``live_log`` what jobs print stays on this machine until it is an artifact.
    """

    def __init__(
        self,
        dsn: str,
        executors: Mapping[str, Runner],
        *,
        name: str,
        agents: Sequence[str] | None = None,
        any_kind: bool = False,
        capabilities: Sequence[str] = (),
        slots: int = 1,
        lease: timedelta = timedelta(seconds=120),
        renew: timedelta | None = None,
        poll: timedelta | Sequence[timedelta] = timedelta(seconds=1.5),
        reclaim: timedelta = timedelta(seconds=5),
        listen_dsn: str | None = None,
        artifact_max_bytes: int = 10 * 1024 * 1024,
        live_log: bool = True,
        versions: Mapping[str, str] | None = None,
    ) -> None:
        self._dsn, self._name = dsn, name
        self._agents, self._capabilities = agents, capabilities
        self._kinds = None if any_kind else sorted(executors)
        self._slots, self._lease = slots, lease
        self._poll, self._reclaim = Poll(poll), min(reclaim, lease)
        self._pool: Pool = ConnectionPool(
            dsn,
            min_size=0,
            max_size=min(slots, 8) + 1,
            kwargs=connection_options("moonmind-queue jobs"),
            configure=prepare_only_directly,
            open=False,
        )
        self._shared = Shared(self._pool, artifact_max_bytes, live_log)
        self._held: dict[int, Attempt] = {}  # by token, until their end is reported
        self._lock = threading.Lock()
        self._wake = threading.Event()
        self._reporter = Reporter(dsn, settled=self._settled)
        self._crew = Crew(slots, executors, ended=self._ended, hungry=self._wake_up)
        self._once = False
        self._may_claim = True
        self._claimed = 0
        self._stop_at: float | None = None  # monotonic instant of stop()
        self._unfit: str | None = None  # why this machine cannot do such work
        self._next_reclaim = 0.0  # monotonic instant, for a worker that is full
        self._due = True  # whether the database said that something is due
        self._look = threading.Event()  # whether there may be something to claim
        self._look.set()
        self._asleep = False  # whether the database is to notify us, and
        self._horizon: int | None = None  # until when others may not know that
        self._nap = NAP
        self._caretaker = Caretaker(dsn)
        self._keeper = Keeper(
            dsn,
            name=name,
            agents=agents,
            kinds=self._kinds,
            capabilities=capabilities,
            slots=slots,
            lease=lease,
            renew=renew,
            versions=versions or {},
            running=self._attempts,
            signed_on=self._wake.set,
            stop=self.stop,
        )
        self._listener = Listener(
            listen_dsn or dsn,
            name=name,
            agents=agents,
            connected=self._heard_nothing,
            wake=self._notified,
            control=self._keeper.renew_now,
        )

    def run(self) -> None:
        """Work until :meth:`stop`; then hand running jobs back and return within ten seconds.

        Raises ``WorkerUnfit``, at the same end, when a job showed that this machine cannot do such
        work.
        """
        self._serve()

    def run_once(self) -> bool:
        """Claim at most once, run what was claimed, and say whether there was anything."""
        self._once = True
        self._serve()
        return self._claimed > 0

    def stop(self) -> None:
        """Ask :meth:`run` to end. Safe to call from a signal handler."""
        self._stop_at = self._stop_at or time.monotonic()
        self._wake.set()

    # --- the main loop ---------------------------------------------------------------------

    def _serve(self) -> None:
        self._pool.open()
        self._keeper.start()
        self._listener.start()
        self._reporter.start()
        self._caretaker.start()
        log.info("worker.started", worker=self._name, kinds=self._kinds or "any")
        failures = 0
        try:
            while not self._over():
                try:
                    with connect(self._dsn, application_name="moonmind-queue worker") as queue:
                        failures = 0
                        self._work(queue)
                except DatabaseUnavailable as error:
                    failures += 1
                    log.warning("worker.unreachable", error=str(error), failures=failures)
                    self._pause(reconnect_delay(failures, 30))
        finally:
            self._caretaker.stop()
            self._listener.stop()
            self._crew.stop()
            self._reporter.stop()
            self._keeper.stop()
            self._pool.close(timeout=1)
            log.info("worker.stopped", worker=self._name)
        if self._unfit:
            raise WorkerUnfit(self._unfit)

    def _work(self, queue: Queue) -> None:
        """Claim and wait until it is over; raises ``DatabaseUnavailable``."""
        self._heard_nothing()
        while True:
            self._wake.clear()
            if self._stop_at is not None:
                self._stop_jobs()
            if self._over():
                return
            self._hand_back()
            self._tell_started(queue)
            claiming = self._may_claim and self._stop_at is None
            room = self._room()
            if claiming and (self._due or (not room and time.monotonic() > self._next_reclaim)):
                self._take_back(queue)
            looked = claiming and room > 0 and self._look.is_set()
            if looked and self._claim(queue, room):
                continue
            patience = self._patience(queue, room=room, looked=looked)
            self._wake.wait(min(patience, AHEAD) if self._crew.secret else patience)

    def _over(self) -> bool:
        if self._stop_at is not None and time.monotonic() - self._stop_at > DEADLINE:
            return True
        return not self._held and (self._stop_at is not None or not self._may_claim)

    def _room(self) -> int:
        """Return how many jobs to claim; none while twice as many are not reported yet."""
        room = self._crew.room()
        return room if len(self._held) < 2 * (self._slots + MOST) else 0

    def _patience(self, queue: Queue, *, room: int, looked: bool) -> float:
        """Return for how many seconds there is nothing to do unless something wakes us."""
        if self._stop_at is not None or not self._may_claim:
            return 0.1
        if not room:
            wait = max(self._next_reclaim - time.monotonic(), 0.001)
            return min(wait, OVERDUE) if self._crew.waiting else wait
        self._doze(queue)
        due, self._horizon = queue.next_due(
            self._agents, self._kinds, self._capabilities, self._horizon
        )
        wait = self._poll.left()
        if due is not None and due <= timedelta(0):
            self._due = True
            if looked:  # and had nothing: it is in another worker's hands; ask again before a claim
                return BREATH
            self._look.set()
            return 0
        if due is not None:
            wait = min(wait, due.total_seconds())
        if self._asleep and self._horizon is not None:
            wait, self._nap = min(wait, self._nap), self._nap * 2
        return wait

    def _doze(self, queue: Queue) -> None:
        """Have the database notify us, unless it is going to."""
        worker_id = self._keeper.worker_id
        if self._asleep or worker_id is None or not self._listener.listening:
            return
        self._asleep = True  # first: the notification may come before the answer
        try:
            queue.doze(worker_id)
        except InvalidArgument:  # forgotten: the keeper signs on anew
            self._asleep = False
            return
        self._horizon, self._nap = 0, NAP

    def _heard_nothing(self) -> None:
        """Begin anew: what the database knew of us and what it said may be lost."""
        self._asleep = False
        self._due = True
        self._look.set()

    def _pause(self, seconds: float) -> None:
        """Wait for the database to come back; stop() shortens the wait, its deadline ends it."""
        self._wake.clear()
        self._wake.wait(seconds if self._stop_at is None else min(seconds, 0.5))

    def _notified(self) -> None:
        self._asleep = False  # one notification is all that a doze brings
        self._look.set()
        self._wake.set()

    # --- jobs ------------------------------------------------------------------------------

    def _claim(self, queue: Queue, room: int) -> int:
        self._look.clear()  # first: what comes from here on is looked for again
        self._may_claim = not self._once
        before, prompt = time.monotonic(), self._crew.prompt
        jobs = queue.claim(
            self._name,
            agents=self._agents,
            kinds=self._kinds,
            capabilities=self._capabilities,
            limit=room,
            lease=self._lease,
            start=prompt,
        )
        if jobs:
            self._start(jobs, before, started=prompt, more=len(jobs) >= room)
            self._poll.reset()
        if len(jobs) >= min(room, self._slots):
            self._look.set()
        self._claimed += len(jobs)
        return len(jobs)

    def _start(
        self, jobs: Sequence[ClaimedJob], before: float, *, started: bool, more: bool
    ) -> None:
        attempts = [
            Attempt(job, before + job.lasts.total_seconds(), self._shared, started=started)
            for job in jobs
        ]
        event = "job.started" if started else "job.claimed"
        for job in jobs:
            log.info(event, job=job.id, kind=job.kind, attempt=job.attempt)
        with self._lock:
            self._held |= {attempt.job.token: attempt for attempt in attempts}
        self._crew.add(attempts, more=more)

    def _ended(self, attempt: Attempt, ending: Ending) -> None:
        self._reporter.put(attempt, ending)
        if ending.unfit:  # the next job would fare no better
            log.error("worker.unfit", worker=self._name, reason=ending.reason)
            self._unfit = ending.reason
            self.stop()

    def _settled(self, attempts: Sequence[Attempt]) -> None:
        with self._lock:
            for attempt in attempts:
                self._held.pop(attempt.job.token, None)
        self._look.set()  # a dependent may be ready, a limit may have room
        self._wake_up()

    def _wake_up(self) -> None:
        if not self._wake.is_set():
            self._wake.set()

    def _attempts(self) -> list[Attempt]:
        """Return what is held: waiting, running, or ended and not yet reported."""
        with self._lock:
            return list(self._held.values())

    def _take_back(self, queue: Queue) -> None:
        """Take lost jobs back and run schedules, in step with nobody."""
        self._due = False
        self._next_reclaim = time.monotonic() + spread(self._reclaim.total_seconds(), 0.7, 1)
        for job in queue.reclaim():
            log.warning("job.reclaimed", job=job.job_id, state=job.state)
        tick(queue)

    def _hand_back(self) -> None:
        """Release what waits behind jobs that are longer than those before them were."""
        for attempt in self._crew.withdraw():
            self._reporter.put(attempt, Ending("stopped", reason="others may begin it sooner"))

    def _tell_started(self, queue: Queue) -> None:
        """Let the database know of jobs claimed ahead that turn out to take a while."""
        for attempt in self._crew.unstarted():
            with suppress(LeaseLost):  # it has just ended
                attempt.start(queue)

    def _stop_jobs(self) -> None:
        """Tell running jobs to end; hand back those that do not within the grace."""
        overdue = time.monotonic() - (self._stop_at or 0) > GRACE
        for attempt in self._attempts():
            attempt.stop()
            if overdue and not attempt.abandoned:
                attempt.abandoned = True
                log.warning("job.abandoned", job=attempt.job.id)
                self._reporter.put(attempt, Ending("stopped", reason="the worker is stopping"))
