"""Heartbeats: a file for each agent that says what its worker is at, for tools that watch files.

The database has the truth, in ``worker_overview`` and in the leases; the file says what was there
at ``ts``, by the database's clock. Of several workers of an agent it shows who wrote last.
"""

import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import structlog

from moonmind_queue._connection import reconnect_delay
from moonmind_queue.agentmux.folder import Folder, safe_name
from moonmind_queue.errors import InvalidArgument, QueueError
from moonmind_queue.queue import Queue, connect

log = structlog.get_logger()

HELD = """
select moonmind_queue._now() as ts, task.id, task.lease_until
from (values (1)) as one (row)
left join moonmind_queue.agentmux_task as task
    on task.claimed_by = %(worker)s and task.agent = %(agent)s
order by task.lease_until desc nulls last
limit 1
"""


LEAST = 0.25  # seconds between two files, however quick the tasks are
AFTER = (0.5, 2.0)  # seconds after a change until another look: an end is reported a moment later


class Heartbeat:
    """The thread that writes a worker's heartbeat: at every change, and every ``period``."""

    def __init__(self, dsn: str, folder: Folder, *, agent: str, worker: str, period: float) -> None:
        self._dsn, self._folder = dsn, folder
        self._agent, self._worker, self._period = agent, worker, period
        self._changed = threading.Event()
        self._done = threading.Event()
        self._after: Iterator[float] = iter(())
        self._thread = threading.Thread(target=self._beat, name="heartbeat", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def stop(self) -> None:
        """Write the last one, and end the thread."""
        self._done.set()
        self._changed.set()
        self._thread.join(timeout=5)

    def changed(self) -> None:
        """Write soon: a task began or has ended."""
        self._changed.set()

    def _beat(self) -> None:
        failures = 0
        while True:
            try:
                with connect(self._dsn, application_name="moonmind-queue heartbeat") as queue:
                    failures = 0
                    while True:
                        last = self._done.is_set()
                        self._changed.clear()
                        self._write(queue, "stopped" if last else None)
                        if last:
                            return
                        self._wait()
            except QueueError as error:
                failures += 1
                log.warning("heartbeat.unreachable", error=str(error), failures=failures)
                if self._done.is_set():
                    return
                self._changed.wait(reconnect_delay(failures, 10))

    def _wait(self) -> None:
        """Wait for a change, for what comes a moment after one, or until it is time again."""
        if not self._done.wait(LEAST) and self._changed.wait(next(self._after, self._period)):
            self._after = iter(AFTER)

    def _write(self, queue: Queue, note: str | None) -> None:
        [held] = queue.select(HELD, worker=self._worker, agent=self._agent)
        beat = heartbeat(
            held["ts"],
            agent=self._agent,
            worker=self._worker,
            task=held["id"],
            lease_until=held["lease_until"],
            note=note,
        )
        try:
            self._folder.write_json(f"state/heartbeats/{safe_name(self._agent)}.json", beat)
        except (OSError, InvalidArgument) as error:
            log.warning("heartbeat.unwritten", error=str(error))


def heartbeat(
    ts: datetime,
    *,
    agent: str,
    worker: str,
    task: str | None,
    lease_until: datetime | None,
    note: str | None = None,
) -> dict[str, Any]:
    """Return what a heartbeat file says: the fields of the specification, workerId and a note."""
    return {
        "ts": instant(ts),
        "agent": agent,
        "workerId": worker,
        "currentTaskId": task,
        "leaseUntil": instant(lease_until),
        "note": note or ("working" if task else "idle"),
    }


def instant(at: datetime | None) -> str | None:
    """Write an instant as Agentmux does: UTC, milliseconds, Z."""
    if at is None:
        return None
    return at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3] + "Z"
