"""What is true of the rows after every call, whatever was called and by how many sessions.

``broken(connection)`` names what does not hold, job by job; an empty list is the proof. Half of it
are queries, which know nothing of functions; the other half is ``replay``, which reads the history
alone and must arrive at the row.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any, NamedTuple

import psycopg

BROKEN = {
    "no two leases have the same token": """
        select job_id from (select job_id, count(*) over (partition by token) from lease) as lease
        where count > 1""",
    "a leased job needs nothing that never succeeded": """
        select lease.job_id
        from lease
        join dependency on dependency.job_id = lease.job_id
        join job on job.id = lease.job_id and on_dependency_failure <> 'run'
        where not exists (
            select from event where job_id = dependency.needs_job_id and type = 'completed')""",
    "no row contradicts another": "select job_id from queue_fault",
    "what is to expire says so": """
        select job_id from expiry join job on id = job_id
        where job.expires_at is distinct from expiry.expires_at""",
    "what is ready is due": "select id from ready join job on id = job_id where run_at > _now()",
    "the id of a job is above those of all it needs": """
        select job_id from dependency where needs_job_id >= job_id""",
    "events are numbered without gaps up to event_seq": """
        select job.id
        from job left join event on event.job_id = job.id
        group by job.id
        having (count(*), min(seq), max(seq)) is distinct from (event_seq::bigint, 1, event_seq)""",
    "no row outlives its job": """
        select job_id from (
            select job_id from event union all select job_id from artifact
            union all select job_id from log_chunk
            union all select job_id from dependency union all select needs_job_id from dependency
        ) as row where not exists (select from job where id = job_id)""",
    "attempts are bounded, but for those that an operator granted by unlock": """
        select id from job where attempt > max_attempts + (
            select count(*) from event where job_id = id and type = 'unlocked')""",
}
ALL_BROKEN = " union all ".join(
    f"select '{truth}', broken.* from ({query}) as broken" for truth, query in BROKEN.items()
)

TABLES = (
    "ready",
    "scheduled",
    "dependency",
    "lease",
    "event",
    "log_chunk",
    "worker",
    "artifact",
    "artifact_chunk",
    "expiry",
    "pause",
    "run_limit",
    "policy",
    "schedule",
)
DELETIONS = ", ".join(f"{table} as (delete from {table})" for table in TABLES)
EMPTY = f"""with {DELETIONS},
others as (delete from run_timeout where kind <> '*'),
default_timeout as (update run_timeout set timeout = '4 hours' where kind = '*')
delete from job"""  # one statement, so that it is planned once

QUEUED, HELD = {"queued"}, {"claimed", "running"}
FINAL = {"succeeded", "failed", "dead_letter", "cancelled"}
# The queue's own events → the states in which each can happen. One that is queued in the history
# waits or is queued in its row: that is decided by its needs, and read from their histories.
POSSIBLE = {
    "created": {""},
    "scheduled": QUEUED,
    "waiting": QUEUED,
    "ready": QUEUED,
    "claimed": QUEUED,
    "started": {"claimed"},
    "artifact": HELD,
    "completed": HELD,
    "failed": HELD,
    "released": HELD,
    "expired": HELD,
    "timed_out": HELD,
    "unlocked": HELD,
    "cancel_requested": HELD,
    "blocked": HELD,
    "dead_lettered": {"failed", "queued"},
    "cancelled": HELD | QUEUED | {"blocked"},
    "retried": FINAL | QUEUED | {"blocked"},
}
LEADS_TO = {
    "created": "queued",
    "claimed": "claimed",
    "started": "running",
    "completed": "succeeded",
    "released": "queued",
    "expired": "queued",
    "timed_out": "queued",
    "unlocked": "queued",
    "blocked": "blocked",
    "dead_lettered": "dead_letter",
    "cancelled": "cancelled",
    "retried": "queued",
}
EVENTS = "select job_id, type, message, worker, data from event order by job_id, seq"
ROWS = """
select job.id, state::text, job.attempt, run_at, started_at is not null, finished_at, error, result,
    exists (select from scheduled where job_id = job.id),
    lease.worker, token, lease.expires_at, cancel_reason,
    array(select needs_job_id from dependency where dependency.job_id = job.id order by 1),
    on_dependency_failure
from job left join lease on lease.job_id = job.id
order by job.id"""


class Row(NamedTuple):
    """A job with its lease and its needs."""

    id: int
    state: str
    attempt: int
    run_at: datetime
    started: bool
    finished_at: datetime | None
    error: str | None
    result: Any
    scheduled: bool
    worker: str | None
    token: int | None
    expires_at: datetime | None
    cancel: str | None
    needs: list[int]
    policy: str


@dataclass(slots=True)
class Replayed:
    """A job as its events tell it."""

    state: str = ""
    attempt: int = 0
    worker: str | None = None
    cancel: str | None = None
    error: str | None = None
    result: Any = None
    started: bool = False
    last: str = ""

    def follow(self, type: str, message: str, worker: str | None, data: Any) -> None:
        """Do what one event says; fails when it cannot have happened now."""
        if type not in POSSIBLE:
            assert self.state in HELD, f"{type} of a holder while {self.state}"
            return
        assert self.state in POSSIBLE[type], f"{type} while {self.state}"
        if type == "dead_lettered":  # a failure or a loss ends the last attempt: never by itself
            assert self.last in ("failed", "expired", "timed_out"), (
                f"dead_lettered after {self.last}"
            )
        if type == "retried" and self.state != "queued":
            self.attempt, self.result = 0, None
        if type == "claimed":
            self.attempt, self.worker = data["attempt"], worker
        elif type == "released":
            self.attempt -= 1
        elif type == "cancel_requested":
            self.cancel = message
        elif type in ("failed", "expired", "timed_out", "blocked", "dead_lettered", "cancelled"):
            self.error = message
        elif type == "completed":
            self.error, self.result = None, data or {}
        self.started |= type == "started"
        self.last = type
        self.state = LEADS_TO.get(type, self.state)
        if type == "failed":
            self.state = "queued" if "retry_at" in (data or {}) else "failed"
        if self.state not in HELD:
            self.worker = self.cancel = None


def replay(events: Iterable[tuple[Any, ...]]) -> dict[int, Replayed]:
    """Return every job as its history alone tells it; events are in the order of ``EVENTS``."""
    jobs: dict[int, Replayed] = {}
    for job_id, *event in events:
        jobs.setdefault(job_id, Replayed()).follow(*event)
    return jobs


def unlike_history(rows: list[Row], told: dict[int, Replayed]) -> list[tuple[str, int]]:
    """Return the jobs whose row is not what the histories tell."""
    wrong = []
    for row in rows:
        job = told.get(row.id, Replayed())
        state = job.state
        met = {"succeeded", *(FINAL if row.policy == "run" else ())}
        if state == "queued" and any(told[need].state not in met for need in row.needs):
            state = "waiting"
        history = (state, job.attempt, job.started, job.error, job.worker, job.cancel)
        if (row.state, row.attempt, row.started, row.error, row.worker, row.cancel) != history:
            wrong.append((f"{row} is not what its history tells: {history}", row.id))
        # Of a cancelled job the history does not say whether a completion brought its result.
        if state != "cancelled" and row.result != job.result:
            wrong.append((f"the result is {row.result}, in its history {job.result}", row.id))
    return wrong


def look(connection: psycopg.Connection[Any]) -> tuple[list[Row], list[tuple[Any, ...]]]:
    """Return all jobs and all events; ``search_path`` must name the schema."""
    rows = [Row(*row) for row in connection.execute(ROWS)]
    return rows, connection.execute(EVENTS).fetchall()


def broken(
    connection: psycopg.Connection[Any], rows: list[Row], events: list[tuple[Any, ...]]
) -> list[tuple[str, int]]:
    """Return what does not hold, and of which job."""
    return [*connection.execute(ALL_BROKEN).fetchall(), *unlike_history(rows, replay(events))]
