"""Finds tasks by their id, and whole DAGs."""

from typing import TYPE_CHECKING, Any

from moonmind_queue.agentmux.graph import Node
from moonmind_queue.errors import JobNotFound

if TYPE_CHECKING:
    from moonmind_queue.queue import Queue

# By its key, which has an index; the id of a task without a key is its job's.
FIND = """
select id as job from moonmind_queue.job_overview where key = %(task)s
union all
select id from moonmind_queue.job_overview where id = %(number)s and key is null
"""
TASK = "select * from moonmind_queue.agentmux_task where job_id = %(job)s"
TASKS = """
select task.id, task.name, task.agent, task.state, task.deps, task.claimed_by, task.lease_until,
       task.retries, task.created_at, task.updated_at, task.job_id
from moonmind_queue.agentmux_task as task
where (%(agent)s::text is null or task.agent = %(agent)s)
  and (%(states)s::text[] = '{}' or task.state = any (%(states)s))
  and (%(dag)s::text is null or exists (
      select from moonmind_queue.agentmux_member as member
      where member.job_id = task.job_id and member.dag = %(dag)s and not member.gone
  ))
  and task.job_id > %(after)s
order by task.job_id
limit %(limit)s
"""


def find(queue: "Queue", task: str) -> int:
    """Return the job of a task; raises ``JobNotFound`` that says how to list them."""
    number = int(task) if task.isascii() and task.isdigit() and len(task) < 19 else None
    rows = queue.select(FIND, task=task, number=number)
    if not rows:
        raise JobNotFound(
            f"there is no task {task!r}; agentmux tasks ls shows those that there are"
        )
    return int(rows[0]["job"])


def show(queue: "Queue", task: str) -> dict[str, Any]:
    """Return a task as the view ``agentmux_task`` has it."""
    [row] = queue.select(TASK, job=find(queue, task))
    return row


def listed(
    queue: "Queue",
    *,
    agent: str | None = None,
    states: tuple[str, ...] = (),
    dag: str | None = None,
    after: int = 0,
    limit: int = 200,
) -> list[dict[str, Any]]:
    """Return tasks in the order in which they were made, without payloads and results.

    Go on after the ``job_id`` of the last one.
    """
    return queue.select(TASKS, agent=agent, states=list(states), dag=dag, after=after, limit=limit)


def nodes(queue: "Queue", dag: str) -> list[Node]:
    """Return the tasks of a DAG as they are drawn."""
    found: list[Node] = []
    after = 0
    while page := listed(queue, dag=dag, after=after, limit=1000):
        found += [Node(row["id"], row["agent"], row["state"], tuple(row["deps"])) for row in page]
        after = page[-1]["job_id"]
    if not found:
        raise JobNotFound(f"there is no DAG {dag!r}; agentmux tasks seed FILE makes one")
    return found
