"""Commands that mend many jobs at once: let what ended run again, make rows agree."""

import sys
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

import click

from moonmind_queue.cli.output import jobs, json_option, opened, print_json, print_table, shown
from moonmind_queue.cli.times import moment, span

if TYPE_CHECKING:
    from moonmind_queue.queue import Queue

BATCH = 1000
ALL = 2**31 - 1


@click.command()
@click.option(
    "--state",
    "states",
    multiple=True,
    type=click.Choice(("dead_letter", "failed", "cancelled", "succeeded")),
    default=("dead_letter", "failed"),
    show_default=True,
    help="Jobs that ended like this; may be repeated.",
)
@click.option("--agent", help="Only jobs of this agent.")
@click.option("--kind", help="Only jobs of this kind.")
@click.option("--since", type=moment, help="That ended since then: an ISO instant or 2h.")
@click.option("--until", type=moment, help="That ended before then: an ISO instant or 10m.")
@click.option("--error", metavar="TEXT", help="Whose error holds this text.")
@click.option("--pace", type=span, default="0s", help="Let one run each 5s, say, not all at once.")
@click.option("--limit", type=click.IntRange(min=1), help="No more than so many, oldest first.")
@click.option("--dry-run", is_flag=True, help="Only say how many.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@json_option
def redrive(dry_run: bool, yes: bool, as_json: bool, **chosen: Any) -> None:
    """Let all jobs run again that ended without success and match.

    Their attempts are counted anew, and each has an event that says so. Jobs that fail again
    meanwhile are not taken twice.

    \b
    Examples:
      moonmind-queue redrive --kind codex_exec --since 2h --error "rate limit" --pace 5s
      moonmind-queue redrive --state dead_letter --dry-run
    """
    pace, limit = chosen.pop("pace"), chosen.pop("limit") or ALL
    with opened() as queue:
        [row] = queue.select("select moonmind_queue._now() as now")
        chosen |= {name: _before(row["now"], chosen[name]) for name in ("since", "until")}
        matching = len(queue.redrive(**chosen, limit=limit, dry_run=True))
        done = 0
        if matching and not dry_run and _agreed(matching, pace, yes=yes):
            done = _run_again(queue, chosen, row["now"], pace, min(limit, matching))
    if as_json:
        print_json({"matching": matching, "redriven": done, "dry_run": dry_run})
    elif dry_run or not matching:
        click.echo(f"{jobs(matching)} would run again" if matching else "no such jobs")
    else:
        kept = matching - done
        passed = f"; {jobs(kept)} no longer matched or was locked" if kept else ""
        click.echo(f"{jobs(done)} will run again{passed}")


@click.command()
@json_option
def repair(as_json: bool) -> None:
    """Make rows agree that somebody wrote by hand, and say what was wrong.

    The queue's own functions leave nothing to repair; `status` says when there is something.

    \b
    Example:
      moonmind-queue repair
    """
    with opened() as queue:
        faults = [{"job": each.job_id, "fault": each.fault} for each in queue.repair()]
    if as_json:
        print_json(faults)
    else:
        print_table(faults, "job", "fault", empty="nothing to repair")


def _run_again(
    queue: "Queue", chosen: Mapping[str, Any], start: datetime, pace: timedelta, total: int
) -> int:
    """Go through the jobs in batches, each a transaction; the pace goes on where it was."""
    done = last = 0
    while done < total:
        batch = queue.redrive(
            **chosen,
            pace=pace,
            limit=min(BATCH, total - done),
            above=last,
            first_at=start + pace * done,
        )
        if not batch:
            break
        done, last = done + len(batch), batch[-1]
        if total > BATCH:
            click.echo(f"\r{done} of {total} jobs", nl=False, err=True)
    if total > BATCH:
        click.echo(err=True)
    return done


def _agreed(number: int, pace: timedelta, *, yes: bool) -> bool:
    if yes or not sys.stdin.isatty():
        return True
    spread = f", the last in {shown(pace * (number - 1))}" if pace and number > 1 else ""
    click.confirm(f"Let {jobs(number)} run again{spread}?", abort=True, err=True)
    return True


def _before(now: datetime, moment: datetime | timedelta | None) -> datetime | None:
    return now - moment if isinstance(moment, timedelta) else moment
