"""cancel(): at once where nobody works, else a request that wins over all but a completion."""

from datetime import timedelta

import pytest

from moonmind_queue import JobState, LeaseLost, Queue, WrongState

ZERO = timedelta(0)
HOUR = timedelta(hours=1)


def test_a_queued_job_is_cancelled_at_once(queue, clock, db, types):
    """It ends with one event, and nothing is left to claim."""
    job = queue.enqueue("k")

    state = queue.cancel(job, "changed our minds")

    assert state == JobState.CANCELLED
    assert types(queue, job) == ["created", "cancelled"]
    assert queue.claim("w") == []
    ended = queue.get(job)
    assert (ended.error, ended.finished_at) == ("changed our minds", clock.now)
    assert db.execute("select count(*) from moonmind_queue.ready").fetchone() == (0,)


def test_a_scheduled_job_never_comes_due(queue, clock, db):
    """Its time comes and nothing happens."""
    job = queue.enqueue("k", run_at=clock.now + HOUR)

    queue.cancel(job)
    clock.advance(HOUR)

    assert queue.claim("w") == []
    assert db.execute("select count(*) from moonmind_queue.scheduled").fetchone() == (0,)


def test_a_blocked_job_is_cancelled(queue):
    """What waits for a person may be given up."""
    queue.enqueue("k")
    [job] = queue.claim("w")
    queue.fail(job, "?", outcome="block")

    assert queue.cancel(job.id) == JobState.CANCELLED


@pytest.mark.parametrize("start", [False, True])
def test_the_holder_of_a_leased_job_is_asked(queue, types, start):
    """The state stays, the request is an event, and the next renewal tells the holder."""
    queue.enqueue("k")
    [job] = queue.claim("w", start=start)

    state = queue.cancel(job.id, "stop it")

    assert state == (JobState.RUNNING if start else JobState.CLAIMED)
    assert types(queue, job.id)[-1] == "cancel_requested"
    assert queue.history(job.id)[-1].message == "stop it"
    assert [held.cancel_requested for held in queue.renew([job], HOUR)] == [True]


def test_a_reason_is_found_when_none_is_given(queue):
    """The role that cancelled is named."""
    job = queue.enqueue("k")

    queue.cancel(job)

    assert queue.get(job).error == "cancelled by postgres"


@pytest.mark.parametrize("leased", [False, True])
def test_a_second_request_changes_nothing(queue, db, picture, leased):
    """The first reason stays, and there is no second event."""
    job = queue.enqueue("k")
    if leased:
        queue.claim("w")
    state = queue.cancel(job, "first")
    before = picture(db)

    again = queue.cancel(job, "second")

    assert again == state
    assert picture(db) == before


@pytest.mark.parametrize("state", ["succeeded", "failed", "dead_letter"])
def test_a_job_that_has_ended_otherwise_cannot_be_cancelled(queue, db, picture, refused, state):
    """MQ003 says how it ended."""
    queue.enqueue("k", max_attempts=1)
    [job] = queue.claim("w")
    if state == "succeeded":
        queue.complete(job)
    else:
        queue.fail(job, "no", outcome="fail" if state == "failed" else "retry")
    before = picture(db)

    with refused("MQ003", state):
        queue.cancel(job.id)

    assert picture(db) == before


WAYS = {
    "complete": lambda queue, job: queue.complete(job, {"n": 1}),
    "complete_many": lambda queue, job: queue.complete_many([(job, {"n": 1})]),
    "fail to retry": lambda queue, job: queue.fail(job, "no", retry_in=ZERO),
    "fail for good": lambda queue, job: queue.fail(job, "no", outcome="fail"),
    "block": lambda queue, job: queue.fail(job, "no", outcome="block"),
    "release": lambda queue, job: queue.release(job),
    "unlock": lambda queue, job: queue.unlock(job.id, force=True),
}


@pytest.mark.parametrize("way", WAYS)
def test_the_request_wins_however_the_attempt_ends(queue, types, way):
    """The job is cancelled for the reason of the request, with one event."""
    queue.enqueue("k")
    [job] = queue.claim("w", start=True)
    queue.cancel(job.id, "stop it")

    WAYS[way](queue, job)

    ended = queue.get(job.id)
    assert (ended.state, ended.error) == (JobState.CANCELLED, "stop it")
    assert types(queue, job.id).count("cancelled") == 1
    assert types(queue, job.id)[-1] == "cancelled"


def test_the_request_wins_over_a_lost_lease(queue, clock, types):
    """A job whose worker died is not queued again."""
    queue.enqueue("k")
    [job] = queue.claim("w")
    queue.cancel(job.id, "stop it")
    clock.advance(HOUR)

    [taken] = queue.reclaim()

    assert taken.state == JobState.CANCELLED
    assert types(queue, job.id)[-2:] == ["expired", "cancelled"]


def test_the_result_of_a_cancelled_completion_is_kept(queue):
    """What the holder brought is not thrown away, and dependents are not freed."""
    need = queue.enqueue("k")
    child = queue.enqueue("k", after=[need])
    [job] = queue.claim("w")
    queue.cancel(need)

    queue.complete(job, {"n": 1})

    assert queue.get(need).result == {"n": 1}
    assert queue.get(child).state == JobState.WAITING


def test_the_worker_is_notified(here, session):
    """The control channel carries the worker's name."""
    here.enqueue("k")
    [job] = here.claim("host-1")
    listener = session(autocommit=True)
    listener.execute("listen moonmind_queue_control")

    here.cancel(job.id)

    [notice] = listener.notifies(timeout=5, stop_after=1)
    assert notice.payload == "host-1"


# --- races, forced in both orders --------------------------------------------------------------


def test_a_cancel_behind_a_claim_asks_the_new_holder(here, session, blocked):
    """The job was just being claimed: it is never "not found" and never lost."""
    job = here.enqueue("k")
    claiming = session()
    [held] = Queue(claiming).claim("w")

    asked = blocked(lambda queue: queue.cancel(job))
    claiming.commit()

    assert asked.result() == JobState.CLAIMED
    assert [row.cancel_requested for row in here.renew([held], HOUR)] == [True]


def test_a_claim_behind_a_cancel_finds_nothing(here, session):
    """A job that is just being cancelled is passed over."""
    job = here.enqueue("k")
    cancelling = session()
    Queue(cancelling).cancel(job)

    during = here.claim("w")
    cancelling.commit()

    assert (during, here.claim("w")) == ([], [])


def test_a_cancel_that_is_rolled_back_leaves_the_job_claimable(here, session):
    """Nothing is lost with the canceller's transaction."""
    job = here.enqueue("k")
    cancelling = session()
    Queue(cancelling).cancel(job)

    cancelling.rollback()

    assert [held.id for held in here.claim("w")] == [job]


def test_a_cancel_behind_a_completion_is_too_late(here, session, blocked):
    """Success that came first wins."""
    here.enqueue("k")
    [job] = here.claim("w")
    completing = session()
    Queue(completing).complete(job)

    late = blocked(lambda queue: queue.cancel(job.id))
    completing.commit()

    with pytest.raises(WrongState):
        late.result()
    assert here.get(job.id).state == JobState.SUCCEEDED


@pytest.mark.parametrize("way", WAYS)
def test_an_ending_behind_a_cancel_is_a_cancellation(here, session, blocked, way):
    """A request that came first wins, also when the holder had begun to report."""
    here.enqueue("k")
    [job] = here.claim("w")
    cancelling = session()
    Queue(cancelling).cancel(job.id)

    ending = blocked(lambda queue: WAYS[way](queue, job))
    cancelling.commit()
    ending.result()

    assert here.get(job.id).state == JobState.CANCELLED


def test_a_cancel_behind_a_failure_finds_the_job_queued(here, session, blocked):
    """The job that was just being put back is cancelled at once."""
    here.enqueue("k")
    [job] = here.claim("w")
    failing = session()
    Queue(failing).fail(job, "no", retry_in=ZERO)

    asked = blocked(lambda queue: queue.cancel(job.id))
    failing.commit()

    assert asked.result() == JobState.CANCELLED
    assert here.claim("w") == []


def test_a_cancel_behind_a_reclaim_finds_the_job_queued(here, session, blocked, fresh, clock_of):
    """A lost lease that is just being taken back does not hide the job."""
    here.enqueue("k")
    [job] = here.claim("w")
    clock_of(fresh).advance(HOUR)
    reclaiming = session()
    Queue(reclaiming).reclaim()

    asked = blocked(lambda queue: queue.cancel(job.id))
    reclaiming.commit()

    assert asked.result() == JobState.CANCELLED
    with pytest.raises(LeaseLost):
        here.complete(job)


def test_a_reclaim_behind_a_cancel_comes_again(here, session, fresh, clock_of):
    """What is just being cancelled is passed over, and cancelled by the next reclaim."""
    here.enqueue("k")
    [job] = here.claim("w")
    clock_of(fresh).advance(HOUR)
    cancelling = session()
    Queue(cancelling).cancel(job.id)

    during = here.reclaim()
    cancelling.commit()

    assert during == []
    assert [taken.state for taken in here.reclaim()] == [JobState.CANCELLED]


def test_a_cancel_behind_a_renewal_waits_for_it(here, session, blocked):
    """The lease that is being renewed gets the request afterwards."""
    here.enqueue("k")
    [job] = here.claim("w")
    renewing = session()
    Queue(renewing).renew([job], HOUR)

    asked = blocked(lambda queue: queue.cancel(job.id))
    renewing.commit()

    assert asked.result() == JobState.CLAIMED
    assert [row.cancel_requested for row in here.renew([job], HOUR)] == [True]
