"""The client: one method per SQL function, and readers of the views.

A :class:`Queue` borrows a connection. It opens no transaction and commits none, so a job
enqueued on your connection exists exactly when your transaction commits. The rules live in
``sql/``; this module names the arguments and types the rows. Every method raises a
:class:`~moonmind_queue.errors.QueueError`; the database's own error is its cause.
"""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, LiteralString, TypeVar

import psycopg
from psycopg.rows import dict_row, tuple_row
from psycopg.sql import SQL

from moonmind_queue import (
    _calls,
    _dags,
    _history,
    _operations,
    _scheduling,
    _steps,
    _usage,
    _workers,
    errors,
)
from moonmind_queue._calls import SCHEMA, Call
from moonmind_queue._connection import open_connection
from moonmind_queue._values import bigints, jsonbs, opened, storable, to_json
from moonmind_queue.model import Artifact, ClaimedJob, JobState, Renewal

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

CHUNK_BYTES = 512 * 1024
WINDOW = 8  # chunks that are sent or read together
_PIECES = SQL(
    "copy (select content from moonmind_queue.artifact_content"
    " where artifact_id = {} and start_byte >= {} order by start_byte limit {})"
    " to stdout (format binary)"
)

Answer = TypeVar("Answer")
Row = TypeVar("Row", bound="DataclassInstance")


class Queue:
    """Enqueue, lease, finish and inspect jobs over one psycopg connection."""

    def __init__(self, connection: psycopg.Connection[Any]) -> None:
        self.connection = connection

    # --- produce ---------------------------------------------------------------------------

    enqueue = _calls.method(_calls.enqueue)
    enqueue_many = _calls.method(_calls.enqueue_many)
    replay = _calls.method(_calls.replay)

    # --- hold a lease ----------------------------------------------------------------------

    def claim(
        self,
        worker: str,
        *,
        agents: Sequence[str] | None = None,
        kinds: Sequence[str] | None = None,
        capabilities: Sequence[str] = (),
        limit: int = 1,
        lease: timedelta = timedelta(seconds=120),
        start: bool = False,
        job_ids: Sequence[int] | None = None,
    ) -> list[ClaimedJob]:
        """Lease up to ``limit`` due jobs, or those of ``job_ids``; an empty list means no work."""
        return self._rows(
            ClaimedJob,
            "claim",
            worker=worker,
            agents=None if agents is None else list(agents),
            kinds=None if kinds is None else list(kinds),
            capabilities=list(capabilities),
            limit=limit,
            lease=lease,
            start=start,
            **({} if job_ids is None else {"job_ids": list(job_ids)}),
        )

    def start(self, job: ClaimedJob) -> None:
        """Say that the job runs now; raises ``LeaseLost``."""
        self._value("start", job_id=job.id, token=job.token)

    def renew(self, jobs: Sequence[ClaimedJob], lease: timedelta) -> list[Renewal]:
        """Extend the leases of all jobs; one that is missing from the answer is lost."""
        return self._rows(
            Renewal,
            "renew",
            job_ids=bigints(job.id for job in jobs),
            tokens=bigints(job.token for job in jobs),
            lease=lease,
        )

    def complete(self, job: ClaimedJob, result: Mapping[str, Any] | None = None) -> None:
        """End the job well; raises ``LeaseLost`` when it is no longer held."""
        self._value("complete", job_id=job.id, token=job.token, result=to_json(result or {}))

    def complete_many(
        self, results: Sequence[tuple[ClaimedJob, Mapping[str, Any]]]
    ) -> dict[int, JobState]:
        """End many jobs well in one call; a job missing from the answer had lost its lease."""
        with self._cursor() as cursor:
            cursor.execute(
                "select job_id, state"
                " from moonmind_queue.complete_many(%s::bigint[], %s::bigint[], %s::jsonb[])",
                [
                    bigints(job.id for job, _ in results),
                    bigints(job.token for job, _ in results),
                    jsonbs(result for _, result in results),
                ],
            )
            return {job_id: JobState(state) for job_id, state in cursor.fetchall()}

    def fail(
        self,
        job: ClaimedJob,
        error: str,
        *,
        outcome: str = "retry",
        retry_in: timedelta | None = None,
        source: str | None = None,
    ) -> JobState:
        """End the attempt badly: ``retry`` (default), ``block`` or ``fail``; returns the state.

        With a ``source``, such as ``codex``, the rules for failures go before.
        """
        return JobState(
            self._value(
                "fail",
                job_id=job.id,
                token=job.token,
                error=storable(error),
                outcome=outcome,
                retry_in=retry_in,
                **({} if source is None else {"source": source}),
            )
        )

    def release(
        self, job: ClaimedJob, reason: str | None = None, *, rest: timedelta | None = None
    ) -> None:
        """Hand the job back unharmed, until after a ``rest``; the attempt does not count."""
        self._value("release", job_id=job.id, token=job.token, reason=storable(reason), rest=rest)

    def cool_down(self, job: ClaimedJob, lasting: timedelta, reason: str | None = None) -> datetime:
        """Hand the job back and let all workers of its agent rest: its account is used up.

        The attempt does not count. Returns until when the agent rests.
        """
        until: datetime = self._value(
            "cool_down", job_id=job.id, token=job.token, lasting=lasting, reason=storable(reason)
        )
        return until

    def append_event(
        self,
        job: ClaimedJob,
        type: str,
        message: str = "",
        *,
        level: str = "info",
        data: Mapping[str, Any] | None = None,
    ) -> int:
        """Add an event to the history of a job that is held; returns its number."""
        return int(
            self._value(
                "append_event",
                job_id=job.id,
                token=job.token,
                type=type,
                message=storable(message),
                level=level,
                data=None if data is None else to_json(data),
            )
        )

    def append_log(
        self, job: ClaimedJob, content: str, *, stream: str = "stdout", stage: str = ""
    ) -> int:
        """Add whole lines to the live log of a job that is held; returns their position."""
        return int(
            self._value(
                "append_log",
                job_id=job.id,
                token=job.token,
                content=storable(content),
                stream=stream,
                stage=storable(stage),
            )
        )

    def put_artifact(
        self,
        job: ClaimedJob,
        name: str,
        source: Path | bytes,
        content_type: str = "application/octet-stream",
        *,
        max_bytes: int | None = None,
    ) -> None:
        """Store a regular file, streamed, or bytes as an artifact of a job that is held.

        The same bytes again change nothing. Raises ``LeaseLost``, ``ArtifactTooLarge``, and
        ``InvalidArgument`` for an unsafe name, one that is taken by other bytes, or a source
        that is not a regular file (a link is refused).
        """
        with opened(source) as (stream, size):
            if max_bytes is not None and size > max_bytes:
                raise errors.ArtifactTooLarge(
                    f"artifact {name!r} has {size} bytes, {max_bytes} are allowed"
                )
            about = {
                "job_id": job.id,
                "token": job.token,
                "name": name,
                "content_type": content_type,
            }
            if size <= CHUNK_BYTES:
                content = stream.read(size + 1)
                _check_unchanged(name, len(content), size)
                digest = hashlib.sha256(content).hexdigest()
                self._value("put_artifact", **about, content=content, sha256=digest)
                return
            digest = hashlib.file_digest(stream, "sha256").hexdigest()
            stream.seek(0)
            artifact = self._value("open_artifact", **about, size_bytes=size, sha256=digest)
            if artifact is not None:
                _check_unchanged(name, self._append(artifact, job.token, stream), size)

    def _append(self, artifact: int, token: int, stream: BinaryIO) -> int:
        """Send a stream to its end, a chunk while the one before is stored; return its size.

        What goes out together is one transaction, unless the caller has one.
        """
        while True:
            with self._cursor() as cursor, self.connection.pipeline():
                for _ in range(WINDOW):
                    if not (content := stream.read(CHUNK_BYTES)):
                        return stream.tell()
                    call = _calls.value(
                        "append_artifact", int, artifact_id=artifact, token=token, content=content
                    )
                    cursor.execute(call.statement, call.values)

    begin_step = _calls.method(_steps.begin_step)
    end_step = _calls.method(_steps.end_step)
    count_usage = _calls.method(_usage.count_usage)
    steps = _calls.method(_steps.steps)
    pushed = _calls.method(_steps.pushed)
    latest_artifact = _calls.method(_steps.latest_artifact)
    say = _calls.method(_steps.say)
    hear = _calls.method(_steps.hear)

    # --- operate ---------------------------------------------------------------------------

    reclaim = _calls.method(_operations.reclaim)
    cancel = _calls.method(_calls.cancel)
    retry = _calls.method(_calls.retry)
    unlock = _calls.method(_operations.unlock)
    seed_dag = _calls.method(_dags.seed_dag)
    reset_dag = _calls.method(_dags.reset_dag)
    stop_worker = _calls.method(_operations.stop_worker)
    classify_failure = _calls.method(_operations.classify_failure)
    set_failure_rule = _calls.method(_operations.set_failure_rule)
    drop_failure_rule = _calls.method(_operations.drop_failure_rule)
    redrive = _calls.method(_operations.redrive)
    pause = _calls.method(_operations.pause)
    resume = _calls.method(_operations.resume)
    set_limit = _calls.method(_operations.set_limit)
    set_timeout = _calls.method(_operations.set_timeout)
    set_backoff = _calls.method(_operations.set_backoff)
    set_price = _calls.method(_usage.set_price)
    drop_price = _calls.method(_usage.drop_price)
    set_budget = _calls.method(_usage.set_budget)
    drop_budget = _calls.method(_usage.drop_budget)
    set_policy = _calls.method(_operations.set_policy)
    drop_policy = _calls.method(_operations.drop_policy)
    set_allowance = _calls.method(_operations.set_allowance)
    repair = _calls.method(_operations.repair)
    prune = _calls.method(_operations.prune)
    maintain = _calls.method(_history.maintain)
    set_retention = _calls.method(_history.set_retention)

    # --- repeat ----------------------------------------------------------------------------

    def add_schedule(
        self,
        name: str,
        cron: str,
        job: Mapping[str, Any],
        *,
        timezone: str = "UTC",
        catch_up: str = "once",
    ) -> str:
        """Enqueue ``job``, parameters of :meth:`enqueue`, whenever ``cron`` comes.

        Returns ``created``, ``updated``, or ``unchanged`` when it was there already. ``catch_up``
        says what becomes of missed occurrences: ``skip``, ``once`` (the latest) or ``all``. Raises
        ``InvalidArgument`` and ``InvalidPayload``, and then changes nothing.
        """
        [clock] = self.select("select moonmind_queue._now() as now")
        return self._ask(
            _scheduling.add_schedule(
                name, cron, job, now=clock["now"], timezone=timezone, catch_up=catch_up
            )
        )

    remove_schedule = _calls.method(_scheduling.remove_schedule)
    pause_schedule = _calls.method(_scheduling.pause_schedule)
    run_schedule_now = _calls.method(_scheduling.run_schedule_now)
    due_schedules = _calls.method(_scheduling.due_schedules)
    run_schedule = _calls.method(_scheduling.run_schedule)
    defer_schedule = _calls.method(_scheduling.defer_schedule)
    schedules = _calls.method(_scheduling.all_schedules)

    # --- be a worker -----------------------------------------------------------------------

    def next_due(
        self,
        agents: Sequence[str] | None = None,
        kinds: Sequence[str] | None = None,
        capabilities: Sequence[str] = (),
        horizon: int | None = None,
    ) -> tuple[timedelta | None, int | None]:
        """Return how long such a worker may sleep (``None``: for ever), and a horizon.

        After :meth:`doze` ask with horizon 0, and again soon with the horizon that you get while
        there is one: transactions were under way that may not have seen that you sleep.
        """
        with self._cursor() as cursor:
            cursor.execute(
                "select due, horizon from moonmind_queue.next_due(%s, %s, %s, %s)",
                [
                    None if agents is None else list(agents),
                    None if kinds is None else list(kinds),
                    list(capabilities),
                    horizon,
                ],
            )
            [answer] = cursor.fetchall()
            return answer[0], answer[1]

    doze = _calls.method(_workers.doze)
    register_worker = _calls.method(_workers.register_worker)
    see_worker = _calls.method(_workers.see_worker)
    held_by = _calls.method(_workers.held_by)
    peek = _calls.method(_workers.peek)

    # --- inspect ---------------------------------------------------------------------------

    get = _calls.method(_calls.get)
    history = _calls.method(_calls.history)
    read_log = _calls.method(_calls.read_log)
    list_jobs = _calls.method(_history.list_jobs)
    count_jobs = _calls.method(_history.count_jobs)
    event_cursor = _calls.method(_history.event_cursor)
    read_events = _calls.method(_history.read_events)

    def artifacts(self, job_id: int) -> list[Artifact]:
        """Return the artifacts of a job, newest first; raises ``JobNotFound``."""
        return self._ask(
            _calls.view(
                Artifact,
                "job_artifact",
                "where job_id = %(job)s order by id desc",
                list,
                if_empty=_calls.get(job_id),
                job=job_id,
            )
        )

    def read_artifact(self, artifact: Artifact) -> Iterator[bytes]:
        """Yield the bytes in chunks; raises ``ArtifactCorrupt`` when they are not what was put."""
        digest, position = hashlib.sha256(), 0
        while position < artifact.size_bytes:
            pieces = []
            with (
                self._cursor() as cursor,
                cursor.copy(_PIECES.format(artifact.id, position, WINDOW)) as copy,
            ):
                copy.set_types(["bytea"])
                for [piece] in copy.rows():
                    digest.update(piece)  # while the next ones come
                    pieces.append(piece)
            if not pieces:
                break
            position += sum(map(len, pieces))
            yield from pieces
        if digest.hexdigest() != artifact.sha256:
            raise errors.ArtifactCorrupt(
                f"artifact {artifact.id} ({artifact.name}) is damaged: its digest is not its sha256"
            )

    def select(self, query: LiteralString, **values: Any) -> list[dict[str, Any]]:
        """Return the rows of a query on the views as dictionaries; see ``docs/sql.md``."""
        with self._cursor() as cursor:
            cursor.row_factory = dict_row
            return cursor.execute(query, values).fetchall()

    # --- plumbing --------------------------------------------------------------------------

    def _rows(self, row: type[Row], function: str, /, **arguments: Any) -> list[Row]:
        return self._ask(_calls.rows(row, function, **arguments))

    def _value(self, function: str, /, **arguments: Any) -> Any:
        return self._ask(_calls.value(function, lambda value: value, **arguments))

    def _ask(self, call: Call[Answer]) -> Answer:
        with self._cursor() as cursor:
            cursor.row_factory = call.row
            rows = cursor.execute(call.statement, call.values).fetchall()
        if not rows and call.if_empty:
            self._ask(call.if_empty)
        return call.read(rows)

    @contextmanager
    def _cursor(self) -> Iterator[psycopg.Cursor[Any]]:
        try:
            with self.connection.cursor(row_factory=tuple_row) as cursor:
                yield cursor
        except psycopg.Error as error:
            raise errors.from_postgres(error) from error
        except UnicodeEncodeError as error:
            raise errors.from_encoding(error) from error


def _check_unchanged(name: str, sent: int, size: int) -> None:
    if sent != size:
        raise errors.InvalidArgument(f"{name} changed while it was being stored")


@contextmanager
def connect(dsn: str, *, application_name: str = SCHEMA) -> Iterator[Queue]:
    """Lend a client over an autocommitting connection of its own.

    Raises ``DatabaseUnavailable`` when there is no connection to be had.
    """
    with open_connection(dsn, application_name=application_name) as connection:
        yield Queue(connection)
