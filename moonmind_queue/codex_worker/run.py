"""One attempt at a ``codex_exec`` job: check out, let Codex work, keep what it did.

What happened is judged by the difference between base commit and work tree, or between a directory
of the worker before and after, not by what Codex says of it. What an attempt leaves (``store.py``)
is attached before its outcome reaches the queue, however it ends.

Logs that are too large keep beginning and end, a patch is whole or nothing (``difference.py``). A
patch that cannot be stored is tried again with the job; a log that cannot is only mentioned. What
is published has its patch stored before, so nothing that cannot be stored after undoes a success.
"""

import hashlib
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import structlog

from moonmind_queue.codex_worker import difference, publish, session
from moonmind_queue.codex_worker.checkout import Changes, Checkout
from moonmind_queue.codex_worker.codex import Codex
from moonmind_queue.codex_worker.gh import GitHub
from moonmind_queue.codex_worker.git import Git, GitFailed
from moonmind_queue.codex_worker.journal import Journal
from moonmind_queue.codex_worker.local import Directory
from moonmind_queue.codex_worker.local_tree import LocalTree
from moonmind_queue.codex_worker.meter import Meter
from moonmind_queue.codex_worker.payload import INSTRUCTION_LIMIT, CodexExecJobPayload
from moonmind_queue.codex_worker.plan import Plan
from moonmind_queue.codex_worker.publish import Identity, Publisher
from moonmind_queue.codex_worker.session import Opening, Session
from moonmind_queue.codex_worker.steering import steered
from moonmind_queue.codex_worker.store import CONTENT_TYPES, MESSAGE, PATCH, store
from moonmind_queue.codex_worker.talk import Talk
from moonmind_queue.codex_worker.transcript import Transcript
from moonmind_queue.codex_worker.workspace import Workspace
from moonmind_queue.errors import LeaseLost
from moonmind_queue.executors import Block, Context, Fail, Outcome, Retry, Stopped, Unfit
from moonmind_queue.executors.bounded import BoundedFile
from moonmind_queue.executors.process import End
from moonmind_queue.model import ClaimedJob, Step

ERROR_LIMIT = 2000  # characters
SAID_LIMIT = 4000  # characters of the agent's last message in a pull request
SUMMARY_LIMIT = 300  # characters of the agent's last message in the summary

_log = structlog.get_logger()


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerExecutionResult:
    """How an attempt ended and which artifacts it left."""

    status: Literal["succeeded", "failed"]
    summary: str | None = None
    error: str | None = None
    artifacts: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Refuse a failure that says nothing."""
        if self.status == "failed" and not (self.error or "").strip():
            raise ValueError("a failed result needs an error")


class Run:
    """The state of one attempt; ``identity`` signs what is published.

    With a ``directory`` the agent works there, and not on a checkout.
    """

    def __init__(
        self,
        job: ClaimedJob,
        payload: CodexExecJobPayload,
        codex: Codex,
        workspace: Workspace,
        journal: Journal,
        context: Context,
        artifact_max_bytes: int,
        identity: Identity,
        directory: Directory | None = None,
    ) -> None:
        self._job = job
        self._directory = directory
        self._identity = identity
        self._payload = payload
        self._codex = codex
        self._workspace = workspace
        self._journal = journal
        self._context = context
        self._limit = artifact_max_bytes
        self._transcript = Transcript(journal, directory.path if directory else workspace.repo)
        self._plan = Plan(payload.steps, journal)
        self._base = ""  # what a later attempt must begin from to go on
        self._facts: dict[str, Any] = {}
        self._message: str | None = None

    def execute(self, seconds: float, silence: float) -> dict[str, Any]:
        """Do the work and return the job's result, or raise the outcome."""
        git = Git(
            environ=self._codex.environ,
            log=self._journal.log,
            stop=self._context.stop,
            deadline=time.monotonic() + seconds,
        )
        if self._publishes and (earlier := publish.begun(self._context.steps())):
            return self._go_on(git, earlier)
        failure: Outcome | None = None
        changes: Changes | None = None
        checkout: Checkout | LocalTree | None = None
        try:
            checkout = self._check_out(git)
            opening = self._begin(git, checkout)
            self._run_codex(checkout.roots, opening, git.deadline, seconds, silence)
        except Exception as error:
            failure = _outcome(error)
        if checkout is not None:
            try:
                changes = self._compare(checkout, git)
            except Exception as error:
                failure = _add(failure, _outcome(error))
        if failure is None and changes:
            failure = self._judge(changes)
        if failure is None and isinstance(checkout, Checkout) and changes and self._publishes:
            try:
                self._publish(git, checkout, changes)
            except LeaseLost:
                raise
            except Exception as error:
                failure = _outcome(error)
        unknown = "unknown changes" if "effect" in self._facts else "no changes"
        return self._end(changes.summary() if changes else unknown, failure)

    def _go_on(self, git: Git, earlier: Step) -> dict[str, Any]:
        """Publish what an earlier attempt made: Codex has done its part, and is not asked again."""
        self._facts = dict(earlier.data["facts"])
        self._message = earlier.data.get("said")
        failure: Outcome | None = None
        try:
            base = str(earlier.data["base"])
            fresh = {"ref": base, "workdir_mode": "fresh_clone"}
            checkout = Checkout.prepare(
                git, self._workspace, self._payload.model_copy(update=fresh)
            )
            patch = self._workspace.artifacts / PATCH
            patch.parent.mkdir()
            self._restore(git, checkout, earlier, patch)
            self._journal.progress("going on where an earlier attempt stopped", {"base": base})
            self._facts["published"] = self._publisher(git).publish(
                checkout, earlier.content, earlier.data
            )
        except LeaseLost:
            raise
        except Exception as error:
            failure = _outcome(error)
        return self._end(str(earlier.data.get("changes", "")), failure)

    def _restore(self, git: Git, checkout: Checkout, earlier: Step, patch: Path) -> None:
        there = self._context.fetch(str(earlier.data["patch"]), patch)
        if not there or checkout.restore(git, patch) != earlier.content:
            raise Fail("what an earlier attempt was about to publish is gone; retry the job")

    def _end(self, changes: str, failure: Outcome | None) -> dict[str, Any]:
        """Attach what there is, and return the result or raise the outcome."""
        result, failure = self._attach(changes, failure)
        if failure is not None:
            failure.args = (result.error,)
            raise failure
        return {
            "status": result.status,
            "summary": result.summary,
            **self._facts,
            "artifacts": list(result.artifacts),
        }

    @property
    def _publishes(self) -> bool:
        return self._payload.publish.mode != "none"

    def _publisher(self, git: Git) -> Publisher:
        return Publisher(
            job=self._job,
            payload=self._payload,
            context=self._context,
            journal=self._journal,
            git=git,
            github=GitHub(
                environ=self._codex.environ,
                folder=self._workspace.home,
                journal=self._journal,
                stop=self._context.stop,
            ),
            identity=self._identity,
        )

    def _publish(self, git: Git, checkout: Checkout, changes: Changes) -> None:
        """Publish the changes; the patch is stored before, so that another attempt can go on."""
        if not changes.files:
            self._journal.progress("publish skipped: no local changes")
            self._facts["published"] = None
            return
        if self._facts["patch"].get("redacted"):
            raise Block("the changes hold a secret of this worker: they are not published")
        store(self._context, PATCH, changes.patch)
        said = self._journal.shorten(self._message or "", SAID_LIMIT)
        facts = {
            "facts": self._facts,
            "said": said,
            "commands": list(self._transcript.commands),
            "changes": changes.summary(),
            "patch": hashlib.sha256(changes.patch.read_bytes()).hexdigest(),
        }
        self._facts["published"] = self._publisher(git).publish(checkout, changes.tree, facts)

    def _check_out(self, git: Git) -> Checkout | LocalTree:
        if self._directory is not None:
            return self._enter(git, self._directory)
        checkout = Checkout.prepare(git, self._workspace, self._payload)
        self._facts["base_commit"] = self._base = checkout.base
        self._journal.progress(
            f"checked out {self._payload.ref or 'the default branch'} at {checkout.base[:12]}",
            {"base_commit": checkout.base, "reused": checkout.reused},
        )
        return checkout

    def _enter(self, git: Git, directory: Directory) -> LocalTree:
        """Take a directory of the worker as it is."""
        tree = LocalTree.prepare(git, self._workspace, directory, self._limit)
        self._base = tree.base
        commit = tree.repository.commit if tree.repository else None
        self._facts |= {"directory": str(directory.path), "base_commit": commit}
        self._journal.progress(
            f"at work in {directory.path}",
            {"base_commit": commit, "read_only": directory.read_only},
        )
        return tree

    def _begin(self, git: Git, checkout: Checkout | LocalTree) -> Opening:
        """Return what to say to the agent, and the thread to resume: the last attempt's, if any."""
        folder, top, *_ = *checkout.roots, *checkout.roots
        room = min(self._codex.steering_bytes, INSTRUCTION_LIMIT - self._payload.said_at_once)
        instruction = steered(self._payload.instruction, top, folder, room)
        earlier = Session.earlier(self._context, self._workspace.path)
        if earlier is None or not checkout.continues(earlier.base):
            return Opening(instruction)
        changed = isinstance(checkout, LocalTree) or checkout.reused
        if isinstance(checkout, Checkout) and not changed:
            changed = self._change(git, checkout, earlier)
        resumed = earlier.restore(self._context, self._codex.home)
        if changed or earlier.patch is None:  # else what those steps have done is lost
            self._plan.skip(earlier.done)
        self._journal.progress(
            "going on where the last attempt was cut off",
            {"thread_id": earlier.thread_id, "resumed": resumed, "changed": changed},
        )
        anew = earlier.retold(instruction, changed=changed)
        if not resumed:
            return Opening(anew)
        return Opening(anew, thread=earlier.thread_id, resumed=earlier.resumed(changed=changed))

    def _change(self, git: Git, checkout: Checkout, earlier: Session) -> bool:
        """Make the changes of the last attempt again; False where there were none, or it cannot."""
        patch = self._workspace.path / "earlier.patch"
        if earlier.patch is None or not self._context.fetch(earlier.patch, patch):
            return False
        try:
            checkout.apply(git, patch)
        except GitFailed as error:
            self._journal.progress(f"the last attempt's patch does not apply: {error}")
            return False
        return True

    def _run_codex(
        self,
        roots: Sequence[Path],
        opening: Opening,
        deadline: float,
        seconds: float,
        silence: float,
    ) -> None:
        """Run Codex to its end; raises the outcome of a run that did not end well."""
        self._journal.stage = "execute"
        talk = Talk(
            self._codex,
            self._workspace,
            roots,
            self._payload.codex,
            self._plan,
            self._transcript,
            self._journal,
            self._context,
            self._job.id,
        )
        self._facts |= talk.facts
        model = self._payload.codex.model or self._codex.model
        with Meter(self._context, self._transcript, self._codex.home, model):
            ended = talk.run(opening, deadline, silence)
        transcript = self._transcript
        self._facts |= {
            "exit_code": ended.returncode,
            "thread_id": transcript.thread_id,
            "usage": transcript.usage,
            **self._plan.facts,
        }
        self._message = transcript.last_message
        if ended.end is End.STOPPED:
            raise Stopped("stopped while codex was running")
        if ended.end is End.TIMEOUT:
            raise Retry(f"the run exceeded {seconds:g} s", source="run")
        if ended.end is End.SILENT:
            raise Retry(f"no event of codex for {silence:g} s", source="run")
        if ended.returncode:
            said = transcript.error or transcript.complaint or "it gave no reason"
            text = f"codex exec exited with {ended.returncode}: {said}"
            raise Retry(text.replace("\N{RIGHT SINGLE QUOTATION MARK}", "'"), source="codex")

    def _keep_session(self, failure: Outcome | None) -> None:
        """Leave what the next attempt can go on from, where another one may come."""
        early = isinstance(failure, Retry | Stopped | Block) and not isinstance(failure, Unfit)
        thread, patch = self._transcript.thread_id, self._facts.get("patch", {})
        if not early or not thread or patch.get("redacted"):
            return
        try:
            session.keep(
                self._workspace.artifacts,
                self._codex.home,
                self._journal,
                self._limit,
                patch=self._workspace.artifacts / PATCH,
                thread_id=thread,
                base=self._base,
                done=self._plan.done,
                error=str(failure),
                said=self._message or "",
            )
        except OSError as error:
            self._journal.log(f"the session cannot be kept: {error}")

    def _compare(self, tree: Checkout | LocalTree, git: Git) -> Changes | None:
        """Make the patch; raises when there is one that cannot be kept."""
        self._journal.stage = "finish"
        artifacts = self._workspace.artifacts
        changes, facts = difference.make(tree, git, self._journal, artifacts, self._limit)
        self._facts |= facts
        return changes

    def _judge(self, changes: Changes) -> Outcome | None:
        """Tell work from none: Codex ends with 0 also when not one command could run."""
        ran, succeeded = self._transcript.ran, self._transcript.succeeded
        self._facts |= {
            "effect": "changes" if changes.files else "commands_failed" if ran > succeeded == 0
            else "no_changes",
            "commands": {"ran": ran, "succeeded": succeeded},
        }  # fmt: skip
        if changes.files or succeeded:
            return None
        broken = self._codex.broken_sandbox(self._codex.find())
        return Unfit(f"the sandbox is broken: {broken}", source="codex") if broken else None

    def _attach(
        self, changes: str, failure: Outcome | None
    ) -> tuple[WorkerExecutionResult, Outcome | None]:
        """Store what there is; what cannot be stored never hides why the run failed."""
        summary = self._summary(changes)
        self._keep_session(failure)
        self._journal.log(f"{type(failure).__name__.lower()}: {failure}" if failure else summary)
        self._journal.close()
        self._write_message()
        attached: list[str] = []
        for name in CONTENT_TYPES:
            path = self._workspace.artifacts / name
            if not path.is_file() or not path.stat().st_size:
                continue
            try:
                store(self._context, name, path)
                attached.append(name)
            except LeaseLost:
                if failure is None:
                    raise
                break
            except Outcome as refusal:
                _log.warning("codex_exec.artifact_lost", error=str(refusal))
                self._facts.setdefault("warnings", []).append(self._journal.shorten(str(refusal)))
                if name == PATCH and failure is None and not self._facts.get("published"):
                    failure = refusal
        error = self._journal.shorten(str(failure), ERROR_LIMIT) if failure else None
        return WorkerExecutionResult(
            status="failed" if failure else "succeeded",
            summary=None if failure else summary,
            error=error,
            artifacts=tuple(attached),
        ), failure

    def _summary(self, changes: str) -> str:
        summary = f"codex_exec completed: {changes}"
        if published := self._facts.get("published"):
            where = published.get("pull_request") or f"branch {published['branch']}"
            summary += f"; published {where}"
        elif "published" in self._facts:
            summary += "; publish skipped: no local changes"
        if self._message and (said := self._journal.shorten(self._message, SUMMARY_LIMIT)):
            summary += f"; {said}"
        return summary

    def _write_message(self) -> None:
        if self._message:
            file = BoundedFile(self._workspace.artifacts / MESSAGE, self._limit)
            file.write(self._journal.redactor.text(self._message).encode(errors="replace"))
            file.close()


def _outcome(error: Exception) -> Outcome:
    """Return what an exception means: what was not foreseen is worth another attempt."""
    if isinstance(error, Outcome):
        return error
    _log.warning("codex_exec.raised", exc_info=error)
    return Retry(f"{type(error).__name__}: {error}")


def _add(failure: Outcome | None, other: Outcome) -> Outcome:
    """Keep the first failure and say the second as well."""
    if failure is None:
        return other
    failure.args = (f"{failure}; {other}",)  # what the first means decides
    return failure
