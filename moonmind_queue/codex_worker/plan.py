"""The steps of a job: each a turn of the agent, in one thread and one work tree."""

from collections.abc import Sequence
from typing import Any, Literal

from moonmind_queue.codex_worker.journal import Journal
from moonmind_queue.codex_worker.payload import Step


class Plan:
    """What is to be done in which order, and how far that has come.

    A turn that does not end well is the last one. Nothing happens where a job has no steps.
    """

    def __init__(self, steps: Sequence[Step], journal: Journal) -> None:
        self.done = 0
        self._steps = steps
        self._journal = journal

    @property
    def facts(self) -> dict[str, Any]:
        """``steps`` for the job's result: how many are done, of how many."""
        return {"steps": {"done": self.done, "of": len(self._steps)}} if self._steps else {}

    def skip(self, done: int) -> None:
        """Begin with the step at which an earlier attempt was cut off, if this is the same plan."""
        self.done = done if 0 <= done < len(self._steps) else 0

    def begin(self) -> str:
        """Return what to say of the step that is next; empty when there is none."""
        if self.done >= len(self._steps):
            return ""
        self._tell("began")
        step, last = self._steps[self.done], self.done + 1 == len(self._steps)
        earlier = " The steps before it are done." if self.done else ""
        later = "" if last else " Do this one only: you are told the next when it is done."
        return f"{self._title()}.{earlier}{later}\n\n{step.instruction}"

    def go_on(self) -> str:
        """Count the step that is under way as done, and begin the next."""
        if self.done < len(self._steps):
            self._tell("finished")
            self.done += 1
        return self.begin()

    def give_up(self, status: Literal["failed", "cut off"]) -> None:
        """Note that the step under way did not end well."""
        if self.done < len(self._steps):
            self._tell(status, level="warn")

    def _title(self) -> str:
        name = self._steps[self.done].name
        return f"Step {self.done + 1} of {len(self._steps)}" + (f": {name}" if name else "")

    def _tell(self, status: str, level: str = "info") -> None:
        self._journal.log(f"== {self._title()} {status}")
        self._journal.progress(
            f"{self._title()} {status}",
            {"step": self.done + 1, "of": len(self._steps), "status": status},
            level=level,
        )
