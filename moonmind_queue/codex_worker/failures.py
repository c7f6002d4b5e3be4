"""Tells failures of ``codex exec`` apart by its last error: wait, ask a person, or give up.

Codex exits with 1 whatever went wrong; only the text says what. What is listed here has been
seen; what is not is tried again, which the job's attempts bound.
"""

import re

from moonmind_queue.executors import Block, Fail, Outcome, Retry

_USAGE = 2  # exit status of a command line or a configuration that this Codex does not know

_PERSON = re.compile(
    r"unexpected status 40[13]\b|last status: 40[13]\b|missing environment variable"
    r"|not logged in|quota exceeded|insufficient_quota|usage limit",
    re.IGNORECASE,
)
_FINAL = re.compile(
    r"room in the model's context window|context_length_exceeded|input exceeds the maximum length"
    r"|unexpected status 40[04]\b|the model `[^`]*` does not exist"
    r"|^\s*\{\s*\"error\"",  # of a 400 Codex gives the body and nothing else
    re.IGNORECASE,
)


def outcome(returncode: int, error: str) -> Outcome:
    """Return what a run that exited with an error means for the attempt."""
    text = f"codex exec exited with {returncode}: {error or 'it gave no reason'}"
    error = error.replace("\N{RIGHT SINGLE QUOTATION MARK}", "'")
    if returncode == _USAGE or _PERSON.search(error):
        return Block(text)
    return Fail(text) if _FINAL.search(error) else Retry(text)
