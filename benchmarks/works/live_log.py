"""W9: what a job prints, until those who follow it have it on their screens.

The worker is a process with default settings; each reader is the command ``moonmind-queue logs``.
"""

import os
import random
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from waiting import eventually

from benchmarks.arena import Database
from benchmarks.beside import beside, until_over
from benchmarks.contest import PATIENCE, ContestantError
from benchmarks.works import Figures, Trial, Work
from moonmind_queue import ClaimedJob, Context, Queue, Worker, logs
from moonmind_queue.executors.noop import Noop

LINES, SECONDS = 20_000, 10.0
READERS = 2
# Words as builds and tests print them, so that the server's compression has its usual effect.
WORDS = """
ok error warning compiling linking tests/unit src/main.c test_claim passed in 0.03s skipped
function call returned expected actual line module import building target 127 release debug
"""
COMMAND = Path(sys.executable).with_name("moonmind-queue")
READERS_THERE = """
select count(*) from pg_stat_activity
where datname = current_database() and application_name = 'moonmind-queue cli'
"""


class Chatter(Noop):
    """Prints lines at an even pace when it is told to; each begins with the instant it was made."""

    def __init__(self, begin: threading.Event) -> None:
        super().__init__(0)
        self._begin = begin

    def run(self, job: ClaimedJob, context: Context) -> Mapping[str, Any]:
        """Print; the result says how long it took."""
        lines, seconds = job.payload["lines"], job.payload["for"]
        words = random.Random(0)  # noqa: S311 - the same words in every repetition
        tails = [" ".join(words.choices(WORDS.split(), k=10)) for _ in range(500)]
        self._begin.wait()
        began = time.monotonic()
        for number in range(lines):
            now = time.monotonic()
            if (ahead := began + number * seconds / lines - now) > 0:
                time.sleep(ahead)
                now = time.monotonic()
            context.log(f"{now:.6f} {number:6} {tails[number % len(tails)]}")
        return {"took": time.monotonic() - began}


def live_log(trial: Trial) -> Figures:
    """Let one job print 20,000 lines in 10 s; measured for every line and every reader."""
    lines = max(round(LINES * trial.scale), 2000)
    with (
        trial.arena.database(trial.storage, trial.contestant) as database,
        beside(chat, database.dsn) as worker,
    ):
        job = Queue(database.look).enqueue(
            "chatter", {"lines": lines, "for": SECONDS * lines / LINES}
        )
        with following(job, database, READERS) as readers:
            before = database.costs()
            worker.pipe.send("begin")
            latencies = [each for reader in readers for each in reader.latencies(lines)]
        spent = database.costs().since(before, 1)
        took = (Queue(database.look).get(job).result or {})["took"]
        rows = database.value("select count(*) from moonmind_queue.job_log")
        size = database.value("select sum(octet_length(content)) from moonmind_queue.job_log")
    return {
        "p95_ms": statistics.quantiles(latencies, n=20)[-1],
        "p50_ms": statistics.median(latencies),
        "max_ms": max(latencies),
        "lines_per_second": lines / took,
        "rows": rows,
        "rows_of_20000_lines": rows * LINES / lines,
        "log_mb": int(size) / 1e6,
        "wal_bytes_per_log_mb": spent["wal_bytes_per_job"] / (int(size) / 1e6),
    }


def chat(pipe: Connection, dsn: str) -> None:
    """Be the worker; the first word on the pipe lets the job begin."""
    logs.setup(level=40)
    begin = threading.Event()
    worker = Worker(dsn, {"chatter": Chatter(begin)}, name="chatter")

    def listen() -> None:
        with suppress(EOFError):
            pipe.recv()
            begin.set()
        until_over(pipe, worker.stop)

    threading.Thread(target=listen, daemon=True).start()
    worker.run()


@contextmanager
def following(job: int, database: Database, count: int) -> "Iterator[list[Reader]]":
    """Run readers that follow the log of a job; all have begun before it prints."""
    readers = [Reader(job, database.dsn) for _ in range(count)]
    try:
        eventually(lambda: database.value(READERS_THERE) == count, within=PATIENCE)
        time.sleep(0.2)  # connected; now they have made their first calls, too
        yield readers
    finally:
        for reader in readers:
            reader.end()


class Reader:
    """One ``moonmind-queue logs -f`` whose output is stamped as it comes."""

    def __init__(self, job: int, dsn: str) -> None:
        self._process = subprocess.Popen(
            [COMMAND, "logs", str(job), "-f"],
            stdout=subprocess.PIPE,
            env=os.environ | {"DATABASE_URL": dsn},
        )
        self._came: list[tuple[float, bytes]] = []
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def latencies(self, lines: int) -> list[float]:
        """Wait for the end of the log; return for how many ms each line was under way."""
        self._thread.join(PATIENCE)
        latencies, rest = [], b""
        for at, came in self._came:
            *whole, rest = (rest + came).split(b"\n")
            latencies += [(at - float(line.split(b" ", 1)[0])) * 1000 for line in whole]
        if len(latencies) != lines or rest:
            raise ContestantError(f"a reader of the live log saw {len(latencies)} of {lines} lines")
        return latencies

    def end(self) -> None:
        """Make it end, if it has not by itself."""
        self._process.terminate()
        self._process.wait()
        self._thread.join()

    def _read(self) -> None:
        assert self._process.stdout
        while came := os.read(self._process.stdout.fileno(), 2**20):
            self._came.append((time.monotonic(), came))


WORKS = [
    Work(
        "W9",
        "20,000 log lines in 10 s, visible to two readers",
        "ms p95",
        live_log,
        ours_only=True,
    )
]
