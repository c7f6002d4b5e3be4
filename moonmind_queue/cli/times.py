"""Lengths of time and instants as options take them."""

import re
from datetime import UTC, datetime, timedelta
from typing import Any

import click

UNITS = {"d": "days", "h": "hours", "m": "minutes", "s": "seconds"}
PART = re.compile(r"(\d+)\s*([dhms])\s*")
LONGEST = timedelta(days=36_500)


class Span(click.ParamType):
    """A length of time such as 2h, 90m or 1h30m."""

    name = "span"

    def convert(self, value: Any, param: Any, ctx: Any) -> timedelta:
        """Read the text, or fail with an example of what would do."""
        length = _span(value) if isinstance(value, str) else value
        if length is None:
            self.fail(f"{value!r} is not a length of time such as 30d, 2h, 90m or 5s", param, ctx)
        return length


class Instant(click.ParamType):
    """A point in time: ISO, UTC without an offset."""

    name = "time"

    def convert(self, value: Any, param: Any, ctx: Any) -> datetime:
        """Read the text, or fail with an example of what would do."""
        instant = _instant(value) if isinstance(value, str) else value
        if instant is None:
            self.fail(
                f"{value!r} is not an ISO instant, such as 2030-01-31T08:00+01:00", param, ctx
            )
        return instant


class Moment(click.ParamType):
    """A point in the past: an ISO instant, or how long ago."""

    name = "time"

    def convert(self, value: Any, param: Any, ctx: Any) -> datetime | timedelta:
        """Read the text, or fail with examples of what would do."""
        if not isinstance(value, str):
            return value  # type: ignore[no-any-return]  # converted already
        moment = _span(value) or _instant(value)
        if moment is None:
            self.fail(
                f"{value!r} is neither an age such as 2h nor an ISO instant, such as"
                " 2030-01-31T08:00+01:00",
                param,
                ctx,
            )
        return moment


SPAN, INSTANT, MOMENT = Span(), Instant(), Moment()


def _span(text: str) -> timedelta | None:
    parts = PART.findall(text.strip())
    if not parts or PART.sub("", text.strip()):
        return None
    try:
        length = sum((timedelta(**{UNITS[unit]: int(n)}) for n, unit in parts), timedelta())
    except OverflowError:
        return None
    return length if length <= LONGEST else None


def _instant(text: str) -> datetime | None:
    try:
        instant = datetime.fromisoformat(text)
    except ValueError:
        return None
    return instant if instant.tzinfo else instant.replace(tzinfo=UTC)
