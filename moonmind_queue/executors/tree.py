"""The processes below this one: what there is, and how all of it is ended.

For a process that has made itself a *subreaper* (``warden.py``): whatever loses its parent below
it becomes its child. When it has no child left, nothing is left.

Imported for each run by an interpreter of its own, so it needs little else.
"""

import os
import signal
import time
from collections.abc import Callable
from contextlib import suppress

PATIENCE = 8.0  # seconds for ending what is there
ROUNDS = 20  # times that children are killed between two looks at all processes
PAUSE = 0.0005  # seconds between them

_ENDED = (b"Z", b"X")
_LISTED = os.path.exists(f"/proc/self/task/{os.getpid()}/children")


class Process:
    """What ``/proc/<pid>/stat`` says; ``ticks`` of CPU are those of children it waited for too."""

    __slots__ = ("pages", "parent", "pid", "state", "threads", "ticks")

    def __init__(self, pid: int, field: list[bytes]) -> None:
        self.pid = pid
        self.state = field[0]
        self.parent = int(field[1])
        self.ticks = sum(map(int, field[11:15]))
        self.threads = max(1, int(field[17]))
        self.pages = int(field[21])

    @property
    def ended(self) -> bool:
        """Whether only its parent has still to hear of it."""
        return self.state in _ENDED


def look(pid: int) -> Process | None:
    """Return what is to be known of a process, if there is one."""
    try:
        with open(f"/proc/{pid}/stat", "rb", 0) as file:
            # The name in parentheses may hold blanks and parentheses; the rest is fixed.
            field = file.read(2048).rpartition(b")")[2].split()
    except OSError:
        return None
    return Process(pid, field) if len(field) > 21 else None


def pids() -> list[int]:
    """Return all processes of this machine, or of this container."""
    return [int(name) for name in os.listdir("/proc") if name.isdigit()]


def below() -> list[Process]:
    """Return all descendants of this process, parents before their children."""
    own = os.getpid()
    find = _children if _LISTED else _family()
    found: list[Process] = []
    parents, seen = [own], {own}
    for parent in parents:  # which grows meanwhile
        for pid in find(parent):
            process = None if pid in seen else look(pid)
            if process and process.parent in (parent, own):
                seen.add(pid)
                found.append(process)
                parents.append(pid)
    return found


def end(program: int) -> int:
    """Kill everything below; return the returncode of ``program``, a child that leads a group.

    A group dies in one call, before it can fork again. Children are killed again and again, since
    what forks and exits in turn is gone when everything has been looked at; the rest from the top
    down, so that nobody is left who could reap what is to be killed next.
    """
    returncode: int | None = None
    deadline = time.monotonic() + PATIENCE
    rounds = 1
    while time.monotonic() < deadline:
        if returncode is None:  # not reaped, so the group's number is still its own
            with suppress(OSError):
                os.killpg(program, signal.SIGKILL)
        for _ in range(rounds):
            for child in _own_children():
                with suppress(OSError):
                    os.kill(child, signal.SIGKILL)
            try:
                for pid, status in iter(_reap, (0, 0)):
                    if pid == program:
                        returncode = os.waitstatus_to_exitcode(status)
            except ChildProcessError:
                return -signal.SIGKILL if returncode is None else returncode
            time.sleep(PAUSE)
        for process in below():
            _kill(process)
        rounds = ROUNDS
    return -signal.SIGKILL if returncode is None else returncode


def _own_children() -> list[int]:
    """Return this process's children; nobody else can reap them, so their pids are their own."""
    own = os.getpid()
    return _children(own) if _LISTED else _family()(own)


def _reap() -> tuple[int, int]:
    return os.waitpid(-1, os.WNOHANG)


def _children(parent: int) -> list[int]:
    """Return the children of a process, those of each of its threads."""
    children = []
    with suppress(OSError):
        for thread in os.listdir(f"/proc/{parent}/task"):
            with suppress(OSError), open(f"/proc/{parent}/task/{thread}/children", "rb", 0) as file:
                children += map(int, file.readall().split())
    return children


def _family() -> Callable[[int], list[int]]:
    """Return the same for a kernel without CONFIG_PROC_CHILDREN, from a look at all processes."""
    children: dict[int, list[int]] = {}
    for process in filter(None, map(look, pids())):
        children.setdefault(process.parent, []).append(process.pid)
    return lambda parent: children.get(parent, [])


def _kill(process: Process) -> None:
    """Kill a process if it is still the one that was seen; a pidfd cannot come to mean another."""
    try:
        handle = os.pidfd_open(process.pid)
    except OSError:
        return
    try:
        now = look(process.pid)
        if now and not now.ended and now.parent in (process.parent, os.getpid()):
            signal.pidfd_send_signal(handle, signal.SIGKILL)
    except OSError:
        return
    finally:
        os.close(handle)
