"""How every connection of this package is made."""

import json
import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
from psycopg.types.json import set_json_loads

from moonmind_queue import errors


@contextmanager
def open_connection(dsn: str, *, application_name: str) -> Iterator[psycopg.Connection[Any]]:
    """Lend an autocommitting connection that notices a dead server within half a minute."""
    try:
        connection = psycopg.connect(dsn, **connection_options(application_name))
    except (psycopg.Error, UnicodeError) as error:
        raise errors.from_connecting(error) from error
    with connection:
        set_json_loads(_loads, connection)
        try:
            prepare_only_directly(connection)
        except psycopg.Error as error:
            raise errors.from_connecting(error) from error
        yield connection


def _loads(text: str | bytes) -> Any:
    """Read JSON as PostgreSQL writes it: the usual way is for whatever else JSON may look like."""
    return _decode(text if isinstance(text, str) else text.decode())[0]


_decode = json.JSONDecoder().raw_decode


def connection_options(application_name: str) -> dict[str, Any]:
    """Return how every connection of this package is made."""
    return {
        "autocommit": True,
        "application_name": application_name,
        "connect_timeout": 10,
        "keepalives_idle": 10,
        "keepalives_interval": 5,
        "keepalives_count": 3,
        "tcp_user_timeout": 25_000,
    }


def prepare_only_directly(connection: psycopg.Connection[Any]) -> None:
    """Keep prepared statements off a connection that others may have after each transaction.

    PgBouncer before 1.21 knows nothing of them: the next client would meet our names. Directly
    they save a sixth of each call, so they are not given up for everybody.
    """
    if pooled(connection):
        connection.prepare_threshold = None


def pooled(connection: psycopg.Connection[Any]) -> bool:
    """Say whether a pooler stands in between: it gives out process ids of its own making."""
    row = connection.execute("select pg_backend_pid()").fetchone()
    return row is not None and row[0] != connection.info.backend_pid


def reconnect_delay(failures: int, cap: float) -> float:
    """Return the seconds to wait after so many failures in a row, varied.

    The exponent is bounded: a database that is away for a night means thousands of failures.
    """
    return spread(min(0.2 * 2 ** min(failures, 10), cap), 0.5, 1)


def spread(seconds: float, low: float, high: float) -> float:
    """Vary a wait, so that workers that started together do not move together."""
    return seconds * random.uniform(low, high)  # noqa: S311 - no secret depends on it
