"""unlock(): an operator takes a lease away, carefully or by force."""

from datetime import timedelta

import pytest

from moonmind_queue import JobState

HOUR = timedelta(hours=1)


@pytest.fixture
def held(queue, clock):
    """A running job of a worker that nobody has registered."""
    queue.enqueue("k")
    [job] = queue.claim("host-1", start=True)
    return job


@pytest.fixture
def worker(queue, held):
    """The registered process behind the lease."""
    return queue.register_worker(
        "host-1", agents=None, kinds=None, capabilities=[], slots=1, host="h", pid=1, version="1"
    )


def test_a_job_of_nobody_known_is_queued_at_once(queue, clock, held, types):
    """One event names from whom it was taken; the attempt counts."""
    state = queue.unlock(held.id)

    job = queue.get(held.id)
    assert (state, job.state, job.attempt, job.run_at) == ("queued", "queued", 1, clock.now)
    assert types(queue, held.id)[-1] == "unlocked"
    assert queue.history(held.id)[-1].message == "taken from host-1"


def test_a_live_worker_keeps_its_job(queue, db, held, worker, picture, refused):
    """MQ003 says who is alive; nothing changes."""
    before = picture(db)

    with refused("MQ003", "host-1, which is alive"):
        queue.unlock(held.id)

    assert picture(db) == before


@pytest.mark.parametrize("force", [False, None])
def test_only_true_is_force(queue, held, worker, refused, force):
    """Null, which a careless caller may pass, does not take a job from a live worker."""
    with refused("MQ003"):
        queue.unlock(held.id, force=force)


def test_by_force_it_is_taken_from_a_live_worker(queue, held, worker, refused):
    """The fence keeps the late worker out."""
    assert queue.unlock(held.id, force=True) == JobState.QUEUED

    assert queue.history(held.id)[-1].data == {"forced": True}
    with refused("MQ001"):
        queue.complete(held)


def test_a_worker_that_stopped_does_not_keep_its_job(queue, held, worker):
    """It has said that it ends."""
    queue.see_worker(worker, stopped=True)

    assert queue.unlock(held.id) == JobState.QUEUED


def test_a_worker_unseen_for_two_minutes_does_not_keep_its_job(queue, clock, held, worker):
    """A long lease outlives its worker; an operator need not wait for its end."""
    clock.advance(timedelta(seconds=121))

    assert queue.unlock(held.id) == JobState.QUEUED


def test_a_cancel_request_wins(queue, held, types):
    """The job is cancelled and not queued."""
    queue.cancel(held.id, "stop it")

    assert queue.unlock(held.id) == JobState.CANCELLED
    assert types(queue, held.id)[-2:] == ["unlocked", "cancelled"]


@pytest.mark.parametrize("state", ["queued", "waiting", "succeeded"])
def test_a_job_without_a_lease_is_refused(queue, held, refused, state):
    """MQ003 says how it stands."""
    job = held.id
    if state == "succeeded":
        queue.complete(held)
    else:
        job = queue.enqueue("k", after=[held.id] if state == "waiting" else [])

    with refused("MQ003", f"is not leased: it is {state}"):
        queue.unlock(job)


def test_after_the_last_attempt_it_may_be_claimed_once_more(queue):
    """It was a person's decision that the job should run again."""
    queue.enqueue("k", max_attempts=1)
    [held] = queue.claim("w")

    queue.unlock(held.id)

    assert [job.attempt for job in queue.claim("w")] == [2]


def test_the_worker_is_told(here, session):
    """The control channel carries its name."""
    here.enqueue("k")
    [held] = here.claim("host-1")
    listener = session(autocommit=True)
    listener.execute("listen moonmind_queue_control")

    here.unlock(held.id)

    [notice] = listener.notifies(timeout=5, stop_after=1)
    assert notice.payload == "host-1"
