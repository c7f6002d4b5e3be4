"""What the tools of the queue take, and what an agent is told of them."""

from datetime import timedelta
from typing import Annotated, Any, Literal

from pydantic import AliasChoices, AwareDatetime, Field, WithJsonSchema

from moonmind_queue.mcp.leases import LONGEST_LEASE, Worker
from moonmind_queue.mcp.tools import Arguments
from moonmind_queue.model import JobState

LARGEST_ID = 2**53 - 1  # up to here every reader of JSON can count
LARGEST_INTEGER = 2**31 - 1
A_YEAR = timedelta(days=365).total_seconds()

JobId = Annotated[
    int, Field(ge=1, le=LARGEST_ID, description="Id of the job, a number.", examples=[7])
]
LeaseSeconds = Annotated[
    int | None,
    Field(
        ge=1,
        le=LONGEST_LEASE,
        description="How long the job is yours from now on; usually 120.",
        examples=[600],
    ),
]


class _Job(Arguments):
    """What can be said of a job whenever it is to run."""

    kind: str = Field(
        validation_alias=AliasChoices("kind", "type"),
        min_length=1,
        max_length=200,
        description="What is to be done: codex_exec, shell, mcp-call, noop, or another kind.",
        examples=["codex_exec"],
    )
    payload: dict[str, Any] = Field(
        {},
        description="What the kind needs to know, an object; checked before the job is added.",
        examples=[{"repository": "acme/site", "instruction": "The tests fail. Mend the code."}],
    )
    agent: str = Field(
        "codex", min_length=1, max_length=200, description="Who is to do it: workers serve agents."
    )
    name: str | None = Field(None, max_length=500, description="What people call the job.")
    key: str | None = Field(
        None,
        min_length=1,
        max_length=500,
        description="Add it at most once: a second job with the key is the first.",
        examples=["nightly-2026-11-22"],
    )
    priority: int = Field(
        0, ge=-LARGEST_INTEGER, le=LARGEST_INTEGER, description="Higher runs first."
    )
    run_at: AwareDatetime | None = Field(
        None, description="Not before this time.", examples=["2026-11-22T08:00:00Z"]
    )
    max_attempts: int = Field(
        3, ge=1, le=LARGEST_INTEGER, description="After so many failed attempts it is given up."
    )
    capabilities: list[str] = Field(
        [], description="What its worker must offer.", examples=[["gpu"]]
    )
    timeout_seconds: float | None = Field(
        None, gt=0, le=A_YEAR, description="How long one attempt may take."
    )
    expires_at: AwareDatetime | None = Field(
        None, description="Cancel it at this time unless it has begun."
    )
    concurrency_key: str | None = Field(
        None,
        min_length=1,
        max_length=500,
        description="What limits may count: an account, a repository.",
    )


class FollowUp(_Job):
    """A job that another one lists; a chain is nested."""

    on_success: "FollowUps" = Field([])
    on_failure: "FollowUps" = Field([])


# In the schema a follow-up is just an object: written out, it would say all of this twice more.
FollowUps = Annotated[
    list[FollowUp], WithJsonSchema({"type": "array", "items": {"type": "object"}})
]


class Enqueue(_Job):
    """Add a job to the queue; a worker will run it. Answers the job, with its id.

    kind "codex_exec" lets a coding agent work on a git repository: payload {"repository":
    "owner/repo", "instruction": "what to do", "ref"?: "branch, tag or commit", "publish"?: {"mode":
    "none" | "branch" | "pr"}}. "shell" runs a program that its worker allows: {"cmd": ["make",
    "test"]}. "mcp-call" calls a tool of a server that its worker knows: {"server": "time", "tool":
    "get_current_time", "arguments": {"timezone": "UTC"}}. "noop" waits: {"seconds": 1}. Other kinds
    may be installed; an unknown one is refused with the list. With queue.get you see how it goes.
    """

    after: list[JobId] = Field([], description="Ids of jobs that have to succeed first.")
    on_dependency_failure: Literal["wait", "cancel", "run"] = Field(
        "wait", description="What becomes of it when a job of after ends without success."
    )
    on_success: FollowUps = Field(
        [],
        description="Jobs to add once this one has succeeded: objects with the parameters of this"
        " tool except after and onDependencyFailure. A chain is nested; five levels, 100 jobs.",
        examples=[[{"kind": "codex_exec", "payload": {"repository": "acme/site",
                    "instruction": "Review the last commit."}}]],
    )  # fmt: skip
    on_failure: FollowUps = Field(
        [],
        description="Jobs to add once this one has failed for good, like onSuccess.",
        examples=[[{"kind": "noop", "name": "tell Ada", "agent": "mail"}]],
    )


class Claim(Arguments):
    """Take the most urgent job that you can do, for yourself alone, until its lease ends.

    Answers {job}, or {job: null} when there is none. It runs from then on: do what job.payload
    says, call queue.heartbeat well before job.lease_expires_at, and end with queue.complete or
    queue.fail.
    """

    worker: Worker
    kinds: list[str] = Field(
        [],
        description="Only jobs of these kinds; name those that you can do.",
        examples=[["review"]],
    )
    agents: list[str] = Field([], description="Only jobs for these agents.", examples=[["codex"]])
    capabilities: list[str] = Field([], description="What you offer to jobs that ask for it.")
    lease_seconds: LeaseSeconds = None


class Heartbeat(Arguments):
    """Keep a job that you hold for longer: leaseSeconds from now. Answers the job.

    If its cancel_requested is true, stop and end it with queue.fail. job_ownership_mismatch means
    that it is no longer yours: stop working on it.
    """

    job_id: JobId
    worker: Worker
    lease_seconds: LeaseSeconds = None


class Complete(Arguments):
    """End a job that you hold: it has succeeded, and jobs that wait for it may run.

    Answers the job.
    """

    job_id: JobId
    worker: Worker
    result: dict[str, Any] | None = Field(
        None,
        description="What came out of it, as an object; kept with the job.",
        examples=[{"summary": "2 files changed"}],
    )


class Fail(Arguments):
    """End your attempt at a job that you hold, because it failed. Answers the job."""

    job_id: JobId
    worker: Worker
    error: str = Field(min_length=1, description="Why it failed, for people to read.")
    outcome: Literal["retry", "block", "fail"] = Field(
        "retry",
        description="retry: try again later, until its attempts are used up. block: only a person"
        " can help. fail: it is over.",
    )
    retry_in_seconds: float | None = Field(
        None, ge=0, le=A_YEAR, description="When to try again; without it, after a growing rest."
    )


class Get(Arguments):
    """Show a job: what was asked for (payload), its state, and what came out of it (result, error).

    state is waiting (for other jobs), queued, claimed, running, blocked (until a person acts), or
    final: succeeded, failed, dead_letter (attempts used up), cancelled.
    """

    job_id: JobId


class List(Arguments):
    """List jobs, newest first, without payload and result. Answers {jobs}.

    For more, call again with before: the id of the last job.
    """

    states: list[JobState] = Field(
        [], description="Only jobs in these states.", examples=[["queued", "running"]]
    )
    agent: str | None = Field(None, description="Only jobs for this agent.")
    kind: str | None = Field(
        None, validation_alias=AliasChoices("kind", "type"), description="Only jobs of this kind."
    )
    before: JobId | None = Field(None, description="Only jobs with a smaller id.")
    limit: int = Field(50, ge=1, le=200, description="How many at most.")


class Events(Arguments):
    """Tell what happened to a job, in order: each event has seq, type, message, worker, at, data.

    Answers {events}. To follow, call again with after: the seq of the last event.
    """

    job_id: JobId
    after: int = Field(0, ge=0, le=LARGEST_INTEGER, description="Only events with a larger seq.")
    limit: int = Field(100, ge=1, le=1000, description="How many at most.")


class Cancel(Arguments):
    """Cancel a job; one that somebody holds is asked to stop (cancel_requested).

    Answers the job.
    """

    job_id: JobId
    reason: str | None = Field(None, description="Why, kept with the job and its history.")


class UploadArtifact(Arguments):
    """Store a file with a job that you hold. Answers {id, name, size_bytes, sha256, ...}.

    The same name with the same bytes changes nothing; with other bytes it is refused.
    """

    job_id: JobId
    worker: Worker
    name: str = Field(
        min_length=1,
        max_length=512,
        description="A relative path.",
        examples=["reports/summary.md"],
    )
    content_base64: str = Field(description="What is in it, in base64.", examples=["aGVsbG8K"])
    content_type: str = Field(
        "application/octet-stream",
        max_length=200,
        examples=["text/markdown"],
        description="Its type.",
    )
    digest: str | None = Field(
        None,
        pattern="^sha256:[0-9a-fA-F]{64}$",
        description="Its SHA-256, which is compared, such as sha256:5891b5….",
    )
