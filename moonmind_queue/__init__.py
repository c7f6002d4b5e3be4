"""A job queue for coding agents in one PostgreSQL database.

Produce and inspect with :class:`Queue` over your own connection, or with :func:`connect`; run
jobs with :class:`Worker`. The rules are SQL functions in the schema ``moonmind_queue``.
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
    SchemaMismatch,
    SettingsError,
    UnknownKind,
    WrongState,
)
from moonmind_queue.executors import (
    Block,
    Context,
    CoolDown,
    Executor,
    Fail,
    Retry,
    Stopped,
)
from moonmind_queue.model import (
    Artifact,
    ClaimedJob,
    Event,
    Fault,
    Job,
    JobEvent,
    JobState,
    JobSummary,
    Maintained,
    Reclaimed,
    Renewal,
)
from moonmind_queue.queue import Queue, connect

if TYPE_CHECKING:
    from moonmind_queue.worker import Worker

__version__ = version("moonmind-queue")

__all__ = [
    "Artifact",
    "ArtifactCorrupt",
    "ArtifactTooLarge",
    "Block",
    "ClaimedJob",
    "Context",
    "CoolDown",
    "DatabaseError",
    "DatabaseUnavailable",
    "Event",
    "Executor",
    "Fail",
    "Fault",
    "InvalidArgument",
    "InvalidPayload",
    "Job",
    "JobEvent",
    "JobNotFound",
    "JobState",
    "JobSummary",
    "LeaseLost",
    "Maintained",
    "NotAllowed",
    "Queue",
    "QueueError",
    "Reclaimed",
    "Renewal",
    "Retry",
    "SchemaMismatch",
    "SettingsError",
    "Stopped",
    "UnknownKind",
    "Worker",
    "WrongState",
    "connect",
]


def __getattr__(name: str) -> Any:
    """Import the worker only where it is used: a producer starts faster without its threads."""
    if name == "Worker":
        return import_module("moonmind_queue.worker").Worker
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
