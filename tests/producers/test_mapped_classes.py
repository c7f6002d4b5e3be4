"""The mapped classes: the views as SQLAlchemy sees them, true to the catalog, and read only."""

import re
from dataclasses import fields

import psycopg
import pytest
from sqlalchemy import select
from sqlalchemy.dialects import postgresql
from sqlalchemy.orm import Session

from moonmind_queue import NotAllowed, connect
from moonmind_queue.model import Job
from moonmind_queue.orm import JobArtifact, JobHistory, JobOverview, View

CLASSES = sorted((mapper.class_ for mapper in View.registry.mappers), key=lambda c: c.__name__)


def test_there_is_a_class_for_each_view_and_it_is_named_after_it(look):
    """A view that is new has its class, in the spelling of classes."""
    views = look(
        "select relname from pg_class"
        " where relnamespace = 'moonmind_queue'::regnamespace and relkind = 'v' order by 1"
    )

    snake = {re.sub(r"(?<!^)(?=[A-Z])", "_", c.__name__).lower(): c for c in CLASSES}
    assert sorted(snake) == views
    assert {name: each.__tablename__ for name, each in snake.items()} == {v: v for v in views}


@pytest.mark.parametrize("view", CLASSES, ids=lambda c: c.__name__)
def test_a_class_has_the_columns_and_the_types_of_its_view(view, look):
    """A column that is added to the view, or changed, is missed here; the order is the view's."""
    catalog = look(
        "select attname, format_type(coalesce(nullif(typbasetype, 0), atttypid), atttypmod)"
        " from pg_attribute join pg_type on pg_type.oid = atttypid"  # a domain reads as its type
        " where attrelid = %s::regclass and attnum > 0 order by attnum",
        f"moonmind_queue.{view.__tablename__}",
    )

    dialect = postgresql.dialect()
    mapped = [(c.name, c.type.compile(dialect).lower()) for c in view.__table__.columns]
    assert mapped == catalog


@pytest.mark.parametrize("view", CLASSES, ids=lambda c: c.__name__)
def test_a_column_is_optional_exactly_when_it_may_be_null(view, lived):
    """In a queue where everything has happened, the nulls are where the class says None."""
    columns = view.__table__.columns
    nulls = ", ".join(f"bool_or({column.name} is null)" for column in columns)
    with psycopg.connect(lived) as connection:
        count, *seen = connection.execute(
            f"select count(*), {nulls} from moonmind_queue.{view.__tablename__}"
        ).fetchone()

    assert count > 0
    assert dict(zip(columns.keys(), seen, strict=True)) == {c.name: c.nullable for c in columns}


@pytest.mark.parametrize("view", CLASSES, ids=lambda c: c.__name__)
def test_every_row_has_an_identity_of_its_own(view, engine, lived, look):
    """The primary key that the mapping claims is one: a session gives each row once."""
    with Session(engine) as session:
        rows = session.scalars(select(view)).all()

    [count] = look(f"select count(*) from moonmind_queue.{view.__tablename__}")
    assert len({id(row) for row in rows}) == count


def test_a_row_holds_what_queue_gives(engine, lived):
    """The same job, read with the ORM and with Queue, field by field."""
    with Session(engine) as session, connect(lived) as queue:
        jobs = session.scalars(select(JobOverview).order_by(JobOverview.id)).all()

        assert len(jobs) > 5
        for job in jobs:
            same = queue.get(job.id)
            for field in fields(Job):
                assert getattr(job, field.name) == getattr(same, field.name)


def _added(session):
    session.add(JobHistory(job_id=1, seq=999, type="forged"))


def _changed(session):
    session.scalars(select(JobArtifact)).first().name = "forged"


def _deleted(session):
    session.delete(session.scalars(select(JobOverview)).first())


@pytest.mark.parametrize("write", [_added, _changed, _deleted])
def test_a_flush_that_would_write_is_refused(write, engine, lived, look):
    """In words, before any SQL, even for a superuser and a view that PostgreSQL could update."""
    before = look("select count(*), max(name) from moonmind_queue.job_artifact")
    with Session(engine) as session:
        write(session)
        with pytest.raises(NotAllowed, match=r"a row of the view job_\w+, which is only read"):
            session.flush()
        session.rollback()

        assert session.scalars(select(JobOverview)).first()

    assert look("select count(*), max(name) from moonmind_queue.job_artifact") == before
    assert look("select 1 from moonmind_queue.job_history where type = 'forged'") == []


def test_the_applications_own_metadata_does_not_know_the_queue():
    """Alembic's autogenerate of an application proposes nothing for the queue's views."""
    from .conftest import Base

    assert not [table for table in Base.metadata.tables if table.startswith("moonmind_queue")]
    assert Base.registry is not View.registry
