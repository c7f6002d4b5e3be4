"""Publishes what Codex made: one commit, one branch, one pull request, whoever dies on the way.

Each step is written to the database before and after it happens (``publication``). Asking to begin
one is refused to a worker that has lost the lease, so that question comes immediately before each
effect. What a step makes can be told from what is there already:

* the commit has the same tree, parent, message, names and instant in each attempt, and so one id;
* the branch has a name that the first attempt drew, and is moved only from where this job left it;
* the pull request is looked up by its branch before one is made.

So a later attempt, on any machine, goes on where the last one stopped.
"""

import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from moonmind_queue.codex_worker.checkout import Checkout
from moonmind_queue.codex_worker.gh import GitHub
from moonmind_queue.codex_worker.git import Git, GitFailed
from moonmind_queue.codex_worker.journal import Journal
from moonmind_queue.codex_worker.payload import CodexExecJobPayload
from moonmind_queue.executors import Block, Context
from moonmind_queue.model import ClaimedJob, Step

BRANCH, COMMIT, PUSH, PULL_REQUEST = "branch", "commit", "push", "pull_request"
SUBJECT = 72  # characters of a commit's first line, and of a pull request's title


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """Who the author of commits is."""

    name: str
    email: str

    def environment(self, instant: str) -> dict[str, str]:
        """Return git's variables for a commit at an instant."""
        return {
            f"GIT_{who}_{what}": value
            for who in ("AUTHOR", "COMMITTER")
            for what, value in (("NAME", self.name), ("EMAIL", self.email), ("DATE", instant))
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Publisher:
    """Publishes for one attempt."""

    job: ClaimedJob
    payload: CodexExecJobPayload
    context: Context
    journal: Journal
    git: Git
    github: GitHub
    identity: Identity

    def publish(self, checkout: Checkout, tree: str, facts: dict[str, Any]) -> dict[str, Any]:
        """Do what is left of it; return what was published, for the job's result.

        ``facts`` go with the commit: a later attempt that goes on from there has them for its
        own result. Raises ``LeaseLost`` before an effect, or an outcome.
        """
        self.journal.stage = "publish"
        commit = self._commit(checkout, tree, facts)
        branch = self._branch()
        base = self._base(checkout, branch) if self.payload.publish.mode == "pr" else None
        self._push(checkout, branch, commit)
        published = {"branch": branch, "commit": commit}
        if base is not None:
            published["pull_request"] = self._pull_request(base, branch, facts)
        self.journal.progress(f"published {branch}", published)
        return published

    def _commit(self, checkout: Checkout, tree: str, facts: dict[str, Any]) -> str:
        step = self.context.begin_step(COMMIT, tree, {"base": checkout.base, **facts})
        environment = self.identity.environment(step.begun_at.strftime("%s +0000"))
        commit = checkout.commit(self.git, tree, self._message(), environment)
        self.context.end_step(COMMIT, tree, {"commit": commit})
        return commit

    def _branch(self) -> str:
        """Return the branch's name: the first attempt draws it, all others read it."""
        step = self.context.begin_step(BRANCH, "", {"name": f"moonmind-job-{secrets.token_hex(4)}"})
        self.context.end_step(BRANCH)
        return str(step.data["name"])

    def _push(self, checkout: Checkout, branch: str, commit: str) -> None:
        ref = f"refs/heads/{branch}"
        there = checkout.remote_commit(self.git, ref)
        ours = set(self.context.pushed())
        if there not in (None, commit) and there not in ours:
            raise Block(
                f"branch {branch} is at {there[:12]}, where this job has not put it:"
                " move it away or delete it, then retry the job"
            )
        self.context.begin_step(PUSH, commit, {"branch": branch})
        if there != commit:
            try:
                checkout.push(self.git, ref, commit, expected=there)
            except GitFailed as error:
                raise error.outcome from None
        self.context.end_step(PUSH, commit)

    def _base(self, checkout: Checkout, branch: str) -> str:
        """Return what the pull request is to be merged into: never the branch itself."""
        base = self.payload.publish.base_branch or checkout.default_branch(self.git)
        if base == branch:
            raise Block(
                f"a pull request from {branch} into itself is none: name another baseBranch"
            )
        return base

    def _pull_request(self, base: str, branch: str, facts: dict[str, Any]) -> str:
        repository = self.payload.slug
        step = self.context.begin_step(PULL_REQUEST, branch, {"base": base})
        url = str(step.data["url"]) if step.done else self.github.find(repository, branch)
        if url is None:
            url = self.github.create(
                repository,
                base=base,
                head=branch,
                title=self._subject(),
                body=self._body(facts),
                draft=self.payload.publish.draft,
            )
        self.context.end_step(PULL_REQUEST, branch, {"url": url})
        return url

    def _subject(self) -> str:
        first = next(
            (line.strip() for line in self.payload.instruction.splitlines() if line.strip()), ""
        )
        subject = self.journal.shorten(first, SUBJECT)
        return subject or f"Job {self.job.id}"

    def _message(self) -> str:
        """Return the commit's message: the instruction, and which job it was."""
        said = self.journal.redactor.text(self.payload.instruction).strip()
        _, _, rest = said.partition("\n")
        parts = [self._subject(), rest.strip(), f"Job: {self.job.id}"]
        return "\n\n".join(part for part in parts if part) + "\n"

    def _body(self, facts: dict[str, Any]) -> str:
        """Return the pull request's text: what was done, what was run, which job it was."""
        commands: Sequence[str] = facts.get("commands", ())
        ran = "\n".join(f"- `{command}`" for command in commands)
        parts = [
            facts.get("said") or facts.get("summary") or "",
            f"Commands that were run:\n{ran}" if ran else "",
            f"Made by Codex for job {self.job.id} of moonmind-queue.",
        ]
        return "\n\n".join(part for part in parts if part)


def begun(steps: Sequence[Step]) -> Step | None:
    """Return the commit that an earlier attempt began, from which this one goes on."""
    return next((step for step in reversed(steps) if step.step == COMMIT), None)
