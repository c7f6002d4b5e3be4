"""The command that asks for the same once more, to see whether another model does better."""

from collections.abc import Mapping
from typing import Any

import click

from moonmind_queue.cli.output import json_option, opened, print_json


@click.command()
@click.argument("job", type=int)
@click.option("--model", help="codex_exec: with this model.")
@click.option("--effort", help="codex_exec: with this reasoning effort.")
@click.option("--ref", help="codex_exec: from this branch, tag or commit.")
@click.option("--agent", help="For this agent instead.")
@click.option("--publish", is_flag=True, help="codex_exec: publish as the job did, if it did.")
@json_option
def replay(
    job: int,
    model: str | None,
    effort: str | None,
    ref: str | None,
    agent: str | None,
    publish: bool,
    as_json: bool,
) -> None:
    """Add a job that asks for the same as JOB, whatever became of that.

    It has the payload, the agent and the limits of JOB, but no key, no dependencies and nothing
    that follows. It does not publish unless you say so. Then see both with `compare`.

    \b
    Examples:
      moonmind-queue replay 7 --effort high
      moonmind-queue replay 7 --model gpt-5-codex --ref 3f2a91c
    """
    from moonmind_queue import executors

    codex = {"model": model, "effort": effort}
    with opened() as queue:
        old = queue.get(job)
        if old.kind != "codex_exec" and (model or effort or ref or publish):
            raise click.UsageError(
                f"--model, --effort, --ref and --publish are of codex_exec; job {job} is"
                f" {old.kind}."
            )
        payload = _changed(old.payload, codex=codex, ref=ref, publish=publish)
        made = queue.replay(job, executors.checked(old.kind, payload), agent=agent)
    if as_json:
        print_json({"id": made, "replay_of": job})
    else:
        click.echo(f"job {made} is a replay of job {job}")


def _changed(
    payload: Mapping[str, Any], *, codex: Mapping[str, Any], ref: str | None, publish: bool
) -> dict[str, Any]:
    changed = dict(payload)
    if not publish:
        changed.pop("publish", None)
    if ref is not None:
        changed["ref"] = ref
    if said := {name: value for name, value in codex.items() if value is not None}:
        changed["codex"] = {**changed.get("codex", {}), **said}
    return changed
