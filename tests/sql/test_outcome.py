"""job_outcome: of each job that has ended, how, at which stage and why."""

import pytest


def outcome(queue, job):
    """What the view says of a job; None while it has not ended."""
    rows = queue.select(
        "select outcome, stage, reason from moonmind_queue.job_outcome where job_id = %(job)s",
        job=job,
    )
    return tuple(rows[0].values()) if rows else None


def run(queue):
    """Add a job and begin it."""
    queue.enqueue("noop")
    [job] = queue.claim("one", start=True)
    return job


BRANCH = {"branch": "topic", "commit": "abc"}


@pytest.mark.parametrize(
    ("result", "told"),
    [
        (None, ("succeeded", "run", "succeeded")),
        ({"summary": "3 rows"}, ("succeeded", "run", "3 rows")),
        ({"effect": "no_changes", "published": None}, ("no_changes", "run", "succeeded")),
        ({"effect": "changes"}, ("changes", "run", "succeeded")),
        ({"effect": "changes", "published": BRANCH}, ("branch", "run", "succeeded")),
        (
            {"effect": "changes", "published": {**BRANCH, "pull_request": "https://x/1"}},
            ("pull_request", "run", "succeeded"),
        ),
    ],
)
def test_success_is_what_came_of_it(queue, result, told):
    """The best that it brought; of a kind that says nothing of that, just success."""
    job = run(queue)

    queue.complete(job, result)

    assert outcome(queue, job.id) == told


@pytest.mark.parametrize(("how", "state"), [("fail", "failed"), ("retry", "dead_letter")])
def test_failure_has_its_error(queue, how, state):
    """Whether no retry could mend it or there was none left."""
    job_id = queue.enqueue("noop", max_attempts=1)
    [job] = queue.claim("one", start=True)

    queue.fail(job, "no compiler", outcome=how)

    assert outcome(queue, job_id) == (state, "run", "no compiler")


def test_a_job_that_never_began_ended_in_the_queue(queue):
    """With the reason that somebody gave, or none."""
    told, silent = queue.enqueue("noop"), queue.enqueue("noop")

    queue.cancel(told, "not needed")
    queue.cancel(silent)

    assert outcome(queue, told)[:2] == ("cancelled", "queue")
    assert "not needed" in outcome(queue, told)[2]
    assert outcome(queue, silent)[:2] == ("cancelled", "queue")
    assert outcome(queue, silent)[2]


def test_a_job_that_had_begun_to_publish_ended_there(queue):
    """Not so once it was retried: what an earlier run began says nothing of this one."""
    job = run(queue)
    queue.begin_step(job, "push", "abc")
    queue.fail(job, "rejected", outcome="fail")
    assert outcome(queue, job.id) == ("failed", "publish", "rejected")

    queue.retry(job.id)
    [job] = queue.claim("one", start=True)
    queue.complete(job, {"effect": "no_changes"})

    assert outcome(queue, job.id) == ("no_changes", "run", "succeeded")


def test_a_job_that_has_not_ended_is_not_there(queue):
    """Waiting, queued, at work, resting after a failure or blocked."""
    resting = run(queue)
    queue.fail(resting, "odd", outcome="retry")
    blocked = run(queue)
    queue.fail(blocked, "ask Ada", outcome="block")
    working = run(queue)
    waiting = queue.enqueue("noop", after=[working.id])

    for job in (resting.id, blocked.id, working.id, waiting):
        assert outcome(queue, job) is None
