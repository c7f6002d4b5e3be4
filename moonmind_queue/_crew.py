"""The threads that run jobs: as many at once as a worker has slots; what was claimed ahead waits.

Claiming ahead pays where jobs are short: the database is asked once for many. How far is measured
and not set, as many as are done within ``AHEAD``: so a worker of long jobs holds none that it does
not run, and one of short jobs keeps them from nobody for longer than that.
"""

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from contextvars import Context
from queue import Empty, SimpleQueue

from moonmind_queue._attempt import Attempt, Ending
from moonmind_queue.executors import Runner

AHEAD = 0.1  # seconds of work that may wait here
MOST = 1000  # jobs that may wait here
OVERDUE = 1.0  # seconds that every thread is at its job until what waits goes back
MEMORY = 1000  # jobs of which the older half is forgotten


class Crew:
    """Runs attempts in the order in which they come.

    On the thread that ran it, ``ended`` hears how an attempt ended, and ``hungry`` is called when
    there is room for more.
    """

    def __init__(
        self,
        slots: int,
        executors: Mapping[str, Runner],
        *,
        ended: Callable[[Attempt, Ending], None],
        hungry: Callable[[], None],
    ) -> None:
        self._slots, self._executors = slots, executors
        self._ended, self._hungry = ended, hungry
        self._waiting: SimpleQueue[Attempt | None] = SimpleQueue()
        self._running: dict[int, tuple[float, Attempt]] = {}  # by thread, since when
        self._threads = 0
        self._ahead = 0  # how many jobs may wait
        self._lock = threading.Lock()
        self._open = 0  # jobs that wait or run
        self._number, self._seconds = 0, 0.0  # of jobs that ended, and what they took

    @property
    def prompt(self) -> bool:
        """Whether every job that fits into :meth:`room` would begin at once."""
        return self._ahead == 0

    @property
    def waiting(self) -> bool:
        """Whether something was claimed and has not begun."""
        return not self._waiting.empty()

    @property
    def secret(self) -> bool:
        """Whether something runs that the database does not know of."""
        return any(not attempt.started for _, attempt in list(self._running.values()))

    def room(self) -> int:
        """Return how many more jobs are wanted: half of what may wait, and 0 while there is no
        room for as many. So the next are claimed while these are run.
        """
        self._ahead = min(self._affordable(), self._ahead)
        room = self._slots + self._ahead - self._open
        return min(room, max(self._ahead // 2, self._slots)) if room > self._ahead // 2 else 0

    def add(self, attempts: Sequence[Attempt], *, more: bool = True) -> None:
        """Run attempts as threads get free; ``more`` says whether there may be more to claim."""
        with self._lock:
            self._open += len(attempts)
            missing = min(self._slots, self._open) - self._threads
        for attempt in attempts:
            self._waiting.put(attempt)
        for _ in range(missing):
            self._threads += 1
            # A daemon: an executor that ignores `stop` must not keep a stopped worker alive.
            threading.Thread(target=self._work, name=f"jobs-{self._threads}", daemon=True).start()
        # Twice as many each time: the first short job is no proof that all are. And half as many
        # where there is no backlog: what comes then begins at once.
        wanted = max(2 * self._ahead, self._slots) if more else self._ahead // 2
        self._ahead = min(self._affordable(), wanted)

    def stop(self) -> None:
        """End the threads, when nothing waits any more; one that is at a job ends after it."""
        for _ in range(self._threads):
            self._waiting.put(None)

    def withdraw(self) -> list[Attempt]:
        """Take back the jobs that wait, where every thread is at its own for too long."""
        late = time.monotonic() - OVERDUE
        taken: list[Attempt] = []
        running = list(self._running.values())
        if len(running) == self._slots and max(began for began, _ in running) < late:
            with suppress(Empty):
                while attempt := self._waiting.get_nowait():
                    taken.append(attempt)
            with self._lock:
                self._open -= len(taken)
        return taken

    def unstarted(self) -> list[Attempt]:
        """Return what runs for a while already and the database does not know of."""
        late = time.monotonic() - AHEAD
        running = list(self._running.values())
        return [attempt for began, attempt in running if not attempt.started and began < late]

    def _affordable(self) -> int:
        late = time.monotonic() - AHEAD
        at_long_jobs = sum(began < late for began, _ in list(self._running.values()))
        threads, mean = self._slots - at_long_jobs, self._seconds / max(self._number, 1)
        return min(int(threads * AHEAD / max(mean, 1e-6)), MOST) if self._number else 0

    def _remember(self, took: float) -> None:
        """Learn how long jobs take; a long one makes forget the short ones before it."""
        if took > AHEAD:
            self._number, self._seconds = 0, 0.0
        elif self._number >= MEMORY:
            self._number, self._seconds = self._number // 2, self._seconds / 2
        self._number += 1
        self._seconds += took

    def _work(self) -> None:
        this = threading.get_ident()
        while attempt := self._waiting.get():
            began = time.monotonic()
            self._running[this] = began, attempt
            # What an executor binds to the context of its thread is not the next job's.
            ending = Context().run(attempt.run, self._executors[attempt.job.kind])
            took = time.monotonic() - began
            del self._running[this]
            with self._lock:
                self._open -= 1
                self._remember(took)
            self._ended(attempt, ending)
            if self._open < self._slots + self._ahead - self._ahead // 2:
                self._hungry()
