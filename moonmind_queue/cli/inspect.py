"""Commands that look at jobs, workers and the whole queue."""

import json
from typing import TYPE_CHECKING

import click

from moonmind_queue.cli.output import (
    STATE_STYLES,
    console,
    json_option,
    opened,
    print_json,
    print_table,
    shown,
)

if TYPE_CHECKING:
    from moonmind_queue.queue import Queue

SHOWN_FIELDS = (
    *("agent", "kind", "key", "priority", "capabilities", "after", "blocked_reason"),
    *("repository", "concurrency_key", "on_dependency_failure", "timeout", "expires_at"),
    *("worker", "lease_expires_at", "deadline_at"),
    *("run_at", "created_at", "started_at", "finished_at"),
)
UNSAID = {"on_dependency_failure": "wait"}  # true of nearly every job
# What the status page of a shell has: name, heading, query, columns of its table.
SECTIONS = (
    (
        "paused",
        "paused",
        "select agent, cause, reason, until, paused_at, paused_by"
        " from moonmind_queue.paused_agent order by agent, cause",
        ("agent", "cause", "until", "reason", "paused_by"),
    ),
    (
        "limits",
        "limits",
        "select scope, name, running, max_running from moonmind_queue.limit_overview"
        " order by scope, name",
        ("scope", "name", "running", "max_running"),
    ),
    (
        "unserved",
        "due, and no live worker can run them",
        "select agent, kind, capabilities, repository, jobs, oldest_job_id, reason"
        " from moonmind_queue.unserved_lane order by oldest_job_id limit 20",
        ("jobs", "oldest_job_id", "reason"),
    ),
    (
        "overdue",
        "lease has run out; the next look for lost leases takes them back",
        "select id, worker, attempt, lease_expires_at from moonmind_queue.job_overview"
        " where lease_expires_at < moonmind_queue._now() order by lease_expires_at limit 20",
        ("id", "worker", "attempt", "lease_expires_at"),
    ),
    (
        "blocked",
        "waiting or blocked",
        "select id, name, state, reason from moonmind_queue.blocked_job order by id limit 20",
        ("id", "name", "state", "reason"),
    ),
    (
        "faults",
        "rows that contradict each other (moonmind-queue repair mends them)",
        "select job_id as job, fault from moonmind_queue.queue_fault order by job_id limit 20",
        ("job", "fault"),
    ),
)


@click.command()
@click.option("--state", multiple=True, help="Only jobs in this state; may be repeated.")
@click.option("--agent", help="Only jobs of this agent.")
@click.option("--kind", help="Only jobs of this kind.")
@click.option("--limit", type=click.IntRange(1, 1000), default=50, show_default=True)
@click.option("--before", type=int, metavar="ID", help="Continue below this id.")
@click.option("--count", is_flag=True, help="Print only how many there are.")
@json_option
def ls(
    state: tuple[str, ...],
    agent: str | None,
    kind: str | None,
    limit: int,
    before: int | None,
    count: bool,
    as_json: bool,
) -> None:
    """List jobs, newest first.

    \b
    Examples:
      moonmind-queue ls --state running --state queued
      moonmind-queue ls --agent codex --json
    """
    from moonmind_queue.model import JobState

    for word in state:
        if word not in list(JobState):
            raise click.UsageError(f"--state {word!r} is none of {', '.join(JobState)}")
    with opened() as queue:
        if count:
            number = queue.count_jobs(state, agent=agent, kind=kind)
            print_json({"count": number}) if as_json else click.echo(number)
            return
        jobs = queue.list_jobs(state, agent=agent, kind=kind, before=before, limit=limit)
        full = len(jobs) == limit and not as_json
        total = queue.count_jobs(state, agent=agent, kind=kind) if full else 0
    if as_json:
        print_json([job.to_json() for job in jobs])
        return
    rows = [{name: getattr(job, name) for name in job.__slots__} for job in jobs]
    for row in rows:
        row["created"] = row["created_at"]
        row["attempt"] = f"{row['attempt']}/{row['max_attempts']}"
        row["error"] = (row["error"] or "").partition("\n")[0][:60]
    columns = ("id", "state", "agent", "kind", "name", "attempt", "worker", "created", "error")
    print_table(rows, *columns, empty="no such jobs")
    if total > len(rows):
        click.echo(f"{len(rows)} of {total:,}; older ones: --before {rows[-1]['id']}")


@click.command()
@click.argument("job", type=int)
@json_option
def show(job: int, as_json: bool) -> None:
    """Show one job: what was asked for, how it stands, and why.

    \b
    Example:
      moonmind-queue show 7
    """
    with opened() as queue:
        whole = queue.get(job)
        if as_json:
            print_json(whole.to_json())
            return
        row = {name: getattr(whole, name) for name in whole.__slots__}
        row["blocked_reason"] = next(
            (
                each["reason"]
                for each in queue.select(
                    "select reason from moonmind_queue.blocked_job where id = %(id)s union all"
                    " select reason from moonmind_queue.queued_job where id = %(id)s",
                    id=job,
                )
            ),
            None,
        )
        files = queue.artifacts(job)
        relatives = _relatives(queue, job)
    from rich.text import Text

    out = console()
    title = f"job {job}" + (f" · {row['name']}" if row["name"] else "")
    out.print(Text.assemble((title, "bold"), "  ", (row["state"], STATE_STYLES[row["state"]])))
    for field in SHOWN_FIELDS:
        if row[field] not in (None, [], "") and UNSAID.get(field) != row[field]:
            out.print(Text(f"{field.replace('_', ' '):>21}  {shown(row[field])}"))
    out.print(Text(f"{'attempt':>21}  {row['attempt']} of {row['max_attempts']}"))
    if row["error"]:
        out.print(Text.assemble(f"{'error':>21}  ", (row["error"], "red")))
    for field in ("payload", "result"):
        for number, (name, value) in enumerate((row[field] or {}).items()):
            plain = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
            out.print(Text(f"{field if number == 0 else '':>21}  {name}: {plain}"))
    for name, words in relatives:
        out.print(Text(f"{name:>21}  {words}"))
    if files:
        out.print(Text(f"{'artifacts':>21}  " + ", ".join(each.name for each in files)))


def _relatives(queue: "Queue", job: int) -> list[tuple[str, str]]:
    """Return where a job came from, what it lists to follow it, and what else came from it."""
    origin = queue.select(
        "select 'origin' as name, in_words as words from moonmind_queue.job_origin"
        " where job_id = %(job)s",
        job=job,
    )
    listed = queue.select(
        """
        select 'on ' || event as name, concat_ws(
                   ' ', listed.job ->> 'kind', listed.job ->> 'name',
                   coalesce('is job ' || made_job_id, '(not yet)'), made.state) as words
        from moonmind_queue.job_follow_up as listed
        left join moonmind_queue.job_overview as made on made.id = made_job_id
        where job_id = %(job)s
        order by event desc, number
        """,
        job=job,
    )
    others = queue.select(
        """
        select how, string_agg(job_id::text, ', ' order by job_id) as jobs
        from (
            select how, job_id from moonmind_queue.job_origin
            where from_job_id = %(job)s and how in ('job', 'replay')
            order by job_id limit 50
        ) as latest
        group by how
        order by how
        """,
        job=job,
    )
    told = [(row["name"], row["words"]) for row in origin + listed]
    return told + [("replays" if row["how"] == "replay" else "made", row["jobs"]) for row in others]


@click.command()
@click.option("--all", "everybody", is_flag=True, help="Stopped ones too.")
@json_option
def workers(everybody: bool, as_json: bool) -> None:
    """List worker processes: live, stale (unseen for two minutes) or stopped."""
    with opened() as queue:
        rows = queue.select(
            """
            select worker, status, host, pid, version, versions, role, agents, kinds,
                   capabilities, slots, leases, started_at, seen_at
            from moonmind_queue.worker_overview
            where %(everybody)s or status <> 'stopped'
            order by status, worker, started_at desc
            """,
            everybody=everybody,
        )
    if as_json:
        print_json(rows)
        return
    for row in rows:
        row["busy"], row["seen"] = f"{row['leases']}/{row['slots']}", row["seen_at"]
        row["agents"] = row["agents"] or "all"
    columns = ("worker", "status", "host", "pid", "agents", "kinds", "busy", "seen")
    print_table(rows, *columns, empty="no workers")


@click.command()
@json_option
def status(as_json: bool) -> None:
    """Show the whole queue: jobs, workers, pauses, limits, and who waits for what.

    \b
    Example:
      moonmind-queue status
    """
    with opened() as queue:
        counts = queue.select(
            "select agent, state, jobs, longest_wait from moonmind_queue.queue_status"
            " order by agent, state"
        )
        alive = queue.select(
            "select status, count(*) as workers from moonmind_queue.worker_overview"
            " where status <> 'stopped' group by status order by status"
        )
        rows = {name: queue.select(query) for name, _, query, _ in SECTIONS}
    if as_json:
        print_json({"jobs": counts, "workers": alive, **rows})
        return
    print_table(counts, "agent", "state", "jobs", "longest_wait", empty="no jobs")
    click.echo("workers: " + (", ".join(f"{w['workers']} {w['status']}" for w in alive) or "none"))
    for name, heading, _, columns in SECTIONS:
        if rows[name]:
            click.echo(f"\n{heading}:")
            print_table(rows[name], *columns, empty="")
