"""The worker in this process: how it wakes, what it reports, how it stops."""

import threading
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from itertools import pairwise, takewhile
from typing import Any

import psycopg
import pytest
from waiting import eventually

import moonmind_queue
from moonmind_queue import (
    Block,
    ClaimedJob,
    Context,
    Fail,
    InvalidArgument,
    Queue,
    Retry,
    Stopped,
    Unfit,
    Worker,
    WorkerUnfit,
    _keeper,
    worker,
)
from moonmind_queue._keeper import between_renewals
from moonmind_queue.executors.noop import Noop

HOUR = timedelta(hours=1)


class Handled(Noop):
    """An executor made of a function."""

    def __init__(self, run: Callable[[ClaimedJob, Context], Mapping[str, Any]]) -> None:
        self._function = run

    def run(self, job: ClaimedJob, context: Context) -> Mapping[str, Any]:
        """Call the function."""
        return self._function(job, context)


@pytest.fixture
def produce(fresh):
    """A client whose work is committed at once."""
    with moonmind_queue.connect(fresh) as queue:
        yield queue


def waits_for_stop(job, context):
    """Run until told to stop, as a well-behaved executor does."""
    context.stop.wait()
    raise Stopped("told to stop")


def test_a_notification_beats_the_poll(start, asleep, produce):
    """With a poll of an hour, an idle worker starts a new job at once."""
    start()
    asleep(1)

    job = produce.enqueue("noop")

    eventually(lambda: produce.get(job).state == "succeeded", within=2)


def test_a_committed_transaction_wakes_the_worker(start, asleep, fresh, look):
    """A job enqueued in a transaction starts when that commits, and not before."""
    start()
    asleep(1)
    with psycopg.connect(fresh) as connection:
        job = moonmind_queue.Queue(connection).enqueue("noop")
        assert look("select count(*) from moonmind_queue.job") == [0]
        connection.commit()

    eventually(
        lambda: look("select state from moonmind_queue.job where id = %s", job) == ["succeeded"], 2
    )


def test_a_last_dependency_wakes_the_worker(start, produce):
    """A dependent starts when its last need has succeeded, without a poll."""
    first = produce.enqueue("noop")
    second = produce.enqueue("noop", after=[first])

    start()

    eventually(lambda: produce.get(second).state == "succeeded", within=2)


def test_a_due_time_wakes_the_worker(start, listening, produce):
    """A job that becomes due by time starts then, without a notification or a poll."""
    start()
    eventually(listening)

    job = produce.enqueue("noop", run_at=datetime.now(UTC) + timedelta(seconds=0.5))

    eventually(lambda: produce.get(job).state == "succeeded", within=3)
    assert produce.get(job).started_at >= produce.get(job).run_at


def test_more_jobs_than_slots(start, produce):
    """A freed slot is filled at once; no more jobs run than there are slots."""
    together, most, lock = 0, 0, threading.Lock()

    def count(job, context):
        nonlocal together, most
        with lock:
            together += 1
            most = max(most, together)
        context.stop.wait(0.005)
        with lock:
            together -= 1
        return {}

    jobs = produce.enqueue_many([{"kind": "count"}] * 40)
    start({"count": Handled(count)}, slots=4)

    eventually(lambda: {produce.get(job).state for job in jobs} == {"succeeded"})
    assert most <= 4


@pytest.fixture
def calls(fresh, look):
    """Count calls of a SQL function from here on; sessions that begin later are counted."""
    with psycopg.connect(fresh, autocommit=True) as connection:
        connection.execute(
            f"alter database {connection.info.dbname} set track_functions = 'all'"  # type: ignore[arg-type]
        )
    count = "select coalesce(sum(calls), 0)::int from pg_stat_user_functions where funcname = %s"
    return lambda name: look(count, name)[0]


def test_a_full_worker_does_not_spin_on_what_it_cannot_take(start, produce, calls):
    """While every slot is busy, a job that is due costs no statement but the look for lost ones."""
    start({"wait": Handled(waits_for_stop)}, poll=timedelta(seconds=0.2))
    busy = produce.enqueue("wait")
    eventually(lambda: produce.get(busy).state == "running")
    produce.enqueue("wait", run_at=datetime.now(UTC) + timedelta(seconds=0.1))

    time.sleep(0.9)  # what is shown is that nothing happens

    produce.cancel(busy)
    eventually(lambda: produce.get(busy).state == "cancelled")
    eventually(lambda: calls("claim"))
    assert calls("next_due") + calls("reclaim") <= 10


def test_an_idle_worker_asks_once_a_poll(start, listening, calls, produce):
    """With nothing to do a worker claims about once a poll and does not spin in between."""
    running = start(poll=timedelta(seconds=0.25))
    eventually(listening)

    time.sleep(0.9)  # what is shown is that little happens

    running.stop()
    eventually(lambda: calls("see_worker"))
    assert calls("claim") <= 8


def test_the_poll_suffices_without_any_notification(start, produce, idle):
    """A worker that hears nothing still drains the queue: notifications are only hints."""
    start(poll=timedelta(seconds=0.1), listen_dsn="postgresql://nobody@127.0.0.1:1/none")
    idle(1)

    job = produce.enqueue("noop")

    eventually(lambda: produce.get(job).state == "succeeded")


def test_it_comes_back_after_every_connection_was_cut(start, listening, produce, look):
    """A worker whose sessions the server ends reconnects, listens again and goes on."""
    start()
    eventually(listening)
    look(
        "select pg_terminate_backend(pid) from pg_stat_activity"
        " where datname = current_database() and application_name like 'moonmind-queue %%'"
        " and pid <> pg_backend_pid()"
    )

    job = produce.enqueue("noop")

    eventually(lambda: produce.get(job).state == "succeeded")


def test_an_ending_that_meets_a_lost_connection_is_told_later(start, produce, look):
    """A result survives the loss of the connection that was to report it."""
    begun, go_on = threading.Event(), threading.Event()

    def work(job, context):
        begun.set()
        go_on.wait(10)
        return {"kept": True}

    job = produce.enqueue("work")
    start({"work": Handled(work)})
    begun.wait(10)
    look(
        "select pg_terminate_backend(pid) from pg_stat_activity"
        " where datname = current_database() and application_name = 'moonmind-queue worker'"
    )
    go_on.set()

    eventually(lambda: produce.get(job).state == "succeeded")
    assert produce.get(job).result == {"kept": True}


@pytest.mark.parametrize(
    ("raised", "state", "error"),
    [
        (Fail("no such repository"), "failed", "no such repository"),
        (Block("please log in"), "blocked", "please log in"),
        (Retry("try again", after=timedelta(hours=2)), "queued", "try again"),
        (ValueError("a bug"), "queued", "ValueError: a bug"),
        (SystemExit(3), "queued", "SystemExit: 3"),
        (ValueError("with a \0"), "queued", "ValueError: with a \N{REPLACEMENT CHARACTER}"),
        (Stopped("nobody asked"), "queued", "stopped by itself: nobody asked"),
    ],
)
def test_how_an_executor_ends_decides_the_state(start, produce, raised, state, error):
    """Each outcome an executor can raise leads to its state, with the reason kept."""

    def work(job, context):
        raise raised

    job = produce.enqueue("work")
    start({"work": Handled(work)})

    eventually(lambda: produce.get(job).error)
    assert (produce.get(job).state, produce.get(job).error) == (state, error)


def test_a_payload_that_its_kind_refuses_fails(start, produce, look):
    """A payload written by SQL, past the client's check, fails with the field's name."""
    [job] = look("""select moonmind_queue.enqueue('noop', '{"seconds": "many"}')""")

    start()

    eventually(lambda: produce.get(job).state == "failed")
    assert "noop: seconds: must be a number" in produce.get(job).error


def test_a_result_that_cannot_be_stored_fails(start, produce):
    """A result that is no JSON for PostgreSQL ends the job in words, and its neighbours well."""
    start({"bad": Handled(lambda *_: {"x": float("nan")}), "noop": Noop(0)}, slots=4)

    bad, good = produce.enqueue_many([{"kind": "bad"}, {"kind": "noop"}])

    eventually(
        lambda: produce.get(bad).state == "failed" and produce.get(good).state == "succeeded"
    )
    assert "the result cannot be stored" in produce.get(bad).error


def test_progress_and_artifacts_belong_to_the_attempt(start, produce):
    """What an executor tells and attaches stands in the history before the job ends."""

    def work(job, context):
        context.progress("half way", {"percent": 50})
        context.attach("notes/a.txt", b"hello\n", "text/plain")
        return {}

    job = produce.enqueue("work")
    start({"work": Handled(work)})
    eventually(lambda: produce.get(job).state == "succeeded")

    types = [event.type for event in produce.history(job)]
    assert types == ["created", "claimed", "started", "progress", "artifact", "completed"]
    [artifact] = produce.artifacts(job)
    assert b"".join(produce.read_artifact(artifact)) == b"hello\n"


def test_text_that_postgres_refuses_never_fails_a_job(start, produce):
    """NUL bytes and broken surrogates in messages and results are replaced, not raised."""

    def work(job, context):
        context.progress("a\0b \ud800", {"key\0": "\0"})
        return {"text": "x\0y"}

    job = produce.enqueue("work")
    start({"work": Handled(work)})

    eventually(lambda: produce.get(job).state == "succeeded")
    assert "progress" in [event.type for event in produce.history(job)]
    assert produce.get(job).result == {"text": "x\N{REPLACEMENT CHARACTER}y"}


def test_cancel_reaches_a_running_job_through_the_control_channel(start, listening, produce):
    """A cancelled job's executor is told at once, with a lease of two minutes."""
    start({"wait": Handled(waits_for_stop)})
    eventually(listening)
    job = produce.enqueue("wait")
    eventually(lambda: produce.get(job).state == "running")

    produce.cancel(job, "changed my mind")

    eventually(lambda: produce.get(job).state == "cancelled", within=2)
    assert produce.get(job).error == "changed my mind"


def test_cancel_reaches_a_running_job_through_renewal(start, produce):
    """Without notifications a cancelled job hears of it when its lease is renewed."""
    start(
        {"wait": Handled(waits_for_stop)},
        lease=timedelta(seconds=0.9),
        poll=timedelta(seconds=0.1),
        listen_dsn="postgresql://nobody@127.0.0.1:1/none",
    )
    job = produce.enqueue("wait")
    eventually(lambda: produce.get(job).state == "running")

    produce.cancel(job)

    eventually(lambda: produce.get(job).state == "cancelled")


def test_a_lost_lease_stops_the_work_and_its_result_is_refused(start, produce):
    """A worker whose job was taken away stops it; what the late attempt returns changes nothing."""

    def work(job, context):
        if job.attempt == 1:
            context.stop.wait(10)
        return {"attempt": job.attempt}

    job = produce.enqueue("work")
    start({"work": Handled(work)})
    eventually(lambda: produce.get(job).state == "running")

    produce.unlock(job, force=True)

    eventually(lambda: produce.get(job).state == "succeeded")
    assert produce.get(job).result == {"attempt": 2}
    types = [event.type for event in produce.history(job)]
    assert types == [
        *("created", "claimed", "started", "unlocked"),
        *("claimed", "started", "completed"),
    ]


def test_a_job_that_blocks_the_interpreter_keeps_its_lease(start, produce, look):
    """Renewal shares no thread with the work: a busy loop of three leases loses nothing."""
    lease = timedelta(seconds=1)

    def work(job, context):
        end = time.monotonic() + 3 * lease.total_seconds()
        while time.monotonic() < end:
            sum(range(1000))
        return {}

    job = produce.enqueue("work")
    start({"work": Handled(work)}, lease=lease)
    start({"work": Handled(work)}, lease=lease, name="rival")

    eventually(lambda: produce.get(job).state == "succeeded")
    types = [event.type for event in produce.history(job)]
    assert types == ["created", "claimed", "started", "completed"]


def test_renewal_comes_every_third_of_the_lease(start, produce, look):
    """A running job's lease is extended at about a third of its length."""
    start({"wait": Handled(waits_for_stop)}, lease=timedelta(seconds=1.5))
    job = produce.enqueue("wait")
    ends = set()

    def renewed_three_times():
        ends.update(look("select expires_at from moonmind_queue.lease where job_id = %s", job))
        return len(ends) >= 4

    eventually(renewed_three_times)
    gaps = [b - a for a, b in zip(sorted(ends), sorted(ends)[1:], strict=False)]
    assert all(timedelta(seconds=0.4) < gap < timedelta(seconds=0.9) for gap in gaps[1:])


def test_a_long_lease_can_be_renewed_as_often_as_one_likes(start, produce, look):
    """A tenth of the lease, as 60 s of 600 s are, and not the third that is the default."""
    lease, renew = timedelta(seconds=4), timedelta(seconds=0.4)
    start({"wait": Handled(waits_for_stop)}, lease=lease, renew=renew)
    job = produce.enqueue("wait")
    ends = set()

    def renewed_three_times():
        ends.update(look("select expires_at from moonmind_queue.lease where job_id = %s", job))
        return len(ends) >= 4

    eventually(renewed_three_times)
    gaps = [b - a for a, b in zip(sorted(ends), sorted(ends)[1:], strict=False)]
    assert all(renew * 0.75 < gap < lease / 4 for gap in gaps[1:])


@pytest.mark.parametrize(
    ("lease", "renew", "seconds"),
    [(120, None, 40), (600, 60, 60), (600, None, 60), (600, 200, 60), (1, None, 1 / 3), (3, 1, 1)],
)
def test_one_mechanism_renews_all_leases(lease, renew, seconds):
    """Every third of 120 s, every 60 s of 600 s; never less than once a minute."""
    renew = renew and timedelta(seconds=renew)

    assert between_renewals(timedelta(seconds=lease), renew) == pytest.approx(seconds, abs=1e-5)


@pytest.mark.parametrize("renew", [-1, 0, 60, 61, 120, 3600])
def test_a_renewal_that_leaves_no_second_try_is_refused(fresh, renew):
    """Of 120 s, from 60 s on: one that failed would not be repeated before the lease ends."""
    with pytest.raises(InvalidArgument, match=r"^renew: must be .* lease of 0:02:00, .* not "):
        Worker(fresh, {"noop": Noop(0)}, name="w", renew=timedelta(seconds=renew))


def test_a_worker_with_a_long_lease_is_still_seen(start, look, monkeypatch):
    """It gives a sign of life once a minute, here 0.1 s, though a third of its lease is longer."""
    monkeypatch.setattr(_keeper, "SIGN", 0.1)
    start(lease=HOUR)
    seen = set()

    def seen_four_times():
        seen.update(look("select seen_at from moonmind_queue.worker"))
        return len(seen) >= 4

    eventually(seen_four_times)


@pytest.fixture
def asked(monkeypatch):
    """When a worker of this process has asked what is due; what follows at once is left out."""
    times = []
    original = Queue.next_due

    def noted(self, *arguments):
        if not times or time.monotonic() - times[-1] > 0.06:
            times.append(time.monotonic())
        return original(self, *arguments)

    monkeypatch.setattr(Queue, "next_due", noted)
    return times


STEPS = [timedelta(seconds=0.1), timedelta(seconds=0.2), timedelta(seconds=0.6)]
LAST = 0.47  # seconds that the last wait has at least, for waits are varied by a fifth


def lengths(times):
    """How many waits were shorter than the last step, and the lengths of those that followed."""
    waits = [later - one for one, later in pairwise(times)]
    short = len([*takewhile(lambda wait: wait < LAST, waits)])
    return short, waits[short:]


def test_idle_waits_grow_and_the_last_is_repeated(start, asked):
    """What the database is asked becomes rarer, step by step, and then stays."""
    start(poll=STEPS, listen_dsn="none")

    eventually(lambda: len(lengths(asked)[1]) > 1)

    short, long = lengths(asked)
    assert short >= 2
    assert min(long) >= LAST


def test_a_claimed_job_resets_the_waits(start, produce, asked):
    """After work the worker looks soon again, and then more and more seldom as before."""
    start(poll=STEPS, listen_dsn="none")
    eventually(lambda: lengths(asked)[1])
    known = len(asked)

    job = produce.enqueue("noop")
    eventually(lambda: produce.get(job).state == "succeeded")

    eventually(lambda: lengths(asked[known:])[1])
    assert lengths(asked[known:])[0] >= 2


def test_a_notification_beats_every_step_of_the_poll(start, asleep, produce):
    """With LISTEN the waits are only the fallback, the first as well as those after it."""
    start(poll=[HOUR, 2 * HOUR, 3 * HOUR])

    for _ in range(3):
        asleep(1)
        job = produce.enqueue("noop")
        eventually(lambda job=job: produce.get(job).state == "succeeded", within=2)


@pytest.mark.parametrize("poll", [[], timedelta(0), [timedelta(seconds=1), timedelta(seconds=-1)]])
def test_a_poll_that_is_no_wait_is_refused(fresh, poll):
    """A worker without a fallback, or one that spins, cannot be made."""
    with pytest.raises(InvalidArgument, match=r"^poll: needs one or more waits longer than 0"):
        Worker(fresh, {"noop": Noop(0)}, name="w", poll=poll)


def test_stop_hands_running_jobs_back_with_their_attempt(start, produce):
    """A stopped worker releases what it runs: queued, attempt restored, one event says so."""
    running = start({"wait": Handled(waits_for_stop)}, slots=2)
    jobs = produce.enqueue_many([{"kind": "wait"}] * 2)
    eventually(lambda: {produce.get(job).state for job in jobs} == {"running"})

    running.stop()

    eventually(lambda: {produce.get(job).state for job in jobs} == {"queued"})
    assert [produce.get(job).attempt for job in jobs] == [0, 0]
    assert produce.history(jobs[0])[-1].type == "released"


def test_a_job_that_ignores_the_stop_is_handed_back_all_the_same(start, produce, monkeypatch):
    """When the grace is over the worker gives the job back and leaves; the fence does the rest."""
    monkeypatch.setattr(worker, "GRACE", 0.3)
    stubborn = threading.Event()
    job = produce.enqueue("deaf")
    running = start({"deaf": Handled(lambda *_: stubborn.wait(30) and {})})
    eventually(lambda: produce.get(job).state == "running")

    running.stop()

    eventually(lambda: produce.get(job).state == "queued")
    stubborn.set()


def test_run_once_does_at_most_one_claim(fresh, produce):
    """run_once() runs what one claim gives and returns; with nothing to do it says so."""
    produce.enqueue_many([{"kind": "noop"}] * 3)

    assert Worker(fresh, {"noop": Noop(0)}, name="w").run_once() is True
    assert [j for j in (1, 2, 3) if produce.get(j).state == "succeeded"] == [1]
    assert Worker(fresh, {"other": Noop(0)}, name="w").run_once() is False


def test_workers_are_listed_while_they_live(start, look):
    """A worker's row says live while it runs and stopped after it has ended."""
    running = start(name="registered")
    eventually(lambda: look("select status from moonmind_queue.worker_overview") == ["live"])

    running.stop()

    eventually(lambda: look("select status from moonmind_queue.worker_overview") == ["stopped"])
    assert look("select worker, kinds from moonmind_queue.worker") == [("registered", ["noop"])]


def test_a_frozen_renewal_stops_the_work_before_the_lease_can_be_taken(start, produce, fresh):
    """When renewals get no answer, the watchdog stops the job by the local clock alone."""
    stopped_at = []

    def work(job, context):
        context.stop.wait(10)
        stopped_at.append(time.monotonic())
        raise Stopped("told to stop")

    job = produce.enqueue("work")
    start({"work": Handled(work)}, lease=timedelta(seconds=1))
    with psycopg.connect(fresh) as lock:
        eventually(lambda: produce.get(job).state == "running")
        lock.execute("lock table moonmind_queue.lease in access exclusive mode")
        frozen_at = time.monotonic()
        eventually(lambda: stopped_at)
        lock.rollback()

    assert stopped_at[0] - frozen_at < 1.5


def test_a_worker_that_is_unfit_ends_and_leaves_the_rest_to_others(fresh, produce):
    """The job that showed it is blocked with the reason; the next is not touched."""

    def broken(job, context):
        raise Unfit("no such device")

    unfit = Worker(fresh, {"broken": Handled(broken)}, name="w")
    first, second = (produce.enqueue("broken") for _ in range(2))

    with pytest.raises(WorkerUnfit, match="no such device"):
        unfit.run()

    assert (produce.get(first).state, produce.get(first).error) == ("blocked", "no such device")
    assert (produce.get(second).state, produce.get(second).attempt) == ("queued", 0)
