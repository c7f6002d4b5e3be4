"""Starts programs that are held within limits, each under a warden (``warden.py``).

Linux only: elsewhere there is no way to find all that a program has started.
"""

import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import astuple, dataclass
from pathlib import Path

import structlog

from moonmind_queue.executors import sessions
from moonmind_queue.executors.process import REAP, End, Ended, Markers, start
from moonmind_queue.executors.tree import PATIENCE
from moonmind_queue.executors.warden import Identity

_log = structlog.get_logger()

# The warden is a module of this package, but the package itself, and all that it imports, would
# cost more time than most programs take: so its parents are made by hand, without their content.
_BOOTSTRAP = """
import sys
root = sys.argv.pop(1)
for name in ("moonmind_queue", "moonmind_queue.executors"):
    package = sys.modules[name] = type(sys)(name)
    package.__path__ = [root + "/" + name.replace(".", "/")]
from moonmind_queue.executors.warden import main
main()
"""
_ROOT = str(Path(__file__).parents[2])


class ProgramChanged(OSError):
    """The file to be run is not the one that was meant."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What a program and all that it starts may use together; more ends it.

    ``memory``, ``file`` (the size of one file) and ``directory`` in bytes, ``cpu`` in seconds,
    ``processes`` with their threads. The field's name is what ``Ended.exceeded`` says.
    """

    memory: int
    cpu: int
    file: int
    directory: int
    processes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Warden:
    """Starts one file, whatever ``argv[0]`` says, unless it is another than it was.

    ``folder`` is the directory whose content counts.
    """

    limits: Limits
    folder: Path
    program: Path
    identity: Identity

    def __call__(
        self, argv: Sequence[str], cwd: Path, env: Mapping[str, str], stdin: int
    ) -> "Confined":
        """Return the program under way; raises ``OSError`` and ``ProgramChanged``."""
        numbers = (*astuple(self.limits), *self.identity)
        words = [*map(str, numbers), str(self.folder), str(self.program), *argv]
        return Confined(words, cwd, env, stdin)


class Confined:
    """A program under way below its warden, which is the ``process``."""

    def __init__(self, words: Sequence[str], cwd: Path, env: Mapping[str, str], stdin: int) -> None:
        its_control, self._control = os.pipe()
        report, its_report = os.pipe()
        launcher = [sys.executable, "-I", "-S", "-c", _BOOTSTRAP, _ROOT]
        fds = (its_control, its_report)
        try:
            self.process = start([*launcher, *map(str, fds), *words], cwd, env, stdin, fds)
        except BaseException:
            os.close(self._control)
            os.close(report)
            raise
        finally:
            for each in fds:
                os.close(each)
        self._report = os.fdopen(report, "rb")
        self._pidfd: int | None = None
        self._returncode = -int(signal.SIGKILL)
        self._exceeded: str | None = None
        self._begin()

    def interrupt(self, number: signal.Signals) -> None:
        """Send the signal to the program's group."""
        with suppress(BrokenPipeError):
            os.write(self._control, bytes([number]))

    def kill(self, markers: Markers) -> None:
        """Have the warden end everything; do what can be done if it was killed itself."""
        if self._report.closed:
            return
        os.close(self._control)
        self.process.send_signal(signal.SIGCONT)  # what it was to watch may have stopped it
        with suppress(subprocess.TimeoutExpired):
            self.process.wait(PATIENCE + REAP)
        self.process.kill()
        with suppress(subprocess.TimeoutExpired):
            self.process.wait(REAP)
        # The program may have got hold of the other end, so there is no waiting for this one's.
        os.set_blocking(self._report.fileno(), False)
        word, *rest = self._next()
        if word == "ended":
            self._understand(int(rest[0]), rest[1])
        else:
            self._end_without_warden(markers)
        self._close()

    def ended(self, end: End) -> Ended:
        """Say how it ended; what was lost sight of counts as killed."""
        return Ended(end, self._returncode, self._exceeded)

    def _begin(self) -> None:
        """Wait until the program runs; raises when it cannot."""
        word, *rest = self._next()
        if word == "ready":
            word, *rest = self._next()
            if word == "started":
                with suppress(OSError):  # it has ended already
                    self._pidfd = os.pidfd_open(int(rest[0]))
            if word != "failed":  # or lost: the program ran all the same, and was quick to do that
                return
        os.close(self._control)
        _, said = self.process.communicate()
        self._close()
        if word == "lost":
            raise ChildProcessError(f"no warden: {said.decode(errors='replace')[-500:].strip()}")
        if rest == ["changed"]:
            raise ProgramChanged("the file is not the one that it was when the worker started")
        raise OSError(int(rest[0]), os.strerror(int(rest[0])))

    def _next(self) -> list[str]:
        """Return the words of the next line of the report."""
        return self._report.readline().decode().split() or ["lost"]

    def _understand(self, returncode: int, exceeded: str) -> None:
        self._returncode = returncode
        if exceeded != "-":
            self._exceeded = exceeded
        elif returncode in (-signal.SIGXFSZ, 128 + signal.SIGXFSZ):  # the latter: from a shell
            self._exceeded = "file"

    def _end_without_warden(self, markers: Markers) -> None:
        """End what can be found: the program, and who carries a mark."""
        _log.warning("warden.lost", pid=self.process.pid)
        if self._pidfd is not None:
            with suppress(OSError):
                signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)
        sessions.kill(None, markers())

    def _close(self) -> None:
        self._report.close()
        if self._pidfd is not None:
            os.close(self._pidfd)
