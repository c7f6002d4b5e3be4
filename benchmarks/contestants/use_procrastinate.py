"""procrastinate, with its psycopg connectors.

Finished jobs stay, as is its default. A worker fetches one job at a time, so nothing is batched.
"""

import asyncio
import contextlib
import logging
from collections.abc import Callable, Sequence
from importlib.metadata import version

import psycopg
import speech
from procrastinate import App, PsycopgConnector, SyncPsycopgConnector
from stopping import until_stopped

CONCURRENCY = 10  # ends overlap with the next fetch; 1 and 50 were no faster


class Producer:
    """Enqueues over one autocommitting connection."""

    def __init__(self, dsn: str) -> None:
        app = App(connector=SyncPsycopgConnector(conninfo=dsn))

        @app.task(name="nothing")
        async def nothing(n: int) -> None:
            """Is done by the workers."""

        # A connection of our own: one of a pool is tried before each call and committed after it.
        connection = psycopg.connect(dsn, autocommit=True)
        self._nothing = nothing.configure(connection=connection)

    def single(self, number: int) -> None:
        """One job, one transaction."""
        self._nothing.defer(n=number)

    def bulk(self, numbers: Sequence[int]) -> None:
        """One call of batch_defer."""
        self._nothing.batch_defer(*({"n": number} for number in numbers))


class Procrastinate:
    """See ``speech.Contestant``."""

    unfinished = "select count(*) from procrastinate_jobs where status in ('todo', 'doing')"

    def install(self, dsn: str) -> str:
        """Apply the schema."""
        with App(connector=SyncPsycopgConnector(conninfo=dsn)).open() as app:
            app.schema_manager.apply_schema()
        return version("procrastinate")

    def producer(self, dsn: str) -> Producer:
        """Connect."""
        return Producer(dsn)

    def work(self, dsn: str, options: speech.Options, note: Callable[[int], None]) -> None:
        """Run one worker."""
        asyncio.run(_work(dsn, options, note))


async def _work(dsn: str, options: speech.Options, note: Callable[[int], None]) -> None:
    # As many connections as jobs and one to fetch, as its documentation asks for short jobs; each
    # call is one statement, so autocommit spares BEGIN and COMMIT.
    size = CONCURRENCY + 1
    app = App(
        connector=PsycopgConnector(
            conninfo=dsn, min_size=size, max_size=size, configure=_autocommit
        )
    )

    @app.task(name="nothing")
    async def nothing(n: int) -> None:
        note(n)

    async with app.open_async():
        working = app.run_worker_async(concurrency=CONCURRENCY, install_signal_handlers=False)
        worker = await until_stopped(working, options.stop)
        worker.cancel()  # its graceful stop
        with contextlib.suppress(asyncio.CancelledError):
            await worker


async def _autocommit(connection: psycopg.AsyncConnection) -> None:
    await connection.set_autocommit(True)


if __name__ == "__main__":
    logging.getLogger("procrastinate").setLevel(logging.ERROR)
    speech.speak(Procrastinate())
