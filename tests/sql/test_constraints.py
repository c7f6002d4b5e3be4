"""Constraints: not even a superuser in psql writes nonsense. And updates that stay in place."""

import pytest

from moonmind_queue import JobState

FINAL = ["succeeded", "failed", "dead_letter", "cancelled"]


@pytest.fixture
def job(queue):
    """A job that is queued."""
    return queue.enqueue("k")


@pytest.mark.parametrize(
    "change",
    [
        "agent = ''",
        "agent = ' '",
        "agent = 'a '",
        "agent = '*'",
        "agent = repeat('a', 201)",
        "kind = ''",
        "kind = ' k'",
        "kind = '*'",
        "kind = repeat('k', 201)",
    ],
)
def test_a_lane_cannot_be_nonsense(db, job, refused, change):
    """Agent and kind of every job are those of its lane, and are checked there: 23514."""
    with refused("23514"):
        db.execute(f"update moonmind_queue.lane set {change}")


@pytest.mark.parametrize(
    "change",
    [
        "state = 'READY'",
        "state = 'done'",
        "state = ''",
        "state = 'Queued'",
        "key = ''",
        "key = repeat('x', 501)",
        "payload = '[]'",
        "payload = '1'",
        "payload = 'null'",
        "result = '[]'",
        "result = '\"x\"'",
        "result = 'null'",
        "max_attempts = 0",
        "max_attempts = -1",
        "run_at = 'infinity'",
        "run_at = '-infinity'",
        "run_at = '9000-01-01 UTC'",
        "run_at = '1899-12-31 UTC'",
    ],
)
def test_a_job_cannot_be_nonsense(db, job, refused, change):
    """23514 for whatever no function would write."""
    with refused("23514"):
        db.execute(f"update moonmind_queue.job set {change} where id = %s", [job])


@pytest.mark.parametrize(
    "column",
    [
        "agent",
        "kind",
        "state",
        "priority",
        "run_at",
        "attempt",
        "max_attempts",
        "payload",
        "created_at",
        "updated_at",
        "lane_id",
        "unmet",
        "event_seq",
    ],
)
def test_a_job_has_what_every_job_has(db, job, refused, column):
    """23502: these are never null."""
    with refused("23502"):
        db.execute(f"update moonmind_queue.job set {column} = null where id = %s", [job])


@pytest.mark.parametrize("state", JobState)
def test_every_state_can_be_written_as_it_is_meant(db, job, state):
    """The constraints refuse nonsense and nothing else."""
    finished = "now()" if state.final else "null"
    unmet = 1 if state == JobState.WAITING else 0

    written = db.execute(
        f"update moonmind_queue.job set state = %s, finished_at = {finished}, unmet = %s"
        " where id = %s returning state",
        [state, unmet, job],
    ).fetchone()

    assert written == (state,)


@pytest.mark.parametrize(
    ("insert", "sqlstate"),
    [
        ("dependency values ({job}, {job})", "23514"),
        ("dependency values ({job}, 7), ({job}, 7)", "23505"),
        ("dependency values ({job}, null)", "23502"),
        ("event (job_id, seq, at, type, level) values ({job}, 2, now(), 'x', 'fatal')", "23514"),
        ("event (job_id, seq, at, type, level) values ({job}, 2, now(), 'x', '')", "23514"),
        ("event (job_id, seq, at, type) values ({job}, 2, now(), null)", "23502"),
        (
            "lease values ({job}, 2, 1, 1, now(), now(), 'w'), ({job}, 3, 1, 1, now(), now(), 'v')",
            "23505",
        ),
        ("lease values ({job}, null, 1, 1, now(), now(), 'w')", "23502"),
        ("lease values ({job}, 2, 1, 1, null, now(), 'w')", "23502"),
        ("lease values ({job}, 2, 1, 1, now(), now(), null)", "23502"),
        ("ready select * from moonmind_queue.ready where job_id = {job}", "23505"),
        ("backoff values ('k', '1 s', '1 min', 1)", "23514"),
        ("backoff values ('k', '1 s', '1 min', -0.1)", "23514"),
        ("backoff values ('k', '1 s', '1 min', 'NaN')", "23514"),
        ("backoff values ('k', '2 s', '1 s', 0)", "23514"),
        ("backoff values ('k', '0 s', '1 s', 0)", "23514"),
        ("backoff values ('k', '-1 s', '1 s', 0)", "23514"),
        ("backoff values ('*', '1 s', '1 s', 0)", "23505"),
    ],
)
def test_a_row_cannot_be_nonsense(db, job, refused, insert, sqlstate):
    """No self dependency, no second lease, no unknown level, no back-off that runs away."""
    with refused(sqlstate):
        db.execute(f"insert into moonmind_queue.{insert.format(job=job)}")


@pytest.mark.parametrize(
    "change",
    [
        "name = '../x'",
        "name = '/x'",
        "name = ''",
        "name = repeat('x', 513)",
        "content_type = ''",
        "content_type = E'text/plain\\r\\nX: y'",
        "size_bytes = -1",
        "sha256 = ''",
        "sha256 = repeat('A', 64)",
        "sha256 = repeat('0', 63)",
    ],
)
def test_an_artifact_cannot_be_nonsense(queue, db, job, refused, change):
    """Names, types, sizes and digests are checked by the table itself."""
    [held] = queue.claim("w")
    queue.put_artifact(held, "f", b"x")

    with refused("23514"):
        db.execute(f"update moonmind_queue.artifact set {change}")


def test_a_key_is_of_one_job(db, queue, refused):
    """23505, whoever writes it."""
    queue.enqueue("k", key="x")
    other = queue.enqueue("k")

    with refused("23505"):
        db.execute("update moonmind_queue.job set key = 'x' where id = %s", [other])


def test_an_id_is_given_by_the_database(db, job, refused):
    """428C9: nobody inserts a job under an id of his own by accident."""
    with refused("428C9"):
        db.execute(
            "insert into moonmind_queue.job"
            " (id, agent, kind, state, run_at, created_at, updated_at, lane_id)"
            " values (%s, 'a', 'k', 'queued', now(), now(), now(), 1)",
            [2**60],
        )
