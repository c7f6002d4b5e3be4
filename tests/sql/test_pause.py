"""pause(), resume() and cool_down(): who may not claim for a while."""

from datetime import timedelta

import pytest

from moonmind_queue import JobState

MINUTE = timedelta(minutes=1)
HOUR = timedelta(hours=1)


def ids(claimed):
    """The jobs, in the order in which they came."""
    return [held.id for held in claimed]


def test_a_paused_agent_gets_no_job(queue):
    """The others do."""
    queue.enqueue("k", agent="a")
    other = queue.enqueue("k", agent="b")

    queue.pause("a", "deploying")

    assert ids(queue.claim("w", limit=5)) == [other]


def test_a_pause_of_all_is_for_all(queue):
    """Also for agents that come later."""
    queue.pause()
    queue.enqueue("k", agent="new")

    assert queue.claim("w") == []


@pytest.mark.parametrize("agent", [None, "codex"])
def test_resuming_ends_it(queue, agent):
    """And says whether there was one."""
    job = queue.enqueue("k")
    queue.pause(agent)

    assert (queue.resume(agent), queue.resume(agent)) == (True, False)
    assert ids(queue.claim("w")) == [job]


def test_a_pause_ends_by_itself(queue, clock):
    """At its instant, and not before; an idle worker knows when."""
    job = queue.enqueue("k")
    queue.pause("codex", until=clock.now + HOUR)
    clock.advance(HOUR - MINUTE)
    early = (queue.claim("w"), queue.next_due(["codex"])[0])
    clock.advance(MINUTE)

    assert early == ([], MINUTE)
    assert ids(queue.claim("w")) == [job]
    assert queue.resume("codex") is False


@pytest.mark.parametrize("agent", [None, "codex"])
def test_while_paused_nothing_changes_any_row(queue, db, clock, picture, agent):
    """Claims, lost leases, jobs that come due or expire: all of it waits for the resume."""
    queue.enqueue("lost")
    queue.claim("w", lease=MINUTE)
    queue.enqueue("pointless", expires_at=clock.now + MINUTE)
    queue.enqueue("scheduled", run_at=clock.now + MINUTE)
    queue.enqueue("ready")
    queue.pause(agent)
    clock.advance(HOUR)
    before = picture(db)

    assert queue.claim("w", limit=9) == []
    assert queue.reclaim() == []
    assert queue.next_due()[0] is None
    assert picture(db) == before

    queue.resume(agent)
    assert queue.next_due()[0] == timedelta(0)
    assert len(queue.reclaim()) == 2
    assert len(queue.claim("w", limit=9)) == 2


def test_running_jobs_finish(queue):
    """A drain: what is held goes on as if nothing had been said."""
    jobs = [queue.enqueue("k") for _ in range(3)]
    one, two, three = queue.claim("w", limit=3)

    queue.pause()
    queue.start(one)
    queue.renew([one, two, three], MINUTE)
    queue.complete(one)
    queue.fail(two, "no", outcome="fail")
    queue.release(three)

    assert [queue.get(job).state for job in jobs] == [
        JobState.SUCCEEDED,
        JobState.FAILED,
        JobState.QUEUED,
    ]


def test_it_can_be_seen(queue, db, clock):
    """Who, why, since when, until when."""
    queue.pause("a", "deploying")
    queue.pause(reason="all", until=clock.now + MINUTE)

    rows = db.execute(
        "select agent, cause, reason, until, paused_at from moonmind_queue.paused_agent order by 1"
    ).fetchall()
    clock.advance(MINUTE)
    later = db.execute("select agent from moonmind_queue.paused_agent").fetchall()

    now = clock.now - MINUTE
    assert rows == [
        ("*", "operator", "all", now + MINUTE, now),
        ("a", "operator", "deploying", None, now),
    ]
    assert later == [("a",)]


def test_resuming_wakes_workers(here, sleeper):
    """Those of the agent, or all."""
    here.enqueue("k", agent="a")
    here.pause("a")
    here.pause()
    listener = sleeper()

    here.resume("a")
    [first] = listener.notifies(timeout=5, stop_after=1)
    listener.doze()
    here.resume()
    [second] = listener.notifies(timeout=5, stop_after=1)

    assert (first.payload, second.payload) == ("a", "a")


def test_a_pause_that_would_be_over_is_refused(queue, clock, refused):
    """A time in the past is a slip."""
    with refused("22023", "would be over already"):
        queue.pause("a", until=clock.now)


# --- cooldown ----------------------------------------------------------------------------------


def test_a_cooldown_hands_the_job_back_and_stops_the_agent(queue, clock, types):
    """No attempt is burnt, and no worker of the agent gets a job until then."""
    job = queue.enqueue("k")
    queue.enqueue("k")
    other = queue.enqueue("k", agent="other")
    [held] = queue.claim("w", start=True)

    until = queue.cool_down(held, HOUR, "usage limit reached")
    meanwhile = ids(queue.claim("v", limit=9))
    clock.advance(HOUR)

    assert until == clock.now
    assert meanwhile == [other]
    [again] = queue.claim("w")
    assert (again.id, again.attempt) == (job, 1)
    assert types(queue, job)[-2:] == ["released", "claimed"]


def test_a_longer_cooldown_stays(queue, clock):
    """Two workers report; the later end counts, whoever is second."""
    for _ in range(2):
        queue.enqueue("k")
    one, two = queue.claim("w", limit=2)

    first = queue.cool_down(one, HOUR)
    second = queue.cool_down(two, MINUTE)

    assert (first, second) == (clock.now + HOUR,) * 2


def test_lost_leases_are_taken_back_meanwhile(queue, clock):
    """A cooldown is no drain: only claims wait."""
    queue.enqueue("k")
    queue.enqueue("k")
    held, _ = queue.claim("w", limit=2, lease=MINUTE)
    queue.cool_down(held, HOUR)
    clock.advance(MINUTE)

    assert len(queue.reclaim()) == 1


def test_a_cancel_that_came_first_wins(queue):
    """The job ends; the account is used up all the same."""
    job = queue.enqueue("k")
    queue.enqueue("k")
    [held] = queue.claim("w")
    queue.cancel(job)

    queue.cool_down(held, HOUR)

    assert queue.get(job).state == JobState.CANCELLED
    assert queue.claim("w") == []


def test_a_person_may_resume(queue):
    """resume() ends a cooldown too."""
    queue.enqueue("k")
    queue.cool_down(queue.claim("w")[0], HOUR)

    assert queue.resume("codex") is True
    assert len(queue.claim("w")) == 1


@pytest.mark.parametrize("lasting", [timedelta(0), -MINUTE, timedelta(days=32)], ids=str)
def test_a_cooldown_that_makes_no_sense_is_refused(queue, refused, lasting):
    """The job stays with its holder."""
    queue.enqueue("k")
    [held] = queue.claim("w")

    with refused("22023", "a cooldown"):
        queue.cool_down(held, lasting)

    queue.complete(held)
