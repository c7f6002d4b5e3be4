"""What a worker claims ahead: short jobs by the hundred, and none of them is kept from others."""

import pytest
from waiting import eventually

import moonmind_queue


@pytest.fixture
def produce(fresh):
    """A client whose work is committed at once."""
    with moonmind_queue.connect(fresh) as queue:
        yield queue


def test_short_jobs_come_by_the_hundred_and_each_has_its_history(start, produce, look, gate):
    """Each is claimed, started and completed once, in few transactions."""
    jobs = produce.enqueue_many([{"kind": "gate"}] * 2000)

    start({"gate": gate})

    done = "select count(*) from moonmind_queue.job where state = 'succeeded'"
    eventually(lambda: look(done) == [2000], within=30)
    events = look("select array_agg(type order by seq) from moonmind_queue.event group by job_id")
    assert len(events) == len(jobs)
    assert all(each == ["created", "claimed", "started", "completed"] for each in events)
    claims = look("select count(distinct at) from moonmind_queue.event where type = 'claimed'")
    assert claims[0] < 200


def test_a_long_job_among_short_ones_keeps_none_of_them(start, produce, look, gate):
    """It is said to run, and those behind it go back unharmed, for whoever is free."""
    produce.enqueue_many([{"kind": "gate"}] * 500)
    long = produce.enqueue("gate", {"wait": True})
    behind = produce.enqueue_many([{"kind": "gate"}] * 50)
    start({"gate": gate})

    eventually(lambda: produce.get(long).state == "running")
    held = "select count(*) from moonmind_queue.lease"
    eventually(lambda: look(held) == [1])
    assert {produce.get(job).state for job in behind} == {"queued"}
    assert {produce.get(job).attempt for job in behind} == {0}

    gate.open.set()
    eventually(lambda: all(produce.get(job).state == "succeeded" for job in [long, *behind]))
    assert {produce.get(job).attempt for job in behind} == {1}


def test_a_worker_that_stops_hands_back_what_it_claimed_ahead(start, produce, look, gate):
    """Nothing of it has run, so no attempt counts, and another worker takes it at once."""
    produce.enqueue_many([{"kind": "gate"}] * 500)
    long = produce.enqueue("gate", {"wait": True})
    produce.enqueue_many([{"kind": "gate"}] * 50)
    worker = start({"gate": gate})
    eventually(lambda: produce.get(long).state == "running")

    worker.stop()
    gate.open.set()

    eventually(lambda: look("select count(*) from moonmind_queue.lease") == [0])
    left = look("select attempt from moonmind_queue.job where state = 'queued'")
    assert set(left) <= {0}
