"""Starts the worker: its configuration, what must be true before the first claim, and the loop.

The loop itself is :class:`moonmind_queue.worker.Worker`, which knows nothing of Codex.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Self

from moonmind_queue._daemon import hide_environment
from moonmind_queue.codex_worker import cache
from moonmind_queue.errors import SettingsError
from moonmind_queue.executors import Executor, find
from moonmind_queue.migrate import require_schema
from moonmind_queue.settings import Settings
from moonmind_queue.worker import Worker

AGENTS = ("codex",)  # the agent a job is for unless it says otherwise
KINDS = ("codex_exec", "noop")


@dataclass(frozen=True, slots=True, kw_only=True)
class CodexWorkerConfig:
    """Everything one worker process is told, from the environment and its command line."""

    settings: Settings = field(repr=False)
    dsn: str = field(repr=False)
    listen_dsn: str | None = field(repr=False)
    worker_id: str
    agents: tuple[str, ...]
    kinds: tuple[str, ...]
    capabilities: tuple[str, ...]
    slots: int
    poll: timedelta
    lease: timedelta
    reclaim: timedelta
    workdir: Path
    artifact_max_bytes: int
    live_log: bool

    @classmethod
    def load(
        cls,
        *,
        worker_id: str | None = None,
        agents: Sequence[str] = (),
        kinds: Sequence[str] = (),
        slots: int = 1,
    ) -> Self:
        """Read the environment; what the command line says wins. Raises ``SettingsError``."""
        settings = Settings.load()
        return cls(
            settings=settings,
            dsn=settings.database_url,
            listen_dsn=settings.listen_database_url,
            worker_id=(worker_id or "").strip() or settings.worker_id,
            agents=tuple(agents) or AGENTS,
            kinds=tuple(kinds) or KINDS,
            capabilities=settings.worker_capabilities,
            slots=slots,
            poll=timedelta(milliseconds=settings.poll_interval_ms),
            lease=timedelta(seconds=settings.lease_seconds),
            reclaim=timedelta(seconds=settings.reclaim_seconds),
            workdir=settings.workdir,
            artifact_max_bytes=settings.artifact_max_bytes,
            live_log=settings.live_log_events_enabled,
        )


def prepare(config: CodexWorkerConfig) -> Worker:
    """Check all that a worker needs, in the order in which people set it up; raises in words."""
    executors: dict[str, Executor] = {
        kind: find(kind).configure(config.settings) for kind in config.kinds
    }
    require_schema(config.dsn)
    for executor in executors.values():
        executor.check()
    hide_environment()
    _make(config.workdir)
    cache.tidy(config.workdir, config.settings.cache_max_gb)
    return Worker(
        config.dsn,
        executors,
        name=config.worker_id,
        agents=config.agents,
        capabilities=config.capabilities,
        slots=config.slots,
        lease=config.lease,
        poll=config.poll,
        reclaim=config.reclaim,
        listen_dsn=config.listen_dsn,
        artifact_max_bytes=config.artifact_max_bytes,
        live_log=config.live_log,
    )


def run(
    config: CodexWorkerConfig, *, once: bool = False, started: Callable[[Worker], None]
) -> None:
    """Prepare a worker, hand it to ``started`` (who may stop it later), and let it work."""
    worker = prepare(config)
    started(worker)
    if once:
        worker.run_once()
    else:
        worker.run()


def _make(workdir: Path) -> None:
    try:
        workdir.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise SettingsError(f"MOONMIND_WORKDIR: cannot make {workdir}: {error.strerror}") from None
