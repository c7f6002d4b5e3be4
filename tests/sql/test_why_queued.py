"""Why a queued job does not run: time, a pause, a limit, no worker; and the rules that say so."""

from datetime import timedelta

import pytest

MINUTE = timedelta(minutes=1)
HOUR = timedelta(hours=1)


@pytest.fixture
def why(db):
    """The reason why a queued job does not run, None when it waits for its turn."""

    def ask(job):
        [[reason]] = db.execute(
            "select reason from moonmind_queue.queued_job where id = %s", [job]
        ).fetchall()
        return reason

    return ask


@pytest.fixture
def unserved(db):
    """What no live worker can run: (reason, number of jobs, the oldest)."""
    return lambda: db.execute(
        "select reason, jobs, oldest_job_id from moonmind_queue.unserved_lane order by 3"
    ).fetchall()


@pytest.fixture
def worker(queue):
    """Register a worker: of agent codex, for kind k, unless told otherwise."""

    def register(name="w", **options):
        return queue.register_worker(
            name,
            **{
                "agents": ["codex"],
                "kinds": ["k"],
                "capabilities": [],
                "slots": 1,
                "host": "h",
                "pid": 1,
                "version": "1",
                **options,
            },
        )

    return register


# --- pauses ------------------------------------------------------------------------------------


@pytest.mark.parametrize("whom", ["codex", None])
def test_a_paused_claim_takes_nothing_and_changes_nothing(queue, db, clock, picture, whom):
    """What runs goes on to its end, lost leases stay, and no row is touched meanwhile."""
    running, _ = queue.enqueue("k"), queue.enqueue("k")
    [held] = queue.claim("w", start=True)
    queue.pause(whom, "the API is down")
    before = picture(db)

    assert queue.claim("w", limit=10) == []
    assert queue.claim("w", agents=["codex"], limit=10) == []
    assert queue.reclaim() == []
    assert picture(db) == before
    queue.complete(held)
    assert queue.get(running).state == "succeeded"
    assert queue.claim("w") == []


def test_a_lost_lease_waits_for_the_end_of_the_pause(queue, clock):
    """Nothing comes back to a queue that nobody may take from, and then it does."""
    job = queue.enqueue("k")
    queue.claim("w")
    queue.pause("codex")
    clock.advance(HOUR)
    assert queue.reclaim() == []

    assert queue.resume("codex") is True

    assert [each.job_id for each in queue.reclaim()] == [job]


def test_a_pause_and_its_reason_are_visible_while_it_lasts(queue, db, clock, why, worker):
    """To whoever asks for the pauses, and to whoever asks for a job."""
    worker()
    job = queue.enqueue("k")
    seen = "select agent, cause, reason, until, paused_by from moonmind_queue.paused_agent"
    queue.pause("codex", "the API is down", until=clock.now + 2 * HOUR)

    assert db.execute(seen).fetchall() == [
        ("codex", "operator", "the API is down", clock.now + 2 * HOUR, db.info.user)
    ]
    assert why(job) == "agent codex is paused until 2026-01-01 02:00 UTC: the API is down"
    queue.pause(None, "maintenance")
    assert why(job) == "all agents are paused: maintenance"
    queue.resume()
    clock.advance(2 * HOUR)
    assert db.execute(seen).fetchall() == []
    worker()
    assert why(job) is None
    assert len(queue.claim("w")) == 1


def test_a_cooldown_says_so(queue, clock, why):
    """The account of all workers of an agent is used up for a while."""
    job = queue.enqueue("k")
    [held] = queue.claim("w")
    queue.cool_down(held, HOUR, "429 from the model")

    assert why(job) == "agent codex is cooling down until 2026-01-01 01:00 UTC: 429 from the model"


# --- limits ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("scope", "name", "words"),
    [
        ("agent", "codex", "agent codex is at its limit: 1 of 1 run"),
        ("kind", "*", "kind k is at its limit: 1 of 1 run"),
        ("concurrency_key", "*", "concurrency key acct is at its limit: 1 of 1 run"),
    ],
)
def test_a_limit_that_is_used_up_is_named(queue, why, worker, scope, name, words):
    """With how many run and may; the job is claimed when there is room."""
    worker()
    first, second = (queue.enqueue("k", concurrency_key="acct") for _ in range(2))
    queue.set_limit(scope, name, 1)
    assert why(second) is None
    [held] = queue.claim("w", limit=2)
    assert held.id == first

    assert why(second) == words
    queue.complete(held)
    assert why(second) is None


def test_a_limit_of_its_own_counts_before_that_of_all(queue, why, worker):
    """As in a claim."""
    worker()
    queue.set_limit("agent", "*", 0)
    job = queue.enqueue("k")
    assert why(job) == "agent codex is at its limit: 0 of 0 run"

    queue.set_limit("agent", "codex", 1)

    assert why(job) is None
    assert len(queue.claim("w")) == 1


# --- time --------------------------------------------------------------------------------------


def test_a_time_that_has_not_come_is_told(queue, clock, why):
    """Whether it was asked for or is a rest after a failure."""
    later = queue.enqueue("k", run_at=clock.now + HOUR)
    failed = queue.enqueue("k")
    [held] = queue.claim("w")
    queue.fail(held, "no")

    assert why(later) == "its time has not come"
    assert why(failed) == "it rests after an attempt that failed"


# --- workers -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (None, "no live worker serves agent codex"),
        ({"agents": ["claude"]}, "no live worker serves agent codex"),
        ({"kinds": ["shell"]}, "no live worker of agent codex runs kind k"),
        ({"capabilities": ["docker"]}, "no live worker offers all of docker, gpu"),
        ({"capabilities": ["gpu", "docker", "x"]}, None),
        ({"capabilities": ["gpu", "docker"], "agents": None, "kinds": None}, None),
    ],
)
def test_jobs_that_no_live_worker_can_run_are_reported(
    queue, worker, unserved, why, options, reason
):
    """The first thing that nobody offers is the reason; null offers all."""
    jobs = [queue.enqueue("k", capabilities=["GPU", "docker"]) for _ in range(2)]
    if options is not None:
        worker(**options)

    assert unserved() == ([(reason, 2, jobs[0])] if reason else [])
    assert why(jobs[1]) == reason


def test_offers_of_two_workers_do_not_add_up(queue, worker, unserved):
    """One serves the agent and the other the kind: neither can run the job."""
    job = queue.enqueue("k")
    worker("a", agents=["claude"])
    worker("b", kinds=["shell"])

    assert unserved() == [("no live worker of agent codex runs kind k", 1, job)]


def test_a_stale_or_stopped_worker_serves_nobody(queue, worker, unserved, clock):
    """Alive is what was seen in the last two minutes."""
    queue.enqueue("k")
    process = worker()
    assert unserved() == []

    queue.see_worker(process, stopped=True)
    assert len(unserved()) == 1
    worker()
    assert unserved() == []
    clock.advance(HOUR)
    assert len(unserved()) == 1


def test_a_job_whose_time_came_while_nobody_claimed_is_reported(queue, unserved, clock):
    """No worker moves it among the claimable ones, and it is due all the same."""
    job = queue.enqueue("k", run_at=clock.now + HOUR)
    assert unserved() == []
    clock.advance(HOUR)

    assert unserved() == [("no live worker serves agent codex", 1, job)]


def test_a_job_that_no_policy_admits_is_reported(queue, db, worker, unserved):
    """The worker is there and may not."""
    job = queue.enqueue("k", {"repository": "acme/site"})
    worker()
    assert unserved() == []
    queue.set_policy(db.info.user, repositories=["other/*"])

    assert unserved() == [("no policy of a live worker admits it", 1, job)]


# --- rules -------------------------------------------------------------------------------------


def test_the_rules_of_kinds_are_shown(queue, db):
    """A kind with one rule of its own shows null for the other: that of * counts."""
    rules = "select * from moonmind_queue.kind_rule order by kind"
    usual = ("*", timedelta(hours=4), timedelta(seconds=15), timedelta(minutes=10), 0.25)
    assert db.execute(rules).fetchall() == [usual]

    queue.set_timeout("a", HOUR)
    queue.set_backoff("b", MINUTE, cap=HOUR, jitter=0)

    assert db.execute(rules).fetchall() == [
        usual,
        ("a", HOUR, None, None, None),
        ("b", None, MINUTE, HOUR, 0.0),
    ]


@pytest.mark.parametrize("rule", ["timeout", "backoff"])
def test_what_serves_every_kind_can_be_changed_and_not_taken_away(queue, refused, db, rule):
    """Every attempt has a deadline and every failure a rest."""
    change = {"timeout": queue.set_timeout, "backoff": queue.set_backoff}[rule]
    change("*", MINUTE)

    with refused("22023", match=r"of \* can be changed, not taken away"):
        change("*", None)
    change("k", MINUTE)
    change("k", None)
    assert [kind for kind, *_ in db.execute("select * from moonmind_queue.kind_rule")] == ["*"]
