"""How soon an idle worker starts a job, with a fallback poll of a minute.

    python benchmarks/pickup.py [repetitions]

Four ways in which a job becomes claimable, each measured from the instant at which it did (the
commit, the end of the last dependency, the due time) to the first line of its handler in another
process. PostgreSQL is an embedded one with durable settings, on this machine.
"""

import logging
import multiprocessing
import statistics
import sys
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg

sys.path.insert(0, str(Path(__file__).parent.parent / "tools"))

from local_postgres import LocalPostgres
from waiting import eventually

from moonmind_queue import ClaimedJob, Context, Queue, Worker, connect, logs, migrate
from moonmind_queue.executors.noop import Noop


class Stamp(Noop):
    """Says when it began."""

    def run(self, job: ClaimedJob, context: Context) -> Mapping[str, Any]:
        """Return this machine's time at the first line."""
        return {"began": time.time()}


def work(dsn: str) -> None:
    """Run one worker with one slot, silently."""
    logs.setup(level=logging.ERROR)
    Worker(dsn, {"stamp": Stamp(0)}, name="idle", poll=timedelta(minutes=1)).run()


def began(queue: Queue, job: int) -> float:
    """Wait for a job's end and return when it began."""
    eventually(lambda: queue.get(job).state == "succeeded")
    return float((queue.get(job).result or {})["began"])


def committed(dsn: str, queue: Queue) -> float:
    """Enqueue in a transaction of its own; measured from its commit."""
    with psycopg.connect(dsn) as connection:
        job = Queue(connection).enqueue("stamp")
        connection.commit()
        at = time.time()
    return began(queue, job) - at


def enqueued(dsn: str, queue: Queue) -> float:
    """Enqueue with autocommit; measured from the answer."""
    job = queue.enqueue("stamp")
    at = time.time()
    return began(queue, job) - at


def released(dsn: str, queue: Queue) -> float:
    """Complete the last dependency by hand; measured from the answer."""
    first = queue.enqueue("by-hand")
    second = queue.enqueue("stamp", after=[first])
    [held] = queue.claim("somebody", kinds=["by-hand"])
    queue.complete(held)
    at = time.time()
    return began(queue, second) - at


def due(dsn: str, queue: Queue) -> float:
    """Enqueue for a third of a second from now; measured from that instant."""
    at = datetime.now(UTC) + timedelta(seconds=0.3)
    return began(queue, queue.enqueue("stamp", run_at=at)) - at.timestamp()


def measure(way: Callable[[str, Queue], float], dsn: str, repetitions: int) -> None:
    """Print median, 95th percentile and maximum of one way."""
    with connect(dsn) as queue:
        times = []
        for _ in range(repetitions):
            times.append(way(dsn, queue) * 1000)
            time.sleep(0.05)  # the worker is idle again
    p95 = statistics.quantiles(times, n=20)[-1]
    print(
        f"{way.__name__:<10} p50 {statistics.median(times):6.1f} ms"
        f"   p95 {p95:6.1f} ms   max {max(times):6.1f} ms   n {len(times)}"
    )


def main() -> None:
    """Measure all four ways."""
    repetitions = int(sys.argv[1]) if len(sys.argv) > 1 else 50
    with LocalPostgres(durable=True) as server:
        migrate.upgrade(server.dsn)
        worker = multiprocessing.get_context("spawn").Process(target=work, args=(server.dsn,))
        worker.start()
        try:
            with connect(server.dsn) as queue:
                eventually(lambda: queue.select("select 1 from moonmind_queue.worker_overview"))
                began(queue, queue.enqueue("stamp"))
            print(f"PostgreSQL {server.version}, one idle worker, poll 60 s")
            for way in (enqueued, committed, released, due):
                measure(way, server.dsn, repetitions)
        finally:
            worker.terminate()
            worker.join()


if __name__ == "__main__":
    main()
