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
)
from moonmind_queue.cli.times import span

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
@click.option("--since", type=span, help="Of all jobs, from so long ago on, such as 2h or 30d.")
@json_option
def events(job: int | None, follow: bool, since: timedelta | None, as_json: bool) -> None:
    """Print the history of JOB, or the latest events of all jobs; JSON comes a line each.

    Followed, no event is missed and none comes twice, however late its transaction commits.

    \b
    Examples:
      moonmind-queue events 7 -f
      moonmind-queue events --since 2h
      moonmind-queue events --follow --json
    """
    from moonmind_queue._connection import reconnect_delay
    from moonmind_queue.errors import DatabaseUnavailable

    if job is not None and since is not None:
        raise click.UsageError("--since is for the events of all jobs, not of one")
    source = _AllJobs(since, follow=follow) if job is None else _OneJob(job, follow=follow)
    failures = 0
    while True:
        try:
            with opened() as queue:
                failures = 0
                for event in source.read(queue):
                    row = {name: getattr(event, name) for name in FIELDS}
                    if as_json:
                        print_json(row)
                    else:
                        _print_event(row, with_job=job is None)
            return
        except DatabaseUnavailable as error:
            if not follow or not source.begun:
                raise
            failures += 1
            reason = str(error).partition("\n")[0]
            click.echo(f"moonmind-queue: {reason}; going on when it is back", err=True)
            time.sleep(reconnect_delay(failures, 10))


class _OneJob:
    """Reads the history of a job from where it was left, over one connection after the other."""

    def __init__(self, job: int, *, follow: bool) -> None:
        self._job, self._follow, self._seen = job, follow, 0
        self.begun = False

    def read(self, queue: "Queue") -> Iterator["Event"]:
        while True:
            # Read the state first: once it is final, one more look has the whole history.
            final = queue.get(self._job).state.final
            self.begun = True
            while page := queue.history(self._job, after=self._seen):
                yield from page
                self._seen = page[-1].seq
            if not self._follow or final:
                return
            time.sleep(FOLLOW_SECONDS)


class _AllJobs:
    """Reads the events of all jobs from where they were left, as :class:`_OneJob` does."""

    def __init__(self, age: timedelta | None, *, follow: bool) -> None:
        self._age, self._follow, self._cursor = age, follow, ""

    @property
    def begun(self) -> bool:
        return bool(self._cursor)

    def read(self, queue: "Queue") -> Iterator["Event"]:
        if not self._cursor:
            self._cursor = self._start(queue)
        while True:
            while page := queue.read_events(self._cursor):
                yield from page
                self._cursor = page[-1].cursor
            if not self._follow:
                return
            time.sleep(FOLLOW_SECONDS)

    def _start(self, queue: "Queue") -> str:
        if self._age is None:
            return queue.event_cursor(last=LATEST)
        [now] = queue.select("select moonmind_queue._now() as at")
        return queue.event_cursor(now["at"] - self._age)


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
