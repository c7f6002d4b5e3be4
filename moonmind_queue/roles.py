"""Login roles for the people and machines that use a queue, each with the least that it needs.

The four roles ``moonmind_…`` are there to be granted; what logs in is a role of its own, so that
it can be bound to a policy and taken away without touching anybody else. The server never sees
the password: it gets the verifier that it would have made of it.
"""

import secrets
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, LiteralString
from urllib.parse import quote, urlencode

import psycopg
from psycopg.sql import SQL, Composable, Identifier, Literal

from moonmind_queue import errors
from moonmind_queue._values import storable
from moonmind_queue.queue import Queue

KINDS = ("producer", "worker", "operator", "reader")
MARK = "moonmind-queue"  # the comment on roles that are ours to drop; role_overview reads it
NAME_BYTES = 63


@dataclass(frozen=True, slots=True, kw_only=True)
class NewRole:
    """A role that was made; ``database_url`` holds its password, which is nowhere else."""

    role: str
    kind: str
    database_url: str

    def __repr__(self) -> str:
        return f"NewRole(role={self.role!r}, kind={self.kind!r}, database_url='***')"


@dataclass(frozen=True, slots=True, kw_only=True)
class RevokedRole:
    """What became of a role: gone, or why it is still there."""

    role: str
    dropped: bool
    kept_because: str | None
    connections: int  # that could not be ended; every call of theirs is refused


def create_role(
    connection: psycopg.Connection[Any],
    kind: str,
    name: str,
    *,
    agents: Sequence[str] | None = None,
    kinds: Sequence[str] | None = None,
    repositories: Sequence[str] | None = None,
    capabilities: Sequence[str] | None = None,
    workers: Sequence[str] | None = None,
    content_types: Sequence[str] | None = None,
    artifact_max_bytes: int | None = None,
) -> NewRole:
    """Make a login role with a password of its own, all or nothing.

    The lists and the size are a worker's policy, as in ``set_policy``. Raises
    ``InvalidArgument`` for a name that is taken and ``NotAllowed`` when the caller may not make
    roles.
    """
    if kind not in KINDS:
        raise errors.InvalidArgument(f"a role is one of {', '.join(KINDS)}, not {kind}")
    if not name or storable(name) != name or len(name.encode()) > NAME_BYTES:
        raise errors.InvalidArgument(
            f"a role's name is text of 1 to {NAME_BYTES} bytes, not {name[:100]!r}"
        )
    password = secrets.token_urlsafe(32)
    verifier = connection.pgconn.encrypt_password(
        password.encode(), name.encode(), b"scram-sha-256"
    ).decode()
    role, group = Identifier(name), Identifier(f"moonmind_{kind}")
    with _administering(connection, name):
        Queue(connection).select("select moonmind_queue._now()")  # the schema is here
        if _exists(connection, name):
            raise errors.InvalidArgument(f"there is a role {name} already; choose another name")
        _run(connection, "create role {} login password {}", role, Literal(verifier))
        _run(connection, "grant {} to {}", group, role)
        _run(connection, "comment on role {} is {}", role, Literal(MARK))
        if kind == "worker":
            Queue(connection).set_policy(
                name,
                agents=agents,
                kinds=kinds,
                repositories=repositories,
                capabilities=capabilities,
                workers=workers,
                content_types=content_types,
                artifact_max_bytes=artifact_max_bytes,
            )
    return NewRole(role=name, kind=kind, database_url=_url(connection, name, password))


def revoke_role(connection: psycopg.Connection[Any], name: str) -> RevokedRole:
    """Take all rights on the queue away from a role, end its connections and drop it.

    From then on every call of it is refused. Leases that it holds run out by themselves. A role
    that ``create_role`` did not make keeps its login: it may serve something else too. One that
    owns something cannot be dropped and may no longer log in.
    """
    [known] = Queue(connection).select(
        "select coalesce(max(case when made_here then 2 else 1 end), 0) as made"
        " from moonmind_queue.role_overview where role = %(name)s",
        name=name,
    )
    if not known["made"]:
        raise errors.InvalidArgument(
            f"{name} is no role of this queue; see moonmind-queue role list"
        )
    if name == connection.info.user:
        raise errors.InvalidArgument(f"{name} is who you are; revoke it as somebody else")
    ours = known["made"] == 2
    with _administering(connection, name):
        if ours:
            _run(connection, "alter role {} nologin", Identifier(name))
        _leave_groups(connection, name)
        Queue(connection).drop_policy(name)
        Queue(connection).set_allowance(name)  # or another one of that name would have it
    if not ours and _exists(connection, name):
        other = "moonmind-queue role create did not make it; only its rights here are gone"
        return RevokedRole(role=name, dropped=False, kept_because=other, connections=0)
    left = _end_connections(connection, name)
    why = _drop(connection, name)
    return RevokedRole(role=name, dropped=why is None, kept_because=why, connections=left)


@contextmanager
def _administering(connection: psycopg.Connection[Any], name: str) -> Iterator[None]:
    """Open a transaction; say of what PostgreSQL refuses which right was missing."""
    try:
        with connection.transaction():
            yield
    except (psycopg.Error, errors.NotAllowed) as error:
        fault = errors.from_postgres(error) if isinstance(error, psycopg.Error) else error
        if isinstance(fault, errors.NotAllowed):
            raise errors.NotAllowed(
                f"{connection.info.user} may not administer role {name} ({fault}): that needs"
                " CREATEROLE, from PostgreSQL 16 on also ADMIN OPTION on the moonmind_ roles, and"
                " membership in moonmind_operator"
            ) from error
        raise fault from error


def _run(
    connection: psycopg.Connection[Any], statement: LiteralString, *parts: Composable
) -> list[Any]:
    cursor = connection.execute(SQL(statement).format(*parts))
    return cursor.fetchall() if cursor.description else []


def _exists(connection: psycopg.Connection[Any], name: str) -> bool:
    found = "select 1 from pg_catalog.pg_roles where rolname = {}"
    return bool(_run(connection, found, Literal(name)))


def _leave_groups(connection: psycopg.Connection[Any], name: str) -> None:
    """Revoke what was granted to the role itself, whoever granted it; what is left is an error."""
    granted = _run(
        connection,
        "select roleid::regrole::name, grantor::regrole::name from pg_catalog.pg_auth_members"
        " where member = (select oid from pg_catalog.pg_roles where rolname = {})"
        " and roleid in (select oid from pg_catalog.pg_roles where rolname = any ({}))",
        Literal(name),
        Literal([f"moonmind_{kind}" for kind in KINDS]),
    )
    for group, grantor in granted:
        what = (Identifier(group), Identifier(name))
        if connection.info.server_version >= 160000:  # before, one grant hides the others
            _run(connection, "revoke {} from {} granted by {}", *what, Identifier(grantor))
        else:
            _run(connection, "revoke {} from {}", *what)
    for (kinds,) in _run(
        connection,
        "select kinds from moonmind_queue.role_overview where role = {} and kinds <> '{{}}'",
        Literal(name),
    ):
        raise errors.WrongState(
            f"{name} would still be {', '.join(kinds)} through a group that it is in;"
            " take it out of that first"
        )


def _end_connections(connection: psycopg.Connection[Any], name: str) -> int:
    """End what the role has open on this server, and return how much of it the caller may not."""
    left = 0
    backends = "select pid from pg_catalog.pg_stat_activity where usename = {}"
    for (pid,) in _run(connection, backends, Literal(name)):
        try:
            _run(connection, "select pg_catalog.pg_terminate_backend({})", Literal(pid))
        except psycopg.errors.InsufficientPrivilege:
            left += 1
    return left


def _drop(connection: psycopg.Connection[Any], name: str) -> str | None:
    try:
        _run(connection, "drop role if exists {}", Identifier(name))
    except psycopg.errors.DependentObjectsStillExist as error:
        detail = (error.diag.message_detail or "").partition("\n")[0]
        return f"it owns something or has other rights ({detail}); it can no longer log in"
    except psycopg.Error as error:
        raise errors.from_postgres(error) from error
    return None


def _url(connection: psycopg.Connection[Any], user: str, password: str) -> str:
    """Return the URL of the database that we are connected to, for somebody else."""
    info = connection.info
    asked = {k: v for k, v in info.get_parameters().items() if k == "sslmode"}
    if info.host.startswith("/"):  # a directory of sockets has no place before the path
        place, asked = "", {"host": info.host, "port": str(info.port), **asked}
    else:
        place = f"[{info.host}]" if ":" in info.host else info.host
        place = f"{place}:{info.port}"
    options = f"?{urlencode(asked)}" if asked else ""
    database = quote(info.dbname, safe="")
    return f"postgresql://{quote(user, safe='')}:{password}@{place}/{database}{options}"
