"""moonmind-queue itself: full history, leases and fencing."""

import logging
import threading
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import version
from typing import Any

import psycopg
import speech

from moonmind_queue import ClaimedJob, Context, Queue, Worker, logs, migrate
from moonmind_queue.executors.noop import Noop


class Nothing(Noop):
    """Does nothing, and says that it did."""

    def __init__(self, note: Callable[[int], None]) -> None:
        super().__init__(0)
        self._note = note

    def run(self, job: ClaimedJob, context: Context) -> Mapping[str, Any]:
        """Begin and end."""
        self._note(job.payload["n"])
        return {}


class Producer:
    """Enqueues over one autocommitting connection."""

    def __init__(self, dsn: str) -> None:
        self._queue = Queue(psycopg.connect(dsn, autocommit=True))

    def single(self, number: int) -> None:
        """One job, one transaction."""
        self._queue.enqueue("nothing", {"n": number})

    def bulk(self, numbers: Sequence[int]) -> None:
        """One call of enqueue_many."""
        self._queue.enqueue_many([{"kind": "nothing", "payload": {"n": n}} for n in numbers])


class MoonmindQueue:
    """See ``speech.Contestant``."""

    unfinished = (
        "select count(*) from moonmind_queue.job where state not in"
        " ('succeeded', 'failed', 'dead_letter', 'cancelled')"
    )

    def install(self, dsn: str) -> str:
        """Run the migrations."""
        migrate.upgrade(dsn)
        return version("moonmind-queue")

    def producer(self, dsn: str) -> Producer:
        """Connect."""
        return Producer(dsn)

    def work(self, dsn: str, options: speech.Options, note: Callable[[int], None]) -> None:
        """Run one worker with default settings but for its slots."""
        logs.setup(level=logging.ERROR)
        worker = Worker(dsn, {"nothing": Nothing(note)}, name=f"w{options.index}", slots=4)
        threading.Thread(target=lambda: (options.stop.wait(), worker.stop()), daemon=True).start()
        worker.run()


if __name__ == "__main__":
    speech.speak(MoonmindQueue())
