"""Makes a session listen, and finds out whether it hears anything.

A transaction pooler accepts LISTEN and delivers nothing: by then the server's connection is
somebody else's. Whoever is not told would wait for the fallback poll for ever.
"""

import secrets
from typing import Any

import psycopg

from moonmind_queue._connection import open_connection, pooled

NO_LISTENING = "none"  # in place of a DSN for LISTEN: poll only
PATIENCE = 2.0  # seconds for an echo, which takes milliseconds


def listen(session: psycopg.Connection[Any], dsn: str) -> bool:
    """Listen to the queue's channels; return whether what is said there reaches this session."""
    direct = not pooled(session)
    session.execute("listen moonmind_queue")
    session.execute("listen moonmind_queue_control")
    if direct or _echoes(session, dsn):
        return True
    # As a rule on the same connection of the pool, which would go on listening for strangers.
    session.execute("unlisten *")
    return False


def _echoes(session: psycopg.Connection[Any], dsn: str) -> bool:
    """Call from a second connection: on its own, a session may share the server's by luck."""
    word = secrets.token_hex(8)
    with open_connection(dsn, application_name="moonmind-queue echo") as other:
        other.execute("select pg_notify('moonmind_queue_control', %s)", [word])
    return any(heard.payload == word for heard in session.notifies(timeout=PATIENCE))
