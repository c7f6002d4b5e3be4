"""SQLAlchemy engines, sessions and an application's own table, on the database of one test."""

import uuid
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict
from psycopg.sql import SQL, Identifier
from sqlalchemy import URL, Engine, NullPool, create_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

from moonmind_queue import Queue, Tokens, connect
from moonmind_queue._ticker import tick


class Base(DeclarativeBase):
    """The application's own tables."""


class Invoice(Base):
    """A row that is to exist exactly when its job does."""

    __tablename__ = "invoice"

    id: Mapped[int] = mapped_column(primary_key=True)
    customer: Mapped[str]


@pytest.fixture
def url(fresh: str) -> Callable[[str], URL]:
    """The URL of the database of this test for a driver of SQLAlchemy."""
    given = conninfo_to_dict(fresh)
    host, port = str(given.get("host", "")), given.get("port")

    def of(driver: str) -> URL:
        return URL.create(
            f"postgresql+{driver}",
            username=given.get("user"),
            password=given.get("password"),
            host=None if host.startswith("/") else host,
            port=None if host.startswith("/") else int(port),
            database=given["dbname"],
            query={"host": host, "port": str(port)} if host.startswith("/") else {},
        )

    return of


@pytest.fixture
def engine(url) -> Engine:
    """An engine on the database of this test, where the application has its table."""
    engine = create_engine(url("psycopg"), poolclass=NullPool)
    Base.metadata.create_all(engine)
    return engine


@pytest.fixture(params=["Session", "Connection"])
def session(request, engine: Engine) -> Iterator[Any]:
    """A session of the ORM, then a connection of Core: in a transaction that begins by itself."""
    with Session(engine) if request.param == "Session" else engine.connect() as session:
        yield session


@pytest.fixture
def heard(fresh: str) -> Iterator[Callable[[float], list[str]]]:
    """Listen as an idle worker does; gives what was notified within so many seconds."""
    with psycopg.connect(fresh, autocommit=True) as listener:
        listener.execute("listen moonmind_queue")
        queue = Queue(listener)
        queue.doze(
            queue.register_worker(
                "sleeper",
                agents=None,
                kinds=None,
                capabilities=[],
                slots=1,
                host="here",
                pid=1,
                version="1",
            )
        )
        yield lambda patience: [
            message.payload for message in listener.notifies(timeout=patience, stop_after=1)
        ]


@pytest.fixture
def lived(fresh: str, clock_of) -> Iterator[str]:
    """The DSN of a queue in which everything has happened once, so that each column has a say."""
    roles = [f"mq_{uuid.uuid4().hex}" for _ in range(2)]
    clock = clock_of(fresh)
    clock.freeze(datetime(2026, 1, 1, 12, 0, 0, 120_000, tzinfo=UTC))
    with connect(fresh) as queue:
        number = 0
        for worker, agents in (("one", None), ("two", ["codex"])):
            first, number = (
                number,
                queue.register_worker(
                    worker,
                    agents=agents,
                    kinds=agents,
                    capabilities=["gpu"],
                    slots=1,
                    host="here",
                    pid=1,
                    version="1",
                ),
            )
        queue.see_worker(number, stopped=True)
        queue.stop_worker(first)
        done = queue.enqueue(
            "send",
            {"a": 1, "b": [None, 1.5, "ü"]},
            name="done",
            key="done",
            on_success=[{"kind": "send", "agent": "later"}],
        )
        queue.enqueue("send", after=[done], key="later")
        [job] = queue.claim("one", start=True)
        queue.append_event(job, "progress", "half way", data={"percent": 50})
        queue.append_log(job, "half way\n", stage="execute")
        queue.put_artifact(job, "notes.txt", b"hello")
        queue.say(job.id, "mind the tests")
        queue.hear(job)
        queue.say(job.id, "and the docs")
        queue.begin_step(job, "push", "abc")
        queue.end_step(job, "push", "abc")
        queue.begin_step(job, "pull_request", "topic")
        queue.replay(queue.enqueue("send", agent="later", on_failure=[{"kind": "send"}]))
        clock.advance(timedelta(seconds=1, microseconds=1))
        queue.complete(job, {"ok": True})
        queue.cancel(queue.enqueue("send", capabilities=["gpu", "docker"]), "not now")
        for outcome in ("block", "fail", "retry"):
            queue.enqueue("send", name=outcome, priority=1)
            [job] = queue.claim("one")
            queue.fail(job, "no luck\nat all", outcome=outcome)
        queue.enqueue("send", after=[job.id], run_at=clock.now + timedelta(days=9))
        queue.enqueue("send", priority=2, max_attempts=1)
        queue.claim("one", start=True)
        clock.advance(timedelta(hours=1))
        queue.reclaim()
        held = queue.enqueue("send", priority=9)
        queue.claim("one")
        queue.cancel(held)
        clock.advance(timedelta(minutes=1))
        queue.enqueue(
            "send",
            {"repository": "acme/site"},
            timeout=timedelta(minutes=90, microseconds=1),
            expires_at=clock.now + timedelta(days=1),
            on_dependency_failure="run",
            concurrency_key="account",
            capabilities=["nobody has this"],
        )
        queue.add_schedule("done", "* * * * *", {"kind": "send"})
        clock.advance(timedelta(minutes=1))
        tick(queue)
        for statement in (
            "add_schedule('psql', '0 2 * * *', '{\"kind\": \"send\"}')",
            "defer_schedule('psql', 1, 'no')",
        ):
            queue.connection.execute(f"select moonmind_queue.{statement}")
        queue.seed_dag([{"id": "task", "agent": "nobody"}], "dag.yaml")
        queue.reset_dag()
        queue.seed_dag([{"id": "other", "agent": "nobody"}], dag="other")
        queue.set_limit("kind", "other", 9)
        queue.set_limit("concurrency_key", "*", 1)
        queue.pause("codex", "for good")
        queue.connection.execute("insert into moonmind_queue.ready values (1, 999999, 1)")
        queue.pause("claude", "resting", clock.now + timedelta(hours=1))
        queue.set_retention(None)
        queue.set_timeout("slow", timedelta(hours=9))
        queue.set_backoff("flaky", timedelta(minutes=1))
        queue.register_worker(
            "three",
            agents=["idle"],
            kinds=None,
            capabilities=[],
            slots=1,
            host="here",
            pid=1,
            version="1",
        )
        queue.enqueue("send", agent="idle", concurrency_key="other")
        for role in roles:
            for statement in ("create role {} login", "grant moonmind_worker to {}"):
                queue.connection.execute(SQL(statement).format(Identifier(role)))
        names = ["x"]
        queue.set_policy(
            roles[0],
            agents=names,
            kinds=names,
            repositories=["a/b"],
            capabilities=names,
            workers=names,
            content_types=["text/*"],
            artifact_max_bytes=1000,
        )
        _spend(queue, clock)
        queue.set_allowance(roles[0], max_open=1)
        queue.set_allowance(
            roles[1],
            agents=names,
            kinds=names,
            repositories=["a/b"],
            max_per_day=1,
            max_depth=1,
        )
        yield fresh
        for role in roles:
            queue.connection.execute(SQL("drop role {}").format(Identifier(role)))


def _spend(queue, clock):
    """Use tokens with a price and without, on two days, and one of three budgets up."""
    queue.set_price("priced", Decimal(1), Decimal(2))
    queue.set_budget("agent", "meter", tokens=100)
    queue.set_budget("job", "send", cost=Decimal(50))
    queue.set_budget("repository", "*", period="month", cost=Decimal(9))
    now = clock.now
    for agent, model, payload, day in (
        ("other meter", "unknown", {"repository": "acme/site"}, now - timedelta(days=1)),
        ("meter", "priced", {}, now),
    ):
        clock.freeze(day)
        queue.enqueue("send", payload, agent=agent)
        [job] = queue.claim("one", agents=[agent])
        queue.count_usage(job, "thread", model, Tokens(input=100, output=20))
