"""Several sessions on one queue, held where a test wants them, and a picture of all its rows."""

import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager
from datetime import timedelta
from typing import Any

import psycopg
import pytest

from moonmind_queue import Queue, QueueError

PATIENCE = 15  # seconds until a test that waits for another session gives up
GUARD = "-c statement_timeout=20s -c plpgsql.extra_errors=all -c jit=off"


@pytest.fixture
def until() -> Callable[[Callable[[], Any]], Any]:
    """Wait for a condition; gives its value as soon as that is true."""

    def wait(condition: Callable[[], Any]) -> Any:
        deadline = time.monotonic() + PATIENCE
        while not (value := condition()):
            assert time.monotonic() < deadline, "what the test waits for did not happen"
            time.sleep(0.002)
        return value

    return wait


@pytest.fixture
def session(fresh: str) -> Iterator[Callable[..., psycopg.Connection]]:
    """Open a session on ``fresh``: in a transaction, or committing each call by itself."""
    with ExitStack() as stack:

        def connect(*, autocommit: bool = False, dsn: str = fresh) -> psycopg.Connection:
            connection = psycopg.connect(dsn, autocommit=autocommit, options=GUARD)
            stack.callback(connection.close)
            return connection

        yield connect


@pytest.fixture
def here(session) -> Queue:
    """A client on ``fresh`` whose every call commits."""
    return Queue(session(autocommit=True))


class Sleeper:
    """A session that listens, and sleeps as a worker does that serves some agents, or all."""

    def __init__(self, connection: psycopg.Connection, agents: tuple[str, ...]) -> None:
        self.execute, self.notifies = connection.execute, connection.notifies
        self.execute("listen moonmind_queue")
        self._queue = Queue(connection)
        self._process = self._queue.register_worker(
            "sleeper",
            agents=list(agents) or None,
            kinds=None,
            capabilities=[],
            slots=1,
            host="h",
            pid=1,
            version="1",
        )
        self.doze()

    def doze(self) -> None:
        """Sleep until the next notification."""
        self._queue.doze(self._process)

    def heard(self) -> list[str]:
        """Return the agents that were notified since the last call, and sleep again."""
        self.execute("select pg_notify('moonmind_queue', 'that was all')")
        with closing(self.notifies(timeout=15)) as notices:  # it holds the connection's lock
            agents = list(iter(lambda: next(notices).payload, "that was all"))
        self.doze()
        return agents


@pytest.fixture
def sleeper(session) -> Callable[..., Sleeper]:
    """Fall asleep, for some agents or for all."""
    return lambda *agents: Sleeper(session(autocommit=True), agents)


@pytest.fixture
def threads() -> Iterator[ThreadPoolExecutor]:
    """Run calls beside the test."""
    with ThreadPoolExecutor(32) as pool:
        yield pool


@pytest.fixture
def blocked(session, threads, until) -> Callable[..., "Future[Any]"]:
    """Begin a call on a session of its own and return when it waits for somebody's lock."""
    watch = session(autocommit=True)

    def begin(call: Callable[[Queue], Any]) -> "Future[Any]":
        connection = session(autocommit=True)
        future = threads.submit(call, Queue(connection))
        pid = connection.info.backend_pid

        def waits() -> bool:
            [blockers] = watch.execute("select pg_blocking_pids(%s)", [pid]).fetchone()
            return bool(blockers) or future.done()

        until(waits)
        assert not future.done(), f"did not wait: {future.exception() or future.result()}"
        return future

    return begin


@pytest.fixture
def types() -> Callable[[Queue, int], list[str]]:
    """The types of a job's events, in order; fails when their numbers have a gap."""

    def of(queue: Queue, job: int) -> list[str]:
        events = queue.history(job)
        assert [event.seq for event in events] == list(range(1, len(events) + 1))
        return [event.type for event in events]

    return of


@pytest.fixture
def picture() -> Callable[[psycopg.Connection], dict[str, list[str]]]:
    """Every row of every table of the queue, as text."""

    def of(connection: psycopg.Connection) -> dict[str, list[str]]:
        tables = connection.execute(
            "select tablename from pg_tables where schemaname = 'moonmind_queue'"
        ).fetchall()
        return {
            table: [
                row[0]
                for row in connection.execute(
                    f"select t::text from moonmind_queue.{table} as t order by 1"
                )
            ]
            for (table,) in tables
        }

    return of


@pytest.fixture
def refused(db) -> Callable[..., Any]:
    """Expect an SQLSTATE of a call on ``db``, and go on with the transaction."""

    @contextmanager
    def refuse(sqlstate: str, match: str | None = None) -> Iterator[None]:
        with pytest.raises((QueueError, psycopg.Error), match=match) as caught, db.transaction():
            yield
        error = caught.value
        cause = error if isinstance(error, psycopg.Error) else error.__cause__
        assert getattr(cause, "sqlstate", None) == sqlstate, error

    return refuse


@pytest.fixture
def lost(queue, clock) -> Any:
    """A job that its worker lost and that a worker of the same name holds again: (late, now)."""
    queue.enqueue("k", {"a": 1}, max_attempts=5)
    [late] = queue.claim("w", start=True)
    clock.advance(timedelta(minutes=3))
    queue.reclaim()
    clock.advance(timedelta(minutes=3))
    [now] = queue.claim("w", start=True)
    return late, now
