"""renew(): one call keeps all leases of a worker, and tells what became of them."""

from datetime import timedelta

import psycopg
import pytest

from moonmind_queue import JobState, Queue

MICROSECOND = timedelta(microseconds=1)
MINUTE = timedelta(minutes=1)
DAY = timedelta(days=1)


def renew(db, jobs, tokens, lease=MINUTE):
    """Call the function with any lists."""
    query = "select job_id, token from moonmind_queue.renew(%s::bigint[], %s::bigint[], %s)"
    return db.execute(query, [jobs, tokens, lease]).fetchall()


def test_a_renewal_counts_from_now(queue, db, clock):
    """The new end is now and the lease that is asked for, whatever was left."""
    queue.enqueue("k")
    [job] = queue.claim("w", lease=10 * MINUTE)
    clock.advance(MINUTE)

    [renewal] = queue.renew([job], 2 * MINUTE)

    assert (renewal.job_id, renewal.token, renewal.cancel_requested) == (job.id, job.token, False)
    assert renewal.expires_at == clock.now + 2 * MINUTE
    [lease] = db.execute("select expires_at from moonmind_queue.lease").fetchall()
    assert lease == (clock.now + 2 * MINUTE,)


def test_a_renewed_lease_is_not_taken_back(queue, clock):
    """Renewed in time again and again, a job runs for longer than its lease."""
    queue.enqueue("k")
    [job] = queue.claim("w", lease=3 * MINUTE)

    for _ in range(5):
        clock.advance(2 * MINUTE)
        queue.renew([job], 3 * MINUTE)

    assert queue.reclaim() == []
    clock.advance(3 * MINUTE)
    assert [taken.job_id for taken in queue.reclaim()] == [job.id]


def test_a_lease_that_ran_out_unnoticed_can_be_renewed(queue, clock):
    """As long as nobody has taken the job back it is still the holder's."""
    queue.enqueue("k")
    [job] = queue.claim("w", lease=MINUTE)
    clock.advance(2 * MINUTE)

    assert len(queue.renew([job], MINUTE)) == 1
    assert queue.reclaim() == []


def test_a_lease_that_is_lost_is_missing(queue, clock):
    """Of three only those that are still held come back, and only those are renewed."""
    queue.enqueue_many([{"kind": "k"}] * 3)
    one, two, three = queue.claim("w", limit=3)
    queue.release(two)

    renewed = queue.renew([one, two, three], MINUTE)

    assert {renewal.job_id for renewal in renewed} == {one.id, three.id}


def test_the_lists_need_no_order(queue):
    """jobs[i] belongs to tokens[i], in whatever order they come."""
    queue.enqueue_many([{"kind": "k"}] * 3)
    held = queue.claim("w", limit=3)

    renewed = queue.renew(held[::-1], MINUTE)

    assert {(renewal.job_id, renewal.token) for renewal in renewed} == {
        (job.id, job.token) for job in held
    }


def test_tokens_that_are_swapped_hold_nothing(queue, db, picture):
    """A token renews its own job only."""
    queue.enqueue_many([{"kind": "k"}] * 2)
    one, two = queue.claim("w", limit=2)
    before = picture(db)

    assert renew(db, [one.id, two.id], [two.token, one.token]) == []
    assert picture(db) == before


def test_a_cancel_request_is_told(queue):
    """The holder should stop; the lease is renewed all the same, so that it can."""
    queue.enqueue_many([{"kind": "k"}] * 2)
    one, two = queue.claim("w", limit=2)
    queue.cancel(two.id)

    renewed = queue.renew([one, two], MINUTE)

    assert {renewal.job_id: renewal.cancel_requested for renewal in renewed} == {
        one.id: False,
        two.id: True,
    }


def test_nothing_held_is_no_error(queue):
    """A worker that is idle may ask too."""
    assert queue.renew([], MINUTE) == []


def test_a_renewal_leaves_job_and_history_alone(queue, db, clock, picture):
    """Only expires_at differs: no event, no change of state."""
    queue.enqueue("k")
    [job] = queue.claim("w")
    before = picture(db)
    clock.advance(MINUTE)

    queue.renew([job], 5 * MINUTE)

    after = picture(db)
    assert before.pop("lease") != after.pop("lease")
    assert after == before
    assert queue.get(job.id).state == JobState.CLAIMED


@pytest.mark.parametrize(
    ("jobs", "tokens"), [([1], []), ([], [1]), ([1, 2], [1]), (None, [1]), ([1], None)], ids=str
)
def test_lists_of_different_length_are_refused(db, refused, jobs, tokens):
    """A shifted list would renew the wrong leases."""
    with refused("22023", "a token for every job"):
        renew(db, jobs, tokens)


@pytest.mark.parametrize("lease", [timedelta(0), -MINUTE, DAY + MICROSECOND, None], ids=str)
def test_a_lease_is_longer_than_nothing_and_at_most_a_day(queue, refused, lease):
    """As at the claim."""
    queue.enqueue("k")
    [job] = queue.claim("w")

    with refused("22023", "lease"):
        queue.renew([job], lease)


@pytest.mark.parametrize("lease", [MICROSECOND, DAY], ids=str)
def test_the_limits_themselves_are_allowed(queue, clock, lease):
    """A microsecond and a day."""
    queue.enqueue("k", timeout=2 * DAY)
    [job] = queue.claim("w")

    [renewal] = queue.renew([job], lease)

    assert renewal.expires_at == clock.now + lease


def test_a_renewal_does_not_wait_for_the_job(here, session):
    """While another session has the job's row, for long, the lease can be kept."""
    here.enqueue("k")
    [job] = here.claim("w")
    other, keeper = session(), session()
    other.execute("select from moonmind_queue.job where id = %s for update", [job.id])
    keeper.execute("set lock_timeout = '1ms'")

    assert len(Queue(keeper).renew([job], MINUTE)) == 1


def test_a_renewal_holds_up_nobody_who_needs_the_job(here, session):
    """An open renewal has not locked the job's row."""
    here.enqueue("k")
    [job] = here.claim("w")
    keeper, other = session(), session()
    Queue(keeper).renew([job], MINUTE)

    other.execute("select from moonmind_queue.job where id = %s for update nowait", [job.id])

    with pytest.raises(psycopg.errors.LockNotAvailable):
        other.execute("select from moonmind_queue.lease for update nowait")


def test_leases_are_locked_in_the_order_of_the_jobs(here, session, blocked):
    """Who waits for the first has not locked the second, so two calls never wait in a circle."""
    here.enqueue_many([{"kind": "k"}] * 2)
    one, two = here.claim("w", limit=2)
    first = session()
    first.execute("set lock_timeout = '1ms'")
    Queue(first).renew([one], MINUTE)

    second = blocked(lambda queue: queue.renew([two, one], MINUTE))
    Queue(first).renew([two], MINUTE)
    first.commit()

    assert len(second.result()) == 2
