"""Schedules in SQL: one job for an occurrence, whoever ticks and however late."""

from datetime import UTC, datetime, timedelta

import pytest

from moonmind_queue import InvalidArgument, InvalidPayload, NotAllowed, Queue, ScheduleNotFound
from moonmind_queue._ticker import tick

MINUTE = timedelta(minutes=1)
HOUR = timedelta(hours=1)
MIDNIGHT = datetime(2026, 1, 1, tzinfo=UTC)  # where the fixture clock stands
NOOP = {"kind": "noop"}


def keys(db):
    """What the schedules have brought, in order."""
    rows = db.execute("select key from moonmind_queue.job_overview order by id").fetchall()
    return [key.rpartition("/")[2] if key else None for (key,) in rows]


def only(queue):
    """The one schedule there is."""
    [schedule] = queue.schedules()
    return schedule


# --- adding ------------------------------------------------------------------------------------


def test_a_new_schedule_knows_its_next_time(queue, clock):
    """The first occurrence after the database's now, read in its time zone."""
    change = queue.add_schedule("nightly", "0 2 * * *", NOOP, timezone="Europe/Berlin")

    assert change == "created"
    assert only(queue).next_at == datetime(2026, 1, 1, 1, tzinfo=UTC)
    assert queue.due_schedules() == []


def test_the_same_definition_again_changes_nothing(queue, db, clock, picture):
    """Deploying twice does not move the next time, also when that has come meanwhile."""
    job = {"kind": "noop", "payload": {"b": 1, "a": 2}}
    queue.add_schedule("nightly", "0 2 * * *", job, catch_up="all")
    clock.advance(30 * HOUR)
    before = picture(db)["schedule"]

    same = {"payload": {"a": 2, "b": 1}, "kind": "noop"}
    assert queue.add_schedule("nightly", " 0  2 * * * ", same, catch_up="all") == "unchanged"

    assert picture(db)["schedule"] == before


def test_another_time_brings_another_next_time(queue, clock):
    """A changed cron or time zone counts from now."""
    queue.add_schedule("s", "0 2 * * *", NOOP)

    assert queue.add_schedule("s", "0 3 * * *", NOOP) == "updated"
    assert only(queue).next_at == MIDNIGHT + 3 * HOUR
    assert queue.add_schedule("s", "0 3 * * *", NOOP, timezone="Asia/Tokyo") == "updated"
    assert only(queue).next_at == MIDNIGHT + 18 * HOUR


def test_another_job_keeps_an_occurrence_that_has_come(queue, db, clock):
    """Changing what runs at two, just after two, does not cost tonight's run."""
    queue.add_schedule("s", "0 2 * * *", NOOP)
    clock.advance(2 * HOUR)

    assert queue.add_schedule("s", "0 2 * * *", {"kind": "noop", "priority": 7}) == "updated"
    tick(queue)

    assert db.execute("select key, priority from moonmind_queue.job").fetchall() == [
        ("schedule/s/2026-01-01T02:00:00Z", 7)
    ]


def test_adding_enqueues_nothing(queue, db, clock):
    """The job is tried out and taken back whole: neither rows nor a lane are left."""
    queue.add_schedule("s", "0 2 * * *", {"kind": "noop", "agent": "new", "capabilities": ["new"]})

    for table in ("job", "lane", "ready", "scheduled", "event", "dependency"):
        assert db.execute(f"select * from moonmind_queue.{table}").fetchall() == []


BAD = [
    ({"cron": "0 25 * * *"}, "bad hour"),
    ({"cron": "0 2 * *"}, "five fields"),
    ({"timezone": "Berlin"}, "unknown time zone"),
    ({"catch_up": "twice"}, "schedule_catch_up_is_known"),
    ({"name": "two words"}, "schedule_name_is_one_word"),
    ({"name": ""}, "schedule_name_is_one_word"),
    ({"name": "x" * 201}, "schedule_name_is_one_word"),
    ({"job": {}}, "kind"),
    ({"job": {"kind": " "}}, "lane_kind_is_given"),
    ({"job": {"kind": "k", "colour": "red"}}, "unknown name colour"),
    ({"job": {"kind": "k", "max_attempts": 0}}, "job_max_attempts_is_positive"),
    ({"job": {"kind": "k", "priority": "high"}}, "invalid input syntax"),
    ({"job": {"kind": "k", "payload": [1]}}, "job_payload_is_an_object"),
    ({"job": {"kind": "k", "key": "a"}}, "its job cannot have key"),
    ({"job": {"kind": "k", "run_at": "2030-01-01", "after": [1]}}, "cannot have after, run_at"),
]


@pytest.mark.parametrize(("bad", "message"), BAD, ids=[str(bad)[:40] for bad, _ in BAD])
def test_what_could_never_run_is_refused(queue, db, picture, bad, message):
    """InvalidArgument in the words of whoever refuses, and nothing is written."""
    queue.add_schedule("good", "0 2 * * *", NOOP)
    before = picture(db)
    given = {"name": "s", "cron": "0 2 * * *", "job": {"kind": "k"}} | bad

    with pytest.raises(InvalidArgument, match=message), db.transaction():
        queue.add_schedule(**given)

    assert picture(db) == before


def test_a_payload_is_checked_by_its_kind(queue, db, picture):
    """Where the executor is installed, its InvalidPayload comes when the schedule is added."""
    before = picture(db)

    with pytest.raises(InvalidPayload, match="seconds"):
        queue.add_schedule("s", "0 2 * * *", {"kind": "noop", "payload": {"seconds": "x"}})

    assert picture(db) == before


@pytest.mark.parametrize(
    ("arguments", "sqlstate", "message"),
    [
        ("'s', '0 2 * * *', '{\"kind\": \"k\"}', 'EST5EDT4'", "22023", "unknown time zone"),
        ("'s', '0 2 * * *', '[]'", "22023", "not an object"),
        ("'s', '0 2 * * *', null", "22023", "not an object"),
        ("'s', 'daily', '{\"kind\": \"k\"}'", "23514", "schedule_cron_has_five_fields"),
        ("'s', null, '{\"kind\": \"k\"}'", "22023", "not s and null"),
        ("null, '0 2 * * *', '{\"kind\": \"k\"}'", "22023", "not null and 0 2"),
        (
            "'s', '0 2 * * *', '{\"kind\": \"k\"}', p_next_at => 'infinity'",
            *("23514", "schedule_next_at_is_near"),
        ),
    ],
)
def test_sql_refuses_it_too(db, refused, arguments, sqlstate, message):
    """Whoever adds from psql gets the same answers, as far as the database can read."""
    with refused(sqlstate, message):
        db.execute(f"select moonmind_queue.add_schedule({arguments})")


def test_a_schedule_from_psql_gets_its_next_time_from_a_worker(queue, db, clock):
    """Without next_at it is due at once; the first tick computes, and enqueues nothing."""
    db.execute("""select moonmind_queue.add_schedule('s', '0 2 * * *', '{"kind": "noop"}')""")
    assert queue.next_due()[0] == timedelta(0)

    tick(queue)

    assert (only(queue).next_at, keys(db)) == (MIDNIGHT + 2 * HOUR, [])


# --- occurrences -------------------------------------------------------------------------------


def test_an_occurrence_brings_one_job(queue, db, clock, types):
    """At its instant and not a microsecond before; the job knows which one it is."""
    queue.add_schedule(
        "nightly", "0 2 * * *", {"kind": "noop", "payload": {"a": 1}, "agent": "claude"}
    )
    clock.advance(2 * HOUR - timedelta(microseconds=1))
    tick(queue)
    assert keys(db) == []
    clock.advance(timedelta(microseconds=1))

    tick(queue)
    tick(queue)

    [number] = [row[0] for row in db.execute("select id from moonmind_queue.job").fetchall()]
    job = queue.get(number)
    assert (job.key, job.name) == ("schedule/nightly/2026-01-01T02:00:00Z", "nightly")
    assert (job.agent, job.payload, job.state) == ("claude", {"a": 1}, "queued")
    assert job.run_at == MIDNIGHT + 2 * HOUR
    assert types(queue, number) == ["created", "scheduled"]
    assert queue.history(number)[1].data == {
        "schedule": "nightly",
        "occurrence": "2026-01-01T02:00:00Z",
    }
    schedule = only(queue)
    assert (schedule.next_at, schedule.last_at) == (MIDNIGHT + 26 * HOUR, MIDNIGHT + 2 * HOUR)
    assert schedule.last_job_id == number


def test_a_job_keeps_the_name_that_it_was_given(queue, db, clock):
    """Only without one it is called after its schedule."""
    queue.add_schedule("s", "* * * * *", {"kind": "noop", "name": "tidy up"})
    clock.advance(MINUTE)

    tick(queue)

    assert db.execute("select name from moonmind_queue.job").fetchall() == [("tidy up",)]


def test_the_instants_of_keys_are_in_utc_for_every_session(queue, db, clock):
    """A worker whose session lives elsewhere names an occurrence by the same key."""
    db.execute("set local timezone = 'Asia/Tokyo'")
    queue.add_schedule("s", "0 2 * * *", NOOP, timezone="Europe/Berlin")
    clock.advance(HOUR)

    tick(queue)

    assert keys(db) == ["2026-01-01T01:00:00Z"]


def test_a_holder_cannot_write_the_event_of_a_schedule(queue, clock):
    """The history can be believed: scheduled is a word of the queue."""
    queue.enqueue("k")
    [job] = queue.claim("w")

    with pytest.raises(InvalidArgument, match="lower-case word that the queue does not use"):
        queue.append_event(job, "scheduled")


@pytest.mark.parametrize(
    ("catch_up", "brought"),
    [
        ("skip", ["2026-01-01T04:00:00Z"]),
        ("once", ["2026-01-01T03:00:00Z", "2026-01-01T04:00:00Z"]),
        ("all", [f"2026-01-01T0{hour}:00:00Z" for hour in (1, 2, 3, 4)]),
    ],
)
def test_what_was_missed_is_caught_up_as_the_schedule_says(queue, db, clock, catch_up, brought):
    """Three occurrences were missed; the one that has just come is never left out."""
    queue.add_schedule("s", "0 * * * *", NOOP, catch_up=catch_up)
    clock.advance(4 * HOUR + timedelta(seconds=1))

    tick(queue)

    assert keys(db) == brought
    assert only(queue).next_at == MIDNIGHT + 5 * HOUR


@pytest.mark.parametrize(
    ("catch_up", "brought"), [("skip", 0), ("once", 1), ("all", 3)], ids=["skip", "once", "all"]
)
def test_nothing_but_missed_ones(queue, db, clock, catch_up, brought):
    """With nothing on time, skip brings nothing and once brings the latest."""
    queue.add_schedule("s", "0 * * * *", NOOP, catch_up=catch_up)
    clock.advance(3 * HOUR + 30 * MINUTE)

    tick(queue)

    assert keys(db) == [f"2026-01-01T0{hour}:00:00Z" for hour in (1, 2, 3)][3 - brought :]
    assert only(queue).next_at == MIDNIGHT + 4 * HOUR
    assert only(queue).last_at == (MIDNIGHT + 3 * HOUR if brought else None)


@pytest.mark.parametrize(("late", "brought"), [(60, 1), (60.000001, 0)])
def test_missed_is_more_than_a_minute_late(queue, db, clock, late, brought):
    """To the microsecond, by the clock of the database."""
    queue.add_schedule("s", "0 * * * *", NOOP, catch_up="skip")
    clock.advance(HOUR + timedelta(seconds=late))

    tick(queue)

    assert len(keys(db)) == brought


@pytest.mark.parametrize(
    ("catch_up", "brought"),
    [("skip", 2), ("once", 3), ("all", 251)],
)
def test_a_long_absence_takes_several_ticks_and_ends_the_same(queue, db, clock, catch_up, brought):
    """Piece by piece: once is still once, all loses none, and the time of the last is right."""
    queue.add_schedule("s", "* * * * *", NOOP, catch_up=catch_up)
    clock.advance(251 * MINUTE)

    tick(queue)
    after_one = len(keys(db))
    assert queue.next_due()[0] == timedelta(0)
    for _ in range(3):
        tick(queue)

    assert after_one == (100 if catch_up == "all" else 0)
    found = keys(db)
    assert len(found) == brought == len(set(found))
    assert only(queue).next_at == MIDNIGHT + 252 * MINUTE


def test_a_schedule_that_was_added_again_does_not_repeat_itself(queue, db, clock, types):
    """Removed and added within the minute: the key of the occurrence is taken."""
    clock.advance(-MINUTE)
    queue.add_schedule("s", "0 * * * *", NOOP)
    clock.advance(MINUTE)
    tick(queue)
    queue.remove_schedule("s")
    clock.advance(-MINUTE)
    queue.add_schedule("s", "0 * * * *", NOOP)
    clock.advance(MINUTE)

    tick(queue)

    assert keys(db) == ["2026-01-01T00:00:00Z"]
    [number] = [row["id"] for row in queue.select("select id from moonmind_queue.job_overview")]
    assert types(queue, number) == ["created", "scheduled"]
    assert (only(queue).next_at, only(queue).last_job_id) == (MIDNIGHT + HOUR, None)


def test_a_late_ticker_repeats_nothing_although_the_job_is_gone(queue, db, clock):
    """The key went with the pruned job; the schedule itself is further."""
    queue.add_schedule("s", "0 * * * *", NOOP)
    clock.advance(HOUR)
    [due] = queue.due_schedules()
    [number] = queue.run_schedule(due, [due.next_at], due.next_at + HOUR)
    queue.cancel(number)
    clock.advance(MINUTE)
    queue.prune(timedelta(0))

    assert queue.run_schedule(due, [due.next_at], due.next_at + HOUR) == []
    assert keys(db) == []


@pytest.mark.parametrize(
    "arguments",
    [
        "'{2026-01-01T01:00Z}', null",
        "null, '2026-01-01T02:00Z'",
        "'{2026-01-01T01:00Z}', '2026-01-01T01:00Z'",
        "'{2026-01-01T01:00Z,2026-01-01T00:30Z}', '2026-01-01T02:00Z'",
        "'{2026-01-01T01:00Z,null}', '2026-01-01T02:00Z'",
        "'{2026-01-01T01:00Z,2026-01-01T02:00Z}', '2026-01-01T03:00Z'",
        "array_fill(timestamptz '2026-01-01T01:00Z', array[1001]), '2026-01-01T03:00Z'",
    ],
)
def test_a_worker_cannot_make_occurrences_up(queue, db, clock, refused, picture, arguments):
    """Out of order, without a next, in the future or too many: 22023, and nothing is done."""
    queue.add_schedule("s", "0 * * * *", NOOP)
    clock.advance(HOUR)
    before = picture(db)

    with refused("22023", "occurrences that have come, in order, and the next one"):
        db.execute(f"select moonmind_queue.run_schedule('s', 1, {arguments})")

    assert picture(db) == before


# --- pausing, removing, by hand ----------------------------------------------------------------


def test_a_paused_schedule_brings_nothing_and_wakes_nobody(queue, db, clock):
    """It is not due; going on, what was missed is treated as it says."""
    queue.add_schedule("s", "0 * * * *", NOOP)
    queue.pause_schedule("s")
    clock.advance(3 * HOUR + 30 * MINUTE)

    tick(queue)
    assert (keys(db), queue.next_due()[0], only(queue).paused) == ([], None, True)
    queue.pause_schedule("s", paused=False)
    assert queue.next_due()[0] == timedelta(0)
    tick(queue)

    assert keys(db) == ["2026-01-01T03:00:00Z"]


def test_a_schedule_that_is_paused_under_a_tick_is_not_run(queue, db, clock):
    """What a worker computed before the pause is not enqueued after it."""
    queue.add_schedule("s", "0 * * * *", NOOP)
    clock.advance(HOUR)
    [due] = queue.due_schedules()
    queue.pause_schedule("s")

    assert queue.run_schedule(due, [due.next_at], due.next_at + HOUR) == []
    assert keys(db) == []


def test_a_schedule_that_changed_under_a_tick_is_not_moved(queue, db, clock):
    """What was computed from the old cron does not become the next time of the new one."""
    queue.add_schedule("s", "0 * * * *", NOOP)
    clock.advance(HOUR)
    [due] = queue.due_schedules()
    queue.add_schedule("s", "30 * * * *", NOOP)
    before = only(queue)

    assert queue.run_schedule(due, [due.next_at], due.next_at + HOUR) == []
    queue.defer_schedule(due, "too late to complain")

    assert only(queue) == before


def test_a_definition_that_changed_to_the_same_next_time_is_not_moved(queue, db, clock):
    """Only the revision tells: the operator's clock was read just before the occurrence came."""
    queue.add_schedule("s", "0 * * * *", NOOP)
    clock.advance(HOUR)
    [due] = queue.due_schedules()
    db.execute(
        "select moonmind_queue.add_schedule('s', '0 1 * * *', %s::jsonb, p_next_at => %s)",
        ['{"kind": "noop"}', due.next_at],
    )

    assert queue.run_schedule(due, [due.next_at], due.next_at + HOUR) == []
    tick(queue)

    assert keys(db) == ["2026-01-01T01:00:00Z"]
    assert only(queue).next_at == MIDNIGHT + 25 * HOUR


def test_removing_keeps_the_jobs(queue, db, clock):
    """A schedule that is gone brings nothing more; a worker that has just looked finds nothing."""
    queue.add_schedule("s", "0 * * * *", NOOP)
    clock.advance(HOUR)
    tick(queue)
    clock.advance(HOUR)
    [due] = queue.due_schedules()

    queue.remove_schedule("s")

    assert queue.run_schedule(due, [due.next_at], due.next_at + HOUR) == []
    assert (queue.schedules(), keys(db)) == ([], ["2026-01-01T01:00:00Z"])


def test_by_hand_comes_besides_the_occurrences(queue, db, clock, types):
    """Without a key, as often as one likes, also while it is paused; the next time stays."""
    queue.add_schedule("s", "0 * * * *", {"kind": "noop", "payload": {"a": 1}})
    queue.pause_schedule("s")
    before = only(queue)

    first, second = queue.run_schedule_now("s"), queue.run_schedule_now("s")

    assert first != second
    job = queue.get(second)
    assert (job.key, job.name, job.payload, job.state) == (None, "s", {"a": 1}, "queued")
    assert types(queue, second) == ["created", "scheduled"]
    assert queue.history(second)[1].data == {"schedule": "s"}
    after = only(queue)
    assert (after.next_at, after.last_at) == (before.next_at, None)
    assert after.last_job_id == second


@pytest.mark.parametrize("call", ["remove_schedule", "pause_schedule", "run_schedule_now"])
def test_what_is_not_there_is_named(queue, call):
    """ScheduleNotFound."""
    with pytest.raises(ScheduleNotFound, match='schedule "gone" does not exist'):
        getattr(queue, call)("gone")


# --- what cannot be run ------------------------------------------------------------------------


def test_a_schedule_that_somebody_broke_rests_and_says_why(queue, db, clock):
    """A cron that no worker can read neither stops the others nor keeps workers awake."""
    queue.add_schedule("a", "0 * * * *", NOOP)
    queue.add_schedule("b", "0 * * * *", NOOP)
    db.execute("update moonmind_queue.schedule set cron = '0 99 * * *' where name = 'a'")
    clock.advance(HOUR)

    tick(queue)

    broken, good = queue.schedules()
    assert "bad hour" in broken.error
    assert (good.error, good.last_at) == (None, MIDNIGHT + HOUR)
    assert queue.next_due(["nobody"])[0] == 5 * MINUTE
    assert queue.due_schedules() == []


def test_a_schedule_that_was_mended_catches_up(queue, db, clock):
    """Five minutes later a worker looks again: nothing was dropped, and the error is gone."""
    queue.add_schedule("s", "0 * * * *", NOOP)
    db.execute("update moonmind_queue.schedule set timezone = 'Mars/Olympus'")
    clock.advance(HOUR)
    tick(queue)
    assert "unknown time zone 'Mars/Olympus'" in only(queue).error
    db.execute("update moonmind_queue.schedule set timezone = 'UTC'")
    clock.advance(5 * MINUTE)

    tick(queue)

    assert (only(queue).error, keys(db)) == (None, ["2026-01-01T01:00:00Z"])


def test_a_job_that_can_no_longer_be_enqueued_is_shown(queue, db, clock):
    """A template that an upgrade made impossible stands in the view; the occurrence waits."""
    queue.add_schedule("s", "0 * * * *", NOOP)
    db.execute("""update moonmind_queue.schedule set job = '{"kind": "noop", "gone": 1}'""")
    clock.advance(HOUR)

    with db.transaction():
        [due] = queue.due_schedules()
        with pytest.raises(InvalidArgument, match="unknown name gone"), db.transaction():
            queue.run_schedule(due, [due.next_at], due.next_at + HOUR)
        queue.defer_schedule(due, "unknown name gone")

    assert (only(queue).error, only(queue).next_at) == ("unknown name gone", MIDNIGHT + HOUR)


def test_adding_anew_ends_the_rest(queue, db, clock):
    """Whoever mends a definition does not wait for the five minutes."""
    queue.add_schedule("s", "0 * * * *", NOOP)
    clock.advance(HOUR)
    [due] = queue.due_schedules()
    queue.defer_schedule(due, "no")
    assert queue.due_schedules() == []

    queue.add_schedule("s", "0 * * * *", {"kind": "noop", "priority": 1})

    assert [each.name for each in queue.due_schedules()] == ["s"]
    assert only(queue).error is None


# --- several at once ---------------------------------------------------------------------------


def hourly(here, clock_of, fresh, count=1):
    """Schedules whose occurrence has just come; returns that."""
    clock = clock_of(fresh)
    clock.freeze()
    for number in range(count):
        here.add_schedule(f"s{number}", "0 * * * *", NOOP)
    clock.advance(HOUR)
    return MIDNIGHT + HOUR


def test_sixteen_tickers_at_once_bring_one_job_each(here, session, threads, clock_of, fresh):
    """All have seen the same five due schedules before any of them runs one."""
    first = hourly(here, clock_of, fresh, count=5)
    tickers = [Queue(session(autocommit=True)) for _ in range(16)]
    seen = [ticker.due_schedules() for ticker in tickers]
    assert [len(due) for due in seen] == [5] * 16

    def run(ticker, due):
        return [job for each in due for job in ticker.run_schedule(each, [first], first + HOUR)]

    made = [job for jobs in threads.map(run, tickers, seen) for job in jobs]

    assert len(made) == len(set(made)) == 5
    assert {schedule.last_job_id for schedule in here.schedules()} == set(made)
    with here.connection.cursor() as cursor:
        assert cursor.execute("select count(*) from moonmind_queue.job").fetchone() == (5,)


def test_a_ticker_passes_over_a_schedule_in_anothers_hands(here, session, clock_of, fresh):
    """While one transaction runs it, another neither waits nor enqueues; after it, neither."""
    first = hourly(here, clock_of, fresh)
    [due] = here.due_schedules()
    other = session()
    [job] = Queue(other).run_schedule(due, [first], first + HOUR)

    assert here.run_schedule(due, [first], first + HOUR) == []
    here.defer_schedule(due, "must not wait either")
    other.commit()
    assert here.run_schedule(due, [first], first + HOUR) == []

    [schedule] = here.schedules()
    assert (schedule.last_job_id, schedule.error) == (job, None)


def test_a_tick_that_is_rolled_back_leaves_the_occurrence(here, session, clock_of, fresh):
    """A worker that dies between enqueueing and committing costs nothing: the next one does it."""
    first = hourly(here, clock_of, fresh)
    [due] = here.due_schedules()
    other = session()
    Queue(other).run_schedule(due, [first], first + HOUR)
    other.rollback()

    assert len(here.run_schedule(due, [first], first + HOUR)) == 1


@pytest.mark.parametrize("keeps", [True, False])
def test_removing_waits_for_a_tick_under_way(here, session, blocked, clock_of, fresh, keeps):
    """The job of that tick exists if it commits; after the removal none is made."""
    first = hourly(here, clock_of, fresh)
    [due] = here.due_schedules()
    other = session()
    Queue(other).run_schedule(due, [first], first + HOUR)

    removal = blocked(lambda queue: queue.remove_schedule("s0"))
    other.commit() if keeps else other.rollback()
    removal.result(10)

    assert here.schedules() == []
    assert here.run_schedule(due, [first], first + HOUR) == []
    with here.connection.cursor() as cursor:
        [count] = cursor.execute("select count(*) from moonmind_queue.job").fetchone()
    assert count == keeps


def test_a_tick_passes_over_a_schedule_that_is_being_removed(here, session, clock_of, fresh):
    """An operator's open transaction holds no worker up."""
    first = hourly(here, clock_of, fresh)
    [due] = here.due_schedules()
    other = session()
    Queue(other).remove_schedule("s0")

    assert here.run_schedule(due, [first], first + HOUR) == []
    other.rollback()
    assert len(here.run_schedule(due, [first], first + HOUR)) == 1


def test_two_deployments_at_once_add_one_schedule(here, session, blocked):
    """The second waits for the first and finds its own definition there."""
    other = session()
    Queue(other).add_schedule("s", "0 2 * * *", NOOP)
    late = blocked(lambda queue: queue.add_schedule("s", "0 2 * * *", NOOP))
    other.commit()

    assert late.result(10) == "unchanged"
    assert len(here.schedules()) == 1


def test_adding_and_going_on_wake_workers_and_trying_out_does_not(here, sleeper):
    """One notification for whoever dozes for its agent; the same definition again sends none."""
    listener = sleeper("claude")

    def heard(call):
        call()
        return listener.heard()

    def add():
        here.add_schedule("s", "0 2 * * *", {"kind": "noop", "agent": "claude"})

    assert heard(add) == ["claude"]
    assert heard(add) == []
    assert heard(lambda: here.pause_schedule("s")) == []
    assert heard(lambda: here.pause_schedule("s", paused=False)) == ["claude"]


# --- sleeping, roles, rows ---------------------------------------------------------------------


def test_an_idle_worker_sleeps_until_the_next_occurrence(queue, clock):
    """Whatever it may claim: anybody's tick will do."""
    queue.add_schedule("later", "0 5 * * *", NOOP)
    queue.add_schedule("sooner", "0 3 * * *", NOOP)

    assert queue.next_due(["nobody"])[0] == 3 * HOUR


def member(db, role):
    """Become a login user that is a member of one role."""
    db.execute(f"create role {role}_tick login in role {role}")
    db.execute(f"set session authorization {role}_tick")


def test_a_worker_ticks_and_may_not_add(queue, db, clock, refused):
    """Least privilege: who runs jobs does not decide what runs."""
    queue.add_schedule("s", "0 * * * *", NOOP)
    clock.advance(HOUR)
    member(db, "moonmind_worker")

    for call in (
        lambda: queue.add_schedule("t", "0 * * * *", NOOP),
        lambda: queue.remove_schedule("s"),
        lambda: queue.pause_schedule("s"),
        lambda: queue.run_schedule_now("s"),
    ):
        with pytest.raises(NotAllowed), db.transaction():
            call()
    tick(queue)

    assert keys(db) == ["2026-01-01T01:00:00Z"]
    [job] = queue.select("select id from moonmind_queue.job_overview")
    assert queue.history(job["id"])[1].worker == "moonmind_worker_tick"


def test_an_operator_adds_and_removes(queue, db, clock):
    """And pauses, and runs by hand; a producer may only look."""
    member(db, "moonmind_operator")
    queue.add_schedule("s", "0 * * * *", NOOP)
    queue.pause_schedule("s")
    queue.run_schedule_now("s")
    queue.remove_schedule("s")
    queue.add_schedule("s", "0 * * * *", NOOP)
    db.execute("reset session authorization")
    member(db, "moonmind_producer")

    assert only(queue).name == "s"
    with pytest.raises(NotAllowed):
        queue.add_schedule("t", "0 * * * *", NOOP)


@pytest.mark.parametrize(
    "change",
    [
        "name = 'a b'",
        "name = E'a\\x1b[31m'",
        "cron = '@daily'",
        "cron = '* * * * * *'",
        "cron = repeat('1', 200) || ' * * * *'",
        "timezone = ''",
        "job = '[]'",
        "catch_up = 'never'",
        "next_at = 'infinity'",
        "next_at = '-infinity'",
    ],
)
def test_a_schedule_cannot_be_nonsense(queue, db, refused, change):
    """23514 for whatever no function would write."""
    queue.add_schedule("s", "0 * * * *", NOOP)

    with refused("23514"):
        db.execute(f"update moonmind_queue.schedule set {change}")


def test_the_view_shows_the_job_as_it_was_given(queue, db, clock):
    """schedule_overview has what a person asks for."""
    job = {"kind": "noop", "payload": {"a": [1, {"b": None}]}, "capabilities": ["gpu"]}
    queue.add_schedule("s", "0 2 * * 1-5", job, timezone="Europe/Berlin", catch_up="skip")

    [row] = queue.select("select * from moonmind_queue.schedule_overview")

    assert row["job"] == job
    assert (row["cron"], row["timezone"], row["catch_up"]) == (
        "0 2 * * 1-5",
        "Europe/Berlin",
        "skip",
    )
