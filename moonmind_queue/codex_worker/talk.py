"""Talks with Codex: one run of it after another, in one thread."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from moonmind_queue.codex_worker import strays
from moonmind_queue.codex_worker.codex import Codex
from moonmind_queue.codex_worker.journal import Journal
from moonmind_queue.codex_worker.payload import CodexOptions
from moonmind_queue.codex_worker.plan import Plan
from moonmind_queue.codex_worker.session import Opening
from moonmind_queue.codex_worker.transcript import Transcript
from moonmind_queue.codex_worker.workspace import Workspace
from moonmind_queue.executors import Context
from moonmind_queue.executors.process import End, Ended, run


@dataclass
class Talk:
    """With the Codex of this machine, about one work tree."""

    codex: Codex
    space: Workspace
    roots: Sequence[Path]
    """Where the agent works, and what else Codex may take for the project."""
    options: CodexOptions
    plan: Plan
    transcript: Transcript
    journal: Journal
    context: Context
    job_id: int
    program: Path = field(init=False)
    facts: dict[str, Any] = field(init=False)
    """What it is held with: ``codex_version`` and ``model``."""

    def __post_init__(self) -> None:
        """Find the program; raises ``CodexUnavailable``."""
        self.program = self.codex.find()
        model = self.options.model or self.codex.model
        self.facts = {"codex_version": self.codex.version(self.program), "model": model}

    def run(self, opening: Opening, deadline: float, silence: float) -> Ended:
        """Talk until all steps are done and nobody says anything more, or it has to end."""
        self.journal.progress(
            "codex started", {"version": self.facts["codex_version"], "model": self.facts["model"]}
        )
        ended = self._open(opening, deadline, silence)
        while ended.end is End.EXITED and not ended.returncode:
            thread, words = self.transcript.thread_id, self._hear() or self.plan.go_on()
            if not words or not thread:
                return ended
            ended = self._turn(words, thread, deadline, silence)
        self.plan.give_up("failed" if ended.end is End.EXITED else "cut off")
        return ended

    def _open(self, opening: Opening, deadline: float, silence: float) -> Ended:
        step = self.plan.begin()
        if opening.thread:
            prompt = _joined(opening.resumed, step, self._hear())
            ended = self._turn(prompt, opening.thread, deadline, silence)
            if ended.end is not End.EXITED or not ended.returncode or self.transcript.begun:
                return ended
            self.journal.progress("the thread could not be resumed: a new one is begun")
        prompt = _joined(opening.anew, step, self._hear(everything=True))
        return self._turn(prompt, None, deadline, silence)

    def _hear(self, *, everything: bool = False) -> str:
        """Return what people have said to the agent meanwhile."""
        said = self.context.hear(everything=everything)
        for text in said:
            self.journal.progress(f"told the agent: {text}")
        return "\n\n".join(said)

    def _turn(self, prompt: str, thread: str | None, deadline: float, silence: float) -> Ended:
        """Let Codex work on one prompt, in a thread of its own or in one that is resumed."""
        space, options = self.space, self.options
        argv = self.codex.command(
            *(self.program, self.roots[0], space.tmp / "home", options.model, options.effort),
            thread,
            roots=self.roots[1:],
        )
        self.journal.log(f"$ {' '.join(['codex', *argv[1:]])} < instruction")
        return run(
            argv,
            cwd=self.roots[0],
            env={
                **self.codex.environment(space.home, space.tmp),
                "MOONMIND_JOB_ID": str(self.job_id),  # for MCP servers whose env_vars has it
                "GIT_OPTIONAL_LOCKS": "0",  # Codex asks git for the state, and no index is written
            },
            stdin=prompt.encode(),
            stdout=self.transcript.stdout,
            stderr=self.transcript.stderr,
            stop=self.context.stop,
            timeout=max(0.0, deadline - time.monotonic()),
            silence=silence,
            markers=lambda: [*self.transcript.markers(), strays.mark(space.path)],
        )


def _joined(*words: str) -> str:
    return "\n\n---\n".join(each for each in words if each)
