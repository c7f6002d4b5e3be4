"""Writes what the database knows as the files that Agentmux kept: for tools that read files."""

from collections.abc import Iterator
from datetime import timedelta
from typing import TYPE_CHECKING, NamedTuple

from moonmind_queue.agentmux import events, status
from moonmind_queue.agentmux.folder import Folder, run_folder, safe_name
from moonmind_queue.agentmux.heartbeat import heartbeat
from moonmind_queue.model import Artifact

if TYPE_CHECKING:
    from moonmind_queue.queue import Queue

ARTIFACTS = """
select artifact.id, artifact.job_id, artifact.attempt, artifact.name, artifact.content_type,
       artifact.size_bytes, artifact.sha256, artifact.created_at, artifact.run, task.id as task
from moonmind_queue.job_artifact as artifact
join moonmind_queue.agentmux_task as task using (job_id)
where artifact.id > %(after)s
order by artifact.id
limit 1000
"""


class Exported(NamedTuple):
    """How many of each were written."""

    events: int
    heartbeats: int
    artifacts: int


def export(queue: "Queue", folder: Folder, *, stale: timedelta) -> Exported:
    """Write events, heartbeats, artifacts and status; each file is there whole or not at all."""
    written = Exported(
        write_events(queue, folder),
        write_heartbeats(queue, folder, stale=stale),
        write_artifacts(queue, folder),
    )
    write_status(queue, folder, stale=stale)
    return written


def write_status(queue: "Queue", folder: Folder, *, stale: timedelta) -> None:
    """Write ``state/status.md``."""
    folder.write("state/status.md", status.markdown(status.look(queue, stale=stale)).encode())


def write_events(queue: "Queue", folder: Folder) -> int:
    """Write ``state/events.jsonl`` with all events that are kept; return how many."""
    count = 0
    with folder.writing("state/events.jsonl") as file:
        for event in events.all_of_them(queue):
            file.write(events.line(event).encode() + b"\n")
            count += 1
    return count


def write_heartbeats(queue: "Queue", folder: Folder, *, stale: timedelta) -> int:
    """Write the heartbeat of each agent, that of its worker seen last; return how many."""
    newest = {}
    for row in sorted(status.workers(queue, stale=stale), key=lambda row: row["seen_at"]):
        newest[row["agent"]] = row
    for agent, row in newest.items():
        beat = heartbeat(
            row["seen_at"],
            agent=agent,
            worker=row["worker"],
            task=row["task"],
            lease_until=row["lease_until"],
            note=None if row["status"] == "live" else row["status"],
        )
        folder.write_json(f"state/heartbeats/{safe_name(agent)}.json", beat)
    return len(newest)


def write_artifacts(queue: "Queue", folder: Folder) -> int:
    """Write every artifact of every run that is not there yet; return how many."""
    count = 0
    for artifact, task, run in _artifacts(queue):
        path = f"{run_folder(task, run)}/{artifact.name}"
        if not folder.has(path, artifact.size_bytes):
            with folder.writing(path) as file:
                for piece in queue.read_artifact(artifact):
                    file.write(piece)
            count += 1
    return count


def _artifacts(queue: "Queue") -> Iterator[tuple[Artifact, str, str]]:
    after = 0
    while page := queue.select(ARTIFACTS, after=after):
        for row in page:
            task, run = row.pop("task"), row.pop("run")
            yield Artifact(**row), task, run
        after = page[-1]["id"]
