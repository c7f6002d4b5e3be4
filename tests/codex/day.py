"""A day of a team in small: what its jobs are, what the model answers, and how each job must end.

``PARTS`` says all of it, a row for each kind of job; ``predict`` says how a job of that kind ends,
if so many workers were killed under it.
"""

import re
import threading
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from model_server import Script, drop, http_error, patch, say, shell

ARTIFACT_LIMIT = 300_000  # bytes
HUGE = ARTIFACT_LIMIT * 8
LONG = "sleep 600"  # which nobody waits for: it is cancelled, or its worker is killed
REPOSITORY = "git@git.example.org:acme/demo.git"
TARGET = re.compile(r"\bday (\w+) (\d+)\b")


@dataclass(frozen=True)
class Part:
    """A kind of job: what is enqueued, what the model does, and how it ends."""

    share: int
    """How many of forty jobs are such."""
    state: str = "succeeded"
    patch: bool = True
    effect: str | None = "changes"
    attempts: int = 1
    failure: str | None = None
    """The class of its last failure."""
    error: str = ""
    logged: bool = True
    payload: Mapping[str, Any] = field(default_factory=dict)
    options: Mapping[str, Any] = field(default_factory=dict)


NOTHING: dict[str, Any] = {"patch": False, "effect": None}
PARTS = {
    "edit": Part(8),
    "publish": Part(4, payload={"publish": {"mode": "branch"}}),
    "idle": Part(2, patch=False, effect="no_changes"),
    "useless": Part(2, patch=False, effect="commands_failed"),
    "wordy": Part(2, patch=False, effect="no_changes"),
    "bulky": Part(2, "failed", **NOTHING, error="the patch was not kept: it has "),
    "refused": Part(3, "failed", **NOTHING, failure="refused", error="a bad request"),
    "astray": Part(
        2, "failed", **NOTHING, payload={"ref": "nowhere"}, error="ref 'nowhere' not found"
    ),
    "malformed": Part(
        2, "failed", **NOTHING, logged=False, payload={"repository": "-x"}, error="repository: must"
    ),
    "broken": Part(
        2,
        "dead_letter",
        **NOTHING,
        attempts=2,
        failure="network",
        error="high demand",
        options={"max_attempts": 2},
    ),
    "flaky": Part(3, attempts=2, failure="network"),
    "limited": Part(2, options={"agent": "limited"}),
    "locked_out": Part(1, "blocked", **NOTHING, failure="authentication", error="401"),
    "cancelled": Part(2, "cancelled", effect=None, error="not wanted any more"),
    "withdrawn": Part(
        2, "cancelled", **NOTHING, attempts=0, logged=False, error="not wanted any more"
    ),
    "fatal": Part(1, options={"capabilities": ["expendable"]}),
}


@dataclass(frozen=True)
class End:
    """How a job has ended, as far as people can see."""

    state: str
    attempts: int
    patch: bool
    effect: str | None
    failure: str | None
    logged: bool


def predict(part: Part, lost: int) -> list[End]:
    """Say how a job may end under which ``lost`` workers were killed, each in its own attempt.

    Whoever may fail twice is a dead letter after two, whatever they failed of. A worker that is
    killed between what it stores and what it says leaves an attempt to go on from that is lost.
    """
    attempts = part.attempts + (0 if part.state == "dead_letter" else lost)
    heard = part.state != "dead_letter" or lost < part.attempts
    failure = part.failure if heard else None
    end = End(part.state, attempts, part.patch, part.effect, failure, part.logged and heard)
    if lost and part.state == "succeeded" and part.attempts > 1:
        return [end, replace(end, attempts=attempts - 1, failure=None)]
    return [end]


class Model:
    """Answers for all jobs of the day; ``asleep`` are those that run the long command."""

    def __init__(self) -> None:
        self.asleep: set[str] = set()
        self._begun: Counter[str] = Counter()
        self._lock = threading.Lock()

    def __call__(self, body: dict[str, Any]) -> Script:
        """Return the script of the job that a request is about."""
        text = str(body["input"])
        found = TARGET.search(text)
        assert found
        name, number = found.groups()
        tag = found.group()
        edit = patch(f"*** Begin Patch\n*** Add File: {name}-{number}.txt\n+{tag}\n*** End Patch")
        good = [[edit], [shell(f"grep -q day {name}-{number}.txt")], [say(f"Done: {tag}.")]]
        if name in ("cancelled", "fatal"):
            return self._long(tag, good, body)
        scripts: dict[str, Callable[[], Script]] = {
            "idle": lambda: [[shell("true")], [say("Nothing to do.")]],
            "useless": lambda: [[shell("false")], [say("It cannot be done.")]],
            "wordy": lambda: [
                [shell(f"yes '{tag} says a lot' | head -c {HUGE}")],
                [say("Much was said.")],
            ],
            "bulky": lambda: [
                [shell(f"yes {number} | head -c {HUGE} > bulk.txt")],
                [say("Done.")],
            ],
            "refused": lambda: [
                [http_error(400, code="invalid_request_error", message="a bad request")]
            ],
            "broken": lambda: [[http_error(500)]],
            "locked_out": lambda: [[http_error(401, message="a bad key")]],
            "flaky": lambda: good if "cut off" in text else [good[0], [drop()]],
            "limited": lambda: (
                good if "cut off" in text else [[http_error(429, code="insufficient_quota")]]
            ),
        }
        return scripts.get(name, lambda: good)()

    def _long(self, tag: str, good: Script, body: dict[str, Any]) -> Script:
        """A command without end, after an edit; what is fatal does well when it is begun anew."""
        given = any(item.get("type") == "custom_tool_call_output" for item in body["input"])
        with self._lock:
            self._begun[tag] += not given
            if "fatal" in tag and self._begun[tag] > 1:
                return good
            if given:
                self.asleep.add(tag)
        return [good[0], [shell(LONG)], [say("Too late.")]]
