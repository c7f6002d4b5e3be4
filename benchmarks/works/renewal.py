"""W7: what it costs to renew 1,000 leases in one call, for ten minutes' worth of calls.

A worker would call once a second; here the calls come at ``PACE`` a second. That is the harder
test of bloat: between two visits of autovacuum, which comes by the clock, lie twenty times as many.
"""

import statistics
import time
from datetime import timedelta

import psycopg

from benchmarks.arena import Database
from benchmarks.works import Figures, Trial, Work
from moonmind_queue import Queue

LEASES = 1000
CALLS = 600
PACE = 20.0  # calls a second
LEASE = timedelta(seconds=120)

UPDATES = """
select n_tup_upd, n_tup_hot_upd from pg_stat_user_tables
where relid = 'moonmind_queue.lease'::regclass
"""
SIZES = """
select pg_relation_size('moonmind_queue.lease'), pg_indexes_size('moonmind_queue.lease')
"""


def renew(trial: Trial) -> Figures:
    """Claim 1,000 jobs and renew all their leases again and again."""
    calls = max(round(CALLS * trial.scale), 20)
    with (
        trial.arena.database(trial.storage, trial.contestant) as database,
        psycopg.connect(database.dsn, autocommit=True) as session,
    ):
        queue = Queue(session)
        queue.enqueue_many([{"kind": "nothing"}] * LEASES)
        held = queue.claim("holder", limit=LEASES, lease=LEASE, start=True)
        for _ in range(10):  # its plan is made by then
            queue.renew(held, LEASE)
        database.look.execute("vacuum analyze moonmind_queue.lease")
        database.look.execute("checkpoint")
        before, updates, sizes = database.costs(), _updates(session), _row(database, SIZES)
        times = []
        began = time.monotonic()
        for number in range(calls):
            time.sleep(max(began + number / PACE - time.monotonic(), 0))
            called = time.perf_counter()
            renewed = queue.renew(held, LEASE)
            times.append((time.perf_counter() - called) * 1000)
            assert len(renewed) == LEASES, f"{len(renewed)} of {LEASES} leases are still held"
        after, renewals = database.costs(), _updates(session)
        final = _row(database, SIZES)
    return {
        "p50_ms": statistics.median(times),
        "p95_ms": statistics.quantiles(times, n=20)[-1],
        "max_ms": max(times),
        "hot_share": (renewals[1] - updates[1]) / (renewals[0] - updates[0]),
        "wal_bytes_per_renewal": (after.wal_bytes - before.wal_bytes) / calls / LEASES,
        "calls": calls,
        **{
            f"{what}_kib_{when}": size / 1024
            for when, measured in (("before", sizes), ("after", final))
            for what, size in zip(("table", "index"), measured, strict=True)
        },
    }


def _updates(session: psycopg.Connection) -> tuple[int, ...]:
    """Return how many rows of lease this session has updated by now, and how many in place."""
    session.execute("select pg_stat_force_next_flush()")
    session.execute("select pg_stat_clear_snapshot()")
    return tuple(session.execute(UPDATES).fetchone() or ())


def _row(database: Database, query: str) -> tuple[int, ...]:
    return tuple(database.look.execute(query.encode()).fetchone() or ())


WORKS = [
    Work(
        "W7",
        f"renew {LEASES:,} leases in one call",
        "ms p50",
        renew,
        storages=("disk", "tmpfs"),
        ours_only=True,
    )
]
