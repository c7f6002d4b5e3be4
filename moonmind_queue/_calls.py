"""What the clients ask of the database: one function for each question, whoever carries it there.

A :class:`Call` is a statement, its values and the reading of the answer. ``Queue`` makes it over
a connection, ``AsyncQueue`` over an asyncio one and ``orm`` in a SQLAlchemy session, so that
names, defaults and words of a question stand once: here.
"""

import inspect
import operator
from collections import deque
from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from datetime import datetime, timedelta
from functools import cache
from itertools import repeat
from typing import (
    TYPE_CHECKING,
    Any,
    Concatenate,
    Generic,
    LiteralString,
    ParamSpec,
    TypeVar,
    get_args,
)

from psycopg.rows import RowFactory, class_row, tuple_row
from psycopg.sql import SQL, Composable, Identifier, Placeholder

from moonmind_queue import errors, executors
from moonmind_queue._values import storable, to_json
from moonmind_queue.model import Event, Job, JobState, LogChunk

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

SCHEMA = "moonmind_queue"

P = ParamSpec("P")
Answer = TypeVar("Answer")
Method = TypeVar("Method", bound=Callable[..., Any])
Row = TypeVar("Row", bound="DataclassInstance")


@dataclass(frozen=True, slots=True, kw_only=True)
class Call(Generic[Answer]):
    """A question to the database: ``source`` is the function or the view that is asked."""

    source: str
    statement: bytes
    values: Mapping[str, Any]
    row: RowFactory[Any]
    read: Callable[[list[Any]], Answer]
    if_empty: "Call[Any] | None" = None  # asked when no row came: it knows what that means


# --- produce -------------------------------------------------------------------------------


def enqueue(
    kind: str,
    payload: Mapping[str, Any] | None = None,
    *,
    agent: str = "codex",
    name: str | None = None,
    key: str | None = None,
    priority: int = 0,
    run_at: datetime | None = None,
    after: Sequence[int] = (),
    max_attempts: int = 3,
    capabilities: Sequence[str] = (),
    timeout: timedelta | None = None,
    expires_at: datetime | None = None,
    on_dependency_failure: str = "wait",
    concurrency_key: str | None = None,
    on_success: Sequence[Mapping[str, Any]] = (),
    on_failure: Sequence[Mapping[str, Any]] = (),
    made_by: int | None = None,
) -> Call[int]:
    """Add a job and return its id; workers see it when your transaction commits.

    The payload is checked by the executor of its kind where that is installed, and raises
    ``InvalidPayload``. With ``after``, the job waits until all those jobs have succeeded; should
    one end otherwise, ``on_dependency_failure`` says whether to ``wait``, ``cancel`` or ``run``. A
    ``key`` that a job has already returns that job's id and changes nothing. ``timeout`` bounds
    each attempt; from ``expires_at`` on no attempt begins; ``concurrency_key`` names what limits
    may count. ``on_success`` and ``on_failure`` list jobs, as for :meth:`enqueue_many`, that are
    added once when this one has succeeded, or failed for good. ``made_by`` is the job in whose
    course this one is made. Raises ``NotAllowed`` for what the login's allowance does not admit.
    """
    options = {
        "agent": agent,
        "name": name,
        "key": key,
        "priority": priority,
        "run_at": run_at,
        "after": list(after) or (),
        "max_attempts": max_attempts,
        "capabilities": list(capabilities) or (),
        "timeout": timeout,
        "expires_at": expires_at,
        "on_dependency_failure": on_dependency_failure,
        "concurrency_key": concurrency_key,
        "on_success": to_json(_checked_all(on_success)) if on_success else (),
        "on_failure": to_json(_checked_all(on_failure)) if on_failure else (),
        "made_by": made_by,
    }
    defaults = enqueue.__kwdefaults__ or {}
    # A value costs as much as a short statement, and what SQL takes by default it need not be told.
    given = {option: it for option, it in options.items() if it != defaults[option]}
    checked = to_json(executors.checked(kind, payload or {}))
    return value("enqueue", int, kind=kind, payload=checked, **given)


def enqueue_many(jobs: Iterable[Mapping[str, Any]]) -> Call[list[int]]:
    """Add many jobs in one call, all or none; returns their ids in the same order.

    Each mapping has the parameters of :meth:`enqueue` as keys; ``after`` may name ids, and keys
    of this call or of existing jobs.
    """
    return column("enqueue_many", jobs=to_json(_checked_all(jobs)))


def replay(
    job_id: int, payload: Mapping[str, Any] | None = None, *, agent: str | None = None
) -> Call[int]:
    """Add a job that asks for the same as another once more, and return its id.

    Without a ``payload`` it is that job's own without ``publish``. Raises ``JobNotFound``.
    """
    given = None if payload is None else to_json(payload)
    return value("replay", int, job_id=job_id, payload=given, agent=agent)


def _checked_all(jobs: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Check the payloads of jobs and of all that may follow them; the database checks the rest."""
    return [_checked(job) if isinstance(job, Mapping) else job for job in jobs]


def _checked(job: Mapping[str, Any]) -> dict[str, Any]:
    checked = dict(job)
    if "kind" in checked:
        checked["payload"] = executors.checked(checked["kind"], checked.get("payload") or {})
    for event in ("on_success", "on_failure"):
        if isinstance(checked.get(event), list | tuple):
            checked[event] = _checked_all(checked[event])
    return checked


# --- operate -------------------------------------------------------------------------------


def cancel(job_id: int, reason: str | None = None) -> Call[JobState]:
    """Cancel the job, or ask its worker to stop; raises ``WrongState`` when it has ended."""
    return value("cancel", JobState, job_id=job_id, reason=storable(reason))


def retry(job_id: int) -> Call[JobState]:
    """Let a final or blocked job run again, or one that rests run now."""
    return value("retry", JobState, job_id=job_id)


# --- inspect -------------------------------------------------------------------------------


def get(job_id: int) -> Call[Job]:
    """Return one job; raises ``JobNotFound``."""

    def read(jobs: list[Job]) -> Job:
        if not jobs:
            raise errors.JobNotFound(f"job {job_id} does not exist")
        return jobs[0]

    return view(Job, "job_overview", "where id = %(id)s", read, id=job_id)


def history(job_id: int, *, after: int = 0, limit: int = 1000) -> Call[list[Event]]:
    """Return events of a job with a number above ``after``, in order, none left out.

    Raises ``JobNotFound``.
    """
    return view(
        Event,
        "job_history",
        "where job_id = %(job)s and seq > %(after)s order by seq limit %(limit)s",
        list,
        if_empty=get(job_id),
        job=job_id,
        after=after,
        limit=limit,
    )


def read_log(job_id: int, *, after: int = 0, limit: int = 1000) -> Call[list[LogChunk]]:
    """Return what a job printed after the position ``after``, in order, none left out.

    Raises ``JobNotFound``.
    """
    return view(
        LogChunk,
        "job_log",
        "where job_id = %(job)s and pos > %(after)s order by pos limit %(limit)s",
        list,
        if_empty=get(job_id),
        job=job_id,
        after=after,
        limit=limit,
    )


# --- how a call is made --------------------------------------------------------------------


def value(function: str, read: Callable[[Any], Answer], /, **arguments: Any) -> Call[Answer]:
    """Ask a SQL function for the one value that it gives."""
    return Call(
        source=function,
        statement=_function(None, function, tuple(arguments)),
        values=arguments,
        row=tuple_row,
        read=lambda rows: read(rows[0][0]),
    )


def column(function: str, /, **arguments: Any) -> Call[list[int]]:
    """Ask a SQL function for the numbers that it gives, one a row."""
    return Call(
        source=function,
        statement=_function(None, function, tuple(arguments)),
        values=arguments,
        row=tuple_row,
        read=lambda rows: [row[0] for row in rows],
    )


def rows(row: type[Row], function: str, /, **arguments: Any) -> Call[list[Row]]:
    """Ask a SQL function for the columns that ``row`` has fields for.

    Columns and arguments are named, so that an old client works on a newer schema: a column
    or a defaulted parameter that was added goes unnoticed.
    """
    return Call(
        source=function,
        statement=_function(row, function, tuple(arguments)),
        values=arguments,
        row=_quick_row(row),
        read=list,
    )


def view(
    row: type[Row],
    name: str,
    clause: LiteralString,
    read: Callable[[list[Row]], Answer],
    /,
    *,
    if_empty: Call[Any] | None = None,
    **values: Any,
) -> Call[Answer]:
    """Ask a view for the columns that ``row`` has fields for."""
    return Call(
        source=name,
        statement=_select(row, name, clause),
        values=values,
        row=class_row(row),
        read=read,
        if_empty=if_empty,
    )


def nothing(_: Any) -> None:
    """Read the answer of a function that gives none."""


# --- how a call becomes a client's method --------------------------------------------------


def method(build: Callable[P, Call[Answer]]) -> Callable[Concatenate[Any, P], Answer]:
    """Make the method of a client that makes this call; the client's ``_ask`` carries it."""

    def ask(self: Any, /, *arguments: P.args, **options: P.kwargs) -> Answer:
        answer: Answer = self._ask(build(*arguments, **options))
        return answer

    return _described(ask, build)


def async_method(
    build: Callable[P, Call[Answer]],
) -> Callable[Concatenate[Any, P], Coroutine[Any, Any, Answer]]:
    """Make the method of a client whose ``_ask`` is a coroutine."""

    async def ask(self: Any, /, *arguments: P.args, **options: P.kwargs) -> Answer:
        answer: Answer = await self._ask(build(*arguments, **options))
        return answer

    return _described(ask, build)


def _described(ask: Method, build: Callable[..., Call[Any]]) -> Method:
    """Give a method the name, the words and the parameters of its call: what help() shows."""
    call = inspect.signature(build)
    ask.__name__, ask.__doc__ = build.__name__, build.__doc__
    ask.__signature__ = call.replace(  # type: ignore[attr-defined]  # inspect reads it
        parameters=[
            inspect.Parameter("self", inspect.Parameter.POSITIONAL_ONLY),
            *call.parameters.values(),
        ],
        return_annotation=get_args(call.return_annotation)[0],
    )
    return ask


# --- plumbing ------------------------------------------------------------------------------


@cache  # composing a query takes as long as running a short one
def _function(row: type[Any] | None, function: str, names: tuple[str, ...]) -> bytes:
    """Return the query that calls a SQL function for the columns of ``row``, or for all."""
    named = (SQL("{} => {}").format(Identifier(f"p_{name}"), Placeholder(name)) for name in names)
    return (
        SQL("select {} from {}({})")
        .format(
            _columns(row) if row else SQL("*"), Identifier(SCHEMA, function), SQL(", ").join(named)
        )
        .as_bytes()
    )


@cache
def _select(row: type[Any], name: str, clause: LiteralString) -> bytes:
    """Return the query for the columns of ``row`` in a view."""
    return (
        SQL("select {} from {} {}")
        .format(_columns(row), Identifier(SCHEMA, name), SQL(clause))
        .as_bytes()
    )


def _quick_row(row: type[Row]) -> RowFactory[Row]:
    """Make a record of each row; a frozen one in a third of the time that its own init takes.

    A claim brings them by the hundred. The columns come in the order of the fields.
    """
    if hasattr(row, "__post_init__"):
        return class_row(row)
    setters = [getattr(row, field.name).__set__ for field in fields(row)]
    exhaust = deque[None](maxlen=0).extend

    def factory(_: Any) -> Callable[[Sequence[Any]], Row]:
        def make(values: Sequence[Any]) -> Row:
            record = row.__new__(row)
            exhaust(map(operator.call, setters, repeat(record), values))
            return record

        return make

    return factory


def _columns(row: type[Any]) -> Composable:
    return SQL(", ").join(Identifier(field.name) for field in fields(row))
