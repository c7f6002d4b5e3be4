"""start(): a claimed job begins to run."""

from datetime import timedelta

from moonmind_queue import JobState, Queue

ZERO = timedelta(0)
MINUTE = timedelta(minutes=1)


def test_a_claimed_job_runs(queue, clock, types):
    """`claimed` becomes `running`, with one event of the worker and the instant in started_at."""
    job = queue.enqueue("k")
    [held] = queue.claim("w")
    clock.advance(MINUTE)

    queue.start(held)

    assert types(queue, job) == ["created", "claimed", "started"]
    event = queue.history(job)[-1]
    assert (event.worker, event.level, event.at) == ("w", "info", clock.now)
    assert (queue.get(job).state, queue.get(job).started_at) == (JobState.RUNNING, clock.now)


def test_to_start_twice_changes_nothing(queue, db, clock, picture):
    """On a running job not one row differs, however it came to run."""
    queue.enqueue_many([{"kind": "k"}, {"kind": "k"}])
    [one] = queue.claim("w")
    [two] = queue.claim("w", start=True)
    queue.start(one)
    clock.advance(MINUTE)
    before = picture(db)

    queue.start(one)
    queue.start(two)

    assert picture(db) == before


def test_started_at_is_the_first_start(queue, clock):
    """A second attempt writes its event and leaves started_at alone."""
    job = queue.enqueue("k")
    [held] = queue.claim("w")
    queue.start(held)
    first = clock.now
    queue.fail(held, "no", retry_in=ZERO)
    clock.advance(MINUTE)

    [held] = queue.claim("w")
    queue.start(held)

    assert queue.get(job).started_at == first
    assert [event.at for event in queue.history(job) if event.type == "started"] == [
        first,
        clock.now,
    ]


def test_updated_at_moves_and_the_lease_does_not(queue, db, clock):
    """A start is a change of the job and no renewal."""
    job = queue.enqueue("k")
    [held] = queue.claim("w")
    clock.advance(MINUTE)

    queue.start(held)

    [row] = queue.select(
        "select updated_at, lease_expires_at from moonmind_queue.job_overview where id = %(job)s",
        job=job,
    )
    assert row == {"updated_at": clock.now, "lease_expires_at": held.expires_at}


def test_a_start_waits_for_who_acts_on_the_job(here, session, blocked):
    """A cancel request that is just being written does not lose against a start."""
    here.enqueue("k")
    [held] = here.claim("w")
    operator = session()
    Queue(operator).cancel(held.id)

    start = blocked(lambda queue: queue.start(held))
    operator.commit()
    start.result()

    assert here.get(held.id).state == JobState.RUNNING
    assert here.renew([held], MINUTE)[0].cancel_requested
