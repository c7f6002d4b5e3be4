"""How many jobs a worker claims ahead: as many as are done in a moment, and none of long ones."""

import threading
from datetime import UTC, datetime, timedelta

import pytest
from waiting import eventually

from moonmind_queue import ClaimedJob
from moonmind_queue._attempt import Attempt, Shared
from moonmind_queue._crew import MOST, Crew


@pytest.fixture
def ended():
    """The endings so far."""
    return []


@pytest.fixture
def crew(gate, ended):
    """Two threads."""
    crew = Crew(2, {"k": gate}, ended=lambda *ending: ended.append(ending), hungry=lambda: None)
    yield crew
    crew.stop()


def attempts(number, *, wait=False):
    """Attempts at jobs that were claimed."""
    shared = Shared(pool=None, artifact_max_bytes=0, live_log=False)
    job = {"kind": "k", "agent": "a", "name": None, "key": None, "priority": 0, "attempt": 1}
    lease = {"expires_at": datetime.now(UTC), "lasts": timedelta(hours=1), "max_attempts": 1}
    return [
        Attempt(
            ClaimedJob(id=n, token=n, payload={"wait": wait}, **job, **lease),
            deadline=1e9,
            shared=shared,
            started=False,
        )
        for n in range(number)
    ]


def test_at_first_there_is_room_for_what_begins_at_once(crew):
    """Nothing is known of these jobs yet."""
    assert crew.room() == 2
    assert crew.prompt


def test_short_jobs_are_wanted_ahead_twice_as_many_each_time(crew, ended):
    """One quick job is no proof that all are; there is an end to it."""
    rooms = []
    for turn in range(1, 14):
        crew.add(attempts(2))
        eventually(lambda turn=turn: len(ended) == 2 * turn)
        rooms.append(crew.room())

    assert rooms[:4] in ([2, 2, 4, 8], [2, 2, 2, 4])
    assert rooms[-1] == MOST // 2
    assert not crew.prompt


def test_one_long_job_makes_forget_the_short_ones(crew, ended, gate):
    """However many there were: what comes behind it may be as long, and others could begin it."""
    for turn in range(1, 14):
        crew.add(attempts(2))
        eventually(lambda turn=turn: len(ended) == 2 * turn)
    crew.add(attempts(1, wait=True))
    eventually(crew.unstarted)
    gate.open.set()
    eventually(lambda: len(ended) == 27)

    assert crew.room() <= 3


def test_without_a_backlog_fewer_and_fewer_are_wanted(crew, ended):
    """A worker that finds all there is holds nothing back; what comes begins at once."""
    for turn in range(1, 14):
        crew.add(attempts(2))
        eventually(lambda turn=turn: len(ended) == 2 * turn)
    rooms = []
    for turn in range(14, 26):
        crew.add(attempts(2), more=False)
        eventually(lambda turn=turn: len(ended) == 2 * turn)
        rooms.append(crew.room())

    assert rooms == sorted(rooms, reverse=True)
    assert rooms[-1] == 2
    assert crew.prompt


def test_more_are_wanted_when_half_of_those_that_may_wait_have_come(crew, ended):
    """The database works on the next while these are run; then there is an end to it."""
    for turn in range(1, 14):
        crew.add(attempts(2))
        eventually(lambda turn=turn: len(ended) == 2 * turn)
    waiting = attempts(MOST, wait=True)

    crew.add(waiting[: crew.room()])
    assert crew.room() == MOST // 2
    crew.add(waiting[MOST // 2 :])
    assert crew.room() == 0


def test_nothing_is_wanted_behind_long_jobs(crew, ended, gate):
    """However quick those before were; and what waits is taken back, and never begins."""
    for turn in range(1, 5):
        crew.add(attempts(2))
        eventually(lambda turn=turn: len(ended) == 2 * turn)
    crew.add(attempts(2, wait=True))
    crew.add(attempts(5))

    eventually(lambda: len(crew.unstarted()) == 2)
    assert crew.secret
    eventually(lambda: crew.room() == 0 and crew.prompt)
    [*back] = eventually(crew.withdraw)
    gate.open.set()

    assert len(back) == 5
    eventually(lambda: len(ended) == 10)
    eventually(lambda: not crew.secret)


def test_what_was_stopped_before_it_began_does_not_run(crew, ended):
    """Its lease is lost, it was cancelled, or the worker is stopping."""
    [attempt] = attempts(1, wait=True)
    attempt.stop()

    crew.add([attempt])

    eventually(lambda: ended)
    assert ended[0][1].verdict == "stopped"
    assert not attempt.begun


def test_its_threads_end_with_it(crew, ended):
    """A worker that has stopped leaves nothing behind in its process."""
    crew.add(attempts(2))
    eventually(lambda: len(ended) == 2)
    assert _threads_of_crews()

    crew.stop()

    eventually(lambda: not _threads_of_crews())


def _threads_of_crews():
    """By their names: other threads of the process may end meanwhile."""
    return [thread for thread in threading.enumerate() if thread.name.startswith("jobs-")]
