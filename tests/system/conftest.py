"""Commands, and workers in threads and processes, for tests of what they do to a real database."""

import io
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import pgbouncer
import psycopg
import pytest
from waiting import eventually

from moonmind_queue import Executor, Worker
from moonmind_queue.cli import main
from moonmind_queue.executors.noop import Noop

HOUR = timedelta(hours=1)


@pytest.fixture(scope="session")
def pooler(server: str) -> Iterator[pgbouncer.PgBouncer]:
    """PgBouncer in transaction pooling mode, with four connections for each database."""
    with pgbouncer.PgBouncer(server, size=4) as running:
        yield running


@pytest.fixture
def through(pooler: pgbouncer.PgBouncer, fresh: str) -> str:
    """The DSN of ``fresh`` through the pooler, whose four connections are all in use by turns."""
    dsn = pooler.dsn(fresh)
    four = [psycopg.connect(dsn) for _ in range(4)]
    for connection in four:
        connection.execute("select 1")  # and stay in the transaction
    for connection in four:
        connection.rollback()  # or the pooler ends the server's connection too
        connection.close()
    return dsn


@pytest.fixture
def listening(look) -> Callable[[], bool]:
    """Say whether a worker of this database listens and waits."""
    return lambda: bool(
        look(
            "select 1 from pg_stat_activity where datname = current_database()"
            " and query = 'listen moonmind_queue_control' and state = 'idle'"
        )
    )


@pytest.fixture
def idle(look) -> Callable[[int], None]:
    """Wait until so many workers have found nothing to do and wait."""
    waiting = (
        "select count(*) from pg_stat_activity where datname = current_database()"
        " and application_name = 'moonmind-queue worker' and state = 'idle'"
        " and query like '%%next_due%%'"
    )

    def wait(number: int) -> None:
        eventually(lambda: look(waiting) == [number])

    return wait


@pytest.fixture
def asleep(look, idle) -> Callable[[int], None]:
    """Wait until so many workers doze and have looked after that."""

    def wait(number: int) -> None:
        eventually(lambda: look("select count(*) from moonmind_queue.sleeper") == [number])
        idle(number)

    return wait


@pytest.fixture
def start(fresh: str) -> Iterator[Callable[..., Worker]]:
    """Run workers in threads, with an hour's poll unless told otherwise; end them after."""
    started: list[tuple[Worker, threading.Thread]] = []

    def run(executors: Mapping[str, Executor] | None = None, **options: Any) -> Worker:
        options = {"dsn": fresh, "name": "w", "poll": HOUR, **options}
        worker = Worker(executors=executors or {"noop": Noop(0)}, **options)
        thread = threading.Thread(target=worker.run)
        thread.start()
        started.append((worker, thread))
        return worker

    yield run
    for worker, _ in started:
        worker.stop()
    for _, thread in started:
        thread.join(15)
        assert not thread.is_alive()


@pytest.fixture
def spawn(fresh: str, tmp_path) -> Iterator[Callable[..., "subprocess.Popen[bytes]"]]:
    """Run ``moonmind-codex-worker --kinds noop`` as a process; kill what is left after."""
    started: list[subprocess.Popen[bytes]] = []

    def run(*arguments: str, **environment: str) -> "subprocess.Popen[bytes]":
        with (tmp_path / f"worker-{len(started)}.log").open("wb") as log:
            process = subprocess.Popen(
                ["moonmind-codex-worker", "--kinds", "noop", *arguments],
                env={
                    **os.environ,
                    "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
                    "DATABASE_URL": fresh,
                    "MOONMIND_WORKDIR": str(tmp_path / "work"),
                    "MOONMIND_POLL_INTERVAL_MS": "60000",
                    **environment,
                },
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        started.append(process)
        return process

    yield run
    for process in started:
        if process.poll() is None:
            process.send_signal(signal.SIGKILL)
        process.wait()


@dataclass(frozen=True)
class Done:
    """What a command left."""

    returncode: int
    stdout: str
    stderr: str


@pytest.fixture
def run(
    fresh: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., Done]:
    """Run moonmind-queue on this test's database, in this process: a start takes half a second."""

    def run(*arguments: str, given: str = "", **environment: str) -> Done:
        with monkeypatch.context() as patch:
            for name, value in {"DATABASE_URL": fresh, **environment}.items():
                patch.setenv(name, value)
            patch.setattr(sys, "argv", ["moonmind-queue", *arguments])
            patch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(given.encode())))
            capsys.readouterr()
            with pytest.raises(SystemExit) as ended:
                main()
        return Done(int(ended.value.code or 0), *capsys.readouterr())

    return run
