"""A job queue for coding agents in one PostgreSQL database.

Produce and inspect with :class:`Queue` over your own connection, or with :func:`connect`; run
jobs with :class:`Worker`. :class:`AsyncQueue` and :func:`connect_async` are the asyncio client;
``moonmind_queue.orm`` is for SQLAlchemy. The rules are SQL functions in the schema
``moonmind_queue``.
"""

from importlib import import_module
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from moonmind_queue.errors import (
    ArtifactCorrupt,
    ArtifactTooLarge,
    DatabaseError,
    DatabaseUnavailable,
    InvalidArgument,
    InvalidPayload,
    JobNotFound,
    LeaseLost,
    NotAllowed,
    QueueError,
    ScheduleNotFound,
    SchemaMismatch,
    SettingsError,
    UnknownKind,
    WorkerUnfit,
    WrongState,
)
from moonmind_queue.executors import (
    Block,
    Context,
    CoolDown,
    Executor,
    Fail,
    Postpone,
    Retry,
    Stopped,
    Unfit,
)
from moonmind_queue.model import (
    Artifact,
    ClaimedJob,
    DueSchedule,
    Event,
    FailureRule,
    Fault,
    Job,
    JobEvent,
    JobState,
    JobSummary,
    LogChunk,
    Maintained,
    Overspent,
    Reclaimed,
    Renewal,
    Schedule,
    Step,
    Tokens,
)
from moonmind_queue.queue import Queue, connect

if TYPE_CHECKING:
    from moonmind_queue.aio import AsyncQueue, connect_async
    from moonmind_queue.worker import Worker

__version__ = version("moonmind-queue")

__all__ = [
    "Artifact",
    "ArtifactCorrupt",
    "ArtifactTooLarge",
    "AsyncQueue",
    "Block",
    "ClaimedJob",
    "Context",
    "CoolDown",
    "DatabaseError",
    "DatabaseUnavailable",
    "DueSchedule",
    "Event",
    "Executor",
    "Fail",
    "FailureRule",
    "Fault",
    "InvalidArgument",
    "InvalidPayload",
    "Job",
    "JobEvent",
    "JobNotFound",
    "JobState",
    "JobSummary",
    "LeaseLost",
    "LogChunk",
    "Maintained",
    "NotAllowed",
    "Overspent",
    "Postpone",
    "Queue",
    "QueueError",
    "Reclaimed",
    "Renewal",
    "Retry",
    "Schedule",
    "ScheduleNotFound",
    "SchemaMismatch",
    "SettingsError",
    "Step",
    "Stopped",
    "Tokens",
    "Unfit",
    "UnknownKind",
    "Worker",
    "WorkerUnfit",
    "WrongState",
    "connect",
    "connect_async",
]

_LAZY = {
    "AsyncQueue": "moonmind_queue.aio",
    "Worker": "moonmind_queue.worker",
    "connect_async": "moonmind_queue.aio",
}


def __getattr__(name: str) -> Any:
    """Import the worker, or the asyncio client, only where it is used: a producer starts faster."""
    if module := _LAZY.get(name):
        return getattr(import_module(module), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
