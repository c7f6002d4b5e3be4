"""What a job may be like when two sessions call at once, and the calls that they make.

A scene is committed before the sessions begin. ``job`` is whom operators and producers name,
``held`` the leases that the sessions hold, or held once; ``child`` needs ``job``.
"""

from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import psycopg

from moonmind_queue import ClaimedJob, Queue

LONG = timedelta(minutes=5)
LOST = "update moonmind_queue.lease set expires_at = moonmind_queue._now() - interval '1 s'"
COME = """
with moment as materialized (select moonmind_queue._now() - interval '1 s' as run_at),
moved as (
    update moonmind_queue.job set run_at = moment.run_at,
        rank = moonmind_queue._rank(priority, moment.run_at)
    from moment where state = 'queued' returning id, job.run_at, rank
)
update moonmind_queue.scheduled set run_at = moved.run_at, rank = moved.rank
from moved where moved.id = job_id"""


@dataclass
class Scene:
    """The job that it is about, and the leases that the sessions hold or held."""

    job: int
    held: list[ClaimedJob]
    other: int | None = None  # a job whose id is higher

    def lease(self, session: int) -> ClaimedJob:
        """The lease of a session; they share the one that there is."""
        return self.held[session % len(self.held)]


def _claimed(queue: Queue, *, max_attempts: int = 3) -> Scene:
    """A job that runs, and a child that waits for it."""
    job = queue.enqueue("k", key="job", max_attempts=max_attempts)
    scene = Scene(job, queue.claim("w", start=True, lease=LONG))
    queue.enqueue("k", key="child", after=[job])
    return scene


def due(queue: Queue) -> Scene:
    """Queued again; its late holder does not know."""
    scene = _claimed(queue)
    queue.unlock(scene.job, force=True)
    return scene


def resting(queue: Queue) -> Scene:
    """Queued for later, after a failure."""
    scene = _claimed(queue)
    queue.fail(scene.held[0], "no")
    return scene


def promoted(queue: Queue) -> Scene:
    """Its time has come, and so has that of a more urgent one; no claim has moved them yet."""
    scene = _claimed(queue)
    queue.fail(scene.held[0], "no")
    queue.enqueue("k", key="urgent", priority=1, run_at=queue.get(scene.job).run_at)
    queue.connection.execute(COME)
    return scene


def held(queue: Queue) -> Scene:
    """Running under a lease."""
    return _claimed(queue)


def expired(queue: Queue) -> Scene:
    """Running under a lease that has run out."""
    scene = _claimed(queue)
    queue.connection.execute(LOST)
    return scene


def last_attempt(queue: Queue) -> Scene:
    """As expired, and there is no attempt left."""
    scene = _claimed(queue, max_attempts=1)
    queue.connection.execute(LOST)
    return scene


def asked(queue: Queue) -> Scene:
    """As expired, and its cancel was asked for."""
    scene = expired(queue)
    queue.cancel(scene.job, "enough")
    return scene


def parked(queue: Queue) -> Scene:
    """Blocked until a person acts."""
    scene = _claimed(queue)
    queue.fail(scene.held[0], "no", outcome="block")
    return scene


def dead(queue: Queue) -> Scene:
    """A dead letter, whose child waits."""
    scene = _claimed(queue, max_attempts=1)
    queue.fail(scene.held[0], "no")
    return scene


def succeeded(queue: Queue) -> Scene:
    """Done; its child can be claimed."""
    scene = _claimed(queue)
    queue.complete(scene.held[0])
    return scene


def joined(queue: Queue) -> Scene:
    """It waits for two jobs, each of which is held by a session."""
    parents = queue.enqueue_many([{"kind": "k", "key": "left"}, {"kind": "k", "key": "right"}])
    scene = Scene(queue.enqueue("k", key="job", after=parents), queue.claim("w", limit=2))
    queue.enqueue("k", key="child", after=[scene.job])
    return scene


def crossed(queue: Queue) -> Scene:
    """Two are held, and the id of the job that waits for the first lies between them."""
    left = queue.enqueue("k", key="left")
    job = queue.enqueue("k", key="job", after=[left])
    right = queue.enqueue("k", key="right")
    return Scene(job, queue.claim("w", limit=2), right)


SCENES: dict[str, Callable[[Queue], Scene]] = {
    scene.__name__: scene
    for scene in (
        due, resting, promoted, held, expired, last_attempt, asked, parked, dead, succeeded, joined,
        crossed,
    )
}  # fmt: skip

# What a call answers, in words that are the same in every database.
CALLS: dict[str, Callable[[Queue, Scene, int], Any]] = {
    "claim": lambda queue, scene, n: [job.key for job in queue.claim(f"worker {n}", lease=LONG)],
    "complete": lambda queue, scene, n: queue.complete(scene.lease(n)),
    "complete many": lambda queue, scene, n: len(
        queue.complete_many([(job, {}) for job in scene.held])
    ),
    "fail": lambda queue, scene, n: queue.fail(scene.lease(n), "no"),
    "renew": lambda queue, scene, n: [
        row.cancel_requested for row in queue.renew([scene.lease(n)], LONG)
    ],
    "release": lambda queue, scene, n: queue.release(scene.lease(n)),
    "cancel": lambda queue, scene, n: queue.cancel(scene.job, f"session {n}"),
    "reclaim": lambda queue, scene, n: [row.state for row in queue.reclaim()],
    "unlock": lambda queue, scene, n: queue.unlock(scene.job, force=True),
    "retry": lambda queue, scene, n: queue.retry(scene.job),
    "enqueue after": lambda queue, scene, n: bool(
        queue.enqueue("k", key=f"new {n}", after=[scene.job, scene.other or scene.job])
    ),
}
SKIPPERS = ("claim", "reclaim")  # what is locked is not there for them; the others wait

# Not calls: a row that some session has locked, so that whoever needs it stops half-way.
PINS = {
    "pin job": "select from job where key = 'job' for update",
    "pin child": "select from job where key = 'child' for update",
    "pin other": "select from job where key = 'right' for update",
    "pin lease": "select from lease for update",
    # Nobody locks a place but who has locked its job.
    "pin place": "select from job join ready on job_id = id for update",
}


PLACES = ("ready", "scheduled", "lease")
LOCKED = (
    "select key from job where id <> all (array(select id from job for update skip locked))"
    + (
        "".join(
            f" union select key from job join {place} on job_id = id where job_id <> all"
            f" (array(select job_id from {place} for update skip locked))"
            for place in PLACES
        )
    )
)
HIDE = """
with ready as (update ready set lane_id = - lane_id where job_id = any (%(jobs)s)),
    scheduled as (update scheduled set lane_id = - lane_id where job_id = any (%(jobs)s))
update lease set expires_at = expires_at + interval '99 years' where job_id = any (%(jobs)s)"""
SHOW = """
with ready as (update ready set lane_id = - lane_id where lane_id < 0),
    scheduled as (update scheduled set lane_id = - lane_id where lane_id < 0)
update lease set expires_at = expires_at - interval '99 years'
where expires_at > _now() + interval '9 years'"""


def call(name: str, queue: Queue, scene: Scene, session: int) -> Any:
    """Make a call, or pin a row."""
    if name in PINS:
        return queue.connection.execute(PINS[name]).rowcount > 0
    return CALLS[name](queue, scene, session)


def locked(connection: psycopg.Connection) -> frozenset[str]:
    """The keys of the jobs of which some session has locked a row."""
    return frozenset(key for (key,) in connection.execute(LOCKED))


@contextmanager
def hidden(connection: psycopg.Connection, keys: Collection[str]) -> Iterator[None]:
    """Let these jobs be where no claim and no reclaim looks."""
    if not keys:
        yield
        return
    jobs = connection.execute("select id from job where key = any (%s)", [[*keys]]).fetchall()
    connection.execute(HIDE, {"jobs": [job for (job,) in jobs]})
    yield
    connection.execute(SHOW)


PICTURE = """
select key, state::text, job.attempt, run_at, finished_at, error, result, unmet,
    lease.worker, lease.expires_at, cancel_reason, token = any (%s),
    exists (select from ready where job_id = job.id union all
            select from scheduled where job_id = job.id),
    array(select type || ' ' || coalesce(worker, '') from event
          where job_id = job.id order by seq),
    array(select need.key from dependency join job as need on need.id = needs_job_id
          where dependency.job_id = job.id order by 1)
from job left join lease on lease.job_id = job.id
order by key"""


def picture(connection: psycopg.Connection, scene: Scene) -> list[tuple[Any, ...]]:
    """All that the calls left behind, without the numbers that differ between databases."""
    return connection.execute(PICTURE, [[job.token for job in scene.held]]).fetchall()
