"""The words of Agentmux: its states, its events, its errors.

States and events are mapped by the database (``_task_state`` and ``_task_event``), whose views
``agentmux_task`` and ``agentmux_event`` speak this language; here are their words for whoever
needs to know which there are, and the map of errors, which the database does not know.
"""

from enum import StrEnum

from moonmind_queue import errors


class TaskState(StrEnum):
    """Where a task stands. CANCELLED is ours: Agentmux's own tasks cannot be cancelled."""

    READY = "READY"
    CLAIMED = "CLAIMED"
    RUNNING = "RUNNING"
    BLOCKED = "BLOCKED"
    DONE = "DONE"
    FAILED = "FAILED"
    CANCELLED = "CANCELLED"


class TaskEvent(StrEnum):
    """What happens to a task."""

    CREATED = "TASK_CREATED"
    READY = "TASK_READY"
    CLAIMED = "TASK_CLAIMED"
    STARTED = "TASK_STARTED"
    PROGRESS = "TASK_PROGRESS"
    COMPLETED = "TASK_COMPLETED"
    FAILED = "TASK_FAILED"
    RELEASED = "TASK_RELEASED"


class ErrorCode(StrEnum):
    """Why a call of Agentmux was refused."""

    VALIDATION_ERROR = "VALIDATION_ERROR"
    TASK_NOT_FOUND = "TASK_NOT_FOUND"
    TASK_NOT_READY = "TASK_NOT_READY"
    LEASE_CONFLICT = "LEASE_CONFLICT"
    NOT_CLAIMED_BY_WORKER = "NOT_CLAIMED_BY_WORKER"
    IO_ERROR = "IO_ERROR"


def error_code(error: Exception) -> ErrorCode:
    """Return the code of an error; what is nobody's fault is an ``IO_ERROR``."""
    for kinds, code in _CODES:
        if isinstance(error, kinds):
            return code
    return ErrorCode.IO_ERROR


_CODES: tuple[tuple[tuple[type[Exception], ...], ErrorCode], ...] = (
    ((errors.JobNotFound,), ErrorCode.TASK_NOT_FOUND),
    ((errors.LeaseLost,), ErrorCode.NOT_CLAIMED_BY_WORKER),
    ((errors.WrongState,), ErrorCode.TASK_NOT_READY),
    (
        (
            *(errors.InvalidArgument, errors.InvalidPayload, errors.UnknownKind),
            *(errors.ArtifactTooLarge, errors.NotAllowed, ValueError, TypeError),
        ),
        ErrorCode.VALIDATION_ERROR,
    ),
)
