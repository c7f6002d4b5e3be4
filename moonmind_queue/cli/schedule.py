"""Commands for what is enqueued again and again."""

from datetime import UTC, datetime, tzinfo
from itertools import chain, islice
from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo

import click

from moonmind_queue.cli.output import json_option, opened, print_json, print_table
from moonmind_queue.cli.produce import job_from, job_options

if TYPE_CHECKING:
    from moonmind_queue.queue import Queue

SHOWN_TIMES = 3


class _InOrder(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.commands)


@click.group(cls=_InOrder)
def schedule() -> None:
    """Enqueue a job whenever a cron expression comes.

    Workers do it, each occurrence once, however many of them there are. Where clocks change, a
    time such as "30 2 * * *" runs once, and a rhythm such as "*/15 * * * *" goes on.

    \b
    Examples:
      moonmind-queue schedule add nightly "0 2 * * *" noop --timezone Europe/Berlin
      moonmind-queue schedule ls
      moonmind-queue schedule run-now nightly
      moonmind-queue schedule rm nightly
    """


@schedule.command(no_args_is_help=True)
@click.argument("schedule", metavar="NAME")
@click.argument("cron")
@job_options
@click.option(
    "--timezone",
    default="UTC",
    show_default=True,
    metavar="ZONE",
    help="Whose clock CRON means, such as Europe/Berlin.",
)
@click.option(
    "--catch-up",
    type=click.Choice(["skip", "once", "all"]),
    default="once",
    show_default=True,
    help="Of occurrences missed by more than a minute run none, the latest, or all.",
)
@json_option
def add(
    schedule: str, cron: str, timezone: str, catch_up: str, as_json: bool, **options: Any
) -> None:
    """Add the schedule NAME: a job of KIND whenever CRON comes. Again: change it.

    CRON is minute, hour, day of month, month and day of week. The other options say what the job
    is, as for enqueue. The same command again changes nothing, so a deployment may repeat it.

    \b
    Examples:
      moonmind-queue schedule add ping "*/15 * * * *" noop
      moonmind-queue schedule add nightly "0 2 * * 1-5" codex_exec --timezone Europe/Berlin \\
        --catch-up skip --repo acme/site --instruction "Update the dependencies"
    """
    given = {name: value for name, value in job_from(**options).items() if value is not None}
    with opened() as queue:
        change = queue.add_schedule(schedule, cron, given, timezone=timezone, catch_up=catch_up)
        times = _coming(queue, schedule)
    if as_json:
        print_json({"name": schedule, "change": change, "next": times})
        return
    click.echo(f"schedule {schedule} is {change}; it comes at")
    for time in times:
        click.echo(f"  {_local(time, timezone)}")


@schedule.command()
@json_option
def ls(as_json: bool) -> None:
    """List schedules with their next time and their latest job."""
    with opened() as queue:
        rows = queue.select(
            """
            select schedule.name, schedule.cron, schedule.timezone, schedule.catch_up,
                   schedule.paused, schedule.next_at, schedule.last_at, schedule.last_job_id,
                   latest.state as last_state, schedule.error, schedule.job
            from moonmind_queue.schedule_overview as schedule
            left join moonmind_queue.job_overview as latest on latest.id = schedule.last_job_id
            order by schedule.name
            """
        )
    if as_json:
        print_json(rows)
        return
    for row in rows:
        row["kind"], row["last_job"] = row["job"]["kind"], row["last_job_id"]
        row["next"] = "paused" if row["paused"] else _local(row["next_at"], row["timezone"])
        row["state"] = row["last_state"]
        row["error"] = (row["error"] or "").partition("\n")[0]
    columns = ("name", "cron", "timezone", "kind", "catch_up", "next", "last_job", "state", "error")
    print_table(rows, *columns, empty="no schedules")


@schedule.command()
@click.argument("names", metavar="NAME...", nargs=-1, required=True)
@json_option
def rm(names: tuple[str, ...], as_json: bool) -> None:
    """Remove schedules; their jobs stay.

    \b
    Example:
      moonmind-queue schedule rm nightly
    """
    with opened() as queue:
        for name in names:
            queue.remove_schedule(name)
            if not as_json:
                click.echo(f"schedule {name} is removed")
    if as_json:
        print_json({"removed": names})


@schedule.command(name="run-now")
@click.argument("name")
@json_option
def run_now(name: str, as_json: bool) -> None:
    """Enqueue the job of a schedule by hand, besides its times.

    \b
    Example:
      moonmind-queue schedule run-now nightly
    """
    with opened() as queue:
        job = queue.run_schedule_now(name)
        state = queue.get(job).state
    if as_json:
        print_json({"id": job, "state": state})
    else:
        click.echo(f"job {job} is {state}")


@schedule.command()
@click.argument("name")
@json_option
def pause(name: str, as_json: bool) -> None:
    """Stop a schedule for a while.

    \b
    Example:
      moonmind-queue schedule pause nightly
    """
    _pause(name, True, as_json=as_json)


@schedule.command()
@click.argument("name")
@json_option
def resume(name: str, as_json: bool) -> None:
    """Let a paused schedule go on; --catch-up says what becomes of what was missed.

    \b
    Example:
      moonmind-queue schedule resume nightly
    """
    _pause(name, False, as_json=as_json)


def _pause(name: str, paused: bool, *, as_json: bool) -> None:
    with opened() as queue:
        queue.pause_schedule(name, paused)
    if as_json:
        print_json({"name": name, "paused": paused})
    else:
        click.echo(f"schedule {name} {'is paused' if paused else 'goes on'}")


def _coming(queue: "Queue", name: str) -> list[datetime]:
    """Return the times that are to come, beginning with the one that the workers wait for."""
    from moonmind_queue.schedules import occurrences

    found = queue.select(
        """
        select cron, timezone, next_at, moonmind_queue._now() as now
        from moonmind_queue.schedule_overview
        where name = %(name)s
        """,
        name=name,
    )
    for row in found:  # none when somebody was quick to remove it
        first = [row["next_at"]] if row["next_at"] else []  # none yet when it came from psql
        after = row["next_at"] or row["now"]
        coming = occurrences(row["cron"], row["timezone"], after)
        return list(islice(chain(first, coming), SHOWN_TIMES))
    return []


def _local(time: datetime | None, timezone: str) -> str:
    """Return a time as the clock on the wall there shows it; UTC where the zone is not known."""
    if time is None:
        return "soon"
    try:
        zone: tzinfo = ZoneInfo(timezone)
    except (LookupError, ValueError, OSError):
        zone = UTC
    return time.astimezone(zone).isoformat(" ", "minutes")
