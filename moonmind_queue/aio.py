"""The client for asyncio: what a producer needs, over a psycopg ``AsyncConnection``.

:class:`AsyncQueue` asks exactly what :class:`~moonmind_queue.queue.Queue` asks and, like it,
opens no transaction and commits none: a task that is cancelled leaves nothing of ours open on
your connection. Work is held and run with the synchronous client, in threads.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, TypeVar

import psycopg

from moonmind_queue import _calls, errors
from moonmind_queue._calls import SCHEMA, Call
from moonmind_queue._connection import connection_options

Answer = TypeVar("Answer")


class AsyncQueue:
    """Enqueue, inspect, cancel and retry jobs over one asynchronous psycopg connection.

    Tasks may share it: the connection runs their calls one after the other. A task that is
    cancelled while it enqueues on an autocommitting connection may have made its job all the
    same, as with a connection that breaks; with a ``key`` it can simply ask again.
    """

    def __init__(self, connection: psycopg.AsyncConnection[Any]) -> None:
        self.connection = connection

    enqueue = _calls.async_method(_calls.enqueue)
    enqueue_many = _calls.async_method(_calls.enqueue_many)
    cancel = _calls.async_method(_calls.cancel)
    retry = _calls.async_method(_calls.retry)
    get = _calls.async_method(_calls.get)
    history = _calls.async_method(_calls.history)
    read_log = _calls.async_method(_calls.read_log)

    async def _ask(self, call: Call[Answer]) -> Answer:
        try:
            async with self.connection.cursor(row_factory=call.row) as cursor:
                await cursor.execute(call.statement, call.values)
                rows = await cursor.fetchall()
        except psycopg.Error as error:
            raise errors.from_postgres(error) from error
        except UnicodeEncodeError as error:
            raise errors.from_encoding(error) from error
        if not rows and call.if_empty:
            await self._ask(call.if_empty)
        return call.read(rows)


@asynccontextmanager
async def connect_async(dsn: str, *, application_name: str = SCHEMA) -> AsyncIterator[AsyncQueue]:
    """Lend an asyncio client over an autocommitting connection of its own.

    Raises ``DatabaseUnavailable`` when there is no connection to be had.
    """
    try:
        connection = await psycopg.AsyncConnection.connect(
            dsn, **connection_options(application_name)
        )
    except (psycopg.Error, UnicodeError) as error:
        raise errors.from_connecting(error) from error
    async with connection:
        yield AsyncQueue(connection)
