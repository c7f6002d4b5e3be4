"""The commands that start and stop workers, and set tasks free or anew."""

from collections import Counter
from pathlib import Path
from typing import Any

import click

from moonmind_queue.cli.agentmux.tasks import OUTCOMES
from moonmind_queue.cli.output import json_option, opened, print_json, print_table

DAG_FILE = Path("agentmux/dag.yaml")


@click.command()
@click.option("--agent", required=True, help="Whose tasks to do.")
@click.option("--worker-id", required=True, metavar="ID", help="Name of this worker.")
@click.option(
    "--concurrency", type=click.IntRange(1), default=1, show_default=True, metavar="N",
    help="How many tasks run at once.",
)  # fmt: skip
@click.option("--stop", is_flag=True, help="Ask that worker to end, wherever it runs.")
def worker(agent: str, worker_id: str, concurrency: int, stop: bool) -> None:
    """Do the tasks of an agent until stopped.

    The first SIGINT or SIGTERM, or --stop from anywhere, hands running tasks back unharmed and ends
    the worker with 0.

    \b
    Examples:
      agentmux worker --agent codex --worker-id codex-1
      agentmux worker --agent codex --worker-id codex-1 --stop
    """
    if stop:
        _stop(agent, worker_id)
        return
    import os

    from moonmind_queue import logs
    from moonmind_queue.agentmux.worker import AgentmuxWorker
    from moonmind_queue.redact import Redactor, environment_secrets
    from moonmind_queue.settings import Settings

    logs.setup(redact=Redactor(environment_secrets(os.environ)).text)
    settings = Settings.load()
    AgentmuxWorker(
        settings=settings,
        agent=agent,
        worker_id=worker_id,
        slots=concurrency,
        home=settings.agentmux_home,
    ).run()


def _stop(agent: str, worker_id: str) -> None:
    from moonmind_queue.agentmux import control

    with opened() as queue:
        if not control.stop(queue, agent=agent, worker=worker_id):
            raise click.ClickException(
                f"no worker {worker_id} of agent {agent} is running; agentmux ps shows who is"
            )
    click.echo(f"Signaled stop for {agent}:{worker_id}.")


@click.command()
@click.option("--all", "everybody", is_flag=True, help="Stopped ones too.")
@json_option
def ps(everybody: bool, as_json: bool) -> None:
    """List workers: agent, workerId, pid and host, whether they live, and what they are at.

    \b
    Example:
      agentmux ps
    """
    from datetime import timedelta

    from moonmind_queue.agentmux import status
    from moonmind_queue.settings import Settings

    with opened() as queue:
        found = status.workers(queue, stale=timedelta(seconds=Settings.load().stale_seconds))
    rows: list[dict[str, Any]] = [
        {
            "agent": row["agent"],
            "workerId": row["worker"],
            "pid": row["pid"],
            "host": row["host"],
            "status": "stopping" if row["stopping"] else row["status"],
            "task": row["task"],
            "seen": row["seen_at"],
        }
        for row in found
        if everybody or row["status"] != "stopped"
    ]
    if as_json:
        print_json(rows)
    else:
        columns = ("agent", "workerId", "pid", "host", "status", "task", "seen")
        print_table(rows, *columns, empty="no workers")


@click.command()
@click.argument("task")
@click.option("--force", is_flag=True, help="Even while its worker is alive.")
def unlock(task: str, force: bool) -> None:
    """Take TASK away from a worker that is gone: it is READY again, at once.

    \b
    Example:
      agentmux unlock spec:write
    """
    from moonmind_queue.agentmux import tasks

    with opened() as queue:
        queue.unlock(tasks.find(queue, task), force=force)
        state = tasks.show(queue, task)["state"]
    click.echo(f"{task} is {state}.")


@click.command()
@click.option("--force", is_flag=True, help="Although workers go on running.")
@click.option(
    "--dag", "file", type=click.Path(path_type=Path),
    help=f"The file to seed again. [{DAG_FILE}, if it is there]",
)  # fmt: skip
@click.option("--name", default="agentmux", show_default=True, help="Name of the DAG.")
def reset(force: bool, file: Path | None, name: str) -> None:
    """Stop all workers, seed again, and let every task run anew; its history stays.

    \b
    Examples:
      agentmux reset
      agentmux reset --force --dag agentmux/dag.yaml
    """
    from moonmind_queue.agentmux import control
    from moonmind_queue.agentmux.dag import read

    graph = read(file or DAG_FILE) if file or DAG_FILE.exists() else None
    told = False

    def waiting(left: list[dict[str, Any]]) -> None:
        nonlocal told
        if not told:
            names = ", ".join(row["worker"] for row in left)
            click.echo(f"Waiting for {names} to stop.", err=True)
            told = True

    with opened() as queue:
        seeded, epoch = control.reset(queue, graph, name, force=force, waiting=waiting)
    if graph:
        counts = Counter(each.outcome for each in seeded)
        click.echo(", ".join(f"{counts[each]} {each}" for each in OUTCOMES))
    click.echo(f"Reset completed. Epoch {epoch} begins.")
