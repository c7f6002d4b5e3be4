"""The client: one method per SQL function, and readers of the views.

A :class:`Queue` borrows a connection. It opens no transaction and commits none, so a job
enqueued on your connection exists exactly when your transaction commits. The rules live in
``sql/``; this module names the arguments and types the rows. Every method raises a
:class:`~moonmind_queue.errors.QueueError`; the database's own error is its cause.
"""

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import fields
from datetime import datetime, timedelta
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, LiteralString, TypeVar

import psycopg
from psycopg.rows import class_row, dict_row, tuple_row
from psycopg.sql import SQL, Composable, Identifier, Placeholder

from moonmind_queue import errors, executors
from moonmind_queue._connection import open_connection
from moonmind_queue._values import opened, storable, to_json
from moonmind_queue.model import Artifact, ClaimedJob, Event, Job, JobState, Reclaimed, Renewal

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

SCHEMA = "moonmind_queue"
CHUNK_BYTES = 512 * 1024

Row = TypeVar("Row", bound="DataclassInstance")


class Queue:
    """Enqueue, lease, finish and inspect jobs over one psycopg connection."""

    def __init__(self, connection: psycopg.Connection[Any]) -> None:
        self.connection = connection

    # --- produce ---------------------------------------------------------------------------

    def enqueue(
        self,
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
    ) -> int:
        """Add a job and return its id; workers see it when your transaction commits.

        The payload is checked by the executor of its kind where that is installed, and raises
        ``InvalidPayload``. With ``after``, the job waits until all those jobs have succeeded. A
        ``key`` that a job has already returns that job's id and changes nothing.
        """
        return int(
            self._value(
                "enqueue",
                kind=kind,
                payload=to_json(_checked(kind, payload or {})),
                agent=agent,
                name=name,
                key=key,
                priority=priority,
                run_at=run_at,
                after=list(after),
                max_attempts=max_attempts,
                capabilities=list(capabilities),
            )
        )

    def enqueue_many(self, jobs: Iterable[Mapping[str, Any]]) -> list[int]:
        """Add many jobs in one call, all or none; returns their ids in the same order.

        Each mapping has the parameters of :meth:`enqueue` as keys; ``after`` may name ids, and
        keys of this call or of existing jobs.
        """
        checked = [
            {**job, "payload": _checked(job["kind"], job.get("payload") or {})}
            if "kind" in job
            else dict(job)
            for job in jobs
        ]
        with self._cursor() as cursor:
            cursor.execute("select * from moonmind_queue.enqueue_many(%s)", [to_json(checked)])
            return [row[0] for row in cursor.fetchall()]

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
    ) -> list[ClaimedJob]:
        """Lease up to ``limit`` due jobs; an empty list means there is no work now."""
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
        )

    def start(self, job: ClaimedJob) -> None:
        """Say that the job runs now; raises ``LeaseLost``."""
        self._value("start", job_id=job.id, token=job.token)

    def renew(self, jobs: Sequence[ClaimedJob], lease: timedelta) -> list[Renewal]:
        """Extend the leases of all jobs; one that is missing from the answer is lost."""
        return self._rows(
            Renewal,
            "renew",
            job_ids=[job.id for job in jobs],
            tokens=[job.token for job in jobs],
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
                "select job_id, state from moonmind_queue.complete_many(%s, %s, %s)",
                [
                    [job.id for job, _ in results],
                    [job.token for job, _ in results],
                    [to_json(result) for _, result in results],
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
    ) -> JobState:
        """End the attempt badly: ``retry`` (default), ``block`` or ``fail``; returns the state."""
        return JobState(
            self._value(
                "fail",
                job_id=job.id,
                token=job.token,
                error=storable(error),
                outcome=outcome,
                retry_in=retry_in,
            )
        )

    def release(self, job: ClaimedJob, reason: str | None = None) -> None:
        """Hand the job back unharmed; the attempt does not count."""
        self._value("release", job_id=job.id, token=job.token, reason=storable(reason))

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
            artifact = self._value(
                "open_artifact",
                job_id=job.id,
                token=job.token,
                name=name,
                content_type=content_type,
                size_bytes=size,
                sha256=hashlib.file_digest(stream, "sha256").hexdigest(),
            )
            stream.seek(0)
            sent = 0
            while artifact is not None and (chunk := stream.read(CHUNK_BYTES)):
                sent += len(chunk)
                self._value("append_artifact", artifact_id=artifact, token=job.token, content=chunk)
            if artifact is not None and sent != size:
                raise errors.InvalidArgument(f"{name} changed while it was being stored")

    # --- operate ---------------------------------------------------------------------------

    def reclaim(self, limit: int = 100) -> list[Reclaimed]:
        """Take back jobs whose lease ran out; workers do this on a timer, anybody may."""
        return self._rows(Reclaimed, "reclaim", limit=limit)

    def cancel(self, job_id: int, reason: str | None = None) -> JobState:
        """Cancel the job, or ask its worker to stop; raises ``WrongState`` when it has ended."""
        return JobState(self._value("cancel", job_id=job_id, reason=storable(reason)))

    def retry(self, job_id: int) -> JobState:
        """Let a final or blocked job run again, or one that rests run now."""
        return JobState(self._value("retry", job_id=job_id))

    def unlock(self, job_id: int, *, force: bool = False) -> JobState:
        """Take a lease away; refused while its worker is alive, unless forced."""
        return JobState(self._value("unlock", job_id=job_id, force=force))

    def prune(self, older_than: timedelta, limit: int = 1000) -> int:
        """Delete up to ``limit`` final jobs with their history; returns how many."""
        return int(self._value("prune", older_than=older_than, limit=limit))

    # --- be a worker -----------------------------------------------------------------------

    def next_due(
        self,
        agents: Sequence[str] | None = None,
        kinds: Sequence[str] | None = None,
        capabilities: Sequence[str] = (),
    ) -> timedelta | None:
        """Return how long until time alone brings such a worker something; ``None``: never."""
        due: timedelta | None = self._value(
            "next_due",
            agents=None if agents is None else list(agents),
            kinds=None if kinds is None else list(kinds),
            capabilities=list(capabilities),
        )
        return due

    def register_worker(
        self,
        worker: str,
        *,
        agents: Sequence[str] | None,
        kinds: Sequence[str] | None,
        capabilities: Sequence[str],
        slots: int,
        host: str,
        pid: int,
        version: str,
    ) -> int:
        """Record the start of a worker process and return its id."""
        return int(
            self._value(
                "register_worker",
                worker=worker,
                agents=None if agents is None else list(agents),
                kinds=None if kinds is None else list(kinds),
                capabilities=list(capabilities),
                slots=slots,
                host=host,
                pid=pid,
                version=version,
            )
        )

    def see_worker(self, worker_id: int, *, stopped: bool = False) -> None:
        """Record that a worker process is alive, or that it ends."""
        self._value("see_worker", id=worker_id, stopped=stopped)

    # --- inspect ---------------------------------------------------------------------------

    def get(self, job_id: int) -> Job:
        """Return one job; raises ``JobNotFound``."""
        if jobs := self._view(Job, "job_overview", SQL("where id = %(id)s"), id=job_id):
            return jobs[0]
        raise errors.JobNotFound(f"job {job_id} does not exist")

    def history(self, job_id: int, *, after: int = 0, limit: int = 1000) -> list[Event]:
        """Return events of a job with a number above ``after``, in order, none left out.

        Raises ``JobNotFound``.
        """
        clause = SQL("where job_id = %(job)s and seq > %(after)s order by seq limit %(limit)s")
        events = self._view(Event, "job_history", clause, job=job_id, after=after, limit=limit)
        if not events:
            self.get(job_id)
        return events

    def artifacts(self, job_id: int) -> list[Artifact]:
        """Return the artifacts of a job, newest first; raises ``JobNotFound``."""
        clause = SQL("where job_id = %(job)s order by id desc")
        artifacts = self._view(Artifact, "job_artifact", clause, job=job_id)
        if not artifacts:
            self.get(job_id)
        return artifacts

    def read_artifact(self, artifact: Artifact) -> Iterator[bytes]:
        """Yield the bytes in chunks; raises ``ArtifactCorrupt`` when they are not what was put."""
        digest, position = hashlib.sha256(), 0
        while position < artifact.size_bytes:
            with self._cursor() as cursor:
                cursor.execute(
                    "select content from moonmind_queue.artifact_content"
                    " where artifact_id = %s and start_byte = %s",
                    [artifact.id, position],
                    binary=True,
                )
                row = cursor.fetchone()
            if row is None:
                break
            digest.update(row[0])
            position += len(row[0])
            yield row[0]
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

    def _rows(self, row: type[Row], function: str, **arguments: Any) -> list[Row]:
        """Call a SQL function and return the columns that ``row`` has fields for.

        Columns and arguments are named, so that an old client works on a newer schema: a column
        or a defaulted parameter that was added goes unnoticed.
        """
        with self._cursor() as cursor:
            cursor.row_factory = class_row(row)
            cursor.execute(_call(row, function, tuple(arguments)), arguments)
            return cursor.fetchall()

    def _value(self, function: str, **arguments: Any) -> Any:
        """Call a SQL function and return the one value that it gives."""
        with self._cursor() as cursor:
            cursor.execute(_call(None, function, tuple(arguments)), arguments)
            row = cursor.fetchone()
            return row[0] if row else None

    def _view(self, row: type[Row], view: str, clause: Composable, **values: Any) -> list[Row]:
        with self._cursor() as cursor:
            cursor.row_factory = class_row(row)
            query = SQL("select {} from {} {}").format(
                _columns(row), Identifier(SCHEMA, view), clause
            )
            cursor.execute(query, values)
            return cursor.fetchall()

    @contextmanager
    def _cursor(self) -> Iterator[psycopg.Cursor[Any]]:
        try:
            with self.connection.cursor(row_factory=tuple_row) as cursor:
                yield cursor
        except psycopg.Error as error:
            raise errors.from_postgres(error) from error
        except UnicodeEncodeError as error:  # a lone surrogate, as from bytes of a command line
            raise errors.InvalidArgument(f"text that UTF-8 cannot hold: {error.reason}") from error


@contextmanager
def connect(dsn: str, *, application_name: str = SCHEMA) -> Iterator[Queue]:
    """Lend a client over an autocommitting connection of its own.

    Raises ``DatabaseUnavailable`` when there is no connection to be had.
    """
    with open_connection(dsn, application_name=application_name) as connection:
        yield Queue(connection)


def _checked(kind: str, payload: Mapping[str, Any]) -> Mapping[str, Any]:
    """Validate a payload by the executor of its kind, where that is installed here."""
    try:
        executor = executors.find(kind)
    except errors.UnknownKind:
        return payload
    return executor.validate(payload)


@cache  # composing a query takes as long as running a short one
def _call(row: type[Any] | None, function: str, names: tuple[str, ...]) -> bytes:
    """Return the query that calls a SQL function for the columns of ``row``, or for all."""
    named = (SQL("{} => {}").format(Identifier(f"p_{name}"), Placeholder(name)) for name in names)
    return (
        SQL("select {} from {}({})")
        .format(
            _columns(row) if row else SQL("*"), Identifier(SCHEMA, function), SQL(", ").join(named)
        )
        .as_bytes()
    )


def _columns(row: type[Any]) -> Composable:
    return SQL(", ").join(Identifier(field.name) for field in fields(row))
