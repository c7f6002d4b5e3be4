"""The kind ``shell``: one allowed program, held within limits, with all that it prints.

There is no shell: the payload (``command.py``) is a program with its arguments, the worker's
allowlist (``allowlist.py``) says which there are, and what it starts is watched and ended by a
warden (``warden.py``). How an attempt ends:

========================================  ====================================================
exit status 0                             the result, with the end of what was printed
another exit status, or a signal          ``Retry``, the status in its text and in an event
the time limit                            ``Retry``
a limit of ``MOONMIND_SHELL_…``           ``Fail``: the same again would end the same way
a program that is not allowed, or gone    ``Block``: a person decides
the stop event                            ``Stopped``
========================================  ====================================================

What was printed is kept however it ends: ``logs/stdout.log`` and ``logs/stderr.log``, each with
its beginning and its end if it is too large, secrets of the worker taken out.
"""

import os
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Self

import structlog

from moonmind_queue.errors import InvalidPayload, SettingsError
from moonmind_queue.executors import Context, Fail
from moonmind_queue.executors.allowlist import Allowlist
from moonmind_queue.executors.capture import Capture
from moonmind_queue.executors.command import Command
from moonmind_queue.executors.confined import Limits, Warden
from moonmind_queue.executors.folder import Folder
from moonmind_queue.executors.process import run
from moonmind_queue.executors.shell_run import ShellRun
from moonmind_queue.executors.warden import identify
from moonmind_queue.model import ClaimedJob
from moonmind_queue.redact import Redactor, environment_secrets
from moonmind_queue.settings import Settings, ShellProgram

MB = 1024 * 1024

_log = structlog.get_logger()


class Shell:
    """Runs one program for each job."""

    def __init__(
        self,
        allow: Iterable[ShellProgram],
        *,
        environ: Mapping[str, str],
        workdir: Path,
        run_timeout: float,
        artifact_max_bytes: int,
        limits: Limits,
    ) -> None:
        """``environ`` is the worker's own: its PATH finds programs, its secrets are redacted."""
        self._allowlist = Allowlist(allow, environ.get("PATH") or os.defpath)
        self._redactor = Redactor(environment_secrets(environ))
        self._workdir = workdir.absolute()
        self._run_timeout = run_timeout
        self._artifact_max_bytes = artifact_max_bytes
        self._limits = limits

    @classmethod
    def validate(cls, payload: Mapping[str, Any]) -> dict[str, Any]:
        """Return the payload as it is, or raise ``InvalidPayload`` that names the member."""
        Command.parse(payload)
        return dict(payload)

    @classmethod
    def configure(cls, settings: Settings) -> Self:
        """Look up the allowed programs; raises ``SettingsError`` when one cannot be used."""
        return cls(
            settings.shell_allow,
            environ=os.environ,
            workdir=settings.workdir,
            run_timeout=settings.run_timeout_seconds,
            artifact_max_bytes=settings.artifact_max_bytes,
            limits=Limits(
                memory=settings.shell_memory_mb * MB,
                cpu=settings.shell_cpu_seconds,
                file=settings.shell_file_mb * MB,
                directory=settings.shell_directory_mb * MB,
                processes=settings.shell_processes,
            ),
        )

    def check(self) -> None:
        """Raise when programs cannot be held within limits here; warn of a list that is none."""
        if sys.platform != "linux":
            raise SettingsError("kind shell needs Linux")
        self._try_warden()
        if not self._allowlist.programs:
            _log.warning("shell.nothing_allowed", help="name programs in MOONMIND_SHELL_ALLOW")
        for program in self._allowlist.programs:
            _log.info("shell.allowed", program=program.argv0, file=str(program.file))
            if program.runs_anything:
                _log.warning(
                    "shell.runs_anything",
                    program=program.argv0,
                    help="its arguments can name any other program; give patterns for them",
                )

    def run(self, job: ClaimedJob, context: Context) -> Mapping[str, Any]:
        """Make one attempt; its directory, and all that it started, is gone afterwards."""
        try:
            command = Command.parse(job.payload)
        except InvalidPayload as error:
            raise Fail(str(error)) from None
        program = self._allowlist.permit(command.argv)
        folder = Folder.create(self._workdir, job.id, job.attempt)

        def captured(stream: str) -> Capture:
            path = folder.path / "logs" / f"{stream}.log"
            return Capture(stream, path, self._redactor, context, self._artifact_max_bytes)

        try:
            attempt = ShellRun(
                command=command,
                program=program,
                folder=folder.path,
                variables={"MOONMIND_JOB_ID": str(job.id), "MOONMIND_ATTEMPT": str(job.attempt)},
                seconds=min(command.timeout or self._run_timeout, self._run_timeout),
                limits=self._limits,
                outputs=(captured("stdout"), captured("stderr")),
                context=context,
            )
            return attempt.execute()
        finally:
            folder.close()

    def _try_warden(self) -> None:
        python = Path(sys.executable).resolve()
        warden = Warden(
            limits=self._limits,
            folder=self._workdir / "none",
            program=python,
            identity=identify(python.stat()),
        )
        try:
            ended = run(
                [sys.executable, "-I", "-S", "-c", ""],
                cwd=Path("/"), env={}, stdout=_nowhere, stderr=_nowhere, launch=warden,
            )  # fmt: skip
        except OSError as error:
            raise SettingsError(f"kind shell cannot watch over programs here: {error}") from None
        if ended.returncode:
            reason = ended.exceeded or "is /proc mounted?"
            raise SettingsError(f"kind shell cannot watch over programs here: {reason}")


def _nowhere(_: bytes) -> None:
    """Let go of what is printed."""
