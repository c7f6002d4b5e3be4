"""Tokens: cumulative counters are turned into what each attempt used, priced and added up."""

from datetime import date, timedelta
from decimal import Decimal

import pytest

from moonmind_queue import Tokens

DAY = timedelta(days=1)


@pytest.fixture
def held(queue):
    """Enqueue a job and claim it."""

    def claim(payload=None, *, agent="codex"):
        job_id = queue.enqueue("k", payload or {}, agent=agent, max_attempts=9)
        [job] = queue.claim("w", start=True, job_ids=[job_id])
        return job

    return claim


@pytest.fixture
def again(queue, clock):
    """Claim the job that there is after a failure."""

    def claim(job):
        queue.fail(job, "no", retry_in=timedelta(0))
        [job] = queue.claim("w", start=True, job_ids=[job.id])
        return job

    return claim


@pytest.fixture
def used(db):
    """What each attempt of a job used: (attempt, input, cached, output, reasoning)."""

    def look(job_id):
        return db.execute(
            "select attempt, sum(input_tokens)::int, sum(cached_input_tokens)::int,"
            " sum(output_tokens)::int, sum(reasoning_tokens)::int"
            " from moonmind_queue.job_usage where job_id = %s group by run, attempt order by 1",
            [job_id],
        ).fetchall()

    return look


def tokens(total, output=0):
    """Counters of so many tokens of input, a half of them cached, and some of output."""
    return Tokens(input=total, cached_input=total // 2, output=output, reasoning=output // 2)


# --- counters become what was used -------------------------------------------------------------


def test_the_first_counters_are_what_was_used(queue, held, used):
    """A thread counts from its beginning, which is nothing; all four counters are kept."""
    job = held()

    assert queue.count_usage(job, "t", "gpt", tokens(100, 20)) is None
    assert used(job.id) == [(1, 100, 50, 20, 10)]


def test_counters_that_grow_count_what_is_new(queue, held, used):
    """Told thrice in an attempt, the last counters are its sum."""
    job = held()
    for total in (100, 250, 400):
        queue.count_usage(job, "t", "gpt", tokens(total))

    assert used(job.id) == [(1, 400, 200, 0, 0)]


def test_the_same_counters_count_once(queue, held, used):
    """A report that is sent again, because nobody heard that it arrived, changes nothing."""
    job = held()
    for _ in range(3):
        queue.count_usage(job, "t", "gpt", tokens(100, 20))

    assert used(job.id) == [(1, 100, 50, 20, 10)]


def test_a_late_report_counts_nothing(queue, held, used):
    """Counters below those that the attempt told already take nothing back."""
    job = held()
    for total in (300, 100, 310):
        queue.count_usage(job, "t", "gpt", tokens(total))

    assert used(job.id) == [(1, 310, 155, 0, 0)]


def test_a_resumed_thread_counts_what_is_new(queue, held, again, used):
    """Counters go on from the attempt before: each attempt has its own share."""
    job = held()
    queue.count_usage(job, "t", "gpt", tokens(1000, 10))
    job = again(job)
    queue.count_usage(job, "t", "gpt", tokens(1400, 16))

    assert used(job.id) == [(1, 1000, 500, 10, 5), (2, 400, 200, 6, 3)]


def test_a_fresh_thread_counts_from_nothing(queue, held, again, used):
    """What another thread of the job used is not taken off."""
    job = held()
    queue.count_usage(job, "one", "gpt", tokens(1000))
    job = again(job)
    queue.count_usage(job, "two", "gpt", tokens(200))

    assert used(job.id) == [(1, 1000, 500, 0, 0), (2, 200, 100, 0, 0)]


def test_an_older_state_of_a_thread_is_gone_on_with(queue, held, again, used):
    """An attempt that begins below what a lost one told counts what it adds to its beginning."""
    job = held()
    queue.count_usage(job, "t", "gpt", tokens(3000))
    job = again(job)
    queue.count_usage(job, "t", "gpt", tokens(5000))  # and its state was lost
    job = again(job)
    queue.count_usage(job, "t", "gpt", tokens(3000))  # where it begins
    queue.count_usage(job, "t", "gpt", tokens(3600))

    assert [row[1] for row in used(job.id)] == [3000, 2000, 600]


def test_threads_of_other_jobs_are_others(queue, held, used):
    """The same name of a thread in two jobs is two threads."""
    first, second = held(), held()
    queue.count_usage(first, "t", "gpt", tokens(100))
    queue.count_usage(second, "t", "gpt", tokens(300))

    assert used(second.id) == [(1, 300, 150, 0, 0)]


def test_an_attempt_that_changes_its_model_has_both(queue, held, db):
    """What was told under a model is that model's."""
    job = held()
    queue.count_usage(job, "t", "small", tokens(100))
    queue.count_usage(job, "t", "large", tokens(300))

    assert db.execute(
        "select model, input_tokens from moonmind_queue.job_usage order by model desc"
    ).fetchall() == [("small", 100), ("large", 200)]


def test_midnight_of_utc_divides(queue, held, db, clock):
    """An attempt that goes on over midnight has a share in both days."""
    job = held()
    queue.count_usage(job, "t", "gpt", tokens(100))
    clock.advance(DAY)
    queue.count_usage(job, "t", "gpt", tokens(150))

    assert [
        row[0]
        for row in db.execute(
            "select input_tokens from moonmind_queue.usage_by_day order by day"
        ).fetchall()
    ] == [100, 50]


def test_only_the_holder_counts(queue, held, again, used, refused):
    """A worker that lost its lease learns it, and nothing is added."""
    late = held()
    job = again(late)

    with refused("MQ001"):
        queue.count_usage(late, "t", "gpt", tokens(100))

    assert used(job.id) == []


@pytest.mark.parametrize(
    ("thread", "model", "total", "code"),
    [
        ("", "gpt", 1, "22023"),
        ("t" * 201, "gpt", 1, "22023"),
        ("t", "m" * 201, 1, "22023"),
        ("t", "gpt", -2, "23514"),
        ("t", "gpt", 2**60, "23514"),
    ],
)
def test_counters_that_cannot_be_are_refused(
    queue, held, db, picture, refused, thread, model, total, code
):
    """No thread, names too long, less than nothing, more than there is: nothing is written."""
    job = held()
    before = picture(db)

    with refused(code):
        queue.count_usage(job, thread, model, Tokens(input=total))

    assert picture(db) == before


# --- prices ------------------------------------------------------------------------------------


@pytest.fixture
def cost(db):
    """What a job cost; None where no price is known."""

    def look(job_id):
        [[cost]] = db.execute(
            "select sum(cost) from moonmind_queue.job_usage where job_id = %s", [job_id]
        ).fetchall()
        return cost

    return look


def test_a_cost_has_the_cached_input_apart(queue, held, cost):
    """Of a million tokens of input the cached half costs a tenth; thoughts are output."""
    queue.set_price("gpt", Decimal(2), Decimal(10), cached_input=Decimal("0.2"))
    job = held()
    queue.count_usage(job, "t", "gpt", tokens(1_000_000, 100_000))

    assert cost(job.id) == Decimal("1.0") + Decimal("0.1") + Decimal("1.0")


def test_cached_input_costs_what_input_does_unless_told(queue, held, cost):
    """A price of two numbers serves."""
    queue.set_price("gpt", Decimal(2), Decimal(10))
    job = held()
    queue.count_usage(job, "t", "gpt", tokens(1_000_000))

    assert cost(job.id) == 2


def test_without_a_price_the_cost_is_unknown(queue, held, cost, db):
    """It is null, never nothing; sums say how many tokens they leave out."""
    queue.set_price("other", Decimal(2), Decimal(10))
    job, priced = held(), held()
    queue.count_usage(job, "t", "gpt", tokens(70, 7))
    queue.count_usage(priced, "t", "other", tokens(1_000_000))

    assert cost(job.id) is None
    assert db.execute(
        "select cost, unpriced_tokens from moonmind_queue.usage_by_day"
    ).fetchall() == [(2, 77)]


def test_a_day_has_the_price_of_that_day(queue, held, cost, clock):
    """What was used before a price changed keeps the old one, whenever the new one is set."""
    today = clock.now.date()
    queue.set_price("gpt", Decimal(2), Decimal(2), since=today - 9 * DAY)
    early = held()
    queue.count_usage(early, "t", "gpt", tokens(1_000_000))
    clock.advance(2 * DAY)
    late = held()
    queue.count_usage(late, "t", "gpt", tokens(1_000_000))
    queue.set_price("gpt", Decimal(5), Decimal(5), since=today + DAY)

    assert (cost(early.id), cost(late.id)) == (2, 5)


def test_a_price_of_any_model_serves_those_without_one(queue, held, cost):
    """The name * is the last resort, whatever its day."""
    queue.set_price("gpt", Decimal(2), Decimal(2), since=date(2020, 1, 1))
    queue.set_price("*", Decimal(9), Decimal(9))
    named, other = held(), held()
    queue.count_usage(named, "t", "gpt", tokens(1_000_000))
    queue.count_usage(other, "t", None, tokens(1_000_000))

    assert (cost(named.id), cost(other.id)) == (2, 9)


def test_all_prices_are_in_one_currency(queue, refused):
    """Another one is refused, for costs are added up; the only price may change its own."""
    queue.set_price("gpt", Decimal(1), Decimal(1), currency="EUR")
    queue.set_price("gpt", Decimal(2), Decimal(2), currency="CHF")

    with refused("22023", "all prices are in CHF"):
        queue.set_price("other", Decimal(1), Decimal(1), currency="USD")
    queue.set_price("other", Decimal(1), Decimal(1))

    rows = queue.select("select model, currency from moonmind_queue.price_overview order by 1")
    assert [tuple(row.values()) for row in rows] == [("gpt", "CHF"), ("other", "CHF")]


def test_a_price_can_be_taken_away(queue, clock):
    """That of a day, or all of a model; whoever asks learns whether there was one."""
    today = clock.now.date()
    for since in (today - 2 * DAY, today - DAY, today):
        queue.set_price("gpt", Decimal(1), Decimal(1), since=since)

    assert queue.drop_price("gpt", today)
    assert not queue.drop_price("gpt", today)
    assert queue.drop_price("gpt")
    assert queue.select("select * from moonmind_queue.price_overview") == []


# --- sums --------------------------------------------------------------------------------------


def test_sums_are_kept_by_repository_model_agent_and_day(queue, held, db):
    """Each view adds up the same tokens in its own way."""
    web = held({"repository": "acme/web"}, agent="one")
    api = held({"repository": "https://github.com/ACME/api.git"}, agent="two")
    none = held(agent="two")
    queue.count_usage(web, "t", "large", tokens(100))
    queue.count_usage(api, "t", "large", tokens(20))
    queue.count_usage(none, "t", None, tokens(4))

    def sums(by):
        return dict(
            db.execute(f"select {by}::text, input_tokens from moonmind_queue.usage_by_{by}")
        )

    assert sums("repository") == {"github.com/acme/web": 100, "github.com/acme/api": 20, "": 4}
    assert sums("model") == {"large": 120, "": 4}
    assert sums("agent") == {"one": 100, "two": 24}
    assert list(sums("day").values()) == [124]


def test_what_was_used_outlives_its_jobs(queue, held, db):
    """A job that is pruned takes its own rows along; the sums of its day stay."""
    job = held()
    queue.count_usage(job, "t", "gpt", tokens(100))
    queue.complete(job)

    assert queue.prune(timedelta(0)) == 1

    assert db.execute("select count(*) from moonmind_queue.job_usage").fetchone() == (0,)
    assert db.execute("select count(*) from moonmind_queue.usage_thread").fetchone() == (0,)
    assert db.execute("select input_tokens from moonmind_queue.usage_by_agent").fetchone() == (100,)
