"""The patch of an attempt: made, measured, and stripped of the worker's secrets.

A patch is whole or it is nothing. Of a checkout it is the product, so one that is larger than an
artifact may be fails the job; of a directory of the worker the changes themselves are there, and
the job goes on without it.
"""

import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from moonmind_queue.codex_worker.checkout import Changes, Checkout
from moonmind_queue.codex_worker.git import Git, GitFailed
from moonmind_queue.codex_worker.journal import Journal
from moonmind_queue.codex_worker.local_tree import LocalTree
from moonmind_queue.codex_worker.store import PATCH
from moonmind_queue.executors import Fail, Retry

PATIENCE = 120.0  # seconds for the patch, which is wanted also when the run's own time is up
PATIENCE_STOPPED = 3.0  # a worker that stops has seconds, and the uploads need some


def make(
    tree: Checkout | LocalTree, git: Git, journal: Journal, folder: Path, limit: int
) -> tuple[Changes | None, dict[str, Any]]:
    """Write the patch into ``folder``; return the changes and what the result says of them.

    Raises ``Retry`` when it cannot be made, and ``Fail`` when a checkout's is too large.
    """
    stopping = git.stop is not None and git.stop.is_set()
    patience = PATIENCE_STOPPED if stopping else PATIENCE
    patch = folder / PATCH
    patch.parent.mkdir(exist_ok=True)
    try:
        changes = tree.compare(replace(git, stop=None, deadline=time.monotonic() + patience), patch)
    except GitFailed as error:
        patch.unlink(missing_ok=True)
        raise Retry(f"the patch could not be made: {error}") from None
    if changes is None:
        journal.progress("there is too much to tell what has changed", level="warn")
        return None, {"effect": "unknown"}
    size, words = changes.size, changes.summary()
    facts: dict[str, Any] = {
        "files": changes.files,
        "insertions": changes.insertions,
        "deletions": changes.deletions,
        "bytes": size,
    }
    journal.log(words)
    journal.progress(words, dict(facts))
    if isinstance(tree, LocalTree) and tree.untold:
        facts["left_out"] = [journal.shorten(each) for each in tree.untold[:100]]
    if size > limit:
        patch.unlink()
        reason = (
            f"the patch was not kept: it has {size} bytes, more than the {limit} of "
            f"MOONMIND_ARTIFACT_MAX_BYTES ({words})"
        )
        if isinstance(tree, Checkout):
            raise Fail(reason)
        journal.progress(reason, level="warn")
        facts["kept"] = False
    elif _redact(patch, journal):
        facts |= {"bytes": patch.stat().st_size, "redacted": True}
    return changes, {"patch": facts}


def _redact(patch: Path, journal: Journal) -> bool:
    """Take the worker's secrets out of added lines, so that the patch still applies.

    Other lines are the repository's own, and so is what only looks like a token.
    """
    lines = patch.read_bytes().split(b"\n")
    redacted = [
        journal.redactor.exact(line)
        if line.startswith(b"+") and not line.startswith(b"+++ ")
        else line
        for line in lines
    ]
    if redacted == lines:
        return False
    patch.write_bytes(b"\n".join(redacted))
    journal.progress("secrets were taken out of the patch", level="warn")
    return True
