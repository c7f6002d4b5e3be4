"""The bare limit: the least that could count as a queue. No retries, no history, no dependencies.

A job is a row that is kept. One statement completes the last batch and claims the next under a
lease; producers notify only while some worker says that it would sleep.
"""

from collections.abc import Callable, Sequence
from typing import Any

import psycopg
import speech

BATCH = 500
NAP = 0.1  # seconds until a worker looks again that nobody has woken

SCHEMA = """
create table job (
    id bigint generated always as identity primary key,
    payload jsonb not null,
    state smallint not null default 0, -- 0 ready, 1 claimed, 2 done
    worker int,
    leased_until timestamptz
);
create index job_ready_idx on job (id) where state = 0;
create table asleep (worker int primary key);
"""

WAKE = "select pg_notify('job', '') from asleep limit 1"
ENQUEUE = f"with new as (insert into job (payload) values (%s)) {WAKE}"
ENQUEUE_MANY = f"""
with new as (insert into job (payload) select * from unnest(%s::jsonb[])) {WAKE}"""

COMPLETE = """
update job set state = 2, leased_until = null where id = any(%s) and worker = pg_backend_pid()"""

# To look for the next ones may lock, until the end, a row that another worker has just claimed. So
# what waits for locks comes first: two workers that waited for each other's would be a deadlock.
COMPLETE_AND_CLAIM = f"""
with done as ({COMPLETE} returning 1
), next as materialized (
    select id from job
    where state = 0 and (select count(*) from done) >= 0
    order by id limit {BATCH} for update skip locked
)
update job
set state = 1, worker = pg_backend_pid(), leased_until = now() + interval '1 minute'
from next
where job.id = next.id
returning job.id, job.payload"""


def connect(dsn: str) -> psycopg.Connection[Any]:
    """Connect; plans are made for a table that grows, whatever its size when they are made."""
    settings = "-c enable_seqscan=off -c enable_hashjoin=off -c enable_mergejoin=off"
    return psycopg.connect(dsn, autocommit=True, options=settings)


class Producer:
    """Enqueues over one autocommitting connection."""

    def __init__(self, dsn: str) -> None:
        self._connection = connect(dsn)

    def single(self, number: int) -> None:
        """One row, one transaction."""
        self._connection.execute(ENQUEUE, (f'{{"n": {number}}}',), prepare=True)

    def bulk(self, numbers: Sequence[int]) -> None:
        """One statement."""
        payloads = [f'{{"n": {number}}}' for number in numbers]
        self._connection.execute(ENQUEUE_MANY, (payloads,), prepare=True)


class BareLoop:
    """See ``speech.Contestant``."""

    unfinished = "select count(*) from job where state < 2"

    def install(self, dsn: str) -> str:
        """Make two tables."""
        with connect(dsn) as connection:
            connection.execute(SCHEMA)
        return f"psycopg {psycopg.__version__}"

    def producer(self, dsn: str) -> Producer:
        """Connect."""
        return Producer(dsn)

    def work(self, dsn: str, options: speech.Options, note: Callable[[int], None]) -> None:
        """Complete and claim; sleep only when nothing is ready after having said so."""
        with connect(dsn) as connection:
            connection.execute("listen job")
            done: list[int] = []
            asleep = False
            while not options.stop.is_set():
                jobs = connection.execute(
                    COMPLETE_AND_CLAIM, (done,), prepare=True, binary=True
                ).fetchall()
                done = [job for job, _ in jobs]
                for _, payload in jobs:
                    note(payload["n"])
                if not jobs and asleep:
                    for _ in connection.notifies(timeout=NAP, stop_after=1):
                        pass
                elif (len(jobs) < BATCH) != asleep:
                    asleep = not asleep
                    connection.execute(
                        "insert into asleep values (pg_backend_pid())"
                        if asleep
                        else "delete from asleep where worker = pg_backend_pid()"
                    )
            connection.execute(COMPLETE, (done,))


if __name__ == "__main__":
    speech.speak(BareLoop())
