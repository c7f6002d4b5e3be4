"""What ``agentmux status`` shows: how tasks stand, what is stuck, what happened, who lives."""

import re
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from moonmind_queue.agentmux import events
from moonmind_queue.agentmux.heartbeat import instant

if TYPE_CHECKING:
    from moonmind_queue.queue import Queue

EVENTS = 10
STUCK = 50
# The first five as the specification shows them, then the rest of what there is.
STATES = ("READY", "RUNNING", "DONE", "FAILED", "CLAIMED", "BLOCKED", "CANCELLED")

COUNTS = """
select agent, moonmind_queue._task_state(state) as state, sum(jobs)::bigint as tasks
from moonmind_queue.queue_status group by 1, 2 order by 1, 2
"""
REASONS = """
select coalesce(key, id::text) as task, agent, moonmind_queue._task_state(state) as state, reason
from moonmind_queue.blocked_job
where state = 'blocked' or reason ~ 'which is (failed|dead_letter|cancelled|blocked)'
order by state, id
limit %(limit)s
"""
NAMES = """
select job_id, id from moonmind_queue.agentmux_task where job_id = any (%(jobs)s::bigint[])
"""
# Of each worker name the latest start; held is what it is at.
WORKERS = """
select distinct on (agent, worker) agent, worker, host, pid, status, seen_at, id as process,
       stop_requested_at is not null and status <> 'stopped' as stopping,
       (
           select task.id from moonmind_queue.agentmux_task as task
           where task.claimed_by = worker and task.agent = each.agent
           order by task.lease_until desc limit 1
       ) as task,
       (
           select max(task.lease_until) from moonmind_queue.agentmux_task as task
           where task.claimed_by = worker and task.agent = each.agent
       ) as lease_until
from moonmind_queue.worker_overview
cross join lateral unnest(coalesce(agents, '{*}')) as each (agent)  -- * serves any
order by agent, worker, started_at desc
"""


@dataclass(frozen=True)
class Status:
    """One look at everything; ``at`` is the database's clock."""

    at: datetime
    counts: dict[str, dict[str, int]]  # agent → state → tasks
    stuck: list[dict[str, Any]]  # task, agent, state, reason
    events: list[dict[str, Any]]
    workers: list[dict[str, Any]]  # agent, worker, host, pid, status, seen_at, task, …


def look(queue: "Queue", *, stale: timedelta) -> Status:
    """Look at the tasks and the workers; who was not heard of for ``stale`` is stale."""
    [clock] = queue.select("select moonmind_queue._now() as at")
    counts: defaultdict[str, dict[str, int]] = defaultdict(dict)
    for row in queue.select(COUNTS):
        counts[row["agent"]][row["state"]] = row["tasks"]
    return Status(
        clock["at"],
        dict(counts),
        _reasons(queue),
        events.latest(queue, EVENTS),
        workers(queue, stale=stale),
    )


def workers(queue: "Queue", *, stale: timedelta) -> list[dict[str, Any]]:
    """Return every agent's workers: live, stale or stopped, and what they are at."""
    [clock] = queue.select("select moonmind_queue._now() as at")
    rows = queue.select(WORKERS)
    for row in rows:
        if row["status"] != "stopped":
            row["status"] = "stale" if clock["at"] - row["seen_at"] > stale else "live"
    return rows


def markdown(status: Status) -> str:
    """Return the status as ``state/status.md`` has it."""
    parts = [
        "# Agentmux Status (UTC)",
        f"Generated {instant(status.at)}.",
        _table(
            ("Agent", *(state.title() for state in STATES)),
            (
                (agent, *(str(counts.get(state, 0)) for state in STATES))
                for agent, counts in status.counts.items()
            ),
        ),
        "## Blocked tasks",
        "\n".join(
            f"- `{each['task']}` ({each['agent']}, {each['state']}): {_one_line(each['reason'])}"
            for each in status.stuck
        )
        or "None.",
        f"## Last {EVENTS} events",
        "\n".join(f"- {told(event)}" for event in status.events) or "None.",
        "## Heartbeats",
        _table(
            ("Agent", "Worker", "Last seen", "Age", "Status", "Task"),
            (
                (
                    *(each["agent"], each["worker"], instant(each["seen_at"]) or ""),
                    f"{(status.at - each['seen_at']).total_seconds():.0f} s",
                    *(each["status"], each["task"] or ""),
                )
                for each in status.workers
            ),
        ),
    ]
    return "\n\n".join(parts) + "\n"


def told(event: Mapping[str, Any]) -> str:
    """Return an event in a line for people."""
    worker = f" {event['worker_id']}" if event["worker_id"] else ""
    message = event["payload"].get("message", "")
    words = f": {_one_line(message)}" if message else ""
    return f"{instant(event['ts'])} {event['type']} {event['task_id']}{worker}{words}"


def _reasons(queue: "Queue") -> list[dict[str, Any]]:
    """Return what is stuck; reasons name tasks instead of jobs."""
    rows = queue.select(REASONS, limit=STUCK)
    jobs = {int(job) for row in rows for job in re.findall(r"\bjob (\d+)", row["reason"])}
    names = {row["job_id"]: row["id"] for row in queue.select(NAMES, jobs=sorted(jobs))}

    def named(job: "re.Match[str]") -> str:
        return str(names.get(int(job[1]), job[0]))

    for row in rows:
        row["reason"] = re.sub(r"\bjob (\d+)", named, row["reason"])
    return rows


def _table(head: tuple[str, ...], rows: Iterator[tuple[str, ...]]) -> str:
    lines = [head, ("---",) * len(head), *rows]
    return "\n".join(f"| {' | '.join(map(_cell, line))} |" for line in lines)


def _cell(words: str) -> str:
    return _one_line(words).replace("|", "\\|")


def _one_line(words: str) -> str:
    return " ".join(words.split())
