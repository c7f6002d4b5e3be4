"""fail(): what becomes of a job whose attempt ended badly, and when it may try again."""

from datetime import timedelta

import pytest

from moonmind_queue import JobState

SECOND = timedelta(seconds=1)
MINUTE = timedelta(minutes=1)
ZERO = timedelta(0)


@pytest.fixture
def held(queue, clock):
    """A running job with three attempts; time stands still."""
    queue.enqueue("k")
    [job] = queue.claim("w", start=True)
    return job


def rest(queue, job):
    """How long a job has been told to rest."""
    [event] = [e for e in queue.history(job) if e.type == "failed"][-1:]
    return queue.get(job).run_at - event.at


def test_by_default_it_is_queued_again(queue, held, types):
    """One event, the error kept on the job, the lease gone."""
    state = queue.fail(held, "no luck")

    job = queue.get(held.id)
    assert (state, job.state, job.error, job.attempt) == ("queued", "queued", "no luck", 1)
    assert (job.finished_at, types(queue, held.id)[-1]) == (None, "failed")
    event = queue.history(held.id)[-1]
    assert (event.worker, event.message, event.data["attempt"]) == ("w", "no luck", 1)


def test_in_the_last_attempt_it_is_a_dead_letter(queue, clock, types):
    """Both words are in the history, and nothing claims the job again."""
    queue.enqueue("k", max_attempts=2)
    for _ in range(2):
        [job] = queue.claim("w")
        state = queue.fail(job, "no", retry_in=ZERO)

    ended = queue.get(job.id)
    assert (state, ended.state, ended.attempt) == ("dead_letter", JobState.DEAD_LETTER, 2)
    assert ended.finished_at == clock.now
    assert types(queue, job.id)[-2:] == ["failed", "dead_lettered"]
    assert queue.claim("w") == []


@pytest.mark.parametrize(("outcome", "state"), [("block", "blocked"), ("fail", "failed")])
def test_block_and_fail_end_it_at_once(queue, clock, held, types, outcome, state):
    """With attempts left or not; the one event has the state's name."""
    assert queue.fail(held, "because", outcome=outcome) == state

    job = queue.get(held.id)
    assert (job.state, job.error) == (state, "because")
    assert job.finished_at == (clock.now if state == "failed" else None)
    assert types(queue, held.id)[3:] == [state]
    assert queue.claim("w") == []


@pytest.mark.parametrize("outcome", ["", "later", "RETRY", None])
def test_another_outcome_is_refused(queue, db, held, picture, refused, outcome):
    """Nothing happens to the job."""
    before = picture(db)

    with refused("22023", "retry, block or fail"):
        queue.fail(held, "no", outcome=outcome)

    assert picture(db) == before


def test_a_rest_below_zero_is_refused(queue, held, refused):
    """A job does not come back in the past."""
    with refused("22023", "rest"):
        queue.fail(held, "no", retry_in=-SECOND)


def test_a_rest_beyond_the_calendar_is_refused(queue, held, refused):
    """The job stays with its holder."""
    with refused("22023", "a year"):
        queue.fail(held, "no", retry_in=timedelta(days=3_000_000))

    queue.complete(held)


def test_a_given_rest_is_kept_exactly(queue, clock, held):
    """retry_in wins over the back-off; the instant itself is included."""
    queue.fail(held, "no", retry_in=90 * SECOND)

    clock.advance(90 * SECOND - timedelta(microseconds=1))
    early = queue.claim("w")
    clock.advance(timedelta(microseconds=1))

    assert early == []
    assert [job.attempt for job in queue.claim("w")] == [2]


def test_no_rest_at_all_is_claimable_at_once(queue, held):
    """Zero is allowed."""
    queue.fail(held, "no", retry_in=ZERO)

    assert len(queue.claim("w")) == 1


def test_an_error_may_be_missing(db, queue, held):
    """A caller without words is not refused."""
    db.execute("select moonmind_queue.fail(%s, %s, null)", [held.id, held.token])

    assert queue.get(held.id).error is None


@pytest.mark.parametrize(
    ("attempt", "seconds"), [(1, 15), (2, 30), (3, 60), (6, 480), (7, 600), (8, 600), (400, 600)]
)
def test_the_back_off_doubles_up_to_its_cap_within_its_jitter(db, attempt, seconds):
    """15 s * 2^(attempt-1), at most 600 s, give or take a quarter; and it does vary."""
    rests = [
        row[0].total_seconds()
        for row in db.execute(
            "select moonmind_queue._backoff('k', %s) from generate_series(1, 300)", [attempt]
        )
    ]

    assert 0.75 * seconds <= min(rests) < 0.8 * seconds
    assert 1.2 * seconds < max(rests) <= 1.25 * seconds


def test_the_rest_of_a_job_is_the_back_off_of_its_attempt(queue, clock):
    """The first failure rests about 15 s, the second about 30 s."""
    queue.enqueue("k", max_attempts=9)
    rests = []
    for _ in range(2):
        [job] = queue.claim("w")
        queue.fail(job, "no")
        rests.append(rest(queue, job.id).total_seconds())
        clock.advance(MINUTE)

    assert 11.25 <= rests[0] <= 18.75
    assert 22.5 <= rests[1] <= 37.5


def test_a_kind_may_have_a_back_off_of_its_own(queue, db, held):
    """Its row wins over that of *, without jitter to the microsecond."""
    db.execute("insert into moonmind_queue.backoff values ('k', '7 s', '1 min', 0)")

    queue.fail(held, "no")

    assert rest(queue, held.id) == 7 * SECOND


@pytest.mark.parametrize("base", ["10 days", "3 mons", "1 microsecond"])
def test_no_row_of_the_table_makes_a_back_off_impossible(db, base):
    """A long base cannot overflow, for then the job could never fail."""
    db.execute("insert into moonmind_queue.backoff values ('k', %s, '100 years', 0)", [base])

    [rest] = db.execute(
        "select moonmind_queue._backoff('k', 40) between '0' and '110 years'"
    ).fetchone()

    assert rest is True
