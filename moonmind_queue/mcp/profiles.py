"""Which tools a server has, put together from the settings of its process."""

from collections.abc import Callable
from datetime import timedelta
from functools import partial
from pathlib import Path

from moonmind_queue.agentmux import vocabulary
from moonmind_queue.mcp import queue as queue_tools
from moonmind_queue.mcp.artifacts import Artifacts
from moonmind_queue.mcp.leases import Lend
from moonmind_queue.mcp.queue import Jobs
from moonmind_queue.mcp.state import State
from moonmind_queue.mcp.tools import Profile
from moonmind_queue.queue import connect
from moonmind_queue.settings import FileSettings, Settings

NAMES = ("state", "artifacts", "queue")
AROUND = 1024 * 1024  # bytes of a request beside a file in base64

STATE = """\
Tasks of a graph, to be worked off by agents. Find one with list_ready_tasks, take it with
claim_task, begin with start_task, tell of progress with append_event, keep it with renew_lease
(before leaseUntil), and end it with complete_task, fail_task or release_task. Use the same worker
name throughout. A refusal is {ok: false, code, message}."""
ARTIFACTS = """\
Files that tasks leave behind, below artifacts/: best in artifacts/<taskId>/<runId>/.
A refusal is {ok: false, code, message}."""
QUEUE = """\
A queue of jobs for agents. Add one with queue.enqueue and look at it with queue.get, queue.list and
queue.events. To do jobs yourself: queue.claim, then queue.heartbeat while you work, and
queue.complete or queue.fail at the end, all with the same worker name. A refusal is
{ok: false, code, message}."""


def build(name: str, *, home: Path | None, redact: Callable[[str], str]) -> Profile:
    """Return the profile of a name; ``home`` wins over ``MOONMIND_AGENTMUX_HOME``.

    Raises ``SettingsError``. Only ``artifacts`` does without a database.
    """
    if name == "artifacts":
        files = FileSettings.load()
        tools = Artifacts(home or files.agentmux_home, files.artifact_max_bytes).tools()
        return Profile(
            name=name,
            instructions=ARTIFACTS,
            tools=tools,
            code=vocabulary.error_code,
            largest=_largest(files),
            redact=redact,
        )
    settings = Settings.load()
    lend: Lend = partial(
        connect, settings.database_url, application_name=f"moonmind-queue mcp {name}"
    )
    if name == "queue":
        lease = timedelta(seconds=settings.lease_seconds)
        return Profile(
            name=name,
            instructions=QUEUE,
            tools=Jobs(lend, lease=lease, limit=settings.artifact_max_bytes).tools(),
            code=queue_tools.error_code,
            largest=_largest(settings),
            redact=redact,
        )
    state = State(
        lend,
        home or settings.agentmux_home,
        lease=timedelta(seconds=settings.agentmux_lease_seconds),
        capabilities=settings.worker_capabilities,
    )
    return Profile(
        name=name,
        instructions=STATE,
        tools=state.tools(),
        code=vocabulary.error_code,
        largest=_largest(settings),
        redact=redact,
    )


def _largest(settings: FileSettings) -> int:
    return settings.artifact_max_bytes * 4 // 3 + AROUND
