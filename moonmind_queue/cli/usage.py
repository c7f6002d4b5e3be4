"""Commands for tokens: what was used, what it costs, and how much there may be."""

import re
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal, InvalidOperation
from typing import TYPE_CHECKING, Any

import click

from moonmind_queue.cli.output import json_option, opened, print_json, print_table
from moonmind_queue.cli.times import moment

if TYPE_CHECKING:
    from moonmind_queue.queue import Queue

BY = ("day", "repository", "model", "agent", "kind", "job")
SCOPES = ("job", "repository", "agent", "queue")
PERIODS = ("day", "month", "total")
THOUSANDS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9}
SUMS = (
    "sum(input_tokens)::bigint as input, sum(cached_input_tokens)::bigint as cached,"
    " sum(output_tokens)::bigint as output, sum(reasoning_tokens)::bigint as reasoning,"
    " sum(cost) as cost, sum(unpriced_tokens)::bigint as unpriced"
)
OF_JOBS = (
    "(select *, job_id as job, case when cost is null then input_tokens + output_tokens else 0 end"
    " as unpriced_tokens from moonmind_queue.job_usage) as used"
)
SINCE = "where day >= (%(since)s::timestamptz at time zone 'UTC')::date"
COLUMNS = ("input", "cached", "output", "reasoning", "cost")


def token_count(text: str) -> int:
    """Read a number of tokens, such as 2000000, 500k or 2M."""
    match = re.fullmatch(r"(\d{1,15}(?:\.\d{1,9})?)([kmg]?)", text.strip().lower())
    number = Decimal(match[1]) * THOUSANDS[match[2]] if match else Decimal(0)
    if not 1 <= number < 10**15:
        raise click.BadParameter(f"{text!r} is not a number of tokens such as 500000, 500k or 2M")
    return int(number)


def money(text: str) -> Decimal:
    """Read an amount of money: not negative, without a currency."""
    try:
        amount = Decimal(text.strip())
    except InvalidOperation:
        amount = Decimal(-1)
    if not amount.is_finite() or amount < 0:
        raise click.BadParameter(f"{text!r} is not an amount such as 12 or 0.25")
    return amount


def iso_day(text: str) -> date:
    """Read a day."""
    try:
        return date.fromisoformat(text.strip())
    except ValueError:
        raise click.BadParameter(f"{text!r} is not a day such as 2030-01-31") from None


@click.group(invoke_without_command=True)
@click.option("--by", type=click.Choice(BY), default="day", show_default=True, help="One row each.")
@click.option(
    "--since", type=moment, default="30d", show_default=True, help="An age or an ISO instant."
)
@json_option
@click.pass_context
def usage(context: click.Context, by: str, since: datetime | timedelta, as_json: bool) -> None:
    """Show how many tokens were used and what they cost; set prices and budgets.

    Days are those of UTC, and whole: one that began before --since is left out. Cached tokens are
    part of the input, reasoning is part of the output. Tokens without a price cost nobody knows
    what: the sums leave them out and say so.

    \b
    Examples:
      moonmind-queue usage --by model --since 7d
      moonmind-queue usage price set gpt-5.5 1.25 10 --cached 0.125
      moonmind-queue usage budget set repository acme/site --per day --tokens 5M
    """
    if context.invoked_subcommand is not None:
        return
    with opened() as queue:
        rows = _used(queue, by, since)
        currency = _currency(queue)
    if as_json:
        numbers = [{**row, "cost": _number(row["cost"]), "currency": currency} for row in rows]
        print_json(numbers)
        return
    shown = [{**row, "cost": _amount(row["cost"], currency)} for row in rows]
    print_table(shown, by, *COLUMNS, empty="no tokens were used since then")
    if without := sum(row["unpriced"] for row in rows):
        click.echo(f"{without} tokens have no price; see: moonmind-queue usage price set --help")


def _used(queue: "Queue", by: str, since: datetime | timedelta) -> list[dict[str, Any]]:
    """Return the sums, those of most tokens first, days in their order."""
    if isinstance(since, timedelta):
        since = queue.select("select moonmind_queue._now() - %(age)s as at", age=since)[0]["at"]
    order = "day" if by == "day" else f"sum(input_tokens + output_tokens) desc, {by}"
    source = OF_JOBS if by == "job" else "moonmind_queue.usage_overview"
    words = ("select", by, ",", SUMS, "from", source, SINCE, "group by", by, "order by", order)
    return queue.select(" ".join(words), since=since)


def _currency(queue: "Queue") -> str | None:
    found = queue.select("select currency from moonmind_queue.price_overview limit 1")
    return found[0]["currency"] if found else None


def _amount(cost: Decimal | None, currency: str | None) -> str:
    """Return money as people read it: two places, or as many as show something."""
    if cost is None:
        return "unknown"
    places = 2 if cost >= 1 or not cost else 4
    return f"{cost:.{places}f} {currency}"


def _number(cost: Decimal | None) -> float | None:
    return None if cost is None else float(cost)


@usage.group()
def price() -> None:
    """Say what tokens cost."""


@price.command("ls")
@json_option
def price_ls(as_json: bool) -> None:
    """List what a million tokens of each model cost, and from which day on.

    \b
    Example:
      moonmind-queue usage price ls
    """
    with opened() as queue:
        rows = queue.select(
            "select model, since, input, cached_input, output, currency"
            " from moonmind_queue.price_overview order by model, since"
        )
    for row in rows:
        row |= {name: _number(row[name]) for name in ("input", "cached_input", "output")}
    if as_json:
        print_json(rows)
    else:
        columns = ("model", "since", "input", "cached_input", "output", "currency")
        print_table(rows, *columns, empty="no prices: what tokens cost is unknown")


@price.command("set")
@click.argument("model")
@click.argument("input", type=money)
@click.argument("output", type=money)
@click.option("--cached", type=money, help="For cached input; as INPUT unless told.")
@click.option("--since", type=iso_day, help="From that day on; today unless told.")
@click.option("--currency", help="Three letters; USD, or that of the other prices, unless told.")
@json_option
def price_set(
    model: str,
    input: Decimal,
    output: Decimal,
    cached: Decimal | None,
    since: date | None,
    currency: str | None,
    as_json: bool,
) -> None:
    """Say what a million tokens of MODEL cost: those that it reads, and those that it writes.

    The name * serves every model without a price of its own. A day keeps the price that it had;
    with --since you can give a past day the price that was missing.

    \b
    Examples:
      moonmind-queue usage price set gpt-5.5 1.25 10 --cached 0.125
      moonmind-queue usage price set '*' 3 15 --since 2026-01-01
    """
    with opened() as queue:
        queue.set_price(model, input, output, cached_input=cached, since=since, currency=currency)
        currency = _currency(queue)
    if as_json:
        print_json({"model": model, "input": float(input), "output": float(output)})
    else:
        told = f"a million tokens of {model} cost {input} {currency}, written ones {output}"
        click.echo(told)


@price.command("rm")
@click.argument("model")
@click.option("--since", type=iso_day, help="Only that of this day; all unless told.")
@json_option
def price_rm(model: str, since: date | None, as_json: bool) -> None:
    """Take the prices of MODEL away; what it cost is unknown then, also in the past.

    \b
    Example:
      moonmind-queue usage price rm gpt-5.5
    """
    with opened() as queue:
        if not queue.drop_price(model, since):
            raise click.ClickException(
                f"{model} has no such price; see: moonmind-queue usage price ls"
            )
    if as_json:
        print_json({"model": model, "dropped": True})
    else:
        click.echo(f"the price of {model} is gone")


@usage.group()
def budget() -> None:
    """Bound what may be used."""


@budget.command("ls")
@json_option
def budget_ls(as_json: bool) -> None:
    """List the budgets, and what is used of each in this period.

    What each job may use is listed without a use: every job has its own.

    \b
    Example:
      moonmind-queue usage budget ls
    """
    with opened() as queue:
        rows = queue.select(
            "select scope, name, period, tokens, used_tokens, cost, used_cost, used_up, until"
            " from moonmind_queue.budget_overview order by scope, name, period"
        )
        currency = _currency(queue)
    for row in rows:
        row |= {name: _number(row[name]) for name in ("cost", "used_cost")}
    if as_json:
        print_json(rows)
        return
    for row in rows:
        row["used"] = _of(row["used_tokens"], row["tokens"], "tokens")
        row["spent"] = _of(row["used_cost"], row["cost"], currency or "")
        row["ends"] = row["until"] and f"{row['until'].astimezone(UTC):%Y-%m-%d %H:%M} UTC"
        row["used_up"] = "used up" if row["used_up"] else ""
    columns = ("scope", "name", "period", "used", "spent", "ends", "used_up")
    print_table(rows, *columns, empty="no budgets: nothing is bounded")


def _of(used: float | None, most: float | None, unit: str) -> str:
    if most is None:
        return ""
    bound = f"{_plain(most)} {unit}".rstrip()
    return f"at most {bound}" if used is None else f"{_plain(used)} of {bound}"


def _plain(number: float) -> str:
    return str(number) if isinstance(number, int) else f"{number:.4f}".rstrip("0").rstrip(".")


@budget.command("set")
@click.argument("scope", type=click.Choice(SCOPES))
@click.argument("name", default="*")
@click.option("--per", type=click.Choice(PERIODS), help="A day unless told; a job has a total.")
@click.option("--tokens", type=token_count, help="At most so many, such as 500k or 2M.")
@click.option("--cost", type=money, help="At most so much, in the currency of the prices.")
@json_option
def budget_set(
    scope: str,
    name: str,
    per: str | None,
    tokens: int | None,
    cost: Decimal | None,
    as_json: bool,
) -> None:
    """Let jobs use so many tokens, or so much money, and no more.

    SCOPE job bounds each job, of the kind NAME or of any; repository and agent bound the jobs of
    NAME together, queue all jobs. Without a NAME it serves each that has no budget of its own.
    Where it is used up no job begins until the day or month (of UTC) is over; what runs is ended.

    \b
    Examples:
      moonmind-queue usage budget set queue --per month --cost 500
      moonmind-queue usage budget set repository acme/site --tokens 5M
      moonmind-queue usage budget set job --tokens 2M
    """
    if tokens is None and cost is None:
        raise click.UsageError("Give --tokens, --cost or both.")
    with opened() as queue:
        queue.set_budget(scope, name, period=per, tokens=tokens, cost=cost)
    if as_json:
        record = {"scope": scope, "name": name, "tokens": tokens, "cost": _number(cost)}
        print_json(record)
    else:
        click.echo(f"the budget of {_whose(scope, name)} is set")


@budget.command("rm")
@click.argument("scope", type=click.Choice(SCOPES))
@click.argument("name", default="*")
@click.option("--per", type=click.Choice(PERIODS), help="Only that of this period.")
@json_option
def budget_rm(scope: str, name: str, per: str | None, as_json: bool) -> None:
    """Take a budget away; what it held back may begin.

    \b
    Example:
      moonmind-queue usage budget rm repository acme/site
    """
    with opened() as queue:
        if not queue.drop_budget(scope, name, period=per):
            raise click.ClickException(
                f"{_whose(scope, name)} has no such budget; see: moonmind-queue usage budget ls"
            )
    if as_json:
        print_json({"scope": scope, "name": name, "dropped": True})
    else:
        click.echo(f"the budget of {_whose(scope, name)} is gone")


def _whose(scope: str, name: str) -> str:
    if scope == "queue":
        return "the queue"
    if scope == "job":
        return "each job" if name == "*" else f"each job of kind {name}"
    return f"each {scope} without one of its own" if name == "*" else f"{scope} {name}"
