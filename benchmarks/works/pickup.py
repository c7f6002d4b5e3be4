"""W3: how soon an idle worker begins a job."""

import random
import statistics
import time

from benchmarks.works import Figures, Trial, Work
from benchmarks.works.drain import workers

JOBS = 200
PAUSE = (0.02, 0.05)  # seconds between jobs: the worker is idle again
PATIENCE = 30.0


def pickup(trial: Trial) -> Figures:
    """Enqueue one job at a time; measured from its commit to the first line of its handler."""
    jobs = max(round(JOBS * trial.scale), 20)
    with (
        trial.arena.database(trial.storage, trial.contestant) as database,
        trial.contestant.start("produce", database.dsn) as producer,
        workers(trial.contestant, database, 1, "pickup") as [worker],
    ):
        producer.answer()
        probes = 0
        deadline = time.monotonic() + PATIENCE
        while not worker.heard().get("handled"):  # until it works
            assert time.monotonic() < deadline, f"{trial.contestant.name} does not begin"
            probes -= 1
            producer.order(do="single", first=probes, count=1).answer()
            time.sleep(0.3)
        sent = {}
        for number in range(jobs):
            time.sleep(random.uniform(*PAUSE))  # noqa: S311 - in step with nobody
            sent[number] = producer.order(do="single", first=number, count=1).answer()
        until = time.monotonic() + PATIENCE
        while database.unfinished() and time.monotonic() < until:
            time.sleep(0.05)
        starts = dict(worker.finish()["starts"])
    after_commit = [(starts[n] - sent[n]["ended"]) * 1000 for n in sent]
    from_call = [(starts[n] - sent[n]["began"]) * 1000 for n in sent]
    return {
        "p50_ms": statistics.median(after_commit),
        "p95_ms": statistics.quantiles(after_commit, n=20)[-1],
        "p99_ms": statistics.quantiles(after_commit, n=100)[-1],
        "p50_with_enqueue_ms": statistics.median(from_call),
    }


WORKS = [Work("W3", "commit of enqueue to start of handler, idle worker", "ms p50", pickup)]
