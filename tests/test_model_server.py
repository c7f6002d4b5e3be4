"""The real Codex CLI takes the scripted model for a model."""

import json
import os
import subprocess
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest
from codex_cli_bin import bundled_codex_path
from model_server import (
    FAKE_KEY,
    MODEL,
    ModelServer,
    drop,
    hang,
    http_error,
    instruction,
    make_codex_home,
    patch,
    say,
    shell,
)

CODEX = bundled_codex_path()
EDIT = """\
*** Begin Patch
*** Update File: greeting.txt
@@
-helo
+hello
*** End Patch"""


@dataclass(frozen=True)
class Run:
    """How one ``codex exec`` ended."""

    exit_code: int
    events: list[dict]

    @property
    def fault(self) -> str:
        """The message of the failed turn."""
        return self.events[-1]["error"]["message"]


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """Return where the runs of a test keep Codex's state."""
    return tmp_path / "home"


@pytest.fixture
def start(tmp_path: Path, home: Path) -> Callable[..., subprocess.Popen[str]]:
    """Start ``codex exec`` in a checkout with one file, told to do something."""

    def run(name: str = "checkout") -> subprocess.Popen[str]:
        checkout = tmp_path / name
        subprocess.run(["git", "init", "-q", checkout], check=True)
        (checkout / "greeting.txt").write_text("helo\n")
        return subprocess.Popen(
            [CODEX, "exec", "--json", "-s", "workspace-write", "-C", checkout, f"Edit {name}."],
            env={"PATH": os.environ["PATH"], "HOME": str(home), "CODEX_HOME": str(home)},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )

    return run


def finish(process: subprocess.Popen[str]) -> Run:
    """Wait for a run and read its events."""
    with process:
        try:
            output, _ = process.communicate(timeout=60)
        finally:
            process.kill()
    return Run(process.returncode, [json.loads(line) for line in output.splitlines()])


def test_a_script_is_carried_out(tmp_path, home, start):
    """Codex really runs the commands and makes the edits, turn after turn."""
    script = [
        [say("I look."), shell("cat greeting.txt"), shell("exit 3")],
        [patch(EDIT)],
        [say("Mended.")],
    ]

    with ModelServer(script) as model:
        make_codex_home(home, model.base_url, CODEX)
        run = finish(start())

    items = [e["item"] for e in run.events if e["type"] == "item.completed"]
    assert run.exit_code == 0
    assert (tmp_path / "checkout" / "greeting.txt").read_text() == "hello\n"
    assert [item["type"] for item in items] == [
        "agent_message",
        "command_execution",
        "command_execution",
        "file_change",
        "agent_message",
    ]
    assert sorted(item["exit_code"] for item in items if "exit_code" in item) == [0, 3]
    assert [request.authorization for request in model.requests] == [f"Bearer {FAKE_KEY}"] * 3


def test_runs_share_a_server(tmp_path, home, start):
    """The instruction decides the script, and each run goes through its own at its own pace."""

    def script_for(body):
        name = instruction(body).removeprefix("Edit ").removesuffix(".")
        return [[shell(f"echo {name} > greeting.txt")], [say("Done.")]]

    names = ["one", "two", "three"]
    with ModelServer(script_for) as model, ThreadPoolExecutor() as pool:
        make_codex_home(home, model.base_url, CODEX)
        runs = list(pool.map(finish, [start(name) for name in names]))

    assert [run.exit_code for run in runs] == [0, 0, 0]
    assert [(tmp_path / n / "greeting.txt").read_text().strip() for n in names] == names


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        (http_error(401, "invalid_api_key", "no such key"), "status 401 Unauthorized: no such key"),
        (http_error(429, "insufficient_quota"), "Quota exceeded. Check your plan"),
        (http_error(429, "rate_limit_exceeded"), "last status: 429 Too Many Requests"),
        (http_error(500), "experiencing high demand"),
        (http_error(503, message="overloaded"), "status 503 Service Unavailable: overloaded"),
        (drop(), "stream closed before response.completed"),
    ],
)
def test_a_fault_ends_the_run(home, start, fault, message):
    """Codex tells each fault in its own words, and its exit code is 1."""
    with ModelServer([[fault]]) as model:
        make_codex_home(home, model.base_url, CODEX)
        run = finish(start())

    assert run.exit_code == 1
    assert message in run.fault


def test_an_edit_outlives_a_later_fault(tmp_path, home, start):
    """What was done before the stream broke stays done."""
    with ModelServer([[patch(EDIT)], [drop()]]) as model:
        make_codex_home(home, model.base_url, CODEX)
        run = finish(start())

    assert run.exit_code == 1
    assert (tmp_path / "checkout" / "greeting.txt").read_text() == "hello\n"


def test_closing_ends_a_hang(home, start):
    """A request that was left without any answer is let go when the server closes."""
    asked = threading.Event()

    def script_for(_body):
        asked.set()
        return [[hang()]]

    with ModelServer(script_for) as model:
        make_codex_home(home, model.base_url, CODEX)
        process = start()
        assert asked.wait(60)

    assert finish(process).exit_code == 1


def test_codexs_own_provider_finds_it(home, start):
    """Codex's built-in provider tries a WebSocket first, is sent back and goes on at once."""
    with ModelServer([[say("Hello.")]]) as model:
        make_codex_home(home, model.base_url, CODEX)
        own = f'model = "{MODEL}"\nopenai_base_url = "{model.base_url}"\n'
        (home / "config.toml").write_text(
            own + "features.plugins = false\nanalytics.enabled = false\n"
        )
        run = finish(start())

    assert run.exit_code == 0
    assert run.events[-2]["item"]["text"] == "Hello."


def test_codex_home_is_logged_in_and_private(home):
    """``codex login status`` is content, and nobody else can read the key."""
    make_codex_home(home, "http://127.0.0.1:9/v1", CODEX)

    status = subprocess.run(
        [CODEX, "login", "status"], env={"CODEX_HOME": str(home)}, capture_output=True, check=False
    )

    assert status.returncode == 0
    assert [oct(p.stat().st_mode & 0o777) for p in (home, home / "auth.json")] == ["0o700", "0o600"]


def test_a_script_that_is_too_short_says_so(home, start):
    """A run that asks for more turns than were written fails in words."""
    with ModelServer([[shell("true")], [shell("true")]]) as model:
        make_codex_home(home, model.base_url, CODEX)
        run = finish(start())

    assert run.exit_code == 1
    assert "the script ends after 2 turns" in run.fault
