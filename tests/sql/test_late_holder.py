"""The fence: who lost a lease changes nothing any more, even under the same worker name."""

from datetime import timedelta

import psycopg
import pytest

from moonmind_queue import LeaseLost, Queue

MINUTE = timedelta(minutes=1)

WRITES = {
    "start": lambda queue, job: queue.start(job),
    "complete": lambda queue, job: queue.complete(job, {"late": True}),
    "fail": lambda queue, job: queue.fail(job, "late"),
    "block": lambda queue, job: queue.fail(job, "late", outcome="block"),
    "release": lambda queue, job: queue.release(job, "late"),
    "append_event": lambda queue, job: queue.append_event(job, "progress", "late"),
    "append_log": lambda queue, job: queue.append_log(job, "late"),
    "put_artifact": lambda queue, job: queue.put_artifact(job, "late", b"late"),
    "put_artifact in SQL": lambda queue, job: sql(
        queue, "select moonmind_queue.put_artifact(%s, %s, 'late', 'late')", job.id, job.token
    ),
}


def sql(queue, statement, *values):
    """Run a statement and raise as the client does."""
    with queue._cursor() as cursor:
        cursor.execute(statement, values)


def reclaimed(queue, clock, job):
    """The lease ran out and was taken back."""
    clock.advance(3 * MINUTE)
    queue.reclaim()


def claimed_again(queue, clock, job):
    """And a worker of the same name has the job again."""
    reclaimed(queue, clock, job)
    clock.advance(3 * MINUTE)
    queue.claim("w", start=True)


def released(queue, clock, job):
    """The holder handed the job back."""
    queue.release(job)


def released_and_claimed(queue, clock, job):
    """And has it again, in the same attempt, under another token."""
    queue.release(job)
    queue.claim("w", start=True)


def unlocked(queue, clock, job):
    """An operator took the job away."""
    queue.unlock(job.id, force=True)


def ended(queue, clock, job):
    """The holder completed the job."""
    queue.complete(job)


def dead(queue, clock, job):
    """Every attempt was lost."""
    for _ in range(2):
        claimed_again(queue, clock, job)
    reclaimed(queue, clock, job)


def cancelled(queue, clock, job):
    """Somebody cancelled the job, and its lease ran out."""
    queue.cancel(job.id)
    reclaimed(queue, clock, job)


LOSSES = [
    reclaimed,
    claimed_again,
    released,
    released_and_claimed,
    unlocked,
    ended,
    dead,
    cancelled,
]


@pytest.mark.parametrize("loss", LOSSES, ids=lambda loss: loss.__name__)
@pytest.mark.parametrize("write", WRITES)
def test_every_write_of_an_old_token_is_refused_and_changes_nothing(
    queue, db, clock, picture, refused, write, loss
):
    """MQ001, and not one row of the queue differs."""
    queue.enqueue("k")
    [late] = queue.claim("w", start=True)
    loss(queue, clock, late)
    before = picture(db)

    with refused("MQ001", f"token {late.token} no longer holds job {late.id}"):
        WRITES[write](queue, late)

    assert picture(db) == before


@pytest.mark.parametrize("loss", LOSSES, ids=lambda loss: loss.__name__)
def test_in_bulk_an_old_token_is_missing_from_the_answer(queue, db, clock, picture, loss):
    """renew and complete_many leave it out, and not one row of the queue differs."""
    queue.enqueue("k")
    [late] = queue.claim("w", start=True)
    loss(queue, clock, late)
    before = picture(db)

    renewed = queue.renew([late], MINUTE)
    completed = queue.complete_many([(late, {"late": True})])

    assert (renewed, completed) == ([], {})
    assert picture(db) == before


def test_an_upload_of_an_old_token_cannot_go_on(queue, db, clock, picture, refused, lost):
    """append_artifact is fenced as well, between two chunks of one file."""
    queue.enqueue("k")
    [late] = queue.claim("v", start=True)
    [artifact] = db.execute(
        "select moonmind_queue.open_artifact(%s, %s, 'f', 'text/plain', 4, %s)",
        [late.id, late.token, "0" * 64],
    ).fetchone()
    queue.release(late)
    before = picture(db)

    with refused("MQ001"):
        sql(queue, "select moonmind_queue.append_artifact(%s, %s, 'ab')", artifact, late.token)

    assert picture(db) == before


def test_the_new_holder_of_the_same_name_goes_on_undisturbed(queue, lost, refused):
    """The token decides and not the worker's name."""
    late, now = lost

    with refused("MQ001"):
        queue.complete(late, {"by": "late"})
    queue.complete(now, {"by": "now"})

    assert queue.get(now.id).result == {"by": "now"}
    assert (late.attempt, now.attempt) == (1, 2)


@pytest.mark.parametrize("token", [-1, 0, 2**62])
def test_a_token_that_was_never_given_holds_nothing(queue, refused, db, token):
    """Guessing a token is answered like an old one."""
    queue.enqueue("k")
    [job] = queue.claim("w")

    with refused("MQ001"):
        sql(queue, "select moonmind_queue.complete(%s, %s)", job.id, token)


def test_a_token_holds_only_its_own_job(queue, refused):
    """The pair of job and token is the lease."""
    queue.enqueue("k")
    queue.enqueue("k")
    one, two = queue.claim("w", limit=2)

    with refused("MQ001"):
        sql(queue, "select moonmind_queue.complete(%s, %s)", one.id, two.token)


@pytest.mark.parametrize(
    "call",
    [
        "start(%s, 1)",
        "complete(%s, 1)",
        "fail(%s, 1, 'x')",
        "release(%s, 1)",
        "append_event(%s, 1, 'progress')",
        "put_artifact(%s, 1, 'n', 'x')",
        "open_artifact(%s, 1, 'n', 'text/plain', 1, repeat('0', 64))",
        "cancel(%s)",
        "retry(%s)",
        "unlock(%s)",
    ],
)
@pytest.mark.parametrize("job", [0, 2**62, None])
def test_a_job_that_does_not_exist_is_told_apart(queue, refused, call, job):
    """MQ002 names the job."""
    with refused("MQ002", "does not exist"):
        sql(queue, f"select moonmind_queue.{call}", job)


def test_a_reclaim_that_waits_behind_a_completion_finds_nothing(here, session, fresh, clock_of):
    """complete and reclaim of an expired lease: whoever locks first wins, the other yields."""
    here.enqueue("k")
    [job] = here.claim("w")
    clock_of(fresh).advance(3 * MINUTE)
    holder = session()
    Queue(holder).complete(job)

    taken = here.reclaim()
    holder.commit()

    assert taken == []
    assert here.get(job.id).state == "succeeded"
    assert here.reclaim() == []


def test_a_completion_that_waits_behind_a_reclaim_is_late(here, session, blocked, fresh, clock_of):
    """The holder waits for the reclaimer's commit and then learns that the lease is lost."""
    here.enqueue("k")
    [job] = here.claim("w")
    clock_of(fresh).advance(3 * MINUTE)
    reclaimer = session()
    Queue(reclaimer).reclaim()

    late = blocked(lambda queue: queue.complete(job))
    reclaimer.commit()

    with pytest.raises(LeaseLost):
        late.result()
    assert here.get(job.id).state == "queued"


def test_a_renewal_that_comes_first_keeps_the_lease(here, session, fresh, clock_of):
    """An expired lease that its holder is just renewing is passed over by reclaim."""
    here.enqueue("k")
    [job] = here.claim("w")
    clock_of(fresh).advance(3 * MINUTE)
    holder = session()
    Queue(holder).renew([job], MINUTE)

    during = here.reclaim()
    holder.commit()

    assert (during, here.reclaim()) == ([], [])
    here.complete(job)


def test_a_renewal_that_waits_behind_a_reclaim_is_told_so(here, session, blocked, fresh, clock_of):
    """The row is missing from the answer."""
    here.enqueue("k")
    [job] = here.claim("w")
    clock_of(fresh).advance(3 * MINUTE)
    reclaimer = session()
    Queue(reclaimer).reclaim()

    late = blocked(lambda queue: queue.renew([job], MINUTE))
    reclaimer.commit()

    assert late.result() == []


def test_two_completions_at_once_end_the_job_once(here, session, blocked, types):
    """The second one of two threads of a worker is late."""
    here.enqueue("k")
    [job] = here.claim("w", start=True)
    first = session()
    Queue(first).complete(job, {"n": 1})

    second = blocked(lambda queue: queue.complete(job, {"n": 2}))
    first.commit()

    with pytest.raises(LeaseLost):
        second.result()
    assert here.get(job.id).result == {"n": 1}
    assert types(here, job.id) == ["created", "claimed", "started", "completed"]


def test_the_error_of_the_database_is_the_cause(queue, db, lost):
    """LeaseLost carries psycopg's error, so that nothing is lost for a log."""
    late, _ = lost

    with pytest.raises(LeaseLost) as caught, db.transaction():
        queue.start(late)

    assert isinstance(caught.value.__cause__, psycopg.Error)
