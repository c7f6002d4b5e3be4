"""Workers run schedules: on time by the database's clock, once, and whatever is in the table."""

from datetime import UTC, datetime, timedelta

import psycopg
import pytest
from psycopg.conninfo import make_conninfo
from waiting import eventually

import moonmind_queue
from moonmind_queue import Worker
from moonmind_queue.executors.noop import Noop

HOUR = timedelta(hours=1)
NEVER = {"poll": HOUR, "reclaim": HOUR, "lease": HOUR}  # only what is due, or told, wakes it
NOOP = {"kind": "noop"}


@pytest.fixture
def produce(fresh):
    """A client whose work is committed at once."""
    with moonmind_queue.connect(fresh) as queue:
        yield queue


@pytest.fixture
def turn(fresh, clock_of, look):
    """Set the running clock of the database, and have sleeping workers ask how long they may."""
    clock = clock_of(fresh)

    def to(instant):
        clock.advance(instant - clock.now)
        look("select pg_notify('moonmind_queue', 'codex')")

    return to


def test_an_idle_worker_runs_an_occurrence_on_time(start, listening, produce, look, turn):
    """By the clock of the database, decades ahead of the worker's: not before, hardly after."""
    night = datetime(2051, 3, 26, 1, 0, tzinfo=UTC)  # 02:30 in Berlin, which that day has not
    turn(night - 12 * HOUR)
    produce.add_schedule("nightly", "30 2 * * *", NOOP, timezone="Europe/Berlin")
    start(**NEVER)
    eventually(listening)

    turn(night - timedelta(seconds=0.5))

    [(key, created, finished)] = eventually(
        lambda: look(
            "select key, created_at, finished_at from moonmind_queue.job where state = 'succeeded'"
        )
    )
    assert key == "schedule/nightly/2051-03-26T01:00:00Z"
    assert timedelta(0) <= created - night < timedelta(seconds=3)
    assert finished - night < timedelta(seconds=5)


def test_adding_a_schedule_wakes_a_worker_for_it(start, listening, produce, look):
    """A worker that sleeps for an hour computes what was added in SQL at once."""
    start(**NEVER)
    eventually(listening)

    look("""select moonmind_queue.add_schedule('s', '0 2 * * *', '{"kind": "noop"}')""")

    assert eventually(lambda: produce.schedules()[0].next_at, within=5)


def test_four_workers_run_an_occurrence_once(start, produce, look, turn):
    """All wake at the same instant; each of six schedules brings one job."""
    noon = datetime(2051, 1, 1, 12, tzinfo=UTC)
    turn(noon - HOUR / 2)
    for number in range(6):
        produce.add_schedule(f"s{number}", "0 * * * *", NOOP)
    for number in range(4):
        start(name=f"w{number}", **NEVER)
    listeners = (
        "select count(*) from pg_stat_activity where datname = current_database()"
        " and query = 'listen moonmind_queue_control' and state = 'idle'"
    )
    eventually(lambda: look(listeners) == [4])

    turn(noon - timedelta(seconds=0.3))

    done = "select count(*) from moonmind_queue.job where state = 'succeeded'"
    eventually(lambda: look(done) == [6])
    assert look("select count(*), count(distinct key) from moonmind_queue.job") == [(6, 6)]
    assert all(schedule.error is None for schedule in produce.schedules())


def test_a_worker_of_another_agent_does_for_it(start, produce, look, fresh, clock_of):
    """Whoever looks for lost leases runs schedules, too, whatever it may claim itself."""
    produce.add_schedule("s", "0 * * * *", {"kind": "noop", "agent": "claude"})
    clock_of(fresh).advance(HOUR)

    start(agents=["codex"], reclaim=timedelta(seconds=0.1))

    eventually(lambda: look("select agent from moonmind_queue.job") == ["claude"], within=5)


def test_one_look_is_enough(produce, look, fresh, clock_of):
    """run_once() runs what a schedule has just brought: cron itself can start the worker."""
    produce.add_schedule("s", "0 * * * *", NOOP)
    clock_of(fresh).advance(HOUR)

    assert Worker(fresh, {"noop": Noop(0)}, name="w").run_once() is True

    assert look("select state, started_at is not null from moonmind_queue.job") == [
        ("succeeded", True)
    ]


def test_a_broken_schedule_harms_neither_worker_nor_others(
    start, listening, produce, look, fresh, clock_of
):
    """Somebody's SQL put nonsense into the table: it is shown, and everything else goes on."""
    for name in ("bad-cron", "bad-zone", "bad-job", "good"):
        produce.add_schedule(name, "0 * * * *", NOOP)
    with psycopg.connect(fresh) as somebody:
        for name, change in {
            "bad-cron": "cron = 'a b c d e'",
            "bad-zone": "timezone = 'Mars/Olympus'",
            "bad-job": """job = '{"kind": " "}'""",
        }.items():
            somebody.execute(f"update moonmind_queue.schedule set {change} where name = %s", [name])
    clock_of(fresh).advance(HOUR)

    start(**NEVER)

    eventually(lambda: look("select name from moonmind_queue.job where state = 'succeeded'"))
    eventually(listening)
    errors = {each.name: each.error for each in produce.schedules()}
    assert "bad minute" in errors["bad-cron"]
    assert "Mars/Olympus" in errors["bad-zone"]
    assert "lane_kind_is_given" in errors["bad-job"]
    assert errors["good"] is None
    assert produce.next_due()[0] > timedelta(0)  # nothing keeps workers awake
    job = produce.enqueue("noop")
    eventually(lambda: produce.get(job).state == "succeeded", within=2)


def test_a_worker_without_rights_on_tables_runs_schedules(
    server, fresh, start, produce, look, clock_of
):
    """moonmind_worker is enough, also to put a broken one off."""
    produce.add_schedule("good", "0 * * * *", NOOP)
    produce.add_schedule("bad", "0 * * * *", NOOP)
    with psycopg.connect(fresh) as admin:
        admin.execute("update moonmind_queue.schedule set cron = 'a b c d e' where name = 'bad'")
    clock_of(fresh).advance(HOUR)
    with psycopg.connect(server, autocommit=True) as admin:
        admin.execute("create role mq_ticker login password 'x' in role moonmind_worker")
        try:
            dsn = make_conninfo(fresh, user="mq_ticker", password="x")
            assert Worker(dsn, {"noop": Noop(0)}, name="w").run_once() is True
        finally:
            admin.execute("drop role mq_ticker")

    assert look("select name, state from moonmind_queue.job") == [("good", "succeeded")]
    assert look("select error is not null from moonmind_queue.schedule order by name") == [
        True,
        False,
    ]


def test_removal_ends_it_for_a_sleeping_worker(start, listening, produce, look, turn):
    """A worker that slept until the occurrence wakes to nothing."""
    noon = datetime(2051, 1, 1, 12, tzinfo=UTC)
    turn(noon - HOUR / 2)
    produce.add_schedule("gone", "0 * * * *", NOOP)
    produce.add_schedule("stays", "0 * * * *", NOOP)
    start(**NEVER)
    eventually(listening)

    produce.remove_schedule("gone")
    turn(noon)

    eventually(lambda: look("select name from moonmind_queue.job where state = 'succeeded'"))
    assert look("select name from moonmind_queue.job") == ["stays"]
