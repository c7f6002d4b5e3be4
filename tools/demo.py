"""What ``make demo`` runs: a coding agent mends a failing test, from the queue to the patch.

Everything is real (PostgreSQL, the queue, the worker, the Codex CLI, git over HTTP) but the
model: it follows the script below, so that the demo needs no account and no network. With
``CODEX=real`` your own logged-in Codex does the work instead.
"""

import contextlib
import os
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from git_server import GitServer
from local_postgres import LocalPostgres, LocalPostgresError
from model_server import ModelServer, Script, make_codex_home, patch, say, shell
from rich.console import Console
from rich.syntax import Syntax

GRACE_SECONDS = 15  # a stopping worker ends Codex and hands its jobs back

INSTRUCTION = "The tests fail. Find out why, mend the code and leave the tests as they are."

REPOSITORY = {
    ".gitignore": "__pycache__/\n",
    "statistic.py": '''\
"""A little statistics."""


def median(values):
    """Return the middle value, or the mean of the two in the middle."""
    ordered = sorted(values)
    return ordered[len(ordered) // 2]
''',
    "test_statistic.py": '''\
"""What a median is."""

import unittest

from statistic import median


class Median(unittest.TestCase):
    def test_odd_count(self):
        self.assertEqual(median([5, 1, 3]), 3)

    def test_even_count(self):
        self.assertEqual(median([4, 1, 3, 2]), 2.5)
''',
}

SCRIPT: Script = [
    [say("I run the tests first."), shell("python3 -m unittest")],
    [say("An even number of values fails. I look at the code."), shell("cat statistic.py")],
    [
        say("The upper of the two middle values is returned; their mean is wanted."),
        patch(
            """\
*** Begin Patch
*** Update File: statistic.py
@@
     ordered = sorted(values)
-    return ordered[len(ordered) // 2]
+    middle = len(ordered) // 2
+    if len(ordered) % 2:
+        return ordered[middle]
+    return (ordered[middle - 1] + ordered[middle]) / 2
*** End Patch"""
        ),
    ],
    [shell("python3 -m unittest")],
    [say("The median of an even number of values is now the mean of the middle two. Tests pass.")],
]


class DemoError(Exception):
    """The demo cannot go on; the message says why."""


@dataclass
class Stage:
    """A directory, an environment and a screen on which commands are seen to run."""

    directory: Path
    environment: dict[str, str]
    console: Console = field(default_factory=lambda: Console(highlight=False, soft_wrap=True))

    def title(self, text: str) -> None:
        """Begin a part."""
        self.console.print(f"\n[bold]{text}[/]")

    def note(self, name: str, text: str) -> None:
        """Say one thing about what is set up."""
        self.console.print(f"  [dim]{name:<11}[/]{text}")

    def prompt(self, command: str) -> None:
        """Show a command the way one types it."""
        self.console.print("[green]$[/] ", end="")
        self.console.print(command, markup=False, style="bold cyan")

    def run(self, *command: str) -> None:
        """Show a command and let it write to the screen itself."""
        self.prompt(shlex.join(command))
        with self.process(*command) as process:
            if process.wait():
                raise DemoError(f"{command[0]} ended with exit code {process.returncode}")

    def read(self, *command: str, cwd: Path | None = None, given: str = "") -> str:
        """Run a command unseen and return what it wrote."""
        done = subprocess.run(
            command, cwd=cwd, env=self.environment, input=given, capture_output=True, text=True
        )
        if done.returncode:
            raise DemoError(f"{shlex.join(command)}\n{done.stderr}")
        return done.stdout

    @contextlib.contextmanager
    def process(
        self, *command: str, log: Path | None = None
    ) -> Iterator["subprocess.Popen[bytes]"]:
        """Run a program for as long as the block lasts."""
        with contextlib.ExitStack() as stack:
            output = stack.enter_context(log.open("wb")) if log else None
            process = subprocess.Popen(
                command,
                cwd=self.directory,
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,  # Ctrl-C is ours to handle
            )
            stack.callback(end, process)
            yield process


def end(process: "subprocess.Popen[bytes]") -> None:
    """Ask a process and its group to stop; end them if they do not."""
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGTERM)
        try:
            process.wait(GRACE_SECONDS)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def find_codex(real: bool) -> str:
    """Return the Codex to run: a user's own comes first only where it is asked for."""
    try:
        from codex_cli_bin import bundled_codex_path

        bundled: str | None = str(bundled_codex_path())
    except ImportError:
        bundled = None
    installed = shutil.which("codex")
    found = (installed or bundled) if real else (bundled or installed)
    if found is None:
        raise DemoError("found no Codex: pip install openai-codex-cli-bin")
    return found


def clean_environment(real: bool) -> dict[str, str]:
    """Return the user's environment without what would lead the demo elsewhere."""
    foreign = ("MOONMIND_", "PG", "GITHUB_", "GIT_") + (() if real else ("CODEX", "OPENAI_"))
    environment = {k: v for k, v in os.environ.items() if not k.startswith(foreign)}
    programs = str(Path(sys.executable).parent)
    return environment | {
        "PATH": os.pathsep.join([programs, environment.get("PATH", os.defpath)]),
        "NO_PROXY": "127.0.0.1",
        "no_proxy": "127.0.0.1",
        "GIT_AUTHOR_NAME": "Demo",
        "GIT_AUTHOR_EMAIL": "demo@localhost",
        "GIT_COMMITTER_NAME": "Demo",
        "GIT_COMMITTER_EMAIL": "demo@localhost",
        "GIT_CONFIG_GLOBAL": os.devnull,
        "GIT_CONFIG_NOSYSTEM": "1",
    }


def make_repository(stage: Stage) -> Path:
    """Write the project with the failing test, and a bare copy of it to serve."""
    source = stage.directory / "source"
    source.mkdir()
    for name, text in REPOSITORY.items():
        (source / name).write_text(text)
    stage.read("git", "init", "--quiet", "--initial-branch=main", cwd=source)
    stage.read("git", "add", ".", cwd=source)
    stage.read("git", "commit", "--quiet", "--message=Begin", cwd=source)
    served = stage.directory / "served"
    stage.read("git", "clone", "--quiet", "--bare", str(source), str(served / "demo.git"))
    return served


def show_tests(stage: Stage, checkout: Path) -> bool:
    """Run the project's tests, show what matters of their output, and say whether they pass."""
    stage.prompt("python3 -m unittest")
    command = [sys.executable, "-m", "unittest"]
    done = subprocess.run(command, cwd=checkout, capture_output=True, text=True)
    for line in done.stderr.splitlines():
        if line.startswith(("FAIL", "AssertionError", "Ran", "OK")):
            stage.console.print(line, markup=False, style="red" if done.returncode else "green")
    return done.returncode == 0


def set_up_codex(stage: Stage, stack: contextlib.ExitStack, real: bool) -> None:
    """Choose the Codex and the model that it talks to, and say so."""
    codex = find_codex(real)
    stage.environment["MOONMIND_CODEX"] = codex
    if real:
        stage.note("Codex", f"{stage.read(codex, '--version').strip()}, yours, with your account")
        return
    model = stack.enter_context(ModelServer(SCRIPT))
    home = make_codex_home(stage.directory / "codex", model.base_url, codex)
    stage.environment["CODEX_HOME"] = str(home)
    stage.note("Codex", f"{stage.read(codex, '--version').strip()}, the real one")
    stage.note(
        "Model", "[yellow]scripted[/]: it follows tools/demo.py (make demo CODEX=real: yours)"
    )
    try:
        stage.read(codex, "sandbox", "--", "true", cwd=home)
    except DemoError:  # in most containers; what the script runs is known to be harmless
        stage.environment["MOONMIND_CODEX_SANDBOX_MODE"] = "danger-full-access"
        stage.note("Sandbox", "[yellow]none[/]: this machine permits Codex no namespaces")


def demo(real: bool) -> None:
    """Set everything up, show the main job, and take everything down."""
    started = time.monotonic()
    with contextlib.ExitStack() as stack:
        made = stack.enter_context(tempfile.TemporaryDirectory(prefix="moonmind-demo-"))
        stage = Stage(Path(made), clean_environment(real))
        stage.title("moonmind-queue: a coding agent mends a failing test")
        postgres = stack.enter_context(LocalPostgres())
        stage.environment |= {
            "DATABASE_URL": postgres.dsn,
            "MOONMIND_WORKDIR": str(stage.directory / "work"),
            "MOONMIND_NOOP_SECONDS": "1",
        }
        stage.note("PostgreSQL", f"{postgres.version} ({postgres.origin}), for this demo only")
        set_up_codex(stage, stack, real)
        git = stack.enter_context(GitServer(make_repository(stage)))
        stage.note("Repository", git.url("demo.git"))
        show(stage, stack, git.url("demo.git"))
        stage.title(f"Done in {time.monotonic() - started:.0f} s.")
        stack.callback(be_deaf)  # runs first: nothing disturbs what now takes all down
    farewell(stage)


def show(stage: Stage, stack: contextlib.ExitStack, url: str) -> None:
    """Go from a failing test to the patch that mends it."""
    stage.title("1  The tests fail")
    show_tests(stage, stage.directory / "source")
    stage.title("2  Two jobs, the second after the first")
    stage.run("moonmind-queue", "migrate")
    stage.run(
        *("moonmind-queue", "enqueue", "codex_exec"),
        *("--repo", url, "--instruction", INSTRUCTION),
    )
    stage.run("moonmind-queue", "enqueue", "noop", "--after", "1")
    stage.title("3  A worker runs them")
    stage.prompt("moonmind-codex-worker &")
    log = stage.directory / "worker.log"
    worker = stack.enter_context(stage.process("moonmind-codex-worker", log=log))
    for job in ("1", "2"):
        follow(stage, worker, job)
    stage.title("4  What is left")
    stage.run("moonmind-queue", "show", "1")
    stage.run("moonmind-queue", "artifacts", "ls", "1")
    stage.title("5  The patch, applied to a fresh clone")
    checkout = stage.directory / "fresh"
    stage.read("git", "clone", "--quiet", url, str(checkout))
    get = ("moonmind-queue", "artifacts", "get", "1", "patches/changes.patch")
    stage.prompt(f"{shlex.join(get)} | git apply")
    diff = stage.read(*get)
    stage.console.print(Syntax(diff, "diff", theme="ansi_dark", background_color="default"))
    stage.read("git", "apply", cwd=checkout, given=diff)
    if not show_tests(stage, checkout):
        raise DemoError("the tests still fail")


def follow(stage: Stage, worker: "subprocess.Popen[bytes]", job: str) -> None:
    """Show a job's events as they arrive, for as long as there is a worker."""
    command = ("moonmind-queue", "events", job, "-f")
    stage.prompt(shlex.join(command))
    with stage.process(*command) as events:
        while worker.poll() is None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                events.wait(0.2)
                return
    log = (stage.directory / "worker.log").read_text()
    raise DemoError(f"the worker ended with exit code {worker.returncode}\n{log[-2000:]}")


def farewell(stage: Stage) -> None:
    """Show how to go on."""
    stage.console.print("Database, processes and files of the demo are gone. With your own:\n")
    for command in (
        "export DATABASE_URL=postgresql://user@host/database",
        "moonmind-queue migrate",
        "moonmind-queue enqueue codex_exec --repo owner/repo --instruction 'Mend the build.'",
        "moonmind-codex-worker",
        "moonmind-queue --help",
    ):
        stage.prompt(command)


SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def be_deaf() -> None:
    """Ignore what would end the demo while it takes itself down."""
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)


def leave(number: int, _frame: object) -> None:
    """End the demo, with everything that it started."""
    be_deaf()
    os.write(2, b"\nStopping.\n")  # print is not safe in a signal handler
    sys.exit(128 + number)


def main() -> int:
    """Run the demo; Ctrl-C and SIGTERM leave nothing behind either."""
    for number in SIGNALS:
        signal.signal(number, leave)
    try:
        demo(real=os.environ.get("CODEX") == "real")
    except (DemoError, LocalPostgresError) as error:
        Console(stderr=True, highlight=False).print(f"demo: {error}", style="red", markup=False)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
