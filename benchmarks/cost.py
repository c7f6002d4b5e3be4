"""What a job costs in CPU, call by call: server and client apart, the least of several rounds.

    python -m benchmarks.cost            in batches of 500, their rows alone, and one by one
    python -m benchmarks.cost 100

CPU is what to compare while changing things: jobs a second vary with what else the machine does.
"""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta

from psycopg.conninfo import make_conninfo

from benchmarks import cpu
from benchmarks.arena import Arena
from moonmind_queue import ClaimedJob, Queue, connect, migrate

JOBS, ROUNDS, SINGLES = 20_000, 3, 1_000
MINUTE = timedelta(minutes=1)

# The rows of a life and nothing else: the first in line are taken, and nothing is checked.
ENQUEUED = """
with made as (
    insert into job
        (agent, kind, state, run_at, payload, created_at, updated_at, lane_id, event_seq, rank)
    select 'codex', 'k', 'queued', now(), payload, now(), now(), 1, 1, 0
    from unnest(%s::jsonb[]) as payload
    returning id
), offered as (
    insert into ready (rank, job_id, lane_id) select 0, id, 1 from made
)
insert into event (job_id, seq, at, type, worker) select id, 1, now(), 'created', 'w' from made"""

CLAIMED = """
with taken as (
    delete from ready
    where ctid = any (array(
        select ctid from ready where lane_id = 1 order by rank, job_id limit %s
    ))
    returning job_id
), leased as (
    update job set state = 'claimed', attempt = 1, updated_at = now(), event_seq = 2
    where id = any (array(select job_id from taken))
    returning id
), held as (
    insert into lease (job_id, token, attempt, lane_id, expires_at, deadline_at, worker)
    select id, nextval('lease_token_seq'), 1, 1, now() + '1 min', now() + '1 min', 'w' from leased
)
insert into event (job_id, seq, at, type, worker, data)
select id, 2, now(), 'claimed', 'w', '{"attempt": 1}' from leased
returning job_id"""

COMPLETED = """
with released as (
    delete from lease where job_id = any (%(ids)s)
), ended as (
    update job
    set state = 'succeeded', result = '{}', started_at = now(), finished_at = now(),
        updated_at = now(), event_seq = 4
    where id = any (%(ids)s)
    returning id
)
insert into event (job_id, seq, at, type, worker)
select id, 3, now(), 'started', 'w' from ended
union all
select id, 4, now(), 'completed', 'w' from ended"""


class Meter:
    """Adds up the CPU of one session's server process and of this process, by name."""

    def __init__(self, queue: Queue) -> None:
        self._server = queue.connection.info.backend_pid
        self._spent: dict[str, tuple[float, float]] = {}
        self._least: dict[str, tuple[float, float]] = {}

    @contextmanager
    def of(self, name: str) -> Iterator[None]:
        """Measure what happens inside."""
        server, client = self._read()
        yield
        server, client = (
            now - then for now, then in zip(self._read(), (server, client), strict=True)
        )
        before = self._spent.get(name, (0.0, 0.0))
        self._spent[name] = before[0] + server, before[1] + client

    def end_round(self, jobs: int) -> None:
        """Divide by the number of jobs, and keep the least so far."""
        for name, spent in self._spent.items():
            each = spent[0] / jobs, spent[1] / jobs
            self._least[name] = min(each, self._least.get(name, each))
        self._spent = {}

    def show(self) -> None:
        """Print a line for each name."""
        for name, (server, client) in self._least.items():
            print(f"{name:24}{server:10.1f}{client:10.1f}")

    def _read(self) -> tuple[float, float]:
        return cpu.of_process(self._server) * 1e6, time.process_time() * 1e6


def in_batches(queue: Queue, meter: Meter, batch: int) -> None:
    """Enqueue, claim and complete many at a time."""
    for _ in range(ROUNDS):
        for _ in range(JOBS // 1000):
            with meter.of("enqueue_many of 1000"):
                queue.enqueue_many([{"kind": "k", "payload": {"n": n}} for n in range(1000)])
        while True:
            with meter.of(f"claim {batch}"):
                jobs = queue.claim("w", limit=batch)
            if not jobs:
                break
            with meter.of(f"complete_many of {batch}"):
                queue.complete_many([(job, {}) for job in jobs])
        meter.end_round(JOBS)


def rows_alone(queue: Queue, meter: Meter, batch: int) -> None:
    """Write what a life in batches leaves in the tables, by statements that do nothing else."""
    connection = queue.connection
    connection.execute("set search_path to moonmind_queue")
    for setting in ("enable_seqscan", "enable_hashjoin", "enable_mergejoin"):
        connection.execute(f"set {setting} to off")
    for _ in range(ROUNDS):
        for _ in range(JOBS // 1000):
            payloads = [f'{{"n": {n}}}' for n in range(1000)]
            with meter.of("enqueued rows alone"):
                connection.execute(ENQUEUED, (payloads,), prepare=True)
        while True:
            with meter.of("claimed rows alone"):
                claimed = connection.execute(CLAIMED, (batch,), prepare=True).fetchall()
            ids = [job for [job] in claimed]
            if not ids:
                break
            with meter.of("completed rows alone"):
                connection.execute(COMPLETED, {"ids": ids}, prepare=True)
        meter.end_round(JOBS)


def one_by_one(queue: Queue, meter: Meter, _batch: int) -> None:
    """Ask for one thing a call, each in a transaction of its own."""
    held: list[ClaimedJob] = []
    calls: dict[str, Callable[[], object]] = {
        "select 1": lambda: queue.select("select 1"),
        "enqueue": lambda: queue.enqueue("k", {"n": 1}),
        "claim 1": lambda: held.extend(queue.claim("w", start=True)),
        "renew 1": lambda: queue.renew(held[:1], MINUTE),
        "complete": lambda: queue.complete(held.pop(), {}),
        "claim 0": lambda: queue.claim("w"),
        "next_due": lambda: queue.next_due(),
    }
    for _ in range(ROUNDS):
        for name, call in calls.items():
            with meter.of(name):
                for _ in range(SINGLES):
                    call()
        meter.end_round(SINGLES)


def main() -> None:
    """Measure on a server in memory, and print microseconds."""
    batch = int(sys.argv[1]) if len(sys.argv) > 1 else 500
    with Arena() as arena:
        server = arena.server("disk" if arena.lacks("tmpfs") else "tmpfs")
        with connect(server.dsn) as admin:
            admin.connection.execute("create database cost")
        dsn = make_conninfo(server.dsn, dbname="cost")
        migrate.upgrade(dsn)
        print(f"{'us a job':24}{'server':>10}{'client':>10}")
        for measure in (in_batches, rows_alone, one_by_one):
            with connect(dsn) as queue:
                meter = Meter(queue)
                measure(queue, meter, batch)
                meter.show()


if __name__ == "__main__":
    main()
