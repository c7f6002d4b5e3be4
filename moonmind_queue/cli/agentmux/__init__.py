"""``agentmux``: seed a graph of tasks, work it off with several agents, see and control everything.

Exit codes are those of ``moonmind-queue``: 0 done, 1 refused, 2 wrong command line or setting, 3 no
database, 130 Ctrl-C.
"""

import click

from moonmind_queue.cli.agentmux import control, look, tasks
from moonmind_queue.cli.run import Group, run


@click.group(cls=Group, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="moonmind-queue", prog_name="agentmux")
def cli() -> None:
    """Hand a graph of tasks to agents, and see what becomes of it.

    The database is the one named in DATABASE_URL; state/ and artifacts/ are written below the
    working directory, or MOONMIND_AGENTMUX_HOME.

    \b
    Examples:
      agentmux tasks seed agentmux/dag.yaml
      agentmux worker --agent codex --worker-id codex-1
      agentmux status --watch
      agentmux tasks graph
    """


for _command in (
    tasks.tasks,
    control.worker,
    control.ps,
    look.status,
    look.events,
    control.unlock,
    control.reset,
    look.export,
):
    cli.add_command(_command)


def main() -> None:
    """Run ``agentmux``."""
    run(cli, "agentmux")
