"""What an attempt that ended early leaves, so that the next one goes on from it on any machine.

=======================  =================================================================
``codex/session.json``   thread, base commit, patch, steps done, why it ended, its last words
``codex/rollout.jsonl``  Codex's own record of the thread, by which it can be resumed
=======================  =================================================================

Both are redacted, and bounded like every artifact; without the record the next attempt starts
a new thread, knowing what the last one said and why it ended.
"""

import hashlib
import json
import os
import re
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

from moonmind_queue.codex_worker.journal import Journal
from moonmind_queue.executors import Context

SESSION, ROLLOUT = "codex/session.json", "codex/rollout.jsonl"
WORDS = 4000  # characters of the agent's last words
REASON = 500  # characters of why it ended

_THREAD = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_PLACE = re.compile(r"\d{4}/\d\d/\d\d/rollout-[0-9T-]{10,30}-(?P<thread>[0-9a-f-]{36})\.jsonl")


@dataclass(frozen=True, slots=True)
class Opening:
    """How a talk with the agent begins: anew, or in a ``thread`` that is ``resumed``."""

    anew: str
    thread: str | None = None
    resumed: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Session:
    """Where an attempt ended; ``patch`` and ``rollout`` are digests of artifacts, if there are."""

    thread_id: str
    base: str
    error: str
    said: str = ""
    patch: str | None = None
    rollout: str | None = None
    place: str | None = None
    """Where Codex looks for its record, below ``sessions`` of its home."""
    done: int = 0
    """How many steps of the job are done."""

    @classmethod
    def parse(cls, text: bytes) -> Self | None:
        """Read what :meth:`keep` wrote; None when it is something else."""
        try:
            found: dict[str, Any] = json.loads(text)
            session = cls(**found)
        except (ValueError, TypeError):
            return None
        texts = asdict(session)
        if not isinstance(texts.pop("done"), int):
            return None
        if not all(isinstance(value, str) for value in texts.values() if value):
            return None
        place = _PLACE.fullmatch(session.place or "")
        if session.place and (place is None or place["thread"] != session.thread_id):
            return None
        return session if _THREAD.fullmatch(session.thread_id) else None

    @classmethod
    def earlier(cls, context: Context, folder: Path) -> Self | None:
        """Return where the job's last attempt ended; ``folder`` is for the file of it."""
        file = folder / "session.json"
        return cls.parse(file.read_bytes()) if context.latest(SESSION, file) else None

    def resumed(self, *, changed: bool) -> str:
        """Say what has become of its work to an agent that knows its task."""
        return f"You were cut off: {self.error}\n{_tree(changed)} Go on with the task."

    def retold(self, instruction: str, *, changed: bool) -> str:
        """Give the task to an agent that knows nothing, with what there is already."""
        said = f"\nThe last words of that attempt:\n{self.said}" if self.said else ""
        cut = f"An earlier attempt at this was cut off: {self.error}"
        return f"{instruction}\n\n---\n{cut}\n{_tree(changed)}{said}"

    def restore(self, context: Context, codex_home: Path) -> bool:
        """Put Codex's record of the thread where it looks for it; False when there is none.

        In place of one that is there: if an attempt that went on from here was killed, that one
        tells of changes which no work tree has.
        """
        if self.place is None or self.rollout is None:
            return False
        target = codex_home / "sessions" / self.place
        target.parent.mkdir(parents=True, exist_ok=True)
        part = target.with_name(f".{target.name}.{os.getpid()}")
        try:
            if not context.fetch(self.rollout, part):
                return False
            part.replace(target)
        finally:
            part.unlink(missing_ok=True)
        return True


def _tree(changed: bool) -> str:
    return (
        "The work tree holds what was changed until then."
        if changed
        else "The work tree is unchanged."
    )


def keep(
    folder: Path,
    codex_home: Path,
    journal: Journal,
    limit: int,
    *,
    patch: Path,
    done: int,
    **facts: str,
) -> None:
    """Write the files of an attempt that ended early into ``folder``, to be attached."""
    thread_id = facts["thread_id"]
    if not _THREAD.fullmatch(thread_id):
        return
    facts["error"] = journal.shorten(facts["error"], REASON)
    facts["said"] = journal.shorten(facts["said"], WORDS)
    digests: dict[str, str] = {}
    if patch.is_file() and patch.stat().st_size:
        digests["patch"] = hashlib.sha256(patch.read_bytes()).hexdigest()
    sessions = codex_home / "sessions"
    record = next(iter(sessions.glob(f"*/*/*/rollout-*-{thread_id}.jsonl")), None)
    copy = folder / ROLLOUT
    copy.parent.mkdir(exist_ok=True)
    if record is not None and (digest := _copy(record, copy, journal, limit)):
        digests |= {"rollout": digest, "place": record.relative_to(sessions).as_posix()}
    (folder / SESSION).write_text(json.dumps({**facts, **digests, "done": done}), encoding="utf-8")


def _copy(record: Path, target: Path, journal: Journal, limit: int) -> str | None:
    """Copy a record without its secrets; return its digest, or None when it is too large."""
    digest, size = hashlib.sha256(), 0
    with record.open("rb") as source, target.open("wb") as copy:
        for line in source:
            redacted = journal.redactor.line(line)
            size += len(redacted)
            if size > limit:
                break
            digest.update(redacted)
            copy.write(redacted)
    if size > limit:
        target.unlink()
        return None
    return digest.hexdigest()
