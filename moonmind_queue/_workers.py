"""What a worker process tells the database of itself, and asks it about itself."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from moonmind_queue._calls import Call, column, nothing, rows, value
from moonmind_queue._values import to_json


@dataclass(frozen=True, slots=True, kw_only=True)
class HeldJob:
    """A job that a worker holds, with what its writes must carry."""

    job_id: int
    token: int
    attempt: int
    expires_at: datetime
    started: bool


def register_worker(
    worker: str,
    *,
    agents: Sequence[str] | None,
    kinds: Sequence[str] | None,
    capabilities: Sequence[str],
    slots: int,
    host: str,
    pid: int,
    version: str,
    versions: Mapping[str, str] | None = None,
) -> Call[int]:
    """Record the start of a worker process and return its id."""
    return value(
        "register_worker",
        int,
        worker=worker,
        agents=None if agents is None else list(agents),
        kinds=None if kinds is None else list(kinds),
        capabilities=list(capabilities),
        slots=slots,
        host=host,
        pid=pid,
        version=version,
        versions=to_json(versions or {}),
    )


def see_worker(worker_id: int, *, stopped: bool = False) -> Call[bool]:
    """Record that a worker process is alive, or ends; returns whether it is asked to end."""
    return value("see_worker", bool, id=worker_id, stopped=stopped)


def doze(worker_id: int, asleep: bool = True) -> Call[None]:
    """Say that a registered process waits for notifications, or no longer does."""
    return value("doze", nothing, worker_id=worker_id, asleep=asleep)


def held_by(worker: str) -> Call[list[HeldJob]]:
    """Return the jobs that a worker holds, for one that has forgotten its tokens."""
    return rows(HeldJob, "held_by", worker=worker)


def peek(
    *,
    agents: Sequence[str] | None = None,
    kinds: Sequence[str] | None = None,
    capabilities: Sequence[str] = (),
    limit: int = 1,
    job_ids: Sequence[int] | None = None,
) -> Call[list[int]]:
    """Return ids of jobs that ``claim`` would take now, the most urgent first; nothing is taken.

    Each could be claimed by itself; of several that share a limit, as many as it leaves room for.
    Raises ``NotAllowed`` when the login's policy admits none of the agents or kinds.
    """
    return column(
        "peek",
        agents=None if agents is None else list(agents),
        kinds=None if kinds is None else list(kinds),
        capabilities=list(capabilities),
        limit=limit,
        job_ids=None if job_ids is None else list(job_ids),
    )
