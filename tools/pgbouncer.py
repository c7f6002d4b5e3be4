"""A throw-away PgBouncer in transaction pooling mode on 127.0.0.1, in front of a test server."""

import contextlib
import os
import pwd
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, Self

import psycopg
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from psycopg.rows import dict_row

START_SECONDS = 20
CONFIGURATION = """
[databases]
* = host={host} port={port}
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {listen}
unix_socket_dir =
auth_type = scram-sha-256
auth_file = {directory}/users
pool_mode = {mode}
default_pool_size = {size}
max_client_conn = 300
; No client may count on meeting the server's connection again that it had a moment ago.
server_round_robin = 1
admin_users = {user}
"""


class PgBouncerError(Exception):
    """The pooler did not start; the message says why."""


def find() -> str | None:
    """Return the program, or None; Debian keeps it where an ordinary user's PATH does not look."""
    return shutil.which("pgbouncer", path=f"{os.environ.get('PATH', os.defpath)}:/usr/sbin")


class PgBouncer:
    """A running pooler: ``with PgBouncer(server) as pooler: connect(pooler.dsn(database))``.

    ``server`` is the DSN of a superuser who logs in by TCP or without a password. Each database has
    at most ``size`` connections to the server, whatever the number of clients. With ``mode``
    ``session`` a client keeps its connection for as long as it stays.
    """

    def __init__(self, server: str, *, size: int = 4, mode: str = "transaction") -> None:
        with psycopg.connect(server) as connection:  # libpq knows defaults, services, .pgpass …
            # The address that answered: a name may have others, where nobody does.
            self._host = connection.info.hostaddr or connection.info.host
            self._port = connection.info.port
            self._user, known = connection.info.user, connection.info.password
        self._password = known or secrets.token_urlsafe(16)  # others reach 127.0.0.1 too
        self._size, self._mode = size, mode
        self._process: subprocess.Popen[bytes] | None = None
        self.port = 0

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def dsn(self, dsn: str) -> str:
        """Return the way through the pooler to the database that ``dsn`` names."""
        way = {"host": "127.0.0.1", "port": self.port, "hostaddr": None}
        return make_conninfo(dsn, user=self._user, password=self._password, **way)

    def pools(self, dsn: str) -> dict[str, Any]:
        """Return what PgBouncer knows of its connections to and from a database."""
        database = conninfo_to_dict(dsn)["dbname"]
        with psycopg.connect(self.dsn("dbname=pgbouncer"), autocommit=True) as admin:
            rows = admin.cursor(row_factory=dict_row).execute("show pools").fetchall()
        return next(row for row in rows if row["database"] == database)

    def start(self) -> None:
        """Start the pooler and wait until it accepts connections."""
        for _ in range(10):  # somebody may take a free port before the pooler does
            # What it reads it has read when it answers; no password stays behind, come what may.
            with tempfile.TemporaryDirectory(prefix="moonmind-pgbouncer-") as directory:
                self._process = self._spawn(Path(directory))
                if self._answers():
                    return
                words = (Path(directory) / "log").read_text()
            self.stop()
            if "Address already in use" not in words:
                break
        raise PgBouncerError(f"the pooler did not start:\n{words[-2000:]}")

    def stop(self) -> None:
        """End the pooler at once, whoever is connected."""
        if self._process:
            self._process.kill()  # SIGTERM waits for clients since 1.23, and there is no state
            self._process.wait(START_SECONDS)
            self._process = None

    def _spawn(self, directory: Path) -> "subprocess.Popen[bytes]":
        program = find()
        if program is None:
            raise PgBouncerError(
                "there is no pgbouncer: as root, tools/debian_packages.sh pgbouncer"
            )
        with socket.create_server(("127.0.0.1", 0)) as probe:
            self.port = probe.getsockname()[1]
        (directory / "users").write_text(f'"{self._user}" "{self._password}"\n')
        (directory / "ini").write_text(
            CONFIGURATION.format(
                host=self._host,
                port=self._port,
                listen=self.port,
                directory=directory,
                mode=self._mode,
                size=self._size,
                user=self._user,
            )
        )
        command = [program, str(directory / "ini")]
        if sys.platform == "linux":  # whatever ends the tests ends the pooler
            command = ["setpriv", "--pdeathsig", "KILL", *command]
        with (directory / "log").open("wb") as log:
            return subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd="/",
                start_new_session=True,  # the terminal's Ctrl-C is for the tests alone
                **_somebody(directory),
            )

    def _answers(self) -> bool:
        """Wait for the pooler's port; False when it ended or was silent for too long."""
        assert self._process
        deadline = time.monotonic() + START_SECONDS
        while self._process.poll() is None and time.monotonic() < deadline:
            with (
                contextlib.suppress(OSError),
                socket.create_connection(("127.0.0.1", self.port), timeout=1),
            ):
                return True
            time.sleep(0.01)
        return False


def _somebody(directory: Path) -> dict[str, Any]:
    """Hand the directory to a user that PgBouncer runs as, since it refuses root."""
    if os.geteuid() != 0:
        return {}
    nobody = pwd.getpwnam("nobody")
    for path in (directory, *directory.iterdir()):
        os.chown(path, nobody.pw_uid, nobody.pw_gid)
    return {"user": nobody.pw_uid, "group": nobody.pw_gid, "extra_groups": []}
