"""``moonmind-queue``: produce, inspect and operate from a shell.

Exit codes: 0 done; 1 the queue refused (no such job, wrong state, not allowed …); 2 the command
line or a setting is wrong; 3 the database cannot be reached or its schema is another; 130 Ctrl-C.
"""

import click

from moonmind_queue.cli import (
    compare,
    failures,
    files,
    history,
    inspect,
    mcp,
    operate,
    produce,
    redrive,
    replay,
    roles,
    rules,
    schedule,
    usage,
)
from moonmind_queue.cli.run import Group, run


@click.group(cls=Group, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="moonmind-queue", prog_name="moonmind-queue")
def cli() -> None:
    """Hand out work for coding agents, see what happens to it, and step in.

    The database is the one named in DATABASE_URL.

    \b
    Examples:
      moonmind-queue migrate
      moonmind-queue enqueue codex_exec --repo acme/site --instruction "Fix the failing test"
      moonmind-queue events 1 -f
      moonmind-queue artifacts get 1 patches/changes.patch
    """


for _command in (
    operate.migrate,
    produce.enqueue,
    inspect.ls,
    inspect.show,
    history.events,
    history.logs,
    files.artifacts,
    operate.say,
    operate.cancel,
    operate.retry,
    operate.unlock,
    schedule.schedule,
    redrive.redrive,
    replay.replay,
    compare.compare,
    inspect.workers,
    inspect.status,
    rules.pause,
    rules.resume,
    rules.limit,
    rules.timeout,
    rules.backoff,
    failures.failure,
    usage.usage,
    roles.role,
    operate.prune,
    redrive.repair,
    operate.maintain,
    operate.settings,
    mcp.mcp,
):
    cli.add_command(_command)


def main() -> None:
    """Run ``moonmind-queue``."""
    run(cli, "moonmind-queue")
