"""Commands that set the rules: pauses, limits, deadlines and back-off."""

from datetime import datetime, timedelta
from typing import Any

import click

from moonmind_queue.cli.output import jobs, json_option, opened, print_json, print_table, shown
from moonmind_queue.cli.times import instant, span

SCOPES = ("agent", "kind", "concurrency_key")


@click.command()
@click.argument("agent", required=False)
@click.option("--reason", help="Shown to whoever asks why nothing runs.")
@click.option("--for", "lasting", type=span, help="End it after this long, such as 2h.")
@click.option("--until", type=instant, help="End it at this ISO instant; UTC without an offset.")
@json_option
def pause(
    agent: str | None,
    reason: str | None,
    lasting: timedelta | None,
    until: datetime | None,
    as_json: bool,
) -> None:
    """Let no more jobs of AGENT begin, or of any agent; those that run go on.

    \b
    Examples:
      moonmind-queue pause codex --reason "the API is down" --for 2h
      moonmind-queue pause --reason "maintenance"
    """
    if lasting is not None and until is not None:
        raise click.UsageError("Give --for or --until, not both.")
    with opened() as queue:
        if lasting is not None:
            until = queue.select("select moonmind_queue._now() as now")[0]["now"] + lasting
        queue.pause(agent, reason, until)
        [still] = queue.select(
            "select count(*) as jobs from moonmind_queue.job_overview"
            " where state in ('claimed', 'running') and agent = coalesce(%(agent)s, agent)",
            agent=agent,
        )
    if as_json:
        print_json({"agent": agent or "*", "until": until, "running": still["jobs"]})
        return
    end = f"ends {shown(until)}" if until else "lasts until you resume"
    click.echo(f"{_whom(agent)} paused; this {end}; running now: {still['jobs']}")


@click.command()
@click.argument("agent", required=False)
@json_option
def resume(agent: str | None, as_json: bool) -> None:
    """Let jobs of AGENT begin again, or end the pause of all agents.

    A cooldown of the agent ends too. Who was paused by name stays paused when all are resumed.

    \b
    Examples:
      moonmind-queue resume codex
      moonmind-queue resume
    """
    with opened() as queue:
        was = queue.resume(agent)
        left = queue.select("select agent from moonmind_queue.paused_agent order by agent")
    others = sorted({row["agent"] for row in left})
    if as_json:
        print_json({"agent": agent or "*", "resumed": was, "still_paused": others})
        return
    click.echo(f"{_whom(agent)} resumed" if was else f"{_whom(agent)} not paused")
    if others:
        click.echo("still paused: " + ", ".join("all agents" if a == "*" else a for a in others))


@click.group()
def limit() -> None:
    """Bound how many jobs run at once."""


@limit.command("ls")
@json_option
def limit_ls(as_json: bool) -> None:
    """List the limits, and how many jobs run under each.

    \b
    Example:
      moonmind-queue limit ls
    """
    with opened() as queue:
        rows = queue.select(
            "select scope, name, running, max_running from moonmind_queue.limit_overview"
            " order by scope, name"
        )
    _print(rows, "scope", "name", "running", "max_running", as_json=as_json, empty="no limits")


@limit.command("set")
@click.argument("scope", type=click.Choice(SCOPES))
@click.argument("name")
@click.argument("max_running", type=click.IntRange(min=0))
@json_option
def limit_set(scope: str, name: str, max_running: int, as_json: bool) -> None:
    """Let at most MAX_RUNNING jobs of NAME run at once.

    SCOPE is agent, kind or concurrency_key; the name * serves each name that has no limit of its
    own. What runs goes on, also above a limit that was lowered.

    \b
    Examples:
      moonmind-queue limit set agent codex 4
      moonmind-queue limit set concurrency_key '*' 1
    """
    with opened() as queue:
        queue.set_limit(scope, name, max_running)
    record = {"scope": scope, "name": name, "max_running": max_running}
    word = scope.replace("_", " ")
    each = f"each {word} without a limit of its own" if name == "*" else f"{word} {name}"
    _say(f"at most {jobs(max_running)} of {each} at once", record, as_json=as_json)


@limit.command("rm")
@click.argument("scope", type=click.Choice(SCOPES))
@click.argument("name")
@json_option
def limit_rm(scope: str, name: str, as_json: bool) -> None:
    """Take a limit away.

    \b
    Example:
      moonmind-queue limit rm agent codex
    """
    with opened() as queue:
        if not queue.select(
            "select 1 as found from moonmind_queue.limit_overview"
            " where scope = %(scope)s and name = %(name)s",
            scope=scope,
            name=name,
        ):
            raise click.ClickException(f"{scope} {name} has no limit; see: moonmind-queue limit ls")
        queue.set_limit(scope, name, None)
    record = {"scope": scope, "name": name, "max_running": None}
    _say(f"{scope} {name} has no limit any more", record, as_json=as_json)


@click.group()
def timeout() -> None:
    """Bound how long one attempt may take, by kind."""


@timeout.command("ls")
@json_option
def timeout_ls(as_json: bool) -> None:
    """List how long attempts may take; * serves every kind that is not listed.

    \b
    Example:
      moonmind-queue timeout ls
    """
    with opened() as queue:
        rows = queue.select(
            "select kind, timeout from moonmind_queue.kind_rule where timeout is not null"
            " order by kind"
        )
    _print(rows, "kind", "timeout", as_json=as_json, empty="no timeouts")


@timeout.command("set")
@click.argument("kind")
@click.argument("length", metavar="TIME", type=span)
@json_option
def timeout_set(kind: str, length: timedelta, as_json: bool) -> None:
    """End attempts of KIND that take longer than TIME, unless the job says otherwise.

    The kind * serves every kind without a timeout of its own. Counts for attempts that begin now.

    \b
    Examples:
      moonmind-queue timeout set codex_exec 2h
      moonmind-queue timeout set '*' 30m
    """
    with opened() as queue:
        queue.set_timeout(kind, length)
    record = {"kind": kind, "timeout": length}
    _say(f"an attempt of kind {kind} may take {shown(length)}", record, as_json=as_json)


@timeout.command("rm")
@click.argument("kind")
@json_option
def timeout_rm(kind: str, as_json: bool) -> None:
    """Take the timeout of KIND away; that of * counts again.

    \b
    Example:
      moonmind-queue timeout rm codex_exec
    """
    with opened() as queue:
        queue.set_timeout(kind, None)
    record = {"kind": kind, "timeout": None}
    _say(f"kind {kind} has no timeout of its own", record, as_json=as_json)


@click.group()
def backoff() -> None:
    """Say how long jobs rest after a failure, by kind."""


@backoff.command("ls")
@json_option
def backoff_ls(as_json: bool) -> None:
    """List the back-offs; * serves every kind that is not listed.

    \b
    Example:
      moonmind-queue backoff ls
    """
    with opened() as queue:
        rows = queue.select(
            "select kind, backoff_base as base, backoff_cap as cap, backoff_jitter as jitter"
            " from moonmind_queue.kind_rule where backoff_base is not null order by kind"
        )
    _print(rows, "kind", "base", "cap", "jitter", as_json=as_json, empty="no back-offs")


@backoff.command("set")
@click.argument("kind")
@click.argument("base", type=span)
@click.option("--cap", type=span, default="10m", show_default=True, help="Never rest longer.")
@click.option("--jitter", type=float, default=0.25, show_default=True, help="Spread by this share.")
@json_option
def backoff_set(kind: str, base: timedelta, cap: timedelta, jitter: float, as_json: bool) -> None:
    """Let failed jobs of KIND rest BASE, then twice as long after each further failure.

    \b
    Examples:
      moonmind-queue backoff set codex_exec 1m --cap 1h
      moonmind-queue backoff set '*' 15s
    """
    with opened() as queue:
        queue.set_backoff(kind, base, cap=cap, jitter=jitter)
    record = {"kind": kind, "base": base, "cap": cap, "jitter": jitter}
    told = f"failed jobs of kind {kind} rest {shown(base)}, doubling up to {shown(cap)}"
    _say(told, record, as_json=as_json)


@backoff.command("rm")
@click.argument("kind")
@json_option
def backoff_rm(kind: str, as_json: bool) -> None:
    """Take the back-off of KIND away; that of * counts again.

    \b
    Example:
      moonmind-queue backoff rm codex_exec
    """
    with opened() as queue:
        queue.set_backoff(kind, None)
    record = {"kind": kind, "base": None}
    _say(f"kind {kind} has no back-off of its own", record, as_json=as_json)


def _whom(agent: str | None) -> str:
    return f"agent {agent} is" if agent and agent != "*" else "all agents are"


def _say(told: str, record: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        print_json(record)
    else:
        click.echo(told)


def _print(rows: list[dict[str, Any]], *columns: str, as_json: bool, empty: str) -> None:
    if as_json:
        print_json(rows)
    else:
        print_table(rows, *columns, empty=empty)
