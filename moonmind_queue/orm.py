"""For SQLAlchemy: enqueue in a session's transaction, and read the views as mapped classes.

:class:`SessionQueue` and :class:`AsyncSessionQueue` borrow a session or a connection of
SQLAlchemy 2 and, like ``Queue``, neither begin nor commit: a job exists exactly when your
transaction commits. Any driver that SQLAlchemy has for PostgreSQL can carry the call; psycopg and
asyncpg are tested. The classes below :class:`View` are the views of ``sql/views.sql``, a class
for each and an attribute for each column; they are read, and a flush that would write one is
refused.
"""

from typing import Any, TypeVar

import psycopg
from psycopg.types.json import Jsonb
from sqlalchemy import (
    ColumnElement,
    Connection,
    Select,
    bindparam,
    cast,
    column,
    exc,
    func,
    select,
)
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession, async_scoped_session
from sqlalchemy.orm import Session, scoped_session
from sqlalchemy.types import NULLTYPE

from moonmind_queue import _calls, errors
from moonmind_queue._calls import SCHEMA, Call
from moonmind_queue._kin_views import AllowanceOverview, JobFollowUp, JobOrigin, JobOutcome
from moonmind_queue._usage_views import (
    BudgetOverview,
    JobUsage,
    PriceOverview,
    UsageByAgent,
    UsageByDay,
    UsageByModel,
    UsageByRepository,
    UsageOverview,
)
from moonmind_queue._values import json_text
from moonmind_queue._views import (
    AgentmuxDag,
    AgentmuxEvent,
    AgentmuxMember,
    AgentmuxTask,
    ArtifactContent,
    BlockedJob,
    FailureOverview,
    JobArtifact,
    JobDocument,
    JobHistory,
    JobLog,
    JobMessage,
    JobOverview,
    JobPublication,
    KindRule,
    LimitOverview,
    PausedAgent,
    QueuedJob,
    QueueFault,
    QueueStatus,
    RetentionOverview,
    RoleOverview,
    ScheduleOverview,
    UnservedLane,
    View,
    WorkerOverview,
)

__all__ = [
    "AgentmuxDag",
    "AgentmuxEvent",
    "AgentmuxMember",
    "AgentmuxTask",
    "AllowanceOverview",
    "ArtifactContent",
    "AsyncSessionQueue",
    "BlockedJob",
    "BudgetOverview",
    "FailureOverview",
    "JobArtifact",
    "JobDocument",
    "JobFollowUp",
    "JobHistory",
    "JobLog",
    "JobMessage",
    "JobOrigin",
    "JobOutcome",
    "JobOverview",
    "JobPublication",
    "JobUsage",
    "KindRule",
    "LimitOverview",
    "PausedAgent",
    "PriceOverview",
    "QueueFault",
    "QueueStatus",
    "QueuedJob",
    "RetentionOverview",
    "RoleOverview",
    "ScheduleOverview",
    "SessionQueue",
    "UnservedLane",
    "UsageByAgent",
    "UsageByDay",
    "UsageByModel",
    "UsageByRepository",
    "UsageOverview",
    "View",
    "WorkerOverview",
]

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
