"""What operators ask of the database: step into jobs' lives, set the rules of the queue."""

from collections.abc import Sequence
from datetime import datetime, timedelta

from moonmind_queue._calls import Call, column, nothing, rows, value
from moonmind_queue._values import storable
from moonmind_queue.model import FailureRule, Fault, JobState, Reclaimed

NO_TIME = timedelta(0)


def _listed(names: Sequence[str] | None) -> list[str] | None:
    return None if names is None else list(names)


def reclaim(limit: int = 100) -> Call[list[Reclaimed]]:
    """Take back jobs whose lease ran out; workers do this on a timer, anybody may."""
    return rows(Reclaimed, "reclaim", limit=limit)


def unlock(job_id: int, *, force: bool = False) -> Call[JobState]:
    """Take a lease away; refused while its worker is alive, unless forced."""
    return value("unlock", JobState, job_id=job_id, force=force)


def classify_failure(source: str, text: str) -> Call[FailureRule | None]:
    """Return the rule that says what a failure means; ``None`` where none does."""
    rules = rows(FailureRule, "classify_failure", source=source, text=storable(text))
    return Call(
        source=rules.source,
        statement=rules.statement,
        values=rules.values,
        row=rules.row,
        read=lambda found: found[0] if found else None,
    )


def set_failure_rule(
    name: str,
    source: str,
    pattern: str,
    outcome: str,
    *,
    place: int = 0,
    rest: timedelta | None = None,
    most: int | None = None,
    pauses: bool = False,
    advice: str = "",
) -> Call[None]:
    """Say what a failure means whose text matches a regular expression; see docs/failures.md.

    ``outcome`` is ``retry``, ``block``, ``fail`` or ``cool_down``, which needs a ``rest``.
    """
    return value(
        "set_failure_rule",
        nothing,
        name=name,
        source=source,
        pattern=pattern,
        outcome=outcome,
        place=place,
        rest=rest,
        most=most,
        pauses=pauses,
        advice=advice,
    )


def drop_failure_rule(name: str) -> Call[bool]:
    """Take a rule away; returns whether there was one."""
    return value("drop_failure_rule", bool, name=name)


def stop_worker(worker_id: int) -> Call[None]:
    """Ask one start of a worker process to hand back its jobs and end; ``JobNotFound`` if gone."""
    return value("stop_worker", nothing, worker_id=worker_id)


def redrive(
    states: Sequence[str] = ("dead_letter", "failed"),
    *,
    agent: str | None = None,
    kind: str | None = None,
    since: datetime | None = None,
    until: datetime | None = None,
    error: str | None = None,
    pace: timedelta = NO_TIME,
    limit: int = 1000,
    above: int = 0,
    first_at: datetime | None = None,
    dry_run: bool = False,
) -> Call[list[int]]:
    """Let all jobs run again that ended like this, and return their ids, at most ``limit``.

    ``since`` and ``until`` bound when they ended; ``error`` is a text that their error holds. The
    first runs at ``first_at`` (``None``: now), each further one ``pace`` later. To go on, ask for
    ids ``above`` the last one. A ``dry_run`` changes nothing.
    """
    return column(
        "redrive",
        states=list(states),
        agent=agent,
        kind=kind,
        since=since,
        until=until,
        error=error,
        pace=pace,
        limit=limit,
        above=above,
        first_at=first_at,
        dry_run=dry_run,
    )


def pause(
    agent: str | None = None, reason: str | None = None, until: datetime | None = None
) -> Call[None]:
    """Let no job of ``agent`` (``None``: of any) be claimed until resumed, or ``until`` then.

    Running jobs go on; lost leases wait too.
    """
    return value("pause", nothing, agent=agent, reason=storable(reason), until=until)


def resume(agent: str | None = None) -> Call[bool]:
    """End the pauses and cooldowns of ``agent``, or the pause of all; returns whether one was."""
    return value("resume", bool, agent=agent)


def set_limit(scope: str, name: str, max_running: int | None) -> Call[None]:
    """Limit how many jobs of an ``agent``, ``kind`` or ``concurrency_key`` are leased at once.

    Name ``*`` serves each name of the scope without a limit of its own; ``None`` lifts it.
    """
    return value("set_limit", nothing, scope=scope, name=name, max_running=max_running)


def set_timeout(kind: str, timeout: timedelta | None) -> Call[None]:
    """Say how long an attempt at a job of ``kind`` may take that does not say so itself."""
    return value("set_timeout", nothing, kind=kind, timeout=timeout)


def set_backoff(
    kind: str,
    base: timedelta | None,
    *,
    cap: timedelta = timedelta(seconds=600),
    jitter: float = 0.25,
) -> Call[None]:
    """Say how long failed jobs of ``kind`` rest: base · 2^(attempt-1), at most cap, ± jitter."""
    return value("set_backoff", nothing, kind=kind, base=base, cap=cap, jitter=jitter)


def set_policy(
    role: str,
    *,
    agents: Sequence[str] | None = None,
    kinds: Sequence[str] | None = None,
    repositories: Sequence[str] | None = None,
    capabilities: Sequence[str] | None = None,
    workers: Sequence[str] | None = None,
    content_types: Sequence[str] | None = None,
    artifact_max_bytes: int | None = None,
) -> Call[None]:
    """Bind a worker's login role to what it may claim, hold and store; ``None`` admits all.

    ``content_types`` of its artifacts are such as ``text/plain`` or ``text/*``.
    """
    return value(
        "set_policy",
        nothing,
        role=role,
        agents=_listed(agents),
        kinds=_listed(kinds),
        repositories=_listed(repositories),
        capabilities=_listed(capabilities),
        workers=_listed(workers),
        content_types=_listed(content_types),
        artifact_max_bytes=artifact_max_bytes,
    )


def set_allowance(
    role: str,
    *,
    agents: Sequence[str] | None = None,
    kinds: Sequence[str] | None = None,
    repositories: Sequence[str] | None = None,
    max_open: int | None = None,
    max_per_day: int | None = None,
    max_depth: int | None = None,
) -> Call[None]:
    """Bind what a login may enqueue; ``None`` admits all, and nothing else lifts the allowance.

    ``max_open`` bounds its unfinished jobs, ``max_per_day`` those of 24 hours, ``max_depth`` how
    many generations of jobs made by jobs there may be.
    """
    return value(
        "set_allowance",
        nothing,
        role=role,
        agents=_listed(agents),
        kinds=_listed(kinds),
        repositories=_listed(repositories),
        max_open=max_open,
        max_per_day=max_per_day,
        max_depth=max_depth,
    )


def drop_policy(role: str) -> Call[bool]:
    """Take a role's policy away, and return whether it had one."""
    return value("drop_policy", bool, role=role)


def repair() -> Call[list[Fault]]:
    """Make rows agree again that somebody wrote by hand; returns what was wrong."""
    return rows(Fault, "repair")


def prune(older_than: timedelta, limit: int = 1000) -> Call[int]:
    """Delete up to ``limit`` final jobs with their history; returns how many."""
    return value("prune", int, older_than=older_than, limit=limit)
