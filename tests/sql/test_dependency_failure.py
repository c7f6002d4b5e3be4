"""on_dependency_failure: what happens to a job when one that it needs ends without success."""

from datetime import timedelta

import pytest

from moonmind_queue import JobState, Queue

MINUTE = timedelta(minutes=1)
HOUR = timedelta(hours=1)


def fail_by_worker(queue, clock, job):
    """The holder says that no retry can mend it."""
    [held] = [each for each in queue.claim("w", limit=99) if each.id == job]
    queue.fail(held, "no", outcome="fail")


def exhaust(queue, clock, job):
    """Its attempts are used up."""
    [held] = [each for each in queue.claim("w", limit=99) if each.id == job]
    queue.fail(held, "no")


def lose(queue, clock, job):
    """Its last lease runs out."""
    queue.claim("w", lease=MINUTE)
    clock.advance(MINUTE)
    queue.reclaim()


def cancel(queue, clock, job):
    """Somebody cancels it."""
    queue.cancel(job)


def cancel_running(queue, clock, job):
    """It is cancelled while it runs, and its worker completes it after that."""
    [held] = [each for each in queue.claim("w", limit=99) if each.id == job]
    queue.cancel(job)
    queue.complete(held)


def cancel_and_complete_many(queue, clock, job):
    """The same, in bulk with another job."""
    other = queue.enqueue("other", priority=9)
    held = queue.claim("w", limit=99)
    queue.cancel(job)
    queue.complete_many([(each, {}) for each in held if each.id in (job, other)])


def expire(queue, clock, job):
    """It has become pointless."""
    clock.advance(HOUR)
    queue.reclaim()


ENDS = [
    fail_by_worker,
    exhaust,
    lose,
    cancel,
    cancel_running,
    cancel_and_complete_many,
    expire,
]


@pytest.fixture
def needed(queue, clock):
    """A job that others will need: one attempt, pointless after an hour."""
    return queue.enqueue("k", max_attempts=1, expires_at=clock.now + HOUR)


def states(queue, *jobs):
    """Where each of them stands."""
    return [str(queue.get(job).state) for job in jobs]


@pytest.mark.parametrize("end", ENDS, ids=lambda end: end.__name__)
def test_each_dependent_does_what_it_said(queue, db, clock, types, needed, end):
    """However the job ended: wait waits, cancel is cancelled with the reason, run is queued."""
    wait = queue.enqueue("k", after=[needed])
    stop = queue.enqueue("k", after=[needed], on_dependency_failure="cancel")
    run = queue.enqueue("k", after=[needed], on_dependency_failure="run")

    end(queue, clock, needed)

    assert states(queue, wait, stop, run) == ["waiting", "cancelled", "queued"]
    assert queue.get(stop).error == f"needs job {needed}, which is {queue.get(needed).state}"
    assert types(queue, stop)[-1] == "cancelled"
    assert types(queue, run)[-1] == "ready"
    assert db.execute("select * from moonmind_queue.queue_fault").fetchall() == []


def test_success_frees_them_all_alike(queue, needed):
    """The three differ only when something goes wrong."""
    jobs = [
        queue.enqueue("k", after=[needed], on_dependency_failure=policy)
        for policy in ("wait", "cancel", "run")
    ]

    queue.complete(queue.claim("w")[0])

    assert states(queue, *jobs) == ["queued"] * 3


def test_a_cancel_goes_on_from_job_to_job(queue, db, needed):
    """A chain that said cancel ends with one call; who said wait or run stands at its end."""
    chain = [needed]
    for _ in range(5):
        chain.append(queue.enqueue("k", after=[chain[-1]], on_dependency_failure="cancel"))
    wait = queue.enqueue("k", after=[chain[3]])
    run = queue.enqueue("k", after=[chain[3], chain[5]], on_dependency_failure="run")

    queue.cancel(needed)

    assert states(queue, *chain) == ["cancelled"] * 6
    assert queue.get(chain[4]).error == f"needs job {chain[3]}, which is cancelled"
    assert states(queue, wait, run) == ["waiting", "queued"]
    assert db.execute("select * from moonmind_queue.queue_fault").fetchall() == []


def test_a_thousand_jobs_deep(queue, db):
    """The cascade does not recurse: no depth is too deep for it."""
    first = queue.enqueue("k")
    ids = queue.enqueue_many(
        {
            "kind": "k",
            "key": f"j{i}",
            "after": [f"j{i - 1}"] if i else [first],
            "on_dependency_failure": "cancel",
        }
        for i in range(1000)
    )

    queue.cancel(first)

    assert db.execute(
        "select count(*) from moonmind_queue.job where state = 'cancelled' and id = any (%s)", [ids]
    ).fetchone() == (1000,)


@pytest.mark.parametrize(
    ("policy", "state"), [("wait", "waiting"), ("cancel", "cancelled"), ("run", "queued")]
)
@pytest.mark.parametrize("way", ["enqueue", "enqueue_many"])
def test_a_job_that_comes_after_the_failure(queue, types, needed, policy, state, way):
    """What was asked for holds for a dependency that had failed before, too."""
    queue.cancel(needed)

    if way == "enqueue":
        job = queue.enqueue("k", after=[needed], on_dependency_failure=policy)
    else:
        [job] = queue.enqueue_many(
            [{"kind": "k", "after": [needed], "on_dependency_failure": policy}]
        )

    assert states(queue, job) == [state]
    if policy == "cancel":
        assert types(queue, job) == ["created", "cancelled"]


def test_a_doomed_call_is_doomed_to_its_end(queue, needed):
    """In one call: the first is cancelled at birth and takes the second along."""
    queue.cancel(needed)

    ids = queue.enqueue_many(
        [
            {"kind": "k", "key": "b", "after": ["a"], "on_dependency_failure": "cancel"},
            {"kind": "k", "key": "a", "after": [needed], "on_dependency_failure": "cancel"},
        ]
    )

    assert states(queue, *ids) == ["cancelled", "cancelled"]


def test_run_still_waits_for_the_other_dependencies(queue, needed):
    """Each of them must have ended."""
    other = queue.enqueue("k")
    job = queue.enqueue("k", after=[needed, other], on_dependency_failure="run")

    queue.cancel(needed)
    early = states(queue, job)
    queue.cancel(other)

    assert (early, states(queue, job)) == (["waiting"], ["queued"])


def test_a_failed_job_that_runs_again_is_waited_for_again(queue, needed, types):
    """Who counted the failure as met and has not started does so no longer."""
    job = queue.enqueue("k", after=[needed], on_dependency_failure="run")
    queue.cancel(needed)

    queue.retry(needed)

    assert states(queue, job) == ["waiting"]
    assert types(queue, job)[-1] == "waiting"
    queue.complete(queue.claim("w")[0])
    assert states(queue, job) == ["queued"]


def test_blocked_is_not_an_end(queue, needed):
    """A person may still let it go on, so nobody is cancelled and nobody runs."""
    jobs = [
        queue.enqueue("k", after=[needed], on_dependency_failure=policy)
        for policy in ("wait", "cancel", "run")
    ]
    [held] = queue.claim("w")

    queue.fail(held, "needs a person", outcome="block")

    assert states(queue, *jobs) == ["waiting"] * 3


def test_a_dependent_that_is_running_goes_on(queue, needed):
    """It took the failure as met; that the job runs again does not stop it."""
    job = queue.enqueue("k", after=[needed], on_dependency_failure="run")
    queue.cancel(needed)
    [held] = queue.claim("w", start=True)

    queue.retry(needed)

    assert held.id == job
    assert states(queue, job) == ["running"]


def test_a_dependent_that_comes_back_meanwhile_hears_of_it(here, session, blocked, look):
    """A blocked one is being retried while its dependency fails: it is cancelled, not stuck."""
    needed = here.enqueue("k")
    [held] = here.claim("w", limit=1)
    child = here.enqueue("l", after=[needed], on_dependency_failure="cancel")
    # Blocked, as a DAG does it that takes a task out: not through a lease.
    look(
        "update moonmind_queue.job set state = 'blocked', unmet = 0 where id = %s returning 1",
        child,
    )
    person = session()
    Queue(person).retry(child)

    failing = blocked(lambda queue: queue.fail(held, "no", outcome="fail"))
    person.commit()

    assert failing.result(15) == JobState.FAILED
    assert here.get(child).state == JobState.CANCELLED
    assert look("select from moonmind_queue.queue_fault") == []


def test_an_unknown_word_is_refused(queue, refused):
    """The check of the table names the column."""
    with refused("23514", "on_dependency_failure"):
        queue.enqueue("k", on_dependency_failure="ignore")


def test_the_reason_is_shown_while_it_waits(queue, db, needed):
    """blocked_job says in words what the waiting one waits for."""
    job = queue.enqueue("k", after=[needed])
    queue.cancel(needed, "not now")

    [(reason,)] = db.execute(
        "select reason from moonmind_queue.blocked_job where id = %s", [job]
    ).fetchall()

    assert reason == f"needs job {needed}, which is cancelled (not now)"
