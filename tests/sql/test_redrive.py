"""redrive(): all jobs that ended like this run again, paced."""

from datetime import timedelta

import pytest

from moonmind_queue import JobState, Queue

MINUTE = timedelta(minutes=1)
HOUR = timedelta(hours=1)


@pytest.fixture
def ended(queue, clock):
    """Five jobs that ended at different times and in different ways, an hour apart."""

    def end(outcome, kind="k", agent="codex", error="no"):
        queue.enqueue(kind, agent=agent, max_attempts=1)
        [held] = queue.claim("w")
        if outcome == "done":
            queue.complete(held)
        else:
            queue.fail(held, error, outcome=outcome)
        clock.advance(HOUR)
        return held.id

    return [
        end("retry", error="timeout: 30 s"),
        end("fail"),
        end("done"),
        end("retry", kind="l", agent="claude"),
        end("fail", agent="claude", error="timeout: 9 s"),
    ]


@pytest.mark.parametrize(
    ("which", "expected"),
    [
        ({}, [0, 1, 3, 4]),
        ({"states": ["dead_letter"]}, [0, 3]),
        ({"states": ["succeeded"]}, [2]),
        ({"agent": "claude"}, [3, 4]),
        ({"kind": "l"}, [3]),
        ({"error": "timeout"}, [0, 4]),
        ({"error": "%"}, []),
        ({"limit": 2}, [0, 1]),
        ({"agent": "nobody"}, []),
    ],
)
def test_only_what_matches_runs_again(queue, ended, which, expected):
    """Every filter narrows; the ids come in order."""
    jobs = queue.redrive(**which)

    assert jobs == [ended[i] for i in expected]
    assert sorted(held.id for held in queue.claim("w", limit=9)) == jobs


def test_since_is_included_and_until_is_not(queue, clock, ended):
    """By the time at which they ended."""
    start = clock.now - 5 * HOUR

    jobs = queue.redrive(since=start + HOUR, until=start + 4 * HOUR)

    assert jobs == [ended[1], ended[3]]


def test_they_come_back_one_after_the_other(queue, clock, ended):
    """The first now, each further one a pace later, their attempts counted anew."""
    jobs = queue.redrive(pace=MINUTE)

    assert [queue.get(job).run_at - clock.now for job in jobs] == [i * MINUTE for i in range(4)]
    assert {queue.get(job).attempt for job in jobs} == {0}


def test_each_has_an_event(queue, types, ended):
    """As with retry()."""
    [job, *_] = queue.redrive()

    assert types(queue, job)[-1] == "retried"


def test_dependents_that_took_the_success_wait_again(queue, ended):
    """A succeeded job that is driven again is waited for."""
    child = queue.enqueue("k", after=[ended[2]])

    queue.redrive(["succeeded"])

    assert queue.get(child).state == JobState.WAITING


@pytest.mark.parametrize(
    "arguments",
    [
        {"states": ["running"]},
        {"states": ["queued", "failed"]},
        {"pace": -MINUTE},
        {"pace": timedelta(days=2)},
        {"limit": 0},
    ],
    ids=str,
)
def test_what_makes_no_sense_is_refused(queue, refused, arguments):
    """With the values in the message."""
    with refused("22023", "redrive needs"):
        queue.redrive(**arguments)


def test_what_another_session_has_is_left_for_the_next_call(here, session):
    """It waits for nobody."""
    jobs = []
    for _ in range(3):
        here.enqueue("k")
        [held] = here.claim("w")
        here.fail(held, "no", outcome="fail")
        jobs.append(held.id)
    other = session()
    Queue(other).retry(jobs[1])

    first = here.redrive()
    other.rollback()

    assert first == [jobs[0], jobs[2]]
    assert here.redrive() == [jobs[1]]
