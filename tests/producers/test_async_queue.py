"""AsyncQueue: the client for asyncio, on your connection or on one of its own."""

import asyncio
from contextlib import asynccontextmanager

import psycopg
import pytest
from psycopg.pq import TransactionStatus

from moonmind_queue import (
    AsyncQueue,
    DatabaseUnavailable,
    InvalidArgument,
    InvalidPayload,
    JobNotFound,
    JobState,
    Queue,
    SettingsError,
    WrongState,
    connect_async,
)

OPEN = """select count(*) from pg_stat_activity
          where datname = current_database() and state like 'idle in transaction%%'"""


@asynccontextmanager
async def plain(dsn):
    """An ordinary connection, in a transaction as soon as it is used."""
    async with await psycopg.AsyncConnection.connect(dsn) as connection:
        yield connection


async def waiting(look, pid):
    """Return when the session waits for somebody's lock."""
    while not look("select cardinality(pg_blocking_pids(%s))", pid)[0]:
        await asyncio.sleep(0.002)


def test_a_job_is_made_read_cancelled_and_retried(fresh):
    """Each method answers as Queue's method of the same name does."""

    async def scene():
        async with connect_async(fresh) as queue:
            one = await queue.enqueue("send", {"a": 1}, key="x", priority=3)
            again, two = await queue.enqueue_many(
                [{"kind": "send", "key": "x"}, {"kind": "send", "after": ["x"]}]
            )
            assert again == one
            assert await queue.cancel(two, "not now") is JobState.CANCELLED
            assert await queue.retry(two) is JobState.WAITING
            job = await queue.get(one)
            history = await queue.history(two, after=1)
        return one, job, two, history

    one, job, two, history = asyncio.run(scene())

    with psycopg.connect(fresh) as connection:
        assert Queue(connection).get(one) == job
        assert Queue(connection).history(two, after=1) == history
    assert [event.type for event in history] == ["cancelled", "retried"]


def test_a_job_exists_exactly_when_your_transaction_commits(fresh, look):
    """The client neither commits nor rolls back on a connection that is yours."""

    async def scene():
        async with plain(fresh) as connection:
            await AsyncQueue(connection).enqueue("send")
            assert look("select id from moonmind_queue.job_overview") == []
            await connection.rollback()
            await AsyncQueue(connection).enqueue("send", name="kept")
            await connection.commit()

    asyncio.run(scene())

    assert look("select name from moonmind_queue.job_overview") == ["kept"]


def test_its_errors_are_those_of_queue(fresh):
    """Typed, with psycopg's error as the cause; a savepoint keeps the transaction usable."""

    async def scene():
        async with plain(fresh) as connection:
            queue = AsyncQueue(connection)
            job = await queue.enqueue("send")
            with pytest.raises(InvalidArgument, match="unknown job 99") as caught:
                async with connection.transaction():
                    await queue.enqueue("send", after=[99])
            assert isinstance(caught.value.__cause__, psycopg.Error)
            with pytest.raises(InvalidPayload):
                await queue.enqueue("noop", {"seconds": -1})
            with pytest.raises(InvalidArgument, match="which UTF-8 cannot"):
                await queue.enqueue("send", name="\udcff")
            for missing in (queue.get(99), queue.history(99)):
                with pytest.raises(JobNotFound, match="job 99 does not exist"):
                    await missing
            with pytest.raises(WrongState):
                await queue.retry(await queue.enqueue("send", after=[job]))

    asyncio.run(scene())


def test_no_connection_is_an_error_in_words(fresh):
    """A server that is not there, and a DSN that is none."""

    async def scene(dsn):
        async with connect_async(dsn):
            raise AssertionError("there is no such database")

    with pytest.raises(DatabaseUnavailable):
        asyncio.run(scene(f"{fresh} dbname=not_there"))
    for dsn in ("nonsense", "postgresql://\udcff@127.0.0.1:1/x"):
        with pytest.raises(SettingsError, match="DATABASE_URL"):
            asyncio.run(scene(dsn))


def test_two_tasks_share_a_connection(fresh, look):
    """Their calls run one after the other, and each gets its own answer."""

    async def produce(queue, agent):
        return [await queue.enqueue("send", agent=agent) for _ in range(20)]

    async def scene():
        async with connect_async(fresh) as queue:
            return await asyncio.gather(produce(queue, "a"), produce(queue, "b"))

    a, b = asyncio.run(scene())

    assert look("select id from moonmind_queue.job_overview where agent = 'a' order by id") == a
    assert look("select id from moonmind_queue.job_overview where agent = 'b' order by id") == b


def test_two_tasks_that_race_for_a_key_get_one_job(fresh, look):
    """The second waits for the first's transaction and then returns its job."""

    async def scene():
        async with plain(fresh) as one, plain(fresh) as two:
            first = await AsyncQueue(one).enqueue("send", key="x")
            racing = asyncio.create_task(AsyncQueue(two).enqueue("other", key="x"))
            await asyncio.wait_for(waiting(look, two.info.backend_pid), 15)
            await one.commit()
            second = await asyncio.wait_for(racing, 15)
            await two.commit()
            return first, second

    first, second = asyncio.run(scene())

    assert first == second
    assert look("select kind from moonmind_queue.job_overview") == ["send"]


@pytest.mark.parametrize("autocommit", [True, False])
def test_a_task_that_is_cancelled_leaves_nothing_open(fresh, look, autocommit):
    """Cancelled while it waits for a lock: no job, no transaction of ours, a usable connection."""

    async def scene():
        async with plain(fresh) as other, plain(fresh) as connection:
            await connection.set_autocommit(autocommit)
            queue = AsyncQueue(connection)
            await AsyncQueue(other).enqueue("send", key="x")
            task = asyncio.create_task(asyncio.wait_for(_in_a_transaction(queue), 15))
            await asyncio.wait_for(waiting(look, connection.info.backend_pid), 15)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            await other.rollback()
            assert connection.info.transaction_status == TransactionStatus.IDLE
            assert look(OPEN) == [0]
            await queue.enqueue("send", key="x", name="later")
            await connection.commit()

    async def _in_a_transaction(queue):
        if autocommit:
            await queue.enqueue("send", key="x")
        else:
            async with queue.connection.transaction():
                await queue.enqueue("send", key="x")

    asyncio.run(scene())

    assert look("select name from moonmind_queue.job_overview") == ["later"]
