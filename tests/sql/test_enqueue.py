"""enqueue(): one job, in the transaction of whoever asks for it."""

from datetime import UTC, datetime, timedelta

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict
from psycopg.sql import SQL, Identifier

from moonmind_queue import JobState, Queue

HOUR = timedelta(hours=1)


@pytest.fixture
def heard(sleeper):
    """Sleep from now on; called, it gives the agents that were notified, and sleeps again."""
    return sleeper().heard


def enqueue(db, arguments, *values):
    """Call the function as psql does."""
    [job] = db.execute(f"select moonmind_queue.enqueue({arguments})", values).fetchone()
    return job


# --- the job -----------------------------------------------------------------------------------


def test_only_the_kind_must_be_given(queue, db, clock):
    """Everything else has the default that the header shows."""
    job = queue.get(enqueue(db, "'k'"))

    assert (job.kind, job.agent, job.name, job.key) == ("k", "codex", None, None)
    assert (job.state, job.priority, job.attempt, job.max_attempts) == (JobState.QUEUED, 0, 0, 3)
    assert (job.payload, job.result, job.error) == ({}, None, None)
    assert (job.created_at, job.run_at) == (clock.now, clock.now)
    assert (job.started_at, job.finished_at) == (None, None)


def test_null_is_the_default(queue, db, clock):
    """A producer may pass null for whatever it has no opinion about."""
    nulls = enqueue(
        db,
        "'k', p_payload => null, p_name => null, p_key => null, p_priority => null,"
        " p_run_at => null, p_after => null, p_max_attempts => null, p_capabilities => null",
    )
    plain = enqueue(db, "'k'")

    rows = queue.select("select * from moonmind_queue.job_overview order by id desc")
    assert [row["id"] for row in rows] == [plain, nulls]
    assert rows[0] | {"id": 0} == rows[1] | {"id": 0}


def test_every_value_that_is_given_is_kept(queue, clock):
    """The job says what the producer said."""
    need = queue.enqueue("k")
    job = queue.get(
        queue.enqueue(
            "build",
            {"a": [1, {"b": None}], "ü": "é"},
            agent="claude",
            name="a name",
            key="a:key",
            priority=-7,
            run_at=clock.now + HOUR,
            after=[need],
            max_attempts=9,
            capabilities=["gpu"],
        )
    )

    assert (job.kind, job.agent, job.name, job.key) == ("build", "claude", "a name", "a:key")
    assert (job.priority, job.run_at, job.max_attempts) == (-7, clock.now + HOUR, 9)
    assert job.payload == {"a": [1, {"b": None}], "ü": "é"}
    [more] = queue.select(
        "select after, capabilities from moonmind_queue.job_overview where id = %(job)s", job=job.id
    )
    assert more == {"after": [need], "capabilities": ["gpu"]}


def test_ids_go_up(queue):
    """A later job has the higher id."""
    ids = [queue.enqueue("k") for _ in range(5)]

    assert ids == sorted(set(ids))


def test_created_is_the_first_event_and_names_the_role(queue, db, clock):
    """The history begins with who asked for the job, and when."""
    job = queue.enqueue("k")

    [event] = queue.history(job)
    [role] = db.execute("select session_user").fetchone()
    assert (event.seq, event.type, event.level, event.message) == (1, "created", "info", "")
    assert (event.worker, event.at, event.data) == (role, clock.now, None)


def test_created_names_the_login_of_a_producer(session, fresh, server):
    """A member of moonmind_producer is named itself, not the owner of the function."""
    role = Identifier(name := f"{conninfo_to_dict(fresh)['dbname']}_ci")
    with psycopg.connect(server, autocommit=True) as admin:
        admin.execute(SQL("create role {} in role moonmind_producer").format(role))
        try:
            producer = session()
            producer.execute(SQL("set session authorization {}").format(role))

            job = Queue(producer).enqueue("k")

            assert Queue(producer).history(job)[0].worker == name
        finally:
            admin.execute(SQL("drop role {}").format(role))


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ([], []),
        (["GPU"], ["gpu"]),
        ([" b ", "A", "a", "b"], ["a", "b"]),
        (["", "  "], []),
        ([None, "x"], ["x"]),
    ],
)
def test_capabilities_are_kept_in_the_form_in_which_they_are_compared(queue, given, kept):
    """Trimmed, in lower case, each once, in order, blank ones left out."""
    job = queue.enqueue("k", capabilities=given)

    [row] = queue.select(
        "select capabilities from moonmind_queue.job_overview where id = %(job)s", job=job
    )
    assert row["capabilities"] == kept


@pytest.mark.parametrize(
    "arguments",
    [
        "''",
        "' '",
        "' k'",
        "'k '",
        "'k', p_agent => ''",
        "'k', p_agent => ' '",
        "'k', p_agent => 'a '",
        "'k', p_key => ''",
        "'k', p_key => repeat('x', 501)",
        "'k', '[]'",
        "'k', '1'",
        "'k', 'null'",
        "'k', p_max_attempts => 0",
        "'k', p_max_attempts => -1",
        "'k', p_run_at => 'infinity'",
        "'k', p_run_at => '-infinity'",
        "'k', p_run_at => '9000-01-01 UTC'",
        "'k', p_run_at => '1899-12-31 UTC'",
    ],
)
def test_a_value_that_the_table_refuses_is_an_error(db, refused, picture, arguments):
    """23514, and nothing is written."""
    before = picture(db)

    with refused("23514"):
        enqueue(db, arguments)

    assert picture(db) == before


@pytest.mark.parametrize(
    "arguments",
    ["null", "'k', p_agent => null", "repeat('k', 201)", "'k', p_agent => repeat('a', 201)"],
)
def test_kind_and_agent_are_given_and_short(db, refused, picture, arguments):
    """The message names them, and nothing is written."""
    before = picture(db)

    with refused("22023", "a job needs a kind, an agent"):
        enqueue(db, arguments)

    assert picture(db) == before


@pytest.mark.parametrize(
    "run_at",
    [datetime(1900, 1, 1, tzinfo=UTC), datetime(8999, 12, 31, tzinfo=UTC)],
    ids=["earliest", "latest"],
)
def test_the_limits_of_run_at_are_themselves_allowed(queue, run_at):
    """From 1900 up to the year 9000."""
    job = queue.enqueue("k", run_at=run_at)

    assert queue.get(job).run_at == run_at


# --- where it goes -----------------------------------------------------------------------------


def test_a_job_that_is_due_is_ready(queue, db, clock):
    """Now and the past mean ready."""
    jobs = [queue.enqueue("k"), queue.enqueue("k", run_at=clock.now - HOUR)]

    ready = db.execute("select job_id from moonmind_queue.ready order by 1").fetchall()
    assert ready == [(job,) for job in jobs]
    assert db.execute("select from moonmind_queue.scheduled").fetchall() == []


def test_a_job_of_the_future_is_scheduled(queue, db, clock):
    """A microsecond is future enough."""
    job = queue.enqueue("k", priority=4, run_at=clock.now + timedelta(microseconds=1))

    assert queue.get(job).state == JobState.QUEUED
    assert db.execute("select job_id from moonmind_queue.scheduled").fetchall() == [(job,)]
    assert db.execute("select from moonmind_queue.ready").fetchall() == []


def test_a_job_that_waits_is_in_neither(queue, db):
    """A waiting job is not even looked at by a claim."""
    need = queue.enqueue("k")

    job = queue.enqueue("k", after=[need])

    assert queue.get(job).state == JobState.WAITING
    claimable = (
        "select job_id from moonmind_queue.ready union select job_id from moonmind_queue.scheduled"
    )
    assert db.execute(claimable).fetchall() == [(need,)]


def test_unmet_counts_the_needs_that_have_not_succeeded(queue, db):
    """Each need counts once, and those that have succeeded do not."""
    done, one, two = (queue.enqueue("k") for _ in range(3))
    queue.complete(queue.claim("w")[0])

    job = queue.enqueue("k", after=[two, done, one, two])

    assert db.execute("select unmet from moonmind_queue.job where id = %s", [job]).fetchone() == (
        2,
    )
    needs = db.execute(
        "select needs_job_id from moonmind_queue.dependency where job_id = %s order by 1", [job]
    )
    assert needs.fetchall() == [(done,), (one,), (two,)]


@pytest.mark.parametrize(
    ("after", "named"), [([2**60], str(2**60)), ([None], "null"), ([0, -1], "-1, 0")]
)
def test_an_unknown_dependency_is_refused(queue, db, refused, picture, after, named):
    """The message names the unknown ones, and nothing is written."""
    known = queue.enqueue("k")
    before = picture(db)

    with refused("22023", f"unknown job {named}$"):
        queue.enqueue("k", after=[known, *after])

    assert picture(db) == before


# --- the transaction ---------------------------------------------------------------------------


def test_a_job_that_is_rolled_back_was_never_there(here, session, look):
    """No row, no event, nothing to claim, nothing to be told of."""
    producer = session()
    Queue(producer).enqueue("k", key="x")

    producer.rollback()

    assert here.claim("w") == []
    assert look("select from moonmind_queue.job") == []
    assert look("select from moonmind_queue.event") == []


def test_workers_of_the_agent_are_notified_at_the_commit(session, heard):
    """Not before, and with the agent as payload."""
    producer = session()
    Queue(producer).enqueue("k", agent="claude")

    before = heard()
    producer.commit()

    assert before == []
    assert heard() == ["claude"]


def test_a_job_of_the_future_is_notified_too(here, heard):
    """A worker that sleeps until something later must set its alarm anew."""
    here.enqueue("k", agent="claude", run_at=datetime.now(UTC) + HOUR)

    assert heard() == ["claude"]


def test_equal_notifications_of_one_transaction_are_folded(session, sleeper):
    """A hundred jobs for one agent wake it once."""
    listener = sleeper("claude", "codex")
    producer = session()
    for _ in range(100):
        Queue(producer).enqueue("k", agent="claude")
    Queue(producer).enqueue("k", agent="codex")

    producer.commit()

    assert sorted(listener.heard()) == ["claude", "codex"]


@pytest.mark.parametrize("end", ["rollback", "wait"])
def test_nobody_is_woken_for_nothing(here, session, heard, end):
    """A rollback and a job that has to wait notify nobody."""
    need = here.enqueue("k", agent="need")
    producer = session()
    Queue(producer).enqueue("k", agent="claude", after=[need] if end == "wait" else [])

    producer.rollback() if end == "rollback" else producer.commit()

    assert heard() == ["need"]


# --- the key -----------------------------------------------------------------------------------


def test_the_same_key_again_is_the_same_job_unchanged(queue, db, picture):
    """Whatever else is said the second time, not one row differs."""
    job = queue.enqueue("k", {"n": 1}, key="x")
    before = picture(db)

    again = queue.enqueue("l", {"n": 2}, key="x", agent="claude", priority=9, after=[2**60])

    assert again == job
    assert picture(db) == before


def test_a_key_belongs_to_its_job_in_every_state(queue):
    """Also a job that has ended is the job of its key."""
    job = queue.enqueue("k", key="x")
    queue.cancel(job)

    again = queue.enqueue("k", key="x")

    assert again == job
    assert queue.get(job).state == JobState.CANCELLED


def test_keys_are_compared_letter_by_letter(queue):
    """Case and blanks make another key; jobs without one are never the same."""
    ids = [queue.enqueue("k", key=key) for key in ["x", "X", "x ", None, None]]

    assert len(set(ids)) == 5


def test_a_key_that_is_being_used_is_waited_for(here, session, blocked):
    """The second producer gets the id of the first, that had not committed yet."""
    producer = session()
    job = Queue(producer).enqueue("k", {"n": 1}, key="x")

    second = blocked(lambda queue: queue.enqueue("k", {"n": 2}, key="x"))
    producer.commit()

    assert second.result() == job
    assert here.get(job).payload == {"n": 1}
    assert [event.type for event in here.history(job)] == ["created"]
    assert [held.id for held in here.claim("w", limit=9)] == [job]


def test_a_key_whose_producer_gave_up_is_free(here, session, blocked):
    """After a rollback of the first the second producer makes the job."""
    producer = session()
    job = Queue(producer).enqueue("k", {"n": 1}, key="x")

    second = blocked(lambda queue: queue.enqueue("k", {"n": 2}, key="x"))
    producer.rollback()

    assert second.result() != job
    assert here.get(second.result()).payload == {"n": 2}
    assert [held.id for held in here.claim("w", limit=9)] == [second.result()]


def test_sixteen_producers_of_one_key_make_one_job(here, session, threads, look):
    """All of them get the same id, and the job was created once."""
    producers = [Queue(session(autocommit=True)) for _ in range(16)]

    ids = list(threads.map(lambda producer: producer.enqueue("k", key="x"), producers))

    assert len(set(ids)) == 1
    assert look("select type from moonmind_queue.event") == ["created"]


@pytest.mark.parametrize("way", ["enqueue", "enqueue_many"])
def test_a_new_kind_in_a_long_transaction_blocks_nobody(here, session, way):
    """Two producers may each be the first with a kind; neither waits for the other's commit."""
    slow = session()
    Queue(slow).enqueue("new", concurrency_key="repo")

    if way == "enqueue":
        quick = here.enqueue("new", concurrency_key="repo")
    else:
        [quick] = here.enqueue_many([{"kind": "new", "concurrency_key": "repo"}])
    first = here.claim("w", limit=9)
    slow.commit()

    assert [held.id for held in first] == [quick]
    assert len(here.claim("w", limit=9)) == 1
