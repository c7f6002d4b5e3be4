"""maintain(): room for what comes, and an end for what is over, in nobody's way."""

import time
from datetime import UTC, datetime, timedelta

import pytest

from moonmind_queue import InvalidArgument, Queue

HOUR = timedelta(hours=1)
DAY = timedelta(days=1)


def maintain(queue, limit=1000):
    """What was done, as a dictionary."""
    return {each.what: each.count for each in queue.maintain(limit)}


def months(db, table="event"):
    """The partitions of the history, or of the logs, that have a month."""
    return [
        row[0]
        for row in db.execute(
            "select relname from pg_inherits join pg_class on pg_class.oid = inhrelid"
            " where inhparent = %s::regclass and relname !~ 'default' order by 1",
            [f"moonmind_queue.{table}"],
        ).fetchall()
    ]


def finish(queue):
    """Claim and complete all that can be."""
    while held := queue.claim("w", limit=99):
        for job in held:
            queue.complete(job)


# --- the months of the history -----------------------------------------------------------------


def test_it_makes_this_month_and_the_next_two_once(queue, db, clock):
    """A second call finds nothing to do, a later month makes one more."""
    first = maintain(queue)
    second = maintain(queue)
    clock.advance(31 * DAY)

    assert (first, second) == ({"partitions made": 6}, {})
    assert maintain(queue) == {"partitions made": 2}
    assert months(db) == ["event_2026_01", "event_2026_02", "event_2026_03", "event_2026_04"]
    assert months(db, "log_chunk") == [name.replace("event", "log_chunk") for name in months(db)]


def test_a_month_ends_at_midnight_utc_wherever_the_session_is(queue, db, clock):
    """The first and the last event of a month stand in its partition."""
    db.execute("set local timezone = 'Pacific/Kiritimati'")
    maintain(queue)
    for at in (
        datetime(2026, 2, 1, tzinfo=UTC) - timedelta(microseconds=1),
        datetime(2026, 2, 1, tzinfo=UTC),
    ):
        clock.freeze(at)
        queue.enqueue("k")

    where = db.execute(
        "select tableoid::regclass::text from moonmind_queue.event order by job_id"
    ).fetchall()

    assert where == [("moonmind_queue.event_2026_01",), ("moonmind_queue.event_2026_02",)]


def test_an_event_of_a_month_that_nobody_made_is_kept_all_the_same(queue, db, clock, types):
    """No insert fails; such a month stays in the default partition, later ones are made."""
    early = queue.enqueue("k")
    clock.advance(31 * DAY)

    done = maintain(queue)
    queue.cancel(early)

    assert done == {"partitions made": 6}
    assert months(db) == ["event_2026_02", "event_2026_03", "event_2026_04"]
    assert types(queue, early) == ["created", "cancelled"]
    clock.freeze(datetime(2026, 1, 31, tzinfo=UTC))
    assert maintain(queue) == {"partitions made": 1}  # of the logs, where there is nothing yet
    assert months(db)[0] == "event_2026_02"


@pytest.fixture
def strayed(here, fresh, clock_of):
    """Many events of this month in the default partition; returns its size, in bytes."""
    clock = clock_of(fresh)
    clock.freeze()
    here.enqueue("k")
    here.connection.execute(
        "insert into moonmind_queue.event (job_id, seq, at, type)"
        " select 1, number, moonmind_queue._now(), 'progress'"
        " from generate_series(2, 150000) as number"
    )
    return here.select("select pg_relation_size('moonmind_queue.event_default') as size")[0]["size"]


def test_a_large_default_partition_is_not_read_while_it_is_locked(here, strayed):
    """Whoever claims would wait behind that; so the history has no months, and the logs do."""
    assert strayed > 8 * 1024**2

    assert maintain(here) == {"partitions made": 3}
    assert months(here.connection, "log_chunk") == [
        "log_chunk_2026_01",
        "log_chunk_2026_02",
        "log_chunk_2026_03",
    ]


def test_a_constraint_says_that_it_need_not_be_read(here, strayed):
    """The way out: PostgreSQL sees by it that the default partition has no row of new months."""
    connection = here.connection
    connection.execute(
        "alter table moonmind_queue.event_default"
        " add constraint until_now check (at < '2026-02-01Z') not valid"
    )
    assert maintain(here) == {"partitions made": 3}
    connection.execute("alter table moonmind_queue.event_default validate constraint until_now")
    read = "select pg_stat_get_xact_tuples_returned('moonmind_queue.event_default'::regclass)"
    with connection.transaction():
        [[before]] = connection.execute(read).fetchall()
        connection.execute(
            "create table moonmind_queue.event_2026_02 partition of moonmind_queue.event"
            " for values from ('2026-02-01Z') to ('2026-03-01Z')"
        )
        [[after]] = connection.execute(read).fetchall()

    assert after == before
    assert maintain(here) == {"partitions made": 1}
    assert months(connection) == ["event_2026_02", "event_2026_03"]


def test_a_month_is_dropped_when_the_last_job_is_gone_that_it_tells_of(queue, db, clock):
    """Whoever is live keeps the month of each of its events; the rest of them go."""
    maintain(queue)
    live = queue.enqueue("k", run_at=clock.now + 900 * DAY)
    for _ in range(3):
        clock.advance(31 * DAY)
        maintain(queue)
        queue.enqueue("k")
        finish(queue)
    clock.advance(100 * DAY)

    done = maintain(queue)

    assert done["jobs"] == 3
    assert months(db)[0] == "event_2026_01"
    assert not {"event_2026_02", "event_2026_03", "event_2026_04"} & set(months(db))
    assert [event.seq for event in queue.history(live)] == [1]


def test_a_live_jobs_history_stays_whole_over_many_months(queue, clock, types):
    """However old it is and however often somebody tidies up, no number is missing."""
    maintain(queue)
    queue.enqueue("k")
    for _ in range(8):
        [job] = queue.claim("w", lease=HOUR)
        queue.release(job)
        clock.advance(40 * DAY)
        maintain(queue)

    assert types(queue, job.id) == ["created", *["claimed", "released"] * 8]


@pytest.mark.parametrize("role", ["moonmind_worker", "moonmind_operator"])
def test_whoever_may_call_it_needs_no_right_on_tables(queue, db, clock, role):
    """The months belong to whom the queue belongs to, and no role of ours can touch them."""
    db.execute("create role tidy login")
    db.execute(f"grant {role} to tidy")
    db.execute("set session authorization tidy")

    done = maintain(queue)

    assert done == {"partitions made": 6}
    assert db.execute(
        "select count(*), count(distinct relowner) from pg_class"
        " where relname ~ '^(event|log_chunk)(_2026|$)' and relkind in ('r', 'p')"
        " and not has_table_privilege(oid, 'select, insert, update, delete')"
    ).fetchall() == [(8, 1)]


# --- nobody waits ------------------------------------------------------------------------------


def test_a_reader_that_stays_open_holds_up_neither_it_nor_the_queue(here, session, look):
    """It gives up within a moment, and does the work when the reader has gone."""
    here.enqueue("k")
    reader = session()
    reader.execute("select * from moonmind_queue.job_history").fetchall()
    begun = time.monotonic()

    done = maintain(here)
    here.enqueue("k")
    held = here.claim("w", limit=2)
    here.complete(held[0])
    took = time.monotonic() - begun
    reader.commit()

    assert done == {"partitions made": 3}  # of the logs, which nobody reads
    assert took < 2
    assert len(held) == 2
    assert maintain(here)["partitions made"] == 2  # this month's events are in the default one


def test_whoever_comes_while_it_waits_for_a_reader_waits_for_a_moment_only(
    here, session, threads, until
):
    """Claims queue behind a lock that is asked for, and this one is given up after 50 ms."""
    here.enqueue_many([{"kind": "k"}] * 15)
    reader = session()
    reader.execute("select * from moonmind_queue.job_history").fetchall()
    tidy = Queue(session(autocommit=True))
    ended = []

    def keep_at_it():
        while not ended:
            tidy.maintain()

    tidying = threads.submit(keep_at_it)
    slowest = 0.0
    for _ in range(15):
        begun = time.monotonic()
        [job] = here.claim("w")
        here.complete(job)
        slowest = max(slowest, time.monotonic() - begun)
    ended.append(True)
    tidying.result()

    assert slowest < 1.5


def test_no_event_is_lost_while_months_come_and_go(here, session, fresh, clock_of, threads, look):
    """Four sessions write without an error while months are made and dropped under them."""
    clock = clock_of(fresh)

    def work(number):
        queue = Queue(session(autocommit=True))
        for _ in range(25):
            queue.enqueue("k", agent=str(number))
            [job] = queue.claim("w", agents=[str(number)], lease=DAY)
            queue.complete(job)

    working = [threads.submit(work, number) for number in range(4)]
    made = 0
    while not all(each.done() for each in working):
        made += maintain(here).get("partitions made", 0)
        clock.advance(5 * DAY)
    for each in working:
        each.result()

    assert made > 0
    assert look("select count(*), count(distinct (job_id, seq)) from moonmind_queue.event") == [
        (look("select sum(event_seq) from moonmind_queue.job")[0],) * 2
    ]


def test_two_at_once_are_one(here, session):
    """While somebody is at it, the second returns at once with nothing."""
    first = session()
    done = maintain(Queue(first))

    assert done == {"partitions made": 6}
    assert maintain(here) == {}


# --- retention ---------------------------------------------------------------------------------


def test_jobs_that_ended_go_after_ninety_days(queue, clock):
    """That is the default, and it is exceeded, not reached."""
    queue.enqueue("k")
    finish(queue)
    clock.advance(90 * DAY)
    kept = maintain(queue)
    clock.advance(timedelta(microseconds=1))

    assert "jobs" not in kept
    assert maintain(queue)["jobs"] == 1


def test_live_jobs_stay_however_old(queue, clock):
    """Queued, leased, blocked and waiting: nothing of theirs is touched."""
    queue.enqueue_many([{"kind": "k"}] * 3)
    blocked, _ = queue.claim("w", limit=2)
    queue.fail(blocked, "?", outcome="block")
    queue.enqueue("k", after=[blocked.id])
    clock.advance(3000 * DAY)

    assert "jobs" not in maintain(queue)
    assert queue.count_jobs() == 4


def test_at_most_limit_jobs_go_in_one_call(queue, clock):
    """So that no transaction grows long; whoever wants more calls again."""
    queue.enqueue_many([{"kind": "k"}] * 5)
    finish(queue)
    clock.advance(100 * DAY)

    assert [maintain(queue, 2).get("jobs") for _ in range(4)] == [2, 2, 1, None]


@pytest.mark.parametrize(("keep", "gone"), [(DAY, 1), (None, 0)], ids=["a day", "for ever"])
def test_the_retention_can_be_set(queue, db, clock, keep, gone):
    """Shorter, or none at all; the view says what holds."""
    queue.enqueue("k")
    finish(queue)
    queue.set_retention(keep)
    clock.advance(300 * DAY)

    assert maintain(queue).get("jobs", 0) == gone
    assert db.execute("select what, keep from moonmind_queue.retention_overview").fetchall() == [
        ("job", keep)
    ]


@pytest.mark.parametrize("keep", [timedelta(0), -DAY])
def test_a_retention_of_nothing_is_refused(queue, refused, keep):
    """It would delete what has just ended."""
    with refused("22023", "longer than nothing"):
        queue.set_retention(keep)


@pytest.mark.parametrize("limit", [0, -1, None])
def test_a_limit_below_one_is_refused(queue, refused, limit):
    """As prune() does."""
    with refused("22023", "maintain needs a limit"):
        queue.maintain(limit)


# --- workers, sleepers, pauses -----------------------------------------------------------------


def register(queue, name="w"):
    """Start a worker process, so to speak."""
    return queue.register_worker(
        name, agents=None, kinds=None, capabilities=[], slots=1, host="h", pid=1, version="1"
    )


@pytest.mark.parametrize("stopped", [True, False])
def test_a_process_is_forgotten_a_week_after_its_last_word(queue, db, clock, stopped):
    """Whether it stopped or was never heard of again; who is alive stays."""
    gone, alive = register(queue), register(queue)
    queue.see_worker(gone, stopped=stopped)
    clock.advance(7 * DAY)
    queue.see_worker(alive)
    kept = maintain(queue)
    clock.advance(timedelta(microseconds=1))

    assert "workers" not in kept
    assert maintain(queue)["workers"] == 1
    assert db.execute("select id from moonmind_queue.worker_overview").fetchall() == [(alive,)]
    with pytest.raises(InvalidArgument, match=f"worker process {gone} is not registered"):
        queue.see_worker(gone)


def test_nobody_is_notified_who_is_gone_for_an_hour(queue, db, clock):
    """A sleeper that was killed sleeps no longer; one that is heard of does."""
    gone, alive = register(queue), register(queue)
    queue.doze(gone)
    queue.doze(alive)
    clock.advance(HOUR + timedelta(seconds=1))
    queue.see_worker(alive)

    assert maintain(queue)["sleepers"] == 1
    assert db.execute("select worker_id from moonmind_queue.sleeper").fetchall() == [(alive,)]


def test_a_pause_that_was_over_a_day_ago_goes(queue, db, clock):
    """One without an end and one that is not over long stay."""
    queue.pause("for-good")
    queue.pause("over", until=clock.now + HOUR)
    clock.advance(DAY)
    queue.pause("just-over", until=clock.now + HOUR)
    clock.advance(2 * HOUR)

    assert maintain(queue)["pauses"] == 1
    assert db.execute("select agent from moonmind_queue.pause order by 1").fetchall() == [
        ("for-good",), ("just-over",),
    ]  # fmt: skip
