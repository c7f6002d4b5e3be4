"""A stand-in for GitHub on a unix socket, as far as ``gh pr list`` and ``gh pr create`` ask it:

    with GitHubServer(folder) as github:
        subprocess.run(["gh", ...], env={"GH_CONFIG_DIR": str(github.config), "GH_TOKEN": "x"})

``gh`` speaks plain HTTP to it (its setting ``http_unix_socket``), so the real client runs with no
network. As GitHub does, it refuses a second open pull request from one branch.
"""

import json
import threading
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from socketserver import ThreadingUnixStreamServer
from typing import Any, Self


@dataclass(frozen=True, slots=True)
class PullRequest:
    """What was asked for."""

    number: int
    repository: str
    base: str
    head: str
    title: str
    body: str
    draft: bool

    @property
    def url(self) -> str:
        """Its address."""
        return f"https://github.com/{self.repository}/pull/{self.number}"


class GitHubServer:
    """The server, running inside ``with``; ``pull_requests`` are those made so far."""

    def __init__(self, folder: Path) -> None:
        self.pull_requests: list[PullRequest] = []
        self.tokens: set[str] = set()
        self.config = folder / "gh"
        self.config.mkdir(parents=True)
        socket = folder / "github.sock"
        (self.config / "config.yml").write_text(f"http_unix_socket: {socket}\n")
        self._fault: tuple[int, str] | None = None
        self._hang_up = False
        self._lock = threading.Lock()
        self._http = _Server(str(socket), _Handler)
        self._http.github = self
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.02,))

    def fail(self, status: int, message: str) -> None:
        """Answer every request so from now on; 200 stands for an error that GraphQL reports."""
        self._fault = (status, message)

    def mend(self) -> None:
        """Answer again."""
        self._fault = None

    def hang_up(self) -> None:
        """Make the next pull request, and hang up instead of saying so."""
        self._hang_up = True

    def answer_rest(self) -> tuple[int, Any]:
        """Return status and answer to a request of ``gh auth``: what the token may do."""
        status, message = self._fault or (200, "")
        return status, {"message": message} if status != 200 else {}

    def answer(self, query: str, variables: dict[str, Any]) -> tuple[int, Any] | None:
        """Return status and answer to one request; None is none at all."""
        with self._lock:
            if self._fault is not None:
                status, message = self._fault
                errors = [{"message": message, "type": "UNPROCESSABLE"}]
                return status, {"message": message} if status != 200 else {"errors": errors}
            if "mutation PullRequestCreate" in query:
                return self._create(variables["input"])
            if "query UserCurrent" in query:
                return 200, {"data": {"viewer": {"login": "ada"}}}
            repository = f"{variables['owner']}/{variables.get('repo') or variables.get('name')}"
            data = self._repository(repository, variables)
            return 200, {"data": {"repository": data}}

    def _create(self, asked: dict[str, Any]) -> tuple[int, Any] | None:
        repository, head = asked["repositoryId"], asked["headRefName"]
        if any((each.repository, each.head) == (repository, head) for each in self.pull_requests):
            message = f"A pull request already exists for {head}."
            return 200, {"errors": [{"message": message, "type": "UNPROCESSABLE"}]}
        made = PullRequest(
            number=len(self.pull_requests) + 1,
            repository=repository,
            base=asked["baseRefName"],
            head=head,
            title=asked["title"],
            body=asked["body"],
            draft=asked["draft"],
        )
        self.pull_requests.append(made)
        if self._hang_up:
            self._hang_up = False
            return None
        answer = {"id": str(made.number), "url": made.url}
        return 200, {"data": {"createPullRequest": {"pullRequest": answer}}}

    def _repository(self, name: str, variables: dict[str, Any]) -> dict[str, Any]:
        head = variables.get("headBranch") or variables.get("headRefName")
        found = [{"url": each.url} for each in self.pull_requests if each.head == head]
        owner, _, short = name.partition("/")
        return {
            "id": name,
            "name": short,
            "owner": {"login": owner},
            "viewerPermission": "WRITE",
            "defaultBranchRef": {"name": "main"},
            "parent": None,
            "pullRequests": {
                # Those that gh compares with what it is about to make; it is to ask by creating.
                "nodes": found if "headBranch" in variables else [],
                "totalCount": len(found),
                "pageInfo": {"hasNextPage": False, "endCursor": ""},
            },
        }

    def __enter__(self) -> Self:
        """Start to serve."""
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Stop."""
        self._http.shutdown()
        self._thread.join()
        self._http.server_close()


class _Server(ThreadingUnixStreamServer):
    daemon_threads = True
    github: GitHubServer

    def get_request(self) -> tuple[Any, Any]:
        """Return a connection, whose other end has no address."""
        connection, _ = super().get_request()
        return connection, ("unix", 0)

    def handle_error(self, *_: object) -> None:
        """A client that was killed hangs up."""


class _Handler(BaseHTTPRequestHandler):
    timeout = 30
    server: _Server

    def log_message(self, *_: Any) -> None:
        """Say nothing."""

    def do_POST(self) -> None:
        """Answer one GraphQL request."""
        asked = json.loads(self.rfile.read(int(self.headers["content-length"])))
        self.server.github.tokens.add(self.headers.get("authorization", ""))
        answer = self.server.github.answer(asked["query"], asked.get("variables") or {})
        if answer is None:
            self.close_connection = True
            return
        self._send(*answer)

    def do_GET(self) -> None:
        """Answer what is asked of a token."""
        self.server.github.tokens.add(self.headers.get("authorization", ""))
        self._send(*self.server.github.answer_rest())

    def _send(self, status: int, body: Any) -> None:
        content = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("x-oauth-scopes", "repo, read:org, gist")
        self.send_header("content-length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)
