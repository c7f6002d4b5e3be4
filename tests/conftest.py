"""Databases for tests, on the server that ``tools/test_server.py`` chooses.

``db``     a connection whose work is rolled back: for all that one session can show.
``fresh``  the DSN of a database of its own: for commits, notifications, several sessions, the
           worker and the command line.
``clock``  moves the queue's time in ``db``; :func:`clock_of` does so in any other test database.

In test databases ``_now()`` reads a table instead of the wall clock; nothing in the package can.
"""

import os
import shutil
import threading
import uuid
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pgbouncer
import psycopg
import pytest
import test_server
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from psycopg.sql import SQL, Identifier

from moonmind_queue import Queue, migrate
from moonmind_queue.executors.noop import Noop

EPOCH = datetime(2026, 1, 1, tzinfo=UTC)
MOVABLE_CLOCK = """
create schema moonmind_queue_test;
create table moonmind_queue_test.clock (frozen_at timestamptz, shift interval not null default '0');
insert into moonmind_queue_test.clock default values;
create or replace function moonmind_queue._now() returns timestamptz
language sql security definer set search_path = moonmind_queue, pg_temp
as $$ select coalesce(frozen_at, clock_timestamp() + shift) from moonmind_queue_test.clock $$;
"""

MCP_SERVERS = os.environ.get("MOONMIND_TEST_MCP_SERVERS", "")  # the folder where they are
# The fixture that needs a program which Debian has and Python's packages do not.
PROGRAMS: dict[str, tuple[str, Callable[[], object]]] = {
    "pooler": ("pgbouncer", lambda: pgbouncer.find()),
    "publishing": ("gh", lambda: shutil.which("gh")),
    "systemd": ("systemd", lambda: shutil.which("systemd-analyze")),
}

SERVERS = pytest.StashKey[list[test_server.Server]]()
NOTES = pytest.StashKey[list[str]]()

# --- a run in several processes, each with a server of its own -----------------------------------


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers(config: pytest.Config) -> int | None:
    """As many as there are cores; none for a single file, or when all would share one server."""
    files = {argument.partition("::")[0] for argument in config.args}
    single = len(files) == 1 and files.pop().endswith(".py")
    return 0 if single or os.environ.get("MOONMIND_TEST_DATABASE_URL") else None


@pytest.hookimpl(tryfirst=True)
def pytest_sessionstart(session: pytest.Session) -> None:
    """Start the server, unless other processes run the tests or one of them is this."""
    config = session.config
    config.stash[SERVERS], config.stash[NOTES] = [], []
    for program, find in PROGRAMS.values():
        if test_server.required(program) and find() is None:
            raise pytest.UsageError(f"MOONMIND_TEST_REQUIRE names {program}, and there is none")
    alone = not getattr(config.option, "numprocesses", 0) and not hasattr(config, "workerinput")
    if alone and not config.option.collectonly:
        start_server(config)


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    """Start the server of another process: roles, and what is still visible, are of a server."""
    node.workerinput["server"] = start_server(node.config)


def start_server(config: pytest.Config) -> str:
    """Start a server, say which one it is, and return a superuser's DSN."""
    config.stash[SERVERS].append(server := test_server.start())
    config.get_terminal_writer().line(server.title)
    return server.dsn


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    """End the servers that were started, and hand over what was said."""
    for server in session.config.stash.get(SERVERS, []):
        server.stop()
    if hasattr(session.config, "workeroutput"):
        session.config.workeroutput["notes"] = session.config.stash[NOTES]


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """Take over what was said in another process; one that crashed has nothing to hand over."""
    node.config.stash[NOTES] += getattr(node, "workeroutput", {}).get("notes", [])


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    """Print what was said, each line once."""
    for line in dict.fromkeys(config.stash[NOTES]):
        terminalreporter.write_line(line)


@pytest.fixture(scope="session")
def systemd() -> str:
    """The program by which systemd checks units; it needs no systemd that runs."""
    return str(shutil.which("systemd-analyze"))


@pytest.fixture(scope="session")
def say(pytestconfig: pytest.Config) -> Callable[[str], None]:
    """Print a line at the end for whoever ran the tests, with the numbers that were proven."""
    return pytestconfig.stash[NOTES].append


@pytest.hookimpl
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out the tests of what is not here, by the fixture that they need of it."""
    needs = {
        fixture: (program, find, f"as root, tools/debian_packages.sh {program} has it")
        for fixture, (program, find) in PROGRAMS.items()
    }
    needs["mcp_servers"] = (
        *("MCP servers of others", lambda: MCP_SERVERS or None),
        "tools/test_mcp_servers.py has them",
    )
    for fixture, (what, find, remedy) in needs.items():
        needing = [item for item in items if fixture in getattr(item, "fixturenames", ())]
        if needing and find() is None:
            items[:] = [item for item in items if item not in needing]
            config.hook.pytest_deselected(items=needing)
            config.stash[NOTES].append(f"no {what}: {len(needing)} tests left out; {remedy}")


# --- databases -----------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def server(pytestconfig: pytest.Config) -> str:
    """The DSN of a superuser on the server under test."""
    if shared := getattr(pytestconfig, "workerinput", None):
        return str(shared["server"])
    return pytestconfig.stash[SERVERS][0].dsn


@pytest.fixture(scope="session")
def create_database(server: str) -> Iterator[Callable[..., str]]:
    """Create a database, optionally from a template, and return its DSN; all are dropped."""
    made: list[str] = []
    with psycopg.connect(server, autocommit=True) as admin:

        def create(template: str = "template0") -> str:
            name = f"mq_{uuid.uuid4().hex[:12]}"
            admin.execute(
                SQL("create database {} template {}").format(Identifier(name), Identifier(template))
            )
            made.append(name)
            return make_conninfo(server, dbname=name)

        yield create
        for name in made:
            admin.execute(SQL("drop database if exists {} with (force)").format(Identifier(name)))


@pytest.fixture(scope="session")
def migrated(create_database: Callable[..., str]) -> str:
    """The DSN of a database as the migrations leave it; nothing is ever written to it."""
    dsn = create_database()
    migrate.upgrade(dsn)
    return dsn


@pytest.fixture(scope="session")
def template(create_database: Callable[..., str], migrated: str) -> str:
    """The name of a migrated database with a movable clock and no months yet, to clone from."""
    dsn = create_database(conninfo_to_dict(migrated)["dbname"])
    with psycopg.connect(dsn) as connection:
        connection.execute(MOVABLE_CLOCK)
        months = connection.execute(
            "select inhrelid::regclass::text from pg_inherits"
            " where inhrelid::regclass::text ~ '^moonmind_queue[.](event|log_chunk)_[0-9_]+$'"
        ).fetchall()
        for (month,) in months:
            connection.execute(f"drop table {month}")
    return str(conninfo_to_dict(dsn)["dbname"])


@pytest.fixture
def fresh(create_database: Callable[..., str], template: str, server: str) -> Iterator[str]:
    """The DSN of a queue that no other test sees; its clock runs."""
    dsn = create_database(template)
    yield dsn
    with psycopg.connect(server, autocommit=True) as admin:
        name = Identifier(str(conninfo_to_dict(dsn)["dbname"]))
        admin.execute(SQL("drop database if exists {} with (force)").format(name))


@pytest.fixture
def look(fresh: str) -> Iterator[Callable[..., list[Any]]]:
    """Query the database of this test: one column gives a list of values."""
    with psycopg.connect(fresh, autocommit=True) as connection:

        def run(query: str, *values: Any) -> list[Any]:
            rows = connection.execute(query, values).fetchall()
            return [row[0] if len(row) == 1 else row for row in rows]

        yield run


@pytest.fixture(scope="session")
def shared(create_database: Callable[..., str], template: str) -> str:
    """The database behind ``db``; nothing is ever committed to it."""
    return create_database(template)


@pytest.fixture
def db(shared: str) -> Iterator[psycopg.Connection]:
    """A connection whose work is rolled back."""
    with psycopg.connect(shared) as connection:
        yield connection
        connection.rollback()


@pytest.fixture
def queue(db: psycopg.Connection) -> Queue:
    """A client over ``db``."""
    return Queue(db)


class Clock:
    """Moves the queue's time, for every session that sees this connection's work."""

    def __init__(self, connection: psycopg.Connection) -> None:
        self._connection = connection

    @property
    def now(self) -> datetime:
        """What the queue takes for the time."""
        row = self._connection.execute("select moonmind_queue._now()").fetchone()
        assert row
        return row[0].astimezone(UTC)

    def freeze(self, at: datetime = EPOCH) -> None:
        """Let time stand still."""
        self._connection.execute("update moonmind_queue_test.clock set frozen_at = %s", [at])

    def advance(self, by: timedelta) -> None:
        """Move time forward; a running clock goes on from there."""
        self._connection.execute(
            "update moonmind_queue_test.clock set frozen_at = frozen_at + %s, shift = shift + %s",
            [by, by],
        )


@pytest.fixture
def clock(db: psycopg.Connection) -> Clock:
    """The clock of ``db``, standing at 2026-01-01T00:00Z."""
    clock = Clock(db)
    clock.freeze()
    return clock


@pytest.fixture
def clock_of() -> Iterator[Callable[[str], Clock]]:
    """Make the running clock of a database of its own; what it does is committed at once."""
    connections = []

    def make(dsn: str) -> Clock:
        connections.append(psycopg.connect(dsn, autocommit=True))
        return Clock(connections[-1])

    yield make
    for connection in connections:
        connection.close()


class Gate(Noop):
    """An executor that lets jobs pass, but for those that are told to ``wait``."""

    def __init__(self) -> None:
        super().__init__(0)
        self.open = threading.Event()

    def run(self, job: Any, context: Any) -> dict[str, Any]:
        """Pass or wait."""
        return {"waited": bool(job.payload.get("wait")) and self.open.wait(30)}


@pytest.fixture
def gate() -> Iterator[Gate]:
    """An executor; whatever waits in it ends with the test."""
    gate = Gate()
    yield gate
    gate.open.set()
