"""read_events(): every event of all jobs exactly once, however late its transaction commits."""

import random
from datetime import timedelta

import psycopg
import pytest

from moonmind_queue import InvalidArgument, Queue

HOUR = timedelta(hours=1)


class Reader:
    """Reads on from its cursor, which is all that it keeps."""

    def __init__(self, queue, cursor=None, limit=1000):
        self.queue, self.limit = queue, limit
        self.cursor = cursor or queue.event_cursor()

    def page(self):
        """One page as (job, seq)."""
        events = self.queue.read_events(self.cursor, self.limit)
        if events:
            self.cursor = events[-1].cursor
        return [(event.job_id, event.seq) for event in events]

    def rest(self):
        """All pages until an empty one."""
        seen = []
        while page := self.page():
            seen += page
        return seen


def committed(look):
    """Every event that is there, as (job, seq)."""
    return look("select job_id, seq from moonmind_queue.event order by job_id, seq")


def test_an_event_is_read_when_its_transaction_commits_however_late(here, session):
    """Others commit and are read meanwhile; the late one comes once, and nothing comes twice."""
    here.enqueue_many([{"kind": "k"}] * 3)
    slow_job, *jobs = here.claim("w", limit=3)
    reader = Reader(here)
    slow = session()
    Queue(slow).append_event(slow_job, "progress", "late")

    during = []
    for round_ in range(3):
        for job in jobs:
            here.append_event(job, "progress", str(round_))
        during.append(reader.rest())
    slow.commit()
    after = reader.rest()

    assert during == [[(job.id, 3 + n) for job in jobs] for n in range(3)]
    assert after == [(slow_job.id, 3)]
    assert reader.rest() == []


def test_a_producer_that_commits_late_is_not_missed(here, session):
    """A whole transaction of events comes, in order, behind what was numbered after it."""
    here.enqueue("k")  # whoever is first with an agent and a kind makes the lane, others wait
    reader = Reader(here)
    slow = session()
    late = Queue(slow).enqueue("k")
    Queue(slow).cancel(late)
    quick = here.enqueue("k")

    during = reader.rest()
    slow.commit()

    assert during == [(quick, 1)]
    assert reader.rest() == [(late, 1), (late, 2)]


@pytest.mark.parametrize("limit", [1, 3, 1000])
@pytest.mark.parametrize("seed", range(4))
def test_whatever_commits_rolls_back_and_is_read_when(here, session, look, seed, limit):
    """Five sessions in a random interleaving: each event once, those of a job in their order."""
    chance = random.Random(seed)  # noqa: S311 - no secret depends on it
    here.enqueue_many([{"kind": "k"}] * 5)
    reader = Reader(here, here.event_cursor(here.get(1).created_at), limit)
    writers = [(session(), job) for job in here.claim("w", limit=5)]
    seen = []
    for _ in range(150):
        connection, job = chance.choice(writers)
        match chance.choices(["append", "enqueue", "commit", "rollback", "read"], [6, 2, 2, 1, 2])[
            0
        ]:
            case "append":
                Queue(connection).append_event(job, "progress")
            case "enqueue":
                Queue(connection).enqueue("k")
            case "commit":
                connection.commit()
            case "rollback":
                connection.rollback()
            case "read":
                seen += reader.page()
    for connection, _ in writers:
        connection.commit()
    seen += reader.rest()

    assert sorted(seen) == committed(look)
    for job_id in {job_id for job_id, _ in seen}:
        numbers = [seq for job, seq in seen if job == job_id]
        assert numbers == list(range(1, len(numbers) + 1))


def test_readers_and_writers_at_once(here, session, look, threads):
    """Six writers that commit and roll back as they like while somebody reads all the time."""
    reader = Reader(here, limit=7)

    def write(number):
        connection, chance = session(), random.Random(number)  # noqa: S311
        for _ in range(40):
            Queue(connection).enqueue_many([{"kind": "k"}] * chance.randint(1, 3))
            connection.commit() if chance.random() < 0.7 else connection.rollback()

    writing = [threads.submit(write, number) for number in range(6)]
    seen = []
    while not all(each.done() for each in writing):
        seen += reader.page()
    for each in writing:
        each.result()
    seen += reader.rest()

    assert sorted(seen) == committed(look)


def test_a_reader_that_comes_back_goes_on_exactly_there(here, session, fresh):
    """The cursor is a text; another session, and another page size, go on with it."""
    here.enqueue("k")
    first = Reader(here, limit=2)
    slow = session()
    late = Queue(slow).enqueue("k")
    jobs = [here.enqueue("k") for _ in range(5)]
    before = first.page()

    slow.commit()
    again = Reader(Queue(session(autocommit=True)), first.cursor, 3)

    assert before == [(job, 1) for job in jobs[:2]]
    assert again.page() == [(late, 1), (jobs[2], 1), (jobs[3], 1)]
    assert again.page() == [(jobs[4], 1)]
    assert again.page() == []


def test_a_page_that_was_lost_can_be_read_again(here):
    """Whoever does not store the new cursor gets the same page."""
    cursor = here.event_cursor()
    here.enqueue("k")

    assert here.read_events(cursor) == here.read_events(cursor) != []


def test_what_was_rolled_back_is_not_waited_for(here, session):
    """As soon as nobody is writing any more, the cursor is one number again."""
    here.enqueue("k")
    reader = Reader(here)
    aborted, partly = session(), session()
    for _ in range(3):
        Queue(aborted).enqueue("k")
        here.enqueue("k")
    kept = Queue(partly).enqueue("k")
    with pytest.raises(ZeroDivisionError), partly.transaction():
        Queue(partly).enqueue("k")
        raise ZeroDivisionError
    reader.rest()
    aborted.rollback()
    with_gaps = reader.cursor.split()[0]
    partly.commit()

    late = reader.rest()
    here.enqueue("k")
    reader.rest()

    assert late == [(kept, 1)]
    assert with_gaps.count("[") > 3
    assert reader.cursor.split()[0] == "{[11,)}"


def test_gaps_of_a_long_history_do_not_pile_up_in_the_cursor(here, db):
    """Catching up, the positions of jobs that were pruned are left out page by page."""
    here.enqueue_many([{"kind": "k"}] * 200)
    for job in here.claim("w", limit=200)[::2]:
        here.complete(job)
    here.prune(timedelta(0))
    reader = Reader(here, "{[1,)}", 10)

    longest = 0
    while reader.page():
        longest = max(longest, len(reader.cursor))

    assert longest < 60


def test_events_of_a_job_come_in_their_order_whoever_wrote_them(here, session, blocked):
    """A later number is not written before an earlier one has been committed."""
    here.enqueue("k")
    [job] = here.claim("w")
    reader = Reader(here)
    slow = session()
    Queue(slow).append_event(job, "progress", "first")
    quick = blocked(lambda queue: queue.append_event(job, "progress", "second"))
    during = reader.rest()
    slow.commit()
    quick.result()

    assert during == []
    assert reader.rest() == [(job.id, 3), (job.id, 4)]


def test_each_event_says_what_its_job_is(here):
    """So that a reader can leave out what is not for it."""
    cursor = here.event_cursor()
    here.enqueue("k", agent="claude", name="n", key="x")

    [event] = here.read_events(cursor)

    assert (event.type, event.level, event.agent) == ("created", "info", "claude")
    assert (event.kind, event.name, event.key) == ("k", "n", "x")


def test_a_cursor_begins_now_or_at_a_time(queue, clock):
    """Without a time only what comes is read; with one, what has happened since."""
    jobs = []
    for _ in range(3):
        jobs.append(queue.enqueue("k"))
        clock.advance(HOUR)
    now = queue.event_cursor()
    later = queue.enqueue("k")

    assert Reader(queue, now).rest() == [(later, 1)]
    assert Reader(queue, queue.event_cursor(clock.now - 2 * HOUR)).rest() == [
        (jobs[1], 1), (jobs[2], 1), (later, 1),
    ]  # fmt: skip
    assert Reader(queue, queue.event_cursor(clock.now + HOUR)).rest() == []


@pytest.mark.parametrize("last", [0, 2, 9])
def test_a_cursor_begins_with_the_last_few(queue, last):
    """As many as asked for, or all that there are, and then what comes."""
    jobs = [queue.enqueue("k") for _ in range(3)]
    cursor = queue.event_cursor(last=last)
    jobs.append(queue.enqueue("k"))

    assert Reader(queue, cursor).rest() == [(job, 1) for job in jobs[max(0, 3 - last) :]]


def test_the_oldest_event_is_where_minus_infinity_is(queue, db):
    """From psql, the whole history in pages."""
    jobs = [queue.enqueue("k") for _ in range(3)]
    cursor = db.execute("select moonmind_queue.event_cursor('-infinity')").fetchone()[0]

    assert Reader(queue, cursor, 2).rest() == [(job, 1) for job in jobs]


@pytest.mark.parametrize("cursor", ["", "7", "{}", "{[1,5)}", "{[1,)} x", "{[1,)}; drop table"])
def test_what_is_no_cursor_is_refused(queue, refused, cursor):
    """In words that say where to get one."""
    with refused("22023", r"event_cursor\(\) or the row before gives a cursor"):
        queue.read_events(cursor)


@pytest.mark.parametrize("limit", [0, -1, None])
def test_a_limit_below_one_is_refused(queue, refused, limit):
    """A page has at least one event."""
    with refused("22023", "limit of at least 1"):
        queue.read_events("{[1,)}", limit)


def test_an_old_snapshot_is_refused(here, session):
    """It would not see what those committed that are no longer at it."""
    cursor = here.event_cursor()
    connection = session()
    connection.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ

    with pytest.raises(Exception, match="needs a transaction that is read committed") as caught:
        Queue(connection).read_events(cursor)

    assert caught.value.__cause__.sqlstate == "25000"
    assert not isinstance(caught.value, InvalidArgument)


def test_signs_of_life_are_columns_and_no_events(queue, clock):
    """However often a lease is renewed and a process is seen, there is nothing to read."""
    process = queue.register_worker(
        "w", agents=None, kinds=None, capabilities=[], slots=1, host="h", pid=1, version="1"
    )
    queue.enqueue("k")
    held = queue.claim("w")
    cursor = queue.event_cursor()
    for _ in range(5):
        clock.advance(timedelta(seconds=30))
        queue.renew(held, HOUR)
        queue.see_worker(process)

    assert queue.read_events(cursor) == []
    assert [event.type for event in queue.history(held[0].id)] == ["created", "claimed"]
