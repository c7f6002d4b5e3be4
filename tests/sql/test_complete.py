"""complete() and complete_many(): jobs end well, once, and free who waited for them."""

from datetime import timedelta

import pytest
from psycopg.types.json import Jsonb

from moonmind_queue import JobState, Queue

ZERO = timedelta(0)
MINUTE = timedelta(minutes=1)


def one_by_one(queue, job, result):
    """Call complete()."""
    queue.complete(job, result)


def in_bulk(queue, job, result):
    """Call complete_many()."""
    queue.complete_many([(job, result)])


BOTH = pytest.mark.parametrize("complete", [one_by_one, in_bulk], ids=lambda way: way.__name__)


@pytest.fixture
def heard(sleeper):
    """Sleep from now on; called, it gives the agents that were notified, and sleeps again."""
    return sleeper().heard


@BOTH
def test_a_job_that_is_completed_has_succeeded(queue, clock, complete):
    """State, result and finished_at are stored together."""
    job = queue.enqueue("k")
    [held] = queue.claim("w", start=True)
    clock.advance(MINUTE)

    complete(queue, held, {"n": [1, None], "ü": "é"})

    done = queue.get(job)
    assert (done.state, done.result) == (JobState.SUCCEEDED, {"n": [1, None], "ü": "é"})
    assert (done.finished_at, done.started_at) == (clock.now, clock.now - MINUTE)
    assert (done.attempt, done.error) == (1, None)


@BOTH
def test_the_lease_is_gone(queue, db, complete):
    """Nobody holds a job that has ended."""
    queue.enqueue("k")
    [held] = queue.claim("w")

    complete(queue, held, {})

    assert db.execute("select from moonmind_queue.lease").fetchall() == []
    assert queue.renew([held], MINUTE) == []


@BOTH
def test_a_completion_leaves_one_event(queue, clock, types, complete):
    """`completed` is written by the worker and carries the result."""
    job = queue.enqueue("k")
    [held] = queue.claim("w", start=True)

    complete(queue, held, {"n": 1})

    assert types(queue, job) == ["created", "claimed", "started", "completed"]
    event = queue.history(job)[-1]
    assert (event.worker, event.level, event.message, event.data) == ("w", "info", "", {"n": 1})


@BOTH
def test_a_job_that_has_only_been_claimed_can_be_completed(queue, types, complete):
    """Who runs short jobs need not say that each begins; the history has it all the same."""
    job = queue.enqueue("k")
    [held] = queue.claim("w")

    complete(queue, held, {})

    ended = queue.get(job)
    assert ended.state == JobState.SUCCEEDED
    assert ended.started_at == ended.finished_at
    assert types(queue, job) == ["created", "claimed", "started", "completed"]


@BOTH
def test_the_error_of_an_earlier_attempt_is_cleared(queue, complete):
    """A job that has succeeded has no error; the history keeps it."""
    job = queue.enqueue("k")
    queue.fail(queue.claim("w")[0], "once", retry_in=ZERO)
    [held] = queue.claim("w")
    before = queue.get(job).error

    complete(queue, held, {})

    assert (before, queue.get(job).error) == ("once", None)
    assert "once" in [event.message for event in queue.history(job)]


@BOTH
def test_an_empty_result_is_stored_and_not_repeated_in_the_event(queue, complete):
    """The event of a job without a result has no data."""
    job = queue.enqueue("k")

    complete(queue, queue.claim("w")[0], {})

    assert queue.get(job).result == {}
    assert queue.history(job)[-1].data is None


def test_no_result_is_an_empty_one(queue, db):
    """Left out, or null: {}."""
    jobs = queue.enqueue_many([{"kind": "k"}] * 3)
    one, two, three = queue.claim("w", limit=3)

    db.execute("select moonmind_queue.complete(%s, %s)", [one.id, one.token])
    db.execute("select moonmind_queue.complete(%s, %s, null)", [two.id, two.token])
    db.execute(
        "select moonmind_queue.complete_many(%s, %s, array[null::jsonb])",
        [[three.id], [three.token]],
    )

    assert [queue.get(job).result for job in jobs] == [{}, {}, {}]


@pytest.mark.parametrize("result", [[], "x", 1, True, None], ids=str)
def test_a_result_that_is_not_an_object_is_refused(queue, db, refused, picture, result):
    """23514 for one and in bulk, and the lease is still held."""
    queue.enqueue("k")
    [held] = queue.claim("w")
    before = picture(db)

    with refused("23514"):
        db.execute(
            "select moonmind_queue.complete(%s, %s, %s)", [held.id, held.token, Jsonb(result)]
        )
    with refused("23514"):
        db.execute(
            "select moonmind_queue.complete_many(%s, %s, %s)",
            [[held.id], [held.token], [Jsonb(result)]],
        )

    assert picture(db) == before
    queue.complete(held)


@BOTH
def test_a_cancel_request_that_came_first_wins(queue, clock, types, complete):
    """The job is cancelled with its reason; what was achieved is kept as its result."""
    job = queue.enqueue("k")
    [held] = queue.claim("w", start=True)
    queue.cancel(job, "not this week")

    complete(queue, held, {"n": 1})

    done = queue.get(job)
    assert (done.state, done.error, done.result) == (
        JobState.CANCELLED,
        "not this week",
        {"n": 1},
    )
    assert done.finished_at == clock.now
    assert types(queue, job)[-2:] == ["cancel_requested", "cancelled"]
    event = queue.history(job)[-1]
    assert (event.level, event.message, event.worker) == ("warn", "not this week", "w")
    assert event.data == {"n": 1}


@BOTH
def test_a_cancelled_job_frees_nobody(queue, complete):
    """Whoever needs it goes on waiting."""
    need = queue.enqueue("k")
    child = queue.enqueue("k", after=[need])
    [held] = queue.claim("w")
    queue.cancel(need)

    complete(queue, held, {})

    assert queue.get(child).state == JobState.WAITING


@BOTH
def test_dependents_are_freed_in_the_same_transaction(here, session, heard, look, complete):
    """At the commit, and not before, the dependent is queued and its agent notified."""
    need = here.enqueue("k", agent="one")
    child = here.enqueue("k", agent="two", after=[need])
    [held] = here.claim("w")
    heard()
    worker = session()
    complete(Queue(worker), held, {})

    before = (look("select state from moonmind_queue.job order by id"), heard())
    worker.commit()

    assert before == (["claimed", "waiting"], [])
    assert look("select state from moonmind_queue.job order by id") == ["succeeded", "queued"]
    assert heard() == ["two"]
    [ready] = [event for event in here.history(child) if event.type == "ready"]
    assert (ready.message, ready.worker) == ("every dependency is met", None)


@BOTH
def test_without_dependents_nobody_is_woken(here, heard, complete):
    """Success alone makes no work for others."""
    here.enqueue("k")
    [held] = here.claim("w")
    heard()

    complete(here, held, {})

    assert heard() == []


# --- in bulk -----------------------------------------------------------------------------------


def test_each_job_gets_its_own_result(queue):
    """jobs[i] ends with results[i], whatever the order."""
    queue.enqueue_many([{"kind": "k"}] * 5)
    held = queue.claim("w", limit=5)

    ended = queue.complete_many([(job, {"id": job.id}) for job in held[::-1]])

    assert ended == {job.id: JobState.SUCCEEDED for job in held}
    assert [queue.get(job.id).result for job in held] == [{"id": job.id} for job in held]


def test_what_was_lost_is_missing_and_the_rest_ends(queue, db, types):
    """A lost lease, a wrong token and an unknown job do not hold up the others."""
    ids = queue.enqueue_many([{"kind": "k"}] * 4)
    fine, lost, wrong, asked = queue.claim("w", limit=4)
    queue.release(lost)
    queue.cancel(asked.id)

    rows = db.execute(
        "select * from moonmind_queue.complete_many(%s, %s, null)",
        [[*ids, 2**60], [fine.token, lost.token, fine.token, asked.token, 1]],
    ).fetchall()

    assert sorted(rows) == [(fine.id, "succeeded"), (asked.id, "cancelled")]
    assert [queue.get(job).state for job in ids] == [
        JobState.SUCCEEDED,
        JobState.QUEUED,
        JobState.CLAIMED,
        JobState.CANCELLED,
    ]
    assert types(queue, lost.id)[-1] == "released"
    queue.complete(wrong)


def test_nothing_to_complete_is_no_error(queue):
    """An empty call gives an empty answer."""
    assert queue.complete_many([]) == {}


def test_a_dependent_of_two_jobs_of_one_call_is_freed_once(queue, types):
    """Both successes are counted, and there is one `ready`."""
    needs = queue.enqueue_many([{"kind": "k"}] * 2)
    child = queue.enqueue("k", after=needs)

    queue.complete_many([(job, {}) for job in queue.claim("w", limit=2)])

    assert types(queue, child) == ["created", "ready"]
    assert [job.id for job in queue.claim("w", limit=9)] == [child]


def test_bulk_calls_that_share_jobs_wait_in_the_order_of_the_jobs(here, session, blocked):
    """Who waits for the first job has not locked the second, so two never wait in a circle."""
    here.enqueue_many([{"kind": "k"}] * 2)
    one, two = here.claim("w", limit=2)
    first = session()
    first.execute("set lock_timeout = '1ms'")
    Queue(first).complete(one)

    second = blocked(lambda queue: queue.complete_many([(two, {"n": 2}), (one, {"n": 2})]))
    Queue(first).complete(two)
    first.commit()

    assert second.result() == {}
    assert [here.get(job.id).result for job in (one, two)] == [{}, {}]


def test_a_cancel_that_comes_while_a_job_completes_is_too_late(here, session, blocked):
    """A completion that came first stands; the operator is told that the job has ended."""
    here.enqueue("k")
    [held] = here.claim("w")
    worker = session()
    Queue(worker).complete(held, {"n": 1})

    cancel = blocked(lambda queue: queue.cancel(held.id))
    worker.commit()

    with pytest.raises(Exception, match="it is succeeded"):
        cancel.result()
    assert here.get(held.id).result == {"n": 1}


@BOTH
def test_a_completion_that_comes_while_a_job_is_cancelled_is_cancelled(
    here, session, blocked, complete
):
    """It waits for the request and then obeys it."""
    here.enqueue("k")
    [held] = here.claim("w")
    operator = session()
    Queue(operator).cancel(held.id, "no")

    completion = blocked(lambda queue: complete(queue, held, {"n": 1}))
    operator.commit()
    completion.result()

    assert here.get(held.id).state == JobState.CANCELLED


def test_needs_that_end_together_count_each(queue, db):
    """Who waits for two of them is queued with nothing unmet, and no row contradicts another."""
    needs = [queue.enqueue("k"), queue.enqueue("k"), queue.enqueue("other")]
    child = queue.enqueue("k", after=needs)
    unmet = "select unmet from moonmind_queue.job where id = %s"

    queue.complete_many([(job, {}) for job in queue.claim("w", kinds=["k"], limit=2)])
    assert db.execute(unmet, [child]).fetchone() == (1,)
    queue.complete(queue.claim("w", kinds=["other"])[0])

    assert db.execute(unmet, [child]).fetchone() == (0,)
    assert queue.get(child).state == JobState.QUEUED
    assert db.execute("select * from moonmind_queue.queue_fault").fetchall() == []
