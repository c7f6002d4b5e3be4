"""How a tool acts for a worker whose tokens it does not know: by the worker's name.

An agent is told no token. The database gives those of a worker's name to a login whose policy lets
it use the name, and fences every write with them, as it does for all workers.
"""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from typing import Annotated

from pydantic import Field

from moonmind_queue.errors import LeaseLost, NotAllowed
from moonmind_queue.model import ClaimedJob
from moonmind_queue.queue import Queue

Lend = Callable[[], AbstractContextManager[Queue]]
LONGEST_LEASE = 86_400  # seconds
Worker = Annotated[
    str,
    Field(
        min_length=1,
        max_length=200,
        description="Your name as a worker; use the same one in every call.",
        examples=["codex-1"],
    ),
]

JOB = """
select id, kind, agent, name, key, payload, priority, max_attempts, moonmind_queue._now() as now
from moonmind_queue.job_overview
where id = %(job)s
"""


def take_back(queue: Queue) -> None:
    """Take back leases that have run out: where agents are the only workers nobody else does."""
    with suppress(NotAllowed):  # who may not take back may not claim either
        queue.reclaim()


@contextmanager
def held(queue: Queue, job_id: int, worker: str, called: str) -> Iterator[ClaimedJob]:
    """Lend a job as its holder has it.

    Raises ``LeaseLost`` when ``worker`` does not hold it, or no longer does; the error says
    ``called`` for the job, and never the token.
    """
    leases = {each.job_id: each for each in queue.held_by(worker)}
    if (lease := leases.get(job_id)) is None:
        raise _lost(called, worker)
    [job] = queue.select(JOB, job=job_id)
    left = lease.expires_at - job.pop("now")
    try:
        yield ClaimedJob(
            **job,
            attempt=lease.attempt,
            token=lease.token,
            expires_at=lease.expires_at,
            lasts=left,
        )
    except LeaseLost:
        raise _lost(called, worker) from None


def _lost(called: str, worker: str) -> LeaseLost:
    return LeaseLost(f"{called} is not held by worker {worker!r}: claim it first, by that name")
