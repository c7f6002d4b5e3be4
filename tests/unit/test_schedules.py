"""When a schedule comes: cron expressions in time zones, through every change of the clocks."""

from datetime import UTC, datetime, timedelta
from itertools import islice, pairwise

import pytest

from moonmind_queue import InvalidArgument
from moonmind_queue.schedules import BATCH, occurrences, passed

BERLIN = "Europe/Berlin"
SPRING = datetime(2026, 3, 29, tzinfo=UTC)  # at 01:00 UTC Berlin goes from 02:00 to 03:00
AUTUMN = datetime(2026, 10, 25, tzinfo=UTC)  # at 01:00 UTC Berlin goes from 03:00 to 02:00
HOUR = timedelta(hours=1)


def day(cron, timezone, of):
    """The occurrences of one day, as hour and minute in UTC; the day is Berlin's, to the hour."""
    start = of - HOUR - timedelta(seconds=1)
    found = []
    for instant in occurrences(cron, timezone, start):
        if instant >= of + 24 * HOUR - HOUR:
            return found
        found.append(f"{instant:%H:%M}")
    raise AssertionError("an endless expression ended")


def test_a_time_that_the_clocks_skip_comes_right_after_the_gap():
    """02:30 does not exist in Berlin on that day: it runs once, at 03:00 summer time."""
    nights = list(islice(occurrences("30 2 * * *", BERLIN, SPRING - 24 * HOUR), 3))

    assert nights == [
        datetime(2026, 3, 28, 1, 30, tzinfo=UTC),
        datetime(2026, 3, 29, 1, 0, tzinfo=UTC),
        datetime(2026, 3, 30, 0, 30, tzinfo=UTC),
    ]


def test_a_time_that_the_clocks_show_twice_comes_the_first_time():
    """02:30 comes twice in Berlin on that day and runs once, in summer time."""
    nights = list(islice(occurrences("30 2 * * *", BERLIN, AUTUMN - 24 * HOUR), 3))

    assert nights == [
        datetime(2026, 10, 24, 0, 30, tzinfo=UTC),
        datetime(2026, 10, 25, 0, 30, tzinfo=UTC),
        datetime(2026, 10, 26, 1, 30, tzinfo=UTC),
    ]


@pytest.mark.parametrize("minutes", [0, 15, 29, 31, 59])
def test_counting_from_within_the_repeated_hour_never_goes_back(minutes):
    """Whoever adds a schedule in the second 02:xx gets tomorrow, not an hour ago."""
    now = datetime(2026, 10, 25, 1, minutes, tzinfo=UTC)

    assert next(occurrences("30 2 * * *", BERLIN, now)) == datetime(2026, 10, 26, 1, 30, tzinfo=UTC)


@pytest.mark.parametrize(
    ("cron", "of", "hours"),
    [
        ("0 * * * *", SPRING, 23),
        ("0 * * * *", AUTUMN, 25),
        ("*/15 * * * *", SPRING, 23),
        ("*/15 * * * *", AUTUMN, 25),
    ],
)
def test_a_rhythm_goes_by_the_time_that_passes(cron, of, hours):
    """Hourly and quarter-hourly schedules never pause and never double through either change."""
    step = HOUR if cron.startswith("0") else HOUR / 4
    local_day = HOUR * hours
    start = of - (HOUR if of is SPRING else 2 * HOUR)  # 00:00 in Berlin

    found = list(islice(occurrences(cron, BERLIN, start - step), 200))

    assert {b - a for a, b in pairwise(found)} == {step}
    assert len([at for at in found if start <= at < start + local_day]) == local_day / step


def test_hours_that_are_listed_follow_the_wall():
    """0 1,2,3 runs 02:00 and 03:00 once in spring, and nothing twice in autumn."""
    assert day("0 1,2,3 * * *", BERLIN, SPRING) == ["00:00", "01:00"]
    assert day("0 1,2,3 * * *", BERLIN, AUTUMN) == ["23:00", "00:00", "02:00"]


def test_a_rhythm_within_an_hour_that_is_skipped_does_not_come():
    """*/15 2 asks for quarters of an hour that this day does not have, or has twice."""
    assert day("*/15 2 * * *", BERLIN, SPRING) == []
    assert day("*/15 2 * * *", BERLIN, AUTUMN) == [
        *("00:00", "00:15", "00:30", "00:45"),
        *("01:00", "01:15", "01:30", "01:45"),
    ]


@pytest.mark.parametrize("of", [SPRING, AUTUMN])
def test_utc_knows_no_summer(of):
    """The same two days in UTC are like any other."""
    assert day("30 2 * * *", "UTC", of) == ["02:30"]
    assert len(day("0 * * * *", "UTC", of)) == 24
    assert len(day("*/15 * * * *", "UTC", of)) == 96


@pytest.mark.parametrize(
    "zone",
    ["Europe/Berlin", "Europe/Dublin", "America/New_York", "America/Santiago",
     "Africa/Cairo", "Australia/Lord_Howe", "Asia/Kathmandu", "UTC"],
)  # fmt: skip
@pytest.mark.parametrize("cron", ["30 2 * * *", "0 0 * * *", "*/15 * * * *", "0 */6 * * *"])
def test_where_one_stops_another_goes_on(zone, cron):
    """Computed in one go or anew from each occurrence, they are the same, and rise.

    Midnights that do not exist (Cairo, Santiago) and changes of half an hour (Lord Howe) included.
    """
    start = datetime(2026, 3, 1, tzinfo=UTC)
    whole = list(islice(occurrences(cron, zone, start), 4000 if cron.startswith("*") else 400))

    step_by_step = [start]
    for _ in whole:
        step_by_step.append(next(occurrences(cron, zone, step_by_step[-1])))

    assert step_by_step[1:] == whole
    assert all(a < b for a, b in pairwise(whole))


@pytest.mark.parametrize(
    ("cron", "days"),
    [
        ("0 0 * * 0", [4, 11]),
        ("0 0 * * 7", [4, 11]),
        ("0 0 * * mon-tue", [5, 6]),
        ("0 0 L * *", [31, 28]),
        ("0 0 * * 5L", [30, 27]),
        ("0 0 * * 2#2", [13, 10]),
        ("0 0 13 * fri", [2, 9, 13]),
        ("0 0 */10 JAN *", [1, 11, 21, 31, 1]),
        ("0 0 1,15 * *", [1, 15, 1]),
    ],
)
def test_the_forms_of_a_field(cron, days):
    """What docs/schedules.md promises: days of January 2026, a Thursday's first, and on."""
    found = islice(occurrences(cron, "UTC", datetime(2025, 12, 31, 12, tzinfo=UTC)), len(days))

    assert [instant.day for instant in found] == days


def test_what_has_passed_begins_with_the_next_and_ends_now():
    """The instant now is included; the one after it is next."""
    first = datetime(2026, 1, 1, 10, tzinfo=UTC)

    come, following = passed("0 * * * *", "UTC", first, first + 2 * HOUR)

    assert come == [first, first + HOUR, first + 2 * HOUR]
    assert following == first + 3 * HOUR


def test_without_a_next_nothing_has_passed():
    """A schedule that somebody added in SQL starts with the first occurrence after now."""
    now = datetime(2026, 1, 1, 10, 0, 1, tzinfo=UTC)

    assert passed("0 * * * *", "UTC", None, now) == ([], datetime(2026, 1, 1, 11, tzinfo=UTC))


def test_a_long_absence_is_dealt_with_piece_by_piece():
    """A year of minutes comes a hundred at a time; the next piece begins where this one ended."""
    first = datetime(2026, 1, 1, tzinfo=UTC)

    come, following = passed("* * * * *", "UTC", first, first + timedelta(days=365))

    assert len(come) == BATCH
    assert following == come[-1] + timedelta(minutes=1)


@pytest.mark.parametrize(
    ("cron", "message"),
    [
        ("", "has not five fields"),
        ("@daily", "has not five fields"),
        ("0 2 * *", "has not five fields"),
        ("0 0 2 * * *", "has not five fields"),
        ("60 * * * *", "bad minute"),
        ("* 24 * * *", "bad hour"),
        ("* * 0 * *", "bad day-of-month"),
        ("* * * 13 *", "bad month"),
        ("* * * * 8", "bad day-of-week"),
        ("*/0 * * * *", "bad minute"),
        ("5-1 * * * *", "bad minute"),
        ("0 0 30 2 *", "bad day-of-month"),
        ("² * * * *", "bad minute"),
        ("1,,2 * * * *", "bad minute"),
        ("9" * 150 + " * * * *", "bad minute"),
    ],
)
def test_a_bad_expression_is_refused_with_its_field(cron, message):
    """InvalidArgument repeats the expression, names the field and shows the form."""
    with pytest.raises(InvalidArgument, match=message) as caught:
        occurrences(cron, "UTC", SPRING)

    assert repr(cron) in str(caught.value)
    assert "such as '0 2 * * 1-5'" in str(caught.value)


def test_an_expression_that_never_comes_is_refused():
    """The last Wednesday of February is never the 1st or 16th: no fifty years bring one."""
    with pytest.raises(InvalidArgument, match="brings nothing within fifty years"):
        passed("0 0 */15 2 3L", "UTC", None, SPRING)


@pytest.mark.parametrize(
    "zone",
    ["", " ", "Berlin", "CEST", "Europe", "Europe/Berlin ", "../etc/passwd", "/etc/passwd", "a\0b"],
)
def test_an_unknown_time_zone_is_refused_with_the_way_out(zone):
    """InvalidArgument says what a name looks like; a path is not one."""
    with pytest.raises(InvalidArgument, match="give an IANA name such as Europe/Berlin"):
        occurrences("* * * * *", zone, SPRING)


def test_zones_are_known_on_a_machine_without_any(monkeypatch):
    """The package tzdata brings them where the system has none."""
    import zoneinfo

    before = zoneinfo.TZPATH
    zoneinfo.reset_tzpath(to=[])
    zoneinfo.ZoneInfo.clear_cache()
    try:
        assert next(occurrences("0 2 * * *", "Asia/Kathmandu", SPRING)) == datetime(
            2026, 3, 29, 20, 15, tzinfo=UTC
        )
    finally:
        zoneinfo.reset_tzpath(to=before)
        zoneinfo.ZoneInfo.clear_cache()
