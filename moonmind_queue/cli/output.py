"""How commands reach the database and print: tables for people, JSON for programs."""

import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from rich.console import Console

    from moonmind_queue.errors import QueueError
    from moonmind_queue.queue import Queue

EXIT_REFUSED, EXIT_USAGE, EXIT_DATABASE = 1, 2, 3

STATE_STYLES = {
    "waiting": "dim",
    "queued": "cyan",
    "claimed": "yellow",
    "running": "bold yellow",
    "blocked": "bold magenta",
    "succeeded": "green",
    "failed": "bold red",
    "dead_letter": "bold red",
    "cancelled": "dim red",
}
EVENT_STYLES = {
    "created": "cyan",
    "ready": "cyan",
    "completed": "green",
    "failed": "red",
    "dead_lettered": "bold red",
    "blocked": "magenta",
    "cancelled": "red",
    "cancel_requested": "red",
    "expired": "red",
    "progress": "default",
}

Command = TypeVar("Command", bound=Callable[..., Any])


def json_option(command: Command) -> Command:
    """Add ``--json`` to a command."""
    return click.option("--json", "as_json", is_flag=True, help="Print JSON for programs.")(command)


def exit_code(error: "QueueError") -> int:
    """Return the exit code for an error."""
    from moonmind_queue import errors

    if isinstance(error, errors.DatabaseUnavailable | errors.SchemaMismatch):
        return EXIT_DATABASE
    if isinstance(error, errors.SettingsError | errors.UnknownKind | errors.InvalidPayload):
        return EXIT_USAGE
    return EXIT_REFUSED


@contextmanager
def opened() -> "Iterator[Queue]":
    """Lend a client on the database named in DATABASE_URL."""
    from moonmind_queue.queue import connect
    from moonmind_queue.settings import DatabaseSettings

    settings = DatabaseSettings.load()
    with connect(settings.database_url, application_name="moonmind-queue cli") as queue:
        yield queue


def console() -> "Console":
    """Return the console that prints to standard output as it is now."""
    from rich.console import Console

    # A file or a pipe has no width; nobody wants a table cut at 80 columns in it.
    return Console(highlight=False, width=None if sys.stdout.isatty() else 200)


def print_json(value: Any) -> None:
    """Print one JSON document on one line."""
    from moonmind_queue.model import plain

    def written(other: Any) -> Any:
        return str(other) if (short := plain(other)) is other else short

    everything = (sys.stdout.encoding or "").lower().startswith("utf")
    click.echo(json.dumps(value, default=written, ensure_ascii=not everything))


def print_table(rows: Sequence[Mapping[str, Any]], *columns: str, empty: str) -> None:
    """Print rows as a table with the given keys as columns, or say that there are none."""
    if not rows:
        click.echo(empty)
        return
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, header_style="bold", pad_edge=False)
    for column in columns:
        number = isinstance(rows[0][column], int) and column not in ("id", "job")
        table.add_column(column.replace("_", " "), justify="right" if number else "left")
    for row in rows:
        table.add_row(*(Text(shown(row[c]), style=_style(c, row[c])) for c in columns))
    console().print(table)


def shown(value: Any) -> str:
    """Return a value as people read it: instants and durations relative and rounded."""
    if value is None:
        return ""
    if isinstance(value, datetime):
        gap = datetime.now(UTC) - value
        return f"{duration(gap)} ago" if gap >= timedelta() else f"in {duration(-gap)}"
    if isinstance(value, timedelta):
        return duration(value)
    if isinstance(value, list):
        return ", ".join(map(str, value))
    return str(value)


def duration(length: timedelta) -> str:
    """Return a length of time in its largest two units."""
    seconds = round(length.total_seconds())
    for unit, size, lesser, part in (("d", 86400, "h", 3600), ("h", 3600, "min", 60)):
        if seconds >= size:
            return f"{seconds // size} {unit} {seconds % size // part} {lesser}"
    if seconds >= 60:
        return f"{seconds // 60} min {seconds % 60} s"
    return f"{length.total_seconds():.1f} s" if seconds < 10 else f"{seconds} s"


def jobs(number: int) -> str:
    """Return so many jobs in words."""
    return f"{number} job" if number == 1 else f"{number} jobs"


def size(number: int) -> str:
    """Return a number of bytes in a unit that suits it."""
    amount = float(number)
    for unit in ("B", "KiB", "MiB"):
        if amount < 1024:
            return f"{amount:.0f} {unit}" if unit == "B" else f"{amount:.1f} {unit}"
        amount /= 1024
    return f"{amount:.1f} GiB"


def _style(column: str, value: Any) -> str:
    if column in ("state", "status"):
        return STATE_STYLES.get(value, {"live": "green", "stale": "red"}.get(value, "default"))
    return "default"
