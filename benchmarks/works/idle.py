"""W10: what workers cost that have nothing to do, once with notifications and once without."""

import logging
import os
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from typing import NamedTuple

import psycopg
from local_postgres import LocalPostgres
from waiting import eventually

from benchmarks import cpu
from benchmarks.arena import MEMORY, SETTINGS, Database
from benchmarks.beside import beside, until_over
from benchmarks.contest import PATIENCE
from benchmarks.works import Figures, Trial, Work
from moonmind_queue import Worker, _caretaker, logs
from moonmind_queue.executors.noop import Noop

PROCESSES, EACH = 10, 10
SECONDS, SHORTEST = 60.0, 10.0
POLL = 1.5  # the worker's default
SETTLE = 5.0  # seconds until the last to start is idle, too
SIGNED_ON = "select count(*) from moonmind_queue.worker_overview"
SESSIONS = """
select count(*) from pg_stat_activity
where datname = current_database() and pid <> pg_backend_pid() and backend_type = 'client backend'
"""
# Those of the workers, as they sent them. The commits of pg_stat_database will not do: a session
# that asks for nothing but constants, as the pulse of a listener does, never reports its own.
CALLS = """
select coalesce(sum(calls), 0) from pg_stat_statements
where query ~ %s and query !~ 'pg_stat_'
"""


def idle(trial: Trial, listen: bool) -> Figures:
    """Watch 100 idle workers for 60 s, on a server of their own that counts statements."""
    seconds = max(SECONDS * trial.scale, SHORTEST)
    workers = PROCESSES * EACH
    with counting_server(trial) as database, ExitStack() as stack:
        processes = [
            stack.enter_context(beside(idlers, database.dsn, number, listen))
            for number in range(PROCESSES)
        ]
        eventually(lambda: database.value(SIGNED_ON) == workers, within=PATIENCE)
        time.sleep(SETTLE)
        sessions = database.value(SESSIONS)
        pids = [each.pid for each in processes]
        before = spent(database, pids)
        time.sleep(seconds)
        cost = spent(database, pids).since(before)
    intervals = workers * cost.at / POLL
    return {
        "statements_per_worker_and_poll": cost.statements / intervals,
        "next_due_per_worker_and_poll": cost.next_due / intervals,
        "see_worker_per_worker_and_poll": cost.see_worker / intervals,
        "server_cpu_percent": 100 * cost.server / cost.at / (os.cpu_count() or 1),
        "server_cpu_percent_of_one_core": 100 * cost.server / cost.at,
        "server_cpu_us_per_statement": 1e6 * cost.server / max(cost.statements, 1),
        "workers_cpu_percent_of_one_core": 100 * cost.workers / cost.at,
        "sessions_per_worker": sessions / workers,
    }


@contextmanager
def counting_server(trial: Trial) -> Iterator[Database]:
    """Run a server like the arena's, and with the extension that counts statements."""
    counting = {"shared_preload_libraries": "pg_stat_statements"}
    with LocalPostgres(durable=True, settings=SETTINGS | counting, parent=MEMORY) as server:
        words = trial.contestant.install(server.dsn)
        with psycopg.connect(server.dsn, autocommit=True) as look:
            look.execute("create extension pg_stat_statements")
            yield Database(server.dsn, look, words["unfinished"])


def idlers(pipe: Connection, dsn: str, process: int, listen: bool) -> None:
    """Run ten idle workers in threads.

    Half a minute after its start, and then hourly, a worker looks for what is to be tidied. The
    first time is put off, so that the window is like all but one minute of an hour.
    """
    logs.setup(level=logging.ERROR)
    _caretaker.FIRST = _caretaker.PERIOD
    workers = [
        Worker(
            dsn,
            {"nothing": Noop(0)},
            name=f"idle-{process}-{number}",
            listen_dsn=None if listen else "none",
        )
        for number in range(EACH)
    ]
    threads = [threading.Thread(target=each.run) for each in workers]
    for thread in threads:
        thread.start()
    until_over(pipe, lambda: [each.stop() for each in workers])
    for thread in threads:
        thread.join()


class Spent(NamedTuple):
    """What has been spent until an instant, or between two."""

    at: float
    statements: int
    next_due: int
    see_worker: int
    server: float  # seconds of CPU
    workers: float

    def since(self, before: "Spent") -> "Spent":
        """Return what came in between."""
        return Spent(*(late - early for late, early in zip(self, before, strict=True)))


def spent(database: Database, workers: list[int]) -> Spent:
    """Look at the counters; ``workers`` are the ids of their processes."""
    postmaster = int(_stat(database.value("select pg_backend_pid()"))[1])
    return Spent(
        time.monotonic(),
        int(database.value(CALLS, "")),
        int(database.value(CALLS, "next_due")),
        int(database.value(CALLS, "see_worker")),
        _with_children(postmaster),
        sum(_seconds(pid, 11, 12) for pid in workers),
    )


def _with_children(pid: int) -> float:
    """Return the CPU seconds of a process, of its children, and of those that have ended."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    # Of hundreds that each did a little: the ticks of `stat` are too coarse for them.
    return _seconds(pid, 11, 12, 13, 14) + sum(cpu.of_process(int(each)) for each in children)


def _seconds(pid: int, *fields: int) -> float:
    return sum(int(_stat(pid)[field]) for field in fields) / os.sysconf("SC_CLK_TCK")


def _stat(pid: int) -> list[str]:
    """Return the fields of /proc/PID/stat from the state on, which is number 0 here."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()


WORKS = [
    Work(
        f"W10-{name}",
        f"100 idle workers, {words}",
        "statements a worker and poll",
        partial(idle, listen=listen),
        storages=("tmpfs",),
        ours_only=True,
    )
    for name, words, listen in (
        ("listen", "with notifications", True),
        ("poll", "without notifications", False),
    )
]
