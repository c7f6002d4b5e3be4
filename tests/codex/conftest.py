"""A bench for ``codex_exec``: the real Codex and the real git, with servers of their own.

The context is made by hand; it stands for the worker, so no database is needed here.
"""

import hashlib
import os
import subprocess
import threading
import uuid
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import claimed_job
import pytest
from codex_cli_bin import bundled_codex_path
from git_server import GitServer
from github_server import GitHubServer
from model_server import MODEL, ModelServer, Script, make_codex_home
from publishing import SCRIPT, Publishing

from moonmind_queue import connect
from moonmind_queue.codex_worker.codex import Codex
from moonmind_queue.codex_worker.handlers import CodexExec
from moonmind_queue.codex_worker.publish import Identity
from moonmind_queue.executors import Outcome
from moonmind_queue.model import ClaimedJob, Tokens
from moonmind_queue.settings import LocalDirectory

LIMIT = 10 * 1024 * 1024
IDENTITY = Identity(name="Moonmind", email="moonmind@example.org")
GIT = ("git", "-c", "user.name=Ada", "-c", "user.email=ada@example.org")


@dataclass
class Recorder:
    """A context that keeps what it is given; ``refuse`` are names of artifacts it will not take."""

    stop: threading.Event = field(default_factory=threading.Event)
    events: list[tuple[str, str, Any]] = field(default_factory=list)
    lines: list[tuple[str, str, str]] = field(default_factory=list)
    files: dict[str, bytes] = field(default_factory=dict)
    refuse: dict[str, Exception] = field(default_factory=dict)
    counted: list[tuple[str, str | None, Tokens]] = field(default_factory=list)
    said: list[str] = field(default_factory=list)
    heard: list[str] = field(default_factory=list)
    on_progress: Callable[[str], None] = lambda _: None

    def progress(
        self, message: str, data: Mapping[str, Any] | None = None, *, level: str = "info"
    ) -> None:
        """Keep an event."""
        self.events.append((level, message, data))
        self.on_progress(message)

    def hear(self, *, everything: bool = False) -> list[str]:
        """Give what is there to be said."""
        heard = list(self.heard)
        said, self.said = self.said, []
        self.heard += said
        return [*heard, *said] if everything else said

    def latest(self, name: str, target: Path) -> bool:
        """Write a file that was kept earlier."""
        return name in self.files and bool(target.write_bytes(self.files[name]))

    def fetch(self, sha256: str, target: Path) -> bool:
        """Write a file that was kept earlier."""
        for content in self.files.values():
            if hashlib.sha256(content).hexdigest() == sha256:
                return bool(target.write_bytes(content))
        return False

    def log(self, text: str, *, stream: str = "stdout", stage: str = "") -> None:
        """Keep what is printed."""
        self.lines.append((stage, stream, text))

    def count_usage(
        self, thread: str, model: str | None, used: Tokens, *, done: bool = False
    ) -> None:
        """Keep counters."""
        self.counted.append((thread, model, used))

    def attach(self, name: str, source: Path | bytes, content_type: str = "") -> None:
        """Keep a file's bytes, or refuse it."""
        if name in self.refuse:
            raise self.refuse[name]
        self.files[name] = source.read_bytes() if isinstance(source, Path) else source

    @property
    def stored_log(self) -> str:
        """The log for people."""
        return self.files["logs/codex_exec.log"].decode()

    @property
    def patch(self) -> bytes:
        """The patch."""
        return self.files["patches/changes.patch"]

    def everything(self) -> str:
        """All that would leave the machine."""
        return (
            repr(self.events)
            + repr(self.lines)
            + b"".join(self.files.values()).decode(errors="replace")
        )


@dataclass
class Ended:
    """How a run ended: with a result, or with the outcome that was raised."""

    result: Mapping[str, Any] | None
    outcome: Outcome | None
    context: Recorder


@dataclass
class Bench:
    """Everything around one executor."""

    folder: Path
    git: GitServer
    environ: dict[str, str]
    cache_max_gb: float = 1
    local_dirs: list[Any] = field(default_factory=list)

    def run(
        self,
        script: Script,
        payload: Mapping[str, Any] | None = None,
        *,
        context: Recorder | None = None,
        attempt: int = 1,
        timeout: float = 60,
        silence: float = 60,
        limit: int = LIMIT,
        sandbox: Any = "workspace-write",
        steering: str = "",
    ) -> Ended:
        """Run a job to its end against a scripted model; ``steering`` is the worker's AGENTS.md."""
        context = context or Recorder()
        with ModelServer(script) as model:
            home = make_codex_home(
                self.folder / f"codex-{uuid.uuid4().hex}", model.base_url, bundled_codex_path()
            )
            (home / "AGENTS.md").write_text(steering)
            executor = CodexExec(
                Codex(
                    environ=self.environ | {"CODEX_HOME": str(home)},
                    program=None,
                    sandbox=sandbox,
                    model=MODEL,
                    effort=None,
                ),
                workdir=self.workdir,
                run_timeout=timeout,
                idle_timeout=silence,
                artifact_max_bytes=limit,
                identity=IDENTITY,
                cache_max_gb=self.cache_max_gb,
                local_dirs=self.lent,
            )
            job = make_job(self.payload(**(payload or {})), attempt=attempt)
            try:
                return Ended(executor.run(job, context), None, context)
            except Outcome as outcome:
                return Ended(None, outcome, context)

    @property
    def lent(self) -> list[LocalDirectory]:
        """What ``local_dirs`` says, as a worker's settings have it."""
        entries = [{"path": each} if isinstance(each, Path) else each for each in self.local_dirs]
        return [LocalDirectory.model_validate(each) for each in entries]

    @property
    def workdir(self) -> Path:
        """Where the executor works."""
        return self.folder / "work"

    @property
    def left(self) -> list[str]:
        """What is left there besides the mirrors of repositories."""
        return [each.name for each in self.workdir.glob("*") if each.name != "mirrors"]

    def payload(self, **more: Any) -> dict[str, Any]:
        """Return a payload for the demo repository, unless it names a path."""
        where = {} if "repoPath" in more else {"repository": self.git.url("demo.git")}
        return where | {"instruction": "Do it."} | more


make_job = partial(claimed_job.make_job, "codex_exec")


@pytest.fixture
def demo(tmp_path: Path) -> Path:
    """The root of a git server with ``demo.git``: two branches, two tags and some files."""
    source, root = tmp_path / "source", tmp_path / "served"
    (source / "src").mkdir(parents=True)
    (source / "README.md").write_text("Demo\n")
    (source / "run.sh").write_text("#!/bin/sh\n")
    (source / "run.sh").chmod(0o755)
    (source / "src" / "gone.txt").write_text("to be deleted\n")
    (source / ".gitignore").write_text("*.log\n")

    def git(*arguments: str) -> None:
        subprocess.run([*GIT, *arguments], cwd=source, check=True, capture_output=True)

    git("init", "-q", "-b", "trunk")
    git("add", "-A")
    git("commit", "-qm", "first")
    git("tag", "v1")
    git("checkout", "-qb", "topic/one")
    (source / "topic.txt").write_text("topic\n")
    git("add", "-A")
    git("commit", "-qm", "second")
    git("tag", "-a", "v2", "-m", "annotated")
    git("checkout", "-q", "trunk")
    git("clone", "-q", "--bare", ".", str(root / "demo.git"))
    git("init", "-q", "--bare", str(root / "empty.git"))
    return root


@pytest.fixture
def remote(demo: Path) -> Iterator[GitServer]:
    """A git server with the demo repository."""
    with GitServer(demo) as server:
        yield server


@pytest.fixture
def bench(tmp_path: Path, remote: GitServer) -> Bench:
    """An executor's surroundings, with a worker's environment full of secrets."""
    environ = {
        "PATH": os.environ["PATH"],
        "HOME": os.environ["HOME"],
        "DATABASE_URL": "postgresql://worker:hunter2hunter2@db.example.org/queue",
        "PGPASSWORD": "pg-password-of-the-worker",
        "PGHOST": "db.example.org",
        "GITHUB_TOKEN": "ghp_" + "A1b2C3d4" * 5,
        "OPENAI_API_KEY": "sk-" + "unused0key" * 3,
    }
    return Bench(tmp_path, remote, environ)


@pytest.fixture
def job() -> Callable[..., ClaimedJob]:
    """Make a claimed job from a payload."""
    return make_job


@pytest.fixture
def recorder() -> Recorder:
    """A context made by hand."""
    return Recorder()


@pytest.fixture
def publishing(tmp_path: Path, demo: Path, fresh: str) -> Iterator[Publishing]:
    """All of it."""
    home, script = tmp_path / "home", list(SCRIPT)
    home.mkdir()
    with (
        GitServer(demo) as remote,
        GitHubServer(tmp_path) as github,
        ModelServer(lambda _: script) as model,
        connect(fresh) as queue,
    ):
        codex = make_codex_home(tmp_path / "codex", model.base_url, bundled_codex_path())
        rewrite = f'[url "{remote.url("")}"]\n\tinsteadOf = https://github.com/acme/\n'
        (home / ".gitconfig").write_text(rewrite)
        environ = {
            "PATH": os.environ["PATH"],
            "HOME": str(home),
            "CODEX_HOME": str(codex),
            "GH_CONFIG_DIR": str(github.config),
            "GITHUB_TOKEN": "ghp_" + "A1b2C3d4" * 5,
        }
        yield Publishing(
            tmp_path, fresh, queue, demo / "demo.git", github, environ, script, remote.url("")
        )
