"""Deadlines that the database keeps: timeout of an attempt, expires_at of a job."""

from datetime import timedelta

import pytest

from moonmind_queue import JobState, LeaseLost

SECOND = timedelta(seconds=1)
MINUTE = timedelta(minutes=1)
HOUR = timedelta(hours=1)


# --- timeout -----------------------------------------------------------------------------------


def test_a_lease_ends_with_the_timeout(queue, clock):
    """Claim says how long it really holds."""
    queue.enqueue("k", timeout=MINUTE)

    [held] = queue.claim("w", lease=HOUR)

    assert (held.lasts, held.expires_at) == (MINUTE, clock.now + MINUTE)


def test_no_renewal_reaches_beyond_the_timeout(queue, clock):
    """A worker that renews for ever has no more time than one that does not."""
    queue.enqueue("k", timeout=3 * MINUTE)
    [held] = queue.claim("w", lease=2 * MINUTE)
    clock.advance(MINUTE)

    [first] = queue.renew([held], 2 * MINUTE)
    clock.advance(MINUTE)
    [second] = queue.renew([held], 2 * MINUTE)

    assert (first.lasts, second.lasts) == (2 * MINUTE, MINUTE)


def test_an_attempt_that_takes_too_long_is_taken_away(queue, clock, types):
    """Also while its worker renews; it rests like a failure, and the late worker is refused."""
    job = queue.enqueue("k", timeout=3 * MINUTE)
    [held] = queue.claim("w", lease=2 * MINUTE, start=True)
    clock.advance(2 * MINUTE - SECOND)
    queue.renew([held], 2 * MINUTE)
    clock.advance(MINUTE)
    early = queue.reclaim()
    clock.advance(SECOND)

    [taken] = queue.reclaim()

    assert early == []
    assert (taken.job_id, taken.state) == (job, JobState.QUEUED)
    assert types(queue, job)[-1] == "timed_out"
    assert queue.get(job).error == "attempt 1 took longer than its timeout"
    assert queue.get(job).run_at - clock.now > 10 * SECOND
    with pytest.raises(LeaseLost):
        queue.complete(held)


def test_in_the_last_attempt_it_is_a_dead_letter(queue, clock, types):
    """Each attempt has the whole time, and they are counted."""
    job = queue.enqueue("k", timeout=MINUTE, max_attempts=2)
    for _ in range(2):
        clock.advance(HOUR)
        queue.claim("w", lease=HOUR)
        clock.advance(MINUTE)
        queue.reclaim()

    assert queue.get(job).state == JobState.DEAD_LETTER
    assert types(queue, job)[-2:] == ["timed_out", "dead_lettered"]
    assert queue.get(job).error == "attempt 2 took longer than its timeout, the last of 2"


def test_a_lease_that_runs_out_before_is_not_a_timeout(queue, clock, types):
    """The worker died; the first time the job rests a second."""
    job = queue.enqueue("k", timeout=HOUR)
    queue.claim("w", lease=MINUTE)
    clock.advance(MINUTE)

    queue.reclaim()

    assert types(queue, job)[-1] == "expired"
    assert queue.get(job).run_at == clock.now + SECOND


@pytest.mark.parametrize(
    ("kind", "expected"), [("slow", 9 * HOUR), ("quick", MINUTE), ("other", 4 * HOUR)]
)
def test_a_kind_has_a_timeout_of_its_own(queue, kind, expected):
    """Else that of *, four hours; a job that says so itself wins over both."""
    queue.set_timeout("slow", 9 * HOUR)
    queue.set_timeout("quick", MINUTE)
    queue.enqueue(kind)
    queue.enqueue(kind, timeout=7 * MINUTE)

    by_kind, by_job = queue.claim("w", limit=2, lease=timedelta(days=1))

    assert (by_kind.lasts, by_job.lasts) == (expected, 7 * MINUTE)


def test_the_timeout_of_a_kind_can_be_changed_and_taken_away(queue):
    """That of * can only be changed."""
    for timeout in (MINUTE, HOUR, None):
        queue.set_timeout("k", timeout)
    queue.set_timeout("*", 2 * HOUR)
    queue.enqueue("k")

    assert queue.claim("w", lease=5 * HOUR)[0].lasts == 2 * HOUR


@pytest.mark.parametrize(
    ("kind", "timeout"),
    [("k", timedelta(0)), ("k", -MINUTE), ("k", timedelta(days=400)), ("", MINUTE)],
)
def test_a_timeout_that_makes_no_sense_is_refused(queue, refused, kind, timeout):
    """With the value in the message."""
    with refused("22023", "a timeout needs a kind"):
        queue.set_timeout(kind, timeout)


@pytest.mark.parametrize("timeout", [timedelta(0), -MINUTE, timedelta(days=400)], ids=str)
def test_a_job_with_such_a_timeout_is_refused(queue, refused, timeout):
    """By the check of the table."""
    with refused("23514", "timeout"):
        queue.enqueue("k", timeout=timeout)


def test_the_worker_is_told(here, session, fresh, clock_of):
    """Over the control channel, so that it stops at once and not at its next renewal."""
    here.enqueue("k", timeout=MINUTE)
    here.claim("late", start=True)
    listener = session(autocommit=True)
    listener.execute("listen moonmind_queue_control")
    clock_of(fresh).advance(MINUTE)

    here.reclaim()

    [notice] = listener.notifies(timeout=5, stop_after=1)
    assert notice.payload == "late"


# --- expires_at --------------------------------------------------------------------------------


def test_a_job_is_not_claimed_any_more_from_its_instant_on(queue, clock):
    """Not even before reclaim() came by."""
    queue.enqueue("k", expires_at=clock.now + MINUTE)
    good = queue.enqueue("k")
    clock.advance(MINUTE)

    assert [held.id for held in queue.claim("w", limit=5)] == [good]


def test_until_then_it_is(queue, clock):
    """A microsecond before is early enough."""
    queue.enqueue("k", expires_at=clock.now + MINUTE)
    clock.advance(MINUTE - timedelta(microseconds=1))

    assert len(queue.claim("w")) == 1


@pytest.mark.parametrize("state", ["queued", "scheduled", "waiting", "blocked"])
def test_reclaim_cancels_it(queue, db, clock, types, state):
    """Whatever it was doing, as long as nobody had it."""
    after = [queue.enqueue("l")] if state == "waiting" else []
    run_at = clock.now + HOUR if state == "scheduled" else None
    job = queue.enqueue("k", expires_at=clock.now + MINUTE, after=after, run_at=run_at)
    if state == "blocked":
        queue.fail(queue.claim("w")[0], "a person must look", outcome="block")
    clock.advance(MINUTE)

    [row] = queue.reclaim()

    assert (row.job_id, row.state) == (job, JobState.CANCELLED)
    assert types(queue, job)[-1] == "cancelled"
    assert queue.get(job).error.startswith("expired at 2026-01-01")
    assert queue.reclaim() == []
    assert db.execute("select * from moonmind_queue.queue_fault").fetchall() == []


def test_an_attempt_under_way_goes_on(queue, clock):
    """It may succeed late."""
    job = queue.enqueue("k", expires_at=clock.now + MINUTE)
    [held] = queue.claim("w", lease=HOUR)
    clock.advance(2 * MINUTE)

    assert queue.reclaim() == []
    queue.complete(held)
    assert queue.get(job).state == JobState.SUCCEEDED


@pytest.mark.parametrize("way", ["fail", "release", "reclaim", "unlock"])
def test_but_it_does_not_come_back(queue, db, clock, types, way):
    """Every way back into the queue ends it."""
    job = queue.enqueue("k", expires_at=clock.now + MINUTE)
    [held] = queue.claim("w", lease=HOUR)
    clock.advance(2 * HOUR)

    if way == "fail":
        assert queue.fail(held, "no") == JobState.CANCELLED
    elif way == "release":
        queue.release(held)
    elif way == "reclaim":
        assert [row.state for row in queue.reclaim()] == [JobState.CANCELLED]
    else:
        assert queue.unlock(job) == JobState.CANCELLED

    assert queue.get(job).state == JobState.CANCELLED
    assert types(queue, job)[-1] == "cancelled"
    assert db.execute("select * from moonmind_queue.queue_fault").fetchall() == []


def test_a_person_may_want_it_all_the_same(queue, clock):
    """retry() makes it run: the time that has passed no longer counts."""
    job = queue.enqueue("k", expires_at=clock.now + MINUTE)
    clock.advance(MINUTE)
    queue.reclaim()

    queue.retry(job)

    assert [held.id for held in queue.claim("w")] == [job]
    assert queue.get(job).expires_at is None


def test_a_retried_job_does_not_expire_by_what_it_had_before(queue, db, clock):
    """Its time came after it had ended: nobody had looked at that, and nobody does any more."""
    job = queue.enqueue("k", expires_at=clock.now + MINUTE)
    queue.fail(queue.claim("w")[0], "no", outcome="fail")
    clock.advance(HOUR)

    queue.retry(job)

    assert queue.reclaim() == []
    assert queue.get(job).state == JobState.QUEUED
    assert db.execute("select * from moonmind_queue.expiry").fetchall() == []


def test_a_job_that_ended_in_time_is_left_alone(queue, clock):
    """Its instant comes, and nothing happens."""
    job = queue.enqueue("k", expires_at=clock.now + MINUTE)
    queue.complete(queue.claim("w")[0])
    clock.advance(HOUR)

    assert queue.reclaim() == []
    assert queue.get(job).state == JobState.SUCCEEDED


def test_an_idle_worker_wakes_for_it(queue, clock):
    """next_due() counts it, so that nobody has to poll for it."""
    queue.enqueue("k", expires_at=clock.now + MINUTE, run_at=clock.now + HOUR)

    assert queue.next_due(["nobody"])[0] == MINUTE


def test_a_locked_one_waits_for_the_next_time(here, session, fresh, clock_of, look):
    """reclaim() never waits: it passes over what another session has locked."""
    job = here.enqueue("k", expires_at=clock_of(fresh).now + MINUTE)
    clock_of(fresh).advance(MINUTE)
    other = session()
    other.execute("select from moonmind_queue.job where id = %s for update", [job])

    skipped = here.reclaim()
    other.rollback()

    assert skipped == []
    assert [row.job_id for row in here.reclaim()] == [job]
    assert look("select from moonmind_queue.expiry") == []


def test_two_that_expire_together_each_end_once(queue, clock, types):
    """The first takes the second along, which is cancelled by that and not once more."""
    first = queue.enqueue("k", expires_at=clock.now + MINUTE)
    second = queue.enqueue(
        "k", after=[first], on_dependency_failure="cancel", expires_at=clock.now + MINUTE
    )
    clock.advance(MINUTE)

    assert [row.job_id for row in queue.reclaim()] == [first]
    assert types(queue, second) == ["created", "cancelled"]
    assert queue.get(second).error == f"needs job {first}, which is cancelled"


def test_the_timeout_of_the_star_cannot_be_taken_away(queue, refused):
    """It serves every kind without a row."""
    with refused("22023", "can be changed, not taken away"):
        queue.set_timeout("*", None)
