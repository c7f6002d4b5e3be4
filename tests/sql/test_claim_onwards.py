"""A claim of many goes on where the last one ended: dead rows behind it cost nothing."""

from datetime import timedelta

import pytest

from moonmind_queue import Queue

SECOND = timedelta(seconds=1)


@pytest.fixture
def urgent(queue):
    """Enqueue a job that is more urgent than all others."""
    return lambda: queue.enqueue("k", priority=9)


def claimed(queue, limit):
    """The ids that a claim takes, in its order."""
    return [job.id for job in queue.claim("w", limit=limit)]


def test_what_comes_before_is_found_within_a_second(queue, clock, urgent):
    """A claim of many may pass it by, but not for longer."""
    jobs = queue.enqueue_many([{"kind": "k"}] * 500)
    assert claimed(queue, 100) == jobs[:100]
    more = urgent()
    assert claimed(queue, 100) == jobs[100:200]

    clock.advance(SECOND)

    assert claimed(queue, 100) == [more, *jobs[200:299]]


def test_a_claim_that_finds_too_little_looks_before_that_too(queue, clock, urgent):
    """No worker is told that there is nothing while there is something."""
    jobs = queue.enqueue_many([{"kind": "k"}] * 150)
    assert len(claimed(queue, 100)) == 100
    more = urgent()

    assert sorted(claimed(queue, 100)) == [*jobs[100:], more]
    last = urgent()
    assert claimed(queue, 100) == [last]


def test_a_claim_of_few_takes_the_most_urgent(queue, clock, urgent):
    """Only who takes many at a time may be late."""
    queue.enqueue_many([{"kind": "k"}] * 300)
    claimed(queue, 100)
    more = urgent()

    assert claimed(queue, 1) == [more]


def test_a_clock_that_went_back_ends_the_hint(queue, clock, urgent):
    """A server that was restored or corrected does not hide jobs for longer than a second."""
    queue.enqueue_many([{"kind": "k"}] * 300)
    claimed(queue, 100)
    more = urgent()

    clock.advance(-timedelta(hours=1))
    queue.enqueue_many([{"kind": "k"}])

    assert more in claimed(queue, 100)


def test_claims_at_once_begin_one_behind_the_other(here, session):
    """Nobody tries what another holds; what that leaves is for who comes next."""
    jobs = here.enqueue_many([{"kind": "k"}] * 700)
    first, second = Queue(session()), Queue(session())

    assert claimed(first, 100) == jobs[:100]
    assert claimed(second, 300) == jobs[300:600]
    assert claimed(here, 10) == jobs[100:110]


def test_claims_at_once_leave_nothing_to_the_last(here, session):
    """Who finds too little behind the others takes what they left."""
    jobs = here.enqueue_many([{"kind": "k"}] * 450)
    first, second = Queue(session()), Queue(session())

    assert claimed(first, 100) == jobs[:100]
    assert sorted(claimed(second, 400)) == jobs[100:]


def test_dead_rows_cost_a_claim_nothing(here, session):
    """While another session keeps them from being cleaned up, a claim looks at as few pages."""
    here.enqueue_many([{"kind": "k"}] * 12_000)
    holder = session()
    holder.execute("set transaction isolation level repeatable read")
    holder.execute("select count(*) from moonmind_queue.ready")

    def pages():
        [plan] = here.connection.execute(
            "explain (analyze, buffers, timing off, format json)"
            " select * from moonmind_queue.claim('w', p_limit => 100)"
        ).fetchone()
        return plan[0]["Plan"]["Shared Hit Blocks"] + plan[0]["Plan"]["Shared Read Blocks"]

    claimed(here, 100)
    first = pages()
    while here.claim("w", limit=1000)[999:]:
        pass
    here.enqueue_many([{"kind": "k"}] * 500)
    claimed(here, 100)

    assert pages() < 1.2 * first


@pytest.fixture
def moved(fresh, clock_of):
    """The clock of a database of its own, where dead rows are nobody else's."""
    clock = clock_of(fresh)
    clock.freeze()
    return clock


@pytest.fixture
def holder(session):
    """A session that keeps dead rows from being cleaned up, once it has looked at anything."""
    return session()


@pytest.fixture
def dear(here, moved, holder):
    """Make a full look dear: rows that are gone and cannot be cleaned up stand before all jobs."""
    here.enqueue("k")
    [job] = here.claim("w")
    here.connection.execute(
        "insert into moonmind_queue.ready (lane_id, rank, job_id)"
        " select lane_id, rank - 10^12::bigint, number"
        " from moonmind_queue.job, generate_series(1, 150000) as number"
    )
    holder.execute("set transaction isolation level repeatable read")
    holder.execute("select count(*) from moonmind_queue.ready")
    here.connection.execute("delete from moonmind_queue.ready")
    here.complete(job)
    return here


def test_where_a_look_is_dear_few_go_on_too_for_a_while(dear, moved):
    """Not for longer than half a minute, and from a look that is dear again for another while."""
    jobs = dear.enqueue_many([{"kind": "k"}] * 9)
    assert claimed(dear, 1) == jobs[:1]
    more = dear.enqueue("k", priority=9)
    assert claimed(dear, 2) == jobs[1:3]

    moved.advance(30 * SECOND)

    assert claimed(dear, 2) == [more, jobs[3]]
    dear.enqueue("k", priority=9)
    assert claimed(dear, 1) == jobs[4:5]


def test_where_a_look_is_dear_nobody_looks_again_before_it_is_time(dear, moved):
    """Not even who finds nothing; how long a worker may sleep until then it is told."""
    jobs = dear.enqueue_many([{"kind": "k"}] * 3)
    assert claimed(dear, 1) == jobs[:1]
    assert dear.next_due()[0] == timedelta(0)
    more = dear.enqueue("k", priority=9)

    assert claimed(dear, 9) == jobs[1:]
    assert claimed(dear, 9) == []
    due, _ = dear.next_due()
    assert timedelta(0) < due <= 30 * SECOND
    moved.advance(due)
    assert dear.next_due()[0] == timedelta(0)
    assert claimed(dear, 9) == [more]


def test_a_dear_look_is_forgotten_when_one_is_cheap_again(dear, holder, moved):
    """As soon as somebody has cleaned up, the most urgent comes first."""
    jobs = dear.enqueue_many([{"kind": "k"}] * 5)
    assert claimed(dear, 1) == jobs[:1]
    holder.rollback()
    dear.connection.execute("vacuum moonmind_queue.ready")
    moved.advance(30 * SECOND)
    assert claimed(dear, 1) == jobs[1:2]
    more = dear.enqueue("k", priority=9)

    assert claimed(dear, 1) == [more]
