"""retry(): a person lets a job run again."""

from datetime import timedelta

import pytest

from moonmind_queue import JobState

HOUR = timedelta(hours=1)


def ended(queue, state, **options):
    """A job that has come to a state."""
    queue.enqueue("k", max_attempts=1, **options)
    [job] = queue.claim("w", start=True)
    if state == "succeeded":
        queue.complete(job, {"n": 1})
    elif state == "cancelled":
        queue.cancel(job.id)
        queue.release(job)
    else:
        outcome = {"blocked": "block", "failed": "fail", "dead_letter": "retry"}[state]
        queue.fail(job, "no", outcome=outcome)
    assert queue.get(job.id).state == state
    return job.id


@pytest.mark.parametrize("state", ["succeeded", "failed", "dead_letter", "cancelled", "blocked"])
def test_what_has_ended_or_is_blocked_runs_again(queue, clock, types, state):
    """At once, with attempts counted anew; the history goes on."""
    job = ended(queue, state)
    clock.advance(HOUR)

    new = queue.retry(job)

    again = queue.get(job)
    assert (new, again.state, again.attempt) == ("queued", JobState.QUEUED, 0)
    assert (again.run_at, again.finished_at, again.result) == (clock.now, None, None)
    assert types(queue, job)[-1] == "retried"
    assert queue.history(job)[-1].message == f"was {state}"
    assert [held.attempt for held in queue.claim("w")] == [1]


def test_a_job_that_rests_runs_now_and_keeps_its_attempts(queue, clock, types):
    """Nobody has to wait for the back-off."""
    job = queue.enqueue("k")
    [held] = queue.claim("w")
    queue.fail(held, "no", retry_in=HOUR)

    state = queue.retry(job)

    assert (state, queue.get(job).run_at) == (JobState.QUEUED, clock.now)
    assert types(queue, job)[-1] == "retried"
    assert [held.attempt for held in queue.claim("w")] == [2]


def test_a_job_that_is_claimable_already_is_left_alone(queue, db, clock, picture):
    """No event, no new place in the line."""
    job = queue.enqueue("k")
    before = picture(db)

    assert queue.retry(job) == JobState.QUEUED
    assert picture(db) == before


@pytest.mark.parametrize("start", [False, True])
def test_a_leased_job_cannot_be_retried(queue, refused, start):
    """MQ003: somebody is at it."""
    queue.enqueue("k")
    [held] = queue.claim("w", start=start)

    with refused("MQ003", "running" if start else "claimed"):
        queue.retry(held.id)


def test_a_waiting_job_cannot_be_retried(queue, refused):
    """MQ003 says for how many it waits."""
    child = queue.enqueue("k", after=[queue.enqueue("k"), queue.enqueue("k")])

    with refused("MQ003", "waits for 2 other"):
        queue.retry(child)


def test_with_an_unmet_need_it_waits(queue):
    """The dependency rule holds for retried jobs as well."""
    need = queue.enqueue("k")
    child = queue.enqueue("k", after=[need])
    queue.cancel(child)

    assert queue.retry(child) == JobState.WAITING


def test_the_first_start_is_remembered(queue, clock):
    """started_at is when an attempt first began to run."""
    job = ended(queue, "failed")
    first = queue.get(job).started_at
    clock.advance(HOUR)
    queue.retry(job)

    queue.claim("w", start=True)

    assert queue.get(job).started_at == first
