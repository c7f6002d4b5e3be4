"""Many idle workers: each wake-up reaches somebody, and none of them is a storm."""

import threading
from datetime import timedelta

import psycopg
import pytest
from waiting import eventually

import moonmind_queue
from moonmind_queue import CoolDown, Postpone, Queue, Stopped, Worker
from moonmind_queue.executors.noop import Noop

WORKERS = 30
HOUR = timedelta(hours=1)


class Handled(Noop):
    """An executor made of a function."""

    def __init__(self, run):
        self._function = run

    def run(self, job, context):
        """Call the function."""
        return self._function(job, context)


@pytest.fixture
def produce(fresh):
    """A client whose work is committed at once."""
    with moonmind_queue.connect(fresh) as queue:
        yield queue


@pytest.fixture
def claims(monkeypatch):
    """How often any worker of this process has called claim()."""
    calls = []
    original = Queue.claim

    def counted(self, *arguments, **options):
        calls.append(threading.get_ident())
        return original(self, *arguments, **options)

    monkeypatch.setattr(Queue, "claim", counted)
    return calls


def test_one_job_for_thirty_idle_workers(start, produce, claims, asleep):
    """It costs about one claim a worker, not one a worker and look; then all sleep again."""
    for number in range(WORKERS):
        start({"noop": Noop(0)}, name=f"w{number}")
    asleep(WORKERS)
    claims.clear()

    job = produce.enqueue("noop")

    eventually(lambda: produce.get(job).state == "succeeded")
    asleep(WORKERS)
    assert len(claims) <= 40


def test_a_thousand_jobs_for_thirty_idle_workers(start, fresh, produce, look, asleep):
    """Made in one transaction, with one notification, they busy all workers within a second."""

    def busy(job, context):
        context.stop.wait()
        raise Stopped("told to stop")

    for number in range(WORKERS):
        start({"busy": Handled(busy)}, name=f"w{number}")
    asleep(WORKERS)

    with psycopg.connect(fresh) as connection:
        Queue(connection).enqueue_many([{"kind": "busy"}] * 1000)
        [[committing]] = connection.execute("select clock_timestamp()").fetchall()
        connection.commit()

    running = "select started_at from moonmind_queue.job where state = 'running'"
    eventually(lambda: len(look(running)) == WORKERS)
    assert max(look(running)) - committing < timedelta(seconds=1)


def test_a_job_that_is_committed_while_workers_fall_asleep(start, fresh, produce, asleep, look):
    """The producer saw nobody asleep and notified nobody; with a poll of an hour it still runs."""
    with psycopg.connect(fresh) as connection:
        job = Queue(connection).enqueue("noop")
        start()
        eventually(lambda: look("select count(*) from moonmind_queue.sleeper") == [1])
        connection.commit()

    eventually(lambda: produce.get(job).state == "succeeded", within=5)


def test_a_worker_that_is_woken_while_it_falls_asleep(start, produce, monkeypatch):
    """The notification comes before the answer of doze(); it falls asleep again all the same."""
    notified, doze, hear = [], Queue.doze, Worker._notified
    monkeypatch.setattr(Worker, "_notified", lambda worker: (hear(worker), notified.append(worker)))

    def beset(queue, worker_id):
        doze(queue, worker_id)
        monkeypatch.setattr(Queue, "doze", doze)
        before = len(notified)
        jobs.append(produce.enqueue("noop"))
        eventually(lambda: len(notified) > before)

    jobs = []
    monkeypatch.setattr(Queue, "doze", beset)
    start()
    eventually(lambda: jobs and produce.get(jobs[0]).state == "succeeded")

    jobs.append(produce.enqueue("noop"))

    eventually(lambda: produce.get(jobs[1]).state == "succeeded")


def test_a_full_worker_is_notified_once_at_most(start, produce, look, asleep):
    """Then it is no sleeper any more, until it has a slot free again."""
    ends = threading.Event()

    def busy(job, context):
        ends.wait()
        return {}

    start({"busy": Handled(busy)}, slots=2)
    asleep(1)
    jobs = [produce.enqueue("busy") for _ in range(2)]
    eventually(lambda: [produce.get(job).state for job in jobs] == ["running"] * 2)

    produce.enqueue("busy")

    assert look("select from moonmind_queue.sleeper") == []
    ends.set()
    asleep(1)


def test_jobs_that_a_job_asks_for_come_with_its_success(start, produce, look):
    """Fan-out in one transaction with the completion; a failed attempt leaves none behind."""

    def split(job, context):
        context.enqueue("noop", {"seconds": 0}, key="one", after=[job.id])
        context.enqueue("noop", {"seconds": 0}, after=["one"])
        if job.attempt == 1:
            raise RuntimeError("half way")
        return {"parts": 2}

    job = produce.enqueue("split")
    start({"split": Handled(split), "noop": Noop(0)})
    eventually(lambda: produce.get(job).attempt == 1 and produce.get(job).state == "queued")
    assert look("select count(*) from moonmind_queue.job") == [1]

    produce.retry(job)

    eventually(
        lambda: look("select state from moonmind_queue.job order by id") == ["succeeded"] * 3
    )
    assert look("select from_job_id, how from moonmind_queue.job_origin") == [(job, "job")] * 2


def test_jobs_that_cannot_be_added_fail_the_job_and_say_why(start, produce, look):
    """Nothing of the success is kept."""

    def bad(job, context):
        context.enqueue("noop", after=["nobody"])
        return {"done": True}

    job = produce.enqueue("bad")
    start({"bad": Handled(bad)})

    eventually(lambda: produce.get(job).state == "failed")
    assert "depends on unknown job nobody" in produce.get(job).error
    assert look("select count(*) from moonmind_queue.job") == [1]


def test_an_executor_can_let_its_agent_rest(start, produce, look):
    """CoolDown hands the job back and pauses the agent; the worker goes on with others."""
    rested = []

    def limited(job, context):
        rested.append(job.attempt)
        raise CoolDown("usage limit reached", lasting=HOUR)

    job = produce.enqueue("limited", agent="tired")
    start({"limited": Handled(limited), "noop": Noop(0)})
    eventually(lambda: look("select agent, reason from moonmind_queue.paused_agent"))
    other = produce.enqueue("noop", agent="fresh")
    eventually(lambda: produce.get(other).state == "succeeded")

    assert rested == [1]
    assert (produce.get(job).state, produce.get(job).attempt) == ("queued", 0)
    assert look("select agent, cause, reason from moonmind_queue.paused_agent") == [
        ("tired", "cooldown", "usage limit reached")
    ]


def test_an_executor_can_put_its_job_off(start, produce, look):
    """Postpone hands the job back until later, uncounted; the worker goes on with others."""
    tried = []

    def busy(job, context):
        tried.append(job.attempt)
        raise Postpone("the directory is in use", after=HOUR)

    job = produce.enqueue("busy", max_attempts=1)
    start({"busy": Handled(busy), "noop": Noop(0)})
    eventually(lambda: tried and produce.get(job).state == "queued")
    other = produce.enqueue("noop")
    eventually(lambda: produce.get(other).state == "succeeded")

    assert tried == [1]
    assert (produce.get(job).state, produce.get(job).attempt) == ("queued", 0)
    assert look(
        "select run_at > now() + interval '50 minutes' from moonmind_queue.job where id = 1"
    ) == [True]
    assert "the directory is in use" in {each.message for each in produce.history(job)}


def test_a_job_that_takes_too_long_is_stopped(start, produce):
    """The database takes it away, and its worker hears of it and stops the work."""
    stopped = threading.Event()

    def busy(job, context):
        context.stop.wait()
        stopped.set()
        raise Stopped("told to stop")

    start({"busy": Handled(busy)}, reclaim=timedelta(seconds=0.2))
    job = produce.enqueue("busy", timeout=timedelta(seconds=0.5), max_attempts=1)

    eventually(lambda: produce.get(job).state == "dead_letter")
    eventually(stopped.is_set)
    assert "took longer than its timeout" in produce.get(job).error


def test_the_worker_knows_itself_when_the_time_is_up(start, produce, look):
    """Nobody takes the job away while the agent is paused; the watchdog ends the work all the same.

    The renewals said how long the lease really holds.
    """
    stopped = threading.Event()

    def busy(job, context):
        context.stop.wait()
        stopped.set()
        raise Stopped("told to stop")

    start({"busy": Handled(busy)}, lease=timedelta(seconds=0.9))
    job = produce.enqueue("busy", timeout=timedelta(seconds=1.5))
    eventually(lambda: produce.get(job).state == "running")
    produce.pause()

    eventually(stopped.is_set, within=5)

    assert produce.get(job).state == "running"
    assert look("select type from moonmind_queue.event where type = 'timed_out'") == []
