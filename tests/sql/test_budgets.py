"""Budgets: what is used up ends attempts, lets nothing begin, and says so."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest

from moonmind_queue import JobState, Queue, Tokens

DAY = timedelta(days=1)
NOON = datetime(2026, 2, 28, 12, tzinfo=UTC)
WEB = {"repository": "acme/web"}
GITHUB_WEB = "github.com/acme/web"


@pytest.fixture(autouse=True)
def noon(clock):
    """The last day of a month, so that day and month end together."""
    clock.freeze(NOON)


@pytest.fixture
def held(queue):
    """Enqueue a job and claim it."""

    def claim(payload=None, *, kind="k", agent="codex"):
        job_id = queue.enqueue(kind, payload or {}, agent=agent, max_attempts=9)
        [job] = queue.claim("w", start=True, job_ids=[job_id])
        return job

    return claim


@pytest.fixture
def use(queue):
    """Use tokens in a job; gives the verdict as (outcome, reason), or None to go on."""

    def count(job, total, model="gpt"):
        told = queue.count_usage(job, "t", model, Tokens(input=total))
        return told and (told.outcome, told.reason)

    return count


@pytest.fixture
def claimable(queue):
    """Whether a new job would be claimed."""

    def ask(payload=None, *, agent="codex"):
        job_id = queue.enqueue("k", payload or {}, agent=agent)
        claimed = queue.claim("w", job_ids=[job_id])
        queue.cancel(job_id)
        for job in claimed:
            queue.release(job)
        return bool(claimed)

    return ask


# --- what a job may use ------------------------------------------------------------------------


@pytest.mark.parametrize("total", [99, 100])
def test_the_budget_of_a_payload_is_for_all_attempts(queue, held, use, clock, total):
    """What earlier attempts used counts; the verdict comes with the token that uses it up."""
    job = held({"budget": {"tokens": 100}})
    assert use(job, 60) is None
    queue.fail(job, "no", retry_in=timedelta(0))
    [job] = queue.claim("w", start=True)

    verdict = use(job, total)

    spent = ("block", "the budget of the job is used up: 100 of 100 tokens")
    assert verdict == (spent if total == 100 else None)


def test_output_counts_as_input_does(queue, held):
    """A budget in tokens is of both together."""
    job = held({"budget": {"tokens": 100}})

    assert queue.count_usage(job, "t", None, Tokens(input=60, output=39)) is None
    assert queue.count_usage(job, "t", None, Tokens(input=60, output=40)) is not None


def test_a_budget_in_money(queue, held, use):
    """It is used up when what has a price costs that much."""
    queue.set_price("gpt", Decimal("2.5"), Decimal(10))
    job = held({"budget": {"cost": 5}})

    assert use(job, 1_000_000) is None
    assert use(job, 2_000_000) == ("block", "the budget of the job is used up: 5 of 5 USD")


def test_without_a_price_money_is_not_used_up(held, use):
    """Nobody knows what it cost."""
    job = held({"budget": {"cost": 1}})

    assert use(job, 10**12) is None


def test_the_smaller_of_two_budgets_counts(queue, held, use):
    """A payload cannot lift what an operator allows its kind, nor the other way round."""
    queue.set_budget("job", tokens=1000)
    queue.set_budget("job", "k", tokens=100)

    assert use(held({"budget": {"tokens": 500}}), 100) is not None
    assert use(held({"budget": {"tokens": 50}}), 50) is not None
    assert use(held(kind="other"), 999) is None
    assert use(held(kind="other"), 1000) is not None


@pytest.mark.parametrize("budget", ["much", {"tokens": "much"}, [], None, {"tokens": None}])
def test_another_kind_may_mean_something_else(held, use, budget):
    """What is no number of tokens in a payload bounds nothing."""
    assert use(held({"budget": budget}), 10**9) is None


def test_a_job_that_has_used_its_budget_up_gets_no_other_attempt(queue, held, use, types):
    """Whatever became of the attempt, the job is blocked with the reason instead of queued."""
    job = held({"budget": {"tokens": 100}})
    use(job, 130)

    assert queue.fail(job, "the network", retry_in=timedelta(0)) == JobState.BLOCKED

    assert queue.get(job.id).error == "the budget of the job is used up: 130 of 100 tokens"
    assert types(queue, job.id)[-3:] == ["overspent", "failed", "blocked"]


def test_a_worker_that_died_after_it_has_used_the_budget_up(queue, held, use, clock):
    """A lost lease is no way to begin again."""
    job = held({"budget": {"tokens": 100}})
    use(job, 130)
    clock.advance(timedelta(minutes=3))

    [taken] = queue.reclaim()

    assert taken.state == JobState.BLOCKED


def test_a_person_who_retries_gives_the_budget_anew(queue, held, use):
    """What was used before does not count against it; the sums have it all the same."""
    job = held({"budget": {"tokens": 100}})
    use(job, 130)
    queue.fail(job, "too much", outcome="block")
    queue.retry(job.id)
    [job] = queue.claim("w", start=True)

    assert use(job, 130) is None
    assert use(job, 229) is None
    assert use(job, 230) is not None
    assert [
        tuple(row.values())
        for row in queue.select(
            "select input_tokens, counts from moonmind_queue.job_usage order by run"
        )
    ] == [(130, False), (100, True)]


def test_the_history_tells_it_once(queue, held, use, types):
    """However often an attempt goes on to tell what it uses."""
    job = held({"budget": {"tokens": 100}})
    for total in (100, 120, 140):
        use(job, total)

    assert types(queue, job.id).count("overspent") == 1
    [event] = [event for event in queue.history(job.id) if event.type == "overspent"]
    assert (event.level, event.worker) == ("warn", "w")
    assert event.message == "the budget of the job is used up: 100 of 100 tokens"


# --- what jobs share ---------------------------------------------------------------------------


def test_a_repository_has_its_budget_under_every_spelling(queue, held, use, claimable):
    """What all its jobs used counts, and nothing of it begins; others go on."""
    queue.set_budget("repository", "https://github.com/ACME/Web.git", tokens=100)
    one, two = held(WEB), held({"repository": "git@github.com:acme/web.git"})
    assert use(one, 60) is None

    verdict = use(two, 40)

    spent = f"the budget of repository {GITHUB_WEB} for the day is used up: 100 of 100 tokens"
    assert verdict == ("release", spent)
    assert not claimable(WEB)
    assert claimable({"repository": "acme/api"})
    assert claimable()


def test_an_agent_has_its_budget(queue, held, use, claimable):
    """Of its jobs no more begin; those of others do."""
    queue.set_budget("agent", "codex", tokens=100)
    use(held(), 100)

    assert not claimable()
    assert claimable(agent="other")


def test_the_queue_has_its_budget(queue, held, use, claimable):
    """What all jobs used together counts, and none begins."""
    queue.set_budget("queue", tokens=100)
    use(held(agent="one"), 50)
    use(held(agent="two"), 50)

    assert not claimable(WEB, agent="three")


def test_a_budget_of_any_name_is_one_for_each(queue, held, use, claimable):
    """It serves each repository by itself, but not one that has its own."""
    queue.set_budget("repository", tokens=100)
    queue.set_budget("repository", "acme/big", tokens=1000)
    use(held(WEB), 100)
    use(held({"repository": "acme/api"}), 99)
    use(held({"repository": "acme/big"}), 999)

    assert not claimable(WEB)
    assert claimable({"repository": "acme/api"})
    assert claimable({"repository": "acme/big"})
    assert claimable()


@pytest.mark.parametrize(
    ("period", "whole_after"),
    [("day", timedelta(hours=12)), ("month", timedelta(hours=12)), ("total", None)],
)
def test_a_budget_is_whole_again_when_its_period_ends(
    queue, held, use, claimable, clock, period, whole_after
):
    """At midnight of UTC; one in total never is."""
    queue.set_budget("queue", period=period, tokens=100)
    use(held(), 100)
    clock.advance(timedelta(hours=12) - timedelta(seconds=1))
    assert not claimable()

    clock.advance(timedelta(seconds=1))

    assert claimable() == (whole_after is not None)


def test_a_month_is_longer_than_a_day(queue, held, use, claimable, clock):
    """What was used on its first day counts until its last."""
    clock.freeze(datetime(2026, 3, 1, tzinfo=UTC))
    queue.set_budget("queue", period="month", tokens=100)
    use(held(), 60)
    clock.freeze(datetime(2026, 3, 31, 23, 59, tzinfo=UTC))
    use(held(), 40)

    assert not claimable()
    clock.advance(timedelta(minutes=1))
    assert claimable()


def test_an_idle_worker_sleeps_until_the_budget_is_whole(queue, held, use):
    """It has nothing to claim before midnight, and wakes then."""
    queue.set_budget("queue", tokens=100)
    job = held()
    queue.enqueue("k")
    use(job, 100)
    queue.complete(job)

    due, _ = queue.next_due()

    assert due == timedelta(hours=12)


def test_a_claim_of_any_kind_is_held_back(queue, held, use):
    """A claim of many, one of given jobs and one within limits are no ways around."""
    queue.set_budget("queue", tokens=100)
    use(held(), 100)
    ids = queue.enqueue_many([{"kind": "k"}] * 3)

    assert queue.claim("w", limit=500) == []
    assert queue.claim("w", job_ids=ids) == []
    queue.set_limit("kind", "k", 9)
    assert queue.claim("w") == []


def test_what_runs_is_told_when_it_next_tells(queue, held, use):
    """Others that share the budget learn it with their next report."""
    queue.set_budget("queue", tokens=100)
    one, two = held(), held()
    use(one, 100)

    assert use(two, 1)[0] == "release"


def test_handed_back_it_waits_and_goes_on_later(queue, held, use, clock):
    """The attempt does not count, and the job is claimed again when the budget is whole."""
    queue.set_budget("queue", tokens=100)
    job = held()
    use(job, 100)
    queue.release(job, "spent")
    assert queue.claim("w") == []

    clock.advance(DAY)

    [again] = queue.claim("w")
    assert (again.id, again.attempt) == (job.id, 1)


def test_why_a_job_waits_is_told(queue, held, use, db):
    """The reason names the budget, what was used, and when it is whole again."""
    queue.set_budget("repository", "acme/web", tokens=100)
    use(held(WEB), 100)
    job_id = queue.enqueue("k", WEB)

    [[reason]] = db.execute(
        "select reason from moonmind_queue.queued_job where id = %s", [job_id]
    ).fetchall()
    assert reason == (
        f"the budget of repository {GITHUB_WEB} for the day is used up: 100 of 100 tokens,"
        " until 2026-03-01 00:00 UTC"
    )


def test_a_budget_that_is_raised_or_dropped_lets_jobs_begin(queue, held, use, claimable):
    """At once; and one that is lowered, or made, holds back at once."""
    use(held(), 100)
    assert claimable()
    queue.set_budget("queue", tokens=100)
    assert not claimable()
    queue.set_budget("queue", tokens=101)
    assert claimable()
    queue.set_budget("queue", tokens=50)
    assert not claimable()

    assert queue.drop_budget("queue")
    assert claimable()
    assert not queue.drop_budget("queue")


def test_a_price_that_is_set_later_counts(queue, held, use, claimable):
    """Budgets in money are reckoned anew with the prices; whatever is used up stands."""
    queue.set_budget("queue", cost=Decimal(3))
    use(held(), 1_000_000)
    assert claimable()

    queue.set_price("gpt", Decimal(3), Decimal(3))
    assert not claimable()
    queue.drop_price("gpt")
    assert claimable()


def test_two_that_use_the_rest_up_at_once_do_not_overlook_each_other(db, here, session, clock):
    """The second waits for the first: together they are too much, and one of them learns it."""
    one, two = Queue(session(autocommit=True)), Queue(session())
    one.set_budget("queue", tokens=100)
    one.enqueue_many([{"kind": "k"}] * 2)
    first, second = one.claim("w", limit=2, start=True)
    assert two.count_usage(second, "t", "gpt", Tokens(input=60)) is None

    one.connection.execute("set lock_timeout = '50ms'")
    with pytest.raises(Exception, match="lock timeout"):
        one.count_usage(first, "t", "gpt", Tokens(input=60))
    two.connection.commit()

    assert one.count_usage(first, "t", "gpt", Tokens(input=60)) is not None


# --- what is told of budgets -------------------------------------------------------------------


def test_the_overview_has_what_is_used(queue, held, use):
    """Each budget with its use in this period; a budget of any name once for each that has used."""
    queue.set_price("gpt", Decimal(1), Decimal(1))
    queue.set_budget("job", tokens=5)
    queue.set_budget("repository", period="month", cost=Decimal(2))
    queue.set_budget("agent", "idle", tokens=5)
    queue.set_budget("queue", tokens=2_000_000, cost=Decimal(9))
    use(held(WEB), 2_000_000)
    use(held({"repository": "acme/api"}), 500_000)

    rows = queue.select(
        "select scope, name, period, used_tokens, used_cost, used_up, until"
        " from moonmind_queue.budget_overview order by scope, name"
    )
    march = datetime(2026, 3, 1, tzinfo=UTC)
    assert [tuple(row.values()) for row in rows] == [
        ("agent", "idle", "day", 0, None, False, march),
        ("job", "*", "total", None, None, False, None),
        ("queue", "*", "day", 2_500_000, Decimal("2.5"), True, march),
        ("repository", "github.com/acme/api", "month", 500_000, Decimal("0.5"), False, march),
        ("repository", GITHUB_WEB, "month", 2_000_000, 2, True, march),
    ]


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        ({"scope": None, "tokens": 1}, "22023"),
        ({"scope": "repository", "name": "", "tokens": 1}, "22023"),
        ({"scope": "nobody", "tokens": 1}, "23514"),
        ({"scope": "queue", "name": "x", "tokens": 1}, "23514"),
        ({"scope": "job", "period": "day", "tokens": 1}, "23514"),
        ({"scope": "agent", "period": "week", "tokens": 1}, "23514"),
        ({"scope": "agent"}, "23514"),
        ({"scope": "agent", "tokens": 0}, "23514"),
        ({"scope": "agent", "cost": Decimal(-1)}, "23514"),
        ({"scope": "agent", "cost": Decimal("NaN")}, "23514"),
    ],
)
def test_a_budget_that_cannot_be_is_refused(queue, db, picture, refused, arguments, code):
    """Unknown words, names where none belong, no bound or one that is not positive."""
    before = picture(db)

    with refused(code):
        queue.set_budget(**arguments)

    assert picture(db) == before
