"""The queue against its model: whatever is called in whatever order, both do the same.

Hypothesis makes up sequences of calls by three workers, a producer and an operator, while time
moves and workers crash. After each call the answer, every row and every history are compared with
``model.py``, and ``invariants.py`` holds. A sequence that fails is shortened to the calls that
matter and printed as a program.

``MOONMIND_PROVE`` is the number of sequences. By default they are 500, the same in every run;
``make prove`` tries 20,000, other ones each time.

To teach it something new: a rule here, a method of the same name in the model, and, for what must
hold whatever is called, a line in ``invariants.py``.
"""

import os
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Any

import psycopg
import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from invariants import EMPTY, Row, broken, look
from model import ANYTHING, SCOPES, Job, Model

from moonmind_queue import ClaimedJob, Queue, QueueError
from moonmind_queue._ticker import tick

DEFAULT = 500
SEQUENCES = int(os.environ.get("MOONMIND_PROVE") or DEFAULT)
STEPS = 40
PARTS = max(1, SEQUENCES // 500)  # Hypothesis remembers all that it tried in one
ZERO, MINUTE = timedelta(0), timedelta(minutes=1)
SECONDS = [0, 0, 0, -5, 60]
NOBODY = 29
PICK = st.integers(0, 3) | st.integers(0, 30)  # counted from the newest
LATE = st.sampled_from([False, False, False, True])
PICKS = st.lists(st.tuples(PICK, LATE), max_size=4)
WORKER = st.sampled_from("uvw")
AGENTS = st.sampled_from([None] * 6 + [["codex"], ["claude", "codex"], []])
KINDS = st.sampled_from([None] * 6 + [["k"], ["l"], ["k", "l"]])
OFFERED = st.sampled_from([["gpu", "docker"]] * 4 + [["gpu"], []])
LIMIT = st.sampled_from([5, 5, 3, 2, 1, 1, 1, 0])
LEASE = st.sampled_from([10, 10, 60, 60, 300, 300, 0, 86_401]).map(lambda s: timedelta(seconds=s))
KEY = st.sampled_from("abcde")
REPOSITORY = "https://example.com/o/r"
SCHEDULE = st.sampled_from("st")
POLICY = st.sampled_from(
    [
        {},
        {"agents": ["claude"]},
        {"kinds": ["l"]},
        {"repositories": [REPOSITORY]},
        {"capabilities": ["gpu"]},
        {"workers": ["w"]},
        {"agents": ["codex"], "kinds": ["k"], "workers": ["u", "v"]},
    ]
)
REACHED = (  # what every 500 sequences must have come to, or they prove too little
    "claim", "start", "renew", "complete", "complete_many", "fail", "release", "crash", "reclaim",
    "jobs reclaimed", "cancel", "retry", "unlock", "prune", "enqueue", "enqueue_many",
    "append_event", "put_artifact", "complete LeaseLost", "fail LeaseLost", "release LeaseLost",
    "start LeaseLost", "append_event LeaseLost", "put_artifact LeaseLost", "cancel WrongState",
    "retry WrongState", "unlock WrongState", "enqueue InvalidArgument",
    "enqueue_many InvalidArgument", "fail InvalidArgument", "cancel JobNotFound",
    "pause", "resume", "cool_down", "cool_down LeaseLost", "set_limit", "set_timeout", "set_policy",
    "drop_policy", "NotAllowed", "add_schedule", "remove_schedule", "pause_schedule", "tick",
    "jobs scheduled", "run_schedule_now", "run_schedule_now ScheduleNotFound",
)  # fmt: skip
NEW = st.fixed_dictionaries(
    {
        "kind": st.sampled_from("kkl"),
        "agent": st.sampled_from(["codex", "codex", "claude"]),
        "priority": st.integers(-1, 2),
        "max_attempts": st.integers(1, 3),
        "capabilities": st.sampled_from([[], [], ["gpu"], ["docker", "gpu"]]),
        "concurrency_key": st.sampled_from([None, None, None, "a", "b"]),
        "payload": st.sampled_from([{}, {}, {"repository": REPOSITORY}]),
        "timeout": st.sampled_from([None, None, timedelta(seconds=90)]),
        "on_dependency_failure": st.sampled_from(["wait", "cancel", "run"]),
        "expires_at": st.sampled_from([None, None, None, 120]),  # seconds from now
    }
)


held = precondition(lambda self: self.held or self.late)


@dataclass
class Bench:
    """One database for all sequences, and what has been done on it."""

    connection: psycopg.Connection
    clock: Any
    calls: Counter[str] = field(default_factory=Counter)
    sequences: int = 0
    tokens: set[int] = field(default_factory=set)


class _Machine(RuleBasedStateMachine):
    """One sequence: an empty queue, its model, and what the workers remember of their leases."""

    def __init__(self, bench: Bench) -> None:
        super().__init__()
        self.bench, self.queue = bench, Queue(bench.connection)
        bench.sequences += 1
        bench.connection.execute(EMPTY)
        if (
            bench.sequences % 100 == 0
        ):  # or what is gone makes looks dear, which the model does not know
            bench.connection.execute("vacuum moonmind_queue.lease, moonmind_queue.ready")
        bench.connection.execute("reset moonmind_queue.floor; reset moonmind_queue.leases")
        bench.clock.freeze()
        self.model = Model(bench.clock.now, bench.connection.info.user)
        self.held: list[ClaimedJob] = []
        self.late: list[ClaimedJob] = []

    def call(self, name: str, *given: Any, **named: Any) -> Any:
        """Call the queue and the model alike; what they answer or raise must be the same."""
        return self.agree(
            name,
            lambda: getattr(self.queue, name)(*given, **named),
            lambda _: getattr(self.model, name)(*given, **named),
        )

    def agree(self, name: str, call: Callable[[], Any], foresee: Callable[[Any], Any]) -> Any:
        """The same, where the model needs to know what the database chose."""
        answer = _outcome(call)
        foreseen = _outcome(lambda: foresee(answer))
        assert answer == foreseen, f"{name}: the queue {answer}, the model {foreseen}"
        refused = isinstance(answer, type)
        self.bench.calls[f"{name} {answer.__name__}" if refused else name] += 1
        return None if refused else answer

    def job(self, pick: int) -> int:
        """A job's id, counted from the newest; now and then one that does not exist."""
        jobs = sorted(self.model.jobs, reverse=True)
        return jobs[pick % len(jobs)] if jobs and pick != NOBODY else 0

    def holder(self, pick: int, late: bool) -> ClaimedJob:
        """A lease that a worker remembers, or one that it gave up, lost or forgot in a crash."""
        known = self.late if (late and self.late) or not self.held else self.held
        job = known[-1 - pick % len(known)]
        return replace(job, id=0) if pick == NOBODY else job

    def give_up(self, jobs: list[ClaimedJob]) -> None:
        """The holders know that they hold these no more."""
        tokens = {job.token for job in jobs}
        self.late += [job for job in self.held if job.token in tokens]
        self.held = [job for job in self.held if job.token not in tokens]

    # --- produce ---------------------------------------------------------------------------

    @rule(
        given=NEW,
        key=st.none() | st.none() | KEY,
        delay=st.sampled_from(SECONDS),
        after=st.just([]) | st.lists(PICK, max_size=3),
    )
    def enqueue(self, given, key, delay, after):
        run_at = self.model.now + timedelta(seconds=delay)
        given = self.dated(given)
        given = {**given, "key": key, "run_at": run_at, "after": [self.job(pick) for pick in after]}
        self.agree(
            "enqueue",
            lambda: self.queue.enqueue(**given),
            lambda new_id: self.model.enqueue(new_id, **given),
        )

    @initialize(
        news=st.lists(st.tuples(NEW, st.lists(st.integers(0, 5), max_size=2)), max_size=6),
        workers=st.lists(WORKER, max_size=3),
    )
    def begin(self, news, workers):
        """Most sequences begin with some jobs, each after some before it, and with some leases."""
        given = [
            {**new, "key": f"{place}", "after": [f"{n}" for n in after if n < place]}
            for place, (new, after) in enumerate(news)
        ]
        self.enqueue_all(given)
        for worker in workers:
            self.claim_by(worker=worker, capabilities=["docker", "gpu"], lease=MINUTE)

    @rule(
        news=st.lists(st.tuples(NEW, st.none() | KEY, st.lists(KEY | PICK, max_size=2)), max_size=5)
    )
    def enqueue_many(self, news):
        """Keys of the call, of earlier calls and of nobody; circles too."""
        given = [
            {**new, "key": key, "after": [n if isinstance(n, str) else self.job(n) for n in after]}
            for new, key, after in news
        ]
        self.enqueue_all(given)

    def dated(self, given: dict[str, Any]) -> dict[str, Any]:
        """What is given, with instants for seconds."""
        after = given["expires_at"]
        return {**given, "expires_at": after and self.model.now + timedelta(seconds=after)}

    def enqueue_all(self, given: list[dict[str, Any]]) -> None:
        given = [self.dated(job) for job in given]
        self.agree(
            "enqueue_many",
            lambda: self.queue.enqueue_many(given),
            lambda new_ids: self.model.enqueue_many(_ids(new_ids, given), given),
        )

    # --- hold a lease ----------------------------------------------------------------------

    @rule(
        worker=WORKER, agents=AGENTS, kinds=KINDS, capabilities=OFFERED,
        limit=LIMIT, lease=LEASE, start=st.booleans(),
    )  # fmt: skip
    def claim(self, **given):
        """Of certain agents and kinds; now and then with a limit or a lease that is refused."""
        self.claim_by(**given)

    @rule(worker=WORKER, limit=LIMIT, start=st.booleans())
    def claim_anything(self, **given):
        """What is claimed more often than not: whatever is due."""
        self.claim_by(capabilities=["docker", "gpu"], lease=MINUTE, **given)

    def claim_by(self, **given: Any) -> None:
        claimed: list[ClaimedJob] = []

        def call() -> list[int]:
            claimed.extend(self.queue.claim(**given))
            return [job.id for job in claimed]

        newest = max(self.bench.tokens, default=0)
        self.agree("claim", call, lambda _: self.model.claim((j.token for j in claimed), **given))
        assert all(job.token > newest for job in claimed), "a token did not grow"
        assert [(j.attempt, j.expires_at) for j in claimed] == [
            (self.model.jobs[j.id].attempt, self.model.jobs[j.id].lease.expires_at) for j in claimed
        ]
        self.bench.tokens = {newest, *(job.token for job in claimed)}
        self.held += claimed
        self.bench.calls["jobs claimed"] += len(claimed)

    @held
    @rule(pick=PICK, late=LATE)
    def start(self, pick, late):
        self.call("start", self.holder(pick, late))

    @held
    @rule(picks=PICKS, lease=LEASE)
    def renew(self, picks, lease):
        self.call("renew", [self.holder(*pick) for pick in picks], lease)

    @held
    @rule(pick=PICK, late=LATE, result=st.sampled_from([{}, {"n": 1}]))
    def complete(self, pick, late, result):
        job = self.holder(pick, late)
        self.call("complete", job, result)
        self.give_up([job])

    @held
    @rule(picks=PICKS)
    def complete_many(self, picks):
        jobs = [self.holder(*pick) for pick in picks]
        self.call("complete_many", [(job, {}) for job in jobs])
        self.give_up(jobs)

    @held
    @rule(
        pick=PICK,
        late=LATE,
        outcome=st.sampled_from(["retry", "retry", "retry", "block", "fail", "explode"]),
        retry_in=st.sampled_from([None, None, ZERO, MINUTE, -MINUTE]),
    )
    def fail(self, pick, late, **given):
        job = self.holder(pick, late)
        if self.call("fail", job, "no", **given):
            self.give_up([job])

    @held
    @rule(pick=PICK, late=LATE)
    def release(self, pick, late):
        job = self.holder(pick, late)
        self.call("release", job)
        self.give_up([job])

    @held
    @rule(pick=PICK, late=LATE)
    def cool_down(self, pick, late):
        job = self.holder(pick, late)
        self.call("cool_down", job, MINUTE)
        self.give_up([job])

    @held
    @rule(pick=PICK, late=LATE, type=st.sampled_from(["progress", "progress", "completed"]))
    def append_event(self, pick, late, type):
        self.call("append_event", self.holder(pick, late), type)

    @held
    @rule(pick=PICK, late=LATE, content=st.sampled_from([b"", b"abc"]))
    def put_artifact(self, pick, late, content):
        self.call("put_artifact", self.holder(pick, late), "a", content)

    @precondition(lambda self: self.held)
    @rule(worker=WORKER)
    def crash(self, worker):
        """The worker is gone: its leases live on, and what it may still send comes late."""
        leases = [job.lease for job in self.model.jobs.values() if job.lease]
        tokens = {lease.token for lease in leases if lease.worker == worker}
        self.give_up([job for job in self.held if job.token in tokens])
        self.bench.calls["crash"] += 1

    # --- operate ---------------------------------------------------------------------------

    @rule(limit=st.sampled_from([1, 100]))
    def reclaim(self, limit):
        """Not every reclaim finds all that is lost."""
        self.reclaim_up_to(limit)

    @held
    @rule()
    def lose(self):
        """Nobody renews until the last lease has run out."""
        ends = [job.lease.expires_at for job in self.model.jobs.values() if job.lease]
        self.advance_by(max([*ends, self.model.now]) - self.model.now)
        self.reclaim_up_to(100)

    def reclaim_up_to(self, limit: int) -> None:
        self.bench.calls["jobs reclaimed"] += len(self.call("reclaim", limit))

    @rule(pick=PICK, reason=st.sampled_from([None, "enough"]))
    def cancel(self, pick, reason):
        self.call("cancel", self.job(pick), reason)

    @rule(pick=PICK)
    def retry(self, pick):
        self.call("retry", self.job(pick))

    @rule(pick=PICK, force=st.booleans())
    def unlock(self, pick, force):
        self.call("unlock", self.job(pick), force=force)

    @rule(minutes=st.sampled_from([0, 10]), limit=st.sampled_from([1, 3]))
    def prune(self, minutes, limit):
        self.call("prune", timedelta(minutes=minutes), limit)

    @rule(agent=st.sampled_from([None, "codex", "claude"]), seconds=st.sampled_from([None, 15, 90]))
    def pause(self, agent, seconds):
        """By a person, for a while or for good."""
        until = seconds and self.model.now + timedelta(seconds=seconds)
        self.agree(
            "pause",
            lambda: self.queue.pause(agent, None, until),
            lambda _: self.model.pause(agent, until),
        )

    @rule(agent=st.sampled_from([None, None, "codex", "claude"]))
    def resume(self, agent):
        """More often than there are pauses, so that most of a sequence has none."""
        self.call("resume", agent)

    @rule(
        scope=st.sampled_from(SCOPES),
        name=st.sampled_from(["*", "codex", "k", "a"]),
        most=st.sampled_from([None, None, 0, 1, 2]),
    )
    def set_limit(self, scope, name, most):
        """Of a name that has jobs, of all that have no limit of their own, or of nobody."""
        self.call("set_limit", scope, name, most)

    @rule(kind=st.sampled_from("*k"), seconds=st.sampled_from([None, 30, 300]))
    def set_timeout(self, kind, seconds):
        self.call("set_timeout", kind, seconds and timedelta(seconds=seconds))

    @held
    @rule(policy=POLICY)
    def set_policy(self, policy):
        """Narrowed or widened while jobs are held."""
        self.call("set_policy", self.bench.connection.info.user, **policy)

    @precondition(lambda self: self.model.policy is not ANYTHING)
    @rule()
    def drop_policy(self):
        """The login may do all again that its role may."""
        self.call("drop_policy", self.bench.connection.info.user)

    @rule(seconds=st.sampled_from([1, 15, 90, 700]))
    def advance(self, seconds):
        """Time moves; nothing else does."""
        self.advance_by(timedelta(seconds=seconds))

    def advance_by(self, by: timedelta) -> None:
        self.bench.clock.advance(by)
        self.model.now += by

    # --- be a worker -----------------------------------------------------------------------

    @rule(agents=AGENTS, kinds=KINDS, capabilities=OFFERED)
    def next_due(self, **given):
        self.call("next_due", **given)

    @rule(worker=WORKER, stopped=st.booleans())
    def see_worker(self, worker, stopped):
        """A worker process starts; it may also say that it ends."""
        about = {"agents": None, "kinds": None, "capabilities": [], "slots": 1}
        started = self.agree(
            "register_worker",
            lambda: self.queue.register_worker(worker, **about, host="h", pid=1, version="1"),
            lambda new_id: self.model.register_worker(new_id, worker),
        )
        if started:
            self.call("see_worker", started, stopped=stopped)

    # --- schedule --------------------------------------------------------------------------

    @rule(
        name=SCHEDULE,
        agent=st.sampled_from(["codex", "claude"]),
        catch_up=st.sampled_from(["skip", "once", "all"]),
    )
    def add_schedule(self, name, agent, catch_up):
        job = {"kind": "k", "agent": agent}
        self.call("add_schedule", name, "*/10 * * * *", job, catch_up=catch_up)

    @precondition(lambda self: self.model.schedules)
    @rule(name=SCHEDULE)
    def remove_schedule(self, name):
        self.call("remove_schedule", name)

    @precondition(lambda self: self.model.schedules)
    @rule(name=SCHEDULE, paused=st.booleans())
    def pause_schedule(self, name, paused):
        self.call("pause_schedule", name, paused)

    @precondition(lambda self: self.model.schedules)
    @rule(name=SCHEDULE)
    def run_schedule_now(self, name):
        self.agree(
            "run_schedule_now",
            lambda: self.queue.run_schedule_now(name),
            lambda new_id: self.model.run_schedule_now(new_id, name),
        )

    @precondition(lambda self: self.model.schedules)
    @rule(seconds=st.sampled_from([0, 600, 1500]))
    def tick(self, seconds):
        """What a worker does on a timer; now and then no worker was there for a while."""
        self.advance_by(timedelta(seconds=seconds))
        newest = max(self.model.jobs, default=0)

        def call() -> list[int]:
            tick(self.queue)
            query = "select id from job where id > %s order by id"
            return [job_id for (job_id,) in self.bench.connection.execute(query, [newest])]

        made = self.agree("tick", call, lambda new_ids: self.model.tick(iter(new_ids)))
        self.bench.calls["jobs scheduled"] += len(made)

    # --- after each step -------------------------------------------------------------------

    @invariant()
    def the_rows_are_as_foreseen(self):
        """Every job is there and as in the model, no other is; and nothing is broken."""
        rows, events = look(self.bench.connection)
        histories: dict[int, list[str]] = {}
        for job_id, type, *_ in events:
            histories.setdefault(job_id, []).append(type)

        foreseen = [job for _, job in sorted(self.model.jobs.items())]
        assert rows == [_row(job) for job in foreseen]
        assert histories == {job.id: job.history for job in foreseen}
        assert broken(self.bench.connection, rows, events) == []


def _outcome(call: Callable[[], Any]) -> Any:
    try:
        return call()
    except QueueError as error:
        return type(error)


def _ids(answer: Any, given: list[Any]) -> list[int]:
    """The ids that the queue gave; any will do where it refused, for the model must refuse too."""
    return answer if isinstance(answer, list) else [-1 - place for place in range(len(given))]


def _row(job: Job) -> Row:
    """The row that a job of the model stands for."""
    lease = job.lease
    return Row(
        job.id, job.state, job.attempt, job.run_at, "started" in job.history, job.finished_at,
        job.error, job.result, job.scheduled,
        *((lease.worker, lease.token, lease.expires_at, lease.cancel) if lease else [None] * 4),
        sorted(job.needs), job.on_dependency_failure,
    )  # fmt: skip


@pytest.mark.parametrize("part", range(1, PARTS + 1))
def test_the_queue_does_what_its_model_says(session, proving, clock_of, say, part):
    """After every call of every sequence: answers, rows, histories and invariants."""
    bench = Bench(session(), clock_of(proving))

    run_state_machine_as_test(
        lambda: _Machine(bench),
        settings=settings(
            max_examples=SEQUENCES // PARTS,
            stateful_step_count=STEPS,
            deadline=None,
            database=None,
            derandomize=SEQUENCES == DEFAULT,
            suppress_health_check=list(HealthCheck),
            phases=(Phase.generate, Phase.shrink),
            print_blob=True,
        ),
    )

    calls = bench.calls
    say(f"part {part}: {bench.sequences} sequences, {calls.total()} calls agree with the model")
    reached = {word for name in +calls for word in (name, name.rpartition(" ")[2])}
    assert set(REACHED) <= reached or SEQUENCES != DEFAULT, set(REACHED) - reached
