"""For SQLAlchemy: enqueue in a session's transaction, and read the views as mapped classes.

:class:`SessionQueue` and :class:`AsyncSessionQueue` borrow a session or a connection of
SQLAlchemy 2 and, like ``Queue``, neither begin nor commit: a job exists exactly when your
transaction commits. Any driver that SQLAlchemy has for PostgreSQL can carry the call; psycopg and
asyncpg are tested. The classes below :class:`View` are the views of ``sql/views.sql``, a class
for each and an attribute for each column; they are read, and a flush that would write one is
refused.
"""

from datetime import datetime, timedelta
from typing import Annotated, Any, ClassVar, TypeVar

import psycopg
from psycopg.types.json import Jsonb
from sqlalchemy import (
    ARRAY,
    BigInteger,
    ColumnElement,
    Connection,
    Integer,
    Interval,
    MetaData,
    Select,
    Text,
    bindparam,
    cast,
    column,
    event,
    exc,
    func,
    select,
)
from sqlalchemy.dialects.postgresql import BYTEA, DOUBLE_PRECISION, JSONB, TIMESTAMP
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession, async_scoped_session
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column, scoped_session
from sqlalchemy.types import NULLTYPE

from moonmind_queue import _calls, errors
from moonmind_queue._calls import SCHEMA, Call
from moonmind_queue._values import json_text

Answer = TypeVar("Answer")


# --- enqueue -------------------------------------------------------------------------------


class SessionQueue:
    """Enqueue in the transaction of a SQLAlchemy session or connection.

    A refused call aborts the transaction, as any error of the database does; put it into
    ``session.begin_nested()`` to go on after it.
    """

    def __init__(self, session: Session | scoped_session[Any] | Connection) -> None:
        self.session = session

    enqueue = _calls.method(_calls.enqueue)
    enqueue_many = _calls.method(_calls.enqueue_many)

    def _ask(self, call: Call[Answer]) -> Answer:
        try:
            return call.read([*self.session.execute(_statement(call))])
        except exc.DBAPIError as error:
            raise _translated(error) from error.orig
        except UnicodeEncodeError as error:
            raise errors.from_encoding(error) from error


class AsyncSessionQueue:
    """Enqueue in the transaction of a SQLAlchemy asyncio session or connection."""

    def __init__(self, session: AsyncSession | async_scoped_session[Any] | AsyncConnection) -> None:
        self.session = session

    enqueue = _calls.async_method(_calls.enqueue)
    enqueue_many = _calls.async_method(_calls.enqueue_many)

    async def _ask(self, call: Call[Answer]) -> Answer:
        try:
            return call.read([*await self.session.execute(_statement(call))])
        except exc.DBAPIError as error:
            raise _translated(error) from error.orig
        except UnicodeEncodeError as error:
            raise errors.from_encoding(error) from error


def _statement(call: Call[Any]) -> Select[Any]:
    """Return the call in SQLAlchemy's words; no value has a type, for the function gives them."""
    named = (column(f"p_{name}").op("=>")(_bound(value)) for name, value in call.values.items())
    return select(getattr(getattr(func, SCHEMA), call.source)(*named))


def _bound(value: Any) -> ColumnElement[Any]:
    if isinstance(value, Jsonb):  # as text, since each driver has another way to carry JSON
        return cast(bindparam(None, json_text(value), NULLTYPE), JSONB)
    return bindparam(None, value, NULLTYPE)


def _translated(error: exc.DBAPIError) -> errors.QueueError:
    if isinstance(error.orig, psycopg.Error):
        return errors.from_postgres(error.orig)
    # Another driver: SQLAlchemy's adapter keeps the code; its cause is what the driver raised.
    state = getattr(error.orig, "sqlstate", None) or getattr(error.orig, "pgcode", None)
    if not state and isinstance(error, exc.OperationalError | exc.InterfaceError):
        state = errors.NO_CONNECTION
    said = getattr(error.orig, "__cause__", None) or error.orig
    return errors.from_sqlstate(state or "", str(said.args[0] if said and said.args else said))


# --- look ----------------------------------------------------------------------------------

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
    task_id: Mapped[str]
    job_id: Mapped[BigInt] = mapped_column(primary_key=True)
    seq: Mapped[int] = mapped_column(primary_key=True)
    payload: Mapped[dict[str, Any]]
    pos: Mapped[BigInt]


class RetentionOverview(View):
    """How long something is kept that has ended; without ``keep``, for ever."""

    __tablename__ = "retention_overview"

    what: Mapped[str] = mapped_column(primary_key=True)
    keep: Mapped[timedelta | None]
