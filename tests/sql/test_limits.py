"""run_limit: how many jobs of an agent, a kind or a concurrency key are leased at once."""

from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import psycopg
import pytest

from moonmind_queue import DatabaseError, Queue

MINUTE = timedelta(minutes=1)


def ids(claimed):
    """The jobs, in the order in which they came."""
    return [held.id for held in claimed]


@pytest.mark.parametrize(
    ("scope", "name"), [("agent", "codex"), ("kind", "k"), ("concurrency_key", "repo")]
)
@pytest.mark.parametrize("row", ["own", "*"])
def test_no_more_than_the_limit_is_leased(queue, scope, name, row):
    """By name or by *, in one claim or in several; others are not held up."""
    queue.set_limit(scope, name if row == "own" else "*", 2)
    jobs = [queue.enqueue("k", concurrency_key="repo") for _ in range(3)]
    other = queue.enqueue("other", agent="other", concurrency_key="other")

    both = ids(queue.claim("w", limit=9))
    none = ids(queue.claim("w", limit=9))

    assert (both, none) == ([*jobs[:2], other], [])


def test_a_pointless_job_lends_its_urgency_to_nobody(queue, clock):
    """The next of the same lane comes when it would without the one that has expired."""
    queue.set_limit("agent", "codex", 5)
    queue.enqueue("k", priority=9, expires_at=clock.now + MINUTE)
    later = queue.enqueue("k")
    sooner = queue.enqueue("other", priority=1)
    clock.advance(MINUTE)

    assert ids(queue.claim("w")) + ids(queue.claim("w")) == [sooner, later]


@pytest.mark.parametrize("end", ["complete", "fail", "release", "unlock", "reclaim", "cancel"])
def test_room_comes_from_the_end_of_a_lease(queue, clock, end):
    """Nothing is counted but leases, so however one ends there is room at once."""
    queue.set_limit("agent", "codex", 1)
    first, second = queue.enqueue("k"), queue.enqueue("k")
    [held] = queue.claim("w", lease=MINUTE)
    assert queue.claim("w") == []

    if end == "complete":
        queue.complete(held)
    elif end == "fail":
        queue.fail(held, "no", retry_in=MINUTE)
    elif end == "release":
        queue.release(held)
    elif end == "unlock":
        queue.unlock(first, force=True)
    elif end == "reclaim":
        clock.advance(MINUTE)
        queue.reclaim()
    else:
        queue.cancel(first)
        queue.complete(held)

    expected = first if end in ("release", "unlock") else second
    assert ids(queue.claim("w", limit=5)) == [expected]


def test_every_limit_that_concerns_a_job_counts(queue):
    """Agent, kind and key together: the narrowest decides."""
    queue.set_limit("agent", "codex", 3)
    queue.set_limit("kind", "k", 2)
    queue.set_limit("concurrency_key", "*", 1)
    one = queue.enqueue("k", concurrency_key="a")
    queue.enqueue("k", concurrency_key="a")
    two = queue.enqueue("k", concurrency_key="b")
    queue.enqueue("k", concurrency_key="c")
    three = queue.enqueue("l")
    queue.enqueue("l")

    assert ids(queue.claim("w", limit=9)) == [one, two, three]


def test_a_name_of_its_own_wins_over_the_star(queue):
    """* is the default of its scope, not a second limit."""
    queue.set_limit("agent", "*", 1)
    queue.set_limit("agent", "strong", 3)
    for agent in ("strong", "weak"):
        for _ in range(4):
            queue.enqueue("k", agent=agent)

    agents = [held.agent for held in queue.claim("w", limit=9)]

    assert (agents.count("strong"), agents.count("weak")) == (3, 1)


def test_zero_closes_and_null_opens(queue):
    """A limit can be taken away again."""
    job = queue.enqueue("k")
    queue.set_limit("kind", "k", 0)
    closed = ids(queue.claim("w"))

    queue.set_limit("kind", "k", None)

    assert (closed, ids(queue.claim("w"))) == ([], [job])


def test_the_most_urgent_come_first_within_the_limits(queue):
    """Across lanes, as without limits."""
    queue.set_limit("concurrency_key", "*", 1)
    queue.enqueue("k", concurrency_key="a")
    a = queue.enqueue("k", concurrency_key="a", priority=2)
    b = queue.enqueue("k", concurrency_key="b", priority=3)
    free = queue.enqueue("k", priority=1)

    assert ids(queue.claim("w", limit=2)) == [b, a]
    assert ids(queue.claim("w", limit=2)) == [free]


def test_fifty_workers_at_once_never_exceed_it(here, session):
    """Fifty claim and complete in a storm; no moment has more leases than the limits allow."""
    here.set_limit("agent", "codex", 4)
    here.set_limit("concurrency_key", "*", 1)
    here.enqueue_many({"kind": "k", "concurrency_key": f"r{i % 9}"} for i in range(150))
    # Checked by the database at every commit that leases: no sampling could miss it.
    session(autocommit=True).execute("""
        create function moonmind_queue_test.check_limits() returns trigger language plpgsql as $$
        begin
            if (select count(*) from moonmind_queue.lease) > 4
               or exists (
                   select from moonmind_queue.lease join moonmind_queue.lane on lane.id = lane_id
                   group by concurrency_key having count(*) > 1)
            then
                raise exception 'too many';
            end if;
            return null;
        end $$;
        create constraint trigger checked after insert on moonmind_queue.lease
        deferrable initially deferred for each row
        execute function moonmind_queue_test.check_limits();
    """)

    def work(number):
        connection, done = session(autocommit=True), 0
        queue = Queue(connection)
        while connection.execute("select exists (select from moonmind_queue.ready)").fetchone()[0]:
            for job in queue.claim(f"w{number}", limit=2):
                queue.complete(job)
                done += 1
        return done

    with ThreadPoolExecutor(50) as pool:
        assert sum(pool.map(work, range(50))) == 150


def test_two_claims_that_overlap_do_not_add_up(here, session):
    """Neither sees the lease of the other; the second passes by instead of taking the same room."""
    here.set_limit("agent", "codex", 1)
    for _ in range(2):
        here.enqueue("k")
    first, second = session(), session()

    one = Queue(first).claim("w")
    two = Queue(second).claim("v")
    first.commit()
    second.commit()

    assert (len(one), two) == (1, [])
    assert here.claim("u") == []


def test_with_one_snapshot_for_all_statements_it_is_refused(here, session):
    """Such a transaction counts leases as they were before: it says so instead of overstepping."""
    here.set_limit("agent", "codex", 1)
    here.enqueue("k")
    connection = session()
    connection.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ

    with pytest.raises(DatabaseError, match="read committed"):
        Queue(connection).claim("w")


def test_workers_that_a_limit_kept_waiting_are_woken(here, sleeper):
    """By the end of a lease, and by a limit that is raised."""
    here.set_limit("agent", "codex", 1)
    here.enqueue("k")
    here.enqueue("k")
    [held] = here.claim("w")
    listener = sleeper()

    here.complete(held)
    [first] = listener.notifies(timeout=5, stop_after=1)
    listener.doze()
    here.set_limit("agent", "codex", 2)
    [second] = listener.notifies(timeout=5, stop_after=1)

    assert (first.payload, second.payload) == ("codex", "codex")


def test_a_worker_that_cannot_claim_sleeps(queue, clock):
    """next_due() knows the limits: a full lane is nothing to wake up for."""
    queue.set_limit("agent", "codex", 1)
    queue.enqueue("k")
    queue.enqueue("k")
    queue.claim("w", lease=5 * MINUTE)

    assert queue.next_due()[0] == 5 * MINUTE


def test_the_limits_and_what_they_count_can_be_seen(queue, db):
    """limit_overview; * has no count of its own."""
    queue.set_limit("agent", "codex", 3)
    queue.set_limit("concurrency_key", "*", 1)
    queue.set_limit("concurrency_key", "a", 2)
    queue.enqueue("k", concurrency_key="a")
    queue.claim("w")

    rows = db.execute("select * from moonmind_queue.limit_overview order by 1, 2").fetchall()

    assert rows == [
        ("agent", "codex", 3, 1),
        ("concurrency_key", "*", 1, None),
        ("concurrency_key", "a", 2, 1),
    ]


@pytest.mark.parametrize(
    "arguments",
    [("agent", "x", -1), ("user", "x", 1), ("agent", "", 1), ("agent", None, 1), (None, "x", 1)],
)
def test_a_limit_that_makes_no_sense_is_refused(queue, refused, arguments):
    """The message says what one needs."""
    with refused("22023", "a limit needs a scope"):
        queue.set_limit(*arguments)


def test_a_key_is_shown_with_the_job(queue, db):
    """And it changes nothing without a limit."""
    job = queue.enqueue("k", concurrency_key="acme/site")

    assert queue.get(job).concurrency_key == "acme/site"
    assert ids(queue.claim("w")) == [job]


def test_a_key_that_is_too_long_is_refused(queue, refused):
    """500 characters are enough for a repository or an account."""
    with refused("23514", "concurrency_key"):
        queue.enqueue("k", concurrency_key="x" * 501)
