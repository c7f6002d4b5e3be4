"""Alembic's entry point: one connection, one lock, one transaction."""

import psycopg
from alembic import context
from sqlalchemy import NullPool, create_engine, text

SCHEMA = "moonmind_queue"
# Every role compares the revision with what its package knows before it does anything.
SHOW_REVISION = (
    f"grant select on {SCHEMA}.alembic_version"
    " to moonmind_producer, moonmind_worker, moonmind_operator, moonmind_reader"
)
# Before the first event: a month of which there are rows elsewhere already is made no more.
MAKE_MONTHS = f"select {SCHEMA}._make_months('event') + {SCHEMA}._make_months('log_chunk')"
dsn = context.config.attributes["dsn"]

if context.is_offline_mode():
    context.configure(dialect_name="postgresql", version_table_schema=SCHEMA)
    with context.begin_transaction():
        context.execute(f"create schema if not exists {SCHEMA}")
        context.run_migrations()
        context.execute(SHOW_REVISION)
        context.execute(MAKE_MONTHS)
else:
    engine = create_engine(
        "postgresql+psycopg://",
        # Nothing prepared: behind a transaction pooler it would stay for the next client.
        creator=lambda: psycopg.connect(dsn, prepare_threshold=None),
        poolclass=NullPool,
    )
    with engine.begin() as connection:
        # Replicas that start together queue up here; the later ones find nothing left to do.
        connection.execute(text("select pg_advisory_xact_lock(hashtext(:name))"), {"name": SCHEMA})
        connection.execute(text(f"create schema if not exists {SCHEMA}"))
        context.configure(connection=connection, version_table_schema=SCHEMA)
        context.run_migrations()
        connection.execute(text(SHOW_REVISION))
        connection.execute(text(MAKE_MONTHS))
