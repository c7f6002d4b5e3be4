"""The tools of mcp-state: list, claim and finish tasks of Agentmux, and seed a DAG."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

from moonmind_queue._dags import DAG
from moonmind_queue.agentmux import control, dag, tasks
from moonmind_queue.agentmux.folder import Folder
from moonmind_queue.agentmux.heartbeat import instant
from moonmind_queue.agentmux.vocabulary import ErrorCode, TaskEvent
from moonmind_queue.errors import InvalidArgument, JobNotFound, LeaseLost
from moonmind_queue.mcp import claimable
from moonmind_queue.mcp import state_arguments as asking
from moonmind_queue.mcp.files import about, relative
from moonmind_queue.mcp.leases import Lend, held, take_back
from moonmind_queue.mcp.tools import Refused, Tool
from moonmind_queue.model import ClaimedJob
from moonmind_queue.queue import Queue

OK = {"ok": True}

# A history can be believed because whatever moves a task writes its event itself.
WRITTEN_BY = {
    TaskEvent.CREATED: "seed_from_dag writes it",
    TaskEvent.READY: "the queue writes it",
    TaskEvent.CLAIMED: "claim_task writes it",
    TaskEvent.STARTED: "start_task writes it",
    TaskEvent.COMPLETED: "complete_task writes it",
    TaskEvent.FAILED: "fail_task writes it",
    TaskEvent.RELEASED: "release_task writes it",
    "HEARTBEAT": "renew_lease is the sign of life here",
}


class State:
    """Tasks, over a connection of its own for each call.

    ``home`` is where DAG files are; ``lease`` is how long a task is held when nobody says so;
    ``capabilities`` are what the workers offer that claim here.
    """

    def __init__(
        self, lend: Lend, home: Path, *, lease: timedelta, capabilities: Sequence[str]
    ) -> None:
        self._lend, self._home = lend, home
        self._lease, self._capabilities = lease, capabilities

    def tools(self) -> list[Tool]:
        """Return the ten tools, in the order of a task's life."""
        return [
            Tool("list_ready_tasks", asking.ListReadyTasks, self.list_ready_tasks, reads=True),
            Tool("claim_task", asking.ClaimTask, self.claim_task),
            Tool("renew_lease", asking.RenewLease, self.renew_lease, again=True),
            Tool("start_task", asking.StartTask, self.start_task, again=True),
            Tool("append_event", asking.AppendEvent, self.append_event),
            Tool("complete_task", asking.CompleteTask, self.complete_task),
            Tool("fail_task", asking.FailTask, self.fail_task),
            Tool("release_task", asking.ReleaseTask, self.release_task),
            Tool(
                "seed_from_dag", asking.SeedFromDag, self.seed_from_dag, again=True, destroys=True
            ),
            Tool("get_task", asking.GetTask, self.get_task, reads=True),
        ]

    def list_ready_tasks(self, asked: asking.ListReadyTasks) -> list[dict[str, Any]]:
        """Return what can be claimed."""
        with self._lend() as queue:
            take_back(queue)
            return claimable.ready(queue, asked.agent, self._capabilities)

    def claim_task(self, asked: asking.ClaimTask) -> dict[str, Any]:
        """Lease a task, or say why it is not to be had."""
        with self._lend() as queue:
            job = _find(queue, asked.id)
            take_back(queue)
            claimed = queue.claim(
                asked.worker,
                job_ids=[job],
                lease=self._length(asked.lease_seconds),
                capabilities=self._capabilities,
            )
            if not claimed:
                raise _not_to_be_had(asked, claimable.why_not(queue, job, self._capabilities))
            task = _shown(queue, job)
        return {"task": _task(task), "leaseUntil": instant(claimed[0].expires_at)}

    def renew_lease(self, asked: asking.RenewLease) -> dict[str, Any]:
        """Hold a task for longer."""
        with self._holding(asked.id, asked.worker) as (queue, job):
            renewed = queue.renew([job], self._length(asked.lease_seconds))
            if not renewed:
                raise LeaseLost
        return {"leaseUntil": instant(renewed[0].expires_at)}

    def start_task(self, asked: asking.StartTask) -> dict[str, Any]:
        """Begin."""
        with self._holding(asked.id, asked.worker) as (queue, job):
            queue.start(job)
        return OK

    def append_event(self, asked: asking.AppendEvent) -> dict[str, Any]:
        """Add progress to a task's history."""
        event = asked.event
        if event.type != TaskEvent.PROGRESS:
            why = WRITTEN_BY.get(event.type, "there is no such event")
            raise InvalidArgument(f"append TASK_PROGRESS, not {event.type[:100]!r}: {why}")
        data = dict(event.payload)
        message = data.pop("message") if isinstance(data.get("message"), str) else ""
        with self._holding(event.task_id, event.worker_id) as (queue, job):
            if event.agent not in (None, job.agent):
                raise InvalidArgument(f"the task is for agent {job.agent}, not {event.agent[:100]}")
            queue.append_event(job, "progress", message, data=data or None)
        return OK

    def complete_task(self, asked: asking.CompleteTask) -> dict[str, Any]:
        """End a task well."""
        with self._holding(asked.id, asked.worker) as (queue, job):
            queue.complete(job, asked.result)
        return OK

    def fail_task(self, asked: asking.FailTask) -> dict[str, Any]:
        """End an attempt badly: another one follows, or a person has to act."""
        with self._holding(asked.id, asked.worker) as (queue, job):
            queue.fail(job, asked.reason, outcome="retry" if asked.retryable else "block")
        return OK

    def release_task(self, asked: asking.ReleaseTask) -> dict[str, Any]:
        """Hand a task back."""
        with self._holding(asked.id, asked.worker) as (queue, job):
            queue.release(job)
        return OK

    def seed_from_dag(self, asked: asking.SeedFromDag) -> dict[str, Any]:
        """Seed a file that is below home, links not followed."""
        path = relative(asked.path, self._home)
        with about(path):
            graph = dag.parse(Folder(self._home).read(path, dag.LARGEST), path)
        with self._lend() as queue:
            seeded = control.seed(queue, graph, DAG)
        return {"created": sum(each.outcome == "created" for each in seeded)}

    def get_task(self, asked: asking.GetTask) -> dict[str, Any]:
        """Return a task."""
        with self._lend() as queue:
            return _task(_shown(queue, _find(queue, asked.id)))

    def _length(self, seconds: int | None) -> timedelta:
        return self._lease if seconds is None else timedelta(seconds=seconds)

    @contextmanager
    def _holding(self, task: str, worker: str) -> Iterator[tuple[Queue, ClaimedJob]]:
        """Lend a task that the worker holds; raises ``JobNotFound`` and ``LeaseLost``."""
        with self._lend() as queue:
            job = _find(queue, task)
            with held(queue, job, worker, f"task {task!r}") as mine:
                yield queue, mine


def _find(queue: Queue, task: str) -> int:
    """Return the job of a task; raises ``JobNotFound`` with a way out that agents have."""
    try:
        return tasks.find(queue, task)
    except JobNotFound:
        raise JobNotFound(
            f"there is no task {task!r}; list_ready_tasks shows those that can be claimed"
        ) from None


def _shown(queue: Queue, job: int) -> dict[str, Any]:
    [row] = queue.select(tasks.TASK, job=job)
    return row


def _not_to_be_had(asked: asking.ClaimTask, found: Mapping[str, Any]) -> Refused:
    """Say why a task could not be claimed."""
    if holder := found["claimed_by"]:
        until = instant(found["lease_until"])
        whose = "you: renew_lease keeps it" if holder == asked.worker else f"worker {holder!r}"
        return Refused(
            ErrorCode.LEASE_CONFLICT, f"task {asked.id!r} is held until {until} by {whose}"
        )
    words = f": {found['reason']}" if found["reason"] else ""
    return Refused(ErrorCode.TASK_NOT_READY, f"task {asked.id!r} is {found['state']}{words}")


def _task(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return a row of ``agentmux_task`` as JSON has it."""
    names = ("id", "name", "agent", "state", "deps", "payload", "result")
    return {name: row[name] for name in names} | {
        "claimedBy": row["claimed_by"],
        "leaseUntil": instant(row["lease_until"]),
        "retries": row["retries"],
        "createdAt": instant(row["created_at"]),
        "updatedAt": instant(row["updated_at"]),
    }
