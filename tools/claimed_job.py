"""A claimed job made by hand, for tests of executors, which need no queue."""

from datetime import UTC, datetime, timedelta
from typing import Any

from moonmind_queue.model import ClaimedJob


def make_job(kind: str, payload: dict[str, Any], *, attempt: int = 1) -> ClaimedJob:
    """Return a job as a claim does."""
    return ClaimedJob(
        id=7,
        kind=kind,
        agent="codex",
        name=None,
        key=None,
        payload=payload,
        priority=0,
        attempt=attempt,
        max_attempts=3,
        token=11,
        expires_at=datetime.now(UTC),
        lasts=timedelta(minutes=2),
    )
