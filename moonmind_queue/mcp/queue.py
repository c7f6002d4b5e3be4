"""The tools of the queue: add, claim, finish and look at jobs.

Results are what the rest of the project prints as JSON: a job as ``Job.to_json`` has it, without
payload and result where the agent knows them or did not ask for them.
"""

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import fields
from datetime import timedelta
from enum import StrEnum
from typing import Any

from moonmind_queue import errors, executors
from moonmind_queue.mcp import queue_arguments as asking
from moonmind_queue.mcp.artifacts import decoded
from moonmind_queue.mcp.leases import Lend, held, take_back
from moonmind_queue.mcp.tools import Tool, UnknownTool
from moonmind_queue.model import Artifact, ClaimedJob, Event, plain
from moonmind_queue.queue import Queue


class ErrorCode(StrEnum):
    """Why a call was refused."""

    INVALID_TOOL_ARGUMENTS = "invalid_tool_arguments"
    INVALID_QUEUE_PAYLOAD = "invalid_queue_payload"
    TOOL_NOT_FOUND = "tool_not_found"
    JOB_NOT_FOUND = "job_not_found"
    JOB_OWNERSHIP_MISMATCH = "job_ownership_mismatch"
    JOB_STATE_CONFLICT = "job_state_conflict"
    JOB_NOT_AUTHORIZED = "job_not_authorized"
    ARTIFACT_TOO_LARGE = "artifact_too_large"
    QUEUE_UNAVAILABLE = "queue_unavailable"
    QUEUE_INTERNAL_ERROR = "queue_internal_error"


_CODES: tuple[tuple[tuple[type[Exception], ...], ErrorCode], ...] = (
    ((UnknownTool,), ErrorCode.TOOL_NOT_FOUND),
    ((errors.InvalidPayload, errors.UnknownKind), ErrorCode.INVALID_QUEUE_PAYLOAD),
    ((errors.JobNotFound,), ErrorCode.JOB_NOT_FOUND),
    ((errors.LeaseLost,), ErrorCode.JOB_OWNERSHIP_MISMATCH),
    ((errors.WrongState,), ErrorCode.JOB_STATE_CONFLICT),
    ((errors.NotAllowed,), ErrorCode.JOB_NOT_AUTHORIZED),
    ((errors.ArtifactTooLarge,), ErrorCode.ARTIFACT_TOO_LARGE),
    ((errors.DatabaseUnavailable, errors.SchemaMismatch), ErrorCode.QUEUE_UNAVAILABLE),
    ((errors.InvalidArgument, ValueError), ErrorCode.INVALID_TOOL_ARGUMENTS),
)


def error_code(error: Exception) -> ErrorCode:
    """Return the code of an error; what nobody has foreseen is a ``queue_internal_error``."""
    for kinds, code in _CODES:
        if isinstance(error, kinds):
            return code
    return ErrorCode.QUEUE_INTERNAL_ERROR


class Jobs:
    """Jobs, over a connection of its own for each call.

    A job is held for ``lease`` when nobody says how long; an artifact has at most ``limit`` bytes.
    ``made_by`` is the job that the agent works on, where that is known: it is where those come
    from that the agent adds, and allowances count generations by it.
    """

    def __init__(
        self, lend: Lend, *, lease: timedelta, limit: int, made_by: int | None = None
    ) -> None:
        self._lend, self._lease, self._limit, self._made_by = lend, lease, limit, made_by

    def tools(self) -> list[Tool]:
        """Return the ten tools, in the order of a job's life."""
        return [
            Tool("queue.enqueue", asking.Enqueue, self.enqueue),
            Tool("queue.claim", asking.Claim, self.claim),
            Tool("queue.heartbeat", asking.Heartbeat, self.heartbeat, again=True),
            Tool("queue.complete", asking.Complete, self.complete),
            Tool("queue.fail", asking.Fail, self.fail),
            Tool("queue.get", asking.Get, self.get, reads=True),
            Tool("queue.list", asking.List, self.list_jobs, reads=True),
            Tool("queue.events", asking.Events, self.events, reads=True),
            Tool("queue.cancel", asking.Cancel, self.cancel, again=True, destroys=True),
            Tool("queue.upload_artifact", asking.UploadArtifact, self.upload_artifact, again=True),
        ]

    def enqueue(self, asked: asking.Enqueue) -> dict[str, Any]:
        """Add a job."""
        executors.find(asked.kind)  # a misspelt kind would wait for ever
        given = asked.model_dump(
            exclude={"kind", "payload", "timeout_seconds", "on_success", "on_failure"}
        )
        with self._lend() as queue:
            job = queue.enqueue(
                asked.kind,
                asked.payload,
                timeout=_span(asked.timeout_seconds),
                on_success=_listed(asked.on_success),
                on_failure=_listed(asked.on_failure),
                made_by=self._made_by,
                **given,
            )
            return queue.get(job).summary()

    def claim(self, asked: asking.Claim) -> dict[str, Any]:
        """Lease a job and begin it."""
        with self._lend() as queue:
            take_back(queue)
            claimed = queue.claim(
                asked.worker,
                agents=asked.agents or None,
                kinds=asked.kinds or None,
                capabilities=asked.capabilities,
                lease=self._length(asked.lease_seconds),
                start=True,
            )
            return {"job": queue.get(claimed[0].id).to_json() if claimed else None}

    def heartbeat(self, asked: asking.Heartbeat) -> dict[str, Any]:
        """Hold a job for longer."""
        with self._holding(asked.job_id, asked.worker) as (queue, job):
            if not queue.renew([job], self._length(asked.lease_seconds)):
                raise errors.LeaseLost
            return queue.get(job.id).summary()

    def complete(self, asked: asking.Complete) -> dict[str, Any]:
        """End a job well."""
        with self._holding(asked.job_id, asked.worker) as (queue, job):
            queue.complete(job, asked.result)
            return queue.get(job.id).summary()

    def fail(self, asked: asking.Fail) -> dict[str, Any]:
        """End an attempt badly."""
        rest = _span(asked.retry_in_seconds)
        with self._holding(asked.job_id, asked.worker) as (queue, job):
            queue.fail(job, asked.error, outcome=asked.outcome, retry_in=rest)
            return queue.get(job.id).summary()

    def get(self, asked: asking.Get) -> dict[str, Any]:
        """Return a job, whole."""
        with self._lend() as queue:
            return queue.get(asked.job_id).to_json()

    def list_jobs(self, asked: asking.List) -> dict[str, Any]:
        """Return jobs without payload and result."""
        with self._lend() as queue:
            jobs = queue.list_jobs(
                [state.value for state in asked.states],
                agent=asked.agent,
                kind=asked.kind,
                before=asked.before,
                limit=asked.limit,
            )
        return {"jobs": [job.to_json() for job in jobs]}

    def events(self, asked: asking.Events) -> dict[str, Any]:
        """Return a piece of a job's history."""
        with self._lend() as queue:
            found = queue.history(asked.job_id, after=asked.after, limit=asked.limit)
        return {"events": [_members(event) for event in found]}

    def cancel(self, asked: asking.Cancel) -> dict[str, Any]:
        """Cancel a job."""
        with self._lend() as queue:
            queue.cancel(asked.job_id, asked.reason)
            return queue.get(asked.job_id).summary()

    def upload_artifact(self, asked: asking.UploadArtifact) -> dict[str, Any]:
        """Store a file with a job that is held."""
        content = decoded(asked.content_base64, self._limit)
        digest = f"sha256:{hashlib.sha256(content).hexdigest()}"
        if asked.digest is not None and asked.digest.lower() != digest:
            raise errors.InvalidArgument(
                f"{asked.name}: its digest is {digest}, not {asked.digest}: nothing is stored"
            )
        with self._holding(asked.job_id, asked.worker) as (queue, job):
            queue.put_artifact(job, asked.name, content, asked.content_type)
            stored = queue.artifacts(job.id)  # the newest come first
        return next(
            _members(each)
            for each in stored
            if (each.attempt, each.name) == (job.attempt, asked.name)
        )

    def _length(self, seconds: int | None) -> timedelta:
        return self._lease if seconds is None else timedelta(seconds=seconds)

    @contextmanager
    def _holding(self, job_id: int, worker: str) -> Iterator[tuple[Queue, ClaimedJob]]:
        """Lend a job that the worker holds; raises ``JobNotFound`` and ``LeaseLost``."""
        with self._lend() as queue:
            queue.get(job_id)
            with held(queue, job_id, worker, f"job {job_id}") as mine:
                yield queue, mine


def _listed(jobs: Sequence[asking.FollowUp]) -> list[dict[str, Any]]:
    """Return follow-ups as ``enqueue_many`` takes them; raises ``UnknownKind``."""
    listed = []
    for job in jobs:
        executors.find(job.kind)
        said = job.model_dump(exclude_unset=True, exclude={"timeout_seconds"})
        if job.timeout_seconds is not None:
            said["timeout"] = f"{job.timeout_seconds} seconds"
        said |= {"on_success": _listed(job.on_success), "on_failure": _listed(job.on_failure)}
        listed.append(said)
    return listed


def _span(seconds: float | None) -> timedelta | None:
    return None if seconds is None else timedelta(seconds=seconds)


def _members(record: Event | Artifact) -> dict[str, Any]:
    return {field.name: plain(getattr(record, field.name)) for field in fields(record)}
