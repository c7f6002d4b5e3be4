"""The fallback poll's waits, by a clock that the test moves."""

from datetime import timedelta

import pytest

from moonmind_queue import _poll
from moonmind_queue._poll import Poll

STEPS = [timedelta(seconds=seconds) for seconds in (10, 20, 30)]


@pytest.fixture
def now(monkeypatch):
    """A monotonic clock that stands still, and waits that are not varied."""
    clock = {"now": 1000.0}
    monkeypatch.setattr(_poll.time, "monotonic", lambda: clock["now"])
    monkeypatch.setattr(_poll, "spread", lambda seconds, low, high: seconds)
    return clock


def follow(poll, now, number):
    """The lengths of so many waits, each waited for to its end."""
    lengths = []
    for _ in range(number):
        lengths.append(poll.left())
        now["now"] += lengths[-1]
    return lengths


def test_waits_come_in_turn_and_the_last_again_and_again(now):
    """Ten, twenty, and then thirty seconds for ever."""
    assert follow(Poll(STEPS), now, 6) == [10, 20, 30, 30, 30, 30]


def test_a_single_wait_is_repeated(now):
    """As it always was."""
    assert follow(Poll(timedelta(seconds=1.5)), now, 3) == [1.5, 1.5, 1.5]


def test_work_begins_anew(now):
    """The next wait is the first, though another was under way."""
    poll = Poll(STEPS)
    follow(poll, now, 3)
    poll.left()
    now["now"] += 7

    poll.reset()

    assert follow(poll, now, 3) == [10, 20, 30]


def test_an_interruption_neither_prolongs_a_wait_nor_counts_as_one(now):
    """What wakes the worker for nothing leaves the rest of the wait as it was."""
    poll = Poll(STEPS)
    lefts = []
    for _ in range(4):
        lefts.append(poll.left())
        now["now"] += 4

    assert lefts == [10, 6, 2, 20]


def test_waits_are_varied_by_a_fifth():
    """Workers that started together do not ask together."""
    lefts = {Poll(STEPS).left() for _ in range(200)}

    assert len(lefts) > 100
    assert min(lefts) >= 8 - 1e-6
    assert max(lefts) <= 12
