"""Who takes part, and how to talk to them: programs in environments of their own.

``contestants.toml`` lists them; ``contestants/speech.py`` is their side of the conversation.
"""

import hashlib
import json
import shutil
import subprocess
import sys
import threading
import tomllib
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from queue import Empty, Queue
from typing import Any, NoReturn, Self

HERE = Path(__file__).parent
PROGRAMS = HERE / "contestants"
ENVIRONMENTS = HERE.parent / "var" / "benchmarks"
PATIENCE = 60  # seconds that a program gets to answer, and to end by itself
LAST_WORDS = 20  # lines of what it printed as errors, kept for the report


class ContestantError(Exception):
    """A contestant could not be installed, or did not do what it was told; says what it printed."""


@dataclass(frozen=True)
class Contestant:
    """One queue, or a bare loop. ``packages`` are pinned; none: it runs in our environment.

    ``kind`` is ``ours``, ``bare`` for a limit, or for a peer the language of its program.
    """

    name: str
    program: str
    packages: tuple[str, ...] = ()
    kind: str = "python"

    @classmethod
    def all(cls) -> "dict[str, Contestant]":
        """Return every contestant by name, ours first."""
        listed = tomllib.loads((HERE / "contestants.toml").read_text())
        return {
            name: cls(
                name,
                entry["program"],
                tuple(entry.get("packages", ())),
                entry.get("kind") or _kind(entry),
            )
            for name, entry in listed.items()
        }

    @property
    def folder(self) -> Path:
        """Where its packages are; named after them, so that new ones get a new folder."""
        stamp = hashlib.sha256("\n".join(self.packages).encode()).hexdigest()[:8]
        return ENVIRONMENTS / f"{self.name}-{stamp}"

    def prepare(self) -> None:
        """Install its packages, once."""
        if not self.packages:
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        if self.program.endswith(".mjs"):
            # Node looks for packages beside the program that names them.
            for program in PROGRAMS.glob("*.mjs"):
                shutil.copy(program, self.folder)
        if not (self.folder / "ok").exists():
            self._install_packages()
            (self.folder / "ok").touch()

    def _install_packages(self) -> None:
        if self.program.endswith(".mjs"):
            (self.folder / "package.json").write_text('{"private": true}')
            npm = ["npm", "install", "--no-audit", "--no-fund", "--loglevel=error"]
            _run(*npm, *self.packages, cwd=self.folder)
        else:
            uv = [sys.executable, "-m", "uv"]
            _run(*uv, "venv", "--quiet", "--clear", str(self.folder))
            _run(*uv, "pip", "install", "--quiet", "--python", str(self.folder), *self.packages)

    def install(self, dsn: str) -> dict[str, Any]:
        """Make its schema; return its ``version`` and its query for ``unfinished`` jobs."""
        with self.start("install", dsn) as program:
            return program.answer()

    @contextmanager
    def start(self, role: str, dsn: str) -> "Iterator[Program]":
        """Run the program in a role; it is ended afterwards."""
        program = Program(f"{self.name} {role}", [*self._command(), role, dsn])
        try:
            yield program
        finally:
            program.end()

    def _command(self) -> list[str]:
        if self.program.endswith(".mjs"):
            own = self.folder / "node_modules/.bin/node"  # the package node brings one
            return [str(own) if own.exists() else "node", str(self.folder / self.program)]
        python = str(self.folder / "bin" / "python") if self.packages else sys.executable
        return [python, str(PROGRAMS / self.program)]


class Program:
    """A contestant that runs: orders go in, answers come out, one JSON object a line."""

    def __init__(self, title: str, command: list[str]) -> None:
        self._title = title
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=HERE,
        )
        self._said: Queue[dict[str, Any] | None] = Queue()
        self._last_words: deque[str] = deque(maxlen=LAST_WORDS)
        self._listeners = [
            threading.Thread(target=target, daemon=True)
            for target in (self._listen, self._pass_errors_on)
        ]
        for each in self._listeners:
            each.start()

    @property
    def pid(self) -> int:
        """The id of its process."""
        return self._process.pid

    def order(self, **words: Any) -> Self:
        """Tell it something."""
        assert self._process.stdin
        self._process.stdin.write(json.dumps(words) + "\n")
        self._process.stdin.flush()
        return self

    def answer(self) -> dict[str, Any]:
        """Wait for its next line; raises ``ContestantError`` when there is none."""
        try:
            answer = self._said.get(timeout=PATIENCE)
        except Empty:
            raise ContestantError(f"{self._title} said nothing for {PATIENCE} s") from None
        return answer or self._ended()

    def heard(self) -> dict[str, Any]:
        """Return the latest of what it has said since, without waiting; empty when nothing.

        Raises ``ContestantError`` when it ended.
        """
        latest: dict[str, Any] = {}
        while not self._said.empty():
            latest = self._said.get() or self._ended()
        return latest

    def finish(self) -> dict[str, Any]:
        """Close its input and return the last thing it says."""
        assert self._process.stdin
        self._process.stdin.close()
        last: dict[str, Any] = {}
        with suppress(ContestantError):
            while True:
                last = self.answer()
        return last

    def end(self) -> None:
        """Wait for it to end, and make it end."""
        assert self._process.stdin
        with suppress(OSError):
            self._process.stdin.close()
        try:
            self._process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._hear_it_out()

    def _ended(self) -> NoReturn:
        status = self._process.wait()
        self._hear_it_out()
        said = "".join(self._last_words).strip() or "it printed no error"
        raise ContestantError(f"{self._title} ended with status {status}: {said}")

    def _hear_it_out(self) -> None:
        for each in self._listeners:
            each.join(PATIENCE)  # a child of its own may have the pipe still open

    def _listen(self) -> None:
        assert self._process.stdout
        with self._process.stdout as lines:
            for line in lines:
                self._said.put(json.loads(line))
        self._said.put(None)

    def _pass_errors_on(self) -> None:
        assert self._process.stderr
        with self._process.stderr as lines:
            for line in lines:
                sys.stderr.write(line)
                self._last_words.append(line)


def _kind(entry: dict[str, Any]) -> str:
    if "packages" not in entry:
        return "bare"
    return "node" if entry["program"].endswith(".mjs") else "python"


def _run(*command: str, cwd: Path | None = None) -> None:
    done = subprocess.run(command, capture_output=True, text=True, cwd=cwd)
    if done.returncode:
        raise ContestantError(f"{' '.join(command[:4])} … failed:\n{done.stderr[-2000:]}")
