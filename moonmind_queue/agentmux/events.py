"""Events as lines of JSON, as Agentmux keeps them in ``state/events.jsonl``."""

import json
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

from moonmind_queue.agentmux.heartbeat import instant
from moonmind_queue.agentmux.vocabulary import TaskEvent

if TYPE_CHECKING:
    from moonmind_queue.model import JobEvent
    from moonmind_queue.queue import Queue

PAGE = 1000
OLDER = """
select * from moonmind_queue.agentmux_event
where pos > %(after)s order by pos limit %(limit)s
"""
LATEST = """
select * from (
    select * from moonmind_queue.agentmux_event order by pos desc limit %(number)s
) as latest
order by pos
"""
THESE = """
select event.*
from moonmind_queue.agentmux_event as event
join unnest(%(jobs)s::bigint[], %(seqs)s::integer[]) as wanted (job, number)
    on job_id = job and seq = number
order by pos
"""
# Events that no worker brings about; the database knows the role that did.
BY_OTHERS = {
    *("created", "ready", "retried", "waiting", "updated", "removed", "scheduled"),
    *("unlocked", "expired", "timed_out", "cancel_requested", "cancelled", "repaired"),
}


def latest(queue: "Queue", number: int) -> list[dict[str, Any]]:
    """Return the latest events of all tasks, the last one last."""
    return queue.select(LATEST, number=number)


def all_of_them(queue: "Queue") -> Iterator[dict[str, Any]]:
    """Yield every event that is kept, in order."""
    after = -1
    while page := queue.select(OLDER, after=after, limit=PAGE):
        yield from page
        after = page[-1]["pos"]


def translated(queue: "Queue", events: Sequence["JobEvent"]) -> list[dict[str, Any]]:
    """Return events of jobs in the words of Agentmux."""
    return queue.select(
        THESE, jobs=[each.job_id for each in events], seqs=[each.seq for each in events]
    )


def record(event: Mapping[str, Any]) -> dict[str, Any]:
    """Return an event as the object of its line.

    First ``ts``, ``agent``, ``workerId`` where a worker did it, ``type`` and ``taskId``; then
    ``leaseUntil`` of a claim, ``result`` of a completion, and ``payload`` of all others. ``event``
    is our own word where Agentmux has none.
    """
    payload = dict(event["payload"])
    line: dict[str, Any] = {"ts": instant(event["ts"]), "agent": event["agent"]}
    if event["worker_id"] and event["event"] not in BY_OTHERS:
        line["workerId"] = event["worker_id"]
    line |= {"type": event["type"], "taskId": event["task_id"]}
    if event["type"] == TaskEvent.CLAIMED:
        until = payload.pop("lease_until", None)
        line["leaseUntil"] = instant(datetime.fromisoformat(until)) if until else None
    if event["type"] == TaskEvent.COMPLETED:
        line["result"] = {**payload, "workerId": event["worker_id"], "completedAt": line["ts"]}
    elif payload:
        line["payload"] = payload
    if event["type"] != f"TASK_{event['event'].upper()}":
        line["event"] = event["event"]
    return line


def line(event: Mapping[str, Any]) -> str:
    """Return an event as one line of JSON, without the newline."""
    return json.dumps(record(event), ensure_ascii=False)
