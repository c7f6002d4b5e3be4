"""A bench for ``mcp-call``: an executor, its file, and a context that keeps what it is given."""

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import claimed_job
import psycopg
from waiting import eventually

from moonmind_queue.executors import Outcome
from moonmind_queue.executors.mcp_call import LOG, McpCall

LIMIT = 10 * 1024 * 1024
TOOLBOX = Path(__file__).with_name("mcp_toolbox.py")
STDIO = {"command": sys.executable, "args": [str(TOOLBOX), "stdio"]}
SECRET = "zero-0123456789abcdef"  # of the worker, in its environment


@dataclass
class Recorder:
    """A context that keeps what it is given."""

    stop: threading.Event = field(default_factory=threading.Event)
    events: list[tuple[str, str, Any]] = field(default_factory=list)
    lines: list[tuple[str, str]] = field(default_factory=list)
    files: dict[str, bytes] = field(default_factory=dict)
    types: dict[str, str] = field(default_factory=dict)
    on_line: Callable[[str], None] = lambda _: None

    def progress(
        self, message: str, data: Mapping[str, Any] | None = None, *, level: str = "info"
    ) -> None:
        """Keep an event."""
        self.events.append((level, message, data))

    def log(self, text: str, *, stream: str = "stdout", stage: str = "") -> None:
        """Keep what is printed."""
        self.lines.append((stream, text))
        self.on_line(text)

    def enqueue(self, kind: str, payload: Any = None, **options: Any) -> None:
        """Refuse: a call adds no jobs."""
        raise AssertionError(kind)

    def attach(self, name: str, source: Path | bytes, content_type: str = "") -> None:
        """Keep a file."""
        assert isinstance(source, bytes)
        assert name not in self.files
        self.files[name], self.types[name] = source, content_type

    @property
    def log_file(self) -> str:
        """The log as it was stored."""
        return self.files[LOG].decode()

    def everything(self) -> str:
        """All that would leave the machine."""
        return (
            repr(self.events)
            + repr(self.lines)
            + b"".join(self.files.values()).decode(errors="replace")
        )


@dataclass
class Ended:
    """How a call ended: with a result, or with the outcome that was raised."""

    result: Mapping[str, Any]
    outcome: Outcome | None
    context: Recorder
    seconds: float

    def raised(self, kind: type[Outcome]) -> str:
        """Return the words of the outcome, which must be of a kind."""
        assert type(self.outcome) is kind, (self.outcome, self.context.lines)
        return str(self.outcome)


@dataclass
class Bench:
    """An executor with a file of servers, ``box`` by default the toolbox."""

    folder: Path
    servers: dict[str, Any] = field(default_factory=lambda: {"box": STDIO})
    environ: dict[str, str] = field(
        default_factory=lambda: {
            "PATH": os.environ["PATH"],
            "HOME": str(Path.home()),
            "DATABASE_URL": "postgresql://me:hunter2hunter2@localhost/queue",
            "SOME_TOKEN": SECRET,
        }
    )
    limit: int = LIMIT
    run_timeout: float = 60

    def executor(self) -> McpCall:
        """Write the file and return the executor."""
        path = self.folder / "mcp.json"
        path.write_text(json.dumps({"mcpServers": self.servers}))
        return McpCall(
            path,
            environ=self.environ,
            run_timeout=self.run_timeout,
            artifact_max_bytes=self.limit,
        )

    def call(
        self,
        tool: str,
        arguments: Mapping[str, Any] | None = None,
        *,
        server: str = "box",
        context: Recorder | None = None,
        **more: Any,
    ) -> Ended:
        """Run a job to its end."""
        payload = {"server": server, "tool": tool, "arguments": dict(arguments or {}), **more}
        context = context or Recorder()
        executor = self.executor()
        begin = time.monotonic()
        try:
            result, outcome = executor.run(make_job(payload), context), None
        except Outcome as error:
            result, outcome = {}, error
        return Ended(result, outcome, context, time.monotonic() - begin)


make_job = partial(claimed_job.make_job, "mcp-call")


@contextmanager
def serving(transport: str) -> Iterator[str]:
    """Run the toolbox as a server on 127.0.0.1; yields its address."""
    command = [sys.executable, str(TOOLBOX), transport]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as server:
        try:
            assert server.stdout is not None
            yield f"http://127.0.0.1:{int(server.stdout.readline())}"
        finally:
            server.kill()


def work_off(dsn: str, folder: Path, servers: Mapping[str, Any], tasks: Mapping[str, Any]) -> None:
    """Seed tasks as a DAG file, one after the other, and let a worker of Agentmux do them all.

    ``tasks`` are payloads by id; artifacts lie below ``folder`` afterwards.
    """
    config, dag = folder / "mcp.json", folder / "dag.yaml"
    config.write_text(json.dumps({"mcpServers": servers}))
    ids = list(tasks)
    dag.write_text(
        json.dumps(
            [
                {"id": each, "agent": "codex", "deps": ids[place - 1 : place], "payload": payload}
                for place, (each, payload) in enumerate(tasks.items())
            ]
        )
    )
    environ = {
        **os.environ,
        "DATABASE_URL": dsn,
        "MOONMIND_AGENTMUX_HOME": str(folder),
        "MOONMIND_WORKDIR": str(folder / "work"),
        "MOONMIND_MCP_CONFIG": str(config),
    }
    agentmux = str(Path(sys.executable).with_name("agentmux"))
    subprocess.run([agentmux, "tasks", "seed", str(dag)], env=environ, check=True)
    command = [agentmux, "worker", "--agent", "codex", "--worker-id", "codex-1"]
    with (
        psycopg.connect(dsn, autocommit=True) as connection,
        subprocess.Popen(command, env=environ) as worker,
    ):
        try:
            query = "select 1 from moonmind_queue.job where finished_at is null"
            eventually(lambda: connection.execute(query).fetchone() is None, within=60)
        finally:
            worker.terminate()
