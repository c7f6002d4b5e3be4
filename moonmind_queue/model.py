"""The records that SQL functions and views return, and the words they use.

Fields are columns of the same name; instants are aware ``datetime`` from the database clock.
Nothing here knows a connection.
"""

from dataclasses import dataclass, fields
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Any


class JobState(StrEnum):
    """Where a job stands; the transitions are in ``docs/states.md``."""

    WAITING = "waiting"
    QUEUED = "queued"
    CLAIMED = "claimed"
    RUNNING = "running"
    BLOCKED = "blocked"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    DEAD_LETTER = "dead_letter"
    CANCELLED = "cancelled"

    @property
    def final(self) -> bool:
        """Whether only a person's ``retry`` can change the job again."""
        return self in FINAL_STATES


FINAL_STATES = frozenset(
    {JobState.SUCCEEDED, JobState.FAILED, JobState.DEAD_LETTER, JobState.CANCELLED}
)


def plain(value: Any) -> Any:
    """Return a value as JSON has it: an instant in ISO 8601 and UTC, a duration in seconds."""
    if isinstance(value, datetime):
        return value.astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
    if isinstance(value, timedelta):
        return value.total_seconds()
    return value


@dataclass(frozen=True, slots=True, kw_only=True)
class JobSummary:
    """A job as lists have it: all of :class:`Job` but payload and result."""

    id: int
    key: str | None
    name: str | None
    agent: str
    kind: str
    state: JobState
    priority: int
    run_at: datetime
    attempt: int
    max_attempts: int
    error: str | None
    created_at: datetime
    updated_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    capabilities: list[str]
    worker: str | None
    lease_expires_at: datetime | None
    cancel_requested: bool
    after: list[int]
    timeout: timedelta | None
    expires_at: datetime | None
    on_dependency_failure: str
    concurrency_key: str | None
    repository: str | None
    deadline_at: datetime | None

    def __post_init__(self) -> None:
        object.__setattr__(self, "state", JobState(self.state))

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON has it everywhere: the ``summary`` of ``job_document``."""
        return {field.name: plain(getattr(self, field.name)) for field in fields(self)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One row of ``job_overview``: what was asked for, how it stands and who has it."""

    id: int
    key: str | None
    name: str | None
    agent: str
    kind: str
    state: JobState
    priority: int
    run_at: datetime
    attempt: int
    max_attempts: int
    payload: dict[str, Any]
    result: dict[str, Any] | None
    error: str | None
    created_at: datetime
    updated_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    capabilities: list[str]
    worker: str | None
    lease_expires_at: datetime | None
    cancel_requested: bool
    after: list[int]
    timeout: timedelta | None
    expires_at: datetime | None
    on_dependency_failure: str
    concurrency_key: str | None
    repository: str | None
    deadline_at: datetime | None

    def __post_init__(self) -> None:
        object.__setattr__(self, "state", JobState(self.state))

    def to_json(self) -> dict[str, Any]:
        """Return the job as JSON has it everywhere: the ``document`` of ``job_document``."""
        return {field.name: plain(getattr(self, field.name)) for field in fields(self)}

    def summary(self) -> dict[str, Any]:
        """Return the job as lists have it: :meth:`to_json` without payload and result."""
        whole = self.to_json()
        del whole["payload"], whole["result"]
        return whole


@dataclass(frozen=True, slots=True, kw_only=True)
class ClaimedJob:
    """A job under a lease: what its holder needs to run it and to prove the lease.

    ``(id, token)`` is the proof; a token is never used for a second claim. ``attempt`` counts
    from 1. ``lasts`` is how long the lease holds from when the database answered.
    """

    id: int
    kind: str
    agent: str
    name: str | None
    key: str | None
    payload: dict[str, Any]
    priority: int
    attempt: int
    max_attempts: int
    token: int
    expires_at: datetime
    lasts: timedelta


@dataclass(frozen=True, slots=True, kw_only=True)
class Renewal:
    """A lease that was renewed; ``cancel_requested`` asks its holder to stop.

    ``lasts`` is how long it holds from when the database answered.
    """

    job_id: int
    token: int
    expires_at: datetime
    lasts: timedelta
    cancel_requested: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Reclaimed:
    """A job whose lease had run out, and the state it is in now."""

    job_id: int
    state: JobState

    def __post_init__(self) -> None:
        object.__setattr__(self, "state", JobState(self.state))


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """A job whose rows contradicted each other, and how."""

    job_id: int
    fault: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """One line of a job's history; ``seq`` counts from 1 without gaps."""

    job_id: int
    seq: int
    type: str
    level: str
    message: str
    data: dict[str, Any] | None
    worker: str | None
    at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class LogChunk:
    """Whole lines that a job printed; ``pos`` grows within the job, with gaps."""

    job_id: int
    pos: int
    at: datetime
    attempt: int
    stage: str
    stream: str
    content: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Artifact:
    """A file that an attempt left behind; ``sha256`` is hexadecimal."""

    id: int
    job_id: int
    attempt: int
    name: str
    content_type: str
    size_bytes: int
    sha256: str
    created_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class DueSchedule:
    """A schedule whose time has come by ``now``, the database's clock.

    ``next_at`` is the earliest occurrence to deal with; ``None``: it has still to be computed.
    """

    name: str
    revision: int
    cron: str
    timezone: str
    next_at: datetime | None
    now: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Schedule:
    """One row of ``schedule_overview``; ``job`` has the parameters of an ``enqueue``."""

    name: str
    cron: str
    timezone: str
    catch_up: str
    paused: bool
    next_at: datetime | None
    last_at: datetime | None
    last_job_id: int | None
    job: dict[str, Any]
    error: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class JobEvent(Event):
    """An event among those of all jobs: what its job is, and the cursor to read on with."""

    agent: str
    kind: str
    name: str | None
    key: str | None
    cursor: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Maintained:
    """What :meth:`Queue.maintain` tidied up, such as ``jobs``, and how many of it."""

    what: str
    count: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """Something that a job does outside of the database: begun, or done.

    ``content`` says what it makes, such as a commit's id; the same again is the same step.
    """

    step: str
    content: str
    data: dict[str, Any]
    begun_at: datetime
    done: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class FailureRule:
    """What a failure means, by what a program printed."""

    name: str
    outcome: str
    rest: timedelta | None
    most: int | None
    pauses: bool
    advice: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Tokens:
    """Tokens of a model; ``cached_input`` is part of ``input``, ``reasoning`` of ``output``."""

    input: int
    cached_input: int = 0
    output: int = 0
    reasoning: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Overspent:
    """A budget is used up: how the attempt is to end, ``block`` or ``release``, and why."""

    outcome: str
    reason: str
