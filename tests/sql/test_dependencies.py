"""Dependencies: nothing starts before what it needs has succeeded, and nothing waits for ever."""

from datetime import timedelta

import pytest

from moonmind_queue import JobState, Queue

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
        "insert into moonmind_queue.ready select lane_id, priority, run_at, id"
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


# --- races, forced in both orders --------------------------------------------------------------


def test_two_sessions_that_complete_the_last_needs_free_the_child_once(
    here, session, blocked, types
):
    """The second waits for the first; the child is queued by exactly one of them."""
    needs = here.enqueue_many([{"kind": "k"}] * 2)
    child = here.enqueue("k", after=needs)
    one, two = here.claim("w", limit=2)
    first = session()
    Queue(first).complete(one)

    second = blocked(lambda queue: queue.complete(two))
    first.commit()
    second.result()

    assert types(here, child) == ["created", "ready"]
    run(here, child)


def test_a_child_that_comes_while_its_need_completes_is_not_forgotten(here, session, blocked):
    """enqueue waits for the completion and then sees it."""
    need = here.enqueue("k")
    [job] = here.claim("w")
    completing = session()
    Queue(completing).complete(job)

    child = blocked(lambda queue: queue.enqueue("k", after=[need]))
    completing.commit()

    run(here, child.result())


def test_a_child_that_comes_just_before_its_need_completes_is_freed(here, session, blocked):
    """The completion waits for the producer and then sees the child."""
    need = here.enqueue("k")
    [job] = here.claim("w")
    producing = session()
    child = Queue(producing).enqueue("k", after=[need])

    completion = blocked(lambda queue: queue.complete(job))
    producing.commit()
    completion.result()

    run(here, child)


def test_children_in_bulk_are_not_forgotten_either(here, session, blocked):
    """enqueue_many waits for the completion of a need, by id and by key."""
    need = here.enqueue("k", key="need")
    [job] = here.claim("w")
    completing = session()
    Queue(completing).complete(job)

    jobs = [{"kind": "k", "after": [need]}, {"kind": "k", "after": ["need"]}]
    children = blocked(lambda queue: queue.enqueue_many(jobs))
    completing.commit()

    run(here, *children.result())


def test_a_child_whose_producer_gives_up_leaves_the_need_alone(here, session, blocked):
    """After a rollback the completion goes on as if nothing had been."""
    need = here.enqueue("k")
    [job] = here.claim("w")
    producing = session()
    Queue(producing).enqueue("k", after=[need])

    completion = blocked(lambda queue: queue.complete(job))
    producing.rollback()
    completion.result()

    assert here.claim("w") == []


def test_a_retry_of_the_child_before_the_need_completes(here, session, blocked):
    """The child comes back to waiting, and the completion that waited for it frees it."""
    need = here.enqueue("k")
    child = here.enqueue("k", after=[need])
    here.cancel(child)
    [job] = here.claim("w")
    retrying = session()
    assert Queue(retrying).retry(child) == JobState.WAITING

    completion = blocked(lambda queue: queue.complete(job))
    retrying.commit()
    completion.result()

    run(here, child)


def test_a_retry_of_the_child_after_the_need_completes(here, session, blocked):
    """The retry waits for the completion and finds the need met."""
    need = here.enqueue("k")
    child = here.enqueue("k", after=[need])
    here.cancel(child)
    [job] = here.claim("w")
    completing = session()
    Queue(completing).complete(job)

    retried = blocked(lambda queue: queue.retry(child))
    completing.commit()

    assert retried.result() == JobState.QUEUED
    run(here, child)


def test_a_retry_of_the_need_before_its_child_is_claimed(here, session):
    """While the need is being put back, a claimer passes the child over."""
    need = here.enqueue("k")
    child = here.enqueue("k", after=[need])
    run(here, need)
    retrying = session()
    Queue(retrying).retry(need)

    during = here.claim("w")
    retrying.commit()

    assert during == []
    run(here, need)
    run(here, child)


def test_a_retry_of_the_need_after_its_child_is_claimed(here, session, blocked):
    """The retry waits for the claimer; the child runs on the success that it saw."""
    need = here.enqueue("k")
    child = here.enqueue("k", after=[need])
    run(here, need)
    claiming = session()
    [job] = Queue(claiming).claim("w")

    retried = blocked(lambda queue: queue.retry(need))
    claiming.commit()

    assert retried.result() == JobState.QUEUED
    assert here.get(child).state == JobState.CLAIMED
    here.complete(job)


def test_a_failing_child_and_a_retried_need_agree(here, session, blocked):
    """The child is queued, then parked by the retry that waited for it."""
    need = here.enqueue("k")
    child = here.enqueue("k", after=[need])
    run(here, need)
    [job] = here.claim("w")
    failing = session()
    assert Queue(failing).fail(job, "no", retry_in=ZERO) == JobState.QUEUED

    retried = blocked(lambda queue: queue.retry(need))
    failing.commit()
    retried.result()

    assert here.get(child).state == JobState.WAITING
    run(here, need)
    run(here, child)


def test_a_new_child_waits_for_the_retry_of_its_need(here, session, blocked):
    """enqueue sees the need as it is after the retry."""
    need = here.enqueue("k")
    run(here, need)
    retrying = session()
    Queue(retrying).retry(need)

    child = blocked(lambda queue: queue.enqueue("k", after=[need]))
    retrying.commit()

    assert here.get(child.result()).state == JobState.WAITING
