"""queue_fault and repair(): what only a hand on the tables can break is seen and mended."""

import pytest

from moonmind_queue import JobState

BREAK = {
    "its rank is": "update job set rank = 7 where id = %(ready)s",
    "unmet is 0, its edges say 1": (
        "update job set unmet = 0, state = 'queued' where id = %(child)s"
    ),
    "it is waiting and 0 of its dependencies": (
        "with cut as (delete from dependency where job_id = %(child)s)"
        " update job set unmet = 0 where id = %(child)s"
    ),
    "it is queued and 1 of its dependencies": "update job set unmet = 1 where id = %(ready)s",
    "it is succeeded and finished_at is null": (
        "update job set finished_at = null where id = %(done)s"
    ),
    "it is running and finished_at is": "update job set finished_at = _now() where id = %(held)s",
    "it is queued and has 0 places": "delete from ready where job_id = %(ready)s",
    "its place among the claimable is not the right one": "update ready set rank = 7",
    "it is succeeded and has a place": (
        "insert into ready select rank, id, lane_id from job where id = %(done)s"
    ),
    "it is running without a lease": "delete from lease where job_id = %(held)s",
    "it is cancelled and has a lease": (
        "update job set state = 'cancelled', finished_at = _now() where id = %(held)s"
    ),
}


@pytest.fixture
def jobs(queue):
    """One that has succeeded, one that runs, one that is ready and one that waits for that."""
    done = queue.enqueue("k")
    queue.complete(queue.claim("w")[0])
    held = queue.enqueue("k")
    queue.claim("w", start=True)
    ready = queue.enqueue("k")
    return {
        "done": done,
        "held": held,
        "ready": ready,
        "child": queue.enqueue("k", after=[ready]),
    }


def faults(db):
    """What the view shows."""
    return db.execute("select job_id, fault from moonmind_queue.queue_fault").fetchall()


def test_the_queue_itself_makes_none(queue, db, jobs):
    """Nothing to see, nothing to mend."""
    assert faults(db) == []
    assert queue.repair() == []


@pytest.mark.parametrize("fault", BREAK)
def test_a_fault_is_named_and_mended(queue, db, types, jobs, fault):
    """repair() reports what the view showed, and then all jobs can run to their end."""
    db.execute("set local search_path = moonmind_queue")
    db.execute(BREAK[fault], jobs)

    seen = faults(db)
    mended = queue.repair()

    assert any(fault in text for _, text in seen)
    assert {row.job_id for row in mended} == {job for job, _ in seen}
    assert any(fault in row.fault for row in mended)
    assert faults(db) == []
    assert queue.repair() == []
    for row in mended:
        if queue.get(row.job_id).state != JobState.CANCELLED and row.job_id != jobs["done"]:
            assert "repaired" in types(queue, row.job_id)
    while held := queue.claim("w", limit=9):
        for job in held:
            queue.complete(job)
    assert queue.get(jobs["child"]).state == JobState.SUCCEEDED


def test_places_and_leases_without_a_job_go(queue, db):
    """Nobody could ever claim or end them."""
    db.execute("insert into moonmind_queue.ready values (1, 999999, 1)")
    db.execute("insert into moonmind_queue.lease values (999999, 1, 1, 1, now(), now(), 'w')")
    assert len(faults(db)) == 2

    queue.repair()

    assert faults(db) == []
