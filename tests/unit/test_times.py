"""Lengths of time and instants as the command line reads them."""

from datetime import UTC, datetime, timedelta

import click
import pytest

from moonmind_queue.cli.times import instant, moment, span

NOON = datetime(2030, 1, 31, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("5s", 5), ("90m", 5400), ("2h", 7200), ("30d", 2_592_000), ("1h30m", 5400),
     (" 1h 30m 5s ", 5405), ("0s", 0), ("1 d", 86400)],
)  # fmt: skip
def test_a_length_of_time_is_a_sum_of_units(text, seconds):
    """Days, hours, minutes and seconds, with or without blanks."""
    assert span(text) == moment(text) == timedelta(seconds=seconds)


@pytest.mark.parametrize(
    "text", ["", " ", "h", "5", "-5s", "1.5h", "5s x", "x 5s", "2w", "99999d", "9" * 30 + "d"]
)
def test_what_is_no_length_is_refused_with_an_example(text):
    """Also what no computer can add up."""
    with pytest.raises(click.BadParameter, match="is not a length of time such as 30d"):
        span(text)


@pytest.mark.parametrize(
    "text",
    ["2030-01-31T12:00", "2030-01-31 12:00:00", "2030-01-31T13:00+01:00", "2030-01-31T12:00Z"],
)
def test_an_instant_without_an_offset_is_utc(text):
    """An offset counts where there is one."""
    assert instant(text) == moment(text) == NOON


@pytest.mark.parametrize("text", ["", "noon", "2030-13-01", "2h"])
def test_what_is_no_instant_is_refused_with_an_example(text):
    """A length of time is none either."""
    with pytest.raises(click.BadParameter, match="such as 2030-01-31T08:00"):
        instant(text)


def test_a_moment_is_either_and_nothing_else():
    """The message names both."""
    with pytest.raises(click.BadParameter, match="neither an age such as 2h nor an ISO instant"):
        moment("yesterday")
