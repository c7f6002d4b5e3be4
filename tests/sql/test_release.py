"""release(): a job handed back unharmed stands where it stood."""

from datetime import timedelta

import pytest

from moonmind_queue import InvalidArgument, JobState

MINUTE = timedelta(minutes=1)


@pytest.mark.parametrize("start", [False, True])
def test_the_job_is_queued_and_the_attempt_does_not_count(queue, db, start, types):
    """However often it is handed back, the next claim is the first attempt."""
    job = queue.enqueue("k", max_attempts=1)
    for _ in range(3):
        [held] = queue.claim("w", start=start)
        queue.release(held)

    assert (queue.get(job).state, queue.get(job).attempt) == (JobState.QUEUED, 0)
    assert [held.attempt for held in queue.claim("w")] == [1]
    assert types(queue, job).count("released") == 3


def test_it_keeps_its_place(queue, clock):
    """It is not sent to the end of the line."""
    first, second = queue.enqueue("k"), queue.enqueue("k")
    clock.advance(MINUTE)
    [held] = queue.claim("w")

    queue.release(held)

    assert [job.id for job in queue.claim("w", limit=2)] == [first, second]


def test_it_may_come_back_later(queue, clock):
    """Not before its time, at whatever place it stood; the attempt does not count."""
    job = queue.enqueue("k", max_attempts=1)
    [held] = queue.claim("w")

    queue.release(held, "in use", rest=MINUTE)

    clock.advance(MINUTE - timedelta(microseconds=1))
    assert queue.claim("w") == []
    clock.advance(timedelta(microseconds=1))
    assert [(each.id, each.attempt) for each in queue.claim("w")] == [(job, 1)]


@pytest.mark.parametrize("rest", [timedelta(seconds=-1), timedelta(days=400)])
def test_it_comes_back_within_a_year(queue, rest):
    """What is asked for otherwise is refused, and the job stays with its holder."""
    queue.enqueue("k")
    [held] = queue.claim("w")

    with (
        pytest.raises(InvalidArgument, match="between 0 and a year"),
        queue.connection.transaction(),
    ):
        queue.release(held, rest=rest)

    queue.complete(held)


def test_the_reason_is_in_the_history(queue):
    """With the worker's name."""
    queue.enqueue("k")
    [held] = queue.claim("w")

    queue.release(held, "shutting down")

    event = queue.history(held.id)[-1]
    assert (event.type, event.message, event.worker) == ("released", "shutting down", "w")


def test_no_reason_is_needed(queue):
    """The message is then empty."""
    queue.enqueue("k")
    [held] = queue.claim("w")

    queue.release(held)

    assert queue.history(held.id)[-1].message == ""


def test_only_the_attempt_that_is_handed_back_is_restored(queue, clock):
    """Attempts that failed before still count."""
    job = queue.enqueue("k")
    [held] = queue.claim("w")
    queue.fail(held, "no", retry_in=timedelta(0))
    [held] = queue.claim("w")

    queue.release(held)

    assert queue.get(job).attempt == 1


def test_idle_workers_are_woken(here, sleeper):
    """The channel carries the agent."""
    here.enqueue("k", agent="claude")
    [held] = here.claim("w")
    listener = sleeper()

    here.release(held)

    [notice] = listener.notifies(timeout=5, stop_after=1)
    assert notice.payload == "claude"
