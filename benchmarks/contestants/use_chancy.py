"""chancy, with its asyncio executor."""

import asyncio
import logging
from collections.abc import Callable, Sequence
from importlib.metadata import version

import speech
from chancy import Chancy, Job, Queue, Worker
from chancy.plugins.leadership import Leadership
from chancy.plugins.pruner import Pruner
from chancy.plugins.recovery import Recovery
from stopping import until_stopped

QUEUE = Queue(
    "nothing",
    executor=Chancy.Executor.Async,  # made for thousands of jobs at once; no process per job
    concurrency=1000,  # that is also how many one fetch may take; it ends them 1,000 at a time
    eager_polling=True,  # else it fetches again only after a notification or the interval
    polling_interval=1,
)
FLUSH = 0.1  # seconds between two writes of what has ended, by default 1
JOB = Job(func="__main__.nothing", queue=QUEUE.name)

_notes: list[Callable[[int], None]] = []  # a job names its function, which so lives in a module


async def nothing(n: int) -> None:
    """Do nothing, and say so."""
    _notes[0](n)


class Producer:
    """Enqueues over its pool of connections."""

    def __init__(self, dsn: str) -> None:
        self._app = _app(dsn)
        self._app.sync_pool.open(wait=True)

    def single(self, number: int) -> None:
        """One job, one transaction."""
        self._app.sync_push(JOB.with_kwargs(n=number))

    def bulk(self, numbers: Sequence[int]) -> None:
        """One batch of sync_push_many, which inserts row by row in one transaction."""
        jobs = [JOB.with_kwargs(n=number) for number in numbers]
        for _ in self._app.sync_push_many(jobs, batch_size=len(jobs)):
            pass


class TheChancy:
    """See ``speech.Contestant``."""

    unfinished = "select count(*) from chancy_jobs where state not in ('succeeded', 'failed')"

    def install(self, dsn: str) -> str:
        """Run the migrations and declare the queue."""
        asyncio.run(_install(dsn))
        return version("chancy")

    def producer(self, dsn: str) -> Producer:
        """Connect."""
        return Producer(dsn)

    def work(self, dsn: str, options: speech.Options, note: Callable[[int], None]) -> None:
        """Run one worker."""
        _notes.append(note)
        asyncio.run(_work(dsn, options))


async def _install(dsn: str) -> None:
    async with _app(dsn) as app:
        await app.migrate()
        await app.declare(QUEUE)


async def _work(dsn: str, options: speech.Options) -> None:
    async with _app(dsn) as app:
        worker = Worker(app, register_signal_handlers=False)
        worker.send_outgoing_interval = FLUSH
        running = await until_stopped(_run(worker), options.stop)
        await worker.stop()
        await running


async def _run(worker: Worker) -> None:
    await worker.start()
    await worker.wait_for_shutdown()


def _app(dsn: str) -> Chancy:
    # What it needs to be safe; metrics and workflows would only cost time at the end of each job.
    plugins = [Leadership(), Pruner(), Recovery()]
    log = logging.getLogger("chancy")
    log.setLevel(logging.ERROR)
    return Chancy(dsn, plugins=plugins, no_default_plugins=True, log=log)


if __name__ == "__main__":
    speech.speak(TheChancy())
