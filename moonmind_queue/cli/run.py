"""Runs a command so that what goes wrong on purpose ends in one clear line, not in a traceback."""

import sys
from io import TextIOWrapper

import click

from moonmind_queue.cli.output import EXIT_REFUSED, EXIT_USAGE, exit_code


def run(command: click.Command, name: str) -> None:
    """Run a command under its name, and exit with its code; ``cli/__init__`` lists the codes."""
    from moonmind_queue.errors import QueueError

    if isinstance(sys.stdout, TextIOWrapper):  # a terminal that knows no owls shows them escaped
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        code = command.main(prog_name=name, standalone_mode=False)
    except click.ClickException as error:
        error.show()
        code = EXIT_USAGE if isinstance(error, click.UsageError) else EXIT_REFUSED
    except QueueError as error:
        click.echo(f"{name}: {error}", err=True)
        code = exit_code(error)
    except (click.Abort, KeyboardInterrupt):
        code = 130
    except BrokenPipeError:
        sys.stderr.close()  # the reader has gone, as `head` does: there is nothing left to say
        code = 141
    sys.exit(code)


class Group(click.Group):
    """A group that lists its commands in the order of a job's life instead of the alphabet's."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the commands in the order in which they were added."""
        return list(self.commands)
