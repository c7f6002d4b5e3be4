"""Our MCP servers as processes of their own, driven by the official client over both transports."""

import json
import os
import re
import secrets
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import ExitStack, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import httpx2
import psycopg
import pytest
from anyio.from_thread import BlockingPortal, start_blocking_portal
from mcp import Client, StdioServerParameters, stdio_client
from mcp.client.streamable_http import streamable_http_client
from waiting import eventually

import moonmind_queue
from moonmind_queue import Queue, roles

COMMAND = str(Path(sys.executable).with_name("moonmind-queue"))


@dataclass(frozen=True)
class Peer:
    """A client that is connected to one of our servers; ``log`` is what the server has logged."""

    portal: BlockingPortal
    client: Client
    log: Path

    def tools(self) -> list[Any]:
        """List the tools."""
        return list(self._wait(self.client.list_tools)().tools)

    def call(self, tool: str, **arguments: Any) -> Any:
        """Call a tool and return what it answers, which text and structured content agree on."""
        return self.start(tool, **arguments)()

    def start(self, tool: str, **arguments: Any) -> Callable[[], Any]:
        """Call a tool and go on; gives what waits for its answer."""
        wait = self._wait(self.client.call_tool, tool, arguments)
        return lambda: self._answer(wait())

    def refused(self, tool: str, **arguments: Any) -> tuple[str, str]:
        """Call a tool that refuses, and return the code and the message."""
        result = self._wait(self.client.call_tool, tool, arguments)()
        assert result.is_error, result.structured_content
        body = result.structured_content
        assert json.loads(result.content[0].text) == body
        assert list(body) == ["ok", "code", "message"]
        assert body["ok"] is False
        return body["code"], body["message"]

    def permits(self, tool: str, **arguments: Any) -> bool:
        """Call a tool, and say whether it did not refuse."""
        return not self._wait(self.client.call_tool, tool, arguments)().is_error

    def _wait(self, method: Callable[..., Any], *arguments: Any) -> Callable[[], Any]:
        """Begin a request; gives what waits for its result, but not for ever."""
        future: Future[Any] = self.portal.start_task_soon(method, *arguments)
        return partial(future.result, timeout=60)

    @staticmethod
    def _answer(result: Any) -> Any:
        assert not result.is_error, result.structured_content
        answer = json.loads(result.content[0].text)
        whole = answer if isinstance(answer, dict) else {"result": answer}
        assert result.structured_content == whole
        return answer


class Station:
    """Starts servers on one database and one home, and connects clients to them."""

    command = COMMAND

    def __init__(self, dsn: str, folder: Path, portal: BlockingPortal, stack: ExitStack) -> None:
        self.dsn, self.home = dsn, folder / "home"
        self._folder, self._portal, self._stack = folder, portal, stack

    def peer(
        self, profile: str, transport: str = "stdio", *options: str, **environment: str
    ) -> Peer:
        """Start a server and connect a client to it."""
        if transport == "http":
            token = secrets.token_urlsafe(32)
            url, log = self.web(
                profile, "--token-env", "TOKEN", *options, TOKEN=token, **environment
            )
            connecting = over_http(url, token)
        else:
            log = self._folder / f"{uuid.uuid4().hex}.log"
            server = StdioServerParameters(
                command=COMMAND,
                args=["mcp", "--profile", profile, *options],
                env=self.environment(**environment),
                cwd=self._folder,
            )
            errors = self._stack.enter_context(log.open("w"))
            connecting = Client(stdio_client(server, errlog=errors))
        client = self._stack.enter_context(self._portal.wrap_async_context_manager(connecting))
        return Peer(self._portal, client, log)

    def web(self, profile: str, *options: str, **environment: str) -> tuple[str, Path]:
        """Start a server on a free port; return its URL and its log."""
        log = self._folder / f"{uuid.uuid4().hex}.log"
        self.process(log, "--profile", profile, "--http", "--port", "0", *options, **environment)
        return self.url(log), log

    @staticmethod
    def url(log: Path) -> str:
        """Wait until a server can be called."""
        serving = re.compile(r"^serving \w+ at (\S+)$", re.M)
        found = eventually(lambda: serving.search(log.read_text()), within=60)
        return str(found[1])

    def process(
        self,
        log: Path,
        *arguments: str,
        program: Sequence[str] = (COMMAND,),
        **environment: str,
    ) -> "subprocess.Popen[bytes]":
        """Start the command; it is ended after the test."""
        with log.open("wb") as errors:
            process = subprocess.Popen(
                [*program, "mcp", *arguments],
                env=self.environment(**environment),
                cwd=self._folder,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=errors,
            )
        self._stack.callback(process.wait)
        self._stack.callback(process.kill)
        return process

    def environment(self, **more: str) -> dict[str, str]:
        """Return what a server finds in its environment; an empty variable counts as unset."""
        return {
            "PATH": os.environ["PATH"],
            "HOME": str(self._folder),
            "DATABASE_URL": self.dsn,
            "MOONMIND_AGENTMUX_HOME": str(self.home),
            **more,
        }


@asynccontextmanager
async def over_http(url: str, token: str) -> Any:
    """Connect a client to a server that wants a token."""
    headers = {"authorization": f"Bearer {token}"}
    async with (
        httpx2.AsyncClient(headers=headers, trust_env=False, timeout=30) as http,
        Client(streamable_http_client(url, http_client=http)) as client,
    ):
        yield client


@pytest.fixture(scope="session")
def portal() -> Iterator[BlockingPortal]:
    """An event loop in a thread, for clients."""
    with start_blocking_portal() as portal:
        yield portal


@pytest.fixture(scope="module")
def station(
    create_database: Callable[..., str],
    template: str,
    tmp_path_factory: pytest.TempPathFactory,
    portal: BlockingPortal,
) -> Iterator[Station]:
    """Servers that the tests of a module share: a start takes as long as fifty calls."""
    with ExitStack() as stack:
        yield Station(create_database(template), tmp_path_factory.mktemp("mcp"), portal, stack)


@pytest.fixture
def own(fresh: str, tmp_path: Path, portal: BlockingPortal) -> Iterator[Station]:
    """Servers of one test, on a database that no other test sees."""
    with ExitStack() as stack:
        yield Station(fresh, tmp_path, portal, stack)


@pytest.fixture(scope="module", params=["stdio", "http"])
def transport(request: pytest.FixtureRequest) -> str:
    """How client and server are connected: the test runs once for each."""
    return str(request.param)


@pytest.fixture(scope="module")
def database(station: Station) -> Iterator[Queue]:
    """A client on the database of the module's servers; what it does is committed at once."""
    with moonmind_queue.connect(station.dsn) as queue:
        yield queue


@pytest.fixture
def connected(fresh: str) -> Iterator[Queue]:
    """A client on the database of this test's servers."""
    with moonmind_queue.connect(fresh) as queue:
        yield queue


@dataclass(frozen=True)
class Tasks:
    """Tasks of one test, under ids that no other test has, for an agent of its own."""

    queue: Queue
    mark: str

    def id(self, word: str) -> str:
        """Return the id of a task."""
        return f"{self.mark}:{word}"

    def seed(self, *words: str, **needs: str) -> str:
        """Make tasks; a name with a value waits for that one. Return the id of the first."""
        specs = [{"id": self.id(each), "name": each, "agent": self.mark} for each in words]
        specs += [
            {"id": self.id(each), "agent": self.mark, "deps": [self.id(other)]}
            for each, other in needs.items()
        ]
        self.queue.seed_dag(specs, "test", self.mark)
        return str(specs[0]["id"])

    def row(self, task: str) -> dict[str, Any]:
        """Return a task as the database shows it."""
        [row] = self.queue.select(
            "select * from moonmind_queue.agentmux_task where id = %(task)s", task=task
        )
        return row

    def events(self, task: str) -> list[dict[str, Any]]:
        """Return a task's events."""
        return self.queue.select(
            "select type, worker_id, payload from moonmind_queue.agentmux_event"
            " where task_id = %(task)s order by seq",
            task=task,
        )


@pytest.fixture
def tasks(database: Queue) -> Tasks:
    """Tasks in the database of the module's servers."""
    return Tasks(database, f"t{uuid.uuid4().hex[:8]}")


@pytest.fixture
def own_tasks(connected: Queue) -> Tasks:
    """Tasks in the database of this test's servers."""
    return Tasks(connected, "own")


@pytest.fixture
def login(fresh: str) -> Iterator[Callable[..., dict[str, str]]]:
    """Make a login of a kind, with a policy for a worker, on this test's database.

    Gives the variable that a server finds it in.
    """
    made: list[str] = []
    with psycopg.connect(fresh, autocommit=True) as admin:

        def make(kind: str, **policy: Any) -> dict[str, str]:
            name = f"mq_test_{uuid.uuid4().hex[:12]}"
            new = roles.create_role(admin, kind, name, **policy)
            made.append(name)
            return {"DATABASE_URL": new.database_url}

        yield make
        for name in made:
            roles.revoke_role(admin, name)
