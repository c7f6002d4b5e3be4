"""Commands that give out logins, each with the least that it needs, and take them back."""

from typing import TYPE_CHECKING, Any

import click

from moonmind_queue.cli.output import json_option, opened, print_json, print_table, size

if TYPE_CHECKING:
    from moonmind_queue.roles import RevokedRole

ALLOWED = (
    "agents",
    "job_kinds",
    "repositories",
    "capabilities",
    "workers",
    "content_types",
)


def names(text: str) -> list[str]:
    """Read a list with commas."""
    found = [each.strip() for each in text.split(",") if each.strip()]
    if not found:
        raise click.BadParameter("the list is empty; leave the option out to admit all")
    return found


@click.group()
def role() -> None:
    """Give out logins that may do no more than they must, and take them back."""


@role.group()
def create() -> None:
    """Make a login with a password, shown once in a ready DATABASE_URL."""


@create.command("worker")
@click.argument("name")
@click.option("--agents", type=names, metavar="A,B", help="Only jobs of these agents.")
@click.option("--kinds", type=names, metavar="A,B", help="Only jobs of these kinds.")
@click.option(
    "--repositories", type=names, metavar="A,B", help="Only these: owner/repo, owner/*, host/path."
)
@click.option(
    "--capabilities", type=names, metavar="A,B", help="Only jobs that require none but these."
)
@click.option("--worker-id", type=names, metavar="A,B", help="Work under these ids only.")
@click.option(
    "--content-types", type=names, metavar="A,B", help="Only such artifacts: text/plain, text/*."
)
@click.option(
    "--artifact-max-bytes", type=click.IntRange(min=0), help="No artifact above this size."
)
@json_option
def create_worker(
    name: str,
    agents: list[str] | None,
    kinds: list[str] | None,
    repositories: list[str] | None,
    capabilities: list[str] | None,
    worker_id: list[str] | None,
    content_types: list[str] | None,
    artifact_max_bytes: int | None,
    as_json: bool,
) -> None:
    """Make a login for workers; the database holds it to what the options admit.

    An option that you leave out admits all. Standard output is the environment of the worker;
    the password in it is not stored anywhere.

    \b
    Examples:
      moonmind-queue role create worker ci --agents codex --repositories 'acme/*' > worker.env
      moonmind-queue role create worker gpu --capabilities gpu,docker --worker-id gpu-1
    """
    _create(
        "worker",
        name,
        as_json=as_json,
        agents=agents,
        kinds=kinds,
        repositories=repositories,
        capabilities=capabilities,
        workers=worker_id,
        content_types=content_types,
        artifact_max_bytes=artifact_max_bytes,
    )


@create.command("producer")
@click.argument("name")
@json_option
def create_producer(name: str, as_json: bool) -> None:
    """Make a login that adds jobs and looks.

    \b
    Example:
      moonmind-queue role create producer website
    """
    _create("producer", name, as_json=as_json)


@create.command("operator")
@click.argument("name")
@json_option
def create_operator(name: str, as_json: bool) -> None:
    """Make a login that steps into jobs' lives and sets the rules.

    It makes no logins: that takes a role with CREATEROLE.

    \b
    Example:
      moonmind-queue role create operator alice
    """
    _create("operator", name, as_json=as_json)


@create.command("reader")
@click.argument("name")
@json_option
def create_reader(name: str, as_json: bool) -> None:
    """Make a login that only looks.

    \b
    Example:
      moonmind-queue role create reader dashboard
    """
    _create("reader", name, as_json=as_json)


@role.command("allow", no_args_is_help=True)
@click.argument("name")
@click.option("--agents", type=names, metavar="A,B", help="Only jobs of these agents.")
@click.option("--kinds", type=names, metavar="A,B", help="Only jobs of these kinds.")
@click.option(
    "--repositories", type=names, metavar="A,B", help="Only these: owner/repo, owner/*, host/path."
)
@click.option("--max-open", type=click.IntRange(min=0), help="So many unfinished jobs at once.")
@click.option("--max-per-day", type=click.IntRange(min=0), help="So many jobs within 24 hours.")
@click.option("--max-depth", type=click.IntRange(min=0), help="Generations of jobs made by jobs.")
@click.option("--everything", is_flag=True, help="Lift all of it.")
@json_option
def allow(name: str, everything: bool, as_json: bool, **allowance: Any) -> None:
    """Say what the login NAME may enqueue, as for the MCP server of an agent. Again: change it.

    What you leave out admits all. Jobs that follow others count from when these are added.

    \b
    Examples:
      moonmind-queue role allow agents --kinds codex_exec --max-open 20 --max-per-day 200
      moonmind-queue role allow agents --everything
    """
    if everything == any(value is not None for value in allowance.values()):
        raise click.UsageError("Give what NAME may enqueue, or --everything, and not both.")
    with opened() as queue:
        queue.set_allowance(name, **allowance)
    if as_json:
        print_json({"role": name, **allowance})
        return
    told = (
        "everything" if everything else _allowance({**allowance, "job_kinds": allowance["kinds"]})
    )
    click.echo(f"role {name} may enqueue {told}")


@role.command("list")
@json_option
def list_roles(as_json: bool) -> None:
    """List who may use the queue: what for, within which policy, how many connections now.

    Superusers may do everything and are not listed.

    \b
    Example:
      moonmind-queue role list
    """
    with opened() as queue:
        rows = queue.select(
            """
            select role, kinds, can_log_in, has_policy, agents, job_kinds, repositories,
                   capabilities, workers, content_types, artifact_max_bytes, connections
            from moonmind_queue.role_overview
            order by role
            """
        )
        allowances = {
            each["role"]: each
            for each in queue.select(
                """
                select role, agents, job_kinds, repositories, max_open, open, max_per_day,
                       within_a_day, max_depth
                from moonmind_queue.allowance_overview
                """
            )
        }
    for row in rows:
        row["allowance"] = allowances.get(row["role"])
    if as_json:
        print_json(rows)
        return
    for row in rows:
        row["may be"] = row["kinds"] or "nothing"
        row["login"] = "yes" if row["can_log_in"] else "no"
        row["policy"] = _policy(row)
        row["may enqueue"] = _allowance(row["allowance"]) if row["allowance"] else ""
    columns = ["role", "may be", "login", "connections", "policy"]
    columns += ["may enqueue"] if allowances else []
    print_table(rows, *columns, empty="no roles")


@role.command("revoke")
@click.argument("name")
@json_option
def revoke(name: str, as_json: bool) -> None:
    """Take a login back: its connections end, its calls are refused, its role is dropped.

    Jobs that it holds come back when their leases run out.

    \b
    Example:
      moonmind-queue role revoke ci
    """
    from moonmind_queue.roles import revoke_role

    with opened() as queue:
        done = revoke_role(queue.connection, name)
    if as_json:
        print_json({field: getattr(done, field) for field in done.__slots__})
        return
    click.echo(_told(done))


def _create(kind: str, name: str, *, as_json: bool, **policy: Any) -> None:
    from moonmind_queue.roles import create_role

    with opened() as queue:
        made = create_role(queue.connection, kind, name, **policy)
    environment = {"DATABASE_URL": made.database_url}
    workers = policy.get("workers") or []
    if len(workers) == 1:  # its own choice, the hostname, would be refused
        environment["MOONMIND_WORKER_ID"] = workers[0]
    if as_json:
        print_json({"role": name, "kind": kind, "environment": environment})
        return
    click.echo(f"role {name} is a {kind} now; its password is shown this once", err=True)
    for variable, value in environment.items():
        click.echo(f"{variable}={value}")


def _policy(row: dict[str, Any]) -> str:
    lists = [
        f"{name.removeprefix('job_').replace('_', ' ')} {', '.join(row[name]) or 'none'}"
        for name in ALLOWED
        if row[name] is not None
    ]
    if row["artifact_max_bytes"] is not None:
        lists.append(f"artifacts up to {size(row['artifact_max_bytes'])}")
    return "; ".join(lists) or ("all" if row["has_policy"] or "worker" in row["kinds"] else "")


def _allowance(row: dict[str, Any]) -> str:
    """Return an allowance in words, with how much of it is used where that is known."""
    bounds = (
        ("max_open", "open", "open at once"),
        ("max_per_day", "within_a_day", "a day"),
        ("max_depth", "", "generations"),
    )
    parts = [
        f"{name.removeprefix('job_')} {', '.join(row[name]) or 'none'}"
        for name in ("agents", "job_kinds", "repositories")
        if row[name] is not None
    ]
    for limit, used, words in bounds:
        if row[limit] is not None:
            parts.append(f"{row[used]} of {row[limit]} {words}" if used in row
                         else f"{row[limit]} {words}")  # fmt: skip
    return "; ".join(parts)


def _told(done: "RevokedRole") -> str:
    told = f"role {done.role} is revoked" + (" and gone" if done.dropped else "")
    if done.kept_because:
        told += f"; it is still there: {done.kept_because}"
    if done.connections:
        told += (
            f"; {done.connections} of its connections are not yours to end: they are refused"
            " whatever they ask"
        )
    return told
