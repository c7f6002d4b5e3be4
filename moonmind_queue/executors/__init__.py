"""What a job does. An executor is found by its kind and sees neither SQL nor the queue.

A kind is one entry point in the group ``moonmind_queue.executors`` that names a class with the
four methods of :class:`Executor`; nothing else has to be touched to add one. All that an
executor may do to its job is in the :class:`Context` it is lent, so it can be tested with a job
made by hand. It returns the result, a JSON object, or raises:

====================  ================================================================
:class:`Retry`        try again later, with back-off or ``after`` a given time
:class:`Block`        park the job until a person acts
:class:`Unfit`        as :class:`Block`; this machine cannot do such work, so the worker ends
:class:`Fail`         no retry can mend this
:class:`Postpone`     what it needs is in use: hand the job back, and run it ``after`` a while
:class:`CoolDown`     the account is used up: hand the job back, its agent rests a while
:class:`Stopped`      ``context.stop`` was set and the work has ended; nothing to report
anything else         as :class:`Retry`
====================  ================================================================
"""

import threading
from collections.abc import Mapping, Sequence
from datetime import timedelta
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, Self

from moonmind_queue.errors import UnknownKind
from moonmind_queue.model import ClaimedJob, Step, Tokens

if TYPE_CHECKING:
    from moonmind_queue.settings import Settings

GROUP = "moonmind_queue.executors"


class Context(Protocol):
    """What a worker lends an executor for one attempt."""

    @property
    def stop(self) -> threading.Event:
        """Set when the attempt must end: cancelled, lease lost, or the worker is stopping."""

    def progress(
        self, message: str, data: Mapping[str, Any] | None = None, *, level: str = "info"
    ) -> None:
        """Add a ``progress`` event to the job's history; a failure to do so is only logged."""

    def log(self, text: str, *, stream: str = "stdout", stage: str = "") -> None:
        """Add lines that the work printed to the live log, for whoever reads along.

        Take secrets out before. Sent in pieces, some a second; what must be kept is an artifact.
        ``stream`` is ``stdout`` or ``stderr``, ``stage`` what the attempt is at, in words of
        yours.
        """

    def enqueue(self, kind: str, payload: Mapping[str, Any] | None = None, **options: Any) -> None:
        """Add a job in the transaction in which this one succeeds, and only then.

        ``options`` are those of ``Queue.enqueue_many``; ``after`` may name this job's id and keys
        of other jobs added here. The worker's role needs the right to enqueue.
        """

    def count_usage(
        self, thread: str, model: str | None, used: Tokens, *, done: bool = False
    ) -> None:
        """Say what a conversation with a model has used since it began, in whatever attempt.

        As often as you like: the same again counts nothing. Where a budget is used up ``stop`` is
        set, and a ``Stopped`` then blocks the job or hands it back, unless it is ``done``: then
        nothing is left to be ended. A failure to tell is only logged.
        """

    def steps(self) -> Sequence[Step]:
        """Return what earlier attempts began or did outside of the database, oldest first.

        What was before a person retried the job is not there: it is to begin anew.
        """

    def pushed(self) -> Sequence[str]:
        """Return every commit that this job has ever pushed, or was about to."""

    def begin_step(
        self, step: str, content: str = "", data: Mapping[str, Any] | None = None
    ) -> Step:
        """Write that an effect outside of the database comes next; say whether it has happened.

        ``content`` tells what it makes: the same again is the same step, with the data of its
        first beginning. Raises ``LeaseLost``: ask immediately before the effect.
        """

    def end_step(self, step: str, content: str = "", data: Mapping[str, Any] | None = None) -> None:
        """Write that it has happened; ``data`` is added to that of the beginning."""

    def fetch(self, sha256: str, target: Path) -> bool:
        """Write an artifact of this job, from whatever attempt, to a file; False: there is none."""

    def hear(self, *, everything: bool = False) -> Sequence[str]:
        """Take what people have said to the agent since the last time, in order.

        With ``everything`` also what earlier attempts have heard: for an agent that knows nothing.
        """

    def latest(self, name: str, target: Path) -> bool:
        """Write the newest artifact of a name to a file; False: there is none.

        It is an earlier attempt's, if this one has none yet. What was before a person retried the
        job is not there.
        """

    def attach(
        self, name: str, source: Path | bytes, content_type: str = "application/octet-stream"
    ) -> None:
        """Store a file or bytes as an artifact of this attempt.

        A file is streamed; it must be a regular file, a link is refused. Raises
        ``LeaseLost``, ``InvalidArgument`` (name), ``ArtifactTooLarge`` or a database error.
        """


class Runner(Protocol):
    """What a worker needs of a kind of work once it is set up."""

    def validate(self, payload: Mapping[str, Any], /) -> dict[str, Any]:
        """Return the payload as the run takes it, or raise ``InvalidPayload``."""

    def run(self, job: ClaimedJob, context: Context, /) -> Mapping[str, Any]:
        """Do the work of one attempt and return the job's result."""


class Executor(Protocol):
    """One kind of work."""

    @classmethod
    def validate(cls, payload: Mapping[str, Any]) -> dict[str, Any]:
        """Return the payload as it is to be stored, or raise ``InvalidPayload``.

        Producers call it before they enqueue; the worker calls it again before it runs.
        """

    @classmethod
    def configure(cls, settings: "Settings") -> Self:
        """Make the executor of one worker process."""

    def check(self) -> None:
        """Raise when this machine cannot run the kind; called once, before any claim."""

    def run(self, job: ClaimedJob, context: Context) -> Mapping[str, Any]:
        """Do the work of one attempt and return the job's result."""


class Outcome(Exception):
    """How an attempt ended, when not by returning; the text is kept as the job's error.

    ``source`` is what said the text, such as ``codex``: what the rules for failures make of that
    goes before (docs/failures.md).
    """

    def __init__(self, reason: str, *, source: str | None = None) -> None:
        super().__init__(reason)
        self.source = source


class Retry(Outcome):
    """The attempt failed; another may succeed ``after`` a while (default: back-off)."""

    def __init__(
        self, reason: str, *, after: timedelta | None = None, source: str | None = None
    ) -> None:
        super().__init__(reason, source=source)
        self.after = after


class Block(Outcome):
    """A person has to act before the job can go on."""


class Unfit(Block):
    """This machine cannot do such work: the job is blocked, and the worker ends with the reason."""


class Fail(Outcome):
    """No retry can mend this."""


class Postpone(Outcome):
    """What the job needs is in use: it is handed back, and not claimed before ``after`` has passed.

    The attempt does not count, so it may wait as long as it has to.
    """

    def __init__(self, reason: str, *, after: timedelta) -> None:
        super().__init__(reason)
        self.after = after


class CoolDown(Outcome):
    """The account behind the job's agent is used up: all its workers rest for ``lasting``.

    The job is handed back and the attempt does not count.
    """

    def __init__(self, reason: str, *, lasting: timedelta) -> None:
        super().__init__(reason)
        self.lasting = lasting


class Stopped(Outcome):
    """The work ended because ``context.stop`` was set."""


@cache
def find(kind: str) -> type[Executor]:
    """Return the executor class of a kind; raises ``UnknownKind`` with the kinds there are."""
    entry = _installed().get(kind)
    if entry is None:
        raise UnknownKind(f"unknown kind {kind!r}; installed: {', '.join(kinds())}")
    executor: type[Executor] = entry.load()
    return executor


def checked(kind: str, payload: Mapping[str, Any]) -> Mapping[str, Any]:
    """Validate a payload by the executor of its kind, where that is installed here."""
    return find(kind).validate(payload) if kind in _installed() else payload


def kinds() -> list[str]:
    """Return every installed kind, sorted."""
    return sorted(_installed())


@cache  # looking through all installed packages takes milliseconds
def _installed() -> Mapping[str, EntryPoint]:
    return {entry.name: entry for entry in entry_points(group=GROUP)}
