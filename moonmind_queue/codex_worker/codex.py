"""The Codex CLI of this machine: where it is, whether it can work, how it is started.

Codex gets an environment that is built from nothing: what is in it, the agent's commands may
read. Its own home (``CODEX_HOME``) is the worker's; the agent's commands can read it, as they
can read every file of the worker's user, so its secrets are redacted from all output.
"""

import json
import os
import shutil
import subprocess
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from importlib import import_module
from pathlib import Path
from typing import Any, Self

import structlog

from moonmind_queue.codex_worker import versions
from moonmind_queue.errors import QueueError
from moonmind_queue.redact import Redactor, environment_secrets, stored_secrets
from moonmind_queue.settings import SandboxMode, Settings

CHECK_TIMEOUT = 30.0  # seconds for each question at start
STEERING_BYTES = 2**20  # of a project's AGENTS.md; Codex by itself stops after 32 KiB

_PROXIES = ("http_proxy", "https_proxy", "all_proxy", "no_proxy")
NETWORK = (*_PROXIES, *map(str.upper, _PROXIES), "SSL_CERT_FILE", "SSL_CERT_DIR")
"""What a program needs to reach the network where there is a proxy or a private authority."""

_INSTALL = (
    "Install it (npm install -g @openai/codex, or pip install 'moonmind-queue[codex]') "
    "or name it in MOONMIND_CODEX."
)

_NO_SANDBOX = (
    "allow user namespaces, or, in a container of its own for each worker, set "
    "MOONMIND_CODEX_SANDBOX_MODE=danger-full-access"
)

_log = structlog.get_logger()


class CodexUnavailable(QueueError):
    """This machine has no Codex CLI that could run a job."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Codex:
    """How Codex is run on this machine; ``environ`` is the worker's own environment."""

    environ: Mapping[str, str]
    program: str | None
    sandbox: SandboxMode
    model: str | None
    effort: str | None

    @classmethod
    def configure(cls, settings: Settings, environ: Mapping[str, str]) -> Self:
        """Take the worker's settings and its environment."""
        return cls(
            environ=environ,
            program=settings.codex,
            sandbox=settings.codex_sandbox_mode,
            model=settings.codex_model,
            effort=settings.codex_effort,
        )

    @property
    def home(self) -> Path:
        """Codex's configuration, login and sessions."""
        if home := self.environ.get("CODEX_HOME"):
            return Path(home).expanduser().absolute()
        return Path(self.environ.get("HOME") or Path.home()) / ".codex"

    def find(self) -> Path:
        """Return the program: as configured, then on PATH, then from openai-codex-cli-bin."""
        name = self.program or "codex"
        path = self.environ.get("PATH") or os.defpath
        if found := shutil.which(name, path=path):
            return _native(Path(found).resolve())
        for folder in ("", *path.split(os.pathsep)):
            candidate = Path(folder, name)
            if candidate.is_file() and (folder or os.sep in name):
                raise CodexUnavailable(
                    f"The 'codex' CLI was found at '{candidate}' but is not executable."
                )
        if self.program:
            raise CodexUnavailable(
                f"The 'codex' CLI that MOONMIND_CODEX names does not exist: '{self.program}'."
            )
        try:
            return Path(import_module("codex_cli_bin").bundled_codex_path())
        except (ImportError, FileNotFoundError):
            raise CodexUnavailable(
                f"The 'codex' CLI is not available on PATH. {_INSTALL}"
            ) from None

    def version(self, program: Path) -> str:
        """Return the version, such as ``0.163.0``; one that is too old is refused."""
        answer = self._ask([str(program), "--version"])
        if answer.returncode:
            raise CodexUnavailable(f"codex --version failed: {self._said(answer)}")
        version = answer.stdout.strip().rpartition(" ")[2]
        if versions.too_old(version):
            raise CodexUnavailable(
                f"The 'codex' CLI at '{program}' is {version}, and the oldest that a worker can "
                f"use is {versions.oldest()}: update it (npm install -g @openai/codex@latest, or "
                "pip install --upgrade 'moonmind-queue[codex]')."
            )
        return version

    def check(self) -> None:
        """Raise ``CodexUnavailable`` when Codex is missing, broken or not logged in."""
        program = self.find()
        version = self.version(program)
        self.login(program)
        _log.info("codex.found", program=str(program), version=version)
        if doubt := versions.untried(version):
            _log.warning("codex.untried", version=version, reason=doubt)
        self.check_sandbox(program)

    def login(self, program: Path) -> str:
        """Say how Codex is logged in; raises ``CodexUnavailable`` where it is not."""
        self._require_home()
        if key := self._key():  # the status knows only of a stored login
            return f"by {', '.join(key)}"
        status = self._ask([str(program), "login", "status"])
        if status.returncode:
            raise CodexUnavailable(
                f"codex login status failed: {self._said(status)} "
                "(run 'codex login', or set CODEX_API_KEY or the env_key of your provider)"
            )
        return self._said(status)

    def check_sandbox(self, program: Path) -> str:
        """Return the sandbox mode; raises ``CodexUnavailable`` where no command can run in it."""
        if reason := self.broken_sandbox(program):
            raise CodexUnavailable(f"the sandbox is broken: {reason} ({_NO_SANDBOX})")
        return self.sandbox

    def check_read_only(self) -> None:
        """Raise ``CodexUnavailable`` where an agent cannot be kept from writing."""
        replace(self, sandbox="read-only").check_sandbox(self.find())

    def broken_sandbox(self, program: Path) -> str | None:
        """Say why no command can run in the sandbox; Codex ends well then, having done nothing."""
        if self.sandbox == "danger-full-access":
            return None
        answer = self._ask([str(program), "sandbox", "--", "true"])
        return self._said(answer) if answer.returncode else None

    def secrets(self) -> Iterator[str]:
        """Yield every secret that this worker holds."""
        yield from environment_secrets(self.environ)
        yield from self._key().values()
        yield from stored_secrets(self._config())
        try:
            yield from stored_secrets(json.loads((self.home / "auth.json").read_text()))
        except (OSError, ValueError):
            return  # not logged in with a file; a key in the environment is covered above

    def command(
        self,
        program: Path,
        folder: Path,
        command_home: Path,
        model: str | None,
        effort: str | None,
        thread: str | None = None,
        *,
        roots: Sequence[Path] = (),
    ) -> list[str]:
        """Return the command line of one run; what is said to the agent is read from stdin.

        A ``thread`` is resumed: in the same sandbox, which ``exec resume`` by itself does not keep.
        ``roots`` are what Codex may take for the project besides the folder.
        """
        settings = {
            "approval_policy": "never",
            # Of Codex's own environment the commands get HOME, PATH and the like; HOME is one
            # they may write, while Codex itself reads files from its own.
            "shell_environment_policy.inherit": "core",
            "shell_environment_policy.set.HOME": str(command_home),
            # /tmp holds other people's files; TMPDIR is the run's own and stays writable.
            "sandbox_workspace_write.exclude_slash_tmp": True,
            # With these on, Codex talks to other hosts than the model's and waits for ever for
            # a network that is gone.
            "features.plugins": False,
            "features.apps": False,
            "features.unbounded_connection_retries": False,
            "analytics.enabled": False,
        }
        if effort := effort or self.effort:
            settings["model_reasoning_effort"] = effort
        argv = [str(program), "exec", "--json", "--color", "never", "--sandbox", self.sandbox]
        if model := model or self.model:
            argv.append(f"--model={model}")
        for name, value in settings.items():
            argv += ["-c", f"{name}={json.dumps(value)}"]  # JSON's scalars are TOML's
        argv += ["-c", f"projects={_untrusted(folder, *roots)}", "--skip-git-repo-check"]
        argv += ["-C", str(folder)]
        return [*argv, "resume", thread, "-"] if thread else [*argv, "-"]

    def environment(self, home: Path, tmp: Path) -> dict[str, str]:
        """Return the whole environment of Codex for one run."""
        kept = ("USER", "LOGNAME", *NETWORK)
        return {
            **{name: value for name in kept if (value := self.environ.get(name))},
            **self._key(),
            "PATH": self.environ.get("PATH") or os.defpath,
            "HOME": str(home),
            "TMPDIR": str(tmp),
            "LANG": "C.UTF-8",
            "CODEX_HOME": str(self.home),
        }

    def _require_home(self) -> None:
        """Make the home that Codex would make by itself, were it not told where that is."""
        home = self.home
        if not self.environ.get("CODEX_HOME"):
            with suppress(OSError):
                home.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not os.access(home, os.R_OK | os.W_OK | os.X_OK):
            raise CodexUnavailable(
                f"'{home}', where Codex keeps its files, is missing or closed to this user: "
                "make it, or name another in CODEX_HOME."
            )

    @property
    def steering_bytes(self) -> int:
        """How much of a project's AGENTS.md is to be told, as Codex's configuration has it."""
        most = self._config().get("project_doc_max_bytes", STEERING_BYTES)
        return most if isinstance(most, int) else STEERING_BYTES

    def _key(self) -> dict[str, str]:
        """Return the variable that holds the key Codex uses, if it takes one from there."""
        config = self._config()
        provider = config.get("model_providers", {}).get(config.get("model_provider"), {})
        name = str(provider.get("env_key") or "CODEX_API_KEY")
        return {name: value} if (value := self.environ.get(name)) else {}

    def _config(self) -> dict[str, Any]:
        try:
            return tomllib.loads((self.home / "config.toml").read_text())
        except (OSError, ValueError):
            return {}  # Codex says what is wrong with it

    def _ask(self, argv: Sequence[str]) -> "subprocess.CompletedProcess[str]":
        home = Path(self.environ.get("HOME") or Path.home())
        environment = self.environment(home, Path(self.environ.get("TMPDIR") or "/tmp"))  # noqa: S108
        try:
            return subprocess.run(
                argv,
                env=environment,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                errors="replace",
                timeout=CHECK_TIMEOUT,
                check=False,
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise CodexUnavailable(f"The 'codex' CLI cannot be run: {error}") from None

    def _said(self, answer: "subprocess.CompletedProcess[str]") -> str:
        text = answer.stderr.strip() or answer.stdout.strip() or f"exit status {answer.returncode}"
        return " ".join(Redactor(self.secrets()).text(text).split())[:500]


def _untrusted(*folders: Path) -> str:
    """Return the table that has Codex start no program of a project's choice (``steering.py``)."""
    names = dict.fromkeys(str(name) for each in folders for name in (each, each.resolve()))
    entries = (
        f'{json.dumps(name, ensure_ascii=False)}={{trust_level="untrusted"}}' for name in names
    )
    return f"{{{','.join(entries)}}}"


def _native(program: Path) -> Path:
    """Return the binary behind npm's Node shim, which would not survive a SIGKILL with it.

    The package of the platform lies beside or below the shim's own; where it is not found the
    shim is used, and Codex ends all the same: by the end of its pipes.
    """
    if program.suffix != ".js":
        return program
    package = program.parent.parent
    found = [
        path
        for root in (package.parent, package / "node_modules" / "@openai")
        for path in root.glob("codex-*/vendor/*/*/codex")
        if os.access(path, os.X_OK)
    ]
    return found[0] if len(found) == 1 else program
