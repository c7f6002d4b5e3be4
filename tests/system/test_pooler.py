"""Through a real PgBouncer in transaction pooling mode: everything but LISTEN works there.

The pooler gives each transaction the next of its four connections to the server (``through``), so
nothing that a session keeps to itself would be found again.
"""

import hashlib
import io
import json
import subprocess
import sys
import threading
from datetime import timedelta

import psycopg
import pytest
from pgbouncer import PgBouncer
from structlog.testing import capture_logs
from waiting import eventually

import moonmind_queue
from moonmind_queue import DatabaseUnavailable, LeaseLost, Queue, Stopped, WrongState, _hearing
from moonmind_queue._connection import pooled
from moonmind_queue.cli import main
from moonmind_queue.executors.noop import Noop

SOON = timedelta(seconds=0.1)
MINUTE = timedelta(minutes=1)
THROUGH_THE_POOL = """
select count(*) from pg_stat_activity
where datname = current_database() and pid <> pg_backend_pid()
and application_name <> 'moonmind-queue listen'
"""
LISTENING = """
select count(*) from pg_stat_activity where datname = current_database()
and (application_name = 'moonmind-queue listen' or query ilike 'listen%%')
"""
DATABASE = "(select oid from pg_database where datname = current_database())"
PREPARED = "select coalesce(array_agg(name), '{}') from pg_prepared_statements"


class Waits(Noop):
    """Runs until it is told to stop."""

    def run(self, job, context):
        """Wait for the stop."""
        context.stop.wait()
        raise Stopped("told to stop")


class Tells(Noop):
    """Says a lot and leaves a file."""

    def run(self, job, context):
        """Use the connections that the jobs of a worker share."""
        for number in range(8):
            context.progress("so far", {"number": number})
        context.attach("notes.txt", b"done\n", "text/plain")
        return {}


@pytest.fixture
def produce(through):
    """A client whose work is committed at once, through the pooler."""
    with moonmind_queue.connect(through) as queue:
        yield queue


@pytest.fixture
def run(through, monkeypatch, capsys):
    """Run moonmind-queue through the pooler and return what it printed."""

    def run(*arguments: str, database: str = through) -> str:
        with monkeypatch.context() as patch:
            patch.setenv("DATABASE_URL", database)
            patch.setattr(sys, "argv", ["moonmind-queue", *arguments])
            patch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO()))
            capsys.readouterr()
            with pytest.raises(SystemExit) as ended:
                main()
        said = capsys.readouterr()
        assert not ended.value.code, said.err
        return said.out

    return run


def test_the_pool_is_what_it_is_said_to_be(through):
    """Each transaction of one client meets another of four server processes."""
    with psycopg.connect(through, autocommit=True, prepare_threshold=None) as client:
        met = [client.execute("select pg_backend_pid()").fetchone() for _ in range(8)]

    assert len(set(met)) == 4
    assert met[:4] == met[4:]


def test_a_pooler_is_noticed_and_a_server_is_not_mistaken_for_one(fresh, through):
    """A pooler's process id is not the server's; that is how statements stay unprepared there."""
    for dsn, found in ((fresh, False), (through, True)):
        with moonmind_queue.connect(dsn) as queue:
            assert pooled(queue.connection) is found
            assert (queue.connection.prepare_threshold is None) is found


def test_the_whole_client_works(through, produce):
    """Two clients by turns, often enough for a driver to prepare: every call does what it does."""
    with moonmind_queue.connect(through) as worker:
        for number in range(7):
            first = produce.enqueue("noop", {"seconds": 0}, key=f"first {number}")
            second, third = produce.enqueue_many(
                [{"kind": "noop", "after": [first]}, {"kind": "noop", "name": "unwanted"}]
            )
            assert produce.cancel(third, "not this one") == "cancelled"
            [job] = worker.claim("w", kinds=["noop"])
            assert job.id == first
            worker.start(job)
            assert [lease.job_id for lease in worker.renew([job], MINUTE)] == [first]
            worker.append_event(job, "progress", "half way", data={"percent": 50})
            worker.complete(job, {"number": number})
            [job] = worker.claim("w", start=True)
            assert job.id == second
            assert worker.next_due()[0] > timedelta(0)
            assert worker.fail(job, "once more", retry_in=MINUTE) == "queued"
            assert produce.retry(second) == "queued"
            [job] = worker.claim("w", start=True)
            worker.release(job, "another time")
            [job] = worker.claim("w", start=True)
            assert produce.unlock(second, force=True) == "queued"
            with pytest.raises(LeaseLost):
                worker.complete(job)
            [job] = worker.claim("w", start=True)
            assert worker.complete_many([(job, {})]) == {second: "succeeded"}
            with pytest.raises(WrongState):
                produce.cancel(second)

            assert produce.get(first).result == {"number": number}
            assert [event.seq for event in produce.history(first)] == [1, 2, 3, 4, 5]
        assert worker.reclaim() == []
        assert produce.prune(timedelta(0)) == 21


def test_an_artifact_is_streamed_piece_by_piece(through, produce):
    """Each piece may go by another connection; the bytes come back as they went in."""
    content = bytes(range(256)) * 8 * 1024  # 2 MiB, four pieces
    produce.enqueue("noop")
    [job] = produce.claim("w", start=True)

    produce.put_artifact(job, "data.bin", content)

    [artifact] = produce.artifacts(job.id)
    assert artifact.sha256 == hashlib.sha256(content).hexdigest()
    assert b"".join(produce.read_artifact(artifact)) == content


def test_a_transaction_of_the_users_own_holds_its_jobs(through, look):
    """A job enqueued in a transaction exists exactly when that commits."""
    with psycopg.connect(through, prepare_threshold=None) as connection:
        Queue(connection).enqueue("noop", key="never")
        connection.rollback()
        for number in range(7):
            Queue(connection).enqueue("noop", key=f"kept {number}")
        assert look("select count(*) from moonmind_queue.job") == [0]
        connection.commit()

    assert look("select count(*), min(key) from moonmind_queue.job") == [(7, "kept 0")]


def test_nothing_is_left_on_the_servers_connections(through, produce, start, run):
    """Neither a prepared statement nor a setting of ours meets the next client of the pool."""
    start({"tell": Tells(0)}, dsn=through, poll=SOON, listen_dsn="none", slots=2)
    jobs = produce.enqueue_many([{"kind": "tell"}] * 8)
    eventually(lambda: {produce.get(job).state for job in jobs} == {"succeeded"})
    run("migrate")

    told = [[event.type for event in produce.history(job)].count("progress") for job in jobs]
    assert told == [8] * 8

    with psycopg.connect(through, autocommit=True, prepare_threshold=None) as client:
        for _ in range(4):
            assert client.execute(PREPARED).fetchone() == ([],)
            assert client.execute("show search_path").fetchone() == ('"$user", public',)


def test_the_command_line_works(run, produce, tmp_path):
    """Each command that reads or changes the queue does so through the pooler."""
    assert "job 1 is queued" in run("enqueue", "noop")
    run("enqueue", "noop", "--after", "1")
    [job] = produce.claim("w", start=True)
    produce.put_artifact(job, "logs/run.log", b"line\n", "text/plain")
    produce.register_worker(
        "w", agents=None, kinds=[], capabilities=[], slots=1, host="h", pid=1, version="0"
    )

    assert [row["id"] for row in json.loads(run("ls", "--json"))] == [2, 1]
    assert json.loads(run("show", "1", "--json"))["state"] == "running"
    assert run("logs", "1") == "line\n"
    assert run("artifacts", "get", "1", "logs/run.log") == "line\n"
    assert "logs/run.log" in run("artifacts", "ls", "1")
    assert run("unlock", "1", "--force") == "job 1 is queued\n"
    assert "w" in run("workers")
    assert run("cancel", "1") == "job 1 is cancelled\n"
    assert "cancelled" in run("events", "1", "-f")
    assert "blocked" in run("status", "--json")
    assert run("retry", "1") == "job 1 is queued\n"
    run("cancel", "2")
    assert "1 jobs deleted" in run("prune", "--older-than", "0s")


def test_migrate_works_from_many_machines_at_once(pooler, create_database):
    """Five processes and four connections: one schema, and no lock is left behind."""
    direct = create_database()
    dsn = pooler.dsn(direct)
    code = "import sys; from moonmind_queue import migrate; migrate.upgrade(sys.argv[1])"

    processes = [
        subprocess.Popen([sys.executable, "-c", code, dsn], stderr=subprocess.PIPE, text=True)
        for _ in range(5)
    ]

    assert [process.communicate(timeout=60)[1] for process in processes] == [""] * 5
    assert moonmind_queue.migrate.current(dsn) == moonmind_queue.migrate.head()
    with psycopg.connect(direct) as admin:
        assert admin.execute(
            "select count(*) from pg_locks where locktype = 'advisory'"
        ).fetchone()[0] in (0,)


def test_eight_workers_share_four_connections(pooler, fresh, through, produce, start, look):
    """More connections than the pool has: each job runs once, and the server sees four of them."""
    for number in range(8):
        start(dsn=through, listen_dsn=fresh, name=f"w{number}", slots=2)
    jobs = produce.enqueue_many([{"kind": "noop"}] * 200)
    most = 0

    def all_done():
        nonlocal most
        most = max(most, look(THROUGH_THE_POOL)[0])
        return look("select count(*) from moonmind_queue.job where state = 'succeeded'") == [200]

    eventually(all_done, within=60)
    pool = pooler.pools(fresh)
    assert pool["cl_active"] + pool["cl_waiting"] >= 16
    assert 1 < most <= 4
    claims = look("select job_id from moonmind_queue.event where type = 'claimed' order by 1")
    assert claims == jobs


def test_with_a_direct_connection_for_listen_a_job_starts_at_once(
    fresh, through, produce, start, listening
):
    """MOONMIND_LISTEN_DATABASE_URL hears what is said through the pooler, a poll of an hour off."""
    start(dsn=through, listen_dsn=fresh)
    eventually(listening)

    job = produce.enqueue("noop")

    eventually(lambda: produce.get(job).state == "succeeded", within=2)


def test_a_cancel_reaches_the_worker_at_once(fresh, through, produce, start, listening):
    """With a lease of two minutes the control channel, not renewal, brings the word."""
    start({"wait": Waits(0)}, dsn=through, listen_dsn=fresh)
    eventually(listening)
    job = produce.enqueue("wait")
    eventually(lambda: produce.get(job).state == "running")

    produce.cancel(job, "changed my mind")

    eventually(lambda: produce.get(job).state == "cancelled", within=2)


def test_poll_only_works_and_never_listens(through, spawn, produce, look, tmp_path):
    """A process that is told `none` says so, polls, hears of a cancel, and never listens."""
    worker = spawn(
        DATABASE_URL=through,
        MOONMIND_LISTEN_DATABASE_URL="None",
        MOONMIND_POLL_INTERVAL_MS="100",
        MOONMIND_LEASE_SECONDS="1",
    )
    short = produce.enqueue("noop", {"seconds": 0})
    eventually(lambda: produce.get(short).state == "succeeded")
    long = produce.enqueue("noop", {"seconds": 60})
    eventually(lambda: produce.get(long).state == "running")

    assert look(LISTENING) == [0]
    assert produce.cancel(long) == "running"

    eventually(lambda: produce.get(long).state == "cancelled")
    worker.terminate()
    assert worker.wait(10) == 0
    said = [json.loads(line) for line in (tmp_path / "worker-0.log").read_text().splitlines()]
    assert [line["event"] for line in said].count("listen.off") == 1
    assert not [line for line in said if line["level"] in ("warning", "error")]


def test_a_listener_behind_the_pooler_warns_once_and_polls(
    fresh, through, produce, start, monkeypatch
):
    """Without a direct connection the worker says what to do, once, and goes on by polling."""
    monkeypatch.setattr(_hearing, "PATIENCE", 0.2)
    with capture_logs() as said:
        running = start(dsn=through, poll=SOON)
        eventually(lambda: [line for line in said if line["event"] == "listen.deaf"])
        eventually(lambda: "listen" not in {thread.name for thread in threading.enumerate()})
        job = produce.enqueue("noop")
        eventually(lambda: produce.get(job).state == "succeeded")
        running.stop()
        eventually(lambda: [line for line in said if line["event"] == "worker.stopped"])

    [warning] = [line for line in said if line["log_level"] == "warning"]
    assert warning["event"] == "listen.deaf"
    assert "MOONMIND_LISTEN_DATABASE_URL" in warning["error"]


def test_in_session_pooling_the_listener_hears(pooler, server, fresh, start, listening):
    """A pooler that keeps a client's connection is no reason to warn, and wakes the worker."""
    with PgBouncer(server, size=20, mode="session") as sessions, capture_logs() as said:
        dsn = sessions.dsn(fresh)
        running = start(dsn=dsn)
        eventually(listening)
        with moonmind_queue.connect(dsn) as produce:
            for _ in range(5):
                job = produce.enqueue("noop")
                eventually(lambda job=job: produce.get(job).state == "succeeded", within=3)
        running.stop()
        eventually(lambda: [line for line in said if line["event"] == "worker.stopped"])

    assert not [line for line in said if line["log_level"] == "warning"]


def test_it_recovers_when_the_server_ends_the_pools_connections(
    fresh, through, produce, start, listening, look
):
    """Whatever the server cuts behind the pooler, the running job ends well and the next starts."""
    go_on = threading.Event()

    class Gated(Noop):
        def run(self, job, context):
            go_on.wait(10)
            context.progress("still here")
            return {}

    start({"gated": Gated(0)}, dsn=through, listen_dsn=fresh)
    eventually(listening)
    first = produce.enqueue("gated")
    eventually(lambda: look("select state from moonmind_queue.job") == ["running"])

    cut = look(
        "select pg_terminate_backend(pid) from pg_stat_activity"
        " where datname = current_database() and pid <> pg_backend_pid()"
    )
    go_on.set()

    def admitted():
        """Whoever comes while the pooler finds out is told to try again."""
        try:
            with moonmind_queue.connect(through):
                return True
        except DatabaseUnavailable:
            return False

    assert len(cut) > 1
    eventually(admitted)
    with moonmind_queue.connect(through) as again:
        eventually(lambda: again.get(first).state == "succeeded")
        second = again.enqueue("gated")
        eventually(lambda: again.get(second).state == "succeeded")
    assert look("select max(attempt) from moonmind_queue.job") == [1]
