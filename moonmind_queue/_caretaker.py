"""Keeps the database tidy on behalf of a worker: hourly, on a thread and a connection of its own.

So neither claims nor renewals ever wait for it. Of many workers one does the work, the others
find nothing left to do.
"""

import threading

import structlog

from moonmind_queue._connection import spread
from moonmind_queue.errors import QueueError
from moonmind_queue.queue import connect

log = structlog.get_logger()

FIRST = 30.0  # seconds after the start
PERIOD = 3600.0
BATCH = 1000  # jobs that one transaction deletes


class Caretaker:
    """Calls ``maintain()`` soon after :meth:`start` and then about once an hour."""

    def __init__(self, dsn: str) -> None:
        self._dsn = dsn
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._keep, name="maintain", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def stop(self) -> None:
        """Begin nothing more; a batch that is under way ends by itself."""
        self._done.set()

    def _keep(self) -> None:
        wait = FIRST
        while not self._done.wait(spread(wait, 0.5, 1.5)):
            wait = PERIOD
            try:
                self._maintain()
            except QueueError as error:
                log.warning("maintain.failed", error=str(error))

    def _maintain(self) -> None:
        with connect(self._dsn, application_name="moonmind-queue maintain") as queue:
            more = True
            while more and not self._done.is_set():
                done = {each.what: each.count for each in queue.maintain(BATCH)}
                more = done.get("jobs", 0) >= BATCH
                if done:
                    log.info("maintain.done", **{k.replace(" ", "_"): n for k, n in done.items()})
