"""What is asked of the database about tokens: to count them, to price them, to bound them."""

from datetime import date
from decimal import Decimal

from moonmind_queue._calls import Call, nothing, rows, value
from moonmind_queue._values import storable
from moonmind_queue.model import ClaimedJob, Overspent, Tokens


def count_usage(
    job: ClaimedJob, thread: str, model: str | None, used: Tokens
) -> Call[Overspent | None]:
    """Say what a thread has used since it began; returns a verdict when that was too much.

    The same again counts nothing. Raises ``LeaseLost``, and ``InvalidArgument`` for counters that
    cannot be.
    """
    told = rows(
        Overspent,
        "count_usage",
        job_id=job.id,
        token=job.token,
        thread=storable(thread),
        model=storable(model),
        input=used.input,
        cached_input=used.cached_input,
        output=used.output,
        reasoning=used.reasoning,
    )
    return Call(
        source=told.source,
        statement=told.statement,
        values=told.values,
        row=told.row,
        read=lambda found: found[0] if found else None,
    )


def set_price(
    model: str,
    input: Decimal,
    output: Decimal,
    *,
    cached_input: Decimal | None = None,
    since: date | None = None,
    currency: str | None = None,
) -> Call[None]:
    """Say what a million tokens of ``model`` (``*``: of any without a price) cost from a day on.

    ``cached_input`` costs what ``input`` does unless told; ``since`` is today unless told. All
    prices are in one currency, USD unless told.
    """
    return value(
        "set_price",
        nothing,
        model=model,
        input=input,
        output=output,
        cached_input=cached_input,
        since=since,
        currency=currency,
    )


def drop_price(model: str, since: date | None = None) -> Call[bool]:
    """Take away the price of that day, or all of the model; returns whether there was one."""
    return value("drop_price", bool, model=model, since=since)


def set_budget(
    scope: str,
    name: str = "*",
    *,
    period: str | None = None,
    tokens: int | None = None,
    cost: Decimal | None = None,
) -> Call[None]:
    """Bound what may be used: ``tokens``, or a ``cost`` in the currency of the prices, or both.

    ``scope`` is ``job`` (``name`` is a kind), ``repository``, ``agent`` or ``queue``; the name
    ``*`` serves each name without a budget of its own. ``period`` is ``day``, ``month`` or
    ``total``; by default a job's is ``total`` and any other a ``day``.
    """
    return value(
        "set_budget",
        nothing,
        scope=scope,
        name=name,
        period=period,
        max_tokens=tokens,
        max_cost=cost,
    )


def drop_budget(scope: str, name: str = "*", *, period: str | None = None) -> Call[bool]:
    """Take a budget away, of one period or of all; returns whether there was one."""
    return value("drop_budget", bool, scope=scope, name=name, period=period)
