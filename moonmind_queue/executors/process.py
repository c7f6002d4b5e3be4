"""Runs one program in a session of its own and leaves nothing of it behind.

One thread does everything: it feeds stdin, hands out stdout and stderr line by line as they
come, and watches for the end, the time limit and the stop event. However the run ends, whatever
is left of the program's session is killed, so a pipe that a grandchild keeps open holds up
nobody. The caller's environment is never inherited: ``env`` is all the program gets.
"""

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

from moonmind_queue.executors import sessions

LINE_LIMIT = 8 * 1024 * 1024  # bytes of one line that are kept
GRACE = 2.0  # seconds between the polite signal and SIGKILL
DRAIN = 1.0  # seconds for what is still in the pipes once everything is dead
REAP = 10.0  # seconds for the kernel to end a killed program
TICK = 0.05  # seconds between two looks at the stop event
CHUNK = 64 * 1024

# What runs between fork and the program. SIGKILL at the death of the thread that forked (which
# lives as long as the run does) takes the program along when the worker is killed. prctl has to
# be called in the child, and Python code in the child of a threaded process (``preexec_fn``) may
# deadlock on a lock that another thread held; a fresh interpreter that execs costs 15 ms and
# cannot. It also undoes ignored and blocked signals, which exec would pass on. The report pipe
# closes at exec; if exec fails it carries the errno.
_LAUNCHER = """
import ctypes, os, signal, sys
parent, report = int(sys.argv[1]), int(sys.argv[2])
os.set_inheritable(report, False)
signal.signal(signal.SIGINT, signal.SIG_DFL)
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

Sink = Callable[[bytes], None]


class End(StrEnum):
    """Why a run ended."""

    EXITED = "exited"
    TIMEOUT = "timeout"
    STOPPED = "stopped"


@dataclass(frozen=True, slots=True)
class Ended:
    """How a run ended; ``returncode`` is negative for a signal, as in :mod:`subprocess`."""

    end: End
    returncode: int


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
    interrupt: signal.Signals = signal.SIGINT,
    markers: Callable[[], Iterable[str]] = tuple,
    line_limit: int = LINE_LIMIT,
) -> Ended:
    """Run a program to its end, the time limit or the stop event; ``OSError`` if it cannot start.

    Sinks get lines without their newline; what a line has beyond ``line_limit`` is cut, visibly.
    ``markers`` returns ``NAME=value`` entries: at the end every process that has one in its
    environment is killed too, which reaches children that made sessions of their own.
    """
    process = start(
        argv, cwd=cwd, env=env, stdin=subprocess.DEVNULL if stdin is None else subprocess.PIPE
    )
    return attend(
        process,
        stdout=stdout,
        stderr=stderr,
        stdin=stdin,
        stop=stop,
        timeout=timeout,
        interrupt=interrupt,
        markers=markers,
        line_limit=line_limit,
    )


def attend(
    process: "subprocess.Popen[bytes]",
    *,
    stdout: Sink,
    stderr: Sink,
    stdin: bytes | None = None,
    stop: threading.Event | None = None,
    timeout: float | None = None,
    interrupt: signal.Signals = signal.SIGINT,
    grace: float = GRACE,
    markers: Callable[[], Iterable[str]] = tuple,
    line_limit: int = LINE_LIMIT,
) -> Ended:
    """See a program that :func:`start` started to its end, as :func:`run` does.

    Its stdin is closed after the last byte of ``stdin``. ``grace`` is how many seconds it has
    between ``interrupt`` and SIGKILL.
    """
    pipes = _Pipes(process, stdin or b"", stdout, stderr, line_limit)
    try:
        end = _watch(process, pipes, stop, timeout)
        if end is not End.EXITED:
            sessions.send(process, interrupt)
            _watch(process, pipes, None, grace)
        _kill(process, markers)
        pipes.drain()
    finally:
        _kill(process, markers)  # a sink may have raised
        pipes.close()
    return Ended(end, -signal.SIGKILL if process.returncode is None else process.returncode)


def _kill(process: "subprocess.Popen[bytes]", markers: Callable[[], Iterable[str]]) -> None:
    """Kill what is left, once: until the program is reaped its pid names its session safely."""
    if process.returncode is None:
        sessions.kill(process.pid, markers())
        with suppress(subprocess.TimeoutExpired):
            process.wait(REAP)


def start(
    argv: Sequence[str], *, cwd: Path, env: Mapping[str, str], stdin: int = subprocess.PIPE
) -> "subprocess.Popen[bytes]":
    """Start a program in a session of its own; ``OSError`` if it cannot start.

    It ends with the calling thread at the latest. Whoever starts it sees it to its end with
    :func:`attend`; until then its pipes are the caller's to use.
    """
    report, its_end = os.pipe()
    try:
        process = subprocess.Popen(
            [sys.executable, "-I", "-S", "-c", _LAUNCHER, str(os.getpid()), str(its_end), *argv],
            cwd=cwd,
            env=env,
            stdin=stdin,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            bufsize=0,
            start_new_session=True,
            pass_fds=(its_end,),
        )
    except BaseException:
        os.close(report)
        raise
    finally:
        os.close(its_end)
    with os.fdopen(report, "rb") as reader:
        failure = reader.read()
    if failure:
        process.communicate()
        raise OSError(int(failure), os.strerror(int(failure)), argv[0])
    return process


def _watch(
    process: "subprocess.Popen[bytes]",
    pipes: "_Pipes",
    stop: threading.Event | None,
    timeout: float | None,
) -> End:
    """Move data until the program exits or has to end."""
    deadline = None if timeout is None else time.monotonic() + timeout
    while not sessions.exited(process):
        if stop is not None and stop.is_set():
            return End.STOPPED
        if deadline is not None and time.monotonic() >= deadline:
            return End.TIMEOUT
        pipes.pump(TICK)
    return End.EXITED


class _Pipes:
    """The three streams of a program, none of which can block."""

    def __init__(
        self,
        process: "subprocess.Popen[bytes]",
        stdin: bytes,
        stdout: Sink,
        stderr: Sink,
        limit: int,
    ) -> None:
        self._process = process
        self._input = memoryview(stdin)
        self._selector = selectors.DefaultSelector()
        self._exit = sessions.open_pidfd(process.pid)
        if self._exit is not None:  # wakes the selector at once when the program exits
            self._selector.register(self._exit, selectors.EVENT_READ)
        for stream, sink in ((process.stdout, stdout), (process.stderr, stderr)):
            if stream is not None:
                os.set_blocking(stream.fileno(), False)
                self._selector.register(stream, selectors.EVENT_READ, Lines(sink, limit))
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
            key.data.feed(data)
        else:
            self._selector.unregister(key.fileobj)
            key.data.end()


class Lines:
    """Cuts a stream into lines, in memory that no line can exceed."""

    def __init__(self, sink: Sink, limit: int = LINE_LIMIT) -> None:
        self._sink = sink
        self._limit = limit
        self._line = bytearray()
        self._cut = 0

    def feed(self, data: bytes) -> None:
        """Take the next bytes."""
        first, *rest = data.split(b"\n")
        self._add(first)
        for part in rest:
            self._emit()
            self._add(part)

    def end(self) -> None:
        """Hand out a last line that has no newline."""
        if self._line:
            self._emit()

    def _add(self, part: bytes) -> None:
        room = self._limit - len(self._line)
        self._line += part[:room]
        self._cut += max(0, len(part) - room)

    def _emit(self) -> None:
        if self._cut:
            self._line += b" [... %d bytes cut ...]" % self._cut
        line, self._line, self._cut = bytes(self._line), bytearray(), 0
        self._sink(line)
