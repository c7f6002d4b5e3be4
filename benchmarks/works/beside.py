"""W1c: how fast many clients enqueue while many workers are connected.

A fresh database for each: with no worker; with workers whose slots are all taken; with workers that
sleep until the first job and then work, once on jobs of a second, which leave the processors to the
clients, and once on jobs of no time at all, for which they fight with them. And a bare table with a
NOTIFY in each insert and as many listeners as there are workers: no queue that notifies in each
commit can do more than that.
"""

import os
import select
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

import psycopg

from benchmarks.arena import Database
from benchmarks.clients import statements_per_second
from benchmarks.crowd import crowd
from benchmarks.works import Figures, Trial, Work
from moonmind_queue import Queue

CLIENTS = 16
WORKERS = 30
SECONDS = 4.0
PATIENCE = 60.0

ENQUEUE = "select moonmind_queue.enqueue('nothing', '{}')"
ENQUEUE_LONG = """select moonmind_queue.enqueue('nothing', '{"seconds": 1}')"""
INSERT = "insert into bare (kind, payload) values ('nothing', '{}') returning id"
NOTIFY = f"with made as ({INSERT}) select pg_notify('bare', 'codex') from made"
BARE = """
create table bare (
    id bigint generated always as identity primary key,
    kind text not null,
    payload jsonb not null,
    created_at timestamptz not null default now()
)
"""
FLUSHES = "select coalesce(sum(fsyncs), 0)::bigint from pg_stat_io where object = 'wal'"
SLEEPERS = "select count(*) from moonmind_queue.sleeper"
LEASES = "select count(*) from moonmind_queue.lease"
LEFT = "select count(*) from moonmind_queue.job where state <> 'succeeded'"
SUCCEEDED = "select count(*) from moonmind_queue.job where state = 'succeeded'"


def beside_workers(trial: Trial) -> Figures:
    """Enqueue with 16 clients, each job in a transaction of its own."""
    alone = _measure(trial, ENQUEUE, _nobody)
    beside = {
        "busy": _measure(trial, ENQUEUE, _busy),
        "woken": _measure(trial, ENQUEUE_LONG, _idle),
        "working": _measure(trial, ENQUEUE, _idle),
    }
    bare = _measure(trial, INSERT, _nobody)
    notifying = _measure(trial, NOTIFY, _listeners)
    return {
        **{f"{name}_jobs_per_second": each["rate"] for name, each in beside.items()},
        "alone_jobs_per_second": alone["rate"],
        "bare_inserts_per_second": bare["rate"],
        "notify_inserts_per_second": notifying["rate"],
        **{f"{name}_to_alone": each["rate"] / alone["rate"] for name, each in beside.items()},
        **{f"{name}_to_notify": each["rate"] / notifying["rate"] for name, each in beside.items()},
        "working_done_per_second": beside["working"]["done"],
        **{
            f"{name}_commits_per_flush": each["per_flush"]
            for name, each in {**beside, "alone": alone, "notify": notifying}.items()
        },
    }


def _measure(
    trial: Trial,
    statement: str,
    company: Callable[[Database], Iterator[None]],
) -> Figures:
    with trial.arena.database(trial.storage, trial.contestant) as database:
        database.look.execute(BARE)
        with contextmanager(company)(database):
            database.look.execute("checkpoint")
            before, flushes, ended = (
                database.costs(),
                database.value(FLUSHES),
                database.value(SUCCEEDED),
            )
            began = time.monotonic()
            rate = statements_per_second(database.dsn, statement, CLIENTS, SECONDS * trial.scale)
            seconds = time.monotonic() - began
            commits = database.costs().commits - before.commits
            return {
                "rate": rate,
                "done": (database.value(SUCCEEDED) - ended) / seconds,
                "per_flush": commits / max(database.value(FLUSHES) - flushes, 1),
            }


def _nobody(database: Database) -> Iterator[None]:
    yield


def _busy(database: Database) -> Iterator[None]:
    """Workers of which each has a job that does not end."""
    jobs = [{"kind": "nothing", "payload": {"seconds": 3600}}] * WORKERS
    Queue(database.look).enqueue_many(jobs)
    with crowd(database.dsn, WORKERS):
        _until(database, LEASES, WORKERS)
        _until(database, SLEEPERS, 0)
        yield


def _idle(database: Database) -> Iterator[None]:
    """Workers that all wait to be notified and have worked before, so that all is loaded."""
    with crowd(database.dsn, WORKERS):
        _until(database, SLEEPERS, WORKERS)
        Queue(database.look).enqueue_many([{"kind": "nothing"}] * WORKERS * 10)
        _until(database, LEFT, 0)
        _until(database, SLEEPERS, WORKERS)
        yield


def _until(database: Database, query: str, expected: int) -> None:
    deadline = time.monotonic() + PATIENCE
    while (found := database.value(query)) != expected:
        assert time.monotonic() < deadline, f"{query}: {found}, not {expected}"
        time.sleep(0.1)


def _listeners(database: Database) -> Iterator[None]:
    """Sessions that are sent every notification; it is read as bytes and goes no further."""
    with ExitStack() as stack:
        sockets = []
        for _ in range(WORKERS):
            session = stack.enter_context(psycopg.connect(database.dsn, autocommit=True))
            session.execute("listen bare")
            sockets.append(session.fileno())
        over = threading.Event()
        reader = threading.Thread(target=_drop, args=(sockets, over), daemon=True)
        reader.start()
        yield
        over.set()
        reader.join()


def _drop(sockets: list[int], over: threading.Event) -> None:
    while not over.is_set():
        readable, _, _ = select.select(sockets, [], [], 0.2)
        for socket in readable:
            os.read(socket, 65536)
        time.sleep(0.005)  # what comes meanwhile is read at once: the reader costs little


WORKS = [
    Work("W1c", "16 clients enqueue beside 30 workers", "jobs/s", beside_workers, ours_only=True)
]
