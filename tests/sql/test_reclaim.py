"""reclaim(): whoever held a job and fell silent no longer does."""

from datetime import timedelta

import pytest

from moonmind_queue import JobState, Queue

SECOND = timedelta(seconds=1)
MINUTE = timedelta(minutes=1)
HOUR = timedelta(hours=1)
MICROSECOND = timedelta(microseconds=1)


def lose(queue, clock):
    """Claim one job, let its lease run out and take it back; returns what it rests."""
    [held] = queue.claim("w", lease=MINUTE)
    clock.advance(MINUTE)
    queue.reclaim()
    rest = queue.get(held.id).run_at - clock.now
    clock.advance(HOUR)
    return rest


@pytest.mark.parametrize("start", [False, True])
def test_a_lease_is_lost_at_its_end_and_not_a_microsecond_before(queue, clock, types, start):
    """Claimed or running; one event, and the error says whose lease it was."""
    job = queue.enqueue("k")
    queue.claim("w", lease=MINUTE, start=start)

    clock.advance(MINUTE - MICROSECOND)
    early = queue.reclaim()
    clock.advance(MICROSECOND)
    [taken] = queue.reclaim()

    assert early == []
    assert (taken.job_id, taken.state) == (job, JobState.QUEUED)
    assert types(queue, job)[-1] == "expired"
    assert queue.get(job).error == "the lease of w ran out"
    assert queue.reclaim() == []


def test_the_attempt_counts(queue, clock):
    """The worker may have done half of the work."""
    job = queue.enqueue("k")

    lose(queue, clock)

    assert queue.get(job).attempt == 1
    assert [held.attempt for held in queue.claim("w")] == [2]


def test_the_first_lost_lease_rests_a_second_and_further_ones_back_off(queue, clock):
    """A job that kills its workers cannot run them down."""
    queue.enqueue("k", max_attempts=9)

    first, second, third = (lose(queue, clock).total_seconds() for _ in range(3))

    assert first == 1
    assert 22.5 <= second <= 37.5
    assert 45 <= third <= 75


def test_after_a_retry_lost_leases_are_counted_anew(queue, clock):
    """A person has looked at the job: its next lost lease is the first again."""
    job = queue.enqueue("k", max_attempts=2)
    for _ in range(2):
        lose(queue, clock)

    queue.retry(job)

    assert lose(queue, clock) == SECOND


def test_in_the_last_attempt_it_is_a_dead_letter(queue, clock, types):
    """A job that kills every worker ends."""
    job = queue.enqueue("k", max_attempts=1)
    queue.claim("w", lease=MINUTE)
    clock.advance(MINUTE)

    [taken] = queue.reclaim()

    assert taken.state == JobState.DEAD_LETTER
    assert types(queue, job)[-2:] == ["expired", "dead_lettered"]
    assert queue.get(job).error == "the lease of w ran out, the last of 1"
    assert queue.get(job).finished_at == clock.now


def test_leases_that_run_are_left_alone(queue, clock):
    """Only what has expired is taken."""
    for _ in range(3):
        queue.enqueue("k")
    queue.claim("w", lease=MINUTE)
    long, renewed = queue.claim("w", limit=2, lease=2 * MINUTE)
    clock.advance(MINUTE)
    queue.renew([renewed], 2 * MINUTE)

    taken = queue.reclaim()
    clock.advance(MINUTE)
    later = queue.reclaim()

    assert len(taken) == 1
    assert [row.job_id for row in later] == [long.id]


def test_at_most_limit_are_taken_at_once(queue, clock):
    """In the order of their ids; the rest with the next call."""
    jobs = queue.enqueue_many([{"kind": "k"}] * 5)
    queue.claim("w", limit=5)
    clock.advance(HOUR)

    taken = [[row.job_id for row in queue.reclaim(2)] for _ in range(4)]

    assert taken == [jobs[:2], jobs[2:4], jobs[4:], []]


def test_it_needs_no_claim_and_no_worker(here, fresh, clock_of):
    """A person's psql is enough to bring back what a dead fleet held."""
    here.enqueue("k")
    here.claim("w")
    clock_of(fresh).advance(HOUR)

    states = here.connection.execute("select state from moonmind_queue.reclaim()").fetchall()

    assert states == [("queued",)]


def test_two_reclaimers_share_the_work(here, session, fresh, clock_of):
    """What one has locked the other passes over; nothing is taken twice."""
    here.enqueue_many([{"kind": "k"}] * 4)
    here.claim("w", limit=4)
    clock_of(fresh).advance(HOUR)
    one, two = session(), session()

    first = Queue(one).reclaim(3)
    second = Queue(two).reclaim(3)

    assert (len(first), len(second)) == (3, 1)
    assert not {row.job_id for row in first} & {row.job_id for row in second}


def test_sixteen_reclaimers_take_each_lease_once(here, session, threads, fresh, clock_of):
    """A hundred lost leases are a hundred `expired` events."""
    here.enqueue_many([{"kind": "k"}] * 100)
    here.claim("w", limit=100)
    clock_of(fresh).advance(HOUR)

    taken = list(threads.map(lambda _: Queue(session(autocommit=True)).reclaim(), range(16)))
    rest = here.reclaim()

    assert sum(map(len, taken)) + len(rest) == 100
    assert here.connection.execute(
        "select count(*) from moonmind_queue.event where type = 'expired'"
    ).fetchone() == (100,)


def test_idle_workers_are_woken(here, sleeper, fresh, clock_of):
    """The channel carries the agent: somebody must know when the job's rest ends."""
    here.enqueue("k", agent="claude")
    here.claim("w")
    clock_of(fresh).advance(HOUR)
    listener = sleeper()

    here.reclaim()

    [notice] = listener.notifies(timeout=5, stop_after=1)
    assert notice.payload == "claude"


@pytest.fixture
def crowded(here, session, fresh, clock_of):
    """A queue with a lease that lasts half a second; many are gone and stay in the table."""
    clock = clock_of(fresh)
    clock.freeze()
    here.enqueue("k")
    here.claim("w", lease=SECOND / 2)
    here.connection.execute(
        "insert into moonmind_queue.lease"
        " (job_id, token, attempt, lane_id, expires_at, deadline_at, worker)"
        " select -number, number, 1, 1, 'infinity', 'infinity', 'w'"
        " from generate_series(1, 90000) as number"
    )
    holder = session()
    holder.execute("set transaction isolation level repeatable read")
    holder.execute("select count(*) from moonmind_queue.lease")
    here.connection.execute("delete from moonmind_queue.lease where job_id < 0")
    return clock


def test_where_it_is_dear_to_look_at_leases_a_session_rests_from_it(here, crowded):
    """They would all be walked over each time; what runs out meanwhile is taken back later."""
    assert here.next_due()[0] == SECOND / 2
    again, _ = here.next_due()
    assert timedelta(0) < again < SECOND / 4

    crowded.advance(SECOND / 2 - again / 2)
    assert here.next_due()[0] == again / 2
    crowded.advance(again / 2)
    assert here.reclaim() == []
    assert here.next_due()[0] == again / 2
    crowded.advance(again / 2)
    assert len(here.reclaim()) == 1


def test_a_look_that_finds_an_expired_lease_leaves_it_to_be_taken_back(here, crowded):
    """A worker asks what is due before it takes anything back: that is no reason to rest."""
    crowded.advance(SECOND)
    assert here.next_due()[0] == timedelta(0)

    assert len(here.reclaim()) == 1


def test_a_look_that_takes_as_much_as_was_asked_for_does_not_rest(here, crowded):
    """There may be more."""
    for _ in range(2):
        here.enqueue("k")
        here.claim("w", lease=SECOND / 2)
    crowded.advance(SECOND)

    assert [len(here.reclaim(limit=2)) for _ in range(3)] == [2, 1, 0]
