"""A day in small: good, failing, huge, cancelled and limited jobs, and workers that are killed.

The real Codex and the real git in real worker processes; only the model is scripted. Forty jobs;
with ``MOONMIND_PROVE`` two hundred.
"""

import os
import random
import signal
import statistics
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from codex_cli_bin import bundled_codex_path
from day import ARTIFACT_LIMIT, PARTS, REPOSITORY, End, Model, predict
from git_server import GitServer
from model_server import MODEL, ModelServer, make_codex_home
from psycopg.types.json import Jsonb
from waiting import eventually

import moonmind_queue
from moonmind_queue import Queue
from moonmind_queue.codex_worker import cache
from moonmind_queue.codex_worker.mirror import try_lock

JOBS = 200 if os.environ.get("MOONMIND_PROVE") else 40
WORKERS, SLOTS = 4, 2
EXPENDABLE = ("day-0", "day-1")  # who take what is fatal; the others live all day
LOCKED = [f"locked-{number}" for number in range(JOBS // 40)]  # each has one job, and is paused
LEASE = 8  # seconds, so that what the killed ones held comes back soon
SLOW = 60  # seconds that a machine with other work may take for what usually takes two
GROWTH = 20 * 1024  # KiB that a worker may have grown by between morning and evening

STATES = "select id, state, attempt, worker from moonmind_queue.job_overview"
ENDS = """
select id, state, attempt, result, error,
       (select data ->> 'class' from moonmind_queue.job_history
        where job_id = job.id and type in ('failed', 'blocked', 'dead_lettered')
          and data ->> 'class' is not null
        order by seq desc limit 1) as failure,
       array(select name from moonmind_queue.job_artifact where job_id = job.id) as artifacts
from moonmind_queue.job_overview as job
"""
BY_HAND = """
select moonmind_queue.enqueue(
    'codex_exec', %(payload)s, p_key => %(key)s, p_max_attempts => 9
) as id
"""
LOST = """
select job_id as id, worker, (data ->> 'attempt')::int as attempt
from moonmind_queue.job_history where type = 'expired'
"""
FINAL = {"succeeded", "failed", "dead_letter", "cancelled", "blocked"}
UNDER_WAY = """
select 1 from pg_stat_activity
where datname = current_database() and state = 'active' and xact_start < %(now)s
"""


@dataclass
class Day:
    """The queue, the workers, and what happened to them."""

    folder: Path
    dsn: str
    queue: Queue
    model: Model
    environ: dict[str, str]
    processes: dict[str, "subprocess.Popen[bytes]"] = field(default_factory=dict)
    tags: dict[int, str] = field(default_factory=dict)
    held: set[tuple[int, int]] = field(default_factory=set)
    """The jobs, with the attempt, that workers were seen to hold when they were killed."""

    def start(self, name: str) -> None:
        """Start a worker."""
        can = "expendable" if name in EXPENDABLE else ""
        main = "from moonmind_queue.codex_worker.cli import main; main()"
        with (self.folder / f"{name}.log").open("ab") as log:
            self.processes[name] = subprocess.Popen(
                [
                    *(sys.executable, "-c", main, f"--worker-id={name}", f"--concurrency={SLOTS}"),
                    f"--agents={','.join(('codex', 'limited', *LOCKED))}",
                ],
                env=self.environ | {"MOONMIND_WORKER_CAPABILITIES": can},
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def wait_for_workers(self) -> None:
        """Wait until all workers are there."""
        live = "select pid from moonmind_queue.worker_overview where status = 'live'"
        pids = {each.pid for each in self.processes.values()}
        eventually(lambda: pids <= {row["pid"] for row in self.queue.select(live)}, SLOW)

    def enqueue(self) -> None:
        """Add all jobs, in no order."""
        names = [name for name, part in PARTS.items() for _ in range(part.share * JOBS // 40)]
        locked = list(LOCKED)
        random.Random(6).shuffle(names)  # noqa: S311 - the same day each time
        for number, name in enumerate(names):
            part, tag = PARTS[name], f"day {name} {number}"
            payload = {"repository": REPOSITORY, "instruction": f"It is {tag}.", **part.payload}
            options: dict[str, Any] = {"max_attempts": 9, **part.options}
            if name == "locked_out":
                options["agent"] = locked.pop()
            if name == "withdrawn":
                options["run_at"] = datetime.now(UTC) + timedelta(hours=1)
            if name == "malformed":  # from a producer that checks nothing
                [row] = self.queue.select(BY_HAND, payload=Jsonb(payload), key=tag)
                job = row["id"]
            else:
                job = self.queue.enqueue("codex_exec", payload, key=tag, **options)
            self.tags[job] = tag
            if name == "withdrawn":
                self.queue.cancel(job, "not wanted any more")

    def live(self) -> None:
        """Cancel and kill on the way, until every job has ended."""
        deadline = time.monotonic() + 60 + 3 * JOBS
        while rows := [each for each in self.queue.select(STATES) if each["state"] not in FINAL]:
            assert time.monotonic() < deadline, rows
            for row in rows:
                tag = self.tags[row["id"]]
                if tag in self.model.asleep and row["worker"]:
                    if "fatal" in tag:
                        self.kill(row["worker"])
                        break
                    self.queue.cancel(row["id"], "not wanted any more")
                    eventually(lambda job=row["id"]: self.queue.get(job).state == "cancelled", SLOW)
            time.sleep(0.05)

    def kill(self, name: str) -> None:
        """Kill a worker, whatever it holds, and start another one in its place."""
        process = self.processes[name]
        process.send_signal(signal.SIGSTOP)
        [now] = self.queue.select("select clock_timestamp() as now")
        eventually(lambda: not self.queue.select(UNDER_WAY, **now), SLOW)
        held = [row for row in self.queue.select(STATES) if row["worker"] == name]
        process.send_signal(signal.SIGKILL)
        process.wait()
        self.held |= {(row["id"], row["attempt"]) for row in held}
        self.model.asleep -= {self.tags[row["id"]] for row in held}
        self.start(name)

    def lost(self) -> Counter[int]:
        """Return how many workers were killed under each job.

        That is what the history says: a claim may have been on its way when its worker was stopped.
        It agrees with what was seen, and no worker that lived has lost anything.
        """
        rows = self.queue.select(LOST)
        assert {row["worker"] for row in rows} <= {*EXPENDABLE}
        assert self.held <= {(row["id"], row["attempt"]) for row in rows}
        return Counter(row["id"] for row in rows)

    def ends(self, lost: Counter[int]) -> dict[str, End]:
        """Return how each job has ended, and check what depends on the job alone."""
        found = {}
        for row in self.queue.select(ENDS):
            tag = self.tags[row["id"]]
            part, result = PARTS[tag.split()[1]], row["result"] or {}
            given_up = part.state == "dead_letter" and lost[row["id"]]
            error = row["error"] or ""
            assert part.error in error or (given_up and "ran out, the last of" in error), tag
            found[tag] = End(
                state=row["state"],
                attempts=row["attempt"],
                patch="patches/changes.patch" in row["artifacts"],
                effect=result.get("effect"),
                failure=row["failure"],
                logged="logs/codex_exec.log" in row["artifacts"],
            )
        return found

    def artifacts(self, name: str) -> dict[str, bytes]:
        """Return the newest artifact of a name of each job that has one."""
        found = {}
        for job, tag in self.tags.items():
            if artifact := self.queue.latest_artifact(job, name):
                found[tag] = b"".join(self.queue.read_artifact(artifact))
        return found


@pytest.fixture
def day(tmp_path: Path, demo: Path, fresh: str) -> Iterator[Day]:
    """Everything for one day; what is left of the workers is killed after."""
    model = Model()
    with (
        GitServer(demo) as remote,
        ModelServer(model) as server,
        moonmind_queue.connect(fresh) as queue,
    ):
        for name in ("home", "tmp"):
            (tmp_path / name).mkdir()
        rewrite = f'[url "{remote.url("")}"]\n\tinsteadOf = git@git.example.org:acme/\n'
        (tmp_path / "home" / ".gitconfig").write_text(rewrite)
        codex = make_codex_home(tmp_path / "codex", server.base_url, bundled_codex_path())
        environ = {
            "PATH": os.environ["PATH"],
            "HOME": str(tmp_path / "home"),
            "TMPDIR": str(tmp_path / "tmp"),
            "DATABASE_URL": fresh,
            "CODEX_HOME": str(codex),
            "MOONMIND_WORKDIR": str(tmp_path / "work"),
            "MOONMIND_CODEX_MODEL": MODEL,
            "MOONMIND_ARTIFACT_MAX_BYTES": str(ARTIFACT_LIMIT),
            "MOONMIND_LEASE_SECONDS": str(LEASE),
            "MOONMIND_RECLAIM_SECONDS": "1",
        }
        day = Day(tmp_path, fresh, queue, model, environ)
        try:
            yield day
        finally:
            for process in day.processes.values():
                if process.poll() is None:
                    process.kill()
                process.wait()


class Memory:
    """What processes have in memory, ten times a second, while it is watched."""

    def __init__(self, pids: dict[str, int]) -> None:
        self._pids = pids
        self.samples: dict[str, list[int]] = {name: [] for name in pids}
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch)

    def __enter__(self) -> "Memory":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._done.wait(0.1):
            for name, pid in self._pids.items():
                status = Path(f"/proc/{pid}/status").read_text()
                [line] = [each for each in status.splitlines() if each.startswith("VmRSS:")]
                self.samples[name].append(int(line.split()[1]))

    def thirds(self) -> dict[str, tuple[int, int, int]]:
        """Return the median of the first and of the last third, and the maximum, in KiB.

        A sixth before is for warming up.
        """
        found = {}
        for name, samples in self.samples.items():
            warm = samples[len(samples) // 6 :]
            third = len(warm) // 3
            first, last = statistics.median(warm[:third]), statistics.median(warm[-third:])
            found[name] = (round(first), round(last), max(samples))
        return found


def processes_of(folder: Path) -> list[str]:
    """Return the processes that work below a folder, or have its name in their environment."""
    found = []
    for each in Path("/proc").glob("[0-9]*"):
        try:
            cwd = os.readlink(each / "cwd")  # noqa: PTH115
            if str(folder) in cwd or os.fsencode(folder) in (each / "environ").read_bytes():
                found.append((each / "cmdline").read_text().replace("\0", " "))
        except OSError:
            continue
    return found


def is_ours(path: Path) -> bool:
    """Say whether a temporary file is not the one directory of Codex's own, with a lock in it."""
    return not any(each.startswith("codex-bwrap-") for each in path.parts[-2:])


def leftovers(day: Day) -> dict[str, Any]:
    """Return all that is left of a day, besides the mirror of its repository."""
    work = day.folder / "work"
    locks = []
    for mirror in (work / "mirrors").iterdir():
        lock = try_lock(mirror)
        if lock is None:
            locks.append(mirror.name)
        else:
            os.close(lock)
        locks += [str(each) for each in mirror.rglob("*.lock")]
        locks += [str(each) for each in mirror.rglob("*tmp_*")]
    return {
        "processes": processes_of(day.folder),
        "work": sorted(each.name for each in work.iterdir()),
        "temporary": sorted(each.name for each in (day.folder / "tmp").rglob("*") if is_ours(each)),
        "locks": locks,
        "leases": day.queue.connection.execute("select * from moonmind_queue.lease").fetchall(),
        "faults": day.queue.select("select * from moonmind_queue.queue_fault"),
    }


def test_every_job_of_a_day_ends_as_its_script_says_and_nothing_is_left(
    day: Day, demo: Path, say: Any
) -> None:
    """Whatever fails, is huge, is cancelled or meets its limit, and whoever is killed."""
    day.queue.set_backoff("codex_exec", timedelta(milliseconds=200), jitter=0)
    day.queue.set_failure_rule(
        "quota", "codex", "quota exceeded", "cool_down", rest=timedelta(seconds=1), place=10
    )
    for number in range(WORKERS):
        day.start(f"day-{number}")
    day.wait_for_workers()
    began = time.monotonic()
    day.enqueue()
    lasting = {name: each.pid for name, each in day.processes.items() if name not in EXPENDABLE}
    with Memory(lasting) as memory:
        day.live()
    seconds = time.monotonic() - began

    day.wait_for_workers()  # the one that was started last may not know yet how to stop
    for each in day.processes.values():
        each.send_signal(signal.SIGTERM)
    assert {each.wait(SLOW) for each in day.processes.values()} == {0}

    lost = day.lost()
    predicted = {tag: predict(PARTS[tag.split()[1]], lost[job]) for job, tag in day.tags.items()}
    ends = day.ends(lost)
    odd = {tag: (end, predicted[tag]) for tag, end in ends.items() if end not in predicted[tag]}
    assert not odd, odd
    assert ends.keys() == predicted.keys()
    assert len(day.held) >= JOBS // 40
    check_products(day, demo / "demo.git")
    tidy(day)
    assert leftovers(day) == {
        **{what: [] for what in ("processes", "temporary", "locks", "leases", "faults")},
        "work": ["mirrors"],
    }
    for name, (first, last, most) in memory.thirds().items():
        say(
            f"{len(predicted)} codex jobs in {seconds:.0f} s, {lost.total()} attempts"
            f" under workers that were killed; {name} had {first / 1024:.1f} MiB in the morning,"
            f" {last / 1024:.1f} MiB in the evening, {most / 1024:.1f} MiB at most"
        )
        assert last <= first + GROWTH


def check_products(day: Day, bare: Path) -> None:
    """Each patch is of its own job, each branch was pushed once, and no log is too large."""
    for tag, content in day.artifacts("patches/changes.patch").items():
        _, name, number = tag.split()
        assert content.count(b"diff --git ") == 1
        assert f"+++ b/{name}-{number}.txt\n".encode() in content
    logs = day.artifacts("logs/codex_exec.log")
    assert max(map(len, logs.values())) <= ARTIFACT_LIMIT
    published = {
        tag: (day.queue.get(job).result or {})["published"]["branch"]
        for job, tag in day.tags.items()
        if "publish" in tag
    }
    names = subprocess.check_output(
        ["git", "for-each-ref", "--format=%(refname:short)", "refs/heads/moonmind-*"],
        cwd=bare,
        text=True,
    )
    assert sorted(names.splitlines()) == sorted(published.values())
    for tag, branch in published.items():
        shown = ["git", "show", "--format=%P", "--name-only", branch]
        _, file = subprocess.check_output(shown, cwd=bare, text=True).split()
        assert file == f"{tag.removeprefix('day ').replace(' ', '-')}.txt"


def tidy(day: Day) -> None:
    """Let a day pass for the directories of attempts whose worker was killed, and a worker start.

    There are such only of jobs that no other worker has taken on.
    """
    for each in (day.folder / "work").glob("[0-9]*/[0-9]*"):
        os.utime(each, (0, 0))
    cache.tidy(day.folder / "work", max_gb=1)
