"""Stands between a worker and a program, holds it within limits and ends all that it started.

The warden is the program's parent and, as a *subreaper*, becomes the parent of every process that
loses its own: whatever session, group or environment a process makes for itself, it stays below
the warden. That is the kernel's word, not a guess from names or marks.

It is a process of its own, started for each run (``confined.py``), so it imports little. Words on
its command line, in this order: the descriptors of control and report; the limits (bytes of
memory, seconds of CPU, bytes of a file, bytes of the directory, processes); device, inode, ctime
and size of the program; the directory; the program's path; its argv.

A byte on the control pipe is a signal for the program's group. The pipe's end, which the worker's
death brings about too, means that everything has to go. The report is one line when the program
is about to be started (``ready``), one when it runs (``started PID``) or cannot (``failed ERRNO``
or ``failed changed``), and one when nothing is left (``ended RETURNCODE LIMIT``, the limit that was
exceeded or ``-``).
"""

import ctypes
import errno
import os
import resource
import select
import signal
import sys
import time
from contextlib import suppress

from moonmind_queue.executors import fence, tree, usage

TICK = 0.05  # seconds between two looks at what runs, at least
SHARE = 20  # looking takes no more than this part of the time
FEW = 32  # processes that are looked at before they are counted again
SECONDS = 5  # of CPU beyond the limit, for one process, until the kernel ends it

_DEATH_SIGNAL, _DUMPABLE, _SUBREAPER, _NO_NEW_PRIVILEGES = 1, 4, 36, 38  # prctl

Identity = tuple[int, int, int, int]


def main() -> None:
    """Run the program that the command line describes."""
    control, report, memory, cpu, file, directory, processes = map(int, sys.argv[1:8])
    device, inode, ctime, size = map(int, sys.argv[8:12])
    folder, path, *argv = sys.argv[12:]
    for each in (control, report):
        os.set_inheritable(each, False)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT):
        signal.signal(number, signal.SIG_IGN)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    _prctl(_SUBREAPER, 1)
    _prctl(_NO_NEW_PRIVILEGES, 1)  # what a set-user-ID program started could not be ended by us
    fenced = fence.enter()
    limits = _kernel_limits(cpu, file, processes)
    watch = Watch(control, memory, cpu, processes, usage.Directory(folder, directory), fenced)
    os.write(report, b"ready\n")
    program, failure = _start(path, argv, (device, inode, ctime, size), limits, fenced)
    if failure:
        os.write(report, b"failed %s\n" % failure)
        return
    os.write(report, b"started %d\n" % program)
    _let_go_of_streams()
    try:
        exceeded = watch.over(program)
    finally:
        returncode = tree.end(program, limits.get(resource.RLIMIT_NPROC, 0), fenced)
    os.write(report, b"ended %d %s\n" % (returncode, exceeded.encode() or b"-"))


def identify(found: os.stat_result) -> Identity:
    """Return what changes when a file is replaced or written to; its mtime can be set back."""
    return found.st_dev, found.st_ino, found.st_ctime_ns, found.st_size


def _kernel_limits(cpu: int, file: int, processes: int) -> dict[int, int]:
    """Return what the kernel holds the program to, which is wider than what is watched.

    It counts the CPU of each process alone. For RLIMIT_NPROC it counts all processes of the user,
    those of other runs too, and none of root's; with too many to a core, the warden would hardly
    get its turn. There is no limit on address space, for that is not memory: a Java machine or a
    sanitizer reserves many times what it will ever use.
    """
    limits = {
        resource.RLIMIT_CPU: cpu + SECONDS,
        resource.RLIMIT_FSIZE: file,
        resource.RLIMIT_CORE: 0,
    }
    if os.getuid():
        runs = max(2, len(os.sched_getaffinity(0)))
        limits[resource.RLIMIT_NPROC] = _own_threads() + processes * runs
    return limits


def _start(
    path: str, argv: list[str], identity: Identity, limits: dict[int, int], fenced: bool
) -> tuple[int, bytes]:
    """Fork and exec; returns the pid, and why the program cannot run if it cannot."""
    warden = os.getpid()
    reader, writer = os.pipe()  # closes at exec
    pid = os.fork()
    if pid == 0:
        try:
            _confine(warden, limits, fenced)
            if identify(os.stat(path)) == identity:
                os.execve(path, argv, os.environ)  # noqa: S606 - that is what it is for
            os.write(writer, b"changed")
        except Exception as error:
            os.write(writer, b"%d" % (getattr(error, "errno", None) or errno.EINVAL))
        finally:
            os._exit(127)
    os.close(writer)
    _prctl(_DUMPABLE, 0)  # so the program, of the same user, cannot get at our descriptors
    _hurry()
    failure = os.read(reader, 100)
    os.close(reader)
    return pid, failure


def _confine(warden: int, limits: dict[int, int], fenced: bool) -> None:
    """Become what the program is to be; in the child."""
    os.setsid()
    _prctl(_DEATH_SIGNAL, signal.SIGKILL)
    if os.getppid() != warden:
        os._exit(1)
    for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}:
        signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    # When memory runs out, the kernel shall end this rather than the worker.
    with suppress(OSError, ValueError), open("/proc/self/oom_score_adj", "r+") as file:
        score = max(500, int(file.read()))
        file.seek(0)
        file.write(str(score))
    for kind, value in limits.items():
        _, most = resource.getrlimit(kind)
        value = value if most == resource.RLIM_INFINITY else min(value, most)
        resource.setrlimit(kind, (value, value))
    if fenced and not fence.enter():  # one of its own, so that it cannot signal the warden
        raise OSError(errno.EPERM, "cannot be fenced in")


def _prctl(option: int, value: int) -> None:
    if ctypes.CDLL(None, use_errno=True).prctl(option, value, 0, 0, 0):
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error))


def _hurry() -> None:
    """Go before what is watched, where that is allowed: a fork bomb must not outrun its end."""
    with suppress(OSError):
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))
        return
    with suppress(OSError):
        os.setpriority(os.PRIO_PROCESS, 0, -20)
        with open("/proc/self/autogroup", "w") as file:
            file.write("-20")


def _own_threads() -> int:
    """Return how many threads this user has, which is what RLIMIT_NPROC counts."""
    own, threads = os.getuid(), 0
    for pid in tree.pids():
        with suppress(OSError):
            if os.stat(f"/proc/{pid}").st_uid == own and (process := tree.look(pid)):
                threads += process.threads
    return threads


def _let_go_of_streams() -> None:
    """Close the program's pipes on this side, or who reads them would never see their end."""
    null = os.open(os.devnull, os.O_RDWR)
    for each in (0, 1, 2):
        os.dup2(null, each)


class Watch:
    """What the program and all that it starts may use, and who is listened to meanwhile."""

    def __init__(
        self,
        control: int,
        memory: int,
        cpu: int,
        processes: int,
        space: usage.Directory,
        fenced: bool,
    ) -> None:
        self._control = control
        self._memory, self._cpu, self._processes = memory, cpu, processes
        self._space, self._time = space, usage.Time()
        self._fenced = fenced
        self._threads = tree.threads()

    def over(self, program: int) -> str:
        """Return when everything has to end: the limit that is exceeded, or nothing."""
        poll = select.poll()
        poll.register(self._control, select.POLLIN)
        poll.register(os.pidfd_open(program), select.POLLIN)
        while True:
            begin = time.monotonic()
            if exceeded := self._look(program):
                return exceeded
            pause = max(TICK, SHARE * (time.monotonic() - begin))
            for fd, _ in poll.poll(1000 * pause):
                orders = os.read(self._control, 16) if fd == self._control else b""
                if not orders:
                    return ""
                for number in orders:
                    with suppress(ProcessLookupError):
                        os.killpg(program, number)

    def _look(self, program: int) -> str:
        tree.reap_orphans(program)
        running: list[tree.Process] = []
        threads = 0
        for process in tree.below():
            if process.ended and process.parent == os.getpid():
                continue  # an orphan that the next look reaps
            if len(running) % FEW == 0 and self._is_crowd():
                return "processes"
            running.append(process)
            threads += process.threads
            if threads > self._processes:
                return "processes"
        if self._time.used(running) > self._cpu:
            return "cpu"
        if usage.memory(running, self._memory) > self._memory:
            return "memory"
        return "directory" if self._space.is_full(running) else ""

    def _is_crowd(self) -> bool:
        """Count quickly, where there may be a fork bomb: it would get ahead of a closer look."""
        grown = tree.threads() - self._threads
        return self._fenced and grown > self._processes and tree.crowded(self._processes)
