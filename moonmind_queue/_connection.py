"""How every connection of this package is made."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psycopg

from moonmind_queue import errors


@contextmanager
def open_connection(dsn: str, *, application_name: str) -> Iterator[psycopg.Connection[Any]]:
    """Lend an autocommitting connection that notices a dead server within half a minute."""
    try:
        connection = psycopg.connect(dsn, **connection_options(application_name))
    except psycopg.Error as error:
        raise errors.from_connecting(error) from error
    with connection:
        yield connection


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
