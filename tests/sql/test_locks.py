"""Locks: no two functions can wait for each other in a circle."""

import itertools
import random
from datetime import timedelta

import pytest

from moonmind_queue import Queue, QueueError, Tokens

ZERO = timedelta(0)
SHORT = timedelta(milliseconds=1)
ROUNDS = 12
DEADLOCK, TIMEOUT = "40P01", "57014"

CALLS = {
    "claim": lambda queue, held, jobs: held.extend(queue.claim("w", limit=3, start=True)),
    "short leases": lambda queue, held, jobs: queue.claim("w", limit=3, lease=SHORT),
    "complete": lambda queue, held, jobs: queue.complete(held.pop()),
    "complete_many": lambda queue, held, jobs: queue.complete_many(
        [(job, {}) for job in held[::-1]]
    ),
    "fail": lambda queue, held, jobs: queue.fail(held.pop(), "no", retry_in=ZERO),
    "release": lambda queue, held, jobs: queue.release(held.pop()),
    "renew": lambda queue, held, jobs: queue.renew(held[::-1], timedelta(minutes=1)),
    "append_event": lambda queue, held, jobs: queue.append_event(held[-1], "progress"),
    "reclaim": lambda queue, held, jobs: queue.reclaim(),
    "cancel": lambda queue, held, jobs: queue.cancel(jobs[0]),
    "retry": lambda queue, held, jobs: queue.retry(jobs[0]),
    "unlock": lambda queue, held, jobs: queue.unlock(jobs[0], force=True),
    "enqueue": lambda queue, held, jobs: queue.enqueue("k", after=jobs[:3]),
    "enqueue_many": lambda queue, held, jobs: queue.enqueue_many(
        [{"kind": "k", "key": "y", "after": jobs[:3]}, {"kind": "k", "after": ["y", *jobs[3:5]]}]
    ),
    "prune": lambda queue, held, jobs: queue.prune(ZERO, 2),
    "count_usage": lambda queue, held, jobs: queue.count_usage(
        held[-1], "t", "gpt", Tokens(input=held[-1].token)
    ),
    "set_budget": lambda queue, held, jobs: queue.set_budget("queue", tokens=10**12),
    "drop_budget": lambda queue, held, jobs: queue.drop_budget("queue"),
}


def dag(queue):
    """Twelve jobs, each after the two before it, given in the wrong order."""
    jobs = [
        {
            "kind": "k",
            "key": f"j{i}",
            "max_attempts": 99,
            "after": [f"j{i - d}" for d in (1, 2) if i >= d],
        }
        for i in range(12)
    ]
    return queue.enqueue_many(jobs[::-1])


@pytest.mark.parametrize("seed", range(4))
def test_all_functions_against_each_other(here, session, threads, seed):
    """Ten sessions call everything on the same jobs; none is ever the victim of a deadlock."""
    jobs = dag(here)
    faults = []

    def work(number):
        dice = random.Random(f"{seed}/{number}")  # noqa: S311
        queue, held = Queue(session(autocommit=True)), []
        for _ in range(ROUNDS * 6):
            name = dice.choice([*CALLS, "claim", "complete", "complete"])
            try:
                CALLS[name](queue, held, dice.sample(jobs, 6))
            except IndexError:  # nothing is held
                continue
            except QueueError as error:
                if error.__cause__.sqlstate in (DEADLOCK, TIMEOUT):
                    faults.append((name, str(error)))

    list(threads.map(work, range(10)))

    assert faults == []


@pytest.mark.parametrize(
    ("one", "two"),
    list(
        itertools.combinations(["complete", "complete_many", "retry", "enqueue", "enqueue_many"], 2)
    ),
)
def test_pairs_that_lock_several_jobs(here, session, threads, one, two):
    """Completions, retries and new dependents meet on the same jobs from both ends."""
    jobs = dag(here)
    faults = []

    def work(name):
        queue, held, dice = Queue(session(autocommit=True)), [], random.Random(name)  # noqa: S311
        for _ in range(ROUNDS):
            held.extend(queue.claim("w", limit=2))
            try:
                CALLS[name](queue, held, dice.sample(jobs, 6))
            except IndexError:
                continue
            except QueueError as error:
                if error.__cause__.sqlstate in (DEADLOCK, TIMEOUT):
                    faults.append((name, str(error)))

    list(threads.map(work, [one, two, one, two]))

    assert faults == []


def test_ids_follow_the_needs(here):
    """A job's id is above those of all it needs, in whatever order they were given."""
    dag(here)

    upside_down = here.connection.execute(
        "select count(*) from moonmind_queue.dependency where needs_job_id >= job_id"
    ).fetchone()

    assert upside_down == (0,)


def test_a_completion_and_a_producer_meet_in_id_order(here, session, blocked):
    """A need and its dependent, given in the wrong order, are locked parent first by both."""
    child, parent = here.enqueue_many(
        [{"kind": "k", "key": "child", "after": ["parent"]}, {"kind": "k", "key": "parent"}]
    )
    [job] = here.claim("w")
    producing = session()
    producing.execute("select from moonmind_queue.job where id = %s for share", [parent])

    completion = blocked(lambda queue: queue.complete(job))
    Queue(producing).enqueue("k", after=[child, parent])
    producing.commit()
    completion.result()

    assert here.get(child).state == "queued"


def test_completions_in_bulk_and_a_producer_meet_in_id_order(here, session, blocked):
    """Jobs and dependents of a bulk completion are locked in one order, not one after the other."""
    first = here.enqueue("k")
    child = here.enqueue("k", after=[first])
    here.enqueue("k")
    held = here.claim("w", limit=2)
    producing = session()
    producing.execute("select from moonmind_queue.job where id = %s for share", [child])

    completion = blocked(lambda queue: queue.complete_many([(job, {}) for job in held]))
    Queue(producing).enqueue("k", after=[child, held[1].id])
    producing.commit()

    assert len(completion.result()) == 2


@pytest.mark.parametrize("keys", ["mnopqrstuvwxyz", "zyxwvutsrqponm"])
def test_keys_are_taken_in_their_order(here, session, blocked, keys):
    """A bulk that waits for another's key has not yet taken the keys that come after it."""
    here.enqueue("k")  # their lane is there
    other = session()
    taken = [Queue(other).enqueue("k", key="m")]

    bulk = blocked(lambda queue: queue.enqueue_many([{"kind": "k", "key": k} for k in keys]))
    taken += [Queue(other).enqueue("k", key=key) for key in "nopqrstuvwxyz"]
    other.commit()

    assert sorted(bulk.result()) == taken


def test_the_same_keys_in_another_order_do_not_lock_in_a_circle(here, session, threads):
    """Two producers seed the same jobs, one from the back; one of them makes all."""
    jobs = [{"kind": "k", "key": f"a{i}", "agent": f"agent {i}"} for i in range(60)]

    def seed(given):
        return Queue(session(autocommit=True)).enqueue_many(given)

    one, two, three, four = threads.map(seed, [jobs, jobs[::-1]] * 2)

    assert one == two[::-1] == three == four[::-1]
    assert here.connection.execute("select count(*) from moonmind_queue.job").fetchone() == (60,)


@pytest.mark.parametrize("call", ["claim", "reclaim", "renew"])
def test_what_workers_do_on_a_timer_waits_for_nobody(here, session, fresh, clock_of, call):
    """With every job locked, claim and reclaim come back at once; renew needs no job at all."""
    here.enqueue_many([{"kind": "k"}] * 4)
    held = here.claim("w", limit=2)
    clock_of(fresh).advance(timedelta(hours=1))
    locker = session()
    locker.execute("select from moonmind_queue.job for update")
    here.connection.execute("set lock_timeout = '1ms'")

    if call == "claim":
        answer = here.claim("w")
    elif call == "reclaim":
        answer = here.reclaim()
    else:
        answer = here.renew(held, timedelta(minutes=1))

    assert [row.job_id for row in answer] == [job.id for job in held if call == "renew"]
