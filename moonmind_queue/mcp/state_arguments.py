"""What the tools of mcp-state take, and what an agent is told of them."""

from typing import Annotated, Any

from pydantic import Field

from moonmind_queue.mcp.leases import LONGEST_LEASE, Worker
from moonmind_queue.mcp.tools import Arguments

TaskId = Annotated[
    str,
    Field(
        min_length=1, max_length=500, description="Id of the task.", examples=["smoke:noop-codex"]
    ),
]
LeaseSeconds = Annotated[
    int | None,
    Field(
        ge=1,
        le=LONGEST_LEASE,
        description="How long the task is yours from now on; usually 600.",
        examples=[600],
    ),
]


class ListReadyTasks(Arguments):
    """List tasks that you can claim now, the most urgent first, at most 200.

    Answers [{id, name, state, deps}]. A task that waits for others (its deps) is not listed until
    all of them are DONE.
    """

    agent: str | None = Field(None, description="Only tasks for this agent.", examples=["codex"])


class ClaimTask(Arguments):
    """Take a task for yourself alone, until leaseUntil.

    Answers {task, leaseUntil}; task.payload says what is to be done. Call start_task next, then
    renew_lease well before leaseUntil for as long as you work; end with complete_task, fail_task or
    release_task. LEASE_CONFLICT: somebody holds it. TASK_NOT_READY: it waits, is blocked, or over.
    """

    id: TaskId
    worker: Worker
    lease_seconds: LeaseSeconds = None


class RenewLease(Arguments):
    """Keep a task that you hold for longer: leaseSeconds from now. Answers {leaseUntil}.

    NOT_CLAIMED_BY_WORKER means that it is no longer yours: stop working on it.
    """

    id: TaskId
    worker: Worker
    lease_seconds: LeaseSeconds = None


class StartTask(Arguments):
    """Say that you begin to work on a task that you have claimed. Answers {ok: true}."""

    id: TaskId
    worker: Worker


class GivenEvent(Arguments):
    """An event of Agentmux."""

    type: str = Field(description="TASK_PROGRESS; all others are written for you.")
    task_id: TaskId
    worker_id: Worker
    agent: str | None = Field(None, description="The agent of the task; may be left out.")
    payload: dict[str, Any] = Field(
        {},
        description="What to tell: a message for people, and any further members.",
        examples=[{"message": "tests pass, writing the report", "percent": 80}],
    )
    ts: str | None = Field(None, description="Ignored: the clock of the database decides.")


class AppendEvent(Arguments):
    """Tell how far you are with a task that you hold. Answers {ok: true}."""

    event: GivenEvent = Field(description="What happened.")


class CompleteTask(Arguments):
    """End a task that you hold: it is DONE, and tasks that wait for it become ready.

    Answers {ok: true}.
    """

    id: TaskId
    worker: Worker
    result: dict[str, Any] | None = Field(
        None,
        description="What came out of it, as an object; kept with the task.",
        examples=[{"status": "ok", "note": "report in artifacts/spec:write/report.md"}],
    )


class FailTask(Arguments):
    """Give up a task that you hold because it failed. Answers {ok: true}.

    If retryable it becomes READY again after a while, and FAILED when its attempts are used up;
    otherwise it is BLOCKED until a person acts.
    """

    id: TaskId
    worker: Worker
    reason: str = Field(min_length=1, description="Why it failed, for people to read.")
    retryable: bool = Field(True, description="false: only a person can help.")


class ReleaseTask(Arguments):
    """Hand back a task that you hold, unharmed: it is READY for others. Answers {ok: true}."""

    id: TaskId
    worker: Worker


class SeedFromDag(Arguments):
    """Make the tasks those of a DAG file (YAML), all or nothing.

    Answers {created}: how many are new. Known tasks are updated and keep their state; tasks that
    the file has lost are BLOCKED.
    """

    path: str = Field(
        min_length=1,
        max_length=4096,
        description="The file, below the directory that the server serves.",
        examples=["agentmux/dag.yaml"],
    )


class GetTask(Arguments):
    """Show a task: id, name, agent, state, deps, payload, result, claimedBy, leaseUntil, retries.

    state is READY, CLAIMED, RUNNING, BLOCKED, DONE, FAILED or CANCELLED.
    """

    id: TaskId
