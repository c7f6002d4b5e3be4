"""A random walk: whatever is called in whatever order, the rows tell one and the same story."""

import random
from collections import Counter
from datetime import timedelta

import pytest

from moonmind_queue import Queue, QueueError

STEPS = 300
ZERO = timedelta(0)
FINAL = {"succeeded", "failed", "dead_letter", "cancelled"}
STATES_AFTER = {  # the last event that is the queue's own → the states it can have led to
    "created": {"queued", "waiting"},
    "waiting": {"waiting"},
    "ready": {"queued"},
    "claimed": {"claimed"},
    "started": {"running"},
    "completed": {"succeeded"},
    "failed": {"queued", "waiting", "failed"},
    "released": {"queued", "waiting"},
    "expired": {"queued", "waiting"},
    "unlocked": {"queued", "waiting"},
    "retried": {"queued", "waiting"},
    "cancelled": {"cancelled"},
    "blocked": {"blocked"},
    "dead_lettered": {"dead_letter"},
}
BROKEN = {
    "no row contradicts another": "select job_id from queue_fault",
    "what is ready is due": """
        select job_id from ready join job on job.id = job_id where run_at > _now()""",
    "events are numbered without gaps up to event_seq": """
        select job.id
        from job left join event on event.job_id = job.id
        group by job.id
        having (count(*), min(seq), max(seq)) is distinct from (event_seq::bigint, 1, event_seq)""",
    "no row outlives its job": """
        select job_id from (
            select job_id from event union all select job_id from artifact
            union all select job_id from dependency union all select needs_job_id from dependency
        ) as row where not exists (select from job where id = job_id)""",
    "attempts are bounded, but for those that an operator granted by unlock": """
        select id from job where attempt > max_attempts + (
            select count(*) from event where job_id = id and type = 'unlocked')""",
}
ALL_BROKEN = " union all ".join(
    f"select '{truth}', broken.* from ({query}) as broken" for truth, query in BROKEN.items()
)
LAST_EVENTS = """
select job.id, job.state, (
    select type from event where job_id = job.id and type = any (%s) order by seq desc limit 1
)
from job"""


class _Walk:
    """Random calls by three workers, one producer and one operator on one queue."""

    def __init__(self, db, clock, seed):
        self.db, self.clock, self.queue = db, clock, Queue(db)
        self.dice = random.Random(seed)  # noqa: S311
        self.held, self.old, self.tokens, self.final, self.done = [], [], set(), {}, Counter()

    def step(self):
        """Make one call; a refusal is an answer too."""
        name = self.dice.choice(
            ["enqueue"] * 3
            + ["enqueue_many", "claim", "claim", "claim", "start", "complete"]
            + ["complete", "complete_many", "fail", "fail", "release", "renew", "append_event"]
            + ["put_artifact", "reclaim", "cancel", "retry", "retry", "unlock", "prune", "advance"]
        )
        try:
            getattr(self, name)()
            self.done[name] += 1
        except (QueueError, IndexError) as error:
            self.done[type(error).__name__] += 1
        self.check(name)

    def job(self):
        rows = self.db.execute("select id from moonmind_queue.job order by id").fetchall()
        return self.dice.choice(rows)[0]

    def holder(self):
        """Usually a current holder, now and then a late one."""
        return self.dice.choice(self.held if self.dice.random() < 0.8 else self.old)

    def given_up(self, job):
        self.old.append(job)
        self.held = [other for other in self.held if other != job]

    def enqueue(self):
        known = [self.job() for _ in range(self.dice.choice([0, 0, 1, 2]))] if self.tokens else []
        self.queue.enqueue(
            self.dice.choice("kl"),
            agent=self.dice.choice(["codex", "claude"]),
            key=self.dice.choice([None, None, f"key {self.dice.randrange(9)}"]),
            priority=self.dice.randrange(3),
            run_at=self.clock.now + timedelta(seconds=self.dice.choice([-5, 0, 0, 60])),
            after=known,
            max_attempts=self.dice.choice([1, 2, 3]),
        )

    def enqueue_many(self):
        names = [f"{self.dice.random()}" for _ in range(4)]
        needs = [(0, 1), (1, 2), (0, 3), (2, 3)]
        jobs = [
            {"kind": "k", "key": name, "after": [names[p] for p, c in needs if c == i]}
            for i, name in enumerate(names)
        ]
        self.dice.shuffle(jobs)
        self.queue.enqueue_many(jobs)

    def claim(self):
        claimed = self.queue.claim(
            self.dice.choice(["u", "v", "w"]),
            agents=self.dice.choice([None, ["codex"], ["claude", "codex"]]),
            limit=self.dice.choice([1, 2, 5]),
            lease=timedelta(seconds=self.dice.choice([10, 60, 300])),
            start=self.dice.random() < 0.5,
        )
        unmet = self.db.execute(
            "select d.job_id from moonmind_queue.dependency d"
            " left join moonmind_queue.job need on need.id = d.needs_job_id"
            " where d.job_id = any(%s) and need.state is distinct from 'succeeded'",
            [[job.id for job in claimed]],
        ).fetchall()
        assert unmet == [], "claimed with a need that has not succeeded"
        assert self.tokens.isdisjoint(job.token for job in claimed), "a token came twice"
        self.tokens |= {job.token for job in claimed}
        self.held += claimed

    def start(self):
        self.queue.start(self.holder())

    def complete(self):
        job = self.holder()
        self.queue.complete(job, {"n": 1})
        self.given_up(job)

    def complete_many(self):
        jobs = self.held[:2] + self.old[:1]
        self.queue.complete_many([(job, {}) for job in jobs])
        for job in jobs:
            self.given_up(job)

    def fail(self):
        job = self.holder()
        outcome = self.dice.choice(["retry", "retry", "retry", "block", "fail"])
        self.queue.fail(job, "no", outcome=outcome, retry_in=self.dice.choice([None, ZERO]))
        self.given_up(job)

    def release(self):
        job = self.holder()
        self.queue.release(job)
        self.given_up(job)

    def renew(self):
        held = {job.token for job in self.held}
        renewed = self.queue.renew(self.held + self.old, timedelta(seconds=60))
        assert {row.token for row in renewed} <= held, "a late holder renewed"

    def append_event(self):
        self.queue.append_event(self.holder(), "progress", "on it")

    def put_artifact(self):
        self.queue.put_artifact(self.holder(), "a.txt", b"abc")

    def reclaim(self):
        lost = {row.job_id for row in self.queue.reclaim(self.dice.choice([1, 100]))}
        for job in [job for job in self.held if job.id in lost]:
            self.given_up(job)

    def cancel(self):
        self.queue.cancel(self.job())

    def retry(self):
        job = self.job()
        self.final.pop(job, None)
        self.queue.retry(job)

    def unlock(self):
        job_id = self.job()
        self.queue.unlock(job_id, force=True)
        for job in [job for job in self.held if job.id == job_id]:
            self.given_up(job)

    def prune(self):
        self.queue.prune(timedelta(minutes=10), self.dice.choice([1, 3]))

    def advance(self):
        self.clock.advance(timedelta(seconds=self.dice.choice([1, 15, 90, 700])))

    def check(self, name):
        """Assert what must always hold."""
        assert self.db.execute(ALL_BROKEN).fetchall() == [], f"after {name}"
        for job, state, last in self.db.execute(LAST_EVENTS, [list(STATES_AFTER)]).fetchall():
            assert state in STATES_AFTER[last], f"after {name}: job {job} is {state} by {last}"
            assert self.final.setdefault(job, state) == state or self.final[job] not in FINAL
            self.final[job] = state


@pytest.mark.parametrize("seed", range(20))
def test_random_calls_never_break_the_model(session, fresh, clock_of, seed):
    """After each of 300 calls every invariant holds, and late holders got nothing through."""
    db = session(autocommit=True)
    db.execute("set search_path = moonmind_queue")
    clock = clock_of(fresh)
    clock.freeze()
    walk = _Walk(db, clock, seed)

    for _ in range(STEPS):
        walk.step()

    for name in ("claim", "complete", "fail", "reclaim", "retry", "cancel", "LeaseLost"):
        assert walk.done[name], f"the walk never came to {name}: {walk.done}"
