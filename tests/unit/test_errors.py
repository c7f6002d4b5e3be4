"""Errors of the database become one tree, told apart by SQLSTATE."""

import psycopg
import pytest

from moonmind_queue import errors


@pytest.mark.parametrize(
    ("sqlstate", "expected"),
    [
        ("MQ001", errors.LeaseLost),
        ("MQ002", errors.JobNotFound),
        ("MQ003", errors.WrongState),
        ("MQ004", errors.NotAllowed),
        ("MQ005", errors.ScheduleNotFound),
        ("22023", errors.InvalidArgument),
        ("23505", errors.InvalidArgument),
        ("23514", errors.InvalidArgument),
        ("42501", errors.NotAllowed),
        ("42P01", errors.SchemaMismatch),
        ("3F000", errors.SchemaMismatch),
        ("42883", errors.SchemaMismatch),
        ("57P01", errors.DatabaseUnavailable),
        ("25006", errors.DatabaseUnavailable),
        ("40P01", errors.DatabaseUnavailable),
        ("40001", errors.DatabaseUnavailable),
        ("54000", errors.DatabaseError),
    ],
)
def test_the_sqlstate_decides_the_type(db, sqlstate, expected):
    """Whatever PostgreSQL raises has one type here, with its primary message."""
    with pytest.raises(psycopg.Error) as caught:
        db.execute(f"do $$ begin raise exception 'what it is' using errcode = '{sqlstate}'; end $$")

    translated = errors.from_postgres(caught.value)

    assert type(translated) is expected
    assert str(translated).startswith("what it is")


def test_a_broken_connection_is_unavailable(fresh):
    """A session that the server ended says: try again later."""
    with psycopg.connect(fresh, autocommit=True) as connection:
        with psycopg.connect(fresh, autocommit=True) as killer:
            killer.execute("select pg_terminate_backend(%s)", [connection.info.backend_pid])
        with pytest.raises(psycopg.Error) as caught:
            connection.execute("select 1")

    assert type(errors.from_postgres(caught.value)) is errors.DatabaseUnavailable


def test_values_never_stand_in_a_message(db):
    """A refused row's values, which may be anything, are not repeated."""
    with pytest.raises(psycopg.Error) as caught:
        db.execute("""select moonmind_queue.enqueue(' ', '{"token": "hunter2secret"}')""")

    assert "hunter2secret" not in str(errors.from_postgres(caught.value))
