"""Stops workers and starts a DAG anew, through the database: nothing here looks at a process."""

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from moonmind_queue.agentmux.dag import Dag
from moonmind_queue.errors import InvalidArgument, JobNotFound, WrongState

if TYPE_CHECKING:
    from moonmind_queue._dags import SeededTask
    from moonmind_queue.queue import Queue

PATIENCE = 15.0  # seconds for workers to end
LOOK = 0.2  # seconds between two looks at whether they have

# Only our own workers are asked to end; a daemon that serves the same agent is somebody else's.
LIVE = """
select id, worker, host, pid from moonmind_queue.worker_overview
where status = 'live' and versions ? 'agentmux'
  and (%(agent)s::text is null or %(agent)s = any (agents))
  and (%(worker)s::text is null or worker = %(worker)s)
order by id
"""
RUNNING = """
select id, worker, host, pid from moonmind_queue.worker_overview
where id = any (%(ids)s::bigint[]) and status = 'live'
"""


def stop(queue: "Queue", *, agent: str | None = None, worker: str | None = None) -> list[int]:
    """Ask the live workers of an agent, or one of them, to end; return their process starts."""
    asked = []
    for row in queue.select(LIVE, agent=agent, worker=worker):
        try:
            queue.stop_worker(row["id"])
        except JobNotFound:  # it has just ended by itself
            continue
        asked.append(int(row["id"]))
    return asked


def reset(
    queue: "Queue",
    dag: Dag | None,
    name: str,
    *,
    force: bool,
    waiting: Callable[[list[dict[str, Any]]], None],
) -> tuple["list[SeededTask]", int]:
    """Stop all workers, seed again, let every task run anew; return the seeded, and the epoch.

    ``waiting`` hears who is still running. Raises ``WrongState`` when somebody is after 15 s,
    unless forced.
    """
    left = _wait(queue, stop(queue), waiting)
    if left and not force:
        raise WrongState("Some workers are still running. Use --force to proceed anyway.")
    with queue.connection.transaction():
        seeded = seed(queue, dag, name) if dag else []
        return seeded, queue.reset_dag(name, force=force)


def seed(queue: "Queue", dag: Dag, name: str) -> "list[SeededTask]":
    """Seed a DAG; what the database refuses is told with file and line."""
    try:
        return queue.seed_dag(dag.seeds(), dag.source, name)
    except InvalidArgument as error:
        raise dag.explain(error) from error


def _wait(
    queue: "Queue", asked: list[int], waiting: Callable[[list[dict[str, Any]]], None]
) -> list[dict[str, Any]]:
    """Return who has not ended within the time."""
    deadline = time.monotonic() + PATIENCE
    while left := queue.select(RUNNING, ids=asked):
        if time.monotonic() > deadline:
            break
        waiting(left)
        time.sleep(LOOK)
    return left
