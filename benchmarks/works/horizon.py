"""W5: steady work while another session keeps every dead row from being cleaned up."""

import time
from bisect import bisect

import psycopg

from benchmarks.contest import ContestantError
from benchmarks.works import Figures, Trial, Work
from benchmarks.works.drain import workers

SECONDS = 60.0
WINDOW = 1 / 6  # of the whole: the first and the last ten seconds
AHEAD = 0.25  # seconds of work that the producer is ahead of the worker
BATCH = 1000
TRIED, SLOWEST = 5.0, 8_000  # after so many seconds so many jobs a second, or there is no race


def held_horizon(trial: Trial) -> Figures:
    """Enqueue and do jobs as fast as one worker can; compare the end with the beginning."""
    seconds = SECONDS * trial.scale
    with (
        trial.arena.database(trial.storage, trial.contestant) as database,
        trial.contestant.start("produce", database.dsn) as producer,
        workers(trial.contestant, database, 1) as [worker],
        psycopg.connect(database.dsn) as holder,
    ):
        producer.answer()
        enqueued = handled = 0
        ahead = BATCH
        samples: list[tuple[float, int]] = []
        while not samples or samples[-1][0] - samples[0][0] < seconds:
            handled = worker.heard().get("handled", handled)
            now = time.monotonic()
            if handled:
                if not samples:  # it works: from here on nothing is cleaned up
                    holder.execute("set transaction isolation level repeatable read")
                    holder.execute("select count(*) from pg_class")
                samples.append((now, handled))
                ahead = max(round(rate(samples, now - 1, now) * AHEAD), BATCH)
                if trial.contestant.kind != "ours":
                    _leave_out_the_slow(samples)
            if enqueued - handled < ahead:
                count = min(max(ahead // BATCH, 1) * BATCH, 20 * BATCH)
                producer.order(do="bulk", first=enqueued, count=count, batch=BATCH).answer()
                enqueued += count
            else:
                time.sleep(0.02)
        began, ended = samples[0][0], samples[-1][0]
        holder.rollback()
        window = seconds * WINDOW
        first = rate(samples, began, began + window)
        last = rate(samples, ended - window, ended)
    return {
        "last_jobs_per_second": last,
        "first_jobs_per_second": first,
        "ratio": last / first if first else 0.0,
        **{
            f"window_{index + 1}": rate(
                samples, began + index * window, began + (index + 1) * window
            )
            for index in range(6)
        },
    }


def _leave_out_the_slow(samples: list[tuple[float, int]]) -> None:
    """Raise ``ContestantError`` for who is many times slower than others, whatever comes."""
    (began, _), (now, _) = samples[0], samples[-1]
    if now - began > TRIED and rate(samples, began, now) < SLOWEST:
        raise ContestantError(
            f"left out: below {SLOWEST:,} jobs/s in the first {TRIED:.0f} s already"
        )


def rate(samples: list[tuple[float, int]], since: float, until: float) -> float:
    """Return the jobs a second between two instants, of which there are samples round about."""
    since = max(since, samples[0][0])
    if until <= since:
        return 0.0
    return (_at(samples, until) - _at(samples, since)) / (until - since)


def _at(samples: list[tuple[float, int]], instant: float) -> float:
    """Return how many jobs had been handled; a slow producer leaves long gaps between samples."""
    after = bisect(samples, (instant, 0))
    if after in (0, len(samples)):
        return samples[min(after, len(samples) - 1)][1]
    (began, before), (ended, then) = samples[after - 1], samples[after]
    return before + (then - before) * (instant - began) / (ended - began)


WORKS = [
    Work(
        "W5",
        "held xmin horizon, last 10 s of 60",
        "jobs/s",
        held_horizon,
        storages=("tmpfs",),  # a minute each, and it is the processor that walks over dead rows
    )
]
