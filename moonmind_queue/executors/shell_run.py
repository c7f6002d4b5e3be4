"""One attempt at a ``shell`` job: run the program, judge how it ended, keep what it printed."""

import errno
import signal
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import structlog

from moonmind_queue.errors import LeaseLost
from moonmind_queue.executors import Block, Context, Fail, Outcome, Retry, Stopped
from moonmind_queue.executors.allowlist import Allowed, changed
from moonmind_queue.executors.capture import Capture
from moonmind_queue.executors.command import Command
from moonmind_queue.executors.confined import Limits, ProgramChanged, Warden
from moonmind_queue.executors.lines import Blocks, TooMuch
from moonmind_queue.executors.process import End, Ended, run

PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
ERROR_LIMIT = 500  # characters of what the program said last

_EXCEEDED = {
    "memory": "used more memory than MOONMIND_SHELL_MEMORY_MB allows",
    "cpu": "used more CPU than MOONMIND_SHELL_CPU_SECONDS allows",
    "file": "wrote a larger file than MOONMIND_SHELL_FILE_MB allows",
    "output": "printed more than MOONMIND_SHELL_FILE_MB allows",
    "directory": "filled its directory with more than MOONMIND_SHELL_DIRECTORY_MB allows",
    "processes": "had more processes than MOONMIND_SHELL_PROCESSES allows",
}
_CANNOT_BE_EXECUTED = (errno.ENOENT, errno.EACCES, errno.ENOEXEC, errno.ENOTDIR, errno.ELOOP)

_log = structlog.get_logger()


@dataclass(kw_only=True)
class ShellRun:
    """The state of one attempt.

    ``folder`` is the attempt's own: below it are ``work``, where the program starts and which is
    its HOME, ``tmp``, its TMPDIR, and ``logs``.
    """

    command: Command
    program: Allowed
    folder: Path
    variables: Mapping[str, str]
    seconds: float
    limits: Limits
    outputs: tuple[Capture, Capture]
    context: Context
    _facts: dict[str, Any] = field(default_factory=dict)

    def execute(self) -> dict[str, Any]:
        """Do the work and return the job's result, or raise the outcome."""
        begin = time.monotonic()
        failure: Outcome | None
        try:
            failure = self._judge(self._run())
        except TooMuch:
            failure = self._exceed("output")
        except ProgramChanged:
            failure = changed(self.program.file)
        except OSError as error:
            said = f"{self._name} could not be run: {error}"
            failure = Block(said) if error.errno in _CANNOT_BE_EXECUTED else Retry(said)
        self._facts["seconds"] = round(time.monotonic() - begin, 3)
        try:
            self._attach(failure)
        finally:
            for output in self.outputs:
                with suppress(OSError):  # it was mentioned above
                    output.close()
        if failure is not None:
            if not isinstance(failure, Stopped):
                self.context.progress(str(failure), self._facts, level="warn")
            raise failure
        printed = {output.stream: output.end for output in self.outputs if output.end}
        return {"status": "ok", **self._facts, **printed}

    @property
    def _name(self) -> str:
        return Path(self.program.argv0).name

    def _run(self) -> Ended:
        work, tmp = self.folder / "work", self.folder / "tmp"
        cwd = work / self.command.cwd
        for each in (cwd, tmp):
            each.mkdir(parents=True)
        stdout, stderr = self.outputs
        return run(
            [self.program.argv0, *self.command.argv[1:]],
            cwd=cwd,
            env={
                "PATH": PATH,
                "HOME": str(work),
                "TMPDIR": str(tmp),
                "LANG": "C.UTF-8",
                "TERM": "dumb",
                **self.variables,
            },
            stdout=stdout,
            stderr=stderr,
            stop=self.context.stop,
            timeout=self.seconds,
            interrupt=signal.SIGTERM,
            markers=lambda: [f"HOME={work}"],
            most=self.limits.file,
            lines=Blocks,
            launch=Warden(
                limits=self.limits,
                folder=self.folder,
                program=self.program.file,
                identity=self.program.identity,
            ),
        )

    def _judge(self, ended: Ended) -> Outcome | None:
        """Return what the end means for the job; nothing is success."""
        if ended.end is End.STOPPED:
            return Stopped(f"stopped while {self._name} was running")
        code = ended.returncode
        self._facts["exit_code"] = code if code >= 0 else 128 - code  # as shells count signals
        if ended.exceeded is not None:
            return self._exceed(ended.exceeded)
        if ended.end is End.TIMEOUT:
            self._facts["timeout"] = self.seconds
            return Retry(f"timeout: {self._name} ran longer than {self.seconds:g} s")
        if code < 0:
            self._facts["signal"] = name = _signal_name(-code)
            return Retry(f"{self._name} was ended by {name}{self._last_words()}")
        return Retry(f"{self._name} exited with {code}{self._last_words()}") if code else None

    def _exceed(self, limit: str) -> Outcome:
        self._facts["limit"] = limit
        return Fail(f"{self._name} was ended: it {_EXCEEDED[limit]}")

    def _last_words(self) -> str:
        """Return what the program said at last, on stderr if it said anything there."""
        stdout, stderr = self.outputs
        said = (stderr.last_line or stdout.last_line)[:ERROR_LIMIT]
        return f": {said}" if said else ""

    def _attach(self, failure: Outcome | None) -> None:
        """Store what was printed; what cannot be stored never hides how the program ended."""
        attached: list[str] = []
        for output in self.outputs:
            if not output.size:
                continue
            name = f"logs/{output.path.name}"
            try:
                output.close()
                self.context.attach(name, output.path, "text/plain")
                attached.append(name)
            except LeaseLost:
                if failure is None:
                    raise
                break
            except Exception as refusal:
                _log.warning("shell.artifact_lost", name=name, error=str(refusal))
                warnings = self._facts.setdefault("warnings", [])
                warnings.append(f"{name} could not be stored: {refusal}")
        self._facts["artifacts"] = attached


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:  # most real-time signals have no name
        return f"signal {number}"
