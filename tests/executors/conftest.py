"""A bench for ``shell``: real programs under a real warden, a context made by hand.

The context stands for the worker, so no database is needed here.
"""

import os
import random
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import claimed_job
import pytest

from moonmind_queue.errors import InvalidPayload
from moonmind_queue.executors import Outcome, confined
from moonmind_queue.executors.confined import Limits
from moonmind_queue.executors.shell import MB, Shell
from moonmind_queue.settings import ShellProgram

LIMITS = Limits(memory=1024 * MB, cpu=60, file=64 * MB, directory=256 * MB, processes=256)


@dataclass
class Recorder:
    """A context that keeps what it is given; ``refuse`` are names of artifacts it will not take."""

    stop: threading.Event = field(default_factory=threading.Event)
    events: list[tuple[str, str, Any]] = field(default_factory=list)
    lines: list[tuple[str, str, str]] = field(default_factory=list)
    files: dict[str, bytes] = field(default_factory=dict)
    refuse: dict[str, Exception] = field(default_factory=dict)

    def progress(
        self, message: str, data: Mapping[str, Any] | None = None, *, level: str = "info"
    ) -> None:
        """Keep an event."""
        self.events.append((level, message, dict(data or {})))

    def log(self, text: str, *, stream: str = "stdout", stage: str = "") -> None:
        """Keep what is printed."""
        self.lines.append((stage, stream, text))

    def attach(self, name: str, source: Path | bytes, content_type: str = "") -> None:
        """Keep a file's bytes, or refuse it."""
        if name in self.refuse:
            raise self.refuse[name]
        assert content_type == "text/plain"
        self.files[name] = source.read_bytes() if isinstance(source, Path) else source

    @property
    def stdout(self) -> str:
        """The stored log of stdout."""
        return self.files.get("logs/stdout.log", b"").decode()

    @property
    def stderr(self) -> str:
        """The stored log of stderr."""
        return self.files.get("logs/stderr.log", b"").decode()

    def everything(self) -> str:
        """All that would leave the machine."""
        stored = b"".join(self.files.values()).decode(errors="replace")
        return repr(self.events) + repr(self.lines) + stored


@dataclass
class Ended:
    """How a run ended: with a result, or with what was raised."""

    result: Mapping[str, Any] | None
    outcome: Outcome | InvalidPayload | None
    context: Recorder
    seconds: float

    @property
    def facts(self) -> dict[str, Any]:
        """What the event of a failure says."""
        return self.context.events[-1][2]


class Bench:
    """Executors and their surroundings."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.workdir = folder / "work"
        self.bin = folder / "bin"
        self.bin.mkdir()
        self.environ = {"PATH": f"{self.bin}{os.pathsep}{os.environ['PATH']}"}
        # Where Python lies anybody might write, on a machine made for tests.
        self.program("python", f'exec {sys.executable} "$@"')

    def program(self, name: str, script: str, folder: Path | None = None) -> Path:
        """Write a program for ``sh``."""
        path = (folder or self.bin) / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)
        return path

    def shell(
        self, *allow: Any, timeout: float = 20, artifact_max_bytes: int = MB, **limits: int
    ) -> Shell:
        """Return an executor that allows these entries."""
        entries = [{"program": each} if isinstance(each, str) else each for each in allow]
        return Shell(
            [ShellProgram.model_validate(each) for each in entries],
            environ=self.environ,
            workdir=self.workdir,
            run_timeout=timeout,
            artifact_max_bytes=artifact_max_bytes,
            limits=Limits(
                **{name: getattr(LIMITS, name) for name in LIMITS.__slots__} | limits,
            ),
        )

    def run(self, shell: Shell, cmd: Any, context: Recorder | None = None, **members: Any) -> Ended:
        """Run a job to its end; ``members`` are further ones of its payload."""
        return self.run_payload(shell, {"cmd": cmd, **members}, context)

    def run_payload(
        self, shell: Shell, payload: Mapping[str, Any], context: Recorder | None = None
    ) -> Ended:
        """Run a job to its end, as a worker does: checked first."""
        context = context or Recorder()
        begin = time.monotonic()
        try:
            job = make_job(Shell.validate(payload))
            result, outcome = shell.run(job, context), None
        except (Outcome, InvalidPayload) as raised:
            result, outcome = None, raised
        return Ended(result, outcome, context, time.monotonic() - begin)

    def bash(self, script: str, context: Recorder | None = None, **options: Any) -> Ended:
        """Run a script in bash, allowed for that; ``options`` are those of :meth:`shell`."""
        return self.run(self.shell("bash", **options), ["bash", "-c", script], context)

    def python(self, script: str, *arguments: str, **options: Any) -> Ended:
        """Run a script in Python, allowed for that."""
        return self.run(self.shell("python", **options), ["python", "-c", script, *arguments])


make_job = partial(claimed_job.make_job, "shell")


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    """An executor's surroundings."""
    return Bench(tmp_path)


@pytest.fixture
def recorder() -> Recorder:
    """A context made by hand."""
    return Recorder()


class Word:
    """A word that no other process has on its command line."""

    def __init__(self) -> None:
        self.gone: set[int] = set()  # who has been seen alive
        self.text = f"{random.uniform(1000, 2000):.9f}"  # noqa: S311 - also a time to sleep

    def __str__(self) -> str:
        return self.text

    def alive(self) -> list[int]:
        """Return the processes that have it on their command line."""
        found = []
        for each in Path("/proc").glob("[0-9]*/cmdline"):
            with suppress(OSError):
                if self.text.encode() in each.read_bytes():
                    found.append(int(each.parent.name))
        self.gone.update(found)
        return found


@pytest.fixture
def word() -> Word:
    """A word to find processes by."""
    return Word()


@pytest.fixture
def wardens(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Have wardens run other code, in which ``warden``, ``fence`` and ``tree`` are modules."""

    def run(code: str) -> None:
        start, main, _ = confined._BOOTSTRAP.partition("from moonmind_queue")
        assert main
        modules = "from moonmind_queue.executors import fence, tree, warden"
        monkeypatch.setattr(confined, "_BOOTSTRAP", f"{start}{modules}\n{code}\n")

    return run


KERNELS = {
    "this": "",
    "without-landlock": "fence.enter = lambda: False",
    "without-lists": "fence.enter = lambda: False; tree._LISTED = False",
}


@pytest.fixture(params=KERNELS)
def kernel(request: pytest.FixtureRequest, wardens: Callable[[str], None]) -> str:
    """Have wardens do without what some kernels lack; the name of what that is like."""
    wardens(f"{KERNELS[request.param]}\nwarden.main()")
    return str(request.param)


FENCE = """
import ctypes, sys
from moonmind_queue.executors import fence
ctypes.CDLL(None).prctl(38, 1, 0, 0, 0)
sys.exit(not fence.enter())
"""


@pytest.fixture(scope="session")
def can_fence() -> bool:
    """Whether this kernel can keep the signals of a program to what it has started."""
    return subprocess.run([sys.executable, "-c", FENCE], check=False).returncode == 0
