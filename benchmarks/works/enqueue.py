"""W1: how fast jobs come in."""

from benchmarks.works import Figures, Trial, Work

SECONDS = 1.5
BATCH = 1000


def one_by_one(trial: Trial) -> Figures:
    """Enqueue with one client, each job in a transaction of its own."""
    return _enqueue(trial, "single", 100)


def in_bulk(trial: Trial) -> Figures:
    """Enqueue 1,000 jobs a call with one client."""
    return _enqueue(trial, "bulk", 2 * BATCH)


def _enqueue(trial: Trial, how: str, warm_up: int) -> Figures:
    with (
        trial.arena.database(trial.storage, trial.contestant) as database,
        trial.contestant.start("produce", database.dsn) as producer,
    ):
        producer.answer()
        done, seconds, count = 0, 0.0, warm_up
        before = database.costs()
        while seconds < SECONDS * trial.scale:
            answer = producer.order(do=how, first=done, count=count, batch=BATCH).answer()
            took = answer["ended"] - answer["began"]
            if done == 0:  # connections, plans and caches are warm from here on
                before = database.costs()
            else:
                seconds += took
            done += count
            # Half a second's worth, in whole batches.
            count = (
                max(round(count / took / 2 / BATCH), 1) * BATCH
                if how == "bulk"
                else max(round(count / took / 2), 1)
            )
        counted = done - warm_up
        return {"jobs_per_second": counted / seconds} | database.costs().since(before, counted)


WORKS = [
    Work("W1a", "enqueue one by one", "jobs/s", one_by_one),
    Work("W1b", "bulk enqueue, 1,000 a call", "jobs/s", in_bulk),
]
