"""Commands that change the schema or step into a job's life."""

import os
import sys
from datetime import timedelta
from typing import Any

import click

from moonmind_queue.cli.output import json_option, opened, print_json, print_table, shown
from moonmind_queue.cli.times import span

BATCH = 1000  # jobs that one transaction deletes


@click.command()
@click.option("--sql", "print_only", is_flag=True, help="Print the script instead of running it.")
def migrate(print_only: bool) -> None:
    """Create the schema in the database, or bring it up to date.

    Safe to run from many machines at once. The role needs the right to create a schema and, the
    first time on a server, the four roles moonmind_producer, _worker, _operator and _reader.

    \b
    Examples:
      moonmind-queue migrate
      moonmind-queue migrate --sql > schema.sql
    """
    from moonmind_queue import migrate as migrations
    from moonmind_queue.settings import DatabaseSettings

    if print_only:
        migrations.print_sql()
        return
    dsn = DatabaseSettings.load().database_url
    before = migrations.current(dsn)
    migrations.upgrade(dsn)
    after = migrations.current(dsn)
    click.echo(
        f"the schema is at revision {after} already"
        if before == after
        else f"the schema is at revision {after} now; it was {before or 'not there'}"
    )


@click.command()
@click.argument("job", type=int)
@click.argument("text")
@json_option
def say(job: int, text: str, as_json: bool) -> None:
    """Say TEXT to the agent at work on a job: it hears it when its turn is over.

    An agent that is at work goes on in the same conversation; for a job that waits, the next
    attempt begins with it. With - the text is read from standard input.

    \b
    Examples:
      moonmind-queue say 7 "Leave the public interface as it is."
      moonmind-queue say 7 - < remarks.md
    """
    if text == "-":
        text = sys.stdin.read()
    with opened() as queue:
        number = queue.say(job, text)
        state = queue.get(job).state
    if as_json:
        print_json({"id": number, "job": job, "state": state})
        return
    when = "when its turn is over" if state == "running" else "when its next attempt begins"
    click.echo(f"said; the agent hears it {when}")


@click.command()
@click.argument("job", type=int)
@click.option("--reason", help="Kept with the job and its history.")
@json_option
def cancel(job: int, reason: str | None, as_json: bool) -> None:
    """Cancel a job; one that runs is stopped by its worker.

    \b
    Example:
      moonmind-queue cancel 7 --reason "wrong branch"
    """
    with opened() as queue:
        state = queue.cancel(job, reason)
    told = f"{state}; its worker has been told to stop" if not state.final else state
    _say(job, told, {"id": job, "state": state}, as_json=as_json)


@click.command()
@click.argument("job", type=int)
@json_option
def retry(job: int, as_json: bool) -> None:
    """Let a job that has ended or is blocked run again, or one that rests run now.

    \b
    Example:
      moonmind-queue retry 7
    """
    with opened() as queue:
        state = queue.retry(job)
    _say(job, state, {"id": job, "state": state}, as_json=as_json)


@click.command()
@click.argument("job", type=int)
@click.option("--force", is_flag=True, help="Even while its worker is alive.")
@json_option
def unlock(job: int, force: bool, as_json: bool) -> None:
    """Take a job away from a worker that is gone, before its lease ends.

    \b
    Example:
      moonmind-queue unlock 7
    """
    with opened() as queue:
        state = queue.unlock(job, force=force)
    _say(job, state, {"id": job, "state": state}, as_json=as_json)


@click.command()
@click.option("--older-than", type=span, required=True, help="Such as 30d, 12h or 90m.")
@json_option
def prune(older_than: timedelta, as_json: bool) -> None:
    """Delete jobs that ended longer ago, with their history and artifacts.

    A job that another one still needs stays until that is gone too.

    \b
    Example:
      moonmind-queue prune --older-than 30d
    """
    total = 0
    with opened() as queue:
        while deleted := queue.prune(older_than):
            total += deleted
            click.echo(f"\r{total} jobs deleted", nl=False, err=True)
    if total:
        click.echo(err=True)
    if as_json:
        print_json({"deleted": total})
    else:
        click.echo(f"{total} jobs deleted that ended more than {shown(older_than)} ago")


@click.command()
@json_option
def maintain(as_json: bool) -> None:
    """Delete what is older than its retention and make the partitions that are needed soon.

    Workers do this once an hour; it is for cron where no worker runs. Live jobs are never touched.

    \b
    Example:
      moonmind-queue maintain
    """
    total: dict[str, int] = {}
    with opened() as queue:
        more = True
        while more:
            done = {each.what: each.count for each in queue.maintain(BATCH)}
            total = {what: total.get(what, 0) + done.get(what, 0) for what in {**total, **done}}
            more = done.get("jobs", 0) >= BATCH
    if as_json:
        print_json(total)
    else:
        click.echo(", ".join(f"{what}: {n}" for what, n in total.items()) or "nothing to do")


@click.command()
@json_option
def settings(as_json: bool) -> None:
    """Print every setting with its value and where that comes from; secrets are masked."""
    from moonmind_queue.settings import describe

    rows: list[dict[str, Any]] = describe(os.environ)
    if as_json:
        print_json(rows)
    else:
        print_table(rows, "variable", "value", "source", "default", empty="no settings")


def _say(job: int, told: str, record: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        print_json(record)
    else:
        click.echo(f"job {job} is {told}")
