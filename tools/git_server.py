"""A git remote on loopback: smart HTTP around git's own ``http-backend``.

``with GitServer(root) as server`` serves the bare repositories below ``root``;
``server.url("demo.git")`` is what one clones from and pushes to.
"""

import base64
import os
import shutil
import subprocess
import tempfile
import threading
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import IO, Self
from urllib.parse import unquote


class GitServer:
    """The server, running inside ``with``; ``auth`` is the one user and password it lets in."""

    def __init__(
        self, root: Path, *, receive_pack: bool = True, auth: tuple[str, str] | None = None
    ) -> None:
        self.root = root
        self.receive_pack = receive_pack
        self.auth = auth
        self._faults = 0
        self._lock = threading.Lock()
        self._http = _Server(("127.0.0.1", 0), _Handler)
        self._http.git = self
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.02,))

    def url(self, repository: str) -> str:
        """Return the address of a repository, without credentials."""
        return f"http://127.0.0.1:{self._http.server_port}/{repository}"

    def fail(self, requests: int) -> None:
        """Answer the next so many requests with 500."""
        with self._lock:
            self._faults = requests

    def take_fault(self) -> bool:
        """Say whether this request is one that is to fail, and count it."""
        with self._lock:
            due = self._faults > 0
            self._faults -= due
            return due

    def __enter__(self) -> Self:
        """Start to serve."""
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Stop, once the requests under way are answered."""
        self._http.shutdown()
        self._thread.join()
        self._http.server_close()


class _Server(ThreadingHTTPServer):
    daemon_threads = False  # so that server_close() waits for them
    git: GitServer

    def handle_error(self, *_: object) -> None:
        """A client that was killed hangs up; git on the other side reports all else."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"  # git sends large packs in chunks
    timeout = 30  # seconds a silent client may hold its thread
    server: _Server

    def do_GET(self) -> None:
        """Serve one request through ``git http-backend``."""
        with tempfile.TemporaryFile() as body:
            self._receive(body)
            body.seek(0)
            if not self._allowed():
                self._refuse(401, {"www-authenticate": 'Basic realm="git"'})
            elif self.server.git.take_fault():
                self._refuse(500, {})
            else:
                self._run_backend(body)

    do_POST = do_GET

    def _receive(self, body: IO[bytes]) -> None:
        """Take the whole body, so that an early answer never meets a client still sending."""
        if self.headers.get("transfer-encoding", "").lower() != "chunked":
            body.write(self.rfile.read(int(self.headers.get("content-length", 0))))
            return
        while size := int(self.rfile.readline().partition(b";")[0], 16):
            body.write(self.rfile.read(size))
            self.rfile.readline()
        while self.rfile.readline().strip():
            pass  # trailers

    def _allowed(self) -> bool:
        auth = self.server.git.auth
        if auth is None:
            return True
        expected = base64.b64encode(":".join(auth).encode()).decode()
        return self.headers.get("authorization") == f"Basic {expected}"

    def _refuse(self, status: int, headers: dict[str, str]) -> None:
        self.send_response(status)
        self._finish_headers(headers | {"content-length": "0"})

    def _finish_headers(self, headers: dict[str, str]) -> None:
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("connection", "close")  # ends a body whose length nobody knows
        self.end_headers()

    def _run_backend(self, body: IO[bytes]) -> None:
        with subprocess.Popen(
            [_backend()], stdin=body, stdout=subprocess.PIPE, env=self._environment()
        ) as backend:
            assert backend.stdout is not None
            headers: dict[str, str] = {}
            while line := backend.stdout.readline().decode().strip():
                name, _, value = line.partition(":")
                headers[name.lower()] = value.strip()
            self.send_response(int(headers.pop("status", "200").split()[0]))
            self._finish_headers(headers)
            shutil.copyfileobj(backend.stdout, self.wfile)

    def _environment(self) -> dict[str, str]:
        path, _, query = self.path.partition("?")
        git = self.server.git
        return {
            "PATH": os.environ["PATH"],
            "GIT_CONFIG_NOSYSTEM": "1",
            "GIT_CONFIG_GLOBAL": os.devnull,
            "GIT_CONFIG_COUNT": "1",
            "GIT_CONFIG_KEY_0": "http.receivepack",
            "GIT_CONFIG_VALUE_0": str(git.receive_pack).lower(),
            "GIT_HTTP_EXPORT_ALL": "1",
            "GIT_PROJECT_ROOT": str(git.root),
            "GIT_PROTOCOL": self.headers.get("git-protocol", ""),
            "HTTP_CONTENT_ENCODING": self.headers.get("content-encoding", ""),
            "CONTENT_TYPE": self.headers.get("content-type", ""),
            "PATH_INFO": unquote(path),
            "QUERY_STRING": query,
            "REMOTE_ADDR": self.client_address[0],
            "REMOTE_USER": git.auth[0] if git.auth else "",
            "REQUEST_METHOD": self.command,
        }

    def log_message(self, *_: object) -> None:
        """Stay silent: git tells its user what happened."""


@cache
def _backend() -> str:
    """Return the program ``git http-backend``; started without ``git`` it is one process less."""
    command = ["git", "--exec-path"]
    found = subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    return str(Path(found) / "git-http-backend")
