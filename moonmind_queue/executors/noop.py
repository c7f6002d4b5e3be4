"""Does nothing for a while: proves a queue, a worker and a dependency without side effects.

Payload: ``{"seconds": 0.5}``; the default is ``MOONMIND_NOOP_SECONDS`` (2). Other keys are kept
and ignored.
"""

from collections.abc import Mapping
from typing import Any, Self

from moonmind_queue.errors import InvalidPayload
from moonmind_queue.executors import Context, Stopped
from moonmind_queue.model import ClaimedJob
from moonmind_queue.settings import Settings


class Noop:
    """Waits, then succeeds."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds

    @classmethod
    def validate(cls, payload: Mapping[str, Any]) -> dict[str, Any]:
        """Refuse ``seconds`` that is not a number of seconds."""
        seconds = payload.get("seconds", 0)
        if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not seconds >= 0:
            raise InvalidPayload(f"noop: seconds: must be a number of at least 0, not {seconds!r}")
        return dict(payload)

    @classmethod
    def configure(cls, settings: Settings) -> Self:
        """Take the default wait from the settings."""
        return cls(settings.noop_seconds)

    def check(self) -> None:
        """Need nothing."""

    def run(self, job: ClaimedJob, context: Context) -> Mapping[str, Any]:
        """Wait for the job's seconds, or until told to stop."""
        seconds = job.payload.get("seconds", self._seconds)
        if context.stop.wait(seconds):
            raise Stopped("stopped while waiting")
        return {"status": "ok", "seconds": seconds, "note": "noop executed"}
