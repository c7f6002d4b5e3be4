"""The command ``moonmind-codex-worker``.

Imports what it needs when it runs, so that ``--help`` is instant.
"""

import os
import sys
from typing import TYPE_CHECKING

import click

from moonmind_queue.codex_worker.cache_command import cache

if TYPE_CHECKING:
    from moonmind_queue.codex_worker.doctor import Finding

_EXAMPLES = """\b
Examples:
  moonmind-codex-worker                      work until stopped
  moonmind-codex-worker --once               take at most one job, then exit
  moonmind-codex-worker --concurrency 4      four jobs at once
  moonmind-codex-worker --kinds noop         no Codex needed: proves the set-up
  moonmind-codex-worker doctor               what is missing on this machine, and what to do
  moonmind-codex-worker cache                which mirrors of repositories are on this machine

\b
DATABASE_URL says where the queue is; all other settings have defaults. The first SIGINT or
SIGTERM hands running jobs back unharmed and exits with 0, the second ends the worker at once.
"""


def _words(_: click.Context, __: click.Parameter, value: str | None) -> tuple[str, ...]:
    """Cut a comma-separated list; what says nothing, or says it twice, is dropped."""
    words = (word.strip() for word in (value or "").split(","))
    return tuple(dict.fromkeys(word for word in words if word))


@click.group(
    epilog=_EXAMPLES,
    context_settings={"help_option_names": ["-h", "--help"]},
    invoke_without_command=True,
)
@click.option("--once", is_flag=True, help="Claim at most once, run what was claimed, and exit.")
@click.option("--worker-id", metavar="ID", help="Name of this worker. [MOONMIND_WORKER_ID]")
@click.option(
    "--concurrency",
    type=click.IntRange(1),
    default=1,
    show_default=True,
    metavar="N",
    help="How many jobs run at once.",
)
@click.option(
    "--agents", metavar="A,B", callback=_words, help="Take jobs of these agents only. [codex]"
)
@click.option(
    "--kinds",
    metavar="A,B",
    callback=_words,
    help="Take jobs of these kinds only. [codex_exec,noop]",
)
@click.version_option(package_name="moonmind-queue", message="%(prog)s %(version)s")
@click.pass_context
def main(
    context: click.Context,
    once: bool,
    worker_id: str | None,
    concurrency: int,
    agents: tuple[str, ...],
    kinds: tuple[str, ...],
) -> None:
    """Run queued codex_exec jobs with the Codex CLI of this machine."""
    if context.invoked_subcommand is not None:
        return
    try:
        from moonmind_queue import logs
        from moonmind_queue._daemon import stop_on_signals
        from moonmind_queue.codex_worker import worker as codex_worker
        from moonmind_queue.redact import Redactor, environment_secrets

        logs.setup(redact=Redactor(environment_secrets(os.environ)).text)
        config = codex_worker.CodexWorkerConfig.load(
            worker_id=worker_id, agents=agents, kinds=kinds, slots=concurrency
        )
        codex_worker.run(config, once=once, started=lambda worker: stop_on_signals(worker.stop))
    except Exception as error:
        _fail(error)


@main.command()
@click.option("--json", "as_json", is_flag=True, help="Print JSON for programs.")
def doctor(as_json: bool) -> None:
    """Check all that a worker needs here; exits with 1 when something is missing.

    Nothing is claimed, and nothing is changed but that the work folder and Codex's home are made.

    \b
    Example:
      moonmind-codex-worker doctor
    """
    import json
    from dataclasses import asdict

    from moonmind_queue.codex_worker.doctor import examine
    from moonmind_queue.redact import Redactor, environment_secrets

    redact = Redactor(environment_secrets(os.environ)).text
    well, found = True, []
    for each in examine(os.environ):
        well &= each.ok
        text = " ".join(redact(each.text).split())
        found.append(asdict(each) | {"text": text})
        if not as_json:  # as they come: some take seconds
            click.echo(f"{each.check:<14} {_verdict(each)}  {text}")
    if as_json:
        click.echo(json.dumps(found, indent=2))
    sys.exit(not well)


main.add_command(cache)


def _verdict(found: "Finding") -> str:
    if not found.ok:
        return click.style("wrong", "red")
    return click.style("warn ", "yellow") if found.warning else click.style("ok   ", "green")


def _fail(error: Exception) -> None:
    """Say in one line why there is no worker, without a secret, and exit with 1."""
    from moonmind_queue.errors import QueueError
    from moonmind_queue.redact import Redactor, environment_secrets

    text = str(error) if isinstance(error, QueueError) else f"{type(error).__name__}: {error}"
    text = Redactor(environment_secrets(os.environ)).text(" ".join(text.split()))
    click.echo(f"moonmind-codex-worker failed: {text}", err=True)
    sys.exit(1)
