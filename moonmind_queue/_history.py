"""What readers ask of the database: lists, totals, the events of all jobs; and its upkeep."""

from collections.abc import Sequence
from datetime import datetime, timedelta

from psycopg.rows import tuple_row
from psycopg.sql import SQL

from moonmind_queue._calls import Call, rows, value, view
from moonmind_queue.model import JobEvent, JobSummary, Maintained

THOSE = """
    where (%(states)s::text[] = '{}' or state = any (%(states)s))
      and (%(agent)s::text is null or agent = %(agent)s)
      and (%(kind)s::text is null or kind = %(kind)s)
"""


def list_jobs(
    states: Sequence[str] = (),
    *,
    agent: str | None = None,
    kind: str | None = None,
    before: int | None = None,
    limit: int = 50,
) -> Call[list[JobSummary]]:
    """Return up to ``limit`` jobs, newest first, without their payloads.

    For the next page pass the last id as ``before``; jobs that come or go meanwhile shift nothing.
    """
    return view(
        JobSummary,
        "job_overview",
        THOSE
        + "and (%(before)s::bigint is null or id < %(before)s) order by id desc limit %(limit)s",
        list,
        states=list(states),
        agent=agent,
        kind=kind,
        before=before,
        limit=limit,
    )


def count_jobs(
    states: Sequence[str] = (), *, agent: str | None = None, kind: str | None = None
) -> Call[int]:
    """Return how many jobs :meth:`list_jobs` would list on all its pages together."""
    return Call(
        source="job_overview",
        statement=SQL("select count(*) from moonmind_queue.job_overview {}")
        .format(SQL(THOSE))
        .as_bytes(),
        values={"states": list(states), "agent": agent, "kind": kind},
        row=tuple_row,
        read=lambda found: int(found[0][0]),
    )


def event_cursor(since: datetime | None = None, last: int = 0) -> Call[str]:
    """Return where :meth:`read_events` begins: at ``since``, or with what comes now.

    Then the ``last`` events that there are already come before it.
    ``datetime.min`` with a time zone begins with the oldest event that is kept.
    """
    return value("event_cursor", str, since=since, last=last)


def read_events(cursor: str, limit: int = 1000) -> Call[list[JobEvent]]:
    """Return the next events of all jobs; go on with the ``cursor`` of any of them.

    Whoever does reads every event exactly once, however late its transaction commits, and those
    of a job in their order. An empty list: nothing new, keep your cursor. Needs a connection that
    autocommits or reads committed.
    """
    return rows(JobEvent, "read_events", cursor=cursor, limit=limit)


def maintain(limit: int = 1000) -> Call[list[Maintained]]:
    """Delete what is too old and make room for what comes; call again while ``limit`` jobs went.

    Workers do this hourly.
    """
    return rows(Maintained, "maintain", limit=limit)


def set_retention(keep: timedelta | None) -> Call[None]:
    """Say how long jobs are kept that have ended; ``None``: for ever."""
    return value("set_retention", lambda _: None, keep=keep)
