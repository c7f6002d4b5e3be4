"""The fallback poll: how long an idle worker waits where nothing wakes it."""

import time
from collections.abc import Sequence
from datetime import timedelta

from moonmind_queue._connection import spread
from moonmind_queue.errors import InvalidArgument


class Poll:
    """Waits that follow one another while there is no work; the last is repeated.

    A wait is measured from its beginning: what interrupts it and brings no job neither prolongs
    it nor goes on to the next.
    """

    def __init__(self, waits: timedelta | Sequence[timedelta]) -> None:
        waits = [waits] if isinstance(waits, timedelta) else list(waits)
        if not waits or min(waits) <= timedelta(0):
            given = ", ".join(map(str, waits)) or "none"
            raise InvalidArgument(f"poll: needs one or more waits longer than 0, not {given}")
        self._waits = [wait.total_seconds() for wait in waits]
        self.reset()

    def reset(self) -> None:
        """Begin anew: there was work."""
        self._next = 0
        self._until: float | None = None  # monotonic instant at which the wait under way is over

    def left(self) -> float:
        """Return how many seconds of the wait are left; begins the next one when it is over."""
        now = time.monotonic()
        if self._until is None or now >= self._until:
            # Never sooner than asked for.
            self._until = now + spread(self._waits[self._next], 1, 1.2)
            self._next = min(self._next + 1, len(self._waits) - 1)
        return self._until - now
