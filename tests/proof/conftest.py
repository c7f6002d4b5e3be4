"""Databases for thousands of cases: with a back-off that can be foreseen, and sessions on them."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack

import psycopg
import pytest

GUARD = "-c statement_timeout=20s -c plpgsql.extra_errors=all -c jit=off"


@pytest.fixture(scope="module")
def make_queue(create_database, template) -> Callable[[], str]:
    """Make a queue whose back-off has no jitter; returns its DSN."""

    def make() -> str:
        dsn = create_database(template)
        with psycopg.connect(dsn) as connection:
            connection.execute("update moonmind_queue.backoff set jitter = 0")
        return dsn

    return make


@pytest.fixture(scope="module")
def proving(make_queue) -> str:
    """The DSN of a queue that the tests of one module share."""
    return make_queue()


@pytest.fixture(scope="module")
def session(proving: str) -> Iterator[Callable[..., psycopg.Connection]]:
    """Open a session that commits each call by itself, or one in a transaction."""
    with ExitStack() as stack:

        def connect(dsn: str = proving, *, autocommit: bool = True) -> psycopg.Connection:
            options = f"{GUARD} -c search_path=moonmind_queue"
            connection = psycopg.connect(dsn, autocommit=autocommit, options=options)
            stack.callback(connection.close)
            return connection

        yield connect
