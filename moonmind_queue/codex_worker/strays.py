"""Ends what a worker that was killed has left running.

Codex dies with its worker, and its commands with Codex; but a command that is just being started
in that moment does not notice and runs on. It is known by its TMPDIR, which is the attempt's own.
"""

from collections.abc import Iterable
from datetime import timedelta
from pathlib import Path

from moonmind_queue.executors import sessions
from moonmind_queue.executors.folder import leftovers

YOUNG = timedelta(seconds=1)  # an attempt that is just being made may not be locked yet


def mark(attempt: Path) -> str:
    """Return what all processes of an attempt have in their environment."""
    return f"TMPDIR={attempt / 'tmp'}"


def end(attempts: Iterable[Path]) -> None:
    """Kill what still runs in attempts that are over."""
    if marks := [mark(each) for each in attempts]:
        sessions.kill(None, marks)


def end_all(workdir: Path) -> None:
    """Kill what still runs in attempts that nobody is at work on."""
    end(leftovers(workdir, YOUNG))
