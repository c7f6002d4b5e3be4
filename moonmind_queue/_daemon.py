"""What a worker's process does about itself: ends on signals, keeps its environment to itself."""

import ctypes
import signal
import sys
from collections.abc import Callable
from types import FrameType

_PR_SET_DUMPABLE = 4


def stop_on_signals(stop: Callable[[], None]) -> None:
    """Call ``stop`` at the first SIGINT or SIGTERM; the next one finds the default action again."""

    def handle(number: int, _frame: FrameType | None) -> None:
        for each in (signal.SIGINT, signal.SIGTERM):
            signal.signal(each, signal.SIG_DFL)
        stop()

    for each in (signal.SIGINT, signal.SIGTERM):
        signal.signal(each, handle)


def hide_environment() -> None:
    """Keep ``/proc/<pid>/environ``, which holds ``DATABASE_URL``, from processes of the same user.

    An agent without a sandbox could read it there. It also keeps secrets out of core dumps. A
    process of root is not stopped by it.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_DUMPABLE, 0)
