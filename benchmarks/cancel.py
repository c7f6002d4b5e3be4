"""How soon a codex job that is cancelled has no process left, and what it leaves in the queue.

    python -m benchmarks.cancel [repetitions]

The real Codex, with a scripted model, has edited a file and is in the middle of a command; the
command has a child in a session of its own. Measured from the commit of ``cancel`` to the death of
the last process of the run, and to the job's end in the queue, when its log and its patch so far
are stored. PostgreSQL is an embedded one with durable settings, on this machine.
"""

import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from codex_cli_bin import bundled_codex_path

sys.path.insert(0, str(Path(__file__).parent.parent / "tools"))

from git_server import GitServer
from local_postgres import LocalPostgres
from model_server import MODEL, ModelServer, make_codex_home, patch, say, shell
from waiting import eventually

from moonmind_queue import Queue, connect, migrate

EDIT = "*** Begin Patch\n*** Add File: begun.txt\n+half\n*** End Patch"
COMMAND = "setsid sleep 600 & touch $TMPDIR/begun; sleep 600"
LEFT = {"logs/codex_exec.log", "patches/changes.patch"}


def serve(folder: Path) -> None:
    """Make a repository with one file."""
    git = ("git", "-c", "user.name=Ada", "-c", "user.email=ada@example.org")
    source = folder / "source"
    source.mkdir(parents=True)
    (source / "README.md").write_text("Demo\n")
    for command in (
        ("init", "-q", "-b", "main"),
        ("add", "-A"),
        ("commit", "-qm", "first"),
        ("clone", "-q", "--bare", ".", str(folder / "served" / "demo.git")),
    ):
        subprocess.run([*git, *command], cwd=source, check=True)


@contextmanager
def worker(dsn: str, folder: Path, codex: Path) -> Iterator[None]:
    """Run a worker process."""
    environ = {
        "PATH": os.environ["PATH"],
        "HOME": str(folder),
        "PYTHONPATH": os.environ.get("PYTHONPATH", ""),
        "DATABASE_URL": dsn,
        "CODEX_HOME": str(codex),
        "MOONMIND_WORKDIR": str(folder / "work"),
        "MOONMIND_CODEX_MODEL": MODEL,
    }
    main = "from moonmind_queue.codex_worker.cli import main; main()"
    with subprocess.Popen(
        [sys.executable, "-c", main],
        env=environ,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as process:
        try:
            yield
        finally:
            process.terminate()


def processes_of(folder: Path) -> list[int]:
    """Return the processes whose environment names a folder, or that stand below it."""
    found = []
    for each in Path("/proc").glob("[0-9]*"):
        try:
            cwd = os.readlink(each / "cwd")  # noqa: PTH115
            if str(folder) in cwd or os.fsencode(folder) in (each / "environ").read_bytes():
                found.append(int(each.name))
        except OSError:
            continue
    return found


def cancelled(queue: Queue, folder: Path, repository: str) -> tuple[float, float]:
    """Cancel one job at work; return the seconds until its processes and until it have ended."""
    job = queue.enqueue("codex_exec", {"repository": repository, "instruction": "Begin."})
    attempt = folder / "work" / str(job) / "1"
    eventually((attempt / "tmp" / "begun").exists, within=60)
    assert processes_of(attempt)
    queue.cancel(job, "measured")
    at = time.monotonic()
    eventually(lambda: not processes_of(attempt), within=60)
    dead = time.monotonic() - at
    eventually(lambda: queue.get(job).state == "cancelled", within=60)
    ended = time.monotonic() - at
    assert queue.get(job).error == "measured"
    assert {each.name for each in queue.artifacts(job)} >= LEFT
    return dead, ended


def show(what: str, times: list[float]) -> None:
    """Print median, 95th percentile and maximum."""
    p95 = statistics.quantiles(times, n=20)[-1]
    print(
        f"{what:<18} p50 {statistics.median(times):5.2f} s   p95 {p95:5.2f} s"
        f"   max {max(times):5.2f} s   n {len(times)}"
    )


def main() -> None:
    """Measure."""
    repetitions = int(sys.argv[1]) if len(sys.argv) > 1 else 20
    script = [[patch(EDIT)], [shell(COMMAND)], [say("Too late.")]]
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(dir="/var/tmp")))
        serve(folder)
        server = stack.enter_context(LocalPostgres(durable=True))
        migrate.upgrade(server.dsn)
        remote = stack.enter_context(GitServer(folder / "served"))
        model = stack.enter_context(ModelServer(script))
        codex = make_codex_home(folder / "codex", model.base_url, bundled_codex_path())
        queue = stack.enter_context(connect(server.dsn))
        stack.enter_context(worker(server.dsn, folder, codex))
        times = [cancelled(queue, folder, remote.url("demo.git")) for _ in range(repetitions)]
    print(f"PostgreSQL {server.version}, one worker, codex in the middle of a command")
    show("no process left", [dead for dead, _ in times])
    show("cancelled, stored", [ended for _, ended in times])


if __name__ == "__main__":
    main()
