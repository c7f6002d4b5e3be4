"""awa: a Rust runtime that claims and completes in batches and calls Python handlers."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from importlib.metadata import version
from typing import Any

import speech
from awa import AsyncClient, Client

QUEUE = "bench"
KIND = "nothing"

# As many handlers at once as one claim may take: of 50, 200, 500, 1,000 and 2,000 the best, and
# past 500 nothing more. A pickup takes one, so awa's own default is enough.
WORKERS = {"drain": 500, "pickup": 50}
CONNECTIONS = 20  # awa's own benchmark takes 20; with the default 10 batches wait for each other
POLL = 50  # milliseconds, awa's own benchmark; NOTIFY wakes an idle worker before that


class Producer:
    """Enqueues over one connection, which a pool of one keeps open."""

    def __init__(self, dsn: str) -> None:
        self._client = Client(dsn, max_connections=1)

    def single(self, number: int) -> None:
        """One insert."""
        self._client.insert({"n": number}, kind=KIND, queue=QUEUE)

    def bulk(self, numbers: Sequence[int]) -> None:
        """One COPY straight into the queue storage: awa's fastest way in."""
        self._client.enqueue_many_copy([{"n": n} for n in numbers], kind=KIND, queue=QUEUE)


class AwaPg:
    """See ``speech.Contestant``."""

    # Its view awa.jobs does not show what is claimed, and reads the cursor of the claims from a
    # sequence, which runs ahead of their commit. So: what came in less what was taken out or
    # claimed, what is put off, what is leased, and what was claimed less what was closed.
    unfinished = """
        select (select count(*) from awa.ready_entries)
             - (select count(*) from awa.ready_tombstones)
             - (select coalesce(sum(claimed_count), 0) from awa.ready_claim_attempt_batches)
             + (select count(*) from awa.deferred_jobs)
             + (select count(*) from awa.leases)
             + (select count(*) from awa.lease_claims)
             + (select coalesce(sum(claimed_count), 0) from awa.lease_claim_batches)
             - (select count(*) from awa.lease_claim_closures)
             - (select coalesce(sum(closed_count), 0) from awa.lease_claim_closure_batches)
    """

    def install(self, dsn: str) -> str:
        """Migrate, and take the storage that enqueue_many_copy needs and 0.6 is built for."""
        with Client(dsn) as client:
            client.migrate()
            client.install_queue_storage()
        return version("awa-pg")

    def producer(self, dsn: str) -> Producer:
        """Connect."""
        return Producer(dsn)

    def work(self, dsn: str, options: speech.Options, note: Callable[[int], None]) -> None:
        """Run its asynchronous runtime."""
        asyncio.run(_work(dsn, options, note))


async def _work(dsn: str, options: speech.Options, note: Callable[[int], None]) -> None:
    client = AsyncClient(dsn, max_connections=CONNECTIONS)
    client.task(dict, kind=KIND, queue=QUEUE)(_handler(note))
    await client.start([(QUEUE, WORKERS[options.purpose])], poll_interval_ms=POLL)
    await asyncio.to_thread(options.stop.wait)
    await client.shutdown(timeout_ms=5000)
    await client.close()


def _handler(note: Callable[[int], None]) -> Callable[[Any], Awaitable[None]]:
    async def nothing(job: Any) -> None:
        note(job.args["n"])

    return nothing


if __name__ == "__main__":
    speech.speak(AwaPg())
