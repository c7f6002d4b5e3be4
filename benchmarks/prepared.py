"""What prepared statements save on a direct connection, and what PgBouncer adds to a call.

    python benchmarks/prepared.py [repetitions]

The median time of each call of a job's life, three ways: directly with psycopg's prepared
statements, directly without, and without through PgBouncer in transaction mode.
"""

import statistics
import sys
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import psycopg

sys.path.insert(0, str(Path(__file__).parent.parent / "tools"))

from local_postgres import LocalPostgres
from pgbouncer import PgBouncer

from moonmind_queue import Queue, migrate

WARM_UP = 100
CALLS = ("enqueue", "claim", "renew", "append_event", "complete")


def live(queue: Queue, times: dict[str, list[float]]) -> None:
    """Take one job through its life and note how long each call took."""

    def timed(name: str, call: Callable[[], Any]) -> Any:
        begun = time.perf_counter()
        answer = call()
        times[name].append((time.perf_counter() - begun) * 1e6)
        return answer

    timed("enqueue", lambda: queue.enqueue("noop"))
    [job] = timed("claim", lambda: queue.claim("w", start=True))
    timed("renew", lambda: queue.renew([job], timedelta(minutes=1)))
    timed("append_event", lambda: queue.append_event(job, "progress", "half way"))
    timed("complete", lambda: queue.complete(job))


def measure(way: str, dsn: str, threshold: int | None, repetitions: int) -> None:
    """Print the medians of one way."""
    times: dict[str, list[float]] = {name: [] for name in CALLS}
    with psycopg.connect(dsn, autocommit=True, prepare_threshold=threshold) as connection:
        for _ in range(WARM_UP + repetitions):
            live(Queue(connection), times)
    medians = [statistics.median(times[name][WARM_UP:]) for name in CALLS]
    print(f"{way:24}" + "".join(f"{each:14.0f}" for each in [*medians, sum(medians)]))


def main() -> None:
    """Measure the three ways by turns, three times, for a machine is not equally quick always."""
    repetitions = int(sys.argv[1]) if len(sys.argv) > 1 else 1000
    print(f"{'microseconds':24}" + "".join(f"{each:>14}" for each in [*CALLS, "together"]))
    with LocalPostgres() as server, PgBouncer(server.dsn) as pooler:
        migrate.upgrade(server.dsn)
        for _ in range(3):
            measure("direct, prepared", server.dsn, 5, repetitions)
            measure("direct, unprepared", server.dsn, None, repetitions)
            measure("PgBouncer, unprepared", pooler.dsn(server.dsn), None, repetitions)


if __name__ == "__main__":
    main()
