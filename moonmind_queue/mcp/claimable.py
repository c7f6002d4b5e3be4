"""Which tasks can be claimed through a server, and why one cannot.

The claim itself decides. What it decides by is asked here without taking anything: a list in
which the first tasks are not to be had would keep an agent from all that come after.
"""

from collections.abc import Sequence
from typing import Any

from moonmind_queue.queue import Queue

MOST = 200  # tasks of a list

# Whether the login's policy admits a job: asked of the function that a claim asks.
_LOGIN = """
login as materialized (
    select agents, job_kinds as kinds, repositories, capabilities
    from moonmind_queue.role_overview
    where role = session_user and has_policy
)
"""
_ADMITTED = """
not exists (select from login)
or moonmind_queue._permits(
    jsonb_populate_record(null::moonmind_queue.policy, to_jsonb(login)),
    jsonb_populate_record(
        null::moonmind_queue.lane,
        jsonb_build_object(
            'agent', job.agent, 'kind', job.kind, 'capabilities', job.capabilities,
            'repository', coalesce(job.repository, '')
        )
    )
)
"""
# The view queued_job knows what holds a job back, but walks all jobs for it; what is held back by
# pauses and limits are few names. That most jobs ask for no capability is said for the planner,
# which would otherwise read all jobs once for each lane.
_READY = f"""
with {_LOGIN},
held as materialized (
    select bound.scope, bound.name, count(*) as running
    from moonmind_queue.job_overview as job
    cross join lateral (
        values ('agent', job.agent), ('kind', job.kind), ('concurrency_key', job.concurrency_key)
    ) as bound (scope, name)
    where job.lease_expires_at is not null
    group by bound.scope, bound.name
),
full_up as materialized (
    select held.scope, held.name
    from held
    cross join lateral (
        select bound.max_running
        from moonmind_queue.limit_overview as bound
        where bound.scope = held.scope and bound.name in (held.name, '*')
        order by bound.name = '*'
        limit 1
    ) as applied
    where held.running >= applied.max_running
    union all
    select scope, name from moonmind_queue.limit_overview where max_running = 0
)
select task.id, task.name, task.state, task.deps
from moonmind_queue.job_overview as job
join moonmind_queue.agentmux_task as task on task.job_id = job.id
left join login on true
where job.state = 'queued' and job.run_at <= moonmind_queue._now()
  and (job.expires_at is null or job.expires_at > moonmind_queue._now())
  and (%(agent)s::text is null or job.agent = %(agent)s)
  and (job.capabilities = '{{}}' or job.capabilities <@ %(offered)s::text[])
  and not exists (
      select from moonmind_queue.paused_agent as paused where paused.agent in (job.agent, '*')
  )
  and not exists (
      select from full_up
      where (full_up.scope, full_up.name) in (
          ('agent', job.agent), ('kind', job.kind), ('concurrency_key', job.concurrency_key)
      )
  )
  and (login.agents is null or job.agent = any (login.agents))
  and ({_ADMITTED})
order by moonmind_queue._rank(job.priority, job.run_at), job.id
limit %(limit)s
"""  # noqa: S608 - of our own pieces
# That no worker process would run a job is no reason for an agent, which is none.
_WHY = f"""
with {_LOGIN}
select task.state, task.claimed_by, task.lease_until, job.capabilities, ({_ADMITTED}) as admitted,
       coalesce(blocked.reason, case
           when queued.reason not in (select reason from moonmind_queue.unserved_lane)
           then queued.reason
       end) as reason
from moonmind_queue.job_overview as job
join moonmind_queue.agentmux_task as task on task.job_id = job.id
left join moonmind_queue.blocked_job as blocked on blocked.id = job.id
left join moonmind_queue.queued_job as queued on queued.id = job.id
left join login on true
where job.id = %(job)s
"""  # noqa: S608 - of our own pieces


def ready(queue: Queue, agent: str | None, offered: Sequence[str]) -> list[dict[str, Any]]:
    """Return ``id``, ``name``, ``state`` and ``deps`` of tasks to claim, the most urgent first.

    ``offered`` are the capabilities of whoever would claim them.
    """
    return queue.select(_READY, agent=agent, offered=_tidy(offered), limit=MOST)


def why_not(queue: Queue, job: int, offered: Sequence[str]) -> dict[str, Any]:
    """Return ``state``, ``claimed_by`` and ``lease_until`` of a task, and a ``reason`` or None."""
    [row] = queue.select(_WHY, job=job)
    if row["state"] == "READY" and not row["reason"]:
        row["reason"] = _here(row, _tidy(offered))
    return row


def _here(row: dict[str, Any], offered: list[str]) -> str:
    """Say what stands between this server and a task that others could claim."""
    if missing := [each for each in row["capabilities"] if each not in offered]:
        wanted = ", ".join(missing)
        return f"needs {wanted}, which this server does not offer (MOONMIND_WORKER_CAPABILITIES)"
    if not row["admitted"]:
        return "the policy of this server's role does not admit it"
    return "somebody else was quicker; ask again"


def _tidy(names: Sequence[str]) -> list[str]:
    """Return capabilities in the form in which the database has them."""
    return [name.strip().lower() for name in names]
