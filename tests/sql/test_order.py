"""What is claimed first: priority, then age, and nobody starves."""

from datetime import timedelta

HOUR = timedelta(hours=1)
SECOND = timedelta(seconds=1)


def test_an_hour_of_waiting_is_worth_one_level(queue, clock):
    """At exactly one hour the older one is first by its id; a second less and it is not yet."""
    old = queue.enqueue("k")
    clock.advance(HOUR - SECOND)
    urgent = queue.enqueue("k", priority=1)
    clock.advance(SECOND)
    later = queue.enqueue("k", priority=1)

    assert [held.id for held in queue.claim("w", limit=3)] == [urgent, old, later]


def test_the_order_of_two_jobs_never_changes(queue, clock):
    """However long both have waited: so it can stand in an index."""
    old = queue.enqueue("k")
    clock.advance(HOUR / 2)
    urgent = queue.enqueue("k", priority=1)

    clock.advance(100 * HOUR)

    assert [held.id for held in queue.claim("w", limit=2)] == [urgent, old]


def test_nobody_starves_under_saturation(queue, clock):
    """More urgent jobs than can be done come all the time: the modest one has its turn in time."""
    modest = queue.enqueue("k", priority=-3)
    hours = 0
    while True:
        for _ in range(3):  # three come, two are done
            queue.enqueue("k", priority=2)
        taken = [held.id for held in queue.claim("w", limit=2)]
        if modest in taken:
            break
        hours += 1
        clock.advance(HOUR)
        assert hours < 50

    # Five levels are five hours; whatever came before its rank was reached goes first.
    assert 5 <= hours <= 5 * 3


def test_it_holds_between_lanes(queue, clock):
    """Agents and kinds that one worker serves share one order."""
    old = queue.enqueue("k", agent="a")
    clock.advance(2 * HOUR)
    queue.enqueue("l", agent="b", priority=1)

    assert queue.claim("w")[0].id == old


def test_the_extremes_of_priority_are_ordered_too(queue):
    """Every integer is a priority, without an overflow."""
    low = queue.enqueue("k", priority=-(2**31))
    none = queue.enqueue("k")
    high = queue.enqueue("k", priority=2**31 - 1)

    assert [held.id for held in queue.claim("w", limit=3)] == [high, none, low]
