"""Resetting: every task of a DAG runs anew, in a new epoch, and the history stays."""

from datetime import timedelta

import pytest

from moonmind_queue import JobNotFound, WrongState

MINUTE = timedelta(minutes=1)
TASKS = [
    {"id": "a", "agent": "codex"},
    {"id": "b", "agent": "codex", "deps": ["a"]},
    {"id": "c", "agent": "claude", "deps": ["b"]},
]


def states(queue):
    """Each task's state, by its id."""
    rows = queue.select("select id, state from moonmind_queue.agentmux_task order by job_id")
    return {row["id"]: row["state"] for row in rows}


def work_off(queue):
    """Do whatever can be done; returns the ids in the order in which that was."""
    order = []
    while jobs := queue.claim("w"):
        order.append(jobs[0].key)
        queue.complete(jobs[0])
    return order


def test_a_dag_that_is_done_can_be_done_again(queue):
    """In order, twice, and each run is in the history."""
    queue.seed_dag(TASKS)
    assert work_off(queue) == ["a", "b", "c"]

    assert queue.reset_dag() == 2

    assert states(queue) == {"a": "READY", "b": "READY", "c": "READY"}
    assert work_off(queue) == ["a", "b", "c"]
    history = [event.type for event in queue.history(queue.list_jobs()[-1].id)]
    run = ["claimed", "started", "completed"]
    assert history == ["created", *run, "retried", *run]
    assert not queue.select("select * from moonmind_queue.queue_fault")


def test_whatever_became_of_a_task_it_runs_anew(queue, clock):
    """Failed, dead, cancelled, blocked, resting after a failure: attempts are counted anew."""
    ids = ["failed", "dead", "cancelled", "blocked", "resting", "fresh"]
    queue.seed_dag(
        [{"id": name, "agent": "codex", "max_attempts": 1 + (name == "resting")} for name in ids]
    )
    jobs = {job.key: job for job in queue.claim("w", limit=5)}
    queue.fail(jobs["failed"], "no", outcome="fail")
    queue.fail(jobs["dead"], "no")
    queue.cancel(jobs["cancelled"].id)
    queue.release(jobs["cancelled"])
    queue.fail(jobs["blocked"], "no", outcome="block")
    queue.fail(jobs["resting"], "no")

    queue.reset_dag()

    again = queue.claim("w", limit=9)
    assert {job.key: job.attempt for job in again} == dict.fromkeys(ids, 1)


def test_a_reset_waits_for_those_who_hold_a_task(queue, picture):
    """It says who; nothing has changed."""
    queue.seed_dag(TASKS)
    queue.claim("codex-1")
    before = picture(queue.connection)

    with (
        pytest.raises(WrongState, match="task a is held by codex-1; stop the worker first"),
        queue.connection.transaction(),
    ):
        queue.reset_dag()

    assert picture(queue.connection) == before


def test_by_force_a_held_task_is_taken_away(queue, refused):
    """The late worker can change nothing any more."""
    queue.seed_dag(TASKS)
    [held] = queue.claim("codex-1", start=True)

    assert queue.reset_dag(force=True) == 2

    with refused("MQ001"):
        queue.complete(held)
    assert work_off(queue) == ["a", "b", "c"]


def test_what_the_file_has_lost_stays_blocked(queue):
    """A reset is no return."""
    queue.seed_dag(TASKS)
    queue.seed_dag(TASKS[:1])

    queue.reset_dag()

    assert states(queue) == {"a": "READY", "b": "BLOCKED", "c": "BLOCKED"}


def test_another_dag_is_left_alone(queue):
    """And so are jobs of no DAG."""
    queue.seed_dag(TASKS)
    queue.seed_dag([{"id": "x", "agent": "codex"}], dag="other")
    queue.enqueue("k", key="y")
    work_off(queue)

    queue.reset_dag()

    assert states(queue) == {"a": "READY", "b": "READY", "c": "READY", "x": "DONE", "y": "DONE"}


def test_a_dag_that_was_never_seeded_is_named(queue):
    """With the way out."""
    with pytest.raises(JobNotFound, match="there is no DAG nobody's; seed it first"):
        queue.reset_dag("nobody's")


def test_needs_on_later_tasks_survive_a_reset(queue):
    """A task that needs one with a higher number waits for it again."""
    queue.seed_dag([{"id": "a", "agent": "codex"}])
    queue.seed_dag([
        {"id": "a", "agent": "codex", "deps": ["later"]}, {"id": "later", "agent": "codex"},
    ])  # fmt: skip
    assert work_off(queue) == ["later", "a"]

    queue.reset_dag()

    assert work_off(queue) == ["later", "a"]
    assert not queue.select("select * from moonmind_queue.queue_fault")
