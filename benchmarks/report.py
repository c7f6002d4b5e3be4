"""Make the report of a run from its record, beside it.

    python -m benchmarks.report benchmarks/results/latest.json

makes latest.md, w2.svg, w3.svg and w5.svg; those of any other record bear its name in front.
"""

from pathlib import Path

import click
from rich.console import Console
from rich.markdown import Markdown

from benchmarks import plots, tables
from benchmarks.record import Record, RecordError

LATEST = "latest.json"  # the record of everything, whose plots the documents show


def write(path: Path) -> list[Path]:
    """Write the table and the plots of the record in a file; return what was written.

    Raises ``RecordError`` for a file that is no record, and ``PlotsError``, with the table already
    written, where plots cannot be drawn.
    """
    record = Record.read(path)
    table = path.with_suffix(".md")
    table.write_text(tables.render(record))
    prefix = "" if path.name == LATEST else f"{path.stem}."
    return [table, *plots.write(record, path.parent, prefix)]


def show(path: Path) -> None:
    """Print the table of a record to the terminal."""
    Console().print(Markdown(path.with_suffix(".md").read_text()))


@click.command()
@click.argument("record", type=click.Path(path_type=Path))
def main(record: Path) -> None:
    """Make the table and the plots of a RECORD again."""
    try:
        for path in write(record):
            click.echo(path)
    except (RecordError, plots.PlotsError) as error:
        raise click.ClickException(str(error)) from error


if __name__ == "__main__":
    main()
