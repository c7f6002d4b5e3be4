"""W11: how long one waits for a command's help, for a worker's first job and for an import."""

import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path

from benchmarks.arena import Database
from benchmarks.contest import ContestantError
from benchmarks.works import Figures, Trial, Work
from moonmind_queue import Queue

TIMES = 10
NOT_COMPILED = "PYTHONDONTWRITEBYTECODE"
CODEX_WORKER = str(Path(sys.executable).with_name("moonmind-codex-worker"))
BARE_WORKER = """
import os
import resource
from moonmind_queue import Worker
from moonmind_queue.executors.noop import Noop
Worker(os.environ["DATABASE_URL"], {"noop": Noop(0)}, name="bare").run_once()
"""
NO_SQLALCHEMY = "import moonmind_queue, sys; sys.exit('sqlalchemy' in sys.modules)"
FIRST_CLAIM = """
select extract(epoch from at)::float8 from moonmind_queue.job_history
where job_id = %s and type = 'claimed'
"""


PROGRAMS = {
    "help": [CODEX_WORKER, "--help"],
    "interpreter": [sys.executable, "-c", "pass"],
    "import": [sys.executable, "-c", "import moonmind_queue"],
}
WORKERS = {
    "codex_worker": [CODEX_WORKER, "--once", "--kinds", "noop"],
    "bare_worker": [sys.executable, "-c", BARE_WORKER],
}


def startup(trial: Trial) -> Figures:
    """Start each ten times, by turns; a claim's instant is the history's, a start's is ours."""
    taken: defaultdict[str, list[float]] = defaultdict(list)
    with (
        trial.arena.database(trial.storage, trial.contestant) as database,
        tempfile.TemporaryDirectory(prefix="moonmind-bench-") as folder,
    ):
        surroundings = {"DATABASE_URL": database.dsn, "MOONMIND_WORKDIR": folder}
        for _ in range(max(round(TIMES * trial.scale), 3) + 1):
            for name, command in PROGRAMS.items():
                before = _cpu()
                taken[name].append(run(command))
                taken[f"{name}_cpu"].append(_cpu() - before)
            for name, command in WORKERS.items():
                taken[name].append(first_claim(command, database, surroundings))
    # Not the first time: it may have had to compile modules and to read the disk.
    median = {name: statistics.median(each[1:]) for name, each in taken.items()}
    return {
        "help_seconds": median["help"],
        "codex_worker_to_first_claim_seconds": median["codex_worker"],
        "bare_worker_to_first_claim_seconds": median["bare_worker"],
        "import_seconds": median["import"] - median["interpreter"],
        "help_cpu_seconds": median["help_cpu"],
        "import_cpu_seconds": median["import_cpu"] - median["interpreter_cpu"],
        "interpreter_seconds": median["interpreter"],
        "import_loads_sqlalchemy": float(
            subprocess.run([sys.executable, "-c", NO_SQLALCHEMY], check=False).returncode
        ),
    }


def run(command: list[str], surroundings: Mapping[str, str] | None = None) -> float:
    """Run a command to its end; return the seconds it took."""
    # An installed package has its modules compiled, at the latest by whoever starts it first.
    usual = {name: value for name, value in os.environ.items() if name != NOT_COMPILED}
    began = time.monotonic()
    done = subprocess.run(
        command, capture_output=True, text=True, env=usual | (surroundings or {}), check=False
    )
    took = time.monotonic() - began
    if done.returncode:
        raise ContestantError(f"{' '.join(command[:3])} failed:\n{done.stderr[-2000:]}")
    return took


def _cpu() -> float:
    # Beside the time on the wall, for a machine that others use too.
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return children.ru_utime + children.ru_stime


def first_claim(command: list[str], database: Database, surroundings: Mapping[str, str]) -> float:
    """Run a worker that takes one job; return the seconds from its start to its claim."""
    job = Queue(database.look).enqueue("noop", {"seconds": 0})
    began = time.time()
    run(command, surroundings)
    return float(database.value(FIRST_CLAIM, job)) - began


WORKS = [
    Work(
        "W11",
        "start-up: help, first claim, import",
        "s of --help",
        startup,
        storages=("tmpfs",),
        ours_only=True,
    )
]
