"""The views of ``sql/views.sql`` as mapped classes: one for each, and an attribute for each column.

They are read; a flush that would write one is refused. ``moonmind_queue.orm`` is where they are
found.
"""

from datetime import datetime, timedelta
from typing import Annotated, Any, ClassVar

from sqlalchemy import (
    ARRAY,
    BigInteger,
    Integer,
    Interval,
    MetaData,
    Text,
    event,
)
from sqlalchemy.dialects.postgresql import BYTEA, DOUBLE_PRECISION, JSONB, TIMESTAMP
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from moonmind_queue import errors
from moonmind_queue._calls import SCHEMA

BigInt = Annotated[int, 64]  # bits


class View(DeclarativeBase):
    """A row of a view of the queue: to be read, never written.

    The metadata is the queue's own, so that your migrations do not see these classes.
    """

    metadata = MetaData(schema=SCHEMA)
    type_annotation_map: ClassVar[dict[Any, Any]] = {
        str: Text,
        int: Integer,
        BigInt: BigInteger,
        bytes: BYTEA,
        float: DOUBLE_PRECISION,
        datetime: TIMESTAMP(timezone=True),
        timedelta: Interval,
        list[str]: ARRAY(Text),
        list[BigInt]: ARRAY(BigInteger),
        dict[str, Any]: JSONB,
    }


@event.listens_for(View, "before_insert", propagate=True)
@event.listens_for(View, "before_update", propagate=True)
@event.listens_for(View, "before_delete", propagate=True)
def _refuse(_mapper: Any, _connection: Any, target: View) -> None:
    raise errors.NotAllowed(
        f"{type(target).__name__} is a row of the view {target.__tablename__}, which is only read;"
        " add jobs with SessionQueue, change them with the methods of Queue"
    )


class JobOverview(View):
    """Every job with its lease and its dependencies."""

    __tablename__ = "job_overview"

    id: Mapped[BigInt] = mapped_column(primary_key=True)
    key: Mapped[str | None]
    name: Mapped[str | None]
    agent: Mapped[str]
    kind: Mapped[str]
    state: Mapped[str]
    priority: Mapped[int]
    run_at: Mapped[datetime]
    attempt: Mapped[int]
    max_attempts: Mapped[int]
    payload: Mapped[dict[str, Any]]
    result: Mapped[dict[str, Any] | None]
    error: Mapped[str | None]
    created_at: Mapped[datetime]
    updated_at: Mapped[datetime]
    started_at: Mapped[datetime | None]
    finished_at: Mapped[datetime | None]
    capabilities: Mapped[list[str]]
    worker: Mapped[str | None]
    lease_expires_at: Mapped[datetime | None]
    cancel_requested: Mapped[bool]
    after: Mapped[list[BigInt]]
    timeout: Mapped[timedelta | None]
    expires_at: Mapped[datetime | None]
    on_dependency_failure: Mapped[str]
    concurrency_key: Mapped[str | None]
    repository: Mapped[str | None]
    deadline_at: Mapped[datetime | None]


class JobDocument(View):
    """Every job as one JSON object: whole, and without payload and result for lists."""

    __tablename__ = "job_document"

    id: Mapped[BigInt] = mapped_column(primary_key=True)
    document: Mapped[dict[str, Any]]
    summary: Mapped[dict[str, Any]]


class JobLog(View):
    """What jobs print, piece by piece."""

    __tablename__ = "job_log"

    job_id: Mapped[BigInt] = mapped_column(primary_key=True)
    pos: Mapped[BigInt] = mapped_column(primary_key=True)
    at: Mapped[datetime]
    attempt: Mapped[int]
    stage: Mapped[str]
    stream: Mapped[str]
    content: Mapped[str]


class JobHistory(View):
    """What happened, event by event."""

    __tablename__ = "job_history"

    job_id: Mapped[BigInt] = mapped_column(primary_key=True)
    seq: Mapped[int] = mapped_column(primary_key=True)
    at: Mapped[datetime]
    type: Mapped[str]
    level: Mapped[str]
    message: Mapped[str]
    worker: Mapped[str | None]
    data: Mapped[dict[str, Any] | None]
    agent: Mapped[str]
    kind: Mapped[str]
    name: Mapped[str | None]
    key: Mapped[str | None]
    pos: Mapped[BigInt]


class JobArtifact(View):
    """A file that a job left behind, complete."""

    __tablename__ = "job_artifact"

    id: Mapped[BigInt] = mapped_column(primary_key=True)
    job_id: Mapped[BigInt]
    attempt: Mapped[int]
    name: Mapped[str]
    content_type: Mapped[str]
    size_bytes: Mapped[BigInt]
    sha256: Mapped[str]
    created_at: Mapped[datetime]
    run: Mapped[str]


class ArtifactContent(View):
    """A piece of an artifact's bytes."""

    __tablename__ = "artifact_content"

    artifact_id: Mapped[BigInt] = mapped_column(primary_key=True)
    start_byte: Mapped[BigInt] = mapped_column(primary_key=True)
    content: Mapped[bytes]


class WorkerOverview(View):
    """A start of a worker process: live, stale or stopped."""

    __tablename__ = "worker_overview"

    id: Mapped[BigInt] = mapped_column(primary_key=True)
    worker: Mapped[str]
    status: Mapped[str]
    host: Mapped[str]
    pid: Mapped[int]
    version: Mapped[str]
    agents: Mapped[list[str] | None]
    kinds: Mapped[list[str] | None]
    capabilities: Mapped[list[str]]
    slots: Mapped[int]
    leases: Mapped[BigInt]
    started_at: Mapped[datetime]
    seen_at: Mapped[datetime]
    stopped_at: Mapped[datetime | None]
    versions: Mapped[dict[str, Any]]
    role: Mapped[str]
    stop_requested_at: Mapped[datetime | None]


class QueueStatus(View):
    """How many jobs an agent has in a state, and how long the oldest has been ready."""

    __tablename__ = "queue_status"

    agent: Mapped[str] = mapped_column(primary_key=True)
    state: Mapped[str] = mapped_column(primary_key=True)
    jobs: Mapped[BigInt]
    oldest_run_at: Mapped[datetime | None]
    longest_wait: Mapped[timedelta | None]


class BlockedJob(View):
    """A job that waits for others or for a person, and why."""

    __tablename__ = "blocked_job"

    id: Mapped[BigInt] = mapped_column(primary_key=True)
    key: Mapped[str | None]
    name: Mapped[str | None]
    agent: Mapped[str]
    kind: Mapped[str]
    state: Mapped[str]
    unmet: Mapped[int]
    reason: Mapped[str]


class PausedAgent(View):
    """An agent (``*``: all) whose jobs are not claimed now, and why."""

    __tablename__ = "paused_agent"

    agent: Mapped[str] = mapped_column(primary_key=True)
    cause: Mapped[str] = mapped_column(primary_key=True)
    reason: Mapped[str]
    until: Mapped[datetime | None]
    paused_at: Mapped[datetime]
    paused_by: Mapped[str]


class LimitOverview(View):
    """How many jobs of an agent, kind or key may be leased at once, and how many are."""

    __tablename__ = "limit_overview"

    scope: Mapped[str] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(primary_key=True)
    max_running: Mapped[int]
    running: Mapped[BigInt | None]


class UnservedLane(View):
    """Jobs that are due and that no live worker can run, and why."""

    __tablename__ = "unserved_lane"

    agent: Mapped[str]
    kind: Mapped[str]
    capabilities: Mapped[list[str]]
    repository: Mapped[str | None]
    jobs: Mapped[BigInt]
    oldest_job_id: Mapped[BigInt]
    reason: Mapped[str]
    lane_id: Mapped[int] = mapped_column(primary_key=True)


class QueueFault(View):
    """A contradiction between rows, which only a hand on the tables can make."""

    __tablename__ = "queue_fault"

    job_id: Mapped[BigInt] = mapped_column(primary_key=True)
    fault: Mapped[str] = mapped_column(primary_key=True)


class ScheduleOverview(View):
    """A schedule: when it comes next, and its latest job."""

    __tablename__ = "schedule_overview"

    name: Mapped[str] = mapped_column(primary_key=True)
    cron: Mapped[str]
    timezone: Mapped[str]
    catch_up: Mapped[str]
    paused: Mapped[bool]
    next_at: Mapped[datetime | None]
    last_at: Mapped[datetime | None]
    last_job_id: Mapped[BigInt | None]
    job: Mapped[dict[str, Any]]
    error: Mapped[str | None]
    retry_at: Mapped[datetime | None]
    created_at: Mapped[datetime]
    updated_at: Mapped[datetime]


class QueuedJob(View):
    """A queued job, and why it does not run yet; without a reason it waits for its turn."""

    __tablename__ = "queued_job"

    id: Mapped[BigInt] = mapped_column(primary_key=True)
    key: Mapped[str | None]
    name: Mapped[str | None]
    agent: Mapped[str]
    kind: Mapped[str]
    run_at: Mapped[datetime]
    reason: Mapped[str | None]


class KindRule(View):
    """How long an attempt of a kind may take, and how long it rests after a failure."""

    __tablename__ = "kind_rule"

    kind: Mapped[str] = mapped_column(primary_key=True)
    timeout: Mapped[timedelta | None]
    backoff_base: Mapped[timedelta | None]
    backoff_cap: Mapped[timedelta | None]
    backoff_jitter: Mapped[float | None]


class RoleOverview(View):
    """A role that may use the queue, its policy and its connections."""

    __tablename__ = "role_overview"

    role: Mapped[str] = mapped_column(primary_key=True)
    kinds: Mapped[list[str]]
    can_log_in: Mapped[bool]
    has_policy: Mapped[bool]
    agents: Mapped[list[str] | None]
    job_kinds: Mapped[list[str] | None]
    repositories: Mapped[list[str] | None]
    capabilities: Mapped[list[str] | None]
    workers: Mapped[list[str] | None]
    content_types: Mapped[list[str] | None]
    artifact_max_bytes: Mapped[BigInt | None]
    connections: Mapped[BigInt]
    made_here: Mapped[bool]


class AgentmuxTask(View):
    """A job as a task of Agentmux."""

    __tablename__ = "agentmux_task"

    id: Mapped[str]
    name: Mapped[str | None]
    agent: Mapped[str]
    state: Mapped[str]
    deps: Mapped[list[str]] = mapped_column(JSONB)
    payload: Mapped[dict[str, Any]]
    result: Mapped[dict[str, Any] | None]
    claimed_by: Mapped[str | None]
    lease_until: Mapped[datetime | None]
    retries: Mapped[int]
    created_at: Mapped[datetime]
    updated_at: Mapped[datetime]
    job_id: Mapped[BigInt] = mapped_column(primary_key=True)


class AgentmuxEvent(View):
    """An event in the words of Agentmux."""

    __tablename__ = "agentmux_event"

    ts: Mapped[datetime]
    agent: Mapped[str]
    worker_id: Mapped[str | None]
    type: Mapped[str]
    event: Mapped[str]
    task_id: Mapped[str]
    job_id: Mapped[BigInt] = mapped_column(primary_key=True)
    seq: Mapped[int] = mapped_column(primary_key=True)
    payload: Mapped[dict[str, Any]]
    pos: Mapped[BigInt]


class AgentmuxDag(View):
    """A DAG that was seeded, with its epoch and how many tasks it has."""

    __tablename__ = "agentmux_dag"

    name: Mapped[str] = mapped_column(primary_key=True)
    source: Mapped[str]
    epoch: Mapped[int]
    seeded_at: Mapped[datetime]
    reset_at: Mapped[datetime | None]
    tasks: Mapped[BigInt]
    gone: Mapped[BigInt]


class AgentmuxMember(View):
    """That a job is a task of a DAG."""

    __tablename__ = "agentmux_member"

    dag: Mapped[str]
    job_id: Mapped[BigInt] = mapped_column(primary_key=True)
    gone: Mapped[bool]


class JobPublication(View):
    """What a job did outside of the database, or began to do."""

    __tablename__ = "job_publication"

    job_id: Mapped[BigInt] = mapped_column(primary_key=True)
    step: Mapped[str] = mapped_column(primary_key=True)
    content: Mapped[str] = mapped_column(primary_key=True)
    data: Mapped[dict[str, Any]]
    begun_at: Mapped[datetime]
    done_at: Mapped[datetime | None]
    over: Mapped[bool]


class JobMessage(View):
    """What was said to the agent at work on a job."""

    __tablename__ = "job_message"

    id: Mapped[BigInt] = mapped_column(primary_key=True)
    job_id: Mapped[BigInt]
    said_at: Mapped[datetime]
    said_by: Mapped[str]
    content: Mapped[str]
    heard_at: Mapped[datetime | None]


class FailureOverview(View):
    """What a failure means, by what a program printed."""

    __tablename__ = "failure_overview"

    name: Mapped[str] = mapped_column(primary_key=True)
    place: Mapped[int]
    source: Mapped[str]
    pattern: Mapped[str]
    outcome: Mapped[str]
    rest: Mapped[timedelta | None]
    most: Mapped[int | None]
    pauses: Mapped[bool]
    advice: Mapped[str]


class RetentionOverview(View):
    """How long something is kept that has ended; without ``keep``, for ever."""

    __tablename__ = "retention_overview"

    what: Mapped[str] = mapped_column(primary_key=True)
    keep: Mapped[timedelta | None]
