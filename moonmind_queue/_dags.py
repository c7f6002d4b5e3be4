"""What people ask of the database who work with graphs of tasks: seed one, let it run anew."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from moonmind_queue._calls import Call, rows, value
from moonmind_queue._values import to_json

DAG = "agentmux"  # the name of the one DAG that most people have


@dataclass(frozen=True, slots=True, kw_only=True)
class SeededTask:
    """What became of one task: created, updated, unchanged, blocked or restored."""

    task: str
    job_id: int
    outcome: str


def seed_dag(
    tasks: Sequence[Mapping[str, Any]], source: str = "", dag: str = DAG
) -> Call[list[SeededTask]]:
    """Make the tasks of a DAG these, all or nothing; returns what became of each.

    Each is an object with ``id`` and ``agent``, and if you like ``name``, ``deps`` (ids of tasks
    beside it), ``payload`` (whose ``kind`` names the executor), ``priority``, ``max_attempts``,
    ``timeout`` and ``capabilities``. The id is the key of the job. What is done stays done; a task
    that is gone is blocked until it returns. Raises ``InvalidArgument`` with the place of a fault.
    """
    return rows(SeededTask, "seed_dag", tasks=to_json(list(tasks)), source=source, dag=dag)


def reset_dag(dag: str = DAG, *, force: bool = False) -> Call[int]:
    """Let every task of a DAG run anew, and return the number of the epoch that begins.

    Raises ``JobNotFound`` for a DAG that was never seeded, and ``WrongState`` while a task is
    held, unless forced: then it is taken away from its worker.
    """
    return value("reset_dag", int, dag=dag, force=force)
