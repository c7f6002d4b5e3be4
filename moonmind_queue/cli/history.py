"""The command that prints and follows what happened."""

import time
from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

import click

from moonmind_queue.cli.output import EVENT_STYLES, console, json_option, opened, print_json

if TYPE_CHECKING:
    from moonmind_queue.queue import Queue

FOLLOW_SECONDS = 0.25
LATE_COMMITS = timedelta(seconds=30)
# What a line has room for; --json has everything.
TELLING = ("attempt", "attempts", "retry_at", "exit_code", "size_bytes", "thread_id", "error")


@click.command()
@click.argument("job", type=int, required=False)
@click.option("-f", "--follow", is_flag=True, help="Go on until the job has ended, or Ctrl-C.")
@json_option
def events(job: int | None, follow: bool, as_json: bool) -> None:
    """Print the history of JOB, or the latest events of all jobs; JSON comes a line each.

    \b
    Examples:
      moonmind-queue events 7 -f
      moonmind-queue events --follow --json
    """
    with opened() as queue:
        stream = (
            _all_events(queue, follow=follow) if job is None else _events_of(queue, job, follow)
        )
        for event in stream:
            if as_json:
                print_json(event)
            else:
                _print_event(event, with_job=job is None)


def _events_of(queue: "Queue", job: int, follow: bool) -> Iterator[dict[str, Any]]:
    seen = 0
    while True:
        # Read the state first: once it is final, one more look has the whole history.
        final = queue.get(job).state.final
        while page := queue.history(job, after=seen):
            for event in page:
                yield {name: getattr(event, name) for name in event.__slots__}
            seen = page[-1].seq
        if not follow or final:
            return
        time.sleep(FOLLOW_SECONDS)


def _all_events(queue: "Queue", *, follow: bool) -> Iterator[dict[str, Any]]:
    """Yield recent events, then new ones.

    Events carry the time at which they were written, not committed: those of a transaction that
    stays open for longer than ``LATE_COMMITS`` are missed here, and only here.
    """
    rows = queue.select(
        """
        select * from (
            select job_id, seq, type, level, message, data, worker, at
            from moonmind_queue.job_history
            where at > moonmind_queue._now() - interval '1 day'
            order by at desc, job_id desc, seq desc
            limit 50
        ) as latest
        order by at, job_id, seq
        """
    )
    since = queue.select("select moonmind_queue._now() as at")[0]["at"] - LATE_COMMITS
    seen: dict[tuple[int, int], datetime] = {}
    while True:
        for row in rows:
            if (row["job_id"], row["seq"]) not in seen:
                seen[row["job_id"], row["seq"]] = row["at"]
                yield row
        if not follow:
            return
        time.sleep(FOLLOW_SECONDS)
        rows = queue.select(
            """
            select job_id, seq, type, level, message, data, worker, at
            from moonmind_queue.job_history
            where at > %(since)s
            order by at, job_id, seq
            """,
            since=since,
        )
        if rows:
            since = max(since, rows[-1]["at"] - LATE_COMMITS)
        seen = {key: at for key, at in seen.items() if at > since}


def _print_event(event: dict[str, Any], *, with_job: bool) -> None:
    from rich.text import Text

    style = {"warn": "yellow", "error": "red"}.get(event["level"], "default")
    data = event["data"] or {}
    told = event["message"] or data.get("summary", "")
    shown = {k: v for k, v in data.items() if k in TELLING and not isinstance(v, dict | list)}
    console().print(
        Text.assemble(
            (f"{event['at'].astimezone():%H:%M:%S} ", "dim"),
            (f"{event['job_id']:>6} " if with_job else "", "bold"),
            (f"{event['type']:<16} ", EVENT_STYLES.get(event["type"], "yellow")),
            (f"{event['worker'] or '':<12} ", "dim"),
            (told, style),
            (" " * bool(told) + " ".join(f"{k}={v}" for k, v in shown.items()), "dim"),
        ),
        soft_wrap=True,
    )
