"""Where contestants meet: one PostgreSQL, on three kinds of storage, a fresh database a work.

The settings are those of a server that must not lose anything; all but ``shared_buffers`` and what
lets many clients connect are PostgreSQL's defaults.
"""

import itertools
import os
import platform
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple, Self
from urllib.parse import urlsplit

import psycopg
from local_postgres import LocalPostgres

from benchmarks.contest import Contestant

STORAGES = {
    "disk": "this machine's disk",
    "tmpfs": "memory: what CPU and SQL cost, without the noise of a disk",
    "flush": "memory, 1 ms a flush: an ordinary cloud disk",
}
MEMORY = Path("/dev/shm")  # noqa: S108 - the point of it
ROOM = 2 * 2**30  # bytes that must be free there; in containers there are often 64 MiB in all
SETTINGS = {"shared_buffers": "1GB", "max_connections": 400}


class Arena:
    """The servers of one run, each started when it is first needed."""

    def __init__(self) -> None:
        self._servers: dict[str, LocalPostgres] = {}
        # By storage and database: the query for jobs that have not ended. Copies of a database
        # with the schema in it are made in less time than a schema.
        self._templates: dict[str, dict[str, str]] = {storage: {} for storage in STORAGES}
        self._numbers = itertools.count(1)
        self._folder = tempfile.TemporaryDirectory(prefix="moonmind-bench-")
        self.versions: dict[str, str] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for server in self._servers.values():
            server.stop()
        self._folder.cleanup()

    def lacks(self, storage: str) -> str | None:
        """Return why there can be no server on this storage, and the way out; None if there can."""
        if storage == "disk":
            return None
        free = shutil.disk_usage(MEMORY).free if MEMORY.is_dir() else 0
        if free < ROOM:
            return (
                f"{MEMORY} has {free / 2**20:.0f} MiB free and {ROOM / 2**20:.0f} are needed:"
                f" mount -o remount,size=8G {MEMORY}, or docker run --shm-size=8g"
            )
        if storage == "flush" and not shutil.which("cc"):
            return "there is no C compiler for slow_flush.c: on Debian, apt-get install gcc"
        return None

    def server(self, storage: str) -> LocalPostgres:
        """Return the server on this storage."""
        if storage not in self._servers:
            server = LocalPostgres(
                durable=True,
                settings=SETTINGS,
                parent=None if storage == "disk" else MEMORY,
                preload=self._slow_flush() if storage == "flush" else None,
            )
            server.start()
            self._servers[storage] = server
        return self._servers[storage]

    @contextmanager
    def database(self, storage: str, contestant: Contestant) -> "Iterator[Database]":
        """Lend a fresh database with the contestant's schema."""
        server = self.server(storage)
        template, name = contestant.name.replace("-", "_"), f"bench_{next(self._numbers)}"
        with psycopg.connect(server.dsn, autocommit=True) as admin:
            if template not in self._templates[storage]:
                admin.execute(f"create database {template}")
                words = contestant.install(_to(server.dsn, template))
                self.versions[contestant.name] = words["version"]
                self._templates[storage][template] = words["unfinished"]
            admin.execute(f"create database {name} template {template}")
            try:
                dsn = _to(server.dsn, name)
                with psycopg.connect(dsn, autocommit=True) as look:
                    admin.execute("checkpoint")
                    yield Database(dsn, look, self._templates[storage][template])
            finally:
                admin.execute(f"drop database {name} with (force)")

    def describe(self) -> dict[str, Any]:
        """Return what one must know to judge the figures."""
        servers = {
            storage: {"version": server.version, "settings": self._settings(server.dsn)}
            for storage, server in self._servers.items()
        }
        return {
            "machine": {
                "cpus": os.cpu_count(),
                "cpu": _cpu(),
                "memory_gib": round(
                    os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
                ),
                "kernel": platform.release(),
                "python": platform.python_version(),
            },
            "servers": servers,
            "versions": self.versions,
        }

    def _settings(self, dsn: str) -> dict[str, str]:
        with psycopg.connect(dsn) as session:
            return dict(
                session.execute(
                    "select name, current_setting(name) from pg_settings"
                    " where name in ('fsync', 'synchronous_commit', 'full_page_writes')"
                    " or source = 'command line' and name !~ 'port|address|director|file'"
                    " order by name"
                ).fetchall()
            )

    def _slow_flush(self) -> Path:
        library = Path(self._folder.name, "slow_flush.so")
        source = Path(__file__).with_name("slow_flush.c")
        subprocess.run(["cc", "-shared", "-fPIC", "-o", library, source, "-ldl"], check=True)
        library.parent.chmod(0o755)
        return library


class Database:
    """A contestant's database and a session of the harness's own to look at it."""

    def __init__(self, dsn: str, look: psycopg.Connection[Any], unfinished: str) -> None:
        self.dsn = dsn
        self.look = look
        self._unfinished = unfinished

    def unfinished(self) -> int:
        """Count the jobs that have not ended."""
        return int(self.value(self._unfinished))

    def value(self, query: str, *arguments: object) -> Any:
        """Return the one value of a query."""
        row = self.look.execute(query.encode(), arguments or None).fetchone()
        assert row
        return row[0]

    def costs(self) -> "Costs":
        """Return what has been spent here so far."""
        return Costs(
            int(self.value("select pg_wal_lsn_diff(pg_current_wal_insert_lsn(), '0/0')")),
            # Transactions that wrote: the statistics of commits come late.
            int(self.value("select pg_snapshot_xmax(pg_current_snapshot())::text::bigint")),
            int(self.value("select coalesce(sum(n_dead_tup), 0) from pg_stat_user_tables")),
        )


class Costs(NamedTuple):
    """WAL bytes, transactions that wrote, and dead tuples (those of programs that have ended)."""

    wal_bytes: int
    commits: int
    dead_tuples: int

    def since(self, before: "Costs", jobs: int) -> dict[str, float]:
        """Return what each job cost."""
        return {
            f"{name}_per_job": (getattr(self, name) - getattr(before, name)) / jobs
            for name in self._fields
        }


def _to(dsn: str, database: str) -> str:
    """Return the address of a database, as a URL: not every driver reads libpq's other form."""
    return urlsplit(dsn)._replace(path=f"/{database}").geturl()


def _cpu() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return platform.machine()
