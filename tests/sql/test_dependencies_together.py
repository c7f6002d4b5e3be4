"""Dependencies in several sessions at once: races, each forced in both orders."""

from datetime import timedelta

from moonmind_queue import JobState, Queue

ZERO = timedelta(0)


def run(queue, *jobs):
    """Claim and complete exactly these jobs."""
    held = {job.id: job for job in queue.claim("w", limit=99)}
    assert set(held) == set(jobs)
    for job in jobs:
        queue.complete(held[job])


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
