"""How long a worker waits between attempts to reach its database."""

import pytest

from moonmind_queue._connection import reconnect_delay


@pytest.mark.parametrize("failures", [1, 10, 1_000, 1_000_000])
def test_a_night_without_a_database_does_not_end_the_waiting(failures):
    """However many attempts have failed in a row, the next wait is positive and below its cap."""
    assert 0 < reconnect_delay(failures, cap=30) <= 30


def test_the_first_waits_are_short():
    """A connection that broke is tried again within half a second."""
    assert reconnect_delay(1, cap=30) <= 0.5
