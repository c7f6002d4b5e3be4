"""W6: jobs that need each other: how fast they are added, and freed when what they need is done."""

import random
import statistics
import time
from collections.abc import Iterator
from typing import Any

import psycopg

from benchmarks.arena import Database
from benchmarks.works import Figures, Trial, Work
from benchmarks.works.drain import until_done, workers
from moonmind_queue import ClaimedJob, Queue

LAYERS, WIDTH, NEEDS = 100, 100, 10  # each job needs ten of the layer before: 100,000 edges
CALL = 1000  # jobs in a call
SMALL, LARGE = 1_000, 10_000
REPORT = 100  # completions in a call: what a busy worker reports at once
CHAIN = 1000

UNBLOCKED = """
select extract(epoch from started.at - completed.at)::float8 * 1000
from moonmind_queue.job_history as completed
join moonmind_queue.dependency on dependency.needs_job_id = completed.job_id
join moonmind_queue.job_history as started
    on started.job_id = dependency.job_id and started.type = 'started'
where completed.type = 'completed'
"""

Jobs = list[dict[str, Any]]


def graph(trial: Trial) -> Figures:
    """Add a graph; fan out and in, with few and with many; run a chain."""
    seeding = {
        "seed_100k_edges_s": _seed(trial, CALL),
        "seed_in_one_call_s": _seed(trial, (LAYERS + 1) * WIDTH),
    }
    few, many = _fans(trial, SMALL), _fans(trial, LARGE)
    unblocked = _chain(trial, max(round(CHAIN * trial.scale), 50))
    return {
        "unblock_p50_ms": statistics.median(unblocked),
        "unblock_p95_ms": statistics.quantiles(unblocked, n=20)[-1],
        "unblock_max_ms": max(unblocked),
        **seeding,
        **{f"{name}_{LARGE}": value for name, value in many.items()},
        **{f"{name}_{SMALL}": value for name, value in few.items()},
        # What a job costs among many to what it costs among few: 1 is linear.
        **{f"{name}_growth": many[name] / few[name] for name in many},
    }


def _seed(trial: Trial, call: int) -> float:
    """Return the seconds that it takes to add all of a graph, so many jobs in a call."""
    chosen = random.Random(4)  # noqa: S311 - the same graph each time
    jobs: Jobs = [{"kind": "nothing", "key": f"0/{place}"} for place in range(WIDTH)]
    for layer in range(1, LAYERS + 1):
        jobs += [
            {
                "kind": "nothing",
                "key": f"{layer}/{place}",
                "after": [f"{layer - 1}/{n}" for n in chosen.sample(range(WIDTH), NEEDS)],
            }
            for place in range(WIDTH)
        ]
    with trial.arena.database(trial.storage, trial.contestant) as database:
        seconds = _add(database, jobs, call)
        edges = database.value("select count(*) from moonmind_queue.dependency")
        assert edges == LAYERS * WIDTH * NEEDS, edges
        return seconds


def _fans(trial: Trial, width: int) -> Figures:
    """Return microseconds for each of the jobs that fan out from one, and in to one."""
    with trial.arena.database(trial.storage, trial.contestant) as database:
        _add(database, [{"kind": "source", "key": "source"}], CALL)
        spokes = [{"kind": "spoke", "key": f"spoke {n}", "after": ["source"]} for n in range(width)]
        add_out = _add(database, spokes, CALL)
        sink = {"kind": "sink", "after": [job["key"] for job in spokes]}
        add_in = _add(database, [sink], CALL)
        database.look.execute("vacuum analyze")
        queue = Queue(database.look)
        out = sum(_complete(queue, queue.claim("one", start=True)))
        before = time.perf_counter()
        held = queue.claim("one", limit=width, start=True)
        claimed = time.perf_counter() - before
        assert len(held) == width, f"{len(held)} of {width} jobs were freed"
        into = sum(_complete(queue, held))
        [last] = queue.claim("one", start=True)
        assert last.kind == "sink", last.kind
    seconds = {
        "fan_out": out,
        "claim": claimed,
        "fan_in": into,
        "add_out": add_out,
        "add_in": add_in,
    }
    return {f"{name}_us_per_job": value / width * 1e6 for name, value in seconds.items()}


def _complete(queue: Queue, held: list[ClaimedJob]) -> Iterator[float]:
    for first in range(0, len(held), REPORT):
        before = time.perf_counter()
        queue.complete_many([(job, {}) for job in held[first : first + REPORT]])
        yield time.perf_counter() - before


def _add(database: Database, jobs: Jobs, call: int) -> float:
    """Enqueue all, so many in a call and a transaction; return the seconds."""
    with psycopg.connect(database.dsn, autocommit=True) as session:
        queue = Queue(session)
        before = time.perf_counter()
        for first in range(0, len(jobs), call):
            queue.enqueue_many(jobs[first : first + call])
        return time.perf_counter() - before


def _chain(trial: Trial, length: int) -> list[float]:
    """Return, for each job after the first, the milliseconds from what it needs to its start."""
    jobs: Jobs = [
        {"kind": "nothing", "key": str(n), "payload": {"n": n}, "after": [str(n - 1)] if n else []}
        for n in range(length)
    ]
    with trial.arena.database(trial.storage, trial.contestant) as database:
        with workers(trial.contestant, database, 1, "pickup") as programs:
            while not database.value("select count(*) from moonmind_queue.sleeper"):
                time.sleep(0.05)  # until it has nothing to do
            _add(database, jobs, length)
            until_done(database, programs, length)
        times = [row[0] for row in database.look.execute(UNBLOCKED)]
    assert len(times) == length - 1, f"{len(times)} of {length - 1} links"
    return times


WORKS = [Work("W6", "a graph of jobs: end of a need to start", "ms p50", graph, ours_only=True)]
