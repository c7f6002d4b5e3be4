"""The processes below this one: what there is, and how all of it is ended.

For a process that has made itself a *subreaper* (``warden.py``): whatever loses its parent below
it becomes its child. When it has no child left, nothing is left.

Imported for each run by an interpreter of its own, so it needs little else.
"""

import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import suppress

PATIENCE = 30.0  # seconds for ending what is there; all but a fork bomb takes one
PAUSE = 0.0005  # seconds between them

_ENDED = (b"Z", b"X")
_LISTED = os.path.exists(f"/proc/self/task/{os.getpid()}/children")


class Process:
    """What ``/proc/<pid>/stat`` says; ``waited`` are ticks of the children it has waited for."""

    __slots__ = ("began", "pages", "parent", "pid", "state", "threads", "ticks", "waited")

    def __init__(self, pid: int, field: list[bytes]) -> None:
        self.pid = pid
        self.state = field[0]
        self.parent = int(field[1])
        self.ticks = int(field[11]) + int(field[12])
        self.waited = int(field[13]) + int(field[14])
        self.threads = max(1, int(field[17]))
        self.began = int(field[19])
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


def threads() -> int:
    """Return how many threads this machine has; that takes no time."""
    with suppress(OSError, ValueError), open("/proc/loadavg", "rb", 0) as file:
        _, _, _, tasks, *_ = file.read(200).split()
        return int(tasks.partition(b"/")[2])
    return 0


def crowded(most: int) -> bool:
    """Say whether more than so many processes are in this one's fence: who can be signalled is.

    It takes a tenth of the time of :func:`below`, which counts when hardly any is left.
    """
    count = -1  # for this one
    for pid in pids():
        try:
            os.kill(pid, 0)
        except OSError:
            continue
        count += 1
        if count > most:
            return True
    return False


def below() -> Iterator[Process]:
    """Yield all descendants of this process, parents before their children."""
    own = os.getpid()
    find = children if _LISTED else _family()
    parents, seen = [own], {own}
    for parent in parents:  # which grows meanwhile
        for pid in find(parent):
            process = None if pid in seen else look(pid)
            if process and process.parent in (parent, own):
                seen.add(pid)
                parents.append(pid)
                yield process


def reap_orphans(program: int) -> None:
    """Reap the children that have ended, until ``program`` is among them: that has time."""
    ended = os.WEXITED | os.WNOHANG | os.WNOWAIT
    while (child := os.waitid(os.P_ALL, 0, ended)) and child.si_pid != program:
        os.waitpid(child.si_pid, 0)


def end(program: int, hold: int, fenced: bool) -> int:
    """Kill everything below; return the returncode of ``program``, a child that leads a group.

    In a fence (``fence.py``) all die in one call. Without one a group does, before it can fork
    again, and the rest is killed from the top down, so that nobody is left who could reap what is
    to be killed next. What is dead is held back then, up to ``hold``: where the kernel limits the
    processes of a user, a zombie takes the place of one that could be forked, so that there are
    ever fewer places, however slowly this gets on.
    """
    returncode: int | None = None
    deadline = time.monotonic() + PATIENCE
    dead: set[int] = set()
    while time.monotonic() < deadline:
        with suppress(OSError):
            if fenced:
                os.kill(-1, signal.SIGKILL)
            elif returncode is None:  # not reaped, so the group's number is still its own
                os.killpg(program, signal.SIGKILL)
        if not fenced and _sweep(dead) and len(dead) <= hold:
            time.sleep(PAUSE)
            continue
        dead.clear()
        try:
            for pid, status in iter(_reap, (0, 0)):
                if pid == program:
                    returncode = os.waitstatus_to_exitcode(status)
        except ChildProcessError:
            break
        time.sleep(PAUSE)
    return -signal.SIGKILL if returncode is None else returncode


def _sweep(dead: set[int]) -> bool:
    """Kill what there is; say whether any child was alive. Those that are not are added."""
    own = os.getpid()
    find = children if _LISTED else _family()
    alive = [pid for pid in find(own) if pid not in dead]
    for pid in alive:  # nobody else can reap them, so the numbers are their own
        with suppress(OSError):
            os.kill(pid, signal.SIGKILL)
    parents = list(alive)
    for parent in parents:
        for pid in find(parent):
            if _kill(pid, parent):
                parents.append(pid)
    for pid in alive:
        process = look(pid)
        if process is None or process.ended:
            dead.add(pid)
    return bool(alive)


def _reap() -> tuple[int, int]:
    return os.waitpid(-1, os.WNOHANG)


def children(parent: int) -> list[int]:
    """Return the children of a process, those of each of its threads."""
    found: list[int] = []
    with suppress(OSError):
        for thread in os.listdir(f"/proc/{parent}/task"):
            with suppress(OSError), open(f"/proc/{parent}/task/{thread}/children", "rb", 0) as file:
                found += map(int, file.readall().split())
    return found


def _family() -> Callable[[int], list[int]]:
    """Return the same for a kernel without CONFIG_PROC_CHILDREN, from a look at all processes."""
    children: dict[int, list[int]] = {}
    for process in filter(None, map(look, pids())):
        children.setdefault(process.parent, []).append(process.pid)
    return lambda parent: children.get(parent, [])


def _kill(pid: int, parent: int) -> bool:
    """Kill a process if it is still the one that was seen; a pidfd cannot come to mean another."""
    try:
        handle = os.pidfd_open(pid)
    except OSError:
        return False
    try:
        process = look(pid)
        if process is None or process.ended or process.parent not in (parent, os.getpid()):
            return False
        signal.pidfd_send_signal(handle, signal.SIGKILL)
        return True
    except OSError:
        return False
    finally:
        os.close(handle)
