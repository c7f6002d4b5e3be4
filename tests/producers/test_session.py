"""Enqueueing in a SQLAlchemy session or connection: the job shares the fate of your rows."""

import inspect
from datetime import UTC, datetime

import psycopg
import pytest
from sqlalchemy import create_engine, insert, text
from sqlalchemy.orm import Session

from moonmind_queue import (
    DatabaseUnavailable,
    InvalidArgument,
    InvalidPayload,
    NotAllowed,
    Queue,
    SchemaMismatch,
    connect,
)
from moonmind_queue.aio import AsyncQueue
from moonmind_queue.orm import AsyncSessionQueue, SessionQueue

from .conftest import Invoice

BOTH = """select (select count(*) from invoice),
                 (select count(*) from moonmind_queue.job_overview)"""


def test_job_and_row_exist_exactly_when_the_transaction_commits(session, look):
    """Nobody sees either before the commit; everybody sees both after it."""
    session.execute(insert(Invoice).values(customer="acme"))
    SessionQueue(session).enqueue("send")

    assert look(BOTH) == [(0, 0)]
    session.commit()
    assert look(BOTH) == [(1, 1)]


def test_neither_exists_after_a_rollback(session, look):
    """What you take back takes the job with it."""
    session.execute(insert(Invoice).values(customer="acme"))
    SessionQueue(session).enqueue("send")
    session.rollback()

    assert look(BOTH) == [(0, 0)]


def test_an_orm_object_that_was_flushed_gives_its_id_to_its_job(engine, look):
    """The usual way: add, flush, enqueue with the id, commit by the end of the block."""
    with Session(engine) as session, session.begin():
        invoice = Invoice(customer="acme")
        session.add(invoice)
        session.flush()
        SessionQueue(session).enqueue("send", {"invoice": invoice.id})

    assert look("select payload from moonmind_queue.job_overview") == [{"invoice": 1}]


def test_a_savepoint_that_is_rolled_back_takes_only_its_own_job(session, look):
    """The job of the outer transaction stays."""
    queue = SessionQueue(session)
    queue.enqueue("send", name="outer")
    savepoint = session.begin_nested()
    queue.enqueue("send", name="inner")
    savepoint.rollback()
    session.commit()

    assert look("select name from moonmind_queue.job_overview") == ["outer"]


def test_a_listener_is_woken_by_the_commit_and_not_before(session, heard):
    """The notification is part of the transaction too."""
    SessionQueue(session).enqueue("send", agent="claude")

    assert heard(0.1) == []
    session.commit()
    assert heard(15) == ["claude"]


def test_it_says_to_the_database_what_queue_says(session, fresh, look):
    """Every argument arrives as the one that Queue sends, odd text and instants included."""
    options = {
        "payload": {"text": "a\0b \ud800 %s :kind", "at": datetime(2030, 1, 1, tzinfo=UTC)},
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
    SessionQueue(session).enqueue("send", after=[need], **options)
    session.commit()

    _, one, other = look(f"select {columns} from moonmind_queue.job_overview order by id")

    assert one == other
    assert one[0] == "claude"


def test_many_jobs_depend_on_each_other_by_key(session, look):
    """enqueue_many returns the ids in the order given, whatever the order of the dependencies."""
    ids = SessionQueue(session).enqueue_many(
        [{"kind": "send", "key": "b", "after": ["a"]}, {"kind": "send", "key": "a"}]
    )
    session.commit()

    assert look("select id, key, after from moonmind_queue.job_overview order by key") == [
        (ids[1], "a", []),
        (ids[0], "b", [ids[1]]),
    ]


def test_a_key_names_one_job_in_and_after_the_transaction(session, look):
    """The same key again is the same job, also for a later transaction."""
    queue = SessionQueue(session)
    first = queue.enqueue("send", key="x")
    again = queue.enqueue("send", key="x")
    session.commit()
    later = queue.enqueue("other", key="x")
    session.commit()

    assert first == again == later
    assert look("select kind from moonmind_queue.job_overview") == ["send"]


def test_a_refusal_in_a_savepoint_leaves_the_session_usable(session, look):
    """The error is ours, its cause psycopg's, and the transaction goes on."""
    queue = SessionQueue(session)
    queue.enqueue("send", name="before")
    with pytest.raises(InvalidArgument, match="unknown job 99") as caught, session.begin_nested():
        queue.enqueue("send", after=[99])
    queue.enqueue("send", name="after")
    session.commit()

    assert isinstance(caught.value.__cause__, psycopg.Error)
    assert caught.value.__cause__.sqlstate == "22023"
    assert look("select name from moonmind_queue.job_overview order by id") == ["before", "after"]


def test_text_that_no_driver_can_send_costs_no_transaction(session, look):
    """A lone surrogate, as from bytes that are no UTF-8, is refused in words."""
    queue = SessionQueue(session)
    queue.enqueue("send", name="before")
    with pytest.raises(InvalidArgument, match=r"holds '\\udcff', which UTF-8 cannot"):
        queue.enqueue("send", name="\udcff")
    session.commit()

    assert look("select name from moonmind_queue.job_overview") == ["before"]


def test_a_refused_payload_costs_no_transaction(session, look):
    """It is checked before the database hears of it, by the executor of its kind."""
    queue = SessionQueue(session)
    queue.enqueue("noop", name="before")
    with pytest.raises(InvalidPayload, match="noop: seconds"):
        queue.enqueue("noop", {"seconds": -1})
    with pytest.raises(InvalidPayload, match="noop: seconds"):
        queue.enqueue_many([{"kind": "noop", "payload": {"seconds": "soon"}}])
    session.commit()

    assert look("select name from moonmind_queue.job_overview") == ["before"]


def test_a_reader_may_not_enqueue(session):
    """The database's refusal of a role is NotAllowed."""
    session.execute(text("set role moonmind_reader"))

    with pytest.raises(NotAllowed, match="permission denied for function enqueue"):
        SessionQueue(session).enqueue("send")


def test_a_broken_connection_is_unavailable(session, look):
    """A session that the server ended says: try again later."""
    pid = session.execute(text("select pg_backend_pid()")).scalar_one()
    look("select pg_terminate_backend(%s)", pid)

    with pytest.raises(DatabaseUnavailable):
        SessionQueue(session).enqueue("send")


def test_a_database_without_a_queue_says_what_to_run(create_database):
    """The error names the command."""
    dsn = create_database()
    engine = create_engine("postgresql+psycopg://", creator=lambda: psycopg.connect(dsn))

    with (
        engine.connect() as connection,
        pytest.raises(SchemaMismatch, match="moonmind-queue migrate"),
    ):
        SessionQueue(connection).enqueue("send")
    engine.dispose()


@pytest.mark.parametrize("name", ["enqueue", "cancel", "retry"])
def test_a_call_has_the_parameters_of_its_function(name, look):
    """A parameter that SQL gains is missed here until the clients have it, in the same order."""
    [parameters] = look(
        "select proargnames from pg_proc"
        " where pronamespace = 'moonmind_queue'::regnamespace and proname = %s",
        name,
    )

    own = list(inspect.signature(getattr(Queue, name)).parameters)[1:]
    assert [f"p_{each}" for each in own] == parameters


@pytest.mark.parametrize("client", [AsyncQueue, SessionQueue, AsyncSessionQueue])
def test_every_client_has_the_parameters_and_the_words_of_queue(client):
    """help() and an editor show the same for each of them; none has a method of its own."""
    names = {name for name in vars(client) if not name.startswith("_")}

    assert {"enqueue", "enqueue_many"} <= names
    for name in names:
        own, queues = getattr(client, name), getattr(Queue, name)
        assert inspect.signature(own) == inspect.signature(queues)
        assert own.__doc__ == queues.__doc__
