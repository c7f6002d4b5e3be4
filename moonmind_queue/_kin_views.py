"""The views of ``sql/views.sql`` on how jobs end and what comes from them, as mapped classes."""

from datetime import datetime
from typing import Any

from sqlalchemy.orm import Mapped, mapped_column

from moonmind_queue._views import BigInt, View


class JobFollowUp(View):
    """What a job lists to be enqueued on its success or failure, and what became of it."""

    __tablename__ = "job_follow_up"

    job_id: Mapped[BigInt] = mapped_column(primary_key=True)
    event: Mapped[str] = mapped_column(primary_key=True)
    number: Mapped[BigInt] = mapped_column(primary_key=True)
    job: Mapped[dict[str, Any]]
    role: Mapped[str]
    made_job_id: Mapped[BigInt | None]


class JobOrigin(View):
    """The job that another one came from, and how."""

    __tablename__ = "job_origin"

    job_id: Mapped[BigInt] = mapped_column(primary_key=True)
    from_job_id: Mapped[BigInt]
    how: Mapped[str]
    depth: Mapped[int]
    in_words: Mapped[str]


class JobOutcome(View):
    """Of a job that has ended: how, at which stage and why."""

    __tablename__ = "job_outcome"

    job_id: Mapped[BigInt] = mapped_column(primary_key=True)
    agent: Mapped[str]
    kind: Mapped[str]
    state: Mapped[str]
    outcome: Mapped[str]
    stage: Mapped[str]
    reason: Mapped[str]
    finished_at: Mapped[datetime]


class AllowanceOverview(View):
    """What a login may enqueue, and how much of it it has used."""

    __tablename__ = "allowance_overview"

    role: Mapped[str] = mapped_column(primary_key=True)
    agents: Mapped[list[str] | None]
    job_kinds: Mapped[list[str] | None]
    repositories: Mapped[list[str] | None]
    max_open: Mapped[int | None]
    open: Mapped[BigInt]
    max_per_day: Mapped[int | None]
    within_a_day: Mapped[BigInt]
    max_depth: Mapped[int | None]
