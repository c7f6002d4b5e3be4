"""prune(): what has ended long ago goes, whole; what anybody still needs stays."""

from datetime import timedelta

import pytest

from moonmind_queue import JobNotFound, Queue

HOUR = timedelta(hours=1)
DAY = timedelta(days=1)


def finish(queue, *jobs):
    """Claim and complete everything that can be."""
    while held := queue.claim("w", limit=99):
        for job in held:
            queue.put_artifact(job, "a", b"abc")
            queue.complete(job)


def test_an_old_job_goes_with_all_that_belongs_to_it(queue, db, clock, picture):
    """History, dependencies, artifacts and their bytes are gone."""
    before = picture(db)
    need = queue.enqueue("k")
    queue.enqueue("k", after=[need])
    finish(queue)
    clock.advance(DAY)

    pruned = queue.prune(HOUR)

    after = picture(db)
    assert pruned == 2
    for table in ("job", "event", "dependency", "artifact", "artifact_chunk", "lease", "ready"):
        assert after[table] == before[table] == []


def test_a_job_that_ended_just_now_stays(queue, clock):
    """The age counts from the end, and is exceeded, not reached."""
    job = queue.enqueue("k")
    finish(queue)
    clock.advance(HOUR)

    kept = queue.prune(HOUR)
    clock.advance(timedelta(microseconds=1))

    assert (kept, queue.prune(HOUR)) == (0, 1)
    with pytest.raises(JobNotFound):
        queue.get(job)


def test_live_jobs_stay_however_old(queue, db, clock, picture):
    """Queued, scheduled, waiting, leased and blocked jobs are never pruned."""
    queue.enqueue("k")
    [blocked] = queue.claim("w")
    queue.fail(blocked, "?", outcome="block")
    queue.enqueue("k")
    queue.claim("w")
    queue.enqueue("k")
    queue.enqueue("k", run_at=clock.now + HOUR, after=[blocked.id])
    queue.enqueue("k", run_at=clock.now + 9 * DAY)
    clock.advance(3 * DAY)
    before = picture(db)

    assert queue.prune(HOUR) == 0
    assert picture(db) == before


@pytest.mark.parametrize("state", ["succeeded", "failed", "dead_letter", "cancelled"])
def test_every_final_state_is_pruned(queue, clock, state):
    """How a job ended does not matter."""
    queue.enqueue("k", max_attempts=1)
    [job] = queue.claim("w")
    if state == "succeeded":
        queue.complete(job)
    elif state == "cancelled":
        queue.cancel(job.id)
        queue.release(job)
    else:
        queue.fail(job, "no", outcome="fail" if state == "failed" else "retry")
    clock.advance(DAY)

    assert queue.get(job.id).state == state
    assert queue.prune(HOUR) == 1


def test_what_a_live_job_needs_stays(queue, clock):
    """A finished need of a job that still rests is kept, and goes after it."""
    need = queue.enqueue("k")
    child = queue.enqueue("k", after=[need], run_at=clock.now + 2 * DAY)
    finish(queue)
    clock.advance(DAY)

    kept = queue.prune(HOUR)
    clock.advance(2 * DAY)
    finish(queue)
    clock.advance(DAY)

    assert kept == 0
    assert queue.prune(HOUR) == 2
    with pytest.raises(JobNotFound):
        queue.get(child)


def test_at_most_limit_jobs_go_at_once(queue, clock):
    """Of a chain the last job goes first; calling again goes on until nothing is left."""
    chain = [queue.enqueue("k")]
    for _ in range(4):
        chain.append(queue.enqueue("k", after=chain[-1:]))
    finish(queue)
    clock.advance(DAY)

    counts = [queue.prune(HOUR, 2) for _ in range(4)]

    assert counts == [2, 2, 1, 0]


def test_the_key_of_a_job_that_is_gone_is_free(queue, clock):
    """A new job may have it."""
    old = queue.enqueue("k", key="a")
    finish(queue)
    clock.advance(DAY)
    queue.prune(HOUR)

    assert queue.enqueue("k", key="a") != old


@pytest.mark.parametrize(
    ("age", "limit"), [(-HOUR, 1), (None, 1), (HOUR, 0), (HOUR, -1), (HOUR, None)], ids=str
)
def test_a_negative_age_and_a_limit_below_one_are_refused(queue, refused, age, limit):
    """A mistake must not delete what is new."""
    with refused("22023", "prune needs"):
        queue.prune(age, limit)


def test_a_need_that_a_producer_holds_is_passed_over(here, session, fresh, clock_of):
    """A job that is just getting a dependent is not pruned under it."""
    need = here.enqueue("k")
    finish(here)
    clock_of(fresh).advance(DAY)
    producing = session()
    child = Queue(producing).enqueue("k", after=[need])

    during = here.prune(HOUR)
    producing.commit()

    assert (during, here.prune(HOUR)) == (0, 0)
    assert [job.id for job in here.claim("w")] == [child]


def test_a_dependent_of_a_job_that_is_just_pruned_is_refused(
    here, session, blocked, fresh, clock_of
):
    """The producer waits and learns that there is no such job any more."""
    need = here.enqueue("k")
    finish(here)
    clock_of(fresh).advance(DAY)
    pruning = session()
    Queue(pruning).prune(HOUR)

    child = blocked(lambda queue: queue.enqueue("k", after=[need]))
    pruning.commit()

    assert "depends on unknown job" in str(child.exception())


SLOW_DEPENDENCIES = """
alter table moonmind_queue.dependency rename to dependency_row;
create function moonmind_queue_test.pause() returns boolean language plpgsql
as $$ begin perform pg_advisory_xact_lock_shared(1); return true; end $$;
create view moonmind_queue.dependency as
select * from moonmind_queue.dependency_row where moonmind_queue_test.pause();
"""


def test_a_dependent_that_comes_while_prune_looks_is_seen(here, session, blocked, fresh, clock_of):
    """Prune has found a job that nobody needs, then it gets a dependent: prune looks again."""
    need = here.enqueue("k")
    here.enqueue("k", after=[here.enqueue("k")])  # a row to look at, slowly
    finish(here)
    clock_of(fresh).advance(DAY)
    here.connection.execute(SLOW_DEPENDENCIES)
    hold = session()
    hold.execute("select pg_advisory_xact_lock(1)")

    pruned = blocked(lambda queue: queue.prune(HOUR))
    child = here.enqueue("k", after=[need])
    hold.commit()

    assert pruned.result() == 2
    assert [job.id for job in here.claim("w")] == [child]
