"""The command that adds work, and the options of every command that describes a job."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from moonmind_queue.cli.output import Command, json_option, opened, print_json
from moonmind_queue.cli.times import instant, span

_JOB_OPTIONS: tuple[Callable[..., Any], ...] = (
    click.argument("kind", required=False),
    click.option("--type", "kind_option", metavar="KIND", help="The kind, as an option."),
    click.option("--payload", metavar="JSON", help="The payload, a JSON object."),
    click.option(
        "--payload-file",
        type=click.Path(exists=True, dir_okay=False, allow_dash=True, path_type=Path),
        help="A file with the payload; - is standard input.",
    ),
    click.option("--repo", help="codex_exec: owner/repo, https://host/path or git@host:path."),
    click.option("--instruction", help="codex_exec: what the agent is to do."),
    click.option(
        "--ref", help="codex_exec: branch, tag or commit (default: the remote's default)."
    ),
    click.option(
        "--publish",
        type=click.Choice(("none", "branch", "pr")),
        help="codex_exec: what becomes of the changes besides the patch.",
    ),
    click.option("--agent", default="codex", show_default=True, help="Who is to do it."),
    click.option("--name", help="What people call the job."),
    click.option("--priority", type=int, default=0, show_default=True, help="Higher runs first."),
    click.option("--max-attempts", type=click.IntRange(min=1), default=3, show_default=True),
    click.option("--capability", multiple=True, metavar="NAME", help="Only workers that offer it."),
    click.option("--timeout", type=span, help="End an attempt that takes longer, such as 2h."),
    click.option(
        "--concurrency-key", metavar="KEY", help="What limits may count: an account, a repo."
    ),
)


def job_options(command: Command) -> Command:
    """Add KIND and the options that say what a job is; :func:`job_from` reads them."""
    for option in reversed(_JOB_OPTIONS):
        command = option(command)
    return command


def job_from(
    *,
    kind: str | None,
    kind_option: str | None,
    payload: str | None,
    payload_file: Path | None,
    repo: str | None,
    instruction: str | None,
    ref: str | None,
    publish: str | None,
    capability: tuple[str, ...],
    **options: Any,
) -> dict[str, Any]:
    """Return the parameters of ``enqueue`` that the options of a job stand for."""
    from moonmind_queue import executors

    kind = kind or kind_option
    if not kind:
        raise click.UsageError(f"Which KIND? Installed: {', '.join(executors.kinds())}")
    executors.find(kind)  # a misspelt kind would wait for ever
    body = _read_payload(payload, payload_file)
    asked = {"mode": publish} if publish else None
    given = {"repository": repo, "instruction": instruction, "ref": ref, "publish": asked}
    body |= {field: value for field, value in given.items() if value is not None}
    return {"kind": kind, "payload": body, "capabilities": list(capability), **options}


@click.command(no_args_is_help=True)
@job_options
@click.option("--key", help="Enqueue at most once: a second job with the key is the first.")
@click.option(
    "--after", type=int, multiple=True, metavar="ID", help="Wait for this job to succeed."
)
@click.option("--run-at", type=instant, help="Not before this ISO instant; UTC without an offset.")
@click.option("--expires-at", type=instant, help="Cancel it then unless it has begun.")
@click.option(
    "--on-dependency-failure",
    type=click.Choice(("wait", "cancel", "run")),
    default="wait",
    show_default=True,
    help="When a job of --after ends without success.",
)
@json_option
def enqueue(as_json: bool, **options: Any) -> None:
    """Add a job of KIND and print its id.

    \b
    Examples:
      moonmind-queue enqueue noop
      moonmind-queue enqueue codex_exec --repo acme/site --instruction "Fix the failing test"
      moonmind-queue enqueue noop --after 1 --payload '{"seconds": 5}'
    """
    given = job_from(**options)
    with opened() as queue:
        job = queue.enqueue(**given)
        state = queue.get(job).state
    if as_json:
        print_json({"id": job, "state": state})
    else:
        click.echo(f"job {job} is {state}")


def _read_payload(text: str | None, file: Path | None) -> dict[str, Any]:
    if text is not None and file is not None:
        raise click.UsageError("Give --payload or --payload-file, not both.")
    if file is not None:
        with click.open_file(str(file), encoding="utf-8") as stream:
            text = stream.read()
    if text is None:
        return {}
    try:
        payload = json.loads(text)
    except json.JSONDecodeError as error:
        raise click.UsageError(f"The payload is not JSON: {error}") from None
    if not isinstance(payload, dict):
        raise click.UsageError("The payload is not a JSON object.")
    return payload
