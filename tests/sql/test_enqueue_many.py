"""enqueue_many(): many jobs in one call, all or none, with dependencies among them."""

from datetime import UTC, datetime, timedelta

import psycopg
import pytest
from psycopg.types.json import Jsonb

from moonmind_queue import JobState, Queue

HOUR = timedelta(hours=1)


@pytest.fixture
def heard(sleeper):
    """Sleep from now on; called, it gives the agents that were notified, and sleeps again."""
    return sleeper().heard


def enqueue_many(db, jobs):
    """Call the function with any JSON at all."""
    rows = db.execute("select * from moonmind_queue.enqueue_many(%s)", [Jsonb(jobs)]).fetchall()
    return [job for (job,) in rows]


def needs(db, job):
    """What a job needs."""
    rows = db.execute(
        "select needs_job_id from moonmind_queue.dependency where job_id = %s order by 1", [job]
    )
    return [need for (need,) in rows]


# --- ids ---------------------------------------------------------------------------------------


def test_ids_come_in_the_order_of_the_jobs(queue):
    """The n-th id is that of the n-th job."""
    ids = queue.enqueue_many([{"kind": f"k{n}"} for n in range(20)])

    assert [queue.get(job).kind for job in ids] == [f"k{n}" for n in range(20)]


def test_ids_come_in_the_order_of_the_jobs_also_with_keys(queue):
    """Keys and needs may change the numbers, not the order of the answer."""
    keys = ["m", None, "z", "a", None, "b"]

    ids = queue.enqueue_many(
        [{"kind": "k", "key": key, "after": ["b"] if key == "m" else []} for key in keys]
    )

    assert [queue.get(job).key for job in ids] == keys
    assert len(set(ids)) == 6


def test_no_jobs_are_no_error(queue, db, picture):
    """An empty array gives an empty answer and writes nothing."""
    before = picture(db)

    assert queue.enqueue_many([]) == []
    assert picture(db) == before


def test_a_key_that_exists_is_that_job_unchanged(queue):
    """Its id is returned at its place; what the call says about it is ignored."""
    old = queue.enqueue("k", {"n": 1}, key="old")
    history = queue.history(old)

    ids = queue.enqueue_many(
        [
            {"kind": "k", "key": "new"},
            {"kind": "l", "key": "old", "payload": {"n": 2}, "after": ["nobody", "new"]},
            {"kind": "k"},
        ]
    )

    assert ids[1] == old
    assert len({*ids}) == 3
    assert (queue.get(old).kind, queue.get(old).payload) == ("k", {"n": 1})
    assert queue.get(old).state == JobState.QUEUED
    assert queue.history(old) == history


def test_a_key_that_stands_earlier_in_the_call_is_that_job_unchanged(queue, db):
    """The first one counts: with its payload, its needs and one event."""
    first, need, again = queue.enqueue_many(
        [
            {"kind": "k", "key": "x", "payload": {"n": 1}},
            {"kind": "k", "key": "need"},
            {"kind": "l", "key": "x", "payload": {"n": 2}, "after": ["need"], "priority": 7},
        ]
    )

    assert again == first != need
    job = queue.get(first)
    assert (job.kind, job.payload, job.priority) == ("k", {"n": 1}, 0)
    assert (job.state, needs(db, first)) == (JobState.QUEUED, [])
    assert [event.type for event in queue.history(first)] == ["created"]


def test_a_repeated_key_cannot_close_a_circle(queue, db):
    """What is said the second time is ignored, so both jobs can run."""
    a, b, again = queue.enqueue_many(
        [
            {"kind": "k", "key": "a"},
            {"kind": "k", "key": "b", "after": ["a"]},
            {"kind": "k", "key": "a", "after": ["b"]},
        ]
    )

    assert again == a
    assert (needs(db, a), needs(db, b)) == ([], [a])
    assert queue.get(a).state == JobState.QUEUED


def test_a_call_that_is_repeated_changes_nothing(queue, db, picture):
    """With a key on every job a whole DAG can be sent again."""
    jobs = [
        {"kind": "k", "key": "a"},
        {"kind": "k", "key": "b", "after": ["a"]},
        {"kind": "k", "key": "c", "after": ["a", "b"]},
    ]
    ids = queue.enqueue_many(jobs)
    before = picture(db)

    again = queue.enqueue_many(reversed(jobs))

    assert again == ids[::-1]
    assert picture(db) == before


# --- dependencies ------------------------------------------------------------------------------


def test_after_may_hold_ids_and_keys(queue, db):
    """Of jobs that exist, and keys of this call."""
    by_id, by_key = queue.enqueue("k"), queue.enqueue("k", key="known")

    a, b = queue.enqueue_many(
        [{"kind": "k", "key": "a"}, {"kind": "k", "after": [by_id, "known", "a"]}]
    )

    assert needs(db, b) == sorted([by_id, by_key, a])
    assert [queue.get(job).state for job in (a, b)] == [JobState.QUEUED, JobState.WAITING]


def test_a_job_may_come_before_what_it_needs(queue, db):
    """The order of the call does not matter; an id is above those of its needs."""
    c, b, a = queue.enqueue_many(
        [
            {"kind": "k", "key": "c", "after": ["b"]},
            {"kind": "k", "key": "b", "after": ["a"]},
            {"kind": "k", "key": "a"},
        ]
    )

    assert (needs(db, c), needs(db, b), needs(db, a)) == ([b], [a], [])
    assert a < b < c
    assert [held.id for held in queue.claim("w", limit=9)] == [a]


def test_needs_that_have_succeeded_hold_nobody(queue, db):
    """Only those that have not count as unmet."""
    done, open_ = queue.enqueue("k"), queue.enqueue("k", priority=-1)
    queue.complete(queue.claim("w")[0])

    free, waits = queue.enqueue_many(
        [{"kind": "k", "after": [done]}, {"kind": "k", "after": [done, open_]}]
    )

    assert [queue.get(job).state for job in (free, waits)] == [JobState.QUEUED, JobState.WAITING]
    assert db.execute(
        "select unmet from moonmind_queue.job where id in (%s, %s) order by id", [free, waits]
    ).fetchall() == [(0,), (1,)]


def test_a_key_that_looks_like_a_number_is_a_key(queue, db):
    """A JSON string is a key, a JSON number an id."""
    queue.enqueue("k")

    a, b = queue.enqueue_many([{"kind": "k", "key": "1"}, {"kind": "k", "after": ["1"]}])

    assert needs(db, b) == [a]


@pytest.mark.parametrize(
    ("edges", "path"),
    [
        ({"a": ["a"]}, "a -> a"),
        ({"a": ["b"], "b": ["a"]}, "a -> b -> a"),
        ({"a": ["c"], "b": ["a"], "c": ["b"]}, "a -> c -> b -> a"),
        ({"start": ["a"], "a": ["b"], "b": ["c"], "c": ["a"], "end": []}, "a -> b -> c -> a"),
    ],
)
def test_a_circle_is_refused_with_its_path(queue, db, refused, picture, edges, path):
    """Each step needs the next, the last is the first; nothing is written."""
    before = picture(db)

    with refused("22023", f": {path}$"):
        queue.enqueue_many(
            [{"kind": "k", "key": key, "after": after} for key, after in edges.items()]
        )

    assert picture(db) == before


@pytest.mark.parametrize(
    ("need", "named"),
    [("nobody", "nobody"), (2**60, str(2**60)), (None, "null"), (True, "true"), ({}, "{}")],
)
@pytest.mark.parametrize(("key", "who"), [("b", "b"), (None, "2")])
def test_an_unknown_dependency_is_refused(queue, db, refused, picture, need, named, key, who):
    """The message names the job by its key or its place, and what it needs; nothing is written."""
    before = picture(db)

    with refused("22023", f"^job {who} depends on unknown job {named}$"):
        queue.enqueue_many([{"kind": "k", "key": "a"}, {"kind": "k", "key": key, "after": [need]}])

    assert picture(db) == before


@pytest.mark.parametrize("keys", [(None, None), ("a", "b")])
def test_an_id_that_this_call_is_about_to_give_is_unknown(queue, db, refused, picture, keys):
    """Who guesses the next ids cannot make jobs that wait for each other for ever."""
    last = queue.enqueue("k")
    before = picture(db)

    with refused("22023", "unknown job"):
        queue.enqueue_many(
            [
                {"kind": "k", "key": keys[0], "after": [last + 2]},
                {"kind": "k", "key": keys[1], "after": [last + 1]},
            ]
        )

    assert picture(db) == before


@pytest.mark.parametrize(
    ("need", "sqlstate"), [(1.5, "22P02"), (1e30, "22003"), (2**63, "22003")], ids=str
)
def test_a_number_that_is_no_id_is_refused(db, refused, need, sqlstate):
    """Fractions and what does not fit into an id are bad arguments."""
    with refused(sqlstate):
        enqueue_many(db, [{"kind": "k", "after": [need]}])


# --- refusals ----------------------------------------------------------------------------------


@pytest.mark.parametrize("jobs", [None, {}, {"kind": "k"}, "k", 1, True], ids=str)
def test_jobs_are_an_array(db, refused, jobs):
    """Anything else is refused in words."""
    with refused("22023", "needs a JSON array of objects"):
        enqueue_many(db, jobs)


def test_null_is_not_an_array(db, refused):
    """SQL null is refused like JSON null."""
    with refused("22023", "needs a JSON array of objects"):
        db.execute("select moonmind_queue.enqueue_many(null)")


@pytest.mark.parametrize("job", [None, [], "k", 1, False], ids=str)
def test_each_job_is_an_object(db, refused, picture, job):
    """The first that is none is named by its place."""
    before = picture(db)

    with refused("22023", "^job 2: is not an object"):
        enqueue_many(db, [{"kind": "k"}, job, 5])

    assert picture(db) == before


@pytest.mark.parametrize("after", ["a", 1, {}, True], ids=str)
def test_after_is_an_array(db, refused, after):
    """A single id or key is a mistake that would else go unnoticed."""
    with refused("22023", "^job 2: after is not an array"):
        enqueue_many(db, [{"kind": "k"}, {"kind": "k", "after": after}])


@pytest.mark.parametrize("names", [["p_kind"], ["Kind"], ["state", "id"]], ids=str)
def test_an_unknown_name_is_refused(db, refused, picture, names):
    """A misspelt parameter is named and not ignored."""
    before = picture(db)

    with refused("22023", f"^job 2: unknown name .*{names[-1]}"):
        enqueue_many(db, [{"kind": "k"}, {"kind": "k"} | dict.fromkeys(names, "x")])

    assert picture(db) == before


def test_affinity_is_refused_by_its_name_and_not_stored_for_nothing(queue, refused):
    """No job is kept near others by one; whoever gives an affinity_key is told what there is."""
    with refused("22023", "^job 1: unknown name affinity_key; there are kind, payload, agent, "):
        queue.enqueue_many([{"kind": "k", "affinity_key": "repo"}])
    with pytest.raises(TypeError, match="affinity_key"):
        queue.enqueue("k", affinity_key="repo")
    with refused("42883", "p_affinity_key"):
        queue.connection.execute("select moonmind_queue.enqueue('k', p_affinity_key => 'repo')")


@pytest.mark.parametrize(
    ("job", "sqlstate"),
    [
        ({}, "22023"),
        ({"kind": None}, "22023"),
        ({"kind": " "}, "23514"),
        ({"kind": "k", "agent": ""}, "23514"),
        ({"kind": "k", "payload": []}, "23514"),
        ({"kind": "k", "payload": "x"}, "23514"),
        ({"kind": "k", "key": ""}, "23514"),
        ({"kind": "k", "max_attempts": 0}, "23514"),
        ({"kind": "k", "run_at": "infinity"}, "23514"),
        ({"kind": "k", "run_at": "tomorrow or so"}, "22007"),
        ({"kind": "k", "priority": "high"}, "22P02"),
        ({"kind": "k", "priority": 2**31}, "22003"),
        ({"kind": "k", "capabilities": "gpu"}, "22P02"),
    ],
    ids=str,
)
def test_one_bad_job_refuses_all(db, refused, picture, job, sqlstate):
    """All or nothing: not even the good ones before it are written."""
    before = picture(db)

    with refused(sqlstate):
        enqueue_many(db, [{"kind": "k"}, {"kind": "k", "key": "x"}, job])

    assert picture(db) == before


@pytest.mark.parametrize("key", [{"a": 1}, ["a"], 5, True], ids=str)
def test_whatever_a_key_is_each_id_that_is_returned_is_a_job(db, queue, key):
    """A key that is not a string is refused or is one job; it never gives an id of nothing."""
    jobs = [{"kind": "k", "key": key}, {"kind": "k", "key": key}]
    db.execute("savepoint before")
    try:
        ids = enqueue_many(db, jobs)
    except psycopg.errors.InvalidParameterValue:
        db.execute("rollback to before")
    else:
        assert ids[0] == ids[1]
        assert queue.get(ids[0]).state == JobState.QUEUED


# --- as enqueue --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "arguments",
    [
        {},
        {"payload": {"a": [1, None, "ü"]}, "agent": "claude", "name": "n", "priority": -3},
        {"run_at": datetime(2027, 2, 3, 4, 5, 6, 789, tzinfo=UTC), "max_attempts": 7},
        {"run_at": datetime(2025, 1, 1, tzinfo=UTC)},
        {"capabilities": [" GPU", "gpu", "", "Docker"]},
        {"after": [1, 1]},
    ],
    ids=lambda arguments: " ".join(arguments) or "defaults",
)
def test_it_makes_what_enqueue_makes(db, queue, clock, arguments):
    """Row for row and column for column, but for the id."""
    need = queue.enqueue("k", key="need")
    if "after" in arguments:
        arguments = arguments | {"after": [need, need]}

    one = queue.enqueue("k", **arguments)
    [other] = queue.enqueue_many([{"kind": "k"} | arguments])

    for table, column in [
        ("job", "id"),
        ("ready", "job_id"),
        ("scheduled", "job_id"),
        ("event", "job_id"),
        ("dependency", "job_id"),
    ]:
        rows = [
            db.execute(
                f"select to_jsonb(t) - %s - 'pos'"
                f" from moonmind_queue.{table} as t where {column} = %s",
                [column, job],
            ).fetchall()
            for job in (one, other)
        ]
        assert rows[0] == rows[1], table


def test_null_is_the_default(db, queue, clock):
    """A name with null is as good as no name."""
    names = "payload agent name key priority run_at after max_attempts capabilities"

    plain, nulls = enqueue_many(db, [{"kind": "k"}, {"kind": "k"} | dict.fromkeys(names.split())])

    rows = queue.select(
        "select * from moonmind_queue.job_overview where id = any (%(jobs)s)", jobs=[plain, nulls]
    )
    assert rows[0] | {"id": 0} == rows[1] | {"id": 0}


def test_every_agent_is_notified_once_at_the_commit(session, heard):
    """However many jobs it gets; agents whose jobs all wait are left to sleep."""
    producer = session()
    Queue(producer).enqueue_many(
        [
            *[{"kind": "k", "agent": "claude"}] * 50,
            {"kind": "k", "agent": "codex", "key": "x"},
            {"kind": "k", "agent": "later", "run_at": datetime.now(UTC) + HOUR},
            {"kind": "k", "agent": "waits", "after": ["x"]},
        ]
    )

    before = heard()
    producer.commit()

    assert before == []
    assert sorted(heard()) == ["claude", "codex", "later"]


def test_a_rolled_back_call_was_never_there(here, session, look):
    """It is part of the caller's transaction."""
    producer = session()
    Queue(producer).enqueue_many([{"kind": "k", "key": "a"}, {"kind": "k", "after": ["a"]}])

    producer.rollback()

    assert here.claim("w", limit=9) == []
    assert look("select from moonmind_queue.job") == []


# --- several sessions --------------------------------------------------------------------------


def test_keys_that_are_being_used_are_waited_for(here, session, blocked, types):
    """The second call gets the ids of the first, and its own jobs depend on those."""
    producer = session()
    a, b = Queue(producer).enqueue_many([{"kind": "k", "key": "a"}, {"kind": "k", "key": "b"}])

    jobs = [{"kind": "l", "key": "c", "after": ["b", "a"]}, {"kind": "l", "key": "a"}]
    second = blocked(lambda queue: queue.enqueue_many(jobs))
    producer.commit()

    c, again = second.result()
    assert again == a
    assert (types(here, a), here.get(a).kind) == (["created"], "k")
    assert (needs(here.connection, c), here.get(c).state) == ([a, b], JobState.WAITING)


def test_keys_whose_producer_gave_up_are_free(here, session, blocked):
    """After a rollback of the first the second call makes all its jobs."""
    producer = session()
    Queue(producer).enqueue_many([{"kind": "k", "key": "a"}, {"kind": "k", "key": "b"}])

    second = blocked(
        lambda queue: queue.enqueue_many([{"kind": "l", "key": key} for key in ("b", "a")])
    )
    producer.rollback()

    assert [here.get(job).key for job in second.result()] == ["b", "a"]
    assert {job.id for job in here.claim("w", kinds=["l"], limit=9)} == {*second.result()}


def test_one_call_and_one_job_of_the_same_key_agree(here, session, blocked):
    """enqueue and enqueue_many wait for each other's keys alike."""
    producer = session()
    one = Queue(producer).enqueue("k", key="a")

    many = blocked(lambda queue: queue.enqueue_many([{"kind": "k"}, {"kind": "k", "key": "a"}]))
    producer.commit()

    assert many.result()[1] == one


def test_calls_that_share_keys_wait_in_the_order_of_the_keys(here, session, blocked):
    """Who waits for key a has not taken b yet, so the two never wait in a circle."""
    producer = session()
    producer.execute("set lock_timeout = '1ms'")
    a = Queue(producer).enqueue("k", key="a")

    jobs = [{"kind": "k", "key": key} for key in "ba"]
    second = blocked(lambda queue: queue.enqueue_many(jobs))
    b = Queue(producer).enqueue("k", key="b")
    producer.commit()

    assert second.result() == [b, a]


# --- many --------------------------------------------------------------------------------------


def test_ten_thousand_jobs_in_one_call(here, look):
    """A chain of 5,000, given backwards, and a fan-out of 5,000 from its last job."""
    chain = [
        {"kind": "k", "key": f"c{n}", "after": [f"c{n - 1}"] if n else []} for n in range(5000)
    ]
    fan = [{"kind": "k", "after": ["c4999", "c0"]} for _ in range(5000)]

    ids = here.enqueue_many(fan + chain[::-1])

    assert len(set(ids)) == 10_000
    assert here.claim("w", limit=9)[0].key == "c0"
    assert look("select state, count(*) from moonmind_queue.job group by 1 order by 1") == [
        ("claimed", 1),
        ("waiting", 9999),
    ]
    assert look("select unmet, count(*) from moonmind_queue.job group by 1 order by 1") == [
        (0, 1),
        (1, 4999),
        (2, 5000),
    ]
    assert look("select count(*) from moonmind_queue.dependency") == [4999 + 10_000]
