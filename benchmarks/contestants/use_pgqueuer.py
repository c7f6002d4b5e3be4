"""pgqueuer, over asyncpg and uvloop, with its durable tables and its settings for autovacuum."""

import asyncio
import json
from collections.abc import Callable, Sequence
from datetime import timedelta
from importlib.metadata import version

import asyncpg
import speech
import uvloop
from pgqueuer import PgQueuer
from pgqueuer.db import AsyncpgDriver
from pgqueuer.models import Job
from pgqueuer.queries import Queries
from stopping import until_stopped

# Large batches for short jobs, and several consumers a process as in its own benchmark: the server
# serves one while Python is busy with another. Of 1 to 5 x 10 to 2,000, 2 x 500 reached the most.
CONSUMERS = {"drain": 2, "pickup": 1}
BATCH = {"drain": 500, "pickup": 10}


class Producer:
    """Enqueues over one connection, on a loop that lives as long."""

    def __init__(self, dsn: str) -> None:
        self._loop = uvloop.new_event_loop()
        self._queries = Queries(AsyncpgDriver(self._loop.run_until_complete(_connect(dsn))))

    def single(self, number: int) -> None:
        """One job, one transaction."""
        self._loop.run_until_complete(self._queries.enqueue("nothing", _payload(number)))

    def bulk(self, numbers: Sequence[int]) -> None:
        """One call of enqueue with lists."""
        count = len(numbers)
        self._loop.run_until_complete(
            self._queries.enqueue(
                ["nothing"] * count, [_payload(number) for number in numbers], [0] * count
            )
        )


class Pgqueuer:
    """See ``speech.Contestant``. What has ended is moved to the log."""

    unfinished = "select count(*) from pgqueuer where status in ('queued', 'picked')"

    def install(self, dsn: str) -> str:
        """Make the schema."""
        uvloop.run(_install(dsn))
        return version("pgqueuer")

    def producer(self, dsn: str) -> Producer:
        """Connect."""
        return Producer(dsn)

    def work(self, dsn: str, options: speech.Options, note: Callable[[int], None]) -> None:
        """Run its consumers."""
        uvloop.run(_work(dsn, options, note))


async def _install(dsn: str) -> None:
    connection = await _connect(dsn)
    queries = Queries(AsyncpgDriver(connection))
    await queries.install()
    await queries.optimize_autovacuum()  # the first item of its checklist for performance
    await connection.close()


async def _work(dsn: str, options: speech.Options, note: Callable[[int], None]) -> None:
    # A connection each and no pool, as its documentation says.
    connections = [await _connect(dsn) for _ in range(CONSUMERS[options.purpose])]
    consumers = [_consumer(connection, note) for connection in connections]
    worker = await until_stopped(_run(consumers, BATCH[options.purpose]), options.stop)
    for consumer in consumers:
        consumer.shutdown.set()
    await worker
    for connection in connections:
        await connection.close()


def _consumer(connection: asyncpg.Connection, note: Callable[[int], None]) -> PgQueuer:
    consumer = PgQueuer(AsyncpgDriver(connection))

    @consumer.entrypoint("nothing", accepts_context=False)
    async def nothing(job: Job) -> None:
        note(json.loads(job.payload or b"")["n"])

    return consumer


async def _run(consumers: Sequence[PgQueuer], batch: int) -> None:
    # Statistics are made when somebody reads them, and not while it works.
    settings = {"batch_size": batch, "log_aggregation_interval": timedelta(0)}
    await asyncio.gather(*(consumer.run(**settings) for consumer in consumers))


async def _connect(dsn: str) -> asyncpg.Connection:
    return await asyncpg.connect(dsn)


def _payload(number: int) -> bytes:
    return json.dumps({"n": number}).encode()


if __name__ == "__main__":
    speech.speak(Pgqueuer())
