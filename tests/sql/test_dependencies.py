"""Dependencies: nothing starts before what it needs has succeeded, and nothing waits for ever."""

from datetime import timedelta

import pytest

from moonmind_queue import JobState

ZERO = timedelta(0)
HOUR = timedelta(hours=1)


def run(queue, *jobs):
    """Claim and complete exactly these jobs."""
    held = {job.id: job for job in queue.claim("w", limit=99)}
    assert set(held) == set(jobs)
    for job in jobs:
        queue.complete(held[job])


def states(queue, *jobs):
    """How these jobs stand."""
    return [str(queue.get(job).state) for job in jobs]


def test_a_chain_runs_in_its_order(queue):
    """Each job is queued by the success of the one before."""
    one = queue.enqueue("k")
    two = queue.enqueue("k", after=[one])
    three = queue.enqueue("k", after=[two])

    assert states(queue, one, two, three) == ["queued", "waiting", "waiting"]
    run(queue, one)
    assert states(queue, one, two, three) == ["succeeded", "queued", "waiting"]
    run(queue, two)
    run(queue, three)


def test_a_diamond_joins_again(queue, types):
    """The last job waits for both sides and is queued once."""
    top = queue.enqueue("k")
    left, right = (queue.enqueue("k", after=[top]) for _ in range(2))
    bottom = queue.enqueue("k", after=[left, right])

    run(queue, top)
    run(queue, left, right)

    assert types(queue, bottom) == ["created", "ready"]
    run(queue, bottom)


def test_one_success_frees_many(queue):
    """Fan-out: fifty dependents are queued in one transaction."""
    top = queue.enqueue("k")
    fan = [queue.enqueue("k", after=[top]) for _ in range(50)]

    run(queue, top)

    assert [job.id for job in queue.claim("w", limit=99)] == fan


def test_many_successes_free_one(queue):
    """Fan-in: only the last of fifty frees the dependent."""
    fan = [queue.enqueue("k") for _ in range(50)]
    last = queue.enqueue("k", after=fan)
    held = queue.claim("w", limit=99)

    for job in held[:-1]:
        queue.complete(job)
    waiting = queue.get(last).state
    queue.complete(held[-1])

    assert waiting == JobState.WAITING
    run(queue, last)


@pytest.mark.parametrize("outcome", ["fail", "block"])
def test_a_need_that_did_not_succeed_keeps_its_dependent_waiting(queue, outcome):
    """Failed and blocked needs are not met."""
    need = queue.enqueue("k")
    child = queue.enqueue("k", after=[need])

    [job] = queue.claim("w")
    queue.fail(job, "no", outcome=outcome)

    assert queue.get(child).state == JobState.WAITING
    assert queue.claim("w") == []


def test_a_need_that_is_retried_and_succeeds_frees_its_dependent(queue):
    """A dependent of a dead letter waits until a person has mended that."""
    need = queue.enqueue("k", max_attempts=1)
    child = queue.enqueue("k", after=[need])
    [job] = queue.claim("w")
    queue.fail(job, "no")

    queue.retry(need)
    run(queue, need)

    run(queue, child)


def test_needs_that_have_succeeded_do_not_hold_a_new_job(queue):
    """A job after finished work is queued at once."""
    need = queue.enqueue("k")
    run(queue, need)

    child = queue.enqueue("k", after=[need])

    assert queue.get(child).state == JobState.QUEUED


def test_a_need_that_is_named_twice_counts_once(queue):
    """Duplicates in after do not matter."""
    need = queue.enqueue("k")
    child = queue.enqueue("k", after=[need, need])
    [other, again] = queue.enqueue_many(
        [{"kind": "k", "key": "a", "after": [need, need]}, {"kind": "k", "after": ["a", "a"]}]
    )

    run(queue, need)

    run(queue, child, other)
    run(queue, again)


def test_a_released_dependent_keeps_its_time(queue, clock):
    """A job that waits and has a run_at needs both."""
    need = queue.enqueue("k")
    child = queue.enqueue("k", after=[need], run_at=clock.now + HOUR)

    run(queue, need)
    early = queue.claim("w")
    clock.advance(HOUR)

    assert early == []
    run(queue, child)


def test_the_guard_in_the_claim_holds_even_against_a_wrong_count(queue, db):
    """Without the bookkeeping the dependency subquery alone still keeps a job back."""
    need = queue.enqueue("l")
    child = queue.enqueue("k", after=[need])
    db.execute("update moonmind_queue.job set state = 'queued', unmet = 0 where id = %s", [child])
    db.execute(
        "insert into moonmind_queue.ready select rank, id, lane_id"
        " from moonmind_queue.job where id = %s",
        [child],
    )

    guarded = queue.claim("w", kinds=["k"])
    run(queue, need)

    assert guarded == []
    assert [job.id for job in queue.claim("w")] == [child]


def test_an_edge_to_a_job_that_is_gone_is_not_met(queue, db):
    """A dependency id without a row counts as not done."""
    child = queue.enqueue("k")
    db.execute("insert into moonmind_queue.dependency values (%s, %s)", [child, 2**60])

    assert queue.claim("w") == []


# --- a job that has succeeded runs again -------------------------------------------------------


def test_dependents_that_have_not_started_wait_again(queue, types):
    """retry of a succeeded job parks queued and waiting dependents, each once more."""
    need, other = queue.enqueue("k"), queue.enqueue("l")
    queued = queue.enqueue("k", after=[need])
    waiting = queue.enqueue("k", after=[need, other])
    [job] = queue.claim("w", kinds=["k"])
    queue.complete(job)

    queue.retry(need)
    parked = states(queue, queued, waiting)
    run(queue, need, other)

    assert parked == ["waiting", "waiting"]
    assert types(queue, queued) == ["created", "ready", "waiting", "ready"]
    assert types(queue, waiting) == ["created", "ready"]
    run(queue, queued, waiting)


def test_a_dependent_that_rests_for_its_time_waits_again(queue, clock):
    """A scheduled dependent is parked like one that is ready."""
    need = queue.enqueue("k")
    child = queue.enqueue("k", after=[need], run_at=clock.now + HOUR)
    run(queue, need)

    queue.retry(need)
    clock.advance(HOUR)

    assert queue.get(child).state == JobState.WAITING
    run(queue, need)
    run(queue, child)


def test_a_running_dependent_goes_on(queue):
    """Who has started took the success that was; handed back, it waits."""
    need = queue.enqueue("k")
    child = queue.enqueue("k", after=[need])
    run(queue, need)
    [job] = queue.claim("w", start=True)

    queue.retry(need)
    running = queue.get(child).state
    queue.release(job)

    assert running == JobState.RUNNING
    assert queue.get(child).state == JobState.WAITING
    run(queue, need)
    run(queue, child)


@pytest.mark.parametrize("way", ["fail", "release", "expire", "unlock"])
def test_every_way_back_into_the_queue_looks_at_the_needs(queue, clock, way):
    """A job never comes back claimable while a need of it is not succeeded."""
    need = queue.enqueue("k")
    child = queue.enqueue("k", after=[need])
    run(queue, need)
    [job] = queue.claim("w", start=True)
    queue.retry(need)

    if way == "fail":
        queue.fail(job, "no", retry_in=ZERO)
    elif way == "release":
        queue.release(job)
    elif way == "unlock":
        queue.unlock(child)
    else:
        clock.advance(HOUR)
        queue.reclaim()

    assert queue.get(child).state == JobState.WAITING


def test_a_waiting_job_is_cancelled_and_stays_so(queue):
    """The success of its need does not wake it."""
    need = queue.enqueue("k")
    child = queue.enqueue("k", after=[need])

    queue.cancel(child)
    [job] = queue.claim("w")
    queue.complete(job)

    assert queue.get(child).state == JobState.CANCELLED
    assert queue.claim("w") == []
