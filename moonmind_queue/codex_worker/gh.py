"""GitHub's own command, for pull requests: found by their branch, made when there is none."""

import json
import os
import shutil
import signal
import subprocess
import time
from collections import deque
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Event

from moonmind_queue.codex_worker.codex import NETWORK
from moonmind_queue.codex_worker.journal import Journal
from moonmind_queue.errors import QueueError
from moonmind_queue.executors import Block, Outcome, Retry, Stopped
from moonmind_queue.executors.process import End, run

TIMEOUT = 60.0  # seconds for one request
TITLE_LIMIT, BODY_LIMIT = 250, 60_000  # characters that GitHub takes

_KEPT = ("PATH", "GH_CONFIG_DIR", "GH_HOST", *NETWORK)


class GitHubUnavailable(QueueError):
    """This machine cannot reach GitHub with the token that it was given."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GitHub:
    """``gh`` of this machine; ``environ`` is the worker's own environment."""

    environ: Mapping[str, str]
    folder: Path
    journal: Journal
    stop: Event | None

    def find(self, repository: str, head: str) -> str | None:
        """Return the latest pull request from a branch, if there is one: merged ones count too."""
        arguments = ("pr", "list", "--repo", repository, "--head", head, "--state", "all")
        answer = self._ask(*arguments, "--json", "url", "--limit", "1")
        found = json.loads(answer or "[]")
        return str(found[0]["url"]) if found else None

    def create(
        self, repository: str, *, base: str, head: str, title: str, body: str, draft: bool
    ) -> str:
        """Open a pull request and return its address."""
        arguments = ["pr", "create", "--repo", repository, f"--base={base}", f"--head={head}"]
        arguments += [f"--title={title[:TITLE_LIMIT]}", "--body-file=-"]
        if draft:
            arguments.append("--draft")
        answer = self._ask(*arguments, stdin=body[:BODY_LIMIT])
        return answer.strip().splitlines()[-1]

    def _ask(self, *arguments: str, stdin: str | None = None) -> str:
        program = shutil.which("gh", path=self.environ.get("PATH") or os.defpath)
        if program is None:
            raise Block("gh is not installed on this worker: install it, or publish a branch only")
        self.journal.log(f"$ gh {' '.join(arguments[:2])} …")
        output: list[bytes] = []
        said: deque[bytes] = deque(maxlen=10)
        began = time.monotonic()
        ended = run(
            [program, *arguments],
            cwd=self.folder,
            env=self._environment(),
            stdin=None if stdin is None else stdin.encode(),
            stdout=output.append,
            stderr=said.append,
            stop=self.stop,
            timeout=TIMEOUT,
            interrupt=signal.SIGTERM,
        )
        if ended.end is End.STOPPED:
            raise Stopped("stopped in gh")
        if ended.end is End.TIMEOUT:
            raise Retry(f"gh {arguments[0]} {arguments[1]} took more than {TIMEOUT:g} s")
        if ended.returncode:
            raise self._outcome(arguments, b" | ".join(said))
        self.journal.log(f"gh answered in {time.monotonic() - began:.1f} s")
        return b"\n".join(output).decode(errors="replace")

    def _outcome(self, arguments: tuple[str, ...], said: bytes) -> Outcome:
        reason = self.journal.shorten(said.decode(errors="replace")) or "it said nothing"
        return Retry(f"gh {arguments[0]} {arguments[1]} failed: {reason}", source="gh")

    def _environment(self) -> dict[str, str]:
        kept = {name: value for name in _KEPT if (value := self.environ.get(name))}
        token = self.environ.get("GITHUB_TOKEN") or self.environ.get("GH_TOKEN")
        return {
            "PATH": os.defpath,
            **kept,
            **({"GH_TOKEN": token} if token else {}),
            "HOME": str(self.folder),
            "GH_PROMPT_DISABLED": "1",
            "GH_NO_UPDATE_NOTIFIER": "1",
            "NO_COLOR": "1",
            "LANG": "C.UTF-8",
        }


def preflight(environ: Mapping[str, str]) -> str | None:
    """Log ``gh`` in with GITHUB_TOKEN, to see that both work; return its version, or None without.

    The token goes in by standard input, and what ``gh`` stores of it is deleted at once: jobs hand
    it to ``gh`` and git when these ask, and to nobody else. Raises ``GitHubUnavailable``.
    """
    token = environ.get("GITHUB_TOKEN")
    if not token:
        return None
    program = shutil.which("gh", path=environ.get("PATH") or os.defpath)
    if program is None:
        raise GitHubUnavailable(
            "GITHUB_TOKEN is set and gh is not installed: install it, or unset the token"
        )
    with TemporaryDirectory(prefix="moonmind-gh-") as folder:
        ask = partial(_ask_once, program, _login_environment(environ, Path(folder)), token)
        version = ask("--version").split()[2]
        ask("auth", "login", "--hostname", "github.com", "--with-token", stdin=token)
        ask("auth", "status", "--hostname", "github.com")
    return version


def _login_environment(environ: Mapping[str, str], folder: Path) -> dict[str, str]:
    """Return an environment without the token, whose folder has the user's settings of gh."""
    home = Path(environ.get("HOME") or Path.home())
    theirs = Path(environ.get("GH_CONFIG_DIR") or home / ".config" / "gh")
    with suppress(OSError):
        shutil.copy(theirs / "config.yml", folder)
    kept = {name: value for name in ("PATH", *NETWORK) if (value := environ.get(name))}
    return {"PATH": os.defpath, **kept, "HOME": str(folder), "GH_CONFIG_DIR": str(folder)}


def _ask_once(
    program: str, environment: dict[str, str], token: str, *arguments: str, stdin: str = ""
) -> str:
    command = f"gh {' '.join(arguments[:2])}"
    try:
        answer = subprocess.run(
            [program, *arguments],
            env=environment | {"GH_PROMPT_DISABLED": "1", "NO_COLOR": "1"},
            input=stdin,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=TIMEOUT,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise GitHubUnavailable(f"{command} cannot be run: {error}") from None
    if answer.returncode:
        said = " ".join((answer.stderr or answer.stdout).split()).replace(token, "***")
        raise GitHubUnavailable(f"{command} failed with GITHUB_TOKEN: {said[:500]}")
    return answer.stdout
