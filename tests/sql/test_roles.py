"""Least privilege: each role calls its functions and reads the views, and that is all."""

import re
from pathlib import Path

import psycopg
import pytest
from psycopg import errors

from moonmind_queue import NotAllowed

ROOT = Path(__file__).parents[2]
GRANTS = (ROOT / "sql" / "grants.sql").read_text()
ROLES = ["moonmind_producer", "moonmind_worker", "moonmind_operator", "moonmind_reader"]
VIEWS = {
    "job_overview", "job_history", "job_log", "job_artifact", "artifact_content",
    "paused_agent", "limit_overview", "unserved_lane", "queue_fault",
    "job_document",
    "worker_overview", "queue_status", "blocked_job", "schedule_overview",
    "queued_job", "kind_rule", "role_overview", "retention_overview",
    "agentmux_task", "agentmux_event", "agentmux_dag", "agentmux_member",
    "job_publication", "failure_overview", "job_follow_up", "job_origin", "allowance_overview",
    "job_message", "job_outcome", "job_usage", "usage_overview", "usage_by_repository",
    "usage_by_model", "usage_by_agent", "usage_by_day", "price_overview", "budget_overview",
}  # fmt: skip


def granted(role):
    """The functions that grants.sql gives to a role."""
    names = set()
    for what, roles in re.findall(r"grant execute on function(.*?)\bto\b(.*?);", GRANTS, re.S):
        if role in roles:
            names |= set(re.findall(r"moonmind_queue\.(\w+)\(", what))
    return names


def member(connection, role):
    """Become a login user of its own that is a member of one role."""
    user = f"{role}_user"
    connection.execute(f"create role {user} login")
    connection.execute(f"grant {role} to {user}")
    connection.execute(f"set session authorization {user}")


@pytest.fixture(params=ROLES)
def role(request, db):
    """A session of a member of each role in turn."""
    member(db, request.param)
    return request.param


def test_a_member_may_call_what_is_granted_and_no_more(role, db):
    """has_function_privilege agrees with grants.sql, for every function there is."""
    callable_ = db.execute(
        "select proname, has_function_privilege(oid, 'execute') from pg_proc"
        " where pronamespace = 'moonmind_queue'::regnamespace"
    ).fetchall()

    assert {name for name, may in callable_ if may} == granted(role)


def test_public_may_do_nothing(db):
    """No function, table, view or sequence is open to everybody, nor the schema."""
    acls = db.execute(
        """
        select proname from pg_proc, aclexplode(coalesce(proacl, acldefault('f', proowner)))
        where pronamespace = 'moonmind_queue'::regnamespace and grantee = 0
        union all
        select relname from pg_class, aclexplode(relacl)
        where relnamespace = 'moonmind_queue'::regnamespace and grantee = 0
        union all
        select nspname from pg_namespace, aclexplode(nspacl)
        where nspname = 'moonmind_queue' and grantee = 0"""
    ).fetchall()

    assert acls == []


def test_a_stranger_is_kept_out(db):
    """A user without any of the roles cannot even look into the schema."""
    db.execute("create role stranger login")
    db.execute("set session authorization stranger")

    with pytest.raises(errors.InsufficientPrivilege), db.transaction():
        db.execute("select * from moonmind_queue.job_overview")
    with pytest.raises(errors.InsufficientPrivilege):
        db.execute("select moonmind_queue.enqueue('k')")


@pytest.mark.parametrize("privilege", ["insert", "update", "delete", "truncate", "select"])
def test_no_role_touches_a_table(role, db, privilege):
    """Neither reading nor writing is granted on any table; only the schema revision is shown."""
    open_ = db.execute(
        "select relname from pg_class"
        " where relnamespace = 'moonmind_queue'::regnamespace and relkind in ('r', 'p')"
        " and has_table_privilege(oid, %s)",
        [privilege],
    ).fetchall()

    assert open_ == ([("alembic_version",)] if privilege == "select" else [])


def test_no_role_touches_a_sequence(role, db):
    """Tokens and ids are only drawn by the functions."""
    open_ = db.execute(
        "select relname from pg_class where relnamespace = 'moonmind_queue'::regnamespace"
        " and case when relkind = 'S' then has_sequence_privilege(oid, 'usage, select, update') end"
    ).fetchall()

    assert open_ == []


def test_every_role_reads_the_views_and_writes_none(role, db):
    """The documented way to look works; a view that PostgreSQL could update is not one to write."""
    rows = db.execute(
        "select relname, has_table_privilege(oid, 'select'),"
        " has_table_privilege(oid, 'insert, update, delete')"
        " from pg_class where relnamespace = 'moonmind_queue'::regnamespace and relkind = 'v'"
    ).fetchall()

    assert {name for name, reads, _ in rows if reads} == VIEWS
    assert [name for name, _, writes in rows if writes] == []
    for view in VIEWS:
        db.execute(f"select * from moonmind_queue.{view}")


@pytest.mark.parametrize("statement", ["update moonmind_queue.event set message = ''",
                                       "delete from moonmind_queue.event"])  # fmt: skip
def test_history_cannot_be_rewritten(role, db, statement):
    """Events are immutable for everybody but the owner."""
    with pytest.raises(errors.InsufficientPrivilege):
        db.execute(statement)


def test_no_role_makes_anything_in_the_schema(role, db):
    """Nobody can put a function of his own beside ours."""
    [may] = db.execute("select has_schema_privilege('moonmind_queue', 'create')").fetchone()

    assert may is False


def test_the_roles_own_nothing_and_cannot_log_in(db):
    """They are there to be granted."""
    rows = db.execute(
        "select rolname, rolcanlogin, rolsuper or rolcreaterole or rolcreatedb or rolbypassrls,"
        " (select count(*) from pg_shdepend where refobjid = pg_roles.oid and deptype = 'o')"
        " from pg_roles where rolname = any(%s)",
        [ROLES],
    ).fetchall()

    assert sorted(rows) == [(role, False, False, 0) for role in sorted(ROLES)]


def test_a_job_goes_its_way_through_the_hands_of_the_roles(db, queue):
    """Producer, worker, operator and reader each can do their part; events name the users."""
    member(db, "moonmind_producer")
    job = queue.enqueue("k")
    db.execute("reset session authorization")
    member(db, "moonmind_worker")
    [held] = queue.claim("w", start=True)
    queue.put_artifact(held, "a.txt", b"abc")
    queue.fail(held, "?", outcome="block")
    db.execute("reset session authorization")
    member(db, "moonmind_operator")
    queue.retry(job)
    queue.cancel(job)
    db.execute("reset session authorization")
    member(db, "moonmind_reader")

    events = {event.type: event.worker for event in queue.history(job)}

    assert events["created"] == "moonmind_producer_user"
    assert events["blocked"] == "w"
    assert events["retried"] == "moonmind_operator_user"
    assert queue.get(job).state == "cancelled"
    assert b"".join(queue.read_artifact(queue.artifacts(job)[0])) == b"abc"


def test_what_is_not_granted_is_not_allowed_in_words(db, queue):
    """The client says NotAllowed."""
    member(db, "moonmind_reader")

    with pytest.raises(NotAllowed):
        queue.enqueue("k")


@pytest.mark.parametrize("schema", ["pg_temp", "public"])
def test_a_caller_cannot_slip_objects_of_his_own_under_a_function(db, queue, schema):
    """Tables, functions and operators of the same names on the caller's path are not reached."""
    if schema == "public":
        db.execute("grant create on schema public to public")
    member(db, "moonmind_producer")
    for table in ("job", "ready", "lane", "event", "dependency"):
        db.execute(f"create table {schema}.{table} (trap text)")
    for function in ("_now()", "_offer(bigint[])", "_lane(text, text, text[])", "now()"):
        db.execute(
            f"create function {schema}.{function} returns void language plpgsql as"
            " $$ begin raise exception 'trapped as %', current_user; end $$"
        )
    db.execute(
        f"create function {schema}.trap(text, text) returns boolean language plpgsql as"
        " $$ begin raise exception 'trapped as %', current_user; end $$"
    )
    db.execute(
        f"create operator {schema}.= (leftarg = text, rightarg = text, function = {schema}.trap)"
    )
    db.execute(f"set search_path = {schema}, moonmind_queue, pg_catalog")

    job = queue.enqueue("k", key="a")
    again = queue.enqueue("k", key="a")

    assert job == again
    db.execute("reset session authorization; set search_path = pg_catalog")
    assert queue.get(job).state == "queued"


def test_every_function_pins_its_path(db):
    """In the catalog, and not only in the file."""
    loose = db.execute(
        "select proname from pg_proc where pronamespace = 'moonmind_queue'::regnamespace"
        " and 'search_path=moonmind_queue, pg_temp' = any (coalesce(proconfig, '{}')) is not true"
    ).fetchall()

    assert sorted(loose) == [
        ("_is_met",),
        ("_rank",),
        ("_rest_after",),
        ("_task_event",),
        ("_task_state",),
    ]  # they name nothing, so that the planner can inline them


def test_only_what_is_public_runs_with_the_rights_of_its_owner(db):
    """security definer is on every function without a leading underscore, and on no other."""
    definers = db.execute(
        "select proname from pg_proc where pronamespace = 'moonmind_queue'::regnamespace"
        " and prosecdef <> (proname not like '\\_%') and proname <> '_now'"
    ).fetchall()

    assert definers == []


# --- who may migrate ---------------------------------------------------------------------------


def test_an_owner_who_may_make_roles_makes_them(create_database, migrated):
    """On a server that has never seen the queue, createrole is enough."""
    frozen = (ROOT / "migrations" / "versions" / "0001_initial.sql").read_text()
    with psycopg.connect(create_database()) as connection:
        for role in ROLES:  # hidden until the rollback
            connection.execute(f"alter role {role} rename to {role}_hidden")
        connection.execute("create role maker createrole")
        connection.execute(f"grant create on database {connection.info.dbname} to maker")
        connection.execute("set session authorization maker")

        connection.execute(frozen)

        made = connection.execute(
            "select rolname from pg_roles where rolname = any(%s)", [ROLES]
        ).fetchall()
        assert sorted(made) == [(role,) for role in sorted(ROLES)]
        connection.rollback()
