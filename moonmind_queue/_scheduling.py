"""The client's methods for schedules: one per SQL function."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from psycopg.sql import SQL

from moonmind_queue import executors, schedules
from moonmind_queue._calls import Calls
from moonmind_queue._values import storable, to_json
from moonmind_queue.model import DueSchedule, Schedule


class Scheduling(Calls):
    """Add, run and remove schedules."""

    def add_schedule(
        self,
        name: str,
        cron: str,
        job: Mapping[str, Any],
        *,
        timezone: str = "UTC",
        catch_up: str = "once",
    ) -> str:
        """Enqueue ``job``, parameters of :meth:`enqueue`, whenever ``cron`` comes.

        Returns ``created``, ``updated``, or ``unchanged`` when it was there already. ``catch_up``
        says what becomes of missed occurrences: ``skip``, ``once`` (the latest) or ``all``. Raises
        ``InvalidArgument`` and ``InvalidPayload``, and then changes nothing.
        """
        if "kind" in job:
            job = {**job, "payload": executors.checked(job["kind"], job.get("payload") or {})}
        [clock] = self.select("select moonmind_queue._now() as now")
        _, next_at = schedules.passed(cron, timezone, None, clock["now"])
        return str(
            self._value(
                "add_schedule",
                name=name,
                cron=cron,
                job=to_json(job),
                timezone=timezone,
                catch_up=catch_up,
                next_at=next_at,
            )
        )

    def remove_schedule(self, name: str) -> None:
        """Remove a schedule; its jobs stay. Raises ``ScheduleNotFound``."""
        self._value("remove_schedule", name=name)

    def pause_schedule(self, name: str, paused: bool = True) -> None:
        """Stop a schedule for a while, or let it go on; raises ``ScheduleNotFound``."""
        self._value("pause_schedule", name=name, paused=paused)

    def run_schedule_now(self, name: str) -> int:
        """Enqueue the job of a schedule by hand; raises ``ScheduleNotFound``."""
        return int(self._value("run_schedule_now", name=name))

    def due_schedules(self, limit: int = 100) -> list[DueSchedule]:
        """Return the schedules whose time has come; workers ask on a timer."""
        return self._rows(DueSchedule, "due_schedules", limit=limit)

    def run_schedule(
        self, schedule: DueSchedule, due: Sequence[datetime], next_at: datetime
    ) -> list[int]:
        """Enqueue what has come of a schedule; returns the jobs: none if another was quicker."""
        with self._cursor() as cursor:
            cursor.execute(
                "select * from moonmind_queue.run_schedule(%s, %s, %s::timestamptz[], %s)",
                [schedule.name, schedule.revision, list(due), next_at],
            )
            return [row[0] for row in cursor.fetchall()]

    def defer_schedule(self, schedule: DueSchedule, error: str) -> None:
        """Let a schedule that cannot be run rest for five minutes, and show why."""
        self._value(
            "defer_schedule",
            name=schedule.name,
            revision=schedule.revision,
            error=storable(error),
        )

    def schedules(self) -> list[Schedule]:
        """Return every schedule, by name."""
        return self._view(Schedule, "schedule_overview", SQL("order by name"))
