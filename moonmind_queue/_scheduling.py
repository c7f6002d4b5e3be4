"""What the client asks about schedules: one function for each of SQL."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from moonmind_queue import executors, schedules
from moonmind_queue._calls import Call, column, nothing, rows, value, view
from moonmind_queue._values import storable, to_json
from moonmind_queue.model import DueSchedule, Schedule


def add_schedule(
    name: str,
    cron: str,
    job: Mapping[str, Any],
    *,
    now: datetime,
    timezone: str = "UTC",
    catch_up: str = "once",
) -> Call[str]:
    """Add a schedule, or change it; ``now`` is the database's."""
    if "kind" in job:
        job = {**job, "payload": executors.checked(job["kind"], job.get("payload") or {})}
    _, next_at = schedules.passed(cron, timezone, None, now)
    return value(
        "add_schedule",
        str,
        name=name,
        cron=cron,
        job=to_json(job),
        timezone=timezone,
        catch_up=catch_up,
        next_at=next_at,
    )


def remove_schedule(name: str) -> Call[None]:
    """Remove a schedule; its jobs stay. Raises ``ScheduleNotFound``."""
    return value("remove_schedule", nothing, name=name)


def pause_schedule(name: str, paused: bool = True) -> Call[None]:
    """Stop a schedule for a while, or let it go on; raises ``ScheduleNotFound``."""
    return value("pause_schedule", nothing, name=name, paused=paused)


def run_schedule_now(name: str) -> Call[int]:
    """Enqueue the job of a schedule by hand; raises ``ScheduleNotFound``."""
    return value("run_schedule_now", int, name=name)


def due_schedules(limit: int = 100) -> Call[list[DueSchedule]]:
    """Return the schedules whose time has come; workers ask on a timer."""
    return rows(DueSchedule, "due_schedules", limit=limit)


def run_schedule(
    schedule: DueSchedule, due: Sequence[datetime], next_at: datetime
) -> Call[list[int]]:
    """Enqueue what has come of a schedule; returns the jobs: none if another was quicker."""
    return column(
        "run_schedule",
        name=schedule.name,
        revision=schedule.revision,
        due=list(due),
        next_at=next_at,
    )


def defer_schedule(schedule: DueSchedule, error: str) -> Call[None]:
    """Let a schedule that cannot be run rest for five minutes, and show why."""
    return value(
        "defer_schedule",
        nothing,
        name=schedule.name,
        revision=schedule.revision,
        error=storable(error),
    )


def all_schedules() -> Call[list[Schedule]]:
    """Return every schedule, by name."""
    return view(Schedule, "schedule_overview", "order by name", list)
