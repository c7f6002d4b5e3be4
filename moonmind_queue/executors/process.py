"""Runs one program in a session of its own and leaves nothing of it behind.

One thread does everything: it feeds stdin, hands out stdout and stderr line by line as they
come, and watches for the end, the time limit and the stop event. However the run ends, whatever
is left of the program's session is killed, so a pipe that a grandchild keeps open holds up
nobody. The caller's environment is never inherited: ``env`` is all the program gets.

How a program is started and ended is a :class:`Program`: the usual one is here, one that is held
within limits is in ``confined.py``.
"""

import math
import os
import selectors
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Protocol

from moonmind_queue.executors import sessions
from moonmind_queue.executors.lines import LINE_LIMIT, Lines, Sink

GRACE = 2.0  # seconds between the polite signal and SIGKILL
DRAIN = 1.0  # seconds for what is still in the pipes once everything is dead
REAP = 10.0  # seconds for the kernel to end a killed program
TICK = 0.05  # seconds between two looks at the stop event
CHUNK = 64 * 1024

# What runs between fork and the program. SIGKILL at the death of the thread that forked (which
# lives as long as the run does) takes the program along when the worker is killed. prctl has to
# be called in the child, and Python code in the child of a threaded process (``preexec_fn``) may
# deadlock on a lock that another thread held; a fresh interpreter that execs costs 15 ms and
# cannot. It also undoes ignored and blocked signals, which exec would pass on: those of the worker,
# and SIGPIPE and SIGXFSZ, which Python itself ignores. The report pipe closes at exec; if exec
# fails it carries the errno.
_LAUNCHER = """
import ctypes, os, signal, sys
parent, report = int(sys.argv[1]), int(sys.argv[2])
os.set_inheritable(report, False)
for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}:
    signal.signal(number, signal.SIG_DFL)
signal.pthread_sigmask(signal.SIG_SETMASK, [])
if sys.platform == "linux":
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)
try:
    os.execvp(sys.argv[3], sys.argv[3:])
except OSError as error:
    os.write(report, str(error.errno).encode())
    os._exit(127)
"""

Markers = Callable[[], Iterable[str]]


class End(StrEnum):
    """Why a run ended."""

    EXITED = "exited"
    TIMEOUT = "timeout"
    SILENT = "silent"
    STOPPED = "stopped"


@dataclass(frozen=True, slots=True)
class Ended:
    """How a run ended; ``returncode`` is negative for a signal, as in :mod:`subprocess`.

    ``exceeded`` is the limit for which the program was ended, if it was held within limits.
    """

    end: End
    returncode: int
    exceeded: str | None = None


class Program(Protocol):
    """A program under way; it has ended when ``process``, to which its pipes lead, has."""

    @property
    def process(self) -> "subprocess.Popen[bytes]":
        """What was started."""

    def interrupt(self, number: signal.Signals) -> None:
        """Ask it to end, with a signal."""

    def kill(self, markers: Markers) -> None:
        """End what is left of it, and reap it; doing so twice does nothing."""

    def ended(self, end: End) -> Ended:
        """Say how it ended, once it is killed."""


class Launch(Protocol):
    """Starts a program."""

    def __call__(
        self, argv: Sequence[str], cwd: Path, env: Mapping[str, str], stdin: int
    ) -> Program:
        """Return the program under way, or raise ``OSError`` if it cannot start."""


def run(
    argv: Sequence[str],
    *,
    cwd: Path,
    env: Mapping[str, str],
    stdout: Sink,
    stderr: Sink,
    stdin: bytes | None = None,
    stop: threading.Event | None = None,
    timeout: float | None = None,
    silence: float | None = None,
    interrupt: signal.Signals = signal.SIGINT,
    markers: Markers = tuple,
    line_limit: int = LINE_LIMIT,
    most: float = math.inf,
    lines: type[Lines] = Lines,
    launch: Launch | None = None,
) -> Ended:
    """Run a program to its end, the time limit or the stop event; ``OSError`` if it cannot start.

    Sinks get lines without their newline; what a line has beyond ``line_limit`` is cut, visibly,
    and more than ``most`` bytes on either stream raise ``TooMuch``. A program that prints nothing
    to stdout for more than ``silence`` seconds is ended, too.
    ``markers`` returns ``NAME=value`` entries: at the end every process that has one in its
    environment is killed too, which reaches children that made sessions of their own.
    """
    feed = subprocess.DEVNULL if stdin is None else subprocess.PIPE
    return attend(
        (launch or Plain)(argv, cwd, env, feed),
        stdout=lines(stdout, line_limit, most),
        stderr=lines(stderr, line_limit, most),
        stdin=stdin,
        stop=stop,
        timeout=timeout,
        silence=silence,
        interrupt=interrupt,
        markers=markers,
    )


def attend(
    program: Program,
    *,
    stdout: Lines,
    stderr: Lines,
    stdin: bytes | None = None,
    stop: threading.Event | None = None,
    timeout: float | None = None,
    silence: float | None = None,
    interrupt: signal.Signals = signal.SIGINT,
    grace: float = GRACE,
    markers: Markers = tuple,
) -> Ended:
    """See a program that is under way to its end, as :func:`run` does.

    Its stdin is closed after the last byte of ``stdin``. ``grace`` is how many seconds it has
    between ``interrupt`` and SIGKILL.
    """
    process = program.process
    pipes = _Pipes(process, stdin or b"", stdout, stderr)
    try:
        end = _watch(process, pipes, stop, timeout, silence)
        if end is not End.EXITED:
            program.interrupt(interrupt)
            _watch(process, pipes, None, grace)
        program.kill(markers)
        pipes.drain()
    finally:
        program.kill(markers)  # a sink may have raised
        pipes.close()
    return program.ended(end)


class Plain:
    """A program that the launcher turns into; its pipes are the caller's until it is attended."""

    def __init__(self, argv: Sequence[str], cwd: Path, env: Mapping[str, str], stdin: int) -> None:
        report, its_end = os.pipe()
        launcher = [sys.executable, "-I", "-S", "-c", _LAUNCHER, str(os.getpid()), str(its_end)]
        try:
            self.process = start([*launcher, *argv], cwd, env, stdin, (its_end,))
        except BaseException:
            os.close(report)
            raise
        finally:
            os.close(its_end)
        with os.fdopen(report, "rb") as reader:
            failure = reader.read()
        if failure:
            self.process.communicate()
            raise OSError(int(failure), os.strerror(int(failure)), argv[0])

    def interrupt(self, number: signal.Signals) -> None:
        """Send the signal to the program alone."""
        sessions.send(self.process, number)

    def kill(self, markers: Markers) -> None:
        """Kill the session, once: until the program is reaped its pid names it safely."""
        if self.process.returncode is None:
            sessions.kill(self.process.pid, markers())
            with suppress(subprocess.TimeoutExpired):
                self.process.wait(REAP)

    def ended(self, end: End) -> Ended:
        """Say how it ended; what the kernel cannot end counts as killed."""
        returncode = self.process.returncode
        return Ended(end, -signal.SIGKILL if returncode is None else returncode)


def start(
    argv: Sequence[str], cwd: Path, env: Mapping[str, str], stdin: int, fds: tuple[int, ...]
) -> "subprocess.Popen[bytes]":
    """Start a process in a session of its own, with pipes to read from."""
    return subprocess.Popen(
        argv,
        cwd=cwd,
        env=env,
        stdin=stdin,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        bufsize=0,
        start_new_session=True,
        pass_fds=fds,
    )


def _watch(
    process: "subprocess.Popen[bytes]",
    pipes: "_Pipes",
    stop: threading.Event | None,
    timeout: float | None,
    silence: float | None = None,
) -> End:
    """Move data until the program exits or has to end."""
    deadline = None if timeout is None else time.monotonic() + timeout
    while not sessions.exited(process):
        if stop is not None and stop.is_set():
            return End.STOPPED
        if deadline is not None and time.monotonic() >= deadline:
            return End.TIMEOUT
        if silence is not None and time.monotonic() >= pipes.heard + silence:
            return End.SILENT
        pipes.pump(TICK)
    return End.EXITED


class _Pipes:
    """The three streams of a program, none of which can block."""

    def __init__(
        self,
        process: "subprocess.Popen[bytes]",
        stdin: bytes,
        stdout: Lines,
        stderr: Lines,
    ) -> None:
        self.heard = time.monotonic()  # when the program last printed something
        self._process = process
        self._input = memoryview(stdin)
        self._selector = selectors.DefaultSelector()
        self._exit = sessions.open_pidfd(process.pid)
        if self._exit is not None:  # wakes the selector at once when the program exits
            self._selector.register(self._exit, selectors.EVENT_READ)
        for stream, lines in ((process.stdout, stdout), (process.stderr, stderr)):
            if stream is not None:
                os.set_blocking(stream.fileno(), False)
                self._selector.register(stream, selectors.EVENT_READ, lines)
        if process.stdin is not None:
            os.set_blocking(process.stdin.fileno(), False)
            self._selector.register(process.stdin, selectors.EVENT_WRITE)

    def pump(self, timeout: float) -> bool:
        """Wait for something to do and do it; false when there was nothing."""
        busy = False
        for key, _ in self._selector.select(timeout):
            if key.fileobj == self._exit:
                continue
            busy = True
            if key.data is None:
                self._write(key)
            else:
                self._read(key)
        return busy

    def drain(self) -> None:
        """Take what is left in the pipes, as long as it comes at once."""
        deadline = time.monotonic() + DRAIN
        while time.monotonic() < deadline and self.pump(0):
            pass
        for key in self._selector.get_map().values():
            if key.data is not None:
                key.data.end()

    def close(self) -> None:
        """Let go of every file descriptor."""
        self._selector.close()
        for stream in (self._process.stdin, self._process.stdout, self._process.stderr):
            if stream is not None:
                stream.close()
        if self._exit is not None:
            os.close(self._exit)

    def _write(self, key: selectors.SelectorKey) -> None:
        try:
            self._input = self._input[os.write(key.fd, self._input[:CHUNK]) :]
        except BlockingIOError:
            return
        except BrokenPipeError:
            self._input = self._input[:0]
        if not self._input and self._process.stdin is not None:
            self._selector.unregister(key.fileobj)
            self._process.stdin.close()

    def _read(self, key: selectors.SelectorKey) -> None:
        try:
            data = os.read(key.fd, CHUNK)
        except BlockingIOError:
            return
        if data:
            if key.fileobj is self._process.stdout:
                self.heard = time.monotonic()
            key.data.feed(data)
        else:
            self._selector.unregister(key.fileobj)
            key.data.end()
