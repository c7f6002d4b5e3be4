"""Commands for the files that jobs left behind."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from moonmind_queue.cli.output import json_option, opened, print_json, print_table, size

if TYPE_CHECKING:
    from moonmind_queue.model import Artifact
    from moonmind_queue.queue import Queue


@click.group()
def artifacts() -> None:
    """List and fetch the files that a job left behind."""


@artifacts.command("ls")
@click.argument("job", type=int)
@json_option
def artifacts_ls(job: int, as_json: bool) -> None:
    """List the artifacts of a job, newest first.

    \b
    Example:
      moonmind-queue artifacts ls 7
    """
    with opened() as queue:
        rows = [artifact_row(each) for each in queue.artifacts(job)]
    if as_json:
        print_json(rows)
        return
    for row in rows:
        row["size"], row["created"] = size(row["size_bytes"]), row["created_at"]
    columns = ("name", "attempt", "size", "content_type", "created")
    print_table(rows, *columns, empty=f"job {job} has no artifacts")


@artifacts.command("get")
@click.argument("job", type=int)
@click.argument("name")
@click.option("--attempt", type=int, help="Of this attempt (default: the latest that has it).")
@click.option(
    "-o", "--output", type=click.Path(dir_okay=False, path_type=Path), help="A file to write."
)
def artifacts_get(job: int, name: str, attempt: int | None, output: Path | None) -> None:
    """Write an artifact to standard output or a file; its digest is checked.

    \b
    Examples:
      moonmind-queue artifacts get 7 patches/changes.patch | git apply
      moonmind-queue artifacts get 7 logs/codex_exec.log -o codex.log
    """
    with opened() as queue:
        files = queue.artifacts(job)
        for each in files:
            if each.name == name and attempt in (None, each.attempt):
                write(queue, each, output)
                return
    have = ", ".join(dict.fromkeys(each.name for each in files)) or "none"
    raise click.ClickException(f"job {job} has no artifact {name!r}; it has: {have}")


def artifact_row(artifact: "Artifact") -> dict[str, Any]:
    """Return an artifact as a dictionary for a table or JSON."""
    return {name: getattr(artifact, name) for name in artifact.__slots__}


def write(queue: "Queue", artifact: "Artifact", output: Path | None) -> None:
    """Write the bytes to a file, which appears whole or not at all, or to standard output."""
    text = artifact.content_type.startswith(("text/", "application/json", "application/jsonl"))
    if output is None and sys.stdout.isatty() and not text:
        raise click.UsageError(f"{artifact.name} is {artifact.content_type}: give -o FILE")
    try:
        with click.open_file(str(output or "-"), "wb", atomic=output is not None) as stream:
            for chunk in queue.read_artifact(artifact):
                stream.write(chunk)
    except BrokenPipeError:
        raise
    except OSError as error:
        raise click.ClickException(f"cannot write {output or 'it'}: {error.strerror}") from error
