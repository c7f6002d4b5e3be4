"""dbos: durable workflows; a poll claims many at once, each then ends in a statement of its own."""

from collections.abc import Callable, Sequence
from importlib.metadata import version

import speech
import sqlalchemy
from dbos import DBOS, DBOSClient, DBOSConfig, EnqueueOptions

NAME = "bench"  # of the application: its workers take only what was enqueued in its name
QUEUE = "bench"
OPTIONS: EnqueueOptions = {"workflow_name": "nothing", "queue_name": QUEUE}

CONCURRENCY = 1000  # of one worker, as in dbos's own benchmark: one poll may claim so many
# For plain functions, which cost two thirds of what coroutines do here; the 512 of that
# benchmark only compete for the interpreter.
THREADS = 16
# Seconds between polls, for there is no notification. Its default is a second; while it drains,
# a poll more often claims nothing sooner.
POLL = {"drain": 0.05, "pickup": 0.001}


class Producer:
    """Enqueues with a client, which needs no running application."""

    def __init__(self, dsn: str) -> None:
        self._client = DBOSClient(system_database_url=dsn, application_name=NAME)
        self._engine = sqlalchemy.create_engine(dsn.replace("postgresql:", "postgresql+psycopg:"))

    def single(self, number: int) -> None:
        """One call of enqueue."""
        self._client.enqueue(OPTIONS, number)

    def bulk(self, numbers: Sequence[int]) -> None:
        """There is no bulk call: a loop of single ones in one transaction."""
        with self._engine.begin() as connection:
            for number in numbers:
                self._client.enqueue_in_transaction(connection, OPTIONS, number)


class Dbos:
    """See ``speech.Contestant``."""

    unfinished = (
        "select count(*) from dbos.workflow_status"
        " where status in ('ENQUEUED', 'PENDING', 'DELAYED')"
    )

    def install(self, dsn: str) -> str:
        """Launch once, for that migrates, and register the queue."""
        DBOS(config=_config(dsn))
        DBOS.launch()
        # A worker begins with what it finds, and comes down from a second within ten only.
        DBOS.register_queue(QUEUE, polling_interval_sec=min(POLL.values()))
        DBOS.destroy()
        return version("dbos")

    def producer(self, dsn: str) -> Producer:
        """Connect."""
        return Producer(dsn)

    def work(self, dsn: str, options: speech.Options, note: Callable[[int], None]) -> None:
        """Run one application whose queue has its own best settings."""
        DBOS(config={**_config(dsn), "executor_id": f"w{options.index}"})

        @DBOS.workflow(name="nothing")
        def nothing(number: int) -> None:
            note(number)

        DBOS.launch()
        DBOS.register_queue(
            QUEUE,
            worker_concurrency=CONCURRENCY,
            polling_interval_sec=POLL[options.purpose],
            on_conflict="always_update",
        )
        options.stop.wait()
        DBOS.destroy(workflow_completion_timeout_sec=5)


def _config(dsn: str) -> DBOSConfig:
    return {
        "name": NAME,
        "system_database_url": dsn,
        "application_version": "1",  # the same in all processes, whatever their program is
        "max_executor_threads": THREADS,
        "log_level": "ERROR",
    }


if __name__ == "__main__":
    speech.speak(Dbos())
