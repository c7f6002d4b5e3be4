"""unserved_lane: jobs that are due and that no live worker can run, with the reason."""

from datetime import timedelta

import pytest


@pytest.fixture
def register(queue):
    """Register a worker; what is given differs from one of codex, kind k, with a GPU."""

    def make(**options):
        return queue.register_worker(
            "w",
            **(
                {"agents": ["codex"], "kinds": ["k"], "capabilities": ["gpu"], "slots": 1}
                | {"host": "h", "pid": 1, "version": "1"}
                | options
            ),
        )

    return make


def reasons(db):
    """How many jobs, the oldest of them, and why."""
    return db.execute(
        "select jobs, oldest_job_id, reason from moonmind_queue.unserved_lane order by 2"
    ).fetchall()


def test_without_any_worker_all_are_unserved(queue, db):
    """Counted by what they ask for."""
    first = queue.enqueue("k")
    queue.enqueue("k")

    assert reasons(db) == [(2, first, "no live worker serves agent codex")]


@pytest.mark.parametrize(
    ("job", "reason"),
    [
        ({}, None),
        ({"capabilities": ["GPU"]}, None),
        ({"agent": "claude"}, "no live worker serves agent claude"),
        ({"kind": "l"}, "no live worker of agent codex runs kind l"),
        ({"capabilities": ["gpu", "arm"]}, "no live worker offers all of arm, gpu"),
    ],
)
def test_the_reason_is_the_first_thing_that_is_missing(queue, db, register, job, reason):
    """Agent, then kind, then capabilities."""
    register()
    made = queue.enqueue(**({"kind": "k"} | job))

    assert reasons(db) == ([(1, made, reason)] if reason else [])


def test_two_half_fitting_workers_do_not_make_a_whole_one(queue, db, register):
    """One serves the agent, the other the kind; neither can run the job."""
    register(agents=["codex"], kinds=["l"])
    register(agents=["claude"], kinds=["k"])
    queue.enqueue("k")

    assert [row[2] for row in reasons(db)] == ["no live worker of agent codex runs kind k"]


def test_a_worker_for_all_agents_serves_them(queue, db, register):
    """A null list."""
    register(agents=None)
    queue.enqueue("k", agent="whoever")

    assert reasons(db) == []


@pytest.mark.parametrize("gone", ["stopped", "stale"])
def test_workers_that_are_gone_do_not_count(queue, db, clock, register, gone):
    """Only live ones run anything."""
    worker = register()
    queue.enqueue("k")
    if gone == "stopped":
        queue.see_worker(worker, stopped=True)
    else:
        clock.advance(timedelta(minutes=3))

    assert len(reasons(db)) == 1


def test_a_policy_that_does_not_admit_it_is_a_reason(queue, db, register):
    """The worker's login may not run the job."""
    register()
    [user] = db.execute("select session_user").fetchone()
    queue.set_policy(user, repositories=["acme/site"])
    queue.enqueue("k", {"repository": "acme/site"})
    other = queue.enqueue("k", {"repository": "acme/other"})

    assert reasons(db) == [(1, other, "no policy of a live worker admits it")]
