"""The commands that print and follow what happens: the history, and what jobs print."""

import time
from collections.abc import Iterator
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import click

from moonmind_queue.cli.files import write
from moonmind_queue.cli.output import (
    EVENT_STYLES,
    console,
    json_option,
    opened,
    print_json,
)
from moonmind_queue.cli.times import span

if TYPE_CHECKING:
    from moonmind_queue.model import Event, LogChunk
    from moonmind_queue.queue import Queue

FOLLOW_SECONDS = 0.25
LOG_SECONDS = 0.1
PAGE = 50  # pieces of a log, each of up to 256 KiB
LATEST = 50
# The last piece that came before the latest attempt: its number may have been used before.
BEFORE = """
select coalesce(max(pos), 0) as pos
from moonmind_queue.job_log
where job_id = %(job)s and at < (
    select max(at) from moonmind_queue.job_history where job_id = %(job)s and type = 'claimed'
)
"""
# What a line has room for; --json has everything.
TELLING = ("attempt", "attempts", "retry_at", "exit_code", "size_bytes", "thread_id", "error")
FIELDS = ("job_id", "seq", "type", "level", "message", "data", "worker", "at")
PIECE_FIELDS = ("job_id", "pos", "at", "attempt", "stage", "stream", "content")

Read = TypeVar("Read", covariant=True)


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
    if job is not None and since is not None:
        raise click.UsageError("--since is for the events of all jobs, not of one")
    source = _AllJobs(since, follow=follow) if job is None else _OneJob(job, follow=follow)
    for event in _read(source, follow=follow):
        row = {name: getattr(event, name) for name in FIELDS}
        if as_json:
            print_json(row)
        else:
            _print_event(row, with_job=job is None)


@click.command()
@click.argument("job", type=int)
@click.option("-f", "--follow", is_flag=True, help="Go on until the job has ended, or Ctrl-C.")
@json_option
def logs(job: int, follow: bool, as_json: bool) -> None:
    """Print the log of a job's latest attempt, also while it runs.

    Followed, or with --json, it is what the job printed as it came: stdout and stderr, and in
    JSON the stage; further attempts are added. Else it is the stored log, once there is one.

    \b
    Examples:
      moonmind-queue logs 7 -f
      moonmind-queue logs 7 | less -R
    """
    if not follow and not as_json and _print_stored_log(job):
        return
    printed = False
    for piece in _read(_Log(job, follow=follow), follow=follow):
        printed = True
        if as_json:
            print_json({name: getattr(piece, name) for name in PIECE_FIELDS})
        else:
            click.echo(piece.content, nl=False, err=piece.stream == "stderr")
    if not printed and not as_json:
        raise click.ClickException(
            f"job {job} has printed nothing; see what happens: moonmind-queue events {job} -f"
        )


def _print_stored_log(job: int) -> bool:
    """Print the log that the latest attempt left as an artifact; returns whether there is one."""
    with opened() as queue:
        attempt = queue.get(job).attempt
        for each in queue.artifacts(job):
            log = each.name.startswith("logs/") and each.content_type.startswith("text/")
            if log and each.attempt >= attempt:
                write(queue, each, None)
                return True
    return False


def _read(source: "_Source[Read]", *, follow: bool) -> "Iterator[Read]":
    """Read to the end; followed, over one connection after the other."""
    from moonmind_queue._connection import reconnect_delay
    from moonmind_queue.errors import DatabaseUnavailable

    failures = 0
    while True:
        try:
            with opened() as queue:
                failures = 0
                yield from source.read(queue)
            return
        except DatabaseUnavailable as error:
            if not follow or not source.begun:
                raise
            failures += 1
            reason = str(error).partition("\n")[0]
            click.echo(f"moonmind-queue: {reason}; going on when it is back", err=True)
            time.sleep(reconnect_delay(failures, 10))


class _Source(Protocol[Read]):
    """What is read from where it was left."""

    @property
    def begun(self) -> bool:
        """Whether anything has been read: the job, or the place to begin with."""

    def read(self, queue: "Queue") -> "Iterator[Read]":
        """Read on to the end, or until a followed job has ended."""


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


class _Log:
    """Reads what a job prints from its latest attempt on, as :class:`_OneJob` does."""

    def __init__(self, job: int, *, follow: bool) -> None:
        self._job, self._follow, self._seen = job, follow, 0
        self.begun = False

    def read(self, queue: "Queue") -> Iterator["LogChunk"]:
        while True:
            final = queue.get(self._job).state.final
            if not self.begun:
                [before] = queue.select(BEFORE, job=self._job)
                self._seen, self.begun = before["pos"], True
            while page := queue.read_log(self._job, after=self._seen, limit=PAGE):
                yield from page
                self._seen = page[-1].pos
            if not self._follow or final:
                return
            time.sleep(LOG_SECONDS)


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
