"""What stays on a worker's disk: mirrors within the quota, and no directory of a dead attempt."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from conftest import Bench
from model_server import patch, say
from structlog.testing import capture_logs

from moonmind_queue.codex_worker.cache import mirrors, tidy
from moonmind_queue.codex_worker.mirror import Mirror, try_lock
from moonmind_queue.codex_worker.payload import CodexExecJobPayload
from moonmind_queue.codex_worker.workspace import Workspace

STRAY = ["sleep", "600"]
COMMAND = [sys.executable, "-c", "from moonmind_queue.codex_worker.cli import main; main()"]
MEGABYTE = 10**6
WORK = [
    [patch("*** Begin Patch\n*** Add File: new.txt\n+hello\n*** End Patch")],
    [say("Done.")],
]


@pytest.fixture
def make(tmp_path: Path) -> Callable[..., Mirror]:
    """Make a mirror of some size, last used so many days ago."""

    def a_mirror(repository: str, *, size: int = 0, days: float = 0) -> Mirror:
        payload = {"repository": repository, "instruction": "x"}
        mirror = Mirror.of(tmp_path / "mirrors", CodexExecJobPayload.parse(payload).clone_url)
        mirror.repo.mkdir(parents=True)
        (mirror.path / "address").write_text(mirror.address)
        with (mirror.repo / "pack").open("wb") as pack:
            pack.truncate(size)
        (mirror.path / "lock").touch()
        then = (datetime.now(UTC) - timedelta(days=days)).timestamp()
        os.utime(mirror.path / "lock", (then, then))
        return mirror

    return a_mirror


def left(workdir: Path) -> list[str]:
    """Return what is mirrored, the last used first."""
    return [each.address.split("/")[-1] for each in mirrors(workdir)]


def test_what_nobody_uses_goes(make: Callable[..., Mirror], tmp_path: Path) -> None:
    """A mirror that no job has fetched through for 14 days is removed, whatever its size."""
    for name, days in (("new", 0), ("older", 13), ("old", 15)):
        make(f"acme/{name}", days=days)
    tidy(tmp_path, 20)
    assert left(tmp_path) == ["new.git", "older.git"]


def test_beyond_the_quota_the_least_recently_used_goes_first(
    make: Callable[..., Mirror], tmp_path: Path
) -> None:
    """As many go as it takes, in the order of their last use; the log says which and why."""
    for name, days in (("b", 2), ("a", 3), ("d", 0), ("c", 1)):
        make(f"acme/{name}", size=MEGABYTE, days=days)

    with capture_logs() as logs:
        tidy(tmp_path, 0.0025)

    assert left(tmp_path) == ["d.git", "c.git"]
    removed = [each for each in logs if each["event"] == "cache.removed"]
    assert [each["repository"][-5:] for each in removed] == ["a.git", "b.git"]
    assert {each["reason"] for each in removed} == {"MOONMIND_CACHE_MAX_GB"}
    [kept] = [each for each in logs if each["event"] == "cache"]
    assert kept["mirrors"] == 2
    assert 2 * MEGABYTE < kept["bytes"] < 2.5 * MEGABYTE


def test_what_is_in_use_stays(make: Callable[..., Mirror], tmp_path: Path) -> None:
    """A mirror through which a job fetches is not removed; the next tidying comes soon."""
    mirror = make("acme/site", days=99)
    lock = try_lock(mirror.path)
    assert lock is not None
    tidy(tmp_path, 0)
    assert left(tmp_path) == ["site.git"]
    os.close(lock)
    tidy(tmp_path, 0)
    assert list((tmp_path / "mirrors").iterdir()) == []


def test_tidying_takes_away_dead_attempts_too(tmp_path: Path) -> None:
    """The directory of an attempt whose worker died is removed; one at work is locked."""
    dead, running = (Workspace.create(tmp_path, job, 1, keep=False) for job in (1, 2))
    os.close(dead.lock)
    for space in (dead, running):
        os.utime(space.path, (0, 0))
    tidy(tmp_path, 20)
    assert [each.name for each in tmp_path.iterdir()] == ["2"]
    os.close(running.lock)


def test_a_directory_that_cannot_be_tidied(tmp_path: Path) -> None:
    """Trouble with the disk is logged, and no reason for a job to fail."""
    (tmp_path / "mirrors").mkdir()
    (tmp_path / "mirrors" / "loop").symlink_to("loop")
    with capture_logs() as logs:
        tidy(tmp_path, 20)
    assert [each["event"] for each in logs] == ["cache.not_tidied"]


def test_a_job_leaves_a_mirror_and_no_more(bench: Bench) -> None:
    """After a job its mirror is what is left on the disk, and the next attempt uses it."""
    bench.run(WORK)
    [mirror] = mirrors(bench.workdir)
    assert mirror.address == bench.git.url("demo.git")
    assert [each.name for each in bench.workdir.iterdir()] == ["mirrors"]
    packs = list(mirror.path.glob("repo.git/objects/pack/*.pack"))

    ended = bench.run(WORK, attempt=2)

    assert ended.result
    assert list(mirror.path.glob("repo.git/objects/pack/*.pack")) == packs


def test_a_quota_of_nothing_keeps_nothing(bench: Bench) -> None:
    """With MOONMIND_CACHE_MAX_GB=0 a job works as ever, and its mirror is gone after it."""
    bench.cache_max_gb = 0
    ended = bench.run(WORK)
    assert ended.result
    assert b"new.txt" in ended.context.patch
    assert mirrors(bench.workdir) == []


def test_a_worker_tidies_when_it_starts(
    make: Callable[..., Mirror], tmp_path: Path, fresh: str
) -> None:
    """What was left while no worker ran goes before the first job, of whatever kind."""
    make("acme/old", days=15)
    environ = os.environ | {"DATABASE_URL": fresh, "MOONMIND_WORKDIR": str(tmp_path)}
    once = [*COMMAND, "--once", "--kinds", "noop"]
    ended = subprocess.run(once, env=environ, capture_output=True, text=True, check=True)
    assert "cache.removed" in ended.stderr
    assert left(tmp_path) == []


# --- the command ---------------------------------------------------------------------------------


def cache(workdir: Path, *arguments: str, **environ: str) -> "subprocess.CompletedProcess[str]":
    """Run ``moonmind-codex-worker cache``, without a database."""
    kept = {name: value for name, value in os.environ.items() if name != "DATABASE_URL"}
    return subprocess.run(
        [*COMMAND, "cache", *arguments],
        env=kept | {"MOONMIND_WORKDIR": str(workdir)} | environ,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_the_list(make: Callable[..., Mirror], tmp_path: Path) -> None:
    """Repository, size and last use, for people and for programs; no database is needed."""
    make("acme/old", size=1234, days=2)
    site = make("acme/site", size=3 * MEGABYTE)

    first, second, total = cache(tmp_path).stdout.splitlines()
    rows = json.loads(cache(tmp_path, "ls", "--json").stdout)

    assert first.split()[:3] == ["https://github.com/acme/site.git", "3.0", "MB"]
    assert second.split()[:3] == ["https://github.com/acme/old.git", "1.3", "kB"]
    assert total == "2 mirrors, 3.0 MB of 20 GB"
    assert list(rows[0]) == ["repository", "size_bytes", "last_used", "path"]
    assert (rows[0]["repository"], rows[0]["path"]) == (site.address, str(site.path))
    assert datetime.now(UTC) - datetime.fromisoformat(rows[1]["last_used"]) > timedelta(days=1)


def test_an_empty_list(tmp_path: Path) -> None:
    """Before the first job there is nothing, not an error."""
    assert cache(tmp_path).stdout == "0 mirrors, 0 B of 20 GB\n"
    assert json.loads(cache(tmp_path, "ls", "--json").stdout) == []


def test_removing(make: Callable[..., Mirror], tmp_path: Path) -> None:
    """A mirror goes by what jobs call the repository, or by its address, or with all others."""
    for name in ("a", "b", "c", "d"):
        make(f"acme/{name}", size=MEGABYTE)

    said = cache(tmp_path, "rm", "acme/a", "https://github.com/acme/b.git").stdout.splitlines()

    assert sorted(said) == [
        "removed the mirror of https://github.com/acme/a.git, 1.0 MB",
        "removed the mirror of https://github.com/acme/b.git, 1.0 MB",
    ]
    assert sorted(left(tmp_path)) == ["c.git", "d.git"]
    assert cache(tmp_path, "rm", "--all").returncode == 0
    assert left(tmp_path) == []


@pytest.mark.parametrize(
    ("arguments", "environ", "code", "reason"),
    [
        (("rm", "acme/none"), {}, 1, "there is no mirror of https://github.com/acme/none.git"),
        (("rm", "acme/used"), {}, 1, "https://github.com/acme/used.git is in use"),
        (("rm", "--", "-x"), {}, 1, "repository: must be owner/repo"),
        (("rm",), {}, 2, "name repositories, or say --all"),
        (("rm", "acme/none", "--all"), {}, 2, "name repositories, or say --all"),
        ((), {"MOONMIND_CACHE_MAX_GB": "-1"}, 1, "MOONMIND_CACHE_MAX_GB: "),
    ],
)
def test_what_is_refused(
    make: Callable[..., Mirror],
    tmp_path: Path,
    arguments: tuple[str, ...],
    environ: dict[str, str],
    code: int,
    reason: str,
) -> None:
    """A wrong word removes nothing and says why."""
    lock = try_lock(make("acme/used").path)
    assert lock is not None
    ended = cache(tmp_path, *arguments, **environ)
    os.close(lock)
    assert ended.returncode == code
    assert reason in ended.stderr
    assert "Traceback" not in ended.stderr
    assert left(tmp_path) == ["used.git"]


def test_a_directory_that_cannot_be_read(tmp_path: Path) -> None:
    """Trouble with the disk is said in one line, with the setting that names the place."""
    (tmp_path / "mirrors").mkdir()
    (tmp_path / "mirrors" / "loop").symlink_to("loop")
    ended = cache(tmp_path)
    assert ended.returncode == 1
    [line] = ended.stderr.splitlines()
    assert f"MOONMIND_WORKDIR: cannot read {tmp_path}: " in line


@pytest.fixture
def stray() -> Iterator[Callable[[Path], "subprocess.Popen[bytes]"]]:
    """Start what a command of Codex is that has lost it: a session of its own, and a TMPDIR."""
    started = []

    def start(attempt: Path) -> "subprocess.Popen[bytes]":
        environ = {"TMPDIR": str(attempt / "tmp")}
        started.append(subprocess.Popen(STRAY, env=environ, start_new_session=True))
        return started[-1]

    yield start
    for each in started:
        each.kill()
        each.wait()


def test_what_runs_on_after_its_worker_was_killed_ends(tmp_path: Path, stray: Any) -> None:
    """When a worker of the machine tidies; what runs in an attempt that is under way is left."""
    dead, alive = (Workspace.create(tmp_path, job, 1, keep=False) for job in (7, 8))
    processes = [stray(each.path) for each in (dead, alive)]
    for each in (dead, alive):
        os.utime(each.path, (time.time() - 5,) * 2)
    os.close(dead.lock)

    tidy(tmp_path, 20)

    assert processes[0].wait(10) == -signal.SIGKILL
    assert processes[1].poll() is None
    assert dead.path.exists()
    alive.close(keep=False)


@pytest.mark.parametrize("keep", [False, True])
def test_the_next_attempt_ends_what_runs_on(tmp_path: Path, stray: Any, keep: bool) -> None:
    """It has the place for itself, whether it begins anew or in the last one's work tree."""
    dead = Workspace.create(tmp_path, 7, 1, keep=keep)
    process = stray(dead.path)
    os.close(dead.lock)

    Workspace.create(tmp_path, 7, 2, keep=keep).close(keep=False)

    assert process.wait(10) == -signal.SIGKILL
