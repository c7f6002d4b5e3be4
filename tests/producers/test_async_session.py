"""Enqueueing in SQLAlchemy's asyncio sessions and connections, over both drivers it knows."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import NullPool, insert, select, text
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine

from moonmind_queue import DatabaseUnavailable, InvalidArgument, NotAllowed, connect
from moonmind_queue.orm import AsyncSessionQueue, JobHistory, JobOverview

from .conftest import Invoice

BOTH = """select (select count(*) from invoice),
                 (select count(*) from moonmind_queue.job_overview)"""


@pytest.fixture(params=["psycopg", "asyncpg"])
def driver(request) -> str:
    """Each driver of SQLAlchemy for asyncio and PostgreSQL."""
    return request.param


@pytest.fixture(params=["AsyncSession", "AsyncConnection"])
def run(request, driver, engine, url) -> Callable[[Callable[[Any], Awaitable[Any]]], Any]:
    """Run a scene in an event loop, with a session of the ORM or a connection of Core."""

    @asynccontextmanager
    async def opened() -> AsyncIterator[Any]:
        lively = create_async_engine(url(driver), poolclass=NullPool)
        if request.param == "AsyncSession":
            async with AsyncSession(lively) as session:
                yield session
        else:
            async with lively.connect() as connection:
                yield connection

    async def play(scene: Callable[[Any], Awaitable[Any]]) -> Any:
        async with opened() as session:
            return await scene(session)

    return lambda scene: asyncio.run(play(scene))


def test_job_and_row_exist_exactly_when_the_transaction_commits(run, look):
    """Nothing is seen before the commit, both after it, and nothing more after a rollback."""

    async def scene(session):
        await session.execute(insert(Invoice).values(customer="acme"))
        await AsyncSessionQueue(session).enqueue("send")
        assert look(BOTH) == [(0, 0)]
        await session.commit()
        assert look(BOTH) == [(1, 1)]
        await session.execute(insert(Invoice).values(customer="other"))
        await AsyncSessionQueue(session).enqueue("send")
        await session.rollback()

    run(scene)

    assert look(BOTH) == [(1, 1)]


def test_a_savepoint_that_is_rolled_back_takes_only_its_own_job(run, look):
    """The job of the outer transaction stays."""

    async def scene(session):
        queue = AsyncSessionQueue(session)
        await queue.enqueue("send", name="outer")
        savepoint = await session.begin_nested()
        await queue.enqueue("send", name="inner")
        await savepoint.rollback()
        await session.commit()

    run(scene)

    assert look("select name from moonmind_queue.job_overview") == ["outer"]


def test_a_listener_is_woken_by_the_commit_and_not_before(run, heard):
    """The notification is part of the transaction too."""

    async def scene(session):
        await AsyncSessionQueue(session).enqueue("send", agent="claude")
        assert heard(0.1) == []
        await session.commit()
        assert heard(15) == ["claude"]

    run(scene)


def test_it_says_to_the_database_what_queue_says(run, fresh, look):
    """Every argument arrives as the one that Queue sends, whatever the driver makes of it."""
    options = {
        "payload": {"text": "a\0b \ud800 %s :kind $1", "at": datetime(2030, 1, 1, tzinfo=UTC)},
        "agent": "claude",
        "name": "n",
        "priority": 7,
        "run_at": datetime(2030, 5, 6, 7, 8, 9, 10, tzinfo=UTC),
        "max_attempts": 9,
        "capabilities": ["gpu", "docker"],
    }
    columns = "agent, name, priority, run_at, max_attempts, capabilities, payload, after, state"
    with connect(fresh) as queue:
        need = queue.enqueue("send")
        queue.enqueue("send", after=[need], **options)

    async def scene(session):
        await AsyncSessionQueue(session).enqueue("send", after=[need], **options)
        await session.commit()

    run(scene)

    _, one, other = look(f"select {columns} from moonmind_queue.job_overview order by id")
    assert one == other
    assert one[0] == "claude"


def test_a_refusal_in_a_savepoint_leaves_the_session_usable(run, look):
    """The error is ours, its cause the driver's, and keys and many jobs work as ever."""

    async def scene(session):
        queue = AsyncSessionQueue(session)
        first = await queue.enqueue("send", key="x")
        with pytest.raises(InvalidArgument, match=r"^depends on unknown job 99$") as caught:
            async with session.begin_nested():
                await queue.enqueue("send", after=[99])
        with pytest.raises(InvalidArgument):
            async with session.begin_nested():
                await queue.enqueue("send", name="\udcff")  # no driver can send it
        again, second = await queue.enqueue_many(
            [{"kind": "send", "key": "x"}, {"kind": "send", "key": "y", "after": ["x"]}]
        )
        await session.commit()
        return first, again, second, caught.value.__cause__

    first, again, second, cause = run(scene)

    assert cause.sqlstate == "22023"
    assert first == again
    assert look("select id, after from moonmind_queue.job_overview order by id") == [
        (first, []),
        (second, [first]),
    ]


def test_a_refused_role_and_a_broken_connection_are_told_apart(run, look):
    """NotAllowed and DatabaseUnavailable, with whichever driver."""

    async def scene(session):
        await session.execute(text("set role moonmind_reader"))
        with pytest.raises(NotAllowed, match=r"^permission denied for function enqueue$"):
            await AsyncSessionQueue(session).enqueue("send")
        await session.rollback()
        pid = (await session.execute(text("select pg_backend_pid()"))).scalar_one()
        look("select pg_terminate_backend(%s)", pid)
        with pytest.raises(DatabaseUnavailable):
            await AsyncSessionQueue(session).enqueue("send")

    run(scene)


def test_mapped_classes_are_read_with_it(driver, engine, url, fresh):
    """An AsyncSession returns the views' rows with Python's types."""
    with connect(fresh) as queue:
        queue.enqueue("send", {"a": 1}, key="x")

    async def scene():
        async with AsyncSession(
            create_async_engine(url(driver), poolclass=NullPool), expire_on_commit=False
        ) as session:
            job = (await session.scalars(select(JobOverview).filter_by(key="x"))).one()
            event = (await session.scalars(select(JobHistory))).one()
            return job, event

    job, event = asyncio.run(scene())

    assert (job.payload, job.after, job.state) == ({"a": 1}, [], "queued")
    assert datetime.now(UTC) - job.created_at < timedelta(minutes=5)
    assert (event.job_id, event.type) == (job.id, "created")
