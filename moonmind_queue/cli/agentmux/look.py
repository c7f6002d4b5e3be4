"""The commands that show how things stand: status, events, and files for other tools."""

import os
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from moonmind_queue.cli.agentmux.tasks import STATE_STYLES
from moonmind_queue.cli.output import duration, json_option, opened, print_json

if TYPE_CHECKING:
    from rich.console import RenderableType

    from moonmind_queue.agentmux.status import Status
    from moonmind_queue.queue import Queue

LOOK = 0.5  # seconds between two looks at whether something happened
LEAST = 5.0  # seconds after which a watched page is drawn anyway, for its ages
LATEST = 50

home_option = click.option(
    "--home", type=click.Path(path_type=Path), help="Where to write. [MOONMIND_AGENTMUX_HOME]"
)


@click.command()
@click.option("--watch", is_flag=True, help="Go on, and show what changes, until Ctrl-C.")
@home_option
@json_option
def status(watch: bool, home: Path | None, as_json: bool) -> None:
    """Show how the tasks stand, and write it to state/status.md.

    \b
    Examples:
      agentmux status
      agentmux status --watch
    """
    if watch and as_json:
        raise click.UsageError("--watch draws a page; for programs there is events -f --jsonl")
    stale, folder = _surroundings(home)
    from moonmind_queue.agentmux import status as looking

    with opened() as queue:
        if watch:
            _watch(queue, folder, stale)
            return
        seen = looking.look(queue, stale=stale)
    folder.write("state/status.md", looking.markdown(seen).encode())
    if as_json:
        print_json(
            {
                "at": seen.at,
                "counts": seen.counts,
                "blocked": seen.stuck,
                "events": seen.events,
                "workers": seen.workers,
            }
        )
        return
    from moonmind_queue.cli.output import console

    console().print(_page(seen))
    click.echo(f"\n{os.path.relpath(folder.root / 'state/status.md')} is up to date.")


@click.command()
@click.option("-f", "--follow", is_flag=True, help="Go on until Ctrl-C.")
@click.option("--last", type=click.IntRange(0), default=LATEST, show_default=True, metavar="N")
@click.option("--jsonl", is_flag=True, help="A line of JSON for each, as in state/events.jsonl.")
def events(follow: bool, last: int, jsonl: bool) -> None:
    """Print what happened to tasks, and go on with what happens.

    Followed, no event is missed and none comes twice.

    \b
    Examples:
      agentmux events --last 10
      agentmux events -f --jsonl
    """
    from moonmind_queue.agentmux import events as known
    from moonmind_queue.agentmux.status import told

    with opened() as queue:
        for event in _events(queue, last, follow=follow):
            click.echo(known.line(event) if jsonl else told(event))


@click.command()
@home_option
def export(home: Path | None) -> None:
    """Write state/events.jsonl, heartbeats, artifacts and status.md, for tools that read files.

    \b
    Example:
      agentmux export --home /srv/agentmux
    """
    stale, folder = _surroundings(home)
    from moonmind_queue.agentmux.export import export as write

    with opened() as queue:
        done = write(queue, folder, stale=stale)
    click.echo(
        f"{folder.root}: {done.events} events, {done.heartbeats} heartbeats,"
        f" {done.artifacts} new artifacts, status.md"
    )


def _surroundings(home: Path | None) -> tuple[timedelta, Any]:
    from moonmind_queue.agentmux.folder import Folder
    from moonmind_queue.settings import Settings

    settings = Settings.load()
    return timedelta(seconds=settings.stale_seconds), Folder(home or settings.agentmux_home)


def _events(queue: "Queue", last: int, *, follow: bool) -> Iterator[dict[str, Any]]:
    from moonmind_queue.agentmux import events as known

    cursor = queue.event_cursor(last=last)
    while True:
        while page := queue.read_events(cursor):
            yield from known.translated(queue, page)
            cursor = page[-1].cursor
        if not follow:
            return
        time.sleep(LOOK)


def _watch(queue: "Queue", folder: Any, stale: timedelta) -> None:
    """Draw the page again when something happened, and now and then for the ages on it."""
    from rich.live import Live

    from moonmind_queue.agentmux import status as looking
    from moonmind_queue.cli.output import console

    cursor = queue.event_cursor()
    drawn = 0.0
    with Live(console=console(), auto_refresh=False, screen=console().is_terminal) as live:
        while True:
            page = queue.read_events(cursor)
            if page or time.monotonic() - drawn > LEAST:
                cursor = page[-1].cursor if page else cursor
                seen = looking.look(queue, stale=stale)
                live.update(_page(seen), refresh=True)
                folder.write("state/status.md", looking.markdown(seen).encode())
                drawn = time.monotonic()
            time.sleep(LOOK)


def _page(seen: "Status") -> "RenderableType":
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    from moonmind_queue.agentmux.status import STATES, told

    def heading(words: str) -> Text:
        return Text(f"\n{words}", style="bold")

    counts = Table(box=None, header_style="bold", pad_edge=False)
    counts.add_column("agent")
    for state in STATES:
        counts.add_column(state.lower(), justify="right")
    for agent, numbers in seen.counts.items():
        cells = [(numbers.get(state, 0), state) for state in STATES]
        counts.add_row(
            agent, *(Text(str(n), style=STATE_STYLES[s] if n else "dim") for n, s in cells)
        )
    workers = Table(box=None, header_style="bold", pad_edge=False)
    for column in ("agent", "worker", "status", "seen", "task"):
        workers.add_column(column)
    for each in seen.workers:
        style = {"live": "green", "stale": "red"}.get(each["status"], "dim")
        age = f"{duration(seen.at - each['seen_at'])} ago"
        word = Text(each["status"], style=style)
        workers.add_row(each["agent"], each["worker"], word, age, each["task"] or "")
    parts: list[RenderableType] = [counts]
    if seen.stuck:
        parts.append(heading("blocked, or waiting for what failed"))
        parts += [
            Text(f"{each['task']} ({each['state']}): {each['reason']}") for each in seen.stuck
        ]
    parts += [heading("workers"), workers, heading("last events")]
    parts += [Text(told(event)) for event in seen.events]
    return Group(*parts)
