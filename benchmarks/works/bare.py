"""BARE: what PostgreSQL can do at all, when pgbench asks it, on the bare loop's table.

Beside W1a stands ``insert``, beside W1b ``insert-1000``, beside W1c ``insert`` and
``insert-notify`` with 16 clients, beside W2 ``claim-500`` with as many clients as processes.
"""

import os
import re
import selectors
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial

import psycopg
from local_postgres import find_binaries

from benchmarks.arena import Database
from benchmarks.contest import ContestantError
from benchmarks.works import Figures, Trial, Work

SECONDS = 2
LISTENERS = 30
ENOUGH = {1: 40_000, 100: 250_000, 500: 250_000}  # jobs that no server claims in a second

INSERT = "insert into job (payload) values ('{\"n\": 1}')"
CLAIM = """
with next as materialized (
    select id from job where state = 0 order by id limit {batch} for update skip locked
), claimed as (
    update job
    set state = 1, worker = pg_backend_pid(), leased_until = now() + interval '1 minute'
    from next
    where job.id = next.id
    returning job.id
)
select coalesce(array_agg(id), '{{}}') as ids from claimed \\gset
update job set state = 2, leased_until = null
where id = any(:ids::bigint[]) and worker = pg_backend_pid();"""


@dataclass(frozen=True)
class Script:
    """What pgbench runs again and again: ``jobs`` are inserted, or claimed and completed, in one.

    Claiming and completing are two transactions.
    """

    text: str
    jobs: int = 1
    clients: tuple[int, ...] = (1, 2, 4)
    claims: bool = False
    listeners: int = 0


SCRIPTS = {
    "insert": Script(f"{INSERT};", clients=(1, 2, 4, 16)),
    "insert-notify": Script(
        f"with new as ({INSERT} returning id) select pg_notify('job', '') from new;",
        clients=(1, 16),
        listeners=LISTENERS,
    ),
    "insert-1000": Script(
        "insert into job (payload)"
        " select * from unnest(array_fill('{\"n\": 1}'::jsonb, array[1000]));",
        jobs=1000,
    ),
    **{
        f"claim-{batch}": Script(CLAIM.format(batch=batch), jobs=batch, claims=True)
        for batch in (1, 100, 500)
    },
}


def bare(trial: Trial, script: Script) -> Figures:
    """Run the script with each number of clients, in a fresh database each."""
    figures = {}
    seconds = max(round(SECONDS * trial.scale), 1)
    for clients in script.clients:
        with trial.arena.database(trial.storage, trial.contestant) as database:
            if script.claims:
                fill(database, ENOUGH[script.jobs] * seconds)
            with listeners(database, script.listeners):
                rate = pgbench(database.dsn, script.text, clients, seconds) * script.jobs
            if script.claims and not database.value("select count(*) from job where state = 0"):
                raise ContestantError(
                    f"pgbench emptied the table: raise ENOUGH[{script.jobs}], which is"
                    f" {ENOUGH[script.jobs]}, in {__name__}"
                )
            figures[f"jobs_per_second_{clients}"] = rate
    trial.arena.versions[trial.contestant.name] = trial.arena.server(trial.storage).version
    return figures


def fill(database: Database, jobs: int) -> None:
    """Make jobs that are ready."""
    database.look.execute(
        "insert into job (payload) select '{\"n\": 1}' from generate_series(1, %s)", (jobs,)
    )
    database.look.execute("vacuum analyze")
    database.look.execute("checkpoint")


@contextmanager
def listeners(database: Database, count: int) -> Iterator[None]:
    """Have sessions that listen, and read what they are told."""
    with ExitStack() as stack:
        ready = stack.enter_context(selectors.DefaultSelector())
        for _ in range(count):
            session = stack.enter_context(psycopg.connect(database.dsn, autocommit=True))
            session.execute("listen job")
            ready.register(session.fileno(), selectors.EVENT_READ, session.pgconn)
        stop = threading.Event()

        def read() -> None:
            while not stop.is_set():
                for key, _ in ready.select(timeout=0.1):
                    key.data.consume_input()
                    while key.data.notifies():
                        pass

        reader = threading.Thread(target=read)
        reader.start()
        try:
            yield
        finally:
            stop.set()
            reader.join()


def pgbench(dsn: str, script: str, clients: int, seconds: int) -> float:
    """Return how often a second the clients together ran the script."""
    binaries, _ = find_binaries()
    threads = min(clients, os.cpu_count() or 1)
    with tempfile.NamedTemporaryFile("w", suffix=".sql") as file:
        file.write(script)
        file.flush()
        done = subprocess.run(
            [
                *(str(binaries / "pgbench"), "--no-vacuum", "--protocol=prepared"),
                *(f"--client={clients}", f"--jobs={threads}", f"--time={seconds}"),
                *(f"--file={file.name}", dsn),
            ],
            capture_output=True,
            text=True,
            env={"LC_ALL": "C", "LD_LIBRARY_PATH": str(binaries.parent / "lib")},
        )
    found = re.search(r"^tps = ([\d.]+)", done.stdout, re.MULTILINE)
    if done.returncode or not found:
        raise ContestantError(f"pgbench failed:\n{done.stderr[-2000:]}")
    return float(found[1])


WORKS = [
    Work(
        f"BARE-{name}",
        f"pgbench: {name.replace('-', ' ')}" + (" and complete" if script.claims else ""),
        "jobs/s, 1 client",
        partial(bare, script=script),
        by_pgbench=True,
    )
    for name, script in SCRIPTS.items()
]
