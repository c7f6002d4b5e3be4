"""Keeps a worker's leases: renews them, hears of cancel requests, and notices when they are lost.

Two threads that no executor shares. ``leases`` talks to the database on a connection of its own.
``watchdog`` does no input or output at all, so that neither a frozen server nor a lost network
can keep it from stopping work whose lease may already belong to somebody else.
"""

import os
import platform
import threading
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import timedelta
from importlib.metadata import version

import structlog

from moonmind_queue._attempt import Attempt
from moonmind_queue._connection import reconnect_delay
from moonmind_queue.errors import InvalidArgument, QueueError
from moonmind_queue.queue import Queue, connect

log = structlog.get_logger()

SIGN = 60.0  # seconds between signs of life at most; after two minutes a worker counts as stale


def between_renewals(lease: timedelta, renew: timedelta | None) -> float:
    """Return the seconds from one renewal to the next; raises ``InvalidArgument``.

    One that fails must be followed by another before the lease ends.
    """
    if renew is not None and not timedelta(0) < renew < lease / 2:
        raise InvalidArgument(
            f"renew: must be longer than 0 and less than half of the lease of {lease}, so that a"
            f" renewal that fails is tried again in time, not {renew}"
        )
    return min((lease / 3 if renew is None else renew).total_seconds(), SIGN)


class Keeper:
    """The lease-keeping threads of one worker; ``running`` returns what it holds just now.

    ``signed_on`` is called once, when the database knows this process by its ``worker_id``, and
    ``stop`` when somebody asked there that it end.
    """

    def __init__(
        self,
        dsn: str,
        *,
        name: str,
        agents: Sequence[str] | None,
        kinds: Sequence[str] | None,
        capabilities: Sequence[str],
        slots: int,
        lease: timedelta,
        renew: timedelta | None,
        versions: Mapping[str, str],
        running: Callable[[], Collection[Attempt]],
        signed_on: Callable[[], None],
        stop: Callable[[], None],
    ) -> None:
        self._dsn = dsn
        self._name, self._agents, self._kinds = name, agents, kinds
        self._capabilities, self._slots = capabilities, slots
        self._lease, self._between = lease, between_renewals(lease, renew)
        self._running = running
        self._versions = dict(versions)
        self._signed_on, self._stop = signed_on, stop
        self._now = threading.Event()  # set to renew at once
        self._done = threading.Event()
        self.worker_id: int | None = None  # of this process start, once the database knows it
        self._threads = [
            threading.Thread(target=self._keep, name="leases", daemon=True),
            threading.Thread(target=self._watch, name="watchdog", daemon=True),
        ]

    def start(self) -> None:
        """Start both threads."""
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """End both threads, when no lease is left to keep."""
        self._done.set()
        self._now.set()
        for thread in self._threads:
            thread.join(timeout=2)

    def renew_now(self) -> None:
        """Renew at once, to learn what the database knows of our jobs."""
        self._now.set()

    def _keep(self) -> None:
        failures = 0
        while not self._done.is_set():
            try:
                with connect(self._dsn, application_name="moonmind-queue leases") as queue:
                    self._sign_on(queue)
                    while not self._done.is_set():
                        self._now.clear()
                        self._renew(queue)
                        failures = 0
                        self._now.wait(self._between)
                    queue.see_worker(self._sign_on(queue), stopped=True)
            except QueueError as error:
                failures += 1
                log.warning("leases.unreachable", error=str(error), failures=failures)
                self._done.wait(reconnect_delay(failures, min(self._between, 10)))

    def _sign_on(self, queue: Queue) -> int:
        if self.worker_id is None:
            self.worker_id = queue.register_worker(
                self._name,
                agents=self._agents,
                kinds=self._kinds,
                capabilities=self._capabilities,
                slots=self._slots,
                host=platform.node(),
                pid=os.getpid(),
                version=version("moonmind-queue"),
                versions={"python": platform.python_version()} | self._versions,
            )
            self._signed_on()
        return self.worker_id

    def _renew(self, queue: Queue) -> None:
        attempts = list(self._running())
        before = time.monotonic()
        if attempts:
            held = {r.job_id: r for r in queue.renew([a.job for a in attempts], self._lease)}
            current = set(self._running())
            for attempt in attempts:
                renewal = held.get(attempt.job.id)
                if renewal is not None:
                    attempt.deadline = before + renewal.lasts.total_seconds()
                    if renewal.cancel_requested and not attempt.stopping:
                        log.info("job.cancel_requested", job=attempt.job.id)
                        attempt.stop()
                elif attempt in current:  # not one that ended meanwhile
                    attempt.lose("the database no longer knows this lease")
        try:
            if queue.see_worker(self._sign_on(queue)):
                log.info("worker.stop_requested")
                self._stop()
        except InvalidArgument:  # forgotten: a week without a word, or a restored database
            self.worker_id = None
            self._sign_on(queue)

    def _watch(self) -> None:
        while not self._done.wait(min(1.0, self._lease.total_seconds() / 10)):
            now = time.monotonic()
            for attempt in list(self._running()):
                if now >= attempt.deadline:
                    attempt.lose("it could not be renewed in time")
