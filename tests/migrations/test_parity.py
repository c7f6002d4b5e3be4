"""The migrations lead exactly to what sql/ describes, however they are run."""

import re
import subprocess
import sys
from pathlib import Path

import psycopg
import pytest

from moonmind_queue import connect, errors, migrate

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "migrations"))

import freeze  # noqa: E402  # it lives beside the revisions

# Every object of the schema as (sort, name, definition): columns and defaults, storage, indexes,
# constraints, domains, functions, views, comments and privileges.
CATALOG = """
with s as (select oid from pg_namespace where nspname = 'moonmind_queue'),
rel as (
    select c.* from pg_class c join s on s.oid = c.relnamespace
    where c.relname not like 'alembic_version%'
)
select 'relation', relname,
       concat_ws(' ', relkind, reloptions, relacl, obj_description(oid, 'pg_class'))
from rel
union all
select 'column', format('%s.%s', r.relname, a.attname),
       concat_ws(' ', format_type(a.atttypid, a.atttypmod), a.attnotnull, a.attstorage,
                 a.attidentity, pg_get_expr(d.adbin, d.adrelid), a.attacl,
                 col_description(r.oid, a.attnum))
from rel r
join pg_attribute a on a.attrelid = r.oid and a.attnum > 0 and not a.attisdropped
left join pg_attrdef d on d.adrelid = r.oid and d.adnum = a.attnum
where r.relkind in ('r', 'p', 'v')
union all
select 'index', relname, pg_get_indexdef(oid) from rel where relkind in ('i', 'I')
union all
select 'view', relname, pg_get_viewdef(oid) from rel where relkind = 'v'
union all
select 'sequence', relname, concat_ws(' ', seqstart, seqincrement, seqmax, seqcache)
from rel join pg_sequence on seqrelid = oid
union all
select 'constraint', k.conname, pg_get_constraintdef(k.oid)
from pg_constraint k join s on s.oid = k.connamespace
where k.conrelid = 0 or k.conrelid in (select oid from rel)
union all
select 'function', p.oid::regprocedure::text,
       concat_ws(' ', md5(pg_get_functiondef(p.oid)), p.proacl, obj_description(p.oid, 'pg_proc'))
from pg_proc p join s on s.oid = p.pronamespace
union all
select 'schema', n.nspname, concat_ws(' ', n.nspacl, obj_description(n.oid, 'pg_namespace'))
from pg_namespace n join s on s.oid = n.oid
union all
select 'backoff', kind, format('%s %s %s', base, cap, jitter) from moonmind_queue.backoff
union all
select 'retention', what, keep::text from moonmind_queue.retention
order by 1, 2
"""


def catalog(dsn: str) -> dict[tuple[str, str], str]:
    """Describe every object of the schema."""
    with psycopg.connect(dsn) as connection:
        return {(sort, name): text for sort, name, text in connection.execute(CATALOG)}


@pytest.fixture
def login(server, create_database):
    """Make databases that belong to a new login role; the role is dropped after."""
    made = []

    def make(rights: str = "") -> str:
        name = f"mq_owner_{len(made)}"
        dsn = create_database()
        database = psycopg.conninfo.conninfo_to_dict(dsn)["dbname"]
        with psycopg.connect(server, autocommit=True) as admin:
            admin.execute(f"create role {name} login password 'x' {rights}")
            admin.execute(f"alter database {database} owner to {name}")
        made.append((name, database))
        return psycopg.conninfo.make_conninfo(dsn, user=name, password="x")

    yield make
    with psycopg.connect(server, autocommit=True) as admin:
        for name, database in made:
            admin.execute(f"drop database {database} with (force)")
            admin.execute(f"drop role {name}")


def test_migrated_equals_described(create_database, migrated):
    """A migrated database and one built straight from sql/ have the same catalog."""
    described = create_database()
    with psycopg.connect(described) as connection:
        connection.execute("set plpgsql.extra_errors = 'all'")
        for text in freeze.current().values():
            connection.execute(text)
        connection.execute("select moonmind_queue.maintain()")

    assert catalog(migrated) == catalog(described)


def test_there_are_months_before_the_first_event(create_database):
    """Whoever migrates, in whatever way: nothing goes to the partition for what has no month."""
    dsn = create_database()
    migrate.upgrade(dsn)
    with connect(dsn) as queue:
        queue.enqueue("k")

        [[where]] = queue.connection.execute(
            "select tableoid::regclass::text from moonmind_queue.event"
        ).fetchall()

    assert re.search(r"event_\d{4}_\d\d$", where)


def test_every_change_in_sql_is_frozen_in_a_revision():
    """The newest frozen copy of each file is the file in sql/."""
    frozen = freeze.frozen()
    tables = freeze.TABLES if len(migrate.revisions()) > 1 else None

    stale = [n for n, text in freeze.current().items() if frozen.get(n) != text and n != tables]

    assert not stale, f'run: make freeze title="…"   # {stale}'


def test_the_printed_script_makes_the_same_schema(create_database, migrated, capsys):
    """migrate --sql gives a DBA what migrate would do."""
    by_hand = create_database()
    migrate.print_sql()

    with psycopg.connect(by_hand) as connection:
        connection.execute(capsys.readouterr().out)

    assert catalog(by_hand) == catalog(migrated)
    assert migrate.current(by_hand) == migrate.head()


def test_a_second_run_changes_nothing(create_database):
    """Migrating is idempotent."""
    dsn = create_database()
    migrate.upgrade(dsn)
    before = catalog(dsn)

    migrate.upgrade(dsn)

    assert catalog(dsn) == before


def test_eight_migrators_at_once(create_database, migrated):
    """Replicas that start together and all migrate leave one clean schema."""
    dsn = create_database()
    code = "import sys; from moonmind_queue import migrate; migrate.upgrade(sys.argv[1])"
    running = [subprocess.Popen([sys.executable, "-c", code, dsn]) for _ in range(8)]

    assert [process.wait(timeout=60) for process in running] == [0] * 8
    assert catalog(dsn) == catalog(migrated)


def test_revisions_are_one_chain():
    """Each revision follows the one before: no branches, no gaps."""
    from alembic.script import ScriptDirectory

    scripts = ScriptDirectory.from_config(migrate._config("")).walk_revisions()

    assert [(s.revision, s.down_revision) for s in scripts] == list(
        zip(
            reversed(migrate.revisions()),
            [*reversed(migrate.revisions()[:-1]), None],
            strict=True,
        )
    )


def test_a_missing_schema_is_said_in_words(create_database):
    """A database without the queue names the command to run."""
    with pytest.raises(errors.SchemaMismatch, match="no queue yet; run: moonmind-queue migrate"):
        migrate.require_schema(create_database())


def test_an_unknown_revision_is_left_alone(create_database):
    """A newer schema is refused by require_schema and by upgrade, and not touched."""
    dsn = create_database()
    migrate.upgrade(dsn)
    with psycopg.connect(dsn) as connection:
        connection.execute("update moonmind_queue.alembic_version set version_num = '9999'")

    for refuse in (migrate.require_schema, migrate.upgrade):
        with pytest.raises(errors.SchemaMismatch, match="at schema revision 9999, this package"):
            refuse(dsn)
    assert migrate.current(dsn) == "9999"


def test_a_database_owner_may_migrate(login, migrated):
    """No superuser is needed: an owner of the database who may create roles, or finds them."""
    dsn = login("createrole")

    migrate.upgrade(dsn)

    assert {key for key, _ in catalog(dsn).items()} == {key for key, _ in catalog(migrated).items()}


def test_a_role_without_rights_is_told_what_is_missing(server, login, create_database):
    """A migrator that may not create the schema gets NotAllowed with the way out."""
    outsider = psycopg.conninfo.conninfo_to_dict(login())
    elsewhere = psycopg.conninfo.conninfo_to_dict(create_database())["dbname"]
    dsn = psycopg.conninfo.make_conninfo(**{**outsider, "dbname": elsewhere})

    with pytest.raises(errors.NotAllowed, match="migrating needs a role that may create a schema"):
        migrate.upgrade(dsn)
