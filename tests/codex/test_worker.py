"""The command ``moonmind-codex-worker``, with a real queue, the real Codex and the real git."""

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import press
import psycopg
import pytest
from codex_cli_bin import bundled_codex_path
from model_server import MODEL, ModelServer, make_codex_home, patch, say, shell

from moonmind_queue._daemon import stop_on_signals
from moonmind_queue.codex_worker.gh import GitHubUnavailable
from moonmind_queue.codex_worker.worker import CodexWorkerConfig
from moonmind_queue.errors import SettingsError
from moonmind_queue.queue import connect

COMMAND = [sys.executable, "-c", "from moonmind_queue.codex_worker.cli import main; main()"]
SCRIPT = [
    [patch("*** Begin Patch\n*** Add File: greeting.txt\n+hello\n*** End Patch")],
    [shell("cat greeting.txt")],
    [say("Done.")],
]


class Station:
    """The surroundings of a worker process."""

    def __init__(self, folder: Path, dsn: str) -> None:
        self.dsn, self.folder = dsn, folder
        self.environ = {
            "PATH": os.environ["PATH"],
            "HOME": os.environ["HOME"],
            "DATABASE_URL": dsn,
            "CODEX_HOME": str(folder / "codex"),
            "MOONMIND_WORKDIR": str(folder / "work"),
            "MOONMIND_WORKER_ID": "station",
        }

    def run(self, *arguments: str, **environ: str) -> "subprocess.CompletedProcess[str]":
        """Run the command to its end."""
        return subprocess.run(
            [*COMMAND, *arguments],
            env=self.environ | environ,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    def refused(self, *arguments: str, **environ: str) -> str:
        """Return why the worker did not start: one line, and nothing else."""
        ended = self.run(*arguments, **environ)
        assert ended.returncode == 1
        assert ended.stdout == ""
        [line] = ended.stderr.splitlines()
        return line.removeprefix("moonmind-codex-worker failed: ")

    def state(self, job: int) -> Any:
        """Return state and attempt of a job."""
        with psycopg.connect(self.dsn) as connection:
            query = "select state, attempt from moonmind_queue.job where id = %s"
            return connection.execute(query, [job]).fetchone()

    def wait(self, truth: Any) -> None:
        """Wait until something is true, for at most twenty seconds."""
        deadline = time.monotonic() + 20
        while not truth():
            assert time.monotonic() < deadline
            time.sleep(0.02)


@pytest.fixture
def station(tmp_path: Path, fresh: str) -> Station:
    """A worker's surroundings on a queue of its own, not logged in."""
    (tmp_path / "codex").mkdir()
    return Station(tmp_path, fresh)


@pytest.fixture
def logged_in(station: Station) -> Iterator[Station]:
    """The same, logged in at a scripted model."""
    with ModelServer(lambda body: slow_or_quick(body)) as model:
        home = Path(station.environ["CODEX_HOME"])
        home.rmdir()
        make_codex_home(home, model.base_url, bundled_codex_path())
        yield station


def slow_or_quick(body: dict[str, Any]) -> Any:
    """Do the usual, for ``Test.`` with a test; for ``Wait.`` nothing for a long time."""
    if "Wait." in str(body["input"]):
        return [[shell("sleep 600")], [say("late")]]
    test = [[shell("test -f greeting.txt")]] if "Test." in str(body["input"]) else []
    return [*SCRIPT[:2], *test, *SCRIPT[2:]]


def enqueue(station: Station, bench: Any, instruction: str = "Greet.") -> int:
    """Enqueue a job for the demo repository."""
    with connect(station.dsn) as queue:
        return queue.enqueue("codex_exec", bench.payload(instruction=instruction))


def test_help() -> None:
    """Help shows examples, and what a worker needs is not imported for it."""
    ended = subprocess.run([*COMMAND, "--help"], capture_output=True, text=True, check=True)
    assert "moonmind-codex-worker --once" in ended.stdout
    script = "import moonmind_queue.codex_worker.cli, sys; print(*sys.modules)"
    loaded = subprocess.check_output([sys.executable, "-c", script], text=True).split()
    assert not {"structlog", "pydantic_settings", "sqlalchemy", "alembic"} & set(loaded)


def test_version() -> None:
    """The version is the package's."""
    ended = subprocess.run([*COMMAND, "--version"], capture_output=True, text=True, check=True)
    assert ended.stdout.split()[-1].count(".") == 2


def test_settings_come_first(station: Station) -> None:
    """A bad setting is refused before anything is asked, by its name."""
    assert station.refused(DATABASE_URL="").startswith("DATABASE_URL is not set")
    assert station.refused(MOONMIND_LEASE_SECONDS="0", DATABASE_URL="postgresql://h:1/").startswith(
        "MOONMIND_LEASE_SECONDS: "
    )
    assert "unknown kind 'nonsense'" in station.refused("--kinds", "nonsense")


def test_then_the_database(station: Station) -> None:
    """A database that cannot be reached is refused next, and its password is not shown."""
    reason = station.refused(DATABASE_URL="postgresql://u:the-password@127.0.0.1:1/x", PATH="/none")
    assert "Connection refused" in reason
    assert "the-password" not in reason


def test_then_its_schema(station: Station, create_database: Any) -> None:
    """A database without a queue is refused with the command that makes one."""
    assert "moonmind-queue migrate" in station.refused(DATABASE_URL=create_database(), PATH="/none")


def test_then_codex(station: Station, tmp_path: Path) -> None:
    """A Codex that cannot be executed is refused before its login is asked for."""
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "codex").touch(mode=0o644)
    reason = station.refused(PATH=str(tmp_path / "bin"))
    assert reason == f"The 'codex' CLI was found at '{tmp_path}/bin/codex' but is not executable."


def test_then_its_login(station: Station) -> None:
    """Without a login there is no worker, and nothing is claimed."""
    assert station.refused().startswith("codex login status failed: ")


def test_noop_needs_no_codex(station: Station) -> None:
    """A worker for ``noop`` alone does not ask for Codex."""
    with connect(station.dsn) as queue:
        job = queue.enqueue("noop", {"seconds": 0})
    assert station.run("--once", "--kinds", "noop", PATH="/none").returncode == 0
    assert station.state(job) == ("succeeded", 1)


def test_once_without_a_job(logged_in: Station) -> None:
    """``--once`` ends well when there is nothing to do."""
    assert logged_in.run("--once").returncode == 0


def test_once(logged_in: Station, bench: Any) -> None:
    """``--once`` takes one job from claim to result, with its artifacts and history."""
    first, second = enqueue(logged_in, bench), enqueue(logged_in, bench)
    ended = logged_in.run("--once", MOONMIND_CODEX_MODEL=MODEL)
    assert ended.returncode == 0, ended.stderr
    assert logged_in.state(first) == ("succeeded", 1)
    assert logged_in.state(second) == ("queued", 0)
    with psycopg.connect(logged_in.dsn) as connection:
        query = "select name from moonmind_queue.artifact where job_id = %s order by name"
        names = [name for (name,) in connection.execute(query, [first])]
        query = "select result from moonmind_queue.job where id = %s"
        [result] = connection.execute(query, [first]).fetchone() or [None]
    assert names == [
        "last_message.md",
        "logs/codex_events.jsonl",
        "logs/codex_exec.log",
        "patches/changes.patch",
    ]
    assert sorted(result["artifacts"]) == names
    assert result["patch"]["files"] == 1


def test_a_replay_with_another_effort_is_compared(logged_in: Station, bench: Any) -> None:
    """What the real Codex did for a job and its replay stands side by side."""

    def ask(*words: str) -> Any:
        main = "from moonmind_queue.cli import main; main()"
        told = subprocess.check_output(
            [sys.executable, "-c", main, *words, "--json"], env=logged_in.environ, text=True
        )
        return json.loads(told)

    first = enqueue(logged_in, bench, "Test.")
    again = ask("replay", str(first), "--effort", "high")["id"]
    for _ in range(2):
        logged_in.run("--once", MOONMIND_CODEX_MODEL=MODEL)

    told = ask("compare", str(first), str(again))

    assert told["same_patch"] is True
    assert told["files"] == [
        {"file": "greeting.txt", **{side: {"insertions": 1, "deletions": 0} for side in "ab"}}
    ]
    for side, effort in (("a", None), ("b", "high")):
        facts = told[side]
        assert (facts["state"], facts["effect"], facts["effort"]) == (
            *("succeeded", "changes", effort),
        )
        assert (facts["model"], facts["attempts"], facts["exit_code"]) == (MODEL, 1, 0)
        assert facts["tests"] == {"command": "test -f greeting.txt", "exit_code": 0}
        assert facts["commands"] == {"ran": 2, "succeeded": 2}
        assert facts["input_tokens"] > 0
        assert facts["running"] > 0


def test_other_agents_jobs_stay(logged_in: Station, bench: Any) -> None:
    """Jobs of other agents are taken only by a worker that was told to."""
    with connect(logged_in.dsn) as queue:
        job = queue.enqueue("noop", {"seconds": 0}, agent="claude")
    logged_in.run("--once")
    assert logged_in.state(job) == ("queued", 0)
    logged_in.run("--once", "--agents", "codex, claude")
    assert logged_in.state(job) == ("succeeded", 1)


@pytest.fixture
def busy(logged_in: Station, bench: Any) -> Iterator["tuple[subprocess.Popen[bytes], int]"]:
    """A worker whose Codex runs a command that takes long."""
    job = enqueue(logged_in, bench, "Wait.")
    with subprocess.Popen(
        COMMAND, env=logged_in.environ | {"MOONMIND_CODEX_MODEL": MODEL}, stderr=subprocess.DEVNULL
    ) as worker:
        try:
            logged_in.wait(lambda: "sleep" in commands_of(logged_in))
            yield worker, job
        finally:
            worker.kill()


def commands_of(station: Station) -> set[str]:
    """Return the names of the processes that work in the station's directory."""
    found = set()
    for each in Path("/proc").glob("[0-9]*"):
        try:
            if station.environ["MOONMIND_WORKDIR"] in os.readlink(each / "cwd"):  # noqa: PTH115
                found.add((each / "comm").read_text().strip())
        except OSError:
            continue
    return found


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signal_hands_back(
    logged_in: Station, busy: "tuple[subprocess.Popen[bytes], int]", number: signal.Signals
) -> None:
    """A signal ends the worker well; its job is queued as if it had not been taken."""
    worker, job = busy
    worker.send_signal(number)
    assert worker.wait(timeout=15) == 0
    assert logged_in.state(job) == ("queued", 0)
    assert commands_of(logged_in) == set()


def test_second_signal_forces() -> None:
    """The first signal asks the worker to stop; the next one ends the process."""
    asked: list[str] = []
    before = {each: signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)}
    try:
        stop_on_signals(lambda: asked.append("stop"))
        signal.raise_signal(signal.SIGTERM)
        assert asked == ["stop"]
        assert {signal.getsignal(each) for each in before} == {signal.SIG_DFL}
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def test_killed_worker_leaves_no_codex(
    logged_in: Station, busy: "tuple[subprocess.Popen[bytes], int]"
) -> None:
    """SIGKILL of the worker ends Codex and what it runs; the next start cleans up."""
    worker, _ = busy
    worker.kill()
    logged_in.wait(lambda: commands_of(logged_in) == set())
    left = Path(logged_in.environ["MOONMIND_WORKDIR"])
    [attempt] = left.glob("*/1")
    os.utime(attempt, (0, 0))
    assert logged_in.run("--once", "--kinds", "noop").returncode == 0
    assert [each.name for each in left.iterdir()] == ["mirrors"]


def test_environment_is_hidden() -> None:
    """Another process of the same user cannot read the worker's environment from ``/proc``."""
    script = """
import ctypes, os, subprocess
from moonmind_queue.codex_worker import cli
from moonmind_queue._daemon import hide_environment
def readable():
    command = ["cat", f"/proc/{os.getpid()}/environ"]
    return subprocess.run(command, capture_output=True).returncode == 0
if os.getuid() == 0:
    os.setuid(65534)  # root reads everything; becoming somebody else hides too, so undo that
    ctypes.CDLL(None).prctl(4, 1)
before = readable()
hide_environment()
print(before, readable())
"""
    output = subprocess.check_output([sys.executable, "-c", script], text=True)
    assert output.split() == ["True", "False"]


def test_config(monkeypatch: pytest.MonkeyPatch) -> None:
    """The command line wins over the environment; neither shows the password."""
    monkeypatch.setenv("DATABASE_URL", "postgresql+psycopg://u:the-password@h/d")
    monkeypatch.setenv("MOONMIND_WORKER_ID", "from-environment")
    config = CodexWorkerConfig.load(worker_id=" from-command-line ", slots=3)
    assert (config.worker_id, config.slots) == ("from-command-line", 3)
    assert (config.agents, config.kinds) == (("codex",), ("codex_exec", "noop"))
    assert CodexWorkerConfig.load(worker_id=" ").worker_id == "from-environment"
    assert config.lease.total_seconds() == 120
    assert "the-password" not in repr(config)
    monkeypatch.setenv("MOONMIND_POLL_INTERVAL_MS", "soon")
    with pytest.raises(SettingsError, match="MOONMIND_POLL_INTERVAL_MS"):
        CodexWorkerConfig.load()


def programs(folder: Path, *names: str) -> str:
    """Return a PATH with these programs only."""
    path = folder / "programs"
    path.mkdir()
    for name in names:
        (path / name).symlink_to(str(shutil.which(name)))
    return str(path)


def test_doctor(logged_in: Station) -> None:
    """All that a worker needs, each with what was found; exit status 0 where nothing is missing."""
    ended = logged_in.run("doctor", "--json", MOONMIND_LISTEN_DATABASE_URL="none")
    found = json.loads(ended.stdout)
    assert (ended.returncode, [each["check"] for each in found if not each["ok"]]) == (0, [])
    assert [each["check"] for each in found] == [
        *("settings", "database", "schema", "notifications", "work folder", "git"),
        *("codex", "codex login", "codex sandbox", "local dirs", "gh"),
    ]
    assert "workspace-write" in ended.stdout


def test_doctor_shows_what_is_lent(logged_in: Station) -> None:
    """Each directory by its real path, and which of them nobody could work in."""
    (logged_in.folder / "site").mkdir()
    (logged_in.folder / "link").symlink_to("site")
    lent = [str(logged_in.folder / name) for name in ("link", "nowhere")]
    docs = {"path": str(logged_in.folder), "read_only": True}
    ended = logged_in.run("doctor", MOONMIND_CODEX_LOCAL_DIRS=json.dumps([*lent, docs]))
    assert ended.returncode == 1
    shown = [line for line in ended.stdout.splitlines() if line.startswith("local dirs")]
    assert [line[14:].split(maxsplit=1) for line in shown] == [
        ["ok", f"{logged_in.folder}/site, to be written"],
        [
            "wrong",
            f"{logged_in.folder}/nowhere is not a directory on this worker: mend that, or take it"
            " out of MOONMIND_CODEX_LOCAL_DIRS",
        ],
        ["ok", f"{logged_in.folder}, to be read"],
    ]


@pytest.mark.parametrize("value", ["site", '["site"]', '[{"path": "/", "write": 1}]', "[5]", "5"])
def test_directories_that_cannot_be_read_are_refused(station: Station, value: str) -> None:
    """By the name of the setting; nothing is lent by a slip."""
    reason = station.refused(MOONMIND_CODEX_LOCAL_DIRS=value)
    assert reason.startswith("MOONMIND_CODEX_LOCAL_DIRS")


def test_doctor_finds_what_is_wrong(station: Station) -> None:
    """Everything at once, with the way out, and no secret; exit status 1."""
    ended = station.run(
        "doctor",
        DATABASE_URL="postgresql://u:the-password@127.0.0.1:1/x",
        GITHUB_TOKEN="a-token-of-nobody",
        PATH=programs(station.folder, "true"),
    )
    assert ended.returncode == 1
    wrong = {line[:14].strip(): line for line in ended.stdout.splitlines() if " wrong " in line}
    assert {*wrong} == {"database", "schema", "notifications", "git", "codex login", "gh"}
    assert "git is not installed" in wrong["git"]
    assert "unset the token" in wrong["gh"]
    assert "the-password" not in ended.stdout
    assert "a-token-of-nobody" not in ended.stdout


@pytest.mark.parametrize(
    ("version", "status", "said"),
    [
        ("0.154.9", 1, "codex          wrong  The 'codex' CLI at '"),
        ("9.9.9", 0, "codex          warn   9.9.9 at /"),
    ],
)
def test_doctor_knows_the_versions_of_codex(
    logged_in: Station, version: str, status: int, said: str
) -> None:
    """One that is too old is wrong; of one that nobody has tried it only warns."""
    codex = logged_in.folder / "codex-of-another-time"
    codex.write_text(f"#!/bin/sh\n[ $1 != --version ] || echo codex-cli {version}\n")
    codex.chmod(0o755)
    ended = logged_in.run("doctor", MOONMIND_CODEX=str(codex))
    assert said in ended.stdout
    assert ended.returncode == status


def test_a_work_folder_that_cannot_be_written_is_found(station: Station) -> None:
    """With the setting that names another."""
    blocked = station.folder / "file"
    blocked.write_text("")
    ended = station.run("doctor", MOONMIND_WORKDIR=str(blocked / "work"))
    assert "set MOONMIND_WORKDIR" in ended.stdout


def test_gh_is_logged_in_before_the_first_claim(publishing: Any) -> None:
    """With the token on standard input; nothing of it is left, and gh and git are asked first."""
    executor = press.executor(publishing.surroundings)
    before = set(Path(tempfile.gettempdir()).iterdir())
    executor.check()
    assert publishing.github.tokens == {f"token {publishing.environ['GITHUB_TOKEN']}"}
    left = set(Path(tempfile.gettempdir()).iterdir()) - before
    assert not [each for each in left if each.name.startswith("moonmind-gh-")]


def test_a_token_that_is_refused_keeps_the_worker_from_starting(publishing: Any) -> None:
    """The token itself is not in the message."""
    publishing.github.fail(401, "Bad credentials")
    with pytest.raises(
        GitHubUnavailable, match="gh auth login failed with GITHUB_TOKEN"
    ) as refusal:
        press.executor(publishing.surroundings).check()
    assert publishing.environ["GITHUB_TOKEN"] not in str(refusal.value)


def test_a_token_without_gh_keeps_the_worker_from_starting(publishing: Any) -> None:
    """It says what to install, or to leave out."""
    publishing.environ["PATH"] = programs(publishing.folder, "git", "true")
    with pytest.raises(GitHubUnavailable, match="gh is not installed"):
        press.executor(publishing.surroundings).check()
