"""claim() in several sessions at once: nobody waits, nobody shares."""

from datetime import timedelta

import psycopg
import pytest
from psycopg.rows import scalar_row

from moonmind_queue import Queue
from moonmind_queue.errors import DatabaseUnavailable

HOUR = timedelta(hours=1)


def test_sixteen_claimers_take_five_hundred_jobs_once_each(here, session, threads):
    """500 claims give 500 different jobs and tokens."""
    jobs = here.enqueue_many([{"kind": "k"}] * 500)

    def drain(name):
        queue = Queue(session(autocommit=True))
        taken = []
        while batch := queue.claim(name, limit=3):
            taken += batch
        return taken

    taken = [job for done in threads.map(drain, map(str, range(16))) for job in done]

    assert sorted(job.id for job in taken) == jobs
    assert len({job.token for job in taken}) == 500


@pytest.mark.parametrize("held", [1, 10, 199])
def test_a_claimer_that_has_not_committed_holds_up_nobody(here, session, held):
    """Of 200 jobs an open claim locks those that it returned; the next claimer gets the next."""
    jobs = here.enqueue_many([{"kind": "k"}] * 200)
    one, two = session(), session()
    two.execute("set lock_timeout = '1ms'")

    first = Queue(one).claim("one", limit=held)
    second = Queue(two).claim("two")

    assert [job.id for job in first] == jobs[:held]
    assert [job.id for job in second] == [jobs[held]]


def test_every_one_of_as_many_claimers_as_jobs_gets_one(here, session):
    """With 20 open claims on 20 jobs everybody has a job."""
    jobs = here.enqueue_many([{"kind": "k"}] * 20)

    claimed = [Queue(session()).claim(str(i))[0].id for i in range(20)]

    assert claimed == jobs


def test_only_what_is_returned_stays_locked(here, session):
    """A job that somebody else has locked is passed over and is not locked by that."""
    first, second = here.enqueue_many([{"kind": "k"}] * 2)
    other, claimer, third = session(), session(), session()
    other.execute("select from moonmind_queue.job where id = %s for share", [first])

    [job] = Queue(claimer).claim("w")
    other.rollback()

    assert job.id == second
    assert [job.id for job in Queue(third).claim("w")] == [first]


def test_a_job_in_a_transaction_that_is_open_is_not_there_yet(here, session):
    """A job exists exactly when the transaction of its producer commits."""
    producer = session()
    job = Queue(producer).enqueue("k")

    before = here.claim("w")
    producer.commit()

    assert before == []
    assert [held.id for held in here.claim("w")] == [job]


def test_a_claim_that_is_rolled_back_never_happened(here, session, types, until):
    """A claimer whose session ends leaves the job as it was."""
    job = here.enqueue("k")
    connection = session()
    Queue(connection).claim("w")

    connection.close()

    assert types(here, job) == ["created"]
    assert [held.attempt for held in until(lambda: here.claim("w"))] == [1]


def test_two_claims_that_move_the_same_jobs_to_ready_do_not_wait(here, session, fresh, clock_of):
    """What one claim is moving from scheduled to ready the other passes over."""
    clock = clock_of(fresh)
    clock.freeze()
    here.enqueue_many([{"kind": "k", "run_at": str(clock.now + HOUR)}] * 3)
    clock.advance(HOUR)
    one, two = session(), session()
    two.execute("set lock_timeout = '1ms'")

    first = Queue(one).claim("one")
    second = Queue(two).claim("two")
    one.commit()

    assert len(first) == 1
    assert second == []
    assert len(Queue(two).claim("two", limit=5)) == 2


def test_a_repeatable_read_claimer_is_told_to_try_again(here, session):
    """Under a frozen snapshot a job that is gone is an error of PostgreSQL, not a second claim."""
    here.enqueue("k")
    stale = session()
    stale.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
    stale.cursor(row_factory=scalar_row).execute("select count(*) from moonmind_queue.job")

    here.claim("w")

    with pytest.raises(DatabaseUnavailable, match="could not serialize"):
        Queue(stale).claim("late")


@pytest.mark.parametrize("way", ["cancel", "retry"])
def test_a_job_that_a_claim_is_just_moving_to_ready_is_withdrawn(
    here, session, blocked, fresh, clock_of, way
):
    """Its time had come, another job was taken: no row of it is left behind in ready."""
    clock = clock_of(fresh)
    clock.freeze()
    first, moved = (here.enqueue("k", run_at=clock.now + HOUR) for _ in range(2))
    claiming = session()
    clock.advance(HOUR)
    assert [job.id for job in Queue(claiming).claim("w")] == [first]
    clock.advance(-HOUR)  # for retry the job must still rest

    withdrawn = blocked(lambda queue: getattr(queue, way)(moved))
    claiming.commit()
    withdrawn.result()

    rows = here.connection.execute("select job_id from moonmind_queue.ready").fetchall()
    assert rows == ([(moved,)] if way == "retry" else [])
    assert [job.id for job in here.claim("w", limit=9)] == [job_id for (job_id,) in rows]
