"""Which tasks can be claimed through a server, and why one cannot: as the claim itself decides."""

from collections.abc import Sequence
from typing import Any

from moonmind_queue.queue import Queue

MOST = 200  # tasks of a list

_TASKS = """
select task.id, task.name, task.state, task.deps
from unnest(%(jobs)s::bigint[]) with ordinality as ready (job_id, place)
join moonmind_queue.agentmux_task as task using (job_id)
order by ready.place
"""
# That no worker process would run a job is no reason for an agent, which is none.
_WHY = """
select task.state, task.claimed_by, task.lease_until, job.capabilities,
       coalesce(blocked.reason, case
           when queued.reason not in (select reason from moonmind_queue.unserved_lane)
           then queued.reason
       end) as reason
from moonmind_queue.job_overview as job
join moonmind_queue.agentmux_task as task on task.job_id = job.id
left join moonmind_queue.blocked_job as blocked on blocked.id = job.id
left join moonmind_queue.queued_job as queued on queued.id = job.id
where job.id = %(job)s
"""


def ready(queue: Queue, agent: str | None, offered: Sequence[str]) -> list[dict[str, Any]]:
    """Return ``id``, ``name``, ``state`` and ``deps`` of tasks to claim, the most urgent first.

    ``offered`` are the capabilities of whoever would claim them. Raises ``NotAllowed`` for an
    agent that the policy of the login bars.
    """
    agents = None if agent is None else [agent]
    jobs = queue.peek(agents=agents, capabilities=offered, limit=MOST)
    return queue.select(_TASKS, jobs=jobs)


def why_not(queue: Queue, job: int, offered: Sequence[str]) -> dict[str, Any]:
    """Return ``state``, ``claimed_by`` and ``lease_until`` of a task, and a ``reason`` or None."""
    [row] = queue.select(_WHY, job=job)
    if row["state"] == "READY" and not row["reason"]:
        row["reason"] = _here(queue, job, row["capabilities"], offered)
    return row


def _here(queue: Queue, job: int, needed: Sequence[str], offered: Sequence[str]) -> str:
    """Say what stands between this server and a task that others could claim."""
    if queue.peek(capabilities=offered, job_ids=[job]):
        return "somebody else was quicker; ask again"
    if queue.peek(capabilities=needed, job_ids=[job]):
        return (
            f"needs {', '.join(needed)}, and this server offers {', '.join(offered) or 'nothing'}"
            " (MOONMIND_WORKER_CAPABILITIES)"
        )
    return "the policy of this server's role does not admit it"
