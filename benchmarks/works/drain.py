"""W2: how fast jobs are done, by one worker process and by several."""

import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial

from benchmarks import cpu
from benchmarks.arena import Database
from benchmarks.contest import Contestant, Program
from benchmarks.works import Figures, Trial, Work

SECONDS = 2.5
FEWEST, MOST = 1_000, 400_000
SMOKE = 0.05  # a smaller scale shows that it works, not how fast; it need not be rehearsed
NEARLY = 0.9  # of the jobs: from then on the database is asked for the rest
LOOK = 0.02  # seconds between two looks at what is left

_sizes: dict[str, int] = {}  # how many jobs keep a contestant busy that long


def drain(trial: Trial, processes: int) -> Figures:
    """Do jobs that lie ready; a contestant's first turn is rehearsed, to know how many to take."""
    if trial.scale < SMOKE:
        return _drain(trial, processes, FEWEST)
    name = trial.contestant.name
    if name not in _sizes:
        rate = _drain(trial, processes, FEWEST)["jobs_per_second"]
        rate = _drain(trial, processes, round(min(max(rate, FEWEST), 30_000)))["jobs_per_second"]
        _sizes[name] = round(min(max(rate * SECONDS * trial.scale, FEWEST), MOST))
    return _drain(trial, processes, _sizes[name])


def _drain(trial: Trial, processes: int, jobs: int) -> Figures:
    with trial.arena.database(trial.storage, trial.contestant) as database:
        before = database.costs()
        fill(trial.contestant, database, jobs)
        database.look.execute("vacuum analyze")
        database.look.execute("checkpoint")
        with workers(trial.contestant, database, processes) as programs:
            idle = sum(cpu.of_process(each.pid) for each in programs), cpu.of_sessions(database)
            ended = until_done(database, programs, jobs)
            client = sum(cpu.of_process(each.pid) for each in programs) - idle[0]
            server = cpu.of_sessions(database) - idle[1]
            first = min(
                last["first"] for last in [each.finish() for each in programs] if last["first"]
            )
        costs = database.costs().since(before, jobs)
        return {
            "jobs_per_second": jobs / (ended - first),
            "server_cpu_us_per_job": server / jobs * 1e6,
            "client_cpu_us_per_job": client / jobs * 1e6,
            **costs,
        }


def fill(contestant: Contestant, database: Database, jobs: int) -> None:
    """Enqueue no-op jobs in bulk."""
    with contestant.start("produce", database.dsn) as producer:
        producer.answer()
        for first in range(0, jobs, 20_000):
            producer.order(
                do="bulk", first=first, count=min(jobs - first, 20_000), batch=1000
            ).answer()


@contextmanager
def workers(
    contestant: Contestant, database: Database, processes: int, purpose: str = "drain"
) -> "Iterator[list[Program]]":
    """Run worker processes; they begin together, when all have loaded what they need."""
    with ExitStack() as stack:
        programs = [
            stack.enter_context(contestant.start("work", database.dsn)) for _ in range(processes)
        ]
        for program in programs:
            program.answer()
        for index, program in enumerate(programs):
            program.order(processes=processes, purpose=purpose, index=index)
        yield programs


def until_done(database: Database, programs: list[Program], jobs: int) -> float:
    """Wait until no job is unfinished; return when. Raises ``ContestantError``.

    The database is asked only near the end: a count walks through the table, and on the same two
    cores that would slow down those who keep what is finished.
    """
    handled = [0] * len(programs)
    while sum(handled) < NEARLY * jobs or database.unfinished():
        time.sleep(LOOK)
        for index, program in enumerate(programs):
            handled[index] = program.heard().get("handled", handled[index])
    return time.monotonic()


WORKS = [
    Work(
        f"W2-{processes}",
        f"drain no-op jobs, {processes} worker process{'es' if processes > 1 else ''}",
        "jobs/s",
        partial(drain, processes=processes),
    )
    for processes in (1, 2, 4)
]
