"""redrive(): what failed together runs again, not together."""

from datetime import timedelta

import pytest

from moonmind_queue import InvalidArgument

MINUTE = timedelta(minutes=1)
HOUR = timedelta(hours=1)


def ends(queue, outcome, error="no", **options):
    """A job that has ended: failed, dead_letter, cancelled or succeeded."""
    job = queue.enqueue(**{"kind": "k", "max_attempts": 1, **options})
    if outcome == "cancelled":
        queue.cancel(job)
        return job
    [held] = queue.claim("w", start=True)
    if outcome == "succeeded":
        queue.complete(held)
    else:
        queue.fail(held, error, outcome={"failed": "fail", "dead_letter": "retry"}[outcome])
    return job


def test_dead_letters_and_failed_jobs_are_queued_again_with_an_event(queue, clock, types):
    """Their attempts are counted anew; what succeeded or was cancelled stays."""
    dead, failed = ends(queue, "dead_letter"), ends(queue, "failed")
    others = [ends(queue, "succeeded"), ends(queue, "cancelled")]
    clock.advance(HOUR)

    assert queue.redrive() == [dead, failed]

    for job in (dead, failed):
        assert (queue.get(job).state, queue.get(job).attempt) == ("queued", 0)
        assert queue.get(job).run_at == clock.now
        assert types(queue, job)[-1] == "retried"
    assert queue.history(dead)[-1].message == "was dead_letter"
    assert [queue.get(job).state for job in others] == ["succeeded", "cancelled"]


@pytest.mark.parametrize(
    ("chosen", "found"),
    [
        ({}, [1, 2, 3]),
        ({"states": ["dead_letter"]}, [1, 3]),
        ({"states": ["cancelled", "succeeded"]}, []),
        ({"agent": "claude"}, [2]),
        ({"kind": "other"}, [3]),
        ({"error": "rate limit"}, [1, 3]),
        ({"error": "rate%limit"}, []),
        ({"since": HOUR}, [2, 3]),
        ({"until": HOUR}, [1]),
        ({"since": HOUR, "until": 2 * HOUR}, [2]),
        ({"limit": 2}, [1, 2]),
        ({"above": 1}, [2, 3]),
        ({"above": 1, "limit": 1}, [2]),
        ({"agent": "codex", "error": "limit", "since": HOUR}, [3]),
    ],
)
@pytest.mark.parametrize("dry_run", [True, False])
def test_what_matches_is_taken_and_a_dry_run_says_the_same(queue, clock, chosen, found, dry_run):
    """Each condition narrows; since is inclusive, until is not."""
    begin = clock.now
    first = ends(queue, "dead_letter", "hit the rate limit")
    clock.advance(HOUR)
    second = ends(queue, "failed", "no such branch", agent="claude")
    clock.advance(HOUR)
    third = ends(queue, "dead_letter", "the rate limit again", kind="other")
    jobs = [first, second, third]
    chosen = {
        name: begin + value if isinstance(value, timedelta) else value
        for name, value in chosen.items()
    }
    if "above" in chosen:
        chosen["above"] = jobs[chosen["above"] - 1]

    taken = queue.redrive(**chosen, dry_run=dry_run)

    assert taken == [jobs[number - 1] for number in found]
    again = [job for job in jobs if queue.get(job).state == "queued"]
    assert again == ([] if dry_run else taken)


def test_a_dry_run_leaves_no_trace(queue, db, picture):
    """Not even an event."""
    ends(queue, "dead_letter")
    before = picture(db)

    assert len(queue.redrive(dry_run=True)) == 1

    assert picture(db) == before


def test_the_pace_goes_on_from_call_to_call(queue, clock):
    """The first of a further call comes where the last of the one before says."""
    jobs = [ends(queue, "dead_letter") for _ in range(5)]
    start = clock.now
    pace = timedelta(seconds=5)

    first = queue.redrive(pace=pace, limit=3)
    clock.advance(timedelta(seconds=1))
    rest = queue.redrive(pace=pace, above=first[-1], first_at=start + 3 * pace)

    assert (first, rest) == (jobs[:3], jobs[3:])
    assert [queue.get(job).run_at - start for job in jobs] == [pace * n for n in range(5)]


def test_a_job_that_fails_again_meanwhile_is_not_taken_twice(queue):
    """Whoever goes on above the last id comes to an end, however soon jobs fail."""
    jobs = [ends(queue, "dead_letter") for _ in range(3)]
    seen = []
    while batch := queue.redrive(limit=1, above=seen[-1] if seen else 0):
        seen += batch
        [held] = queue.claim("w", start=True)
        queue.fail(held, "again")

    assert seen == jobs


def test_what_somebody_else_has_locked_is_passed_over(session, here):
    """A redrive waits for nobody."""
    jobs = [ends(here, "dead_letter") for _ in range(3)]
    other = session()
    other.execute("select from moonmind_queue.job where id = %s for update", [jobs[1]])

    assert here.redrive() == [jobs[0], jobs[2]]
    other.rollback()
    assert here.redrive() == [jobs[1]]


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"states": ["queued"]}, "states that are final"),
        ({"states": ["running", "failed"]}, "states that are final"),
        ({"pace": -MINUTE}, "a pace between 0 and a day"),
        ({"pace": timedelta(days=2)}, "a pace between 0 and a day"),
        ({"limit": 0}, "a limit of at least 1"),
    ],
)
def test_what_cannot_be_meant_is_refused(queue, wrong, message):
    """In words that name it."""
    with pytest.raises(InvalidArgument, match=message):
        queue.redrive(**wrong)


def test_dependents_that_took_the_success_wait_again(queue):
    """A succeeded job that is driven again is waited for."""
    job = ends(queue, "succeeded")
    child = queue.enqueue("k", after=[job])

    queue.redrive(["succeeded"])

    assert queue.get(child).state == "waiting"
