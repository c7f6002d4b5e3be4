"""The command that prints and follows what happened."""

import time
from collections.abc import Iterator
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import click

from moonmind_queue.cli.output import (
    EVENT_STYLES,
    console,
    json_option,
    opened,
    print_json,
    read_age,
)

if TYPE_CHECKING:
    from moonmind_queue.model import Event
    from moonmind_queue.queue import Queue

FOLLOW_SECONDS = 0.25
LATEST = 50
# What a line has room for; --json has everything.
TELLING = ("attempt", "attempts", "retry_at", "exit_code", "size_bytes", "thread_id", "error")
FIELDS = ("job_id", "seq", "type", "level", "message", "data", "worker", "at")


@click.command()
@click.argument("job", type=int, required=False)
@click.option("-f", "--follow", is_flag=True, help="Go on until the job has ended, or Ctrl-C.")
@click.option("--since", metavar="AGE", help="Of all jobs, from so long ago on, such as 2h or 30d.")
@json_option
def events(job: int | None, follow: bool, since: str | None, as_json: bool) -> None:
    """Print the history of JOB, or the latest events of all jobs; JSON comes a line each.

    Followed, no event is missed and none comes twice, however late its transaction commits.

    \b
    Examples:
      moonmind-queue events 7 -f
      moonmind-queue events --since 2h
      moonmind-queue events --follow --json
    """
    if job is not None and since is not None:
        raise click.UsageError("--since is for the events of all jobs, not of one")
    age = None if since is None else read_age("--since", since)
    with opened() as queue:
        stream = (
            _all_events(queue, age, follow=follow)
            if job is None
            else _events_of(queue, job, follow)
        )
        for event in stream:
            row = {name: getattr(event, name) for name in FIELDS}
            if as_json:
                print_json(row)
            else:
                _print_event(row, with_job=job is None)


def _events_of(queue: "Queue", job: int, follow: bool) -> Iterator["Event"]:
    seen = 0
    while True:
        # Read the state first: once it is final, one more look has the whole history.
        final = queue.get(job).state.final
        while page := queue.history(job, after=seen):
            yield from page
            seen = page[-1].seq
        if not follow or final:
            return
        time.sleep(FOLLOW_SECONDS)


def _all_events(queue: "Queue", age: timedelta | None, *, follow: bool) -> Iterator["Event"]:
    if age is None:
        cursor = queue.event_cursor(last=LATEST)
    else:
        [now] = queue.select("select moonmind_queue._now() as at")
        cursor = queue.event_cursor(now["at"] - age)
    while True:
        while page := queue.read_events(cursor):
            yield from page
            cursor = page[-1].cursor
        if not follow:
            return
        time.sleep(FOLLOW_SECONDS)


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
