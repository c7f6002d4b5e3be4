"""The artifacts of an attempt, and what it means when the database does not take one.

==========================  ================================================================
``patches/changes.patch``   base commit to work tree; ``git apply`` on the base reproduces it
``logs/codex_exec.log``     what happened, for people
``logs/codex_events.jsonl`` Codex's events as it printed them
``last_message.md``         the agent's last message
``codex/``                  what the next attempt goes on from (``session.py``)
==========================  ================================================================
"""

from pathlib import Path

from moonmind_queue.codex_worker.journal import EVENTS, LOG
from moonmind_queue.codex_worker.session import ROLLOUT, SESSION
from moonmind_queue.errors import LeaseLost, NotAllowed
from moonmind_queue.executors import Block, Context, Retry

PATCH = "patches/changes.patch"
MESSAGE = "last_message.md"
CONTENT_TYPES = {
    PATCH: "text/x-diff",
    LOG: "text/plain",
    EVENTS: "application/x-ndjson",
    MESSAGE: "text/markdown",
    ROLLOUT: "application/x-ndjson",
    SESSION: "application/json",  # last: whoever reads it finds the others
}


def store(context: Context, name: str, path: Path) -> None:
    """Attach a file; what may pass has been tried several times by then.

    Raises ``LeaseLost``, ``Block`` where the login or its policy may not store it, else ``Retry``.
    """
    try:
        context.attach(name, path, CONTENT_TYPES[name])
    except LeaseLost:
        raise
    except NotAllowed as refusal:
        raise Block(f"{name} could not be stored: {refusal}") from None
    except Exception as refusal:
        raise Retry(f"{name} could not be stored: {refusal}") from None
