"""A claim of given jobs: what any claim demands of a job it demands too, and takes no other."""

from datetime import timedelta

import pytest

from moonmind_queue import Queue

HOUR = timedelta(hours=1)


def test_only_the_given_jobs_are_claimed(queue):
    """However urgent the others are; the most urgent of these first."""
    low, high, other = (queue.enqueue("k", priority=n) for n in (1, 2, 9))

    assert [job.id for job in queue.claim("w", limit=9, job_ids=[low, high])] == [high, low]
    assert [job.id for job in queue.claim("w")] == [other]


def test_a_claimed_job_is_not_claimed_again(queue):
    """Nor one that nobody knows, nor none at all."""
    job = queue.enqueue("k")
    queue.enqueue("k")
    queue.claim("w", job_ids=[job])

    assert queue.claim("v", limit=9, job_ids=[job, 10**9]) == []
    assert queue.claim("v", limit=9, job_ids=[]) == []


@pytest.mark.parametrize(
    "why", ["waits", "later", "paused", "agent", "kind", "capabilities", "limit", "expired"]
)
def test_what_no_claim_would_take_this_one_does_not(queue, clock, why):
    """Nothing is changed by the attempt: as soon as the reason is gone the job is there."""
    options = {
        "waits": {"after": [queue.enqueue("other")]},
        "later": {"run_at": clock.now + HOUR},
        "capabilities": {"capabilities": ["gpu"]},
        "expired": {"expires_at": clock.now + timedelta(seconds=1)},
    }.get(why, {})
    job = queue.enqueue("k", agent="codex", **options)
    asked = {"agent": {"agents": ["claude"]}, "kind": {"kinds": ["other"]}}.get(why, {})
    if why == "paused":
        queue.pause("codex")
    if why == "limit":
        queue.set_limit("kind", "k", 1)
        queue.enqueue("k", priority=9)
        queue.claim("v")
    if why == "expired":
        clock.advance(HOUR)
    history = len(queue.history(job))

    assert queue.claim("w", job_ids=[job], **asked) == []

    assert len(queue.history(job)) == history
    assert not queue.select("select * from moonmind_queue.queue_fault")


def test_a_job_that_another_session_has_locked_is_passed_over(here, session):
    """It never waits."""
    job = here.enqueue("k")
    other = session()
    other.execute("select from moonmind_queue.job where id = %s for update", [job])

    assert here.claim("w", job_ids=[job]) == []


def test_two_that_want_one_job_get_it_once(here, session):
    """The second finds nothing, and nothing is taken twice."""
    job = here.enqueue("k")
    first = Queue(session())
    [held] = first.claim("one", job_ids=[job])
    assert here.claim("two", job_ids=[job]) == []
    first.connection.commit()

    assert here.claim("two", job_ids=[job]) == []
    here.complete(held)


def test_a_job_whose_time_has_just_come_is_claimed(queue, clock):
    """It goes from scheduled to ready in the same call, as with any claim."""
    job = queue.enqueue("k", run_at=clock.now + HOUR)
    clock.advance(HOUR)

    assert [each.id for each in queue.claim("w", job_ids=[job])] == [job]


def test_whoever_has_forgotten_its_tokens_can_ask_for_them(queue):
    """By the name under which it claimed; of other workers it learns nothing."""
    queue.enqueue("k")
    queue.enqueue("k")
    [mine], [other] = queue.claim("w", start=True), queue.claim("v")

    [held] = queue.held_by("w")

    assert (held.job_id, held.token, held.attempt, held.started) == (mine.id, mine.token, 1, True)
    assert [each.job_id for each in queue.held_by("v")] == [other.id]
    assert queue.held_by("nobody") == []
