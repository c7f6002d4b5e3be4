"""Package and database disagree: it is said in words, with what to do."""

import psycopg
import pytest
from psycopg.sql import SQL, Identifier

from moonmind_queue import DatabaseUnavailable, SchemaMismatch, connect, migrate
from moonmind_queue.errors import DatabaseError, SettingsError


def at(dsn, revision):
    """Pretend that a database was left at a revision."""
    with psycopg.connect(dsn) as connection:
        connection.execute("update moonmind_queue.alembic_version set version_num = %s", [revision])


def test_a_migrated_database_is_accepted(fresh):
    """require_schema says nothing when all is well."""
    migrate.require_schema(fresh)

    assert migrate.current(fresh) == migrate.head()


def test_an_older_database_asks_to_be_migrated(fresh, monkeypatch):
    """A package that knows a later revision says what to run."""
    at(fresh, "0001")
    monkeypatch.setattr(migrate, "revisions", lambda: ["0001", "0002"])

    with pytest.raises(SchemaMismatch, match="needs 0002; run: moonmind-queue migrate"):
        migrate.require_schema(fresh)


@pytest.mark.parametrize("call", ["get", "cancel", "reclaim"])
def test_a_call_on_an_empty_database_says_what_to_run(create_database, call):
    """A missing schema, view or function is a SchemaMismatch."""
    with (
        connect(create_database()) as queue,
        pytest.raises(SchemaMismatch, match="run: moonmind-queue migrate"),
    ):
        getattr(queue, call)(1)


def test_a_server_that_is_not_there(server):
    """Nothing listens: DatabaseUnavailable, and the password is not repeated."""
    dsn = psycopg.conninfo.make_conninfo(
        server, host="127.0.0.1", port=1, password="s3cret-word", connect_timeout=2
    )

    with pytest.raises(DatabaseUnavailable) as caught:
        migrate.current(dsn)

    assert "s3cret-word" not in str(caught.value)


def test_a_dsn_that_cannot_be_read():
    """It is the setting that is wrong; its text, which holds a password, is not repeated."""
    with pytest.raises(SettingsError) as caught:
        migrate.current("host=h password=s3cret-word nonsense")

    assert "s3cret-word" not in str(caught.value)


@pytest.mark.parametrize("role", ["moonmind_producer", "moonmind_worker", "moonmind_reader"])
def test_every_role_can_see_the_revision(fresh, role):
    """A worker compares revisions before it does anything, without more rights."""
    with psycopg.connect(fresh) as connection:
        connection.execute(f"set role {role}")

        [revision] = connection.execute(
            "select version_num from moonmind_queue.alembic_version"
        ).fetchone()

    assert revision == migrate.head()


def test_a_failed_migration_leaves_nothing(create_database):
    """All revisions run in one transaction."""
    dsn = create_database()
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute("create schema moonmind_queue")
        connection.execute("create table moonmind_queue.worker (in_the_way text)")

    with pytest.raises(DatabaseError, match="already exists"):
        migrate.upgrade(dsn)

    with psycopg.connect(dsn) as connection:
        tables = connection.execute(
            "select tablename from pg_tables where schemaname = 'moonmind_queue'"
        ).fetchall()
    assert tables == [("worker",)]


def test_a_database_is_migrated_whatever_its_name(server):
    """Nothing of the DSN is pasted into SQL or a URL."""
    name = Identifier('it"s 100% ours')
    with psycopg.connect(server, autocommit=True) as admin:
        admin.execute(SQL("create database {}").format(name))
        try:
            dsn = psycopg.conninfo.make_conninfo(server, dbname='it"s 100% ours')
            migrate.upgrade(dsn)
            assert migrate.current(dsn) == migrate.head()
        finally:
            admin.execute(SQL("drop database {} with (force)").format(name))
