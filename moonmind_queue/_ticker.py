"""Enqueues what schedules bring. Any number of workers may tick: each occurrence brings one job."""

import structlog

from moonmind_queue import schedules
from moonmind_queue.errors import DatabaseError, InvalidArgument
from moonmind_queue.queue import Queue

log = structlog.get_logger()


def tick(queue: Queue) -> None:
    """Run the schedules whose time has come; raises ``DatabaseUnavailable``.

    One that cannot be run is put off with its reason, so that it holds up nothing else.
    """
    for due in queue.due_schedules():
        try:
            come, next_at = schedules.passed(due.cron, due.timezone, due.next_at, due.now)
            jobs = queue.run_schedule(due, come, next_at)
        except (InvalidArgument, DatabaseError) as error:
            log.warning("schedule.deferred", schedule=due.name, error=str(error))
            queue.defer_schedule(due, str(error))
        else:
            if jobs:
                log.info("schedule.ran", schedule=due.name, jobs=len(jobs), next_at=str(next_at))
