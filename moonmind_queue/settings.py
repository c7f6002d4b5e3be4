"""Everything that the environment configures, in one validated object.

Read once, at the edge (a command line), and passed down as arguments. An empty variable counts
as unset, so an empty alias never hides a filled one; a bad value is refused by the name of its
variable and without echoing secrets.
"""

import json
import re
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    AliasChoices,
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    field_validator,
)
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from moonmind_queue.errors import SettingsError

SandboxMode = Literal["read-only", "workspace-write", "danger-full-access"]


def _absolute(path: Path) -> Path:
    return path.expanduser().absolute()


def _libpq(url: str) -> str:
    """Accept SQLAlchemy's spelling of a PostgreSQL URL; libpq knows only ``postgresql://``."""
    scheme, separator, rest = url.strip().partition("://")
    return f"postgresql://{rest}" if separator and scheme.startswith("postgresql+") else url.strip()


def _libpq_or_none(url: str) -> str:
    return "none" if url.strip().lower() == "none" else _libpq(url)


def _program(value: str) -> str:
    """Accept a bare name, or an absolute path in the one spelling that it is compared by."""
    parts = value.split("/")
    absolute = len(parts) > 1 and parts[0] == "" and not {"", ".", ".."}.intersection(parts[1:])
    bare = len(parts) == 1 and value not in ("", ".", "..") and not value.startswith("-")
    if not (absolute or bare) or not value.isprintable() or value != value.strip():
        raise ValueError("must be a program's name, or its absolute path without '.', '..' or '//'")
    return value


def _directory(path: Path) -> Path:
    path = path.expanduser()
    if not path.is_absolute() or "\0" in str(path):
        raise ValueError("must be the absolute path of a directory")
    return path


def _pattern(value: str) -> str:
    try:
        re.compile(value, re.ASCII)
    except re.error as error:
        raise ValueError(f"is not a regular expression: {error}") from None
    return value


Pattern = Annotated[str, AfterValidator(_pattern)]
DatabaseUrl = Annotated[str, AfterValidator(_libpq)]
ListenUrl = Annotated[str, AfterValidator(_libpq_or_none)]


class _Environment(BaseSettings):
    """Variables of the environment; the field's alias names the variable."""

    model_config = SettingsConfigDict(
        env_ignore_empty=True, frozen=True, extra="ignore", hide_input_in_errors=True
    )

    @classmethod
    def load(cls) -> Self:
        """Read the environment; raises ``SettingsError`` that names each variable at fault."""
        try:
            return cls()
        except ValidationError as error:
            raise SettingsError("; ".join(_fault(each) for each in error.errors())) from None


class DatabaseSettings(_Environment):
    """What every command needs."""

    database_url: DatabaseUrl = Field(alias="DATABASE_URL", repr=False)
    """Any libpq URL or DSN; several hosts are allowed."""


class FileSettings(_Environment):
    """What is needed where files are served and no database is."""

    artifact_max_bytes: int = Field(
        10 * 1024 * 1024,
        ge=1,
        validation_alias=AliasChoices(
            "MOONMIND_ARTIFACT_MAX_BYTES", "AGENT_JOB_ARTIFACT_MAX_BYTES"
        ),
    )
    agentmux_home: Annotated[Path, AfterValidator(_absolute)] = Field(
        Path(), alias="MOONMIND_AGENTMUX_HOME", validate_default=True
    )
    """Where ``state/`` and ``artifacts/`` of Agentmux are; by default the working directory."""


class DiskSettings(_Environment):
    """Where a worker's files are, and how many may stay: all that ``cache`` needs."""

    workdir: Annotated[Path, AfterValidator(_absolute)] = Field(
        Path("var/worker"), alias="MOONMIND_WORKDIR", validate_default=True
    )
    cache_max_gb: float = Field(20, ge=0, allow_inf_nan=False, alias="MOONMIND_CACHE_MAX_GB")
    """What the mirrors of repositories may take of the disk together, in units of 10^9 bytes; with
    0 none is kept."""


class ShellProgram(BaseModel):
    """A program that jobs of kind ``shell`` may run: one entry of ``MOONMIND_SHELL_ALLOW``.

    Without ``args`` and ``more`` it takes any arguments. Otherwise the first ones have to match
    ``args`` one by one, all of them present, and each further one ``more``; without ``more`` there
    may be none. A pattern has to match the whole argument.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    program: Annotated[str, AfterValidator(_program)]
    args: tuple[Pattern, ...] | None = None
    more: Pattern | None = None


class LocalDirectory(BaseModel):
    """A directory of the worker in which jobs may let Codex work: an entry of
    ``MOONMIND_CODEX_LOCAL_DIRS``.

    What is below it may be named as well. With ``read_only`` the agent may look and not write.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    path: Annotated[Path, AfterValidator(_directory)]
    read_only: bool = False


class Settings(DiskSettings, FileSettings, DatabaseSettings):
    """The settings of a worker."""

    listen_database_url: ListenUrl | None = Field(
        None, alias="MOONMIND_LISTEN_DATABASE_URL", repr=False
    )
    """The server itself, for LISTEN, when DATABASE_URL leads through a transaction pooler; ``none``
    is to poll only."""
    worker_id: str = Field(default_factory=socket.gethostname, alias="MOONMIND_WORKER_ID")
    worker_capabilities: Annotated[tuple[str, ...], NoDecode] = Field(
        (), alias="MOONMIND_WORKER_CAPABILITIES"
    )
    """Comma-separated; a job that asks for capabilities is claimed only where all are offered."""
    poll_interval_ms: int = Field(1500, ge=1, alias="MOONMIND_POLL_INTERVAL_MS")
    lease_seconds: int = Field(120, ge=1, alias="MOONMIND_LEASE_SECONDS")
    reclaim_seconds: int = Field(5, ge=1, alias="MOONMIND_RECLAIM_SECONDS")
    live_log_events_enabled: bool = Field(True, alias="MOONMIND_LIVE_LOG_EVENTS_ENABLED")
    """Whether what jobs print can be read while they run."""
    run_timeout_seconds: int = Field(
        3600,
        ge=1,
        validation_alias=AliasChoices(
            "MOONMIND_RUN_TIMEOUT_SECONDS", "MOONMIND_STAGE_COMMAND_TIMEOUT_SECONDS"
        ),
    )
    idle_timeout_seconds: int = Field(1800, ge=1, alias="MOONMIND_IDLE_TIMEOUT_SECONDS")
    """How long Codex may say nothing."""
    codex: str | None = Field(None, alias="MOONMIND_CODEX")
    """The Codex program; by default ``codex`` on PATH, then the package openai-codex-cli-bin."""
    codex_model: str | None = Field(
        None, validation_alias=AliasChoices("MOONMIND_CODEX_MODEL", "CODEX_MODEL")
    )
    codex_effort: str | None = Field(
        None,
        validation_alias=AliasChoices(
            "MOONMIND_CODEX_EFFORT", "CODEX_MODEL_REASONING_EFFORT", "MODEL_REASONING_EFFORT"
        ),
    )
    codex_sandbox_mode: SandboxMode = Field("workspace-write", alias="MOONMIND_CODEX_SANDBOX_MODE")
    codex_local_dirs: Annotated[tuple[LocalDirectory, ...], NoDecode] = Field(
        (), alias="MOONMIND_CODEX_LOCAL_DIRS"
    )
    """A JSON list of the directories that jobs may name as repoPath; an entry that is only a path
    stands for one that may be written."""
    git_user_name: str = Field("moonmind-queue", alias="MOONMIND_GIT_USER_NAME")
    """Who the author of published commits is."""
    git_user_email: str = Field("moonmind-queue@localhost", alias="MOONMIND_GIT_USER_EMAIL")
    agentmux_lease_seconds: int = Field(600, ge=1, alias="MOONMIND_AGENTMUX_LEASE_SECONDS")
    agentmux_renew_seconds: int = Field(60, ge=1, alias="MOONMIND_AGENTMUX_RENEW_SECONDS")
    stale_seconds: int = Field(120, ge=1, alias="MOONMIND_STALE_SECONDS")
    """After so long without a heartbeat an agent counts as stale in ``agentmux status``."""
    noop_seconds: float = Field(2.0, ge=0, alias="MOONMIND_NOOP_SECONDS")
    shell_allow: Annotated[tuple[ShellProgram, ...], NoDecode] = Field(
        (), alias="MOONMIND_SHELL_ALLOW"
    )
    """A JSON list; an entry that is only a name or a path stands for a program with any arguments.
    """
    # What one shell job may use, all its processes together; more ends it.
    shell_memory_mb: int = Field(4096, ge=16, alias="MOONMIND_SHELL_MEMORY_MB")
    shell_cpu_seconds: int = Field(14400, ge=1, alias="MOONMIND_SHELL_CPU_SECONDS")
    shell_file_mb: int = Field(1024, ge=1, alias="MOONMIND_SHELL_FILE_MB")
    """The size of one file; also of what is printed to stdout, and to stderr."""
    shell_directory_mb: int = Field(4096, ge=1, alias="MOONMIND_SHELL_DIRECTORY_MB")
    """All files in the job's directory together."""
    shell_processes: int = Field(512, ge=1, alias="MOONMIND_SHELL_PROCESSES")
    """Processes and threads at the same time."""
    mcp_config: Annotated[Path, AfterValidator(_absolute)] | None = Field(
        None, alias="MOONMIND_MCP_CONFIG"
    )
    """The file that lists the MCP servers whose tools jobs may call."""

    @field_validator("worker_capabilities", mode="before")
    @classmethod
    def _split(cls, value: Any) -> Any:
        if isinstance(value, str):
            return tuple(dict.fromkeys(part.strip() for part in value.split(",") if part.strip()))
        return value

    @field_validator("shell_allow", mode="before")
    @classmethod
    def _programs(cls, value: Any) -> Any:
        return _entries(value, "program", '["git"]')

    @field_validator("codex_local_dirs", mode="before")
    @classmethod
    def _directories(cls, value: Any) -> Any:
        return _entries(value, "path", '["/srv/site"]')

    @field_validator("worker_id", mode="before")
    @classmethod
    def _blank_is_unset(cls, value: Any) -> Any:
        if isinstance(value, str):
            return value.strip() or socket.gethostname()
        return value


def _entries(value: Any, key: str, example: str) -> list[Any]:
    """Read a JSON list; an entry that is only a text stands for an object with that ``key``."""
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except ValueError as error:
            raise ValueError(f"must be a JSON list such as {example}: {error}") from None
    if not isinstance(value, list | tuple):
        raise ValueError(f"must be a JSON list such as {example}")  # noqa: TRY004 - for pydantic
    return [{key: each} if isinstance(each, str) else each for each in value]


_REASONS = {
    "missing": "is missing",
    "extra_forbidden": "is not known; there are {known}",
    "model_type": "must be {form}, or an object",
}
_FORMS = {
    "MOONMIND_SHELL_ALLOW": ("program, args and more", "the name of a program"),
    "MOONMIND_CODEX_LOCAL_DIRS": ("path and read_only", "the path of a directory"),
}


def _fault(error: Any) -> str:
    """Say which variable is wrong and why; never its value, which may be a secret."""
    variable, *where = error["loc"]
    place = "".join(f"[{each}]" if isinstance(each, int) else f".{each}" for each in where)
    if error["type"] == "missing" and not where:
        hint = (
            " (for example postgresql://user@host/database)" if variable == "DATABASE_URL" else ""
        )
        return f"{variable} is not set{hint}"
    known, form = _FORMS.get(variable, ("", "a text"))
    template = _REASONS.get(error["type"], "")
    reason = template.format(known=known, form=form) or error["msg"].removeprefix("Value error, ")
    return f"{variable}{place}: {reason[:1].lower()}{reason[1:]}"


def describe(environment: Mapping[str, str]) -> list[dict[str, Any]]:
    """Return every setting as ``variable, value, source, default``; secrets are masked.

    A value that cannot be used is shown as it stands; the command that needs it refuses it.
    """
    rows = []
    for name, field in Settings.model_fields.items():
        choices = field.validation_alias
        variables = (
            [str(each) for each in choices.choices]
            if isinstance(choices, AliasChoices)
            else [str(choices)]
        )
        source = next((each for each in variables if environment.get(each)), None)
        default = None if field.is_required() else field.get_default(call_default_factory=True)
        value = environment[source] if source else default
        if source and name.endswith("database_url") and str(value).strip().lower() != "none":
            value = "********"
        rows.append(
            {
                "variable": variables[0],
                "value": None if value is None else str(value),
                "source": source or ("default" if default is not None else "not set"),
                "default": None if default is None else str(default),
            }
        )
    return rows
