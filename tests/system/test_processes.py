"""Worker processes: how they die, how they are stopped, and who goes on."""

import re
import signal
import subprocess
import sys
import time
from datetime import timedelta

import psycopg
import pytest
from psycopg.conninfo import make_conninfo
from waiting import eventually

import moonmind_queue
from moonmind_queue import LeaseLost

LONG = {"seconds": 60}


@pytest.fixture
def produce(fresh):
    """A client whose work is committed at once."""
    with moonmind_queue.connect(fresh) as queue:
        yield queue


def running(look, job: int) -> bool:
    """Say whether a worker runs the job."""
    return look("select state from moonmind_queue.job where id = %s", job) == ["running"]


CLAIMER = """
import sys
from moonmind_queue import connect

with connect(sys.argv[1], application_name="claimer") as queue:
    sys.stdin.readline()
    while jobs := queue.claim(sys.argv[2]):
        print(jobs[0].id)
"""


def test_sixteen_processes_claim_each_job_once(fresh, produce, look):
    """500 jobs and 16 processes that claim one by one: 500 claims, 500 different ids."""
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", CLAIMER, fresh, str(number)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for number in range(16)
    ]
    jobs = produce.enqueue_many([{"kind": "k"}] * 500)
    there = "select count(*) from pg_stat_activity where application_name = 'claimer'"
    eventually(lambda: look(f"{there} and datname = current_database()") == [16], within=60)
    for process in processes:
        process.stdin.write("\n")
        process.stdin.flush()

    claimed = [int(line) for process in processes for line in process.communicate()[0].split()]

    assert sorted(claimed) == jobs
    assert {process.returncode for process in processes} == {0}


def test_a_killed_workers_job_is_taken_over_soon_after_its_lease(spawn, produce, look):
    """After kill -9 another worker has the job within lease + 3 s, whatever its poll."""
    lease = 3
    first = spawn("--worker-id", "first", MOONMIND_LEASE_SECONDS=str(lease))
    job = produce.enqueue("noop", LONG)
    eventually(lambda: running(look, job))
    spawn("--worker-id", "second", MOONMIND_LEASE_SECONDS=str(lease))
    eventually(lambda: look("select 1 from moonmind_queue.worker where worker = 'second'"))

    first.send_signal(signal.SIGKILL)
    killed = time.monotonic()

    eventually(
        lambda: look("select 1 from moonmind_queue.lease where worker = 'second'"),
        within=lease + 3,
    )
    assert time.monotonic() - killed <= lease + 3
    types = [event.type for event in produce.history(job)]
    assert types == ["created", "claimed", "started", "expired", "claimed", "started"]


def test_late_writes_of_a_lost_lease_are_refused_also_under_the_same_worker_id(
    fresh, produce, look
):
    """The token, not the worker's name, decides: two processes with one id are told apart."""
    job = produce.enqueue("noop")
    [old] = produce.claim("same", lease=timedelta(milliseconds=1), start=True)
    eventually(lambda: produce.reclaim())
    produce.retry(job)  # the rest of one second is not what is shown here
    [new] = produce.claim("same", start=True)
    before = look(
        "select to_jsonb(j), to_jsonb(l) from moonmind_queue.job j, moonmind_queue.lease l"
    )

    for write in (
        lambda: produce.complete(old),
        lambda: produce.append_event(old, "progress", "late"),
        lambda: produce.put_artifact(old, "late.txt", b"late"),
    ):
        with pytest.raises(LeaseLost):
            write()
    assert produce.renew([old], timedelta(seconds=60)) == []

    after = look(
        "select to_jsonb(j), to_jsonb(l) from moonmind_queue.job j, moonmind_queue.lease l"
    )
    assert after == before
    produce.complete(new)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_hands_the_job_back_and_exits_with_zero(spawn, produce, look, number):
    """SIGINT and SIGTERM release what runs within ten seconds; the attempt does not count."""
    worker = spawn()
    job = produce.enqueue("noop", LONG)
    eventually(lambda: running(look, job))

    worker.send_signal(number)

    assert worker.wait(10) == 0
    assert (produce.get(job).state, produce.get(job).attempt) == ("queued", 0)


def test_a_restarted_worker_with_the_same_id_works_at_once(spawn, produce, look):
    """A new process under an old name claims without waiting for the old one's lease."""
    first = spawn("--worker-id", "same")
    stuck = produce.enqueue("noop", LONG)
    eventually(lambda: running(look, stuck))
    first.send_signal(signal.SIGKILL)
    first.wait()

    spawn("--worker-id", "same")
    job = produce.enqueue("noop", {"seconds": 0})

    eventually(lambda: produce.get(job).state == "succeeded", within=5)


def test_once_exits_with_zero_also_when_there_is_nothing(spawn):
    """--once with an empty queue says nothing is wrong."""
    assert spawn("--once").wait(15) == 0


@pytest.mark.parametrize(
    ("environment", "message"),
    [
        ({"DATABASE_URL": ""}, "DATABASE_URL is not set"),
        ({"MOONMIND_LEASE_SECONDS": "soon"}, "MOONMIND_LEASE_SECONDS"),
        ({"MOONMIND_POLL_INTERVAL_MS": "0"}, "MOONMIND_POLL_INTERVAL_MS"),
        ({"DATABASE_URL": "postgresql://u:hunter2secret@127.0.0.1:1/x"}, "connection failed"),
        ({"DATABASE_URL": "not a dsn hunter2secret"}, "DATABASE_URL is not a libpq URL or DSN"),
    ],
)
def test_a_start_that_cannot_work_says_why_in_one_line(spawn, tmp_path, environment, message):
    """Exit code 1 and one line on stderr; no traceback, no password."""
    worker = spawn(**environment)

    assert worker.wait(30) == 1
    said = (tmp_path / "worker-0.log").read_text()
    assert re.fullmatch(r"moonmind-codex-worker failed: .+\n", said)
    assert message in said
    assert "hunter2secret" not in said


def test_a_database_without_the_schema_is_refused_in_words(spawn, tmp_path, create_database):
    """The worker names the command that is missing, and claims nothing."""
    worker = spawn(DATABASE_URL=create_database())

    assert worker.wait(30) == 1
    said = (tmp_path / "worker-0.log").read_text()
    assert said == (
        "moonmind-codex-worker failed: the database has no queue yet; run: moonmind-queue migrate\n"
    )


def test_a_newer_schema_is_refused_in_words(spawn, tmp_path, fresh):
    """A worker does not touch a schema that it does not know."""
    with psycopg.connect(fresh) as connection:
        connection.execute("update moonmind_queue.alembic_version set version_num = '9999'")
    worker = spawn()

    assert worker.wait(30) == 1
    assert (
        "at schema revision 9999, this package knows only up to"
        in (tmp_path / "worker-0.log").read_text()
    )


def test_the_password_stands_in_no_process_title(spawn, fresh, look):
    """What ps shows of a worker has neither the database's URL nor its password."""
    worker = spawn()
    eventually(lambda: look("select 1 from moonmind_queue.worker"))

    shown = subprocess.run(
        ["ps", "-ww", "-o", "args=", "-p", str(worker.pid)],
        capture_output=True,
        text=True,
        check=True,
    )

    assert "moonmind-codex-worker" in shown.stdout
    assert fresh not in shown.stdout
    assert "postgresql://" not in shown.stdout


@pytest.fixture
def login(server, fresh):
    """The DSN of a login role that is a member of moonmind_worker and nothing else."""
    with psycopg.connect(server, autocommit=True) as admin:
        admin.execute("create role mq_test_worker login password 'right' in role moonmind_worker")
    yield make_conninfo(fresh, user="mq_test_worker", password="right")
    with psycopg.connect(server, autocommit=True) as admin:
        admin.execute("drop role mq_test_worker")


def test_a_worker_needs_no_more_than_its_role(spawn, produce, login):
    """As a member of moonmind_worker a whole worker process runs a job."""
    job = produce.enqueue("noop", {"seconds": 0})

    assert spawn("--once", DATABASE_URL=login).wait(20) == 0
    assert produce.get(job).state == "succeeded"


def test_a_wrong_password_is_refused_without_showing_it(spawn, tmp_path, login):
    """The worker says whose password failed, in one line and without the password."""
    worker = spawn(DATABASE_URL=make_conninfo(login, password="hunter2secret"))

    assert worker.wait(30) == 1
    said = (tmp_path / "worker-0.log").read_text()
    assert re.fullmatch(r"moonmind-codex-worker failed: .*mq_test_worker.*\n", said)
    assert "hunter2secret" not in said
