"""Calls of servers that others wrote, from PyPI: they answer us as they do any other client."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from mcp_bench import Bench

from moonmind_queue.executors import Fail

PACKAGES = ["mcp-server-time==2026.10.19", "mcp-server-git==2026.10.19"]


@pytest.fixture(scope="module")
def programs(pytestconfig: pytest.Config) -> Path:
    """The folder of the servers' programs: an environment of their own, made once."""
    assert pytestconfig.cache is not None
    folder = pytestconfig.cache.mkdir("-".join(PACKAGES).replace("=", ""))
    if not (folder / "ok").exists():
        python = str(folder / "bin" / "python")
        subprocess.run([sys.executable, "-m", "venv", "--clear", str(folder)], check=True)
        pip = [python, "-m", "pip", "install", "--quiet"]
        if importlib.util.find_spec("uv"):  # does the same in a fifth of the time
            pip = [sys.executable, "-m", "uv", "pip", "install", "--quiet", "--python", python]
        subprocess.run([*pip, *PACKAGES], check=True)
        (folder / "ok").touch()
    return folder / "bin"


@pytest.fixture
def bench(tmp_path: Path, programs: Path) -> Bench:
    """An executor that knows the servers, each limited to what it is called for."""
    return Bench(
        tmp_path,
        {
            "time": {
                "command": str(programs / "mcp-server-time"),
                "args": ["--local-timezone", "UTC"],
                "tools": ["convert_time"],
            },
            "git": {
                "command": str(programs / "mcp-server-git"),
                "tools": ["git_log", "git_status"],
            },
        },
    )


def test_the_time_server(bench: Bench) -> None:
    """mcp-server-time converts a time; its answer is JSON in a text."""
    arguments = {
        "source_timezone": "UTC", "time": "12:00", "target_timezone": "Asia/Kolkata",
    }  # fmt: skip
    ended = bench.call("convert_time", arguments, server="time")
    answer = json.loads(ended.context.files["content/0.txt"])
    assert answer["time_difference"] == "+5.5h"
    assert answer["target"]["datetime"].endswith("T17:30:00+05:30")


def test_the_time_server_refuses(bench: Bench) -> None:
    """What mcp-server-time cannot do fails the job in its words; what lacks is found before."""
    arguments = {"source_timezone": "UTC", "time": "12:00", "target_timezone": "Nowhere/Else"}
    words = bench.call("convert_time", arguments, server="time").raised(Fail)
    assert "Nowhere/Else" in words
    del arguments["time"]
    words = bench.call("convert_time", arguments, server="time").raised(Fail)
    assert "arguments: 'time' is a required property" in words


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
