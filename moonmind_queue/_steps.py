"""What a lease holder asks of the database about effects outside of it: steps begun and done."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from psycopg.rows import class_row
from psycopg.sql import SQL

from moonmind_queue._calls import Call, nothing, value, view
from moonmind_queue._values import storable, to_json
from moonmind_queue.model import Artifact, ClaimedJob, Step


class _Begun(NamedTuple):
    begun_at: Any
    done: bool
    data: dict[str, Any]


def begin_step(
    job: ClaimedJob, step: str, content: str = "", data: Mapping[str, Any] | None = None
) -> Call[Step]:
    """Say what comes next outside of the database, and learn whether it has happened already.

    Raises ``LeaseLost``: ask immediately before the effect.
    """
    return Call(
        source="begin_step",
        statement=SQL(
            "select begun_at, done, data from moonmind_queue.begin_step("
            "%(job)s, %(token)s, %(step)s, %(content)s, %(data)s)"
        ).as_bytes(),
        values={
            "job": job.id,
            "token": job.token,
            "step": step,
            "content": content,
            "data": to_json(data or {}),
        },
        row=class_row(_Begun),
        read=lambda rows: Step(step=step, content=content, **rows[0]._asdict()),
    )


def end_step(
    job: ClaimedJob, step: str, content: str = "", data: Mapping[str, Any] | None = None
) -> Call[None]:
    """Say that it has happened; ``data`` is added. Raises ``LeaseLost``."""
    return value(
        "end_step",
        nothing,
        job_id=job.id,
        token=job.token,
        step=step,
        content=content,
        data=to_json(data or {}),
    )


def steps(job_id: int) -> Call[list[Step]]:
    """Return what a job began or did since it was last retried by a person, oldest first."""
    return Call(
        source="job_publication",
        statement=SQL(
            "select step, content, data, begun_at, done_at is not null as done"
            " from moonmind_queue.job_publication where job_id = %(job)s and not over"
            " order by begun_at, step, content"
        ).as_bytes(),
        values={"job": job_id},
        row=class_row(Step),
        read=list,
    )


def pushed(job_id: int) -> Call[list[str]]:
    """Return every commit that a job has ever pushed, or was about to."""
    return Call(
        source="job_publication",
        statement=SQL(
            "select content from moonmind_queue.job_publication"
            " where job_id = %(job)s and step = 'push' order by begun_at"
        ).as_bytes(),
        values={"job": job_id},
        row=class_row(_Content),
        read=lambda rows: [row.content for row in rows],
    )


def latest_artifact(job_id: int, name: str) -> Call[Artifact | None]:
    """Return the newest artifact of a name since a person last retried the job, if there is one."""
    return view(
        Artifact,
        "job_artifact",
        "where job_id = %(job)s and name = %(name)s and created_at > coalesce((select max(at)"
        " from moonmind_queue.job_history where job_id = %(job)s and type = 'retried'),"
        " '-infinity') order by id desc limit 1",
        lambda found: found[0] if found else None,
        job=job_id,
        name=name,
    )


def say(job_id: int, text: str) -> Call[int]:
    """Say something to the agent at work on a job, and return the message's number.

    It is heard when the agent's turn is over, or when the next attempt begins. Raises
    ``JobNotFound``, ``WrongState`` for a job that has ended, ``InvalidArgument`` for no text or
    more than 16 KiB.
    """
    return value("say", int, job_id=job_id, text=storable(text))


def hear(job: ClaimedJob, *, everything: bool = False) -> Call[list[str]]:
    """Take what was said to the agent of a job since the last time; ``LeaseLost``.

    With ``everything`` also what earlier attempts have heard.
    """
    return Call(
        source="hear",
        statement=SQL(
            "select content from moonmind_queue.hear(%(job)s, %(token)s, %(everything)s)"
        ).as_bytes(),
        values={"job": job.id, "token": job.token, "everything": everything},
        row=class_row(_Content),
        read=lambda rows: [row.content for row in rows],
    )


class _Content(NamedTuple):
    content: str
