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
    click.option("--repo", help="codex_exec: owner/repo, or an address of https or ssh."),
    click.option(
        "--repo-path",
        metavar="DIR",
        help="codex_exec: a directory on the worker, in place of a repository.",
    ),
    click.option("--instruction", help="codex_exec: what the agent is to do."),
    click.option(
        "--step",
        multiple=True,
        metavar="TEXT",
        help="codex_exec: a step of it, which is told when the one before is done.",
    ),
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
    repo_path: str | None,
    instruction: str | None,
    step: tuple[str, ...],
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
    where = {"repository": repo, "repoPath": repo_path, "ref": ref}
    steps = [{"instruction": each} for each in step] or None
    given = {**where, "instruction": instruction, "steps": steps, "publish": asked}
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
@click.option(
    "--on-success", multiple=True, metavar="JSON", help="A job to add when this one has succeeded."
)
@click.option(
    "--on-failure", multiple=True, metavar="JSON", help="A job to add when it has failed for good."
)
@click.option(
    "--template",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="A file with a job and its parameters; other options go before what it says.",
)
@click.option("--set", "settings", multiple=True, metavar="NAME=VALUE", help="A parameter of it.")
@click.option("--dry-run", is_flag=True, help="Print the job as JSON, and add none.")
@json_option
@click.pass_context
def enqueue(
    context: click.Context,
    /,
    template: Path | None,
    settings: tuple[str, ...],
    dry_run: bool,
    as_json: bool,
    **options: Any,
) -> None:
    """Add a job of KIND and print its id.

    \b
    Examples:
      moonmind-queue enqueue noop
      moonmind-queue enqueue codex_exec --repo acme/site --instruction "Fix the failing test"
      moonmind-queue enqueue noop --after 1 --payload '{"seconds": 5}'
      moonmind-queue enqueue --template fix.yaml --set repository=acme/site --set issue=7
    """
    for event in ("on_success", "on_failure"):
        options[event] = [_job(text, event) for text in options[event]]
    if template is not None:
        job = _from_template(context, template, settings, options)
    elif settings:
        raise click.UsageError("--set gives a parameter of a --template; there is none.")
    else:
        job = {name: it for name, it in job_from(**options).items() if it not in (None, [], ())}
    _check_kinds(job)
    from moonmind_queue import _calls

    call = _calls.enqueue_many([job])  # checks the payloads
    if dry_run:
        print_json(call.values["jobs"].obj[0])
        return
    with opened() as queue:
        made = queue.enqueue(**job) if template is None else queue.enqueue_many([job])[0]
        state = queue.get(made).state
    if as_json:
        print_json({"id": made, "state": state})
    else:
        click.echo(f"job {made} is {state}")


def _from_template(
    context: click.Context, file: Path, settings: tuple[str, ...], options: dict[str, Any]
) -> dict[str, Any]:
    """Return the job of a template; what the command line says besides goes before."""
    from moonmind_queue.cli.template import read

    job = read(file).fill(settings)
    if not (options["kind"] or options["kind_option"]):
        options["kind"] = job.get("kind")
    if not isinstance(options["kind"] or options["kind_option"], str):
        raise click.UsageError(f"{file.name}: its job has no kind, and no KIND is given.")
    given = job_from(**options)
    said = {
        name.replace("capability", "capabilities")
        for name in options
        if context.get_parameter_source(name) is click.core.ParameterSource.COMMANDLINE
    }
    if not isinstance(job.get("payload", {}), dict):
        raise click.UsageError(f"{file.name}: the payload of its job is not an object.")
    payload = {**job.get("payload", {}), **given["payload"]}
    return {
        **job,
        **{name: it for name, it in given.items() if name in said},
        "kind": given["kind"],
        "payload": payload,
    }


def _job(text: str, event: str) -> dict[str, Any]:
    """Read a follow-up as the command line has it."""
    try:
        job = json.loads(text)
    except (json.JSONDecodeError, RecursionError) as error:
        option = f"--{event.replace('_', '-')}"
        raise click.UsageError(f"{option} is not a job in JSON: {error}") from None
    if not isinstance(job, dict):
        raise click.UsageError(f"--{event.replace('_', '-')} is not a job: a JSON object.")
    return job


def _check_kinds(job: Any) -> None:
    """Refuse kinds that are not installed, follow-ups' too: such a job would wait for ever."""
    from moonmind_queue import executors

    if not isinstance(job, dict):
        return  # the database says what it is not
    if isinstance(job.get("kind"), str):
        executors.find(job["kind"])
    for event in ("on_success", "on_failure"):
        listed = job.get(event)
        for each in listed if isinstance(listed, list) else ():
            _check_kinds(each)


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
