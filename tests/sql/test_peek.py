"""peek(): what a claim would take now, without taking it."""

from datetime import timedelta

import pytest

from moonmind_queue import Queue, Tokens

HOUR = timedelta(hours=1)


@pytest.fixture
def mixed(queue, clock):
    """Forty jobs of two agents, two kinds and all urgencies: due, resting, come due, too late."""
    for number in range(40):
        about = [{}, {"run_at": clock.now + HOUR}, {"run_at": clock.now + 3 * HOUR},
                 {"expires_at": clock.now + HOUR}][number % 4]  # fmt: skip
        queue.enqueue(
            "even" if number % 3 else "odd", agent=("claude", "codex")[number % 2],
            priority=number % 7, capabilities=["gpu"] if number % 5 == 0 else [], **about,
        )  # fmt: skip
    clock.advance(2 * HOUR)


@pytest.mark.parametrize(
    "asked",
    [
        {},
        {"limit": 7},
        {"limit": 1},
        {"agents": ["codex"]},
        {"kinds": ["odd"], "capabilities": ["gpu"]},
        {"agents": ["nobody"]},
        {"agents": []},
    ],
)
def test_it_is_what_a_claim_takes_next_in_that_order(queue, mixed, asked):
    """Whatever is asked for; the most urgent first."""
    asked = {"limit": 99, **asked}

    seen = queue.peek(**asked)

    assert seen == [job.id for job in queue.claim("w", **asked)]


@pytest.mark.parametrize("limited", [False, True])
def test_of_given_jobs_it_is_those_that_a_claim_takes(queue, mixed, limited):
    """One by one, with limits and without."""
    if limited:
        queue.set_limit("kind", "odd", 0)
    jobs = [row["id"] for row in queue.select("select id from moonmind_queue.job_overview")]

    seen = queue.peek(limit=99, job_ids=jobs)

    taken = [job.id for job in queue.claim("w", limit=99, job_ids=jobs)]
    assert seen == taken
    assert 0 < len(taken) < len(jobs)


def test_of_jobs_that_share_a_limit_each_is_shown_while_there_is_room(queue):
    """None once it is used up."""
    for _ in range(3):
        queue.enqueue("k")
    queue.set_limit("kind", "k", 2)

    seen = []
    for _ in range(3):
        seen.append(len(queue.peek(limit=9)))
        queue.claim("w")

    assert seen == [3, 2, 0]


@pytest.mark.parametrize("why", ["waits", "paused", "held", "over", "budget"])
def test_what_no_claim_would_take_is_not_shown(queue, why):
    """Whatever holds it back."""
    options = {"after": [queue.enqueue("other")]} if why == "waits" else {}
    job = queue.enqueue("k", {"repository": "acme/web"}, **options)
    if why == "paused":
        queue.pause("codex")
    if why in ("held", "over"):
        [held] = queue.claim("w", job_ids=[job])
        if why == "over":
            queue.complete(held)
    if why == "budget":
        queue.set_budget("agent", "codex", tokens=1)
        queue.enqueue("other", priority=9)
        queue.count_usage(queue.claim("w", start=True)[0], "thread", "model", Tokens(input=2))

    assert queue.peek(kinds=["k"]) == []
    assert queue.peek(job_ids=[job]) == []


def test_looking_changes_and_locks_nothing(queue, db, mixed, picture):
    """What has come due stays where it is until a claim moves it."""
    before = picture(db)

    queue.peek(limit=99)

    assert picture(db) == before


def test_what_another_session_has_locked_is_shown(here, session):
    """It neither waits nor knows: only a claim can tell."""
    job = here.enqueue("k")
    other = Queue(session(autocommit=False))
    other.claim("w")

    assert here.peek() == [job]
