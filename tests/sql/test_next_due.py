"""next_due(): how long an idle worker may sleep."""

from datetime import timedelta

import pytest

MINUTE = timedelta(minutes=1)
ZERO = timedelta(0)


def next_due(queue, *asked, **options):
    """How long; what the horizon is for is shown in test_sleepers.py."""
    return queue.next_due(*asked, **options)[0]


def test_an_empty_queue_will_never_be_due(queue):
    """Null: only a notification can bring something."""
    assert next_due(queue) is None


def test_until_the_earliest_job_that_rests(queue, clock):
    """Of several the next one counts, to the microsecond."""
    for minutes in (7, 3, 5):
        queue.enqueue("k", run_at=clock.now + minutes * MINUTE)

    first = next_due(queue)
    clock.advance(2 * MINUTE)

    assert (first, next_due(queue)) == (3 * MINUTE, MINUTE)


def test_what_has_come_due_is_due_now(queue, clock):
    """Never less than zero."""
    queue.enqueue("k", run_at=clock.now + MINUTE)
    clock.advance(9 * MINUTE)

    assert next_due(queue) == ZERO


def test_until_the_end_of_the_next_lease(queue, clock):
    """A lease of anybody's may have to be taken back."""
    queue.enqueue("k")
    queue.enqueue("k")
    queue.claim("w", lease=5 * MINUTE)
    queue.claim("w", lease=2 * MINUTE)

    due = next_due(queue, ["nobody"])
    clock.advance(3 * MINUTE)

    assert (due, next_due(queue, ["nobody"])) == (2 * MINUTE, ZERO)


@pytest.mark.parametrize(
    ("worker", "due"),
    [
        ({}, True),
        ({"agents": ["codex"]}, False),
        ({"agents": ["claude"]}, True),
        ({"kinds": ["l"]}, False),
        ({"capabilities": []}, False),
        ({"agents": []}, False),
    ],
)
def test_only_jobs_that_this_worker_may_take(queue, clock, worker, due):
    """Filters and capabilities are those of claim()."""
    queue.enqueue("k", agent="claude", capabilities=["gpu"], run_at=clock.now + MINUTE)

    assert next_due(queue, **({"capabilities": ["GPU"]} | worker)) == (MINUTE if due else None)


def test_a_job_that_waits_for_another_is_not_due(queue, clock):
    """Its time may come; it will not bring anything."""
    [held] = [queue.enqueue("k", run_at=clock.now + 5 * MINUTE)]
    queue.enqueue("k", after=[held], run_at=clock.now + MINUTE)

    assert next_due(queue) == 5 * MINUTE


def test_looking_changes_nothing(queue, db, clock, picture):
    """What has come due stays scheduled until a claim moves it."""
    queue.enqueue("k", run_at=clock.now + MINUTE)
    clock.advance(MINUTE)
    before = picture(db)

    next_due(queue)

    assert picture(db) == before


def test_a_failure_in_the_last_place_of_the_calendar_is_still_counted(queue, clock):
    """A job that rests for a thousand years does not break the sleep of others."""
    queue.enqueue("k", run_at=clock.now + timedelta(days=365_000))

    assert next_due(queue) == timedelta(days=365_000)
