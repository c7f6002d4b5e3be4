"""Commands for the rules that say what a failure means."""

from dataclasses import asdict
from datetime import timedelta
from typing import Any

import click

from moonmind_queue.cli.output import json_option, opened, print_json, print_table, shown
from moonmind_queue.cli.times import span

OUTCOMES = ("retry", "block", "fail", "cool_down")
COLUMNS = ("name", "source", "outcome", "rest", "most", "pauses", "pattern")


@click.group()
def failure() -> None:
    """Say what a failure means, by what a program printed."""


@failure.command("ls")
@json_option
def failure_ls(as_json: bool) -> None:
    """List the rules in the order in which they are tried: the first that matches counts.

    \b
    Example:
      moonmind-queue failure ls
    """
    with opened() as queue:
        rows = queue.select(
            "select name, place, source, pattern, outcome, rest, most, pauses, advice"
            " from moonmind_queue.failure_overview order by place, name"
        )
    if as_json:
        print_json(rows)
    else:
        print_table(rows, *COLUMNS, empty="no rules: every failure is tried again")


@failure.command("set")
@click.argument("name")
@click.argument("pattern")
@click.argument("outcome", type=click.Choice(OUTCOMES))
@click.option(
    "--source", default="*", show_default=True, help="Who printed it: codex, git, gh, run."
)
@click.option("--place", type=int, default=0, show_default=True, help="Lower ones are tried first.")
@click.option("--rest", type=span, help="Until the next attempt, where the text does not say.")
@click.option("--most", type=click.IntRange(min=1), help="Attempts that may fail like this.")
@click.option("--pauses", is_flag=True, help="Pause the agent until you resume it.")
@click.option("--advice", default="", help="What a person can do; added to the error.")
@json_option
def failure_set(
    name: str, pattern: str, outcome: str, as_json: bool, rest: timedelta | None, **more: Any
) -> None:
    """Let failures whose text matches PATTERN have an OUTCOME; in place of the rule NAME, if any.

    PATTERN is a regular expression of PostgreSQL; upper and lower case are the same. With cool_down
    the job goes back to the queue, no attempt is counted, and its agent rests.

    \b
    Examples:
      moonmind-queue failure set disk_full "no space left" block --advice "make room"
      moonmind-queue failure set flaky "ECONNRESET" retry --source codex --most 2 --rest 5m
    """
    with opened() as queue:
        queue.set_failure_rule(name, pattern=pattern, outcome=outcome, rest=rest, **more)
    if as_json:
        print_json({"name": name, "pattern": pattern, "outcome": outcome, "rest": rest, **more})
    else:
        click.echo(f"failures like {name} mean: {outcome}")


@failure.command("rm")
@click.argument("name")
@json_option
def failure_rm(name: str, as_json: bool) -> None:
    """Take a rule away.

    \b
    Example:
      moonmind-queue failure rm flaky
    """
    with opened() as queue:
        if not queue.drop_failure_rule(name):
            raise click.ClickException(f"there is no rule {name}; see: moonmind-queue failure ls")
    if as_json:
        print_json({"name": name, "dropped": True})
    else:
        click.echo(f"the rule {name} is gone")


@failure.command("try")
@click.argument("source")
@click.argument("text")
@json_option
def failure_try(source: str, text: str, as_json: bool) -> None:
    """Say what a TEXT of SOURCE would mean; nothing is changed.

    \b
    Example:
      moonmind-queue failure try codex "exceeded retry limit, last status: 429"
    """
    with opened() as queue:
        rule = queue.classify_failure(source, text)
    if as_json:
        print_json(rule and asdict(rule))
        return
    if rule is None:
        click.echo("no rule matches: it is tried again")
        return
    wait = f", after {shown(rule.rest)}" if rule.rest else ""
    click.echo(f"{rule.name}: {rule.outcome}{wait}")
    if rule.pauses:
        click.echo("the agent is paused until you resume it")
    if rule.advice:
        click.echo(rule.advice)
