"""claim(): who gets which job, and what the lease then says."""

from datetime import timedelta

import pytest

from moonmind_queue import JobState

MICROSECOND = timedelta(microseconds=1)
MINUTE = timedelta(minutes=1)


def test_most_urgent_then_oldest_first(queue, clock):
    """Priority decides; age breaks ties."""
    old = queue.enqueue("k")
    clock.advance(MINUTE)
    young = queue.enqueue("k")
    urgent = queue.enqueue("k", priority=1)

    claimed = queue.claim("w", limit=10)

    assert [job.id for job in claimed] == [urgent, old, young]


def test_equals_come_in_the_order_of_their_ids(queue, clock):
    """At one priority and instant the lower id is first, also across agents and kinds."""
    ids = [queue.enqueue(kind, agent=agent) for agent in "ab" for kind in "kl"]

    claimed = [queue.claim("w")[0].id for _ in ids]

    assert claimed == ids


def test_a_lease_names_worker_attempt_and_end(queue, clock, db):
    """A claimed job carries what its holder needs, and the lease row says the same."""
    job = queue.enqueue("k", {"a": 1}, agent="claude", name="n", key="x", max_attempts=2)

    [held] = queue.claim("w", lease=MINUTE)

    assert (held.id, held.kind, held.agent, held.name, held.key) == (job, "k", "claude", "n", "x")
    assert (held.payload, held.attempt, held.max_attempts) == ({"a": 1}, 1, 2)
    assert held.expires_at == clock.now + MINUTE
    row = db.execute("select job_id, token, attempt, expires_at, worker from moonmind_queue.lease")
    assert row.fetchall() == [(job, held.token, 1, clock.now + MINUTE, "w")]
    assert queue.get(job).state == JobState.CLAIMED


def test_two_minutes_are_the_default_lease(queue, clock):
    """Who names no lease gets 120 s."""
    queue.enqueue("k")

    [held] = queue.claim("w")

    assert held.expires_at == clock.now + 2 * MINUTE


def test_a_claim_leaves_one_event(queue, clock, types):
    """`claimed` is written by the worker and tells attempt and end of the lease."""
    job = queue.enqueue("k")

    queue.claim("w")

    assert types(queue, job) == ["created", "claimed"]
    event = queue.history(job)[-1]
    assert (event.worker, event.data["attempt"]) == ("w", 1)


def test_with_start_the_job_runs_at_once(queue, clock, types):
    """`claimed` then `started` are written, and started_at is the instant of the claim."""
    job = queue.enqueue("k")

    queue.claim("w", start=True)

    assert types(queue, job) == ["created", "claimed", "started"]
    assert queue.get(job).state == JobState.RUNNING
    assert queue.get(job).started_at == clock.now


def test_nothing_to_do_is_an_empty_answer(queue):
    """An empty queue is no error."""
    assert queue.claim("w") == []


def test_a_job_is_claimable_at_its_instant_and_not_a_microsecond_before(queue, clock):
    """run_at is inclusive, to the microsecond."""
    job = queue.enqueue("k", run_at=clock.now + MINUTE)

    clock.advance(MINUTE - MICROSECOND)
    early = queue.claim("w")
    clock.advance(MICROSECOND)
    due = queue.claim("w")

    assert early == []
    assert [held.id for held in due] == [job]


def test_priority_decides_among_jobs_that_have_just_come_due(queue, clock):
    """What was scheduled is ordered like what was ready before."""
    low = queue.enqueue("k", run_at=clock.now + MINUTE)
    high = queue.enqueue("k", run_at=clock.now + 2 * MINUTE, priority=5)
    clock.advance(3 * MINUTE)

    assert [held.id for held in queue.claim("w", limit=5)] == [high, low]


@pytest.mark.parametrize(
    ("wanted", "found"),
    [
        ({}, 4),
        ({"agents": ["a"]}, 2),
        ({"kinds": ["k"]}, 2),
        ({"agents": ["a"], "kinds": ["l"]}, 1),
        ({"agents": ["c"]}, 0),
        ({"agents": []}, 0),
        ({"kinds": []}, 0),
    ],
)
def test_only_jobs_of_the_given_agents_and_kinds(queue, wanted, found):
    """A null list admits all; an empty one nobody."""
    for agent in "ab":
        for kind in "kl":
            queue.enqueue(kind, agent=agent)

    claimed = queue.claim("w", limit=10, **wanted)

    assert len(claimed) == found
    assert {job.agent for job in claimed} <= set(wanted.get("agents", "ab"))
    assert {job.kind for job in claimed} <= set(wanted.get("kinds", "kl"))


@pytest.mark.parametrize(
    ("required", "offered", "taken"),
    [
        ([], [], True),
        (["gpu"], [], False),
        (["gpu"], ["cpu"], False),
        (["GPU "], [" gpu"], True),
        (["gpu", "docker"], ["gpu"], False),
        (["docker", "gpu", "gpu"], ["gpu", "Docker", "x"], True),
        (["", " "], [], True),
    ],
)
def test_a_worker_offers_every_capability_that_a_job_requires(queue, required, offered, taken):
    """Case, blanks, order and repetition do not matter; a job without any is everybody's."""
    job = queue.enqueue("k", capabilities=required)

    claimed = queue.claim("w", capabilities=offered)

    assert bool(claimed) is taken
    assert queue.get(job).state == (JobState.CLAIMED if taken else JobState.QUEUED)


def test_tokens_are_new_at_every_claim(queue):
    """A token that was handed back is never given out again."""
    queue.enqueue("k", max_attempts=99)
    tokens = []
    for _ in range(5):
        [held] = queue.claim("w")
        tokens.append(held.token)
        queue.release(held)

    assert len(set(tokens)) == 5


def test_an_attempt_is_one_higher_at_every_claim(queue, clock):
    """attempt counts claims that were not handed back, from 1."""
    job = queue.enqueue("k", max_attempts=9)
    attempts = []
    for _ in range(3):
        [held] = queue.claim("w", start=True)
        attempts.append(held.attempt)
        queue.fail(held, "no", retry_in=timedelta(0))

    assert attempts == [1, 2, 3]
    assert queue.get(job).started_at == clock.now


def test_an_expired_lease_is_not_touched(queue, clock):
    """Taking leases back is reclaim(), not claim()."""
    queue.enqueue("k")
    queue.claim("w", lease=MINUTE)
    clock.advance(2 * MINUTE)

    assert queue.claim("w") == []


@pytest.mark.parametrize("worker", [None, "", "  ", "w" * 201])
def test_a_lease_needs_the_name_of_a_worker(queue, refused, worker):
    """Blank names belong to nobody, and a very long one could not be notified of a cancel."""
    with refused("22023", "needs a name of at most 200"):
        queue.claim(worker)


@pytest.mark.parametrize("limit", [0, -1, None])
def test_a_limit_below_one_is_refused(queue, refused, limit):
    """A claim that could take nothing is a caller's mistake."""
    with refused("22023", "limit"):
        queue.claim("w", limit=limit)


@pytest.mark.parametrize(
    "lease", [timedelta(0), -MINUTE, timedelta(days=1, microseconds=1), None], ids=str
)
def test_a_lease_is_longer_than_nothing_and_at_most_a_day(queue, refused, lease):
    """A lease that is lost at birth, or never, is refused."""
    with refused("22023", "lease"):
        queue.claim("w", lease=lease)


def test_a_claimed_job_keeps_the_payload_that_it_was_given(queue, db):
    """The holder's copy is of the moment of the claim."""
    queue.enqueue("k", {"n": 1})

    [held] = queue.claim("w")

    assert held.payload == {"n": 1}


def test_a_row_that_is_ready_by_mistake_is_never_claimed(queue, db):
    """The state in job has the last word, so that a stray row cannot stop a claim."""
    job = queue.enqueue("k")
    stray = db.execute("select * from moonmind_queue.ready").fetchone()
    queue.cancel(job)
    db.execute("insert into moonmind_queue.ready values (%s, %s, %s)", stray)
    good = queue.enqueue("k")

    assert [held.id for held in queue.claim("w", limit=9)] == [good]
