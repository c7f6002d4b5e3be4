"""Runs git for a job: with a short environment, no hooks, no helpers and no questions.

Nothing a job or a repository says becomes an option, a program or a protocol of git's choice.
"""

import os
import shutil
import signal
import subprocess
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from threading import Event

from moonmind_queue.codex_worker.codex import NETWORK
from moonmind_queue.errors import QueueError
from moonmind_queue.executors import Outcome, Retry, Stopped
from moonmind_queue.executors.lines import Sink
from moonmind_queue.executors.process import End, Ended, run

_KEPT = (
    "HOME",
    "PATH",
    "USER",
    "LOGNAME",
    "TMPDIR",
    "XDG_CONFIG_HOME",
    "SSH_AUTH_SOCK",
    "GIT_SSH_COMMAND",
    "GIT_SSL_CAINFO",
    # The operator's configuration: addresses that are rewritten, certificates, helpers.
    "GIT_CONFIG_GLOBAL",
    "GIT_CONFIG_SYSTEM",
    "GIT_CONFIG_NOSYSTEM",
    *NETWORK,
)
_REMOTE = ("ls-remote", "fetch", "push")  # the commands that talk to another machine
# Git asks this for the token of GitHub; it is in git's environment and in no argument or address.
_HELPER = (
    "!f() { test \"$1\" = get && printf 'username=x-access-token\\npassword=%s\\n'"
    ' "$MOONMIND_GITHUB_TOKEN"; }; f'
)
_FORCED = {
    "LANG": "C.UTF-8",
    "LC_ALL": "C.UTF-8",
    "GIT_TERMINAL_PROMPT": "0",
    "GIT_ASKPASS": "",
    "GIT_OPTIONAL_LOCKS": "0",
}
_OPTIONS = (
    "core.hooksPath=/dev/null",
    "core.fsmonitor=false",
    "core.untrackedCache=false",
    "core.excludesFile=/dev/null",
    "gc.auto=0",
    "maintenance.auto=false",
    "fetch.unpackLimit=1",
    "submodule.recurse=false",
    "fetch.recurseSubmodules=false",
    "protocol.allow=never",
    "protocol.http.allow=always",
    "protocol.https.allow=always",
    "protocol.ssh.allow=always",
    # Git LFS, where it is installed, would fetch from a server of the repository's choice.
    "filter.lfs.process=",
    "filter.lfs.smudge=",
    "filter.lfs.clean=",
    "filter.lfs.required=false",
    "advice.detachedHead=false",
    "init.defaultBranch=main",
)
_LISTING_LIMIT = 64 * 1024 * 1024  # bytes: a listing with -z is one line


class GitFailed(Exception):
    """Git exited with an error; the text is the line that says why."""

    def __init__(self, text: str, command: str) -> None:
        super().__init__(text)
        self.command = command

    @property
    def outcome(self) -> Outcome:
        """What this means for the attempt; the rules for failures of git know more."""
        return Retry(str(self), source="git")


class GitUnavailable(QueueError):
    """This machine has no git that could check a repository out."""


def git_version(environ: Mapping[str, str]) -> str:
    """Return the version of git, such as ``2.39.5``; raises ``GitUnavailable``."""
    program = shutil.which("git", path=environ.get("PATH") or os.defpath)
    if program is None:
        raise GitUnavailable("git is not installed: install it")
    try:
        answer = subprocess.run(
            [program, "--version"],
            env=_environment(environ, "version"),
            capture_output=True,
            text=True,
            timeout=30,
            check=True,
        )
    except (OSError, subprocess.SubprocessError) as error:
        raise GitUnavailable(f"git cannot be run: {error}") from None
    return answer.stdout.split()[2]


@dataclass(frozen=True, slots=True, kw_only=True)
class Git:
    """Git, for one run: where its words go, and until when it may work."""

    environ: Mapping[str, str]
    log: Callable[[str | bytes], None]
    stop: Event | None
    deadline: float
    """On the monotonic clock."""

    def __call__(
        self,
        folder: Path,
        *arguments: str,
        index: Path | None = None,
        tree: tuple[Path, Path] | None = None,
        env: Mapping[str, str] | None = None,
        stdin: bytes | None = None,
        quiet: bool = False,
    ) -> bytes:
        """Run a command in a folder and return its output; raises ``GitFailed``.

        ``tree`` is a git directory and a work tree to use instead of what the folder holds; ``env``
        is added to what git gets;
        ``quiet`` keeps the output out of the log.
        """
        environment = _environment(self.environ, arguments[0]) | dict(env or {})
        if index is not None:
            environment["GIT_INDEX_FILE"] = str(index)
        where = [f"--git-dir={tree[0]}", f"--work-tree={tree[1]}"] if tree is not None else []
        self.log(f"$ git {' '.join(arguments)}")
        output: list[bytes] = []
        said: deque[bytes] = deque(maxlen=20)
        try:
            ended = run(
                ["git", *_settings(), *where, *arguments],
                cwd=folder,
                env=environment,
                stdin=stdin,
                stdout=output.append if quiet else self._logged(output.append),
                stderr=self._logged(said.append),
                stop=self.stop,
                timeout=max(0.0, self.deadline - time.monotonic()),
                interrupt=signal.SIGTERM,
                line_limit=_LISTING_LIMIT,
            )
        except OSError as error:
            raise Retry(f"git cannot be started: {error}") from None
        _check(ended, arguments[0], said)
        return b"\n".join(output)

    def _logged(self, sink: Sink) -> Sink:
        def both(line: bytes) -> None:
            sink(line)
            self.log(line)

        return both


def _check(ended: Ended, command: str, said: Sequence[bytes]) -> None:
    """Raise unless git did what it was asked for."""
    if ended.end is End.STOPPED:
        raise Stopped(f"stopped in git {command}")
    if ended.end is End.TIMEOUT:
        raise Retry(f"git {command} did not end in the time of the run")
    if ended.returncode:
        text = f"git {command} exited with {ended.returncode}: {_reason(said)}"
        raise GitFailed(text, command)


def _environment(environ: Mapping[str, str], command: str) -> dict[str, str]:
    kept = {name: value for name in _KEPT if (value := environ.get(name))}
    if command in _REMOTE and (token := environ.get("GITHUB_TOKEN")):
        kept |= {
            "MOONMIND_GITHUB_TOKEN": token,
            "GIT_CONFIG_COUNT": "1",
            "GIT_CONFIG_KEY_0": "credential.https://github.com.helper",
            "GIT_CONFIG_VALUE_0": _HELPER,
        }
    return {"PATH": os.defpath, **kept, **_FORCED}


def _settings() -> list[str]:
    return [part for option in _OPTIONS for part in ("-c", option)]


def _reason(said: Sequence[bytes]) -> str:
    """Return the lines that say why; the last alone often only says that something failed."""
    lines = [line.decode(errors="replace").strip() for line in said]
    telling = [
        line
        for line in lines
        if line.lower().startswith(("fatal:", "error:", "remote:", "ssh:", "git@", "host key"))
        or "denied" in line.lower()
    ]
    return " | ".join(telling[-4:] or [line for line in lines if line][-1:]) or "it said nothing"
