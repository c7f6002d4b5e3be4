"""Lengths of time and instants as options take them: functions to give to click as types."""

import re
from datetime import UTC, datetime, timedelta

import click

UNITS = {"d": "days", "h": "hours", "m": "minutes", "s": "seconds"}
PART = re.compile(r"(\d+)\s*([dhms])\s*")
LONGEST = timedelta(days=36_500)


def span(text: str) -> timedelta:
    """Read a length of time such as 2h, 90m or 1h30m."""
    length = _length(text)
    if length is None:
        raise click.BadParameter(f"{text!r} is not a length of time such as 30d, 2h, 90m or 5s")
    return length


def instant(text: str) -> datetime:
    """Read a point in time: ISO, UTC without an offset."""
    point = _point(text)
    if point is None:
        raise click.BadParameter(f"{text!r} is not an ISO instant, such as 2030-01-31T08:00+01:00")
    return point


def moment(text: str) -> datetime | timedelta:
    """Read a point in the past: an ISO instant, or how long ago."""
    length = _length(text)
    point = _point(text) if length is None else length
    if point is None:
        raise click.BadParameter(
            f"{text!r} is neither an age such as 2h nor an ISO instant, such as"
            " 2030-01-31T08:00+01:00"
        )
    return point


def _length(text: str) -> timedelta | None:
    parts = PART.findall(text.strip())
    if not parts or PART.sub("", text.strip()):
        return None
    try:
        length = sum((timedelta(**{UNITS[unit]: int(n)}) for n, unit in parts), timedelta())
    except OverflowError:
        return None
    return length if length <= LONGEST else None


def _point(text: str) -> datetime | None:
    try:
        point = datetime.fromisoformat(text)
    except ValueError:
        return None
    return point if point.tzinfo else point.replace(tzinfo=UTC)
