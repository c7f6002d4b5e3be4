"""The views on tokens, prices and budgets as mapped classes; see ``moonmind_queue.orm``."""

from datetime import date, datetime
from decimal import Decimal

from sqlalchemy.orm import Mapped, mapped_column

from moonmind_queue._views import BigInt, View


class _Tokens(View):
    """Tokens; ``cached_input_tokens`` are part of the input, ``reasoning_tokens`` of the output."""

    __abstract__ = True

    input_tokens: Mapped[BigInt] = mapped_column(sort_order=1)
    cached_input_tokens: Mapped[BigInt] = mapped_column(sort_order=1)
    output_tokens: Mapped[BigInt] = mapped_column(sort_order=1)
    reasoning_tokens: Mapped[BigInt] = mapped_column(sort_order=1)
    cost: Mapped[Decimal | None] = mapped_column(sort_order=1)


class JobUsage(_Tokens):
    """What an attempt used, by model and day of UTC."""

    __tablename__ = "job_usage"

    job_id: Mapped[BigInt] = mapped_column(primary_key=True)
    attempt: Mapped[int]
    run: Mapped[str] = mapped_column(primary_key=True)
    day: Mapped[date] = mapped_column(primary_key=True)
    model: Mapped[str] = mapped_column(primary_key=True)
    counts: Mapped[bool] = mapped_column(sort_order=2)


class _Sums(_Tokens):
    """Tokens of many jobs; ``cost`` is what of them has a price, ``unpriced_tokens`` the others."""

    __abstract__ = True

    unpriced_tokens: Mapped[BigInt] = mapped_column(sort_order=2)


class UsageOverview(_Sums):
    """What all jobs used, by day of UTC, agent, kind, repository and model."""

    __tablename__ = "usage_overview"

    day: Mapped[date] = mapped_column(primary_key=True)
    agent: Mapped[str] = mapped_column(primary_key=True)
    kind: Mapped[str] = mapped_column(primary_key=True)
    repository: Mapped[str] = mapped_column(primary_key=True)
    model: Mapped[str] = mapped_column(primary_key=True)


class UsageByRepository(_Sums):
    """What all jobs used, by repository; empty for those that name none."""

    __tablename__ = "usage_by_repository"

    repository: Mapped[str] = mapped_column(primary_key=True)


class UsageByModel(_Sums):
    """What all jobs used, by model; empty where nobody said which."""

    __tablename__ = "usage_by_model"

    model: Mapped[str] = mapped_column(primary_key=True)


class UsageByAgent(_Sums):
    """What all jobs used, by agent."""

    __tablename__ = "usage_by_agent"

    agent: Mapped[str] = mapped_column(primary_key=True)


class UsageByDay(_Sums):
    """What all jobs used, by day of UTC."""

    __tablename__ = "usage_by_day"

    day: Mapped[date] = mapped_column(primary_key=True)


class PriceOverview(View):
    """What a million tokens of a model cost from some day on."""

    __tablename__ = "price_overview"

    model: Mapped[str] = mapped_column(primary_key=True)
    since: Mapped[date] = mapped_column(primary_key=True)
    input: Mapped[Decimal]
    cached_input: Mapped[Decimal]
    output: Mapped[Decimal]
    currency: Mapped[str]


class BudgetOverview(View):
    """A budget and what is used of it in this period, with the reason in words if that is all."""

    __tablename__ = "budget_overview"

    scope: Mapped[str] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(primary_key=True)
    period: Mapped[str] = mapped_column(primary_key=True)
    tokens: Mapped[BigInt | None]
    cost: Mapped[Decimal | None]
    used_tokens: Mapped[BigInt | None]
    used_cost: Mapped[Decimal | None]
    until: Mapped[datetime | None]
    used_up: Mapped[bool]
    reason: Mapped[str | None]
