"""The commands on tasks: seed, list, show and draw them."""

import json
from collections import Counter
from pathlib import Path

import click

from moonmind_queue.cli.output import console, json_option, opened, print_json, print_table, shown
from moonmind_queue.cli.run import Group

OUTCOMES = ("created", "updated", "unchanged", "blocked", "restored")
STATE_STYLES = {
    "READY": "cyan",
    "CLAIMED": "yellow",
    "RUNNING": "bold yellow",
    "BLOCKED": "bold magenta",
    "DONE": "green",
    "FAILED": "bold red",
    "CANCELLED": "dim red",
}
FIELDS = ("agent", "deps", "claimed_by", "lease_until", "retries", "created_at", "updated_at")
REASON = """
select reason from moonmind_queue.blocked_job where id = %(job)s
union all
select reason from moonmind_queue.queued_job where id = %(job)s
"""

dag_option = click.option(
    "--dag", default="agentmux", show_default=True, help="Name of the DAG, if you have several."
)


@click.group(cls=Group)
def tasks() -> None:
    """Seed, list, show and draw tasks."""


@tasks.command()
@click.argument("file", type=click.Path(path_type=Path))
@dag_option
@json_option
def seed(file: Path, dag: str, as_json: bool) -> None:
    """Make the tasks what FILE says: a YAML list of tasks, or one under tasks:.

    New tasks are created and changed ones updated; what is done stays done. A task that is not in
    FILE any more is blocked until it returns. All or nothing. A database without a queue gets one.

    \b
    Example:
      agentmux tasks seed agentmux/dag.yaml
    """
    from moonmind_queue import migrate
    from moonmind_queue.agentmux import control
    from moonmind_queue.agentmux.dag import read
    from moonmind_queue.settings import DatabaseSettings

    graph = read(file)
    dsn = DatabaseSettings.load().database_url
    if migrate.current(dsn) is None:
        migrate.upgrade(dsn)
        click.echo("The database had no queue yet; it has one now.", err=True)
    with opened() as queue:
        seeded = control.seed(queue, graph, dag)
    if as_json:
        print_json([{"id": t.task, "job_id": t.job_id, "outcome": t.outcome} for t in seeded])
        return
    counts = Counter(each.outcome for each in seeded)
    click.echo(", ".join(f"{counts[each]} {each}" for each in OUTCOMES))
    for each in seeded:
        if each.outcome in ("blocked", "restored"):
            click.echo(f"  {each.outcome}: {each.task}")


@tasks.command()
@click.option("--agent", help="Only tasks of this agent.")
@click.option("--state", multiple=True, help="Only tasks in this state; may be repeated.")
@click.option("--dag", help="Only tasks of this DAG.")
@click.option("--limit", type=click.IntRange(1, 10_000), default=200, show_default=True)
@json_option
def ls(
    agent: str | None, state: tuple[str, ...], dag: str | None, limit: int, as_json: bool
) -> None:
    """List tasks with their states.

    \b
    Examples:
      agentmux tasks ls --agent codex
      agentmux tasks ls --state READY --state BLOCKED --json
    """
    from moonmind_queue.agentmux import tasks as known
    from moonmind_queue.agentmux.vocabulary import TaskState

    states = tuple(word.upper() for word in state)
    if unknown := [word for word in states if word not in list(TaskState)]:
        raise click.UsageError(f"--state {unknown[0]!r} is none of {', '.join(TaskState)}")
    with opened() as queue:
        rows = known.listed(queue, agent=agent, states=states, dag=dag, limit=limit + 1)
    more = len(rows) > limit
    rows = rows[:limit]
    if as_json:
        print_json(rows)
        return
    for row in rows:
        row["worker"] = row["claimed_by"]
    columns = ("id", "state", "agent", "name", "deps", "worker", "retries")
    print_table(rows, *columns, empty="no such tasks")
    if more:
        click.echo(f"{limit} shown, there are more: --limit {10 * limit}")


@tasks.command()
@click.argument("task")
@json_option
def show(task: str, as_json: bool) -> None:
    """Show TASK: what is to be done, how it stands and why, and what its runs left.

    \b
    Example:
      agentmux tasks show smoke:noop-codex
    """
    from rich.text import Text

    from moonmind_queue.agentmux import tasks as known
    from moonmind_queue.agentmux.status import told

    with opened() as queue:
        row = known.show(queue, task)
        job = row["job_id"]
        reason = next((each["reason"] for each in queue.select(REASON, job=job)), None)
        events = queue.select(
            "select ts, type, task_id, worker_id, payload from moonmind_queue.agentmux_event"
            " where job_id = %(job)s order by seq",
            job=job,
        )
        files = queue.select(
            "select run, name, size_bytes from moonmind_queue.job_artifact"
            " where job_id = %(job)s order by id",
            job=job,
        )
    if as_json:
        print_json({**row, "reason": reason, "events": events, "artifacts": files})
        return
    out = console()
    title = f"{row['id']}" + (f" · {row['name']}" if row["name"] else "")
    out.print(Text.assemble((title, "bold"), "  ", (row["state"], STATE_STYLES[row["state"]])))
    for name in FIELDS:
        if row[name] not in (None, [], ""):
            out.print(Text(f"{name.replace('_', ' '):>12}  {shown(row[name])}"))
    if reason:
        out.print(Text(f"{'reason':>12}  {reason}"))
    for name in ("payload", "result"):
        if row[name]:
            out.print(Text(f"{name:>12}  {json.dumps(row[name], ensure_ascii=False)}"))
    for number, event in enumerate(events):
        out.print(Text(f"{'' if number else 'events':>12}  {told(event)}"))
    for number, file in enumerate(files):
        heading = "" if number else "artifacts"
        out.print(Text(f"{heading:>12}  {file['run']}/{file['name']} ({file['size_bytes']} bytes)"))


@tasks.command()
@click.option(
    "--format", "how", type=click.Choice(["text", "mermaid", "svg"]), default="text",
    show_default=True, help="How to draw it.",
)  # fmt: skip
@click.option("-o", "--output", type=click.Path(path_type=Path), help="A file instead of here.")
@dag_option
def graph(how: str, output: Path | None, dag: str) -> None:
    """Draw the DAG with the states of its tasks.

    \b
    Examples:
      agentmux tasks graph
      agentmux tasks graph --format svg -o dag.svg
    """
    from moonmind_queue.agentmux import graph as drawing
    from moonmind_queue.agentmux import tasks as known

    with opened() as queue:
        nodes = known.nodes(queue, dag)
    draw = {"text": drawing.text, "mermaid": drawing.mermaid, "svg": drawing.svg}[how]
    if output:
        output.write_text(draw(nodes) + "\n", encoding="utf-8")
        click.echo(f"{output}: {len(nodes)} tasks")
    else:
        click.echo(draw(nodes))


@tasks.command()
def schema() -> None:
    """Print the JSON Schema of a DAG file, for your editor.

    \b
    Example:
      agentmux tasks schema > dag.schema.json
    """
    from moonmind_queue.agentmux import dag

    click.echo(json.dumps(dag.schema(), indent=2))
