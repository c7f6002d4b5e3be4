"""The kind ``codex_exec``: a repository or a directory, an instruction, and what comes of them.

:class:`CodexExec` is what a worker sees; one attempt is a ``Run`` (``run.py``).
"""

import os
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any, Self

from moonmind_queue.codex_worker import cache
from moonmind_queue.codex_worker.codex import Codex
from moonmind_queue.codex_worker.gh import preflight
from moonmind_queue.codex_worker.git import git_version
from moonmind_queue.codex_worker.journal import Journal
from moonmind_queue.codex_worker.local import Directories, Directory
from moonmind_queue.codex_worker.payload import CodexExecJobPayload
from moonmind_queue.codex_worker.publish import Identity
from moonmind_queue.codex_worker.run import Run, WorkerExecutionResult
from moonmind_queue.codex_worker.workspace import Workspace
from moonmind_queue.errors import InvalidPayload
from moonmind_queue.executors import Context, Fail, Outcome
from moonmind_queue.model import ClaimedJob
from moonmind_queue.redact import Redactor
from moonmind_queue.settings import LocalDirectory, Settings

__all__ = ["CodexExec", "CodexExecJobPayload", "WorkerExecutionResult"]


class CodexExec:
    """Lets Codex work on a checkout, or in a directory, and keeps the difference as a patch."""

    def __init__(
        self,
        codex: Codex,
        *,
        workdir: Path,
        run_timeout: float,
        idle_timeout: float,
        artifact_max_bytes: int,
        identity: Identity,
        cache_max_gb: float,
        local_dirs: Sequence[LocalDirectory] = (),
    ) -> None:
        self._codex = codex
        home = Path(codex.environ.get("HOME") or Path.home())
        self._local = Directories(local_dirs, (codex.home, workdir.absolute()), home)
        self._identity = identity
        self._cache_max_gb = cache_max_gb
        self._workdir = workdir.absolute()
        self._run_timeout, self._idle_timeout = run_timeout, idle_timeout
        self._artifact_max_bytes = artifact_max_bytes

    @classmethod
    def validate(cls, payload: Mapping[str, Any]) -> dict[str, Any]:
        """Return the payload trimmed, or raise ``InvalidPayload`` that names each field."""
        return CodexExecJobPayload.parse(payload).stored()

    @classmethod
    def configure(cls, settings: Settings) -> Self:
        """Take the settings, and Codex's own variables from the environment."""
        return cls(
            Codex.configure(settings, os.environ),
            workdir=settings.workdir,
            run_timeout=settings.run_timeout_seconds,
            idle_timeout=settings.idle_timeout_seconds,
            artifact_max_bytes=settings.artifact_max_bytes,
            identity=Identity(name=settings.git_user_name, email=settings.git_user_email),
            cache_max_gb=settings.cache_max_gb,
            local_dirs=settings.codex_local_dirs,
        )

    def check(self) -> None:
        """Raise when Codex, git or, with a GITHUB_TOKEN, gh is missing, broken or not let in."""
        self._codex.check()
        if any(each.read_only for each in self._local.lent):
            self._codex.check_read_only()
        git_version(self._codex.environ)
        preflight(self._codex.environ)

    def run(self, job: ClaimedJob, context: Context) -> Mapping[str, Any]:
        """Make one attempt; its directory is gone afterwards, unless the next may reuse it."""
        try:
            payload = CodexExecJobPayload.parse(job.payload)
        except InvalidPayload as error:
            raise Fail(str(error)) from None
        if payload.repo_path is None:
            return self._attempt(job, payload, context, None)
        with self._local.held(payload.repo_path) as directory:
            return self._attempt(job, payload, context, directory)

    def _attempt(
        self,
        job: ClaimedJob,
        payload: CodexExecJobPayload,
        context: Context,
        directory: Directory | None,
    ) -> Mapping[str, Any]:
        read_only = directory is not None and directory.read_only
        codex = replace(self._codex, sandbox="read-only") if read_only else self._codex
        reuse = payload.workdir_mode == "reuse"
        workspace = Workspace.create(self._workdir, job.id, job.attempt, keep=reuse)
        limit = self._artifact_max_bytes
        keep = False
        try:
            redactor = Redactor(self._codex.secrets())
            with closing(Journal(workspace.artifacts, redactor, limit, context)) as journal:
                run = Run(
                    *(job, payload, codex, workspace, journal, context, limit),
                    self._identity,
                    directory,
                )
                return run.execute(self._run_timeout, self._idle_timeout)
        except Outcome as outcome:
            keep = reuse and not isinstance(outcome, Fail)
            raise
        finally:
            workspace.close(keep=keep)
            cache.tidy(self._workdir, self._cache_max_gb)
