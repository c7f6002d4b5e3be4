"""Finds and kills what a program started: its group, its session, whoever carries a mark.

A group is all that POSIX lets one kill. Shells with job control make groups of their own, agents
start commands in sessions of their own; those are found in ``/proc``, on Linux. Elsewhere only
the group is killed, by design: workers run on Linux, the rest is for development.
"""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

SWEEPS = 100  # looks at /proc until nothing is left; more only if something forks faster than that
PAUSE = 0.01  # seconds between them

_PROC = Path("/proc")


def exited(process: "subprocess.Popen[bytes]") -> bool:
    """Say whether a program has ended, without reaping it: its pid stays its own."""
    if sys.platform == "linux":
        return os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None
    return process.poll() is not None


def send(process: "subprocess.Popen[bytes]", number: signal.Signals) -> None:
    """Send a signal to the program alone, unless it has ended."""
    if not exited(process):
        os.kill(process.pid, number)


def open_pidfd(pid: int) -> int | None:
    """Return a file descriptor that is readable once the process has ended, where there is one."""
    if sys.platform == "linux":
        return os.pidfd_open(pid)
    return None


def kill(session: int | None, markers: Iterable[str] = ()) -> None:
    """Kill a session and every process with one of the marks in its environment.

    Without a session, for when its number may be another's by now, only the marks count.
    """
    if session is not None:
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(session, signal.SIGKILL)
    if sys.platform != "linux":
        return
    marks = tuple(marker.encode() for marker in markers)
    for _ in range(SWEEPS):
        if not sum(_kill_member(pid, session, marks) for pid in _pids()):
            return
        time.sleep(PAUSE)


def _pids() -> list[int]:
    own = os.getpid()
    return [
        int(each.name) for each in _PROC.iterdir() if each.name.isdigit() and int(each.name) != own
    ]


def _kill_member(pid: int, session: int | None, marks: tuple[bytes, ...]) -> bool:
    """Kill a process if it belongs; the pidfd makes sure that it is the one that was looked at."""
    if sys.platform != "linux":
        return False
    try:
        pidfd = os.pidfd_open(pid)
    except OSError:
        return False
    try:
        if not _belongs(pid, session, marks):
            return False
        signal.pidfd_send_signal(pidfd, signal.SIGKILL)
    except OSError:
        return False  # gone meanwhile, or somebody else's
    finally:
        os.close(pidfd)
    return True


def _belongs(pid: int, session: int | None, marks: tuple[bytes, ...]) -> bool:
    # The name in parentheses may hold blanks and parentheses; the fields after it are fixed.
    state, _, _, its_session, *_ = (
        (_PROC / str(pid) / "stat").read_bytes().rpartition(b")")[2].split()
    )
    if state in (b"Z", b"X"):
        return False
    if int(its_session) == session:
        return True
    return bool(marks) and not set(marks).isdisjoint(
        (_PROC / str(pid) / "environ").read_bytes().split(b"\0")
    )
