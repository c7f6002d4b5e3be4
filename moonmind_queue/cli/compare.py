"""The command that shows what two jobs made of the same, side by side."""

import re
from collections.abc import Iterable, Mapping
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import click

from moonmind_queue.cli.output import json_option, opened, print_json, print_table, shown, size

if TYPE_CHECKING:
    from moonmind_queue.model import Artifact, Event, Job
    from moonmind_queue.queue import Queue

PATCH = "patches/changes.patch"
TESTING = re.compile(r"\b(?:py|c|unit)?tests?\b|\b(?:tox|nox|jest|vitest|rspec)\b", re.I)
# What is compared, in the order in which people read it; a row that neither job has is left out.
ROWS = (
    *("state", "effect", "error", "kind", "agent", "repository", "ref", "base_commit"),
    *("model", "effort", "codex_version", "attempts", "queued", "running"),
    *("exit_code", "commands", "tests", "patch", "published"),
    *("input_tokens", "cached_input_tokens", "output_tokens", "reasoning_output_tokens", "cost"),
)
LISTED = 40  # files of two patches


@click.command()
@click.argument("job", type=int)
@click.argument("other", type=int, metavar="JOB")
@json_option
def compare(job: int, other: int, as_json: bool) -> None:
    """Show patch, tests, tokens and time of two jobs side by side.

    Tests are the last command of the agent that names one, such as pytest or make test. Patches
    are those of the last attempts; a row that neither job has is left out.

    \b
    Example:
      moonmind-queue compare 7 12
    """
    with opened() as queue:
        sides = [_facts(queue, queue.get(each)) for each in (job, other)]
        patches = [_latest(queue.artifacts(each)) for each in (job, other)]
        files = [_files(queue, patch) for patch in patches]
    alike = _alike(patches)
    names = list(dict.fromkeys([*files[0], *files[1]]))
    if as_json:
        listed = [{"file": name, "a": files[0].get(name), "b": files[1].get(name)}
                  for name in names]  # fmt: skip
        print_json({"a": sides[0], "b": sides[1], "same_patch": alike, "files": listed})
        return
    titles = (f"job {job}", f"job {other}")
    rows = [
        {"": name.replace("_", " "), titles[0]: left, titles[1]: right}
        for name in ROWS
        for left, right in [[_words(name, side.get(name)) for side in sides]]
        if left or right
    ]
    print_table(rows, "", *titles, empty="")
    if alike is not None:
        click.echo(f"\nthe patches are {'the same' if alike else 'different'}")
    if names:
        stats = [
            {"file": name, **{title: _stat(side.get(name))
                              for title, side in zip(titles, files, strict=True)}}
            for name in names[:LISTED]
        ]  # fmt: skip
        print_table(stats, "file", *titles, empty="")
    if len(names) > LISTED:
        click.echo(f"and {len(names) - LISTED} more files")


def _facts(queue: "Queue", job: "Job") -> dict[str, Any]:
    """Return what is known of one job, by the names of :data:`ROWS` and as JSON has it.

    Whoever can price tokens adds ``cost`` to the result of the job, or here.
    """
    result, codex = job.result or {}, job.payload.get("codex") or {}
    history = _history(queue, job.id)
    usage = result.get("usage") or next(
        (each.data for each in reversed(history) if each.message == "tokens used"), None
    )
    return {
        "id": job.id,
        "state": job.state,
        "error": job.error,
        "kind": job.kind,
        "agent": job.agent,
        "repository": job.repository,
        "ref": job.payload.get("ref"),
        "model": result.get("model") or codex.get("model"),
        "effort": result.get("effort") or codex.get("effort"),
        "attempts": job.attempt,
        "tests": _tests(history),
        **_times(job),
        **{name: result.get(name) for name in ("effect", "base_commit", "codex_version")},
        **{name: result.get(name) for name in ("exit_code", "commands", "patch", "published")},
        **{name: (usage or {}).get(name) for name in ROWS if name.endswith("_tokens")},
        "cost": result.get("cost"),
    }


def _history(queue: "Queue", job: int) -> "list[Event]":
    events: list[Event] = []
    while more := queue.history(job, after=events[-1].seq if events else 0):
        events += more
    return events


def _times(job: "Job") -> dict[str, float | None]:
    """Return how many seconds it waited for its first attempt, and from there to its end."""
    began, ended = job.started_at, job.finished_at
    return {
        "queued": (began - job.created_at).total_seconds() if began else None,
        "running": (ended - began).total_seconds() if began and ended else None,
    }


def _tests(history: "Iterable[Event]") -> dict[str, Any] | None:
    """Return the last command that names tests, and what it ended with."""
    for event in reversed(list(history)):
        command = event.message.removeprefix("command: ")
        if command != event.message and TESTING.search(command):
            return {"command": command, "exit_code": (event.data or {}).get("exit_code")}
    return None


def _latest(artifacts: "Iterable[Artifact]") -> "Artifact | None":
    return next((each for each in artifacts if each.name == PATCH), None)


def _alike(patches: "list[Artifact | None]") -> bool | None:
    left, right = patches
    return None if left is None and right is None else bool(
        left and right and left.sha256 == right.sha256
    )  # fmt: skip


def _files(queue: "Queue", patch: "Artifact | None") -> dict[str, dict[str, int]]:
    """Return how many lines a patch adds to each file and takes from it."""
    found: dict[str, dict[str, int]] = {}
    if patch is None:
        return found
    counts, inside = {"insertions": 0, "deletions": 0}, False
    for line in b"".join(queue.read_artifact(patch)).split(b"\n"):
        if line.startswith(b"diff --git "):
            path = _path(line.decode(errors="replace").removeprefix("diff --git "))
            counts, inside = found.setdefault(path, {"insertions": 0, "deletions": 0}), False
        elif line.startswith(b"@@ "):
            inside = True
        elif inside and line.startswith((b"+", b"-")):
            counts["insertions" if line.startswith(b"+") else "deletions"] += 1
    return found


def _path(names: str) -> str:
    """Return the second of two names, a/… and b/…, which are the same but for a file that moved."""
    half = len(names) // 2
    if names[2:half] == names[half + 3 :]:
        return names[half + 3 :]
    return names.rpartition(" b/")[2].rstrip('"')


def _stat(counts: Mapping[str, int] | None) -> str:
    return "" if counts is None else f"+{counts['insertions']} -{counts['deletions']}"


def _words(name: str, value: Any) -> str:
    match name, value:
        case _, None:
            return ""
        case (("queued" | "running"), float()):
            return shown(timedelta(seconds=value))
        case "commands", {"ran": ran, "succeeded": succeeded}:
            return f"{succeeded} of {ran} succeeded"
        case "tests", {"command": command, "exit_code": status}:
            return f"{'passed' if status == 0 else f'exit status {status}'}: {command[:60]}"
        case "patch", {"files": files, "insertions": added, "deletions": removed, "bytes": number}:
            return f"{files} files, +{added} -{removed}, {size(number)}"
        case "published", {**parts}:
            return str(parts.get("pull_request") or parts.get("branch") or "")
        case "base_commit", str():
            return value[:12]
        case "error", str():
            return value.partition("\n")[0][:60]
        case _, int() if name.endswith("_tokens"):
            return f"{value:,}"
        case _:
            return str(value)
