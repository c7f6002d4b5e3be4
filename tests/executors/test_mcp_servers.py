"""Calls of servers that others wrote: they answer us as they do any other client.

``tools/test_mcp_servers.py`` installs them, from PyPI and npm, and runs this.
"""

import json
import os
import shutil
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from mcp_bench import Bench, work_off
from waiting import eventually

import moonmind_queue
from moonmind_queue.executors import Block, Fail, Retry

NOON = {"source_timezone": "UTC", "time": "12:00", "target_timezone": "Asia/Kolkata"}
MARS = NOON | {"target_timezone": "Mars/Olympus"}


@pytest.fixture(scope="module")
def mcp_servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Any]]:
    """The servers by name, limited to what they are called for."""
    folder = Path(os.environ["MOONMIND_TEST_MCP_SERVERS"])
    path = os.pathsep.join([str(folder / "python" / "bin"), str(folder / "node_modules" / ".bin")])
    found = {
        name: shutil.which(f"mcp-server-{name}", path=path)
        for name in ("time", "git", "filesystem", "everything")
    }
    data = tmp_path_factory.mktemp("data")
    with served(str(found["everything"])) as address:
        yield {
            "time": {
                "command": found["time"],
                "args": ["--local-timezone", "UTC"],
                "tools": ["convert_time"],
            },
            "git": {"command": found["git"], "tools": ["git_log", "git_status"]},
            "files": {"command": found["filesystem"], "args": [str(data)]},
            "everything": {"command": found["everything"], "args": ["stdio"]},
            "everything, by HTTP": {"url": f"{address}/mcp"},
        }


@contextmanager
def served(program: str) -> Iterator[str]:
    """Run the server of everything over streamable HTTP; yields its address."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    environ = {"PATH": os.environ["PATH"], "PORT": str(port)}
    with subprocess.Popen([program, "streamableHttp"], env=environ) as server:
        try:
            eventually(lambda: server.poll() is not None or listens(port), within=60)
            yield f"http://127.0.0.1:{port}"
        finally:
            server.kill()


def listens(port: int) -> bool:
    """Say whether somebody listens."""
    with suppress(OSError), socket.create_connection(("127.0.0.1", port)):
        return True
    return False


@pytest.fixture
def bench(tmp_path: Path, mcp_servers: dict[str, Any]) -> Bench:
    """An executor that knows the servers."""
    return Bench(tmp_path, mcp_servers)


def test_the_time_server(bench: Bench) -> None:
    """mcp-server-time converts a time; its answer is JSON in a text."""
    ended = bench.call("convert_time", NOON, server="time")
    answer = json.loads(ended.context.files["content/0.txt"])
    assert answer["time_difference"] == "+5.5h"
    assert answer["target"]["datetime"].endswith("T17:30:00+05:30")


def test_the_time_server_refuses(bench: Bench) -> None:
    """What it cannot do comes in its words, and since it only looks it may be asked again.

    What lacks is found before the call, and a tool that is not allowed before the start.
    """
    assert "Mars/Olympus" in bench.call("convert_time", MARS, server="time").raised(Retry)
    words = bench.call("convert_time", {"time": "12:00"}, server="time").raised(Fail)
    assert "arguments: 'source_timezone' is a required property" in words
    ended = bench.call("get_current_time", {"timezone": "UTC"}, server="time")
    assert "allowed are: convert_time" in ended.raised(Block)


def test_the_git_server(bench: Bench) -> None:
    """mcp-server-git reads the history of a repository on this machine."""
    repository = bench.folder / "repository"
    identity = ["-c", "user.name=Ada", "-c", "user.email=ada@example.org"]
    for command in (
        ["init", "--quiet", "--initial-branch=main", str(repository)],
        ["-C", str(repository), *identity, "commit", "--quiet", "--allow-empty", "-m", "Begin"],
    ):
        subprocess.run(["git", *command], check=True, env={"PATH": os.environ["PATH"]})

    status = bench.call("git_status", {"repo_path": str(repository)}, server="git")
    log = bench.call("git_log", {"repo_path": str(repository)}, server="git")

    assert "nothing to commit" in status.result["text"]
    assert "Begin" in log.result["text"]


@pytest.mark.parametrize("server", ["everything", "everything, by HTTP"])
def test_the_server_of_everything(bench: Bench, server: str) -> None:
    """Text, structured content, a picture, a resource and progress, by either transport."""
    echo = bench.call("echo", {"message": "grüß dich"}, server=server)
    assert "grüß dich" in echo.result["text"]

    weather = bench.call("get-structured-content", {"location": "New York"}, server=server)
    assert weather.result["structured"].keys() == {"temperature", "conditions", "humidity"}
    assert "warning" not in weather.result

    picture = bench.call("get-tiny-image", server=server).context
    [name] = [each for each in picture.files if each.endswith(".png")]
    assert picture.files[name].startswith(b"\x89PNG")

    resource = bench.call("get-resource-reference", {"resourceId": 1}, server=server).context
    assert b"Resource 1" in resource.files["content/1.txt"]

    long = bench.call(
        "trigger-long-running-operation", {"duration": 0.2, "steps": 2}, server=server
    )
    assert ("info", "progress 2/2", {"progress": 2, "total": 2}) in long.context.events


def test_the_server_of_files(bench: Bench, mcp_servers: dict[str, Any]) -> None:
    """A file is written and read; one outside of its folder is refused in its words."""
    path = Path(mcp_servers["files"]["args"][0], "note.txt")
    arguments = {"path": str(path), "content": "kept"}
    assert bench.call("write_file", arguments, server="files").result["status"] == "ok"
    assert path.read_text() == "kept"
    read = bench.call("read_text_file", {"path": str(path)}, server="files")
    assert read.result["text"] == "kept"
    outside = bench.call("read_text_file", {"path": "/etc/hostname"}, server="files")
    assert "outside allowed directories" in outside.raised(Retry)


def test_a_dag_calls_them(fresh: str, tmp_path: Path, mcp_servers: dict[str, Any]) -> None:
    """A worker of Agentmux does the tasks of a DAG with them; the answers are artifacts."""
    call = {"kind": "mcp-call"}
    tasks = {
        "ask:time": {**call, "server": "time", "tool": "convert_time", "arguments": NOON},
        "ask:image": {**call, "server": "everything, by HTTP", "tool": "get-tiny-image"},
    }

    work_off(fresh, tmp_path, mcp_servers, tasks)

    with moonmind_queue.connect(fresh) as queue:
        jobs = {job.key: job for job in queue.list_jobs()}
        assert {key: job.state for key, job in jobs.items()} == dict.fromkeys(tasks, "succeeded")
        [picture] = [a for a in queue.artifacts(jobs["ask:image"].id) if a.name.endswith(".png")]
        content = b"".join(queue.read_artifact(picture))
    assert content.startswith(b"\x89PNG")
    [copy] = (tmp_path / "artifacts").rglob("*.png")
    assert copy.read_bytes() == content
