"""What the queue ought to do, in plain Python and without a database: the other half of the proof.

Each method is a SQL function, with the arguments of the client's method of that name. It answers
as that must answer, raises what that must raise, and leaves the jobs as the rows must then be. What
only the database can choose, ids of new jobs and tokens of new leases, comes as the first argument.
Time is ``now``; the back-off has no jitter.

Where this model and ``sql/`` disagree, ``docs/states.md`` decides which of them is wrong.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from moonmind_queue import ClaimedJob, JobState, Reclaimed, Renewal
from moonmind_queue.errors import (
    InvalidArgument,
    JobNotFound,
    LeaseLost,
    NotAllowed,
    ScheduleNotFound,
    WrongState,
)

BACKOFF, BACKOFF_CAP, FIRST_LOSS = (
    timedelta(seconds=15),
    timedelta(seconds=600),
    timedelta(seconds=1),
)
ALIVE = timedelta(seconds=120)
HOUR = timedelta(hours=1)  # of waiting: as good as one level of priority
TIMEOUT = timedelta(hours=4)
MISSED = timedelta(seconds=60)  # an occurrence that nobody enqueued for longer than this
RHYTHM = timedelta(minutes=10)  # of every schedule here
SCOPES = ("agent", "kind", "concurrency_key")
FINAL = ("succeeded", "failed", "dead_letter", "cancelled")
HELD = ("claimed", "running")


@dataclass
class Lease:
    """Who has a job, by which token, until when; ``cancel`` is the reason to stop."""

    worker: str
    token: int
    expires_at: datetime
    deadline_at: datetime
    cancel: str | None = None


@dataclass
class Job:
    """One job, as given and as it stands, and the types of its events, oldest first."""

    id: int
    needs: frozenset[int]
    kind: str
    agent: str = "codex"
    key: str | None = None
    priority: int = 0
    run_at: datetime = datetime.min
    max_attempts: int = 3
    capabilities: Sequence[str] = ()
    concurrency_key: str | None = None
    payload: Mapping[str, Any] = field(default_factory=dict)
    timeout: timedelta | None = None
    expires_at: datetime | None = None
    on_dependency_failure: str = "wait"
    state: str = "queued"
    attempt: int = 0
    error: str | None = None
    result: Mapping[str, Any] | None = None
    lease: Lease | None = None
    finished_at: datetime | None = None
    scheduled: bool = False  # its time had not come when it was queued, and no claim moved it since
    losses: int = 0
    expiry_seen: bool = False  # its time to expire came while somebody had it
    history: list[str] = field(default_factory=lambda: ["created"])


@dataclass
class Policy:
    """What the login may claim and hold; ``None`` admits all."""

    agents: Sequence[str] | None = None
    kinds: Sequence[str] | None = None
    repositories: Sequence[str] | None = None
    capabilities: Sequence[str] | None = None
    workers: Sequence[str] | None = None


ANYTHING = Policy()


@dataclass
class Schedule:
    """What comes every ten minutes; no job is made while it is paused."""

    job: Mapping[str, Any]
    catch_up: str
    next_at: datetime
    paused: bool = False


class Model:
    """Jobs, workers, artifacts, schedules and the rules of one queue."""

    def __init__(self, now: datetime, operator: str) -> None:
        self.now, self.operator = now, operator
        self.jobs: dict[int, Job] = {}
        self.workers: dict[int, tuple[str, datetime, bool]] = {}  # name, seen at, stopped
        self.artifacts: dict[tuple[int, str], bytes] = {}
        self.pauses: dict[tuple[str, str], datetime | None] = {}  # agent and cause → until
        self.limits: dict[tuple[str, str], int] = {}  # scope and name → max_running
        self.timeouts: dict[str, timedelta] = {"*": TIMEOUT}
        self.policy = ANYTHING
        self.schedules: dict[str, Schedule] = {}

    # --- produce ---------------------------------------------------------------------------

    def enqueue(self, new_id: int, *, after: Sequence[int] = (), **given: Any) -> int:
        """One job, queued, or waiting while something that it needs has not succeeded."""
        if (known := self._by_key(given.get("key"))) is not None:
            return known
        if not set(after) <= set(self.jobs):
            raise InvalidArgument
        self._add(new_id, frozenset(after), given)
        self._cancel_doomed([new_id])
        return new_id

    def enqueue_many(self, new_ids: Sequence[int], jobs: Sequence[Mapping[str, Any]]) -> list[int]:
        """All or none; a key that exists, or stood earlier in the call, is that job."""
        keys = [job.get("key") for job in jobs]
        known = [self._by_key(key) for key in keys]
        first = [p if key is None else keys.index(key) for p, key in enumerate(keys)]
        made = [p for p in range(len(jobs)) if known[p] is None and first[p] == p]
        places = {keys[p]: p for p in made if keys[p] is not None}
        needs = {p: [self._need(need, places) for need in jobs[p].get("after", ())] for p in made}
        _refuse_circles({p: [need for new, need in needs[p] if new] for p in made})
        for p in sorted(made, key=lambda p: new_ids[p]):
            after = frozenset(new_ids[need] if new else need for new, need in needs[p])
            self._add(new_ids[p], after, {k: v for k, v in jobs[p].items() if k != "after"})
        self._cancel_doomed(new_ids[p] for p in made)
        return [new_ids[first[p]] if id is None else id for p, id in enumerate(known)]

    def _need(self, need: int | str, places: Mapping[str | None, int]) -> tuple[bool, int]:
        """Whether the call makes the job that is needed, and its place in the call, or its id."""
        if isinstance(need, str) and need in places:
            return True, places[need]
        known = self._by_key(need) if isinstance(need, str) else need
        if known not in self.jobs:
            raise InvalidArgument
        return False, known

    def _add(self, new_id: int, needs: frozenset[int], given: Mapping[str, Any]) -> None:
        job = self.jobs[new_id] = Job(new_id, needs, **given)
        self._queue(job, given.get("run_at") or self.now)

    def _cancel_doomed(self, new_ids: Iterable[int]) -> None:
        """New jobs that wished to be cancelled when one that they need had failed already."""
        for job in (self.jobs[new_id] for new_id in sorted(new_ids)):
            failed = [n for n in sorted(job.needs) if self.jobs[n].state in FINAL[1:]]
            if failed and job.state == "waiting" and job.on_dependency_failure == "cancel":
                self._end(job, "cancelled", self._doom(failed[0]))

    # --- hold a lease ----------------------------------------------------------------------

    def claim(
        self, tokens: Iterator[int], worker: str, *, agents: Sequence[str] | None = None,
        kinds: Sequence[str] | None = None, capabilities: Sequence[str] = (), limit: int = 1,
        lease: timedelta = timedelta(seconds=120), start: bool = False,
    ) -> list[int]:  # fmt: skip
        """The most urgent, then oldest, then first of the due jobs that this worker may take."""
        self._check_worker(worker)
        if limit < 1 or not timedelta(0) < lease <= timedelta(days=1):
            raise InvalidArgument
        self._check_asked(agents, kinds)
        due = [job for job in self._admitted(agents, kinds, capabilities)
               if job.state == "queued" and job.run_at <= self.now]  # fmt: skip
        for job in due:
            job.scheduled = False
        due = [job for job in due if not job.expires_at or job.expires_at > self.now]
        due.sort(key=lambda job: (job.run_at - job.priority * HOUR, job.id))
        taken = []
        for job in due:
            if len(taken) < limit and self._has_room(job):
                assert not self._waits(job)
                allowed = job.timeout or self.timeouts.get(job.kind, self.timeouts["*"])
                job.state, job.attempt = "running" if start else "claimed", job.attempt + 1
                ends = self.now + min(lease, allowed)
                job.lease = Lease(worker, next(tokens), ends, self.now + allowed)
                job.history += ["claimed", "started"] if start else ["claimed"]
                taken.append(job.id)
        return taken

    def start(self, held: ClaimedJob) -> None:
        """claimed becomes running; what runs goes on."""
        job, _ = self._held(held)
        if job.state == "claimed":
            job.state = "running"
            job.history.append("started")

    def renew(self, jobs: Sequence[ClaimedJob], lease: timedelta) -> list[Renewal]:
        """Those leases that are still held, and whether their holder should stop."""
        if not timedelta(0) < lease <= timedelta(days=1):
            raise InvalidArgument
        renewed = {}
        for held in sorted(jobs, key=lambda job: job.id):
            found = self._lease(held)
            if found and self._permits(self.jobs[held.id]):
                found.expires_at = min(self.now + lease, found.deadline_at)
                renewed[held.id] = Renewal(
                    job_id=held.id, token=held.token, expires_at=found.expires_at,
                    lasts=found.expires_at - self.now, cancel_requested=found.cancel is not None,
                )  # fmt: skip
        return list(renewed.values())

    def complete(self, held: ClaimedJob, result: Mapping[str, Any]) -> None:
        """Success, which dependents hear of; cancelled when that was asked for before."""
        self._held(held)
        self.complete_many([(held, result)])

    def complete_many(
        self, results: Iterable[tuple[ClaimedJob, Mapping[str, Any]]]
    ) -> dict[int, str]:
        """As complete(), but a lost lease is passed over."""
        ended: dict[int, str] = {}
        results = list(results)
        if not all(self._permits(self.jobs[held.id]) for held, _ in results if self._lease(held)):
            raise NotAllowed
        for held, result in results:
            if lease := self._lease(held):
                job = self.jobs[held.id]
                if job.state == "claimed":
                    job.history.append("started")
                job.result = result
                ended[job.id] = self._end(
                    job, "cancelled" if lease.cancel else "succeeded", lease.cancel
                )
        self._free()
        return ended

    def fail(
        self, held: ClaimedJob, error: str, *, outcome: str, retry_in: timedelta | None
    ) -> str:
        """Queued after a rest, dead_letter, blocked or failed; a cancel request wins."""
        job, lease = self._held(held)
        if outcome not in ("retry", "block", "fail") or (retry_in or timedelta(0)) < timedelta(0):
            raise InvalidArgument
        if lease.cancel:
            return self._end(job, "cancelled", lease.cancel)
        if outcome == "block":
            return self._end(job, "blocked", error)
        if outcome == "fail":
            return self._end(job, "failed", error)
        job.history.append("failed")
        job.error = error
        if job.attempt >= job.max_attempts:
            return self._end(job, "dead_letter", error)
        return self._queue(
            job, self.now + (_backoff(job.attempt) if retry_in is None else retry_in)
        )

    def release(self, held: ClaimedJob) -> None:
        """Queued again at its old place, as if it had not been claimed."""
        job, lease = self._held(held)
        if lease.cancel:
            self._end(job, "cancelled", lease.cancel)
        else:
            job.attempt -= 1
            job.history.append("released")
            self._queue(job, job.run_at)

    def cool_down(self, held: ClaimedJob, lasting: timedelta) -> datetime:
        """Handed back, and the agent rests; a longer rest that stands already stays."""
        job, _ = self._held(held)
        self.release(held)
        until = max(self.pauses.get((job.agent, "cooldown")) or self.now, self.now + lasting)
        self.pauses[job.agent, "cooldown"] = until
        return until

    def append_event(self, held: ClaimedJob, type: str) -> int:
        """The number of the event."""
        job, _ = self._held(held)
        if type in ("created", "completed", "cancelled"):
            raise InvalidArgument
        job.history.append(type)
        return len(job.history)

    def put_artifact(self, held: ClaimedJob, name: str, content: bytes) -> None:
        """Once per lease and name; the same bytes again change nothing."""
        job, _ = self._held(held)
        if (held.token, name) not in self.artifacts:
            self.artifacts[held.token, name] = content
            job.history.append("artifact")
        elif self.artifacts[held.token, name] != content:
            raise InvalidArgument

    # --- operate ---------------------------------------------------------------------------

    def reclaim(self, limit: int) -> list[Reclaimed]:
        """Take back what ran out or took too long, then cancel what has become pointless."""
        here = [j for j in self.jobs.values() if not self._paused(j.agent, "operator")]
        lost = sorted(
            (j for j in here if j.lease and j.lease.expires_at <= self.now), key=lambda j: j.id
        )[:limit]
        for job in lost:
            self._take_back(job)
        taken = [Reclaimed(job_id=job.id, state=JobState(job.state)) for job in lost]
        due = [j for j in here if self._expires(j)]
        for job in sorted(due, key=lambda j: (j.expires_at, j.id))[:limit]:
            if job.state in ("waiting", "queued", "blocked"):
                self._expire(job)
                taken.append(Reclaimed(job_id=job.id, state=JobState.CANCELLED))
            job.expiry_seen = True
        return taken

    def _take_back(self, job: Job) -> None:
        """Cancelled if asked for, dead_letter after the last attempt, else queued after a rest."""
        assert job.lease
        late = job.lease.deadline_at <= self.now
        why = f"the lease of {job.lease.worker} ran out"
        if late:
            why = f"attempt {job.attempt} took longer than its timeout"
        job.history.append("timed_out" if late else "expired")
        job.losses += not late
        if job.lease.cancel:
            self._end(job, "cancelled", job.lease.cancel)
        elif job.attempt >= job.max_attempts:
            self._end(job, "dead_letter", f"{why}, the last of {job.max_attempts}")
        else:
            job.error = why
            first = not late and job.losses == 1
            self._queue(job, self.now + (FIRST_LOSS if first else _backoff(job.attempt)))

    def pause(self, agent: str | None, until: datetime | None) -> None:
        """No job of the agent, or of any, is claimed."""
        self.pauses[agent or "*", "operator"] = until

    def resume(self, agent: str | None) -> bool:
        """Whether there was anything to end."""
        ended = [self.pauses.pop(key) for key in list(self.pauses) if key[0] == (agent or "*")]
        return any(until is None or until > self.now for until in ended)

    def set_limit(self, scope: str, name: str, max_running: int | None) -> None:
        """Limit how many are leased at once; what is leased already goes on."""
        if max_running is None:
            self.limits.pop((scope, name), None)
        elif max_running < 0:
            raise InvalidArgument
        else:
            self.limits[scope, name] = max_running

    def set_timeout(self, kind: str, timeout: timedelta | None) -> None:
        """For attempts that begin from now on; that of all kinds cannot be taken away."""
        if timeout is not None:
            self.timeouts[kind] = timeout
        elif kind == "*":
            raise InvalidArgument
        else:
            self.timeouts.pop(kind, None)

    def set_policy(self, _role: str, **given: Sequence[str] | None) -> None:
        """Of the login that calls all this; also for what it holds already."""
        self.policy = Policy(**given)

    def drop_policy(self, _role: str) -> bool:
        """Whether there was one."""
        had, self.policy = self.policy is not ANYTHING, ANYTHING
        return had

    def cancel(self, job_id: int, reason: str | None) -> str:
        """At once, or a request to the holder; of several requests the first one counts."""
        job = self._job(job_id)
        reason = reason or f"cancelled by {self.operator}"
        if job.state in ("succeeded", "failed", "dead_letter"):
            raise WrongState
        if job.lease:
            if not job.lease.cancel:
                job.lease.cancel = reason
                job.history.append("cancel_requested")
        elif job.state != "cancelled":
            self._end(job, "cancelled", reason)
        return job.state

    def retry(self, job_id: int) -> str:
        """Final or blocked: again, from the first attempt. Resting: now, the attempts kept."""
        job = self._job(job_id)
        if job.state in (*HELD, "waiting"):
            raise WrongState
        if job.state == "queued" and job.run_at <= self.now:
            return job.state
        if job.state != "queued":
            self._hold_dependents(job)
            job.attempt, job.result = 0, None
            if job.expires_at and job.expires_at <= self.now:
                job.expires_at = None
        job.losses = 0
        job.history.append("retried")
        return self._queue(job, self.now)

    def unlock(self, job_id: int, *, force: bool) -> str:
        """Take the lease away; from a worker that is alive only by force."""
        job = self._job(job_id)
        if not job.lease or (not force and self._alive(job.lease.worker)):
            raise WrongState
        job.history.append("unlocked")
        if job.lease.cancel:
            return self._end(job, "cancelled", job.lease.cancel)
        return self._queue(job, self.now)

    def prune(self, older_than: timedelta, limit: int) -> int:
        """Delete what ended before, from the ends of chains, each time those of lowest id."""
        total = 0
        while total < limit:
            needed = {need for job in self.jobs.values() for need in job.needs}
            gone = [job.id for job in self.jobs.values() if job.id not in needed and job.finished_at
                    and job.finished_at < self.now - older_than]  # fmt: skip
            for job_id in sorted(gone)[: limit - total]:
                del self.jobs[job_id]
                total += 1
            if not gone:
                break
        return total

    # --- be a worker -----------------------------------------------------------------------

    def next_due(
        self, agents: Sequence[str] | None, kinds: Sequence[str] | None, capabilities: Sequence[str]
    ) -> tuple[timedelta | None, None]:
        """How long until there is something to do for such a worker; 0 when there is now."""
        self._check_asked(agents, kinds)
        mine = [j for j in self._admitted(agents, kinds, capabilities) if self._has_room(j)]
        if any(job.state == "queued" and not job.scheduled for job in mine):
            return timedelta(0), None
        due = [job.run_at for job in mine if job.scheduled]
        here = [j for j in self.jobs.values() if not self._paused(j.agent, "operator")]
        due += [job.lease.expires_at for job in here if job.lease]
        due += [job.expires_at for job in here if job.expires_at and not job.expiry_seen]
        due += [until for (agent, _), until in self.pauses.items() if until and until > self.now
                and (agents is None or agent in ("*", *agents))]  # fmt: skip
        due += [schedule.next_at for schedule in self.schedules.values() if not schedule.paused]
        return (max(min(due) - self.now, timedelta(0)) if due else None), None

    def register_worker(self, new_id: int, name: str) -> int:
        """A process started."""
        self._check_worker(name)
        self.workers[new_id] = (name, self.now, False)
        return new_id

    def see_worker(self, worker_id: int, *, stopped: bool = False) -> bool:
        """A process lives, or ends; nobody asks it to."""
        name, *_ = self.workers[worker_id]
        self._check_worker(name)
        self.workers[worker_id] = (name, self.now, stopped)
        return False

    # --- schedule --------------------------------------------------------------------------

    def add_schedule(self, name: str, _cron: str, job: Mapping[str, Any], *, catch_up: str) -> str:
        """Every ten minutes from now; a changed one keeps its rhythm."""
        known = self.schedules.get(name)
        if not known:
            self.schedules[name] = Schedule(job, catch_up, _next_occurrence(self.now))
            return "created"
        if (known.job, known.catch_up) == (job, catch_up):
            return "unchanged"
        known.job, known.catch_up = job, catch_up
        return "updated"

    def remove_schedule(self, name: str) -> None:
        """Its jobs stay."""
        self._schedule(name)
        del self.schedules[name]

    def pause_schedule(self, name: str, paused: bool) -> None:
        """What comes meanwhile is missed."""
        self._schedule(name).paused = paused

    def run_schedule_now(self, new_id: int, name: str) -> int:
        """One job more than the clock brings."""
        self._add_scheduled(new_id, self._schedule(name), None)
        return new_id

    def tick(self, new_ids: Iterator[int]) -> list[int]:
        """One job for each occurrence; of those that were missed none, the latest or all."""
        made = []
        due = [(s.next_at, name) for name, s in self.schedules.items() if not s.paused]
        for next_at, name in sorted(due):
            schedule, come = self.schedules[name], []
            while next_at <= self.now:
                come.append(next_at)
                next_at += RHYTHM
            schedule.next_at = next_at
            missed = [at for at in come if at < self.now - MISSED]
            kept = {"skip": [], "once": missed[-1:], "all": missed}[schedule.catch_up]
            for at in kept + come[len(missed) :]:
                made.append(next(new_ids, 0))
                self._add_scheduled(made[-1], schedule, at)
        return made

    def _schedule(self, name: str) -> Schedule:
        if name not in self.schedules:
            raise ScheduleNotFound
        return self.schedules[name]

    def _add_scheduled(self, new_id: int, schedule: Schedule, at: datetime | None) -> None:
        self._add(new_id, frozenset(), {**schedule.job, "run_at": at})
        self.jobs[new_id].history.append("scheduled")

    # --- what the functions share ----------------------------------------------------------

    def _job(self, job_id: int) -> Job:
        if job_id not in self.jobs:
            raise JobNotFound
        return self.jobs[job_id]

    def _by_key(self, key: str | None) -> int | None:
        return next((j.id for j in self.jobs.values() if key is not None and j.key == key), None)

    def _lease(self, held: ClaimedJob) -> Lease | None:
        job = self.jobs.get(held.id)
        return job.lease if job and job.lease and job.lease.token == held.token else None

    def _held(self, held: ClaimedJob) -> tuple[Job, Lease]:
        job = self._job(held.id)
        if not (lease := self._lease(held)):
            raise LeaseLost
        if not self._permits(job):
            raise NotAllowed
        return job, lease

    def _check_worker(self, name: str) -> None:
        if self.policy.workers is not None and name not in self.policy.workers:
            raise NotAllowed

    def _check_asked(self, agents: Sequence[str] | None, kinds: Sequence[str] | None) -> None:
        """What is asked for must have something in common with what is allowed."""
        for asked, allowed in ((agents, self.policy.agents), (kinds, self.policy.kinds)):
            if asked is not None and allowed is not None and not set(asked) & set(allowed):
                raise NotAllowed

    def _permits(self, job: Job) -> bool:
        """Whether the policy admits the job, and its holder if it has one."""
        policy, repository = self.policy, job.payload.get("repository")
        return (
            (policy.agents is None or job.agent in policy.agents)
            and (policy.kinds is None or job.kind in policy.kinds)
            and (policy.capabilities is None or set(job.capabilities) <= set(policy.capabilities))
            and (policy.repositories is None or repository in policy.repositories)
            and (policy.workers is None or not job.lease or job.lease.worker in policy.workers)
        )

    def _has_room(self, job: Job) -> bool:
        """Whether the limits let one more job like this one be leased."""
        for scope in SCOPES:
            name = getattr(job, scope)
            most = self.limits.get((scope, name), self.limits.get((scope, "*")))
            leased = [j for j in self.jobs.values() if j.lease and getattr(j, scope) == name]
            if name and most is not None and len(leased) >= most:
                return False
        return True

    def _admitted(
        self, agents: Sequence[str] | None, kinds: Sequence[str] | None, capabilities: Sequence[str]
    ) -> list[Job]:
        return [
            job
            for job in self.jobs.values()
            if (agents is None or job.agent in agents)
            and (kinds is None or job.kind in kinds)
            and set(job.capabilities) <= set(capabilities)
            and self._permits(job)
            and not self._paused(job.agent)
        ]

    def _alive(self, worker: str) -> bool:
        return any(
            name == worker and not stopped and seen >= self.now - ALIVE
            for name, seen, stopped in self.workers.values()
        )

    def _waits(self, job: Job) -> bool:
        met = FINAL if job.on_dependency_failure == "run" else FINAL[:1]
        return any(self.jobs[need].state not in met for need in job.needs)

    def _paused(self, agent: str, cause: str | None = None) -> bool:
        return any(
            who in (agent, "*") and cause in (why, None) and (until is None or until > self.now)
            for (who, why), until in self.pauses.items()
        )

    def _expires(self, job: Job) -> bool:
        return bool(job.expires_at and job.expires_at <= self.now and not job.expiry_seen)

    def _expire(self, job: Job) -> str:
        assert job.expires_at
        return self._end(job, "cancelled", f"expired at {job.expires_at:%Y-%m-%d %H:%M:%S} UTC")

    def _doom(self, need: int) -> str:
        return f"needs job {need}, which is {self.jobs[need].state}"

    def _free(self) -> None:
        for job in self.jobs.values():
            if job.state == "waiting" and not self._waits(job):
                job.history.append("ready")
                job.state, job.scheduled = "queued", job.run_at > self.now

    def _queue(self, job: Job, run_at: datetime) -> str:
        job.state, job.run_at = "waiting" if self._waits(job) else "queued", run_at
        job.lease, job.finished_at = None, None
        job.scheduled = job.state == "queued" and run_at > self.now
        if job.expires_at and job.expires_at <= self.now:
            return self._expire(job)
        return job.state

    def _end(self, job: Job, state: str, error: str | None) -> str:
        job.state, job.error, job.lease, job.scheduled = state, error, None, False
        job.finished_at = self.now if state in FINAL else None
        job.history.append(
            {"succeeded": "completed", "dead_letter": "dead_lettered"}.get(state, state)
        )
        if state in FINAL[1:]:
            self._fail_dependents(job)
        return state

    def _fail_dependents(self, job: Job) -> None:
        """Those that wait and said cancel end too, with theirs; those that said run may be free."""
        doomed = [job]
        for ended in doomed:
            doomed += [
                other for other in self.jobs.values()
                if ended.id in other.needs and other not in doomed
                and other.state == "waiting" and other.on_dependency_failure == "cancel"
            ]  # fmt: skip
        ids = {each.id for each in doomed}
        for other in doomed[1:]:
            other.state, other.finished_at, other.lease = "cancelled", self.now, None
            other.history.append("cancelled")
        for other in doomed[1:]:
            other.error = self._doom(min(need for need in other.needs if need in ids))
        self._free()

    def _hold_dependents(self, job: Job) -> None:
        for other in self.jobs.values():
            counted = job.state == "succeeded" or (
                job.state in FINAL and other.on_dependency_failure == "run"
            )
            if counted and job.id in other.needs and other.state == "queued":
                other.history.append("waiting")
                other.state, other.scheduled = "waiting", False


def _backoff(attempt: int) -> timedelta:
    return min(BACKOFF * 2 ** (attempt - 1), BACKOFF_CAP)


def _next_occurrence(now: datetime) -> datetime:
    return now - (now - datetime(2000, 1, 1, tzinfo=UTC)) % RHYTHM + RHYTHM


def _refuse_circles(needs: dict[int, list[int]]) -> None:
    """Take away what needs nothing that is left, until nothing is left."""
    while needs:
        free = [job for job, wants in needs.items() if not set(wants) & set(needs)]
        if not free:
            raise InvalidArgument
        for job in free:
            del needs[job]
