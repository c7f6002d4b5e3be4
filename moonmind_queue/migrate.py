"""Bring a database to the schema this package was built with, and say when it is another.

The revisions are the files of the top-level ``migrations/`` folder. A wheel carries them as
``moonmind_queue/migrations``; a checkout, also an editable install, reads them where they are.
"""

from pathlib import Path
from typing import TYPE_CHECKING

import psycopg

from moonmind_queue._connection import open_connection
from moonmind_queue.errors import NotAllowed, SchemaMismatch, from_postgres

if TYPE_CHECKING:
    from alembic.config import Config

# Anchored to __file__, not to site-packages: an editable install leaves a copy of the folder
# there that goes stale, and this never sees it.
_PACKAGED = Path(__file__).parent / "migrations"
_CHECKOUT = Path(__file__).parent.parent / "migrations"


def upgrade(dsn: str, revision: str = "head") -> None:
    """Apply every missing revision in one transaction; safe to run from many processes at once.

    Raises ``DatabaseUnavailable``, ``NotAllowed`` when the role may not create the schema or
    the four ``moonmind_…`` roles, or ``SchemaMismatch`` when the database is newer.
    """
    from alembic import command
    from sqlalchemy.exc import DBAPIError

    _refuse_newer(dsn)
    try:
        command.upgrade(_config(dsn), revision)
    except psycopg.Error as error:
        raise from_postgres(error) from error
    except DBAPIError as error:
        if not isinstance(error.orig, psycopg.Error):
            raise
        fault = from_postgres(error.orig)
        if isinstance(fault, NotAllowed):
            raise NotAllowed(
                f"{fault}; migrating needs a role that may create a schema and roles, or a"
                " database where an administrator has made the roles of sql/grants.sql"
            ) from error
        raise fault from error


def print_sql(revision: str = "head") -> None:
    """Print the script that ``upgrade`` would run on an empty database."""
    from alembic import command

    command.upgrade(_config(""), revision, sql=True)


def revisions() -> list[str]:
    """Return the revisions that this package knows, oldest first."""
    return sorted(path.name.split("_")[0] for path in (_folder() / "versions").glob("????_*.py"))


def head() -> str:
    """Return the newest revision that this package knows."""
    return revisions()[-1]


def current(dsn: str) -> str | None:
    """Return the revision of the database, or ``None`` when it has no queue."""
    try:
        with open_connection(dsn, application_name="moonmind-queue migrate") as connection:
            return _current(connection)
    except psycopg.Error as error:
        raise from_postgres(error) from error


def require_schema(dsn: str) -> None:
    """Raise ``SchemaMismatch`` in words unless the database is one this package can work on."""
    found = current(dsn)
    if found is None:
        raise SchemaMismatch("the database has no queue yet; run: moonmind-queue migrate")
    if found not in revisions():
        raise SchemaMismatch(
            f"the database is at schema revision {found}, this package knows only up to"
            f" {head()}; install a newer moonmind-queue here"
        )
    if found != head():
        raise SchemaMismatch(
            f"the database is at schema revision {found}, this package needs {head()};"
            " run: moonmind-queue migrate"
        )


def run_frozen_sql(revision_file: str) -> None:
    """Execute the ``.sql`` file beside a revision exactly as written.

    ``no_parameters`` keeps the driver from reading ``%`` in ``raise`` as a placeholder.
    """
    from alembic import op

    text = Path(revision_file).with_suffix(".sql").read_text(encoding="utf-8")
    context = op.get_context()
    if context.as_sql:
        context.impl.static_output(text)
    else:
        op.get_bind().exec_driver_sql(text, execution_options={"no_parameters": True})


def _current(connection: psycopg.Connection) -> str | None:
    found = connection.execute(
        "select to_regclass('moonmind_queue.alembic_version') is not null"
    ).fetchone()
    if not found or not found[0]:
        return None
    row = connection.execute("select version_num from moonmind_queue.alembic_version").fetchone()
    return row[0] if row else None


def _refuse_newer(dsn: str) -> None:
    found = current(dsn)
    if found is not None and found not in revisions():
        raise SchemaMismatch(
            f"the database is at schema revision {found}, this package knows only up to"
            f" {head()}; migrations only go forward: install a newer moonmind-queue"
        )


def _folder() -> Path:
    return _PACKAGED if _PACKAGED.is_dir() else _CHECKOUT


def _config(dsn: str) -> "Config":
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(_folder()).replace("%", "%%"))
    config.attributes["dsn"] = dsn
    return config
