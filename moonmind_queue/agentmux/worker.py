"""Gives the one worker loop the profile of Agentmux: long leases, patient polls, files."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from importlib.metadata import version
from pathlib import Path

import structlog

from moonmind_queue import executors
from moonmind_queue._daemon import hide_environment, stop_on_signals
from moonmind_queue.agentmux.folder import Folder
from moonmind_queue.agentmux.heartbeat import Heartbeat
from moonmind_queue.agentmux.recorded import Recorded, Unable
from moonmind_queue.errors import QueueError, SettingsError
from moonmind_queue.migrate import require_schema
from moonmind_queue.settings import Settings
from moonmind_queue.worker import Worker

POLLS = tuple(timedelta(seconds=seconds) for seconds in (10, 20, 30))  # the last one is repeated

log = structlog.get_logger()


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentmuxWorker:
    """One ``agentmux worker`` process: whose tasks it does, under which name, how many at once."""

    settings: Settings = field(repr=False)
    agent: str
    worker_id: str
    slots: int
    home: Path

    def run(self) -> None:
        """Work until stopped; raises in words what makes that impossible, before any claim."""
        require_schema(self.settings.database_url)
        hide_environment()
        self._make_workdir()
        folder = Folder(self.home)
        beat = Heartbeat(
            self.settings.database_url,
            folder,
            agent=self.agent,
            worker=self.worker_id,
            period=self.settings.agentmux_renew_seconds,
        )
        worker = self._worker(folder, beat)
        stop_on_signals(worker.stop)
        beat.start()
        try:
            worker.run()
        finally:
            beat.stop()

    def _make_workdir(self) -> None:
        try:
            self.settings.workdir.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise SettingsError(
                f"MOONMIND_WORKDIR: cannot make {self.settings.workdir}: {error.strerror}"
            ) from None

    def _worker(self, folder: Folder, beat: Heartbeat) -> Worker:
        settings = self.settings
        return Worker(
            settings.database_url,
            Kinds(
                {
                    kind: Recorded(runner, folder, beat.changed)
                    for kind, runner in fit_executors(settings).items()
                }
            ),
            name=self.worker_id,
            agents=[self.agent],
            any_kind=True,
            capabilities=settings.worker_capabilities,
            slots=self.slots,
            lease=timedelta(seconds=settings.agentmux_lease_seconds),
            renew=timedelta(seconds=settings.agentmux_renew_seconds),
            poll=POLLS,
            reclaim=timedelta(seconds=settings.reclaim_seconds),
            listen_dsn=settings.listen_database_url,
            artifact_max_bytes=settings.artifact_max_bytes,
            live_log=settings.live_log_events_enabled,
            versions={"agentmux": version("moonmind-queue")},
        )


class Kinds(dict[str, executors.Runner]):
    """Runners by kind; one that is not installed is there too, and says so."""

    def __missing__(self, kind: str) -> executors.Runner:
        """Return the runner of a kind that nobody here knows."""
        there = ", ".join(sorted(self))
        return Unable(f"unknown kind {kind!r}: this worker runs {there}")


def fit_executors(settings: Settings) -> Mapping[str, executors.Runner]:
    """Return a runner for every installed kind; one that cannot work here blocks its tasks."""
    found: dict[str, executors.Runner] = {}
    for kind in executors.kinds():
        try:
            executor = executors.find(kind).configure(settings)
            executor.check()
            found[kind] = executor
        except QueueError as error:
            log.warning("worker.unfit", kind=kind, error=str(error))
            found[kind] = Unable(f"this worker cannot run {kind}: {error}")
    return found
