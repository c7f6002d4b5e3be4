"""What an operator reads and sets about tokens from a shell."""

import json
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest

import moonmind_queue
from moonmind_queue import Tokens

NOW = datetime(2026, 3, 15, 12, tzinfo=UTC)
DAY = timedelta(days=1)


@pytest.fixture
def queue(fresh, clock_of):
    """A queue in which two jobs of two repositories used tokens on two days."""
    clock = clock_of(fresh)
    with moonmind_queue.connect(fresh) as queue:
        for age, repository, model, total in (
            (9, "acme/site", "large", 1_000_000),
            (1, "acme/api", "small", 300_000),
        ):
            clock.freeze(NOW - age * DAY)
            queue.enqueue("k", {"repository": repository}, agent=model)
            [job] = queue.claim("w", agents=[model], start=True)
            used = Tokens(input=total, cached_input=total // 10, output=total // 100, reasoning=7)
            queue.count_usage(job, "t", model, used)
            queue.complete(job)
        clock.freeze(NOW)
        yield queue


@pytest.fixture
def rows(run, queue):
    """What a command prints as JSON."""
    return lambda *words: json.loads(run(*words, "--json").stdout)


@pytest.mark.parametrize(
    ("by", "names"),
    [
        ("day", ["2026-03-06", "2026-03-14"]),
        ("repository", ["github.com/acme/site", "github.com/acme/api"]),
        ("model", ["large", "small"]),
        ("agent", ["large", "small"]),
        ("kind", ["k"]),
        ("job", [1, 2]),
    ],
)
def test_usage_adds_up_in_every_way(rows, by, names):
    """The largest first, days in their order; the tokens are the same in each."""
    found = rows("usage", "--by", by)

    assert [row[by] for row in found] == names
    assert sum(row["input"] for row in found) == 1_300_000
    assert sum(row["cached"] for row in found) == 130_000
    assert sum(row["output"] for row in found) == 13_000
    assert sum(row["reasoning"] for row in found) == 14


@pytest.mark.parametrize(("since", "days"), [("2d", 1), ("2026-03-06", 2), ("2026-03-07", 1)])
def test_usage_begins_with_a_day(rows, since, days):
    """An age or a day, that one included."""
    assert len(rows("usage", "--since", since)) == days


def test_usage_has_what_it_costs_where_that_is_known(rows, run, queue):
    """Money for people, a number for programs; what has no price is unknown, and is told."""
    queue.set_price("large", Decimal(1), Decimal(10), since=(NOW - 9 * DAY).date())

    [large, small] = rows("usage", "--by", "model")
    assert (large["cost"], large["currency"], large["unpriced"]) == (1.1, "USD", 0)
    assert (small["cost"], small["unpriced"]) == (None, 303_000)

    told = run("usage", "--by", "model").stdout
    assert "1.10 USD" in told
    assert "unknown" in told
    assert "303000 tokens have no price" in told


def test_nothing_used_is_told(run, fresh):
    """In words for people, as no rows for programs."""
    assert run("usage").stdout == "no tokens were used since then\n"
    assert run("usage", "--json").stdout == "[]\n"


def test_prices_are_set_listed_and_taken_away(run, rows):
    """With a day and a currency where they are given."""
    run("usage", "price", "set", "large", "1.25", "10", "--cached", "0.125", "--currency", "EUR")
    told = run("usage", "price", "set", "*", "3", "15", "--since", "2026-01-01").stdout
    assert told == "a million tokens of * cost 3 EUR, written ones 15\n"

    anything, large = rows("usage", "price", "ls")
    assert anything == {
        "model": "*",
        "since": "2026-01-01",
        "input": 3.0,
        "cached_input": 3.0,
        "output": 15.0,
        "currency": "EUR",
    }
    assert (large["since"], large["cached_input"]) == ("2026-03-15", 0.125)

    assert run("usage", "price", "rm", "large").stdout == "the price of large is gone\n"
    gone = run("usage", "price", "rm", "large")
    assert gone.returncode == 1
    assert "large has no such price; see: moonmind-queue usage price ls" in gone.stderr


def test_budgets_are_set_listed_and_taken_away(run, rows, queue):
    """With what is used of each in this period."""
    run("usage", "budget", "set", "queue", "--per", "month", "--tokens", "1.3M")
    run("usage", "budget", "set", "repository", "acme/site", "--cost", "20")
    run("usage", "budget", "set", "job", "--tokens", "500k", "--cost", "2.5")

    job, whole, site = rows("usage", "budget", "ls")
    assert (job["tokens"], job["cost"], job["used_tokens"]) == (500_000, 2.5, None)
    assert (whole["period"], whole["used_tokens"], whole["used_up"]) == ("month", 1_313_000, True)
    assert (site["name"], site["period"], site["used_tokens"]) == ("github.com/acme/site", "day", 0)
    told = run("usage", "budget", "ls").stdout
    assert "1.313e+06" not in told
    assert "1313000 of 1300000 tokens" in told
    assert "used up" in told

    rm = run("usage", "budget", "rm", "queue")
    assert rm.stdout == "the budget of the queue is gone\n"
    assert "has no such budget" in run("usage", "budget", "rm", "queue").stderr


def test_a_budget_bounds_something(run, fresh):
    """Without a number there is nothing to set."""
    refused = run("usage", "budget", "set", "queue")

    assert refused.returncode == 2
    assert "Give --tokens, --cost or both." in refused.stderr
