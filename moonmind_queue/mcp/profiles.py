"""Which tools a server has, put together from the settings of its process."""

import os
from collections.abc import Callable
from datetime import timedelta
from functools import partial
from pathlib import Path

import psycopg
from psycopg.conninfo import conninfo_to_dict

from moonmind_queue.agentmux import vocabulary
from moonmind_queue.errors import SettingsError, from_connecting
from moonmind_queue.mcp import queue as queue_tools
from moonmind_queue.mcp.artifacts import Artifacts
from moonmind_queue.mcp.leases import Lend
from moonmind_queue.mcp.queue import Jobs
from moonmind_queue.mcp.state import State
from moonmind_queue.mcp.tools import Profile, Tool
from moonmind_queue.queue import connect
from moonmind_queue.settings import FileSettings, Settings

OWN_JOB = "MOONMIND_JOB_ID"  # given by a worker to the agent that works on the job
AROUND = 1024 * 1024  # bytes of a request beside a file in base64

INSTRUCTIONS = {
    "state": """\
Tasks of a graph, to be worked off by agents. Find one with list_ready_tasks, take it with
claim_task, begin with start_task, tell of progress with append_event, keep it with renew_lease
(before leaseUntil), and end it with complete_task, fail_task or release_task. Use the same worker
name throughout. A refusal is {ok: false, code, message}.""",
    "artifacts": """\
Files that tasks leave behind, below artifacts/: best in artifacts/<taskId>/<runId>/.
A refusal is {ok: false, code, message}.""",
    "queue": """\
A queue of jobs for agents. Add one with queue.enqueue and look at it with queue.get, queue.list and
queue.events. To do jobs yourself: queue.claim, then queue.heartbeat while you work, and
queue.complete or queue.fail at the end, all with the same worker name. A refusal is
{ok: false, code, message}.""",
}
CODES: dict[str, Callable[[Exception], str]] = {
    "state": vocabulary.error_code,
    "artifacts": vocabulary.error_code,
    "queue": queue_tools.error_code,
}


def build(name: str, *, home: Path | None, redact: Callable[[str], str]) -> Profile:
    """Return the profile of a name; ``home`` wins over ``MOONMIND_AGENTMUX_HOME``.

    Raises ``SettingsError``. Only ``artifacts`` does without a database.
    """
    settings = FileSettings.load() if name == "artifacts" else Settings.load()
    return Profile(
        name=name,
        instructions=INSTRUCTIONS[name],
        tools=_tools(name, settings, home or settings.agentmux_home),
        code=CODES[name],
        largest=settings.artifact_max_bytes * 4 // 3 + AROUND,
        redact=redact,
    )


def _tools(name: str, settings: FileSettings, home: Path) -> list[Tool]:
    if not isinstance(settings, Settings):
        return Artifacts(home, settings.artifact_max_bytes).tools()
    try:
        conninfo_to_dict(settings.database_url)
    except psycopg.ProgrammingError as error:  # else each call would say so
        raise from_connecting(error) from None
    lend: Lend = partial(
        connect, settings.database_url, application_name=f"moonmind-queue mcp {name}"
    )
    if name == "queue":
        lease = timedelta(seconds=settings.lease_seconds)
        made_by = _own_job(os.environ.get(OWN_JOB, ""))
        return Jobs(lend, lease=lease, limit=settings.artifact_max_bytes, made_by=made_by).tools()
    return State(
        lend,
        home,
        lease=timedelta(seconds=settings.agentmux_lease_seconds),
        capabilities=settings.worker_capabilities,
    ).tools()


def _own_job(text: str) -> int | None:
    if not text.strip():
        return None
    if not (text.isascii() and text.isdigit()):
        raise SettingsError(f"{OWN_JOB}: {text[:60]!r} is not the id of a job")
    return int(text)
