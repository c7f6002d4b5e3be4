"""When a schedule comes: cron expressions read in a time zone.

The database knows the next occurrence of each schedule and cannot read cron; what is computed here
goes back to it. Everything is counted from an instant that the caller has from the database's
clock, and every result is in UTC.

Where clocks change, an expression whose minute and hour are both given (``30 2 * * *``) means a
time on the wall: skipped by the clocks, it comes right after the gap; shown twice, it comes the
first time. One that begins its minute or hour with ``*`` (``*/15 * * * *``) means a rhythm: it
goes by the time that passes.
"""

from collections.abc import Iterable, Iterator
from datetime import UTC, datetime, tzinfo
from zoneinfo import ZoneInfo

from moonmind_queue.errors import InvalidArgument

BATCH = 100  # occurrences that are dealt with at once

_FORM = "minute hour day-of-month month day-of-week, such as '0 2 * * 1-5'"


def occurrences(cron: str, timezone: str, after: datetime) -> Iterator[datetime]:
    """Return the occurrences later than ``after``, in order and without end.

    Raises ``InvalidArgument`` for an expression or a time zone that cannot be read. Ends early
    only where fifty years bring no occurrence.
    """
    from cronsim import CronSim, CronSimError

    if len(cron.split()) != 5:
        raise InvalidArgument(f"cron expression {cron!r} has not five fields: {_FORM}")
    zone = _zone(timezone)
    try:
        found = CronSim(cron, after.astimezone(zone))
    except CronSimError as error:
        raise InvalidArgument(f"cron expression {cron!r}: {str(error).lower()}: {_FORM}") from None
    return _later(found, after)


def passed(
    cron: str, timezone: str, next_at: datetime | None, now: datetime
) -> tuple[list[datetime], datetime]:
    """Return what has come from ``next_at`` to ``now``, and the occurrence after that.

    At most ``BATCH`` at once: the occurrence after them may then have come, too. Without
    ``next_at`` nothing has come, and the first occurrence after ``now`` is next.
    """
    come = [] if next_at is None else [next_at]
    for instant in occurrences(cron, timezone, next_at or now):
        if instant > now or len(come) == BATCH:
            return come, instant
        come.append(instant)
    raise InvalidArgument(f"cron expression {cron!r} brings nothing within fifty years")


def _later(found: Iterable[datetime], after: datetime) -> Iterator[datetime]:
    # Counting by the wall clock, the library forgets which of two equal times it started from,
    # and would name the first of them again.
    for each in found:
        instant = each.astimezone(UTC)
        if instant > after:
            yield instant


def _zone(name: str) -> tzinfo:
    try:
        return ZoneInfo(name)
    except (LookupError, ValueError, OSError):
        raise InvalidArgument(
            f"unknown time zone {name!r}; give an IANA name such as Europe/Berlin"
        ) from None
