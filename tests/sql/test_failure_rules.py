"""What a failure means: rules in a table, the first that matches counts."""

from datetime import timedelta

import pytest

MINUTE = timedelta(minutes=1)
NETWORK = "codex exec exited with 1: stream disconnected before completion"

# What programs really print (docs/failures.md), and what it means.
EXITED = "codex exec exited with 1: "
FETCH = "git fetch exited with 128: "
SAID = [
    (
        "codex",
        "quota",
        f"{EXITED}Quota exceeded. Check your plan and billing details.",
        f"{EXITED}exceeded retry limit, last status: 429 Too Many Requests",
    ),
    (
        "codex",
        "authentication",
        f"{EXITED}unexpected status 401 Unauthorized: no, url: u",
        f"{EXITED}Missing environment variable: `KEY`.",
    ),
    (
        "codex",
        "context_exceeded",
        f"{EXITED}Codex ran out of room in the model's context window. Start a new",
    ),
    ("codex", "refused", f"{EXITED}The model `mock` does not exist"),
    (
        "codex",
        "configuration",
        "codex exec exited with 2: error: unexpected argument '--full-auto' found",
    ),
    (
        "codex",
        "network",
        NETWORK,
        f"{EXITED}unexpected status 503 Service Unavailable: x",
        f"{EXITED}We're currently experiencing high demand, which may",
        f"{EXITED}Connection failed: error sending request",
    ),
    (
        "git",
        "unreachable",
        f"{FETCH}fatal: unable to access 'https://x/': Could not resolve host: x",
        f"{FETCH}fatal: unable to access 'https://x/': The requested URL returned error: 502",
        f"{FETCH}ssh: connect to host x port 22: Connection refused",
    ),
    (
        "git",
        "repository_not_found",
        f"{FETCH}fatal: repository 'https://github.com/a/b.git/' not found",
        "ref 'nowhere' not found in the repository",
    ),
    (
        "git",
        "repository_access",
        f"{FETCH}fatal: could not read Username for 'https://github.com'",
        f"{FETCH}git@github.com: Permission denied (publickey).",
    ),
    ("gh", "pull_request_access", "gh pr create failed: HTTP 401: Bad credentials"),
    ("gh", "pull_request_refused", "gh pr create failed: GraphQL: No commits between main and b"),
    ("run", "timeout", "run exceeded 3600 s"),
    ("codex", None, f"{EXITED}something never seen"),
    ("git", None, "Quota exceeded"),
]
MEANINGS = [(source, text, name) for source, name, *texts in SAID for text in texts]


@pytest.fixture
def held(queue, clock):
    """Claim the one job there is, whenever its rest is over."""
    queue.enqueue("k", max_attempts=9)

    def claim():
        clock.advance(60 * MINUTE)
        [job] = queue.claim("w", start=True)
        return job

    return claim


@pytest.mark.parametrize(("source", "text", "name"), MEANINGS)
def test_what_programs_print_has_its_meaning(queue, source, text, name):
    """Each rule that there is from the beginning, and what none is for."""
    found = queue.classify_failure(source, text)

    assert (found.name if found else None) == name


def test_a_rule_decides_the_outcome(queue, held):
    """Block with what one can do; the class is in the event."""
    job = held()

    state = queue.fail(job, "fatal: could not read Username for 'https://x'", source="git")

    assert state == "blocked"
    last = queue.history(job.id)[-1]
    assert last.data == {"class": "repository_access"}
    assert last.message.endswith("(give the worker access to the repository, then retry the job)")


def test_a_quota_lets_the_agent_rest_and_costs_no_attempt(queue, held, clock):
    """As long as the text says, else as long as the rule does."""
    job = held()
    assert queue.fail(job, "Quota exceeded. Try again in 1 h 30 min.", source="codex") == "queued"
    [pause] = queue.select("select * from moonmind_queue.paused_agent")
    assert pause["until"] == clock.now + 90 * MINUTE
    assert queue.get(job.id).attempt == 0

    queue.resume("codex")
    queue.fail(held(), "Quota exceeded.", source="codex")
    [pause] = queue.select("select * from moonmind_queue.paused_agent")
    assert pause["until"] == clock.now + 10 * MINUTE


def test_an_agent_that_is_not_logged_in_is_paused_until_somebody_resumes_it(queue, held, clock):
    """With the reason; its other jobs are not burnt one after the other."""
    queue.enqueue("k", key="other")
    assert queue.fail(held(), "unexpected status 401 Unauthorized", source="codex") == "blocked"

    [pause] = queue.select("select * from moonmind_queue.paused_agent")
    assert (pause["agent"], pause["until"]) == ("codex", None)
    assert "log Codex in on the workers" in pause["reason"]
    clock.advance(10_000 * MINUTE)
    assert queue.claim("w") == []
    queue.resume("codex")
    assert len(queue.claim("w")) == 1


def test_some_failures_are_tried_once_more_and_no_more(queue, held):
    """A run that takes too long takes too long again; a person's retry counts anew."""
    job = held()
    assert queue.fail(job, "run exceeded 5 s", source="run") == "queued"
    assert queue.fail(held(), NETWORK, source="codex") == "queued"
    assert queue.fail(held(), "run exceeded 5 s", source="run") == "failed"

    queue.retry(job.id)
    assert queue.fail(held(), "run exceeded 5 s", source="run") == "queued"


def test_without_a_rule_it_is_as_the_holder_says(queue, held):
    """And as it was before there were rules."""
    assert queue.fail(held(), "something new", source="codex") == "queued"
    assert queue.fail(held(), "something new", outcome="fail", source="codex") == "failed"


def test_rules_can_be_changed_added_and_taken_away(queue, held):
    """The first that matches counts, by place; a name stands for one rule."""
    queue.set_failure_rule("mine", "codex", "never seen", "fail", place=1, advice="call us")
    assert queue.fail(held(), "something Never Seen", source="codex") == "failed"
    queue.set_failure_rule("mine", "*", "stream", "block", place=1)
    assert queue.classify_failure("codex", NETWORK).name == "mine"
    assert queue.drop_failure_rule("mine") is True
    assert queue.drop_failure_rule("mine") is False
    assert queue.classify_failure("codex", NETWORK).name == "network"


@pytest.mark.parametrize(
    ("rule", "sqlstate"),
    [
        ({"name": None}, "22023"),
        ({"name": "No Word"}, "23514"),
        ({"pattern": "("}, "2201B"),
        ({"pattern": ""}, "23514"),
        ({"outcome": "explode"}, "23514"),
        ({"outcome": "cool_down"}, "23514"),
        ({"most": 0}, "23514"),
        ({"rest": -MINUTE}, "23514"),
    ],
)
def test_a_rule_that_cannot_work_is_refused(queue, refused, picture, db, rule, sqlstate):
    """With the constraint's name or in words; nothing is written."""
    before = picture(db)
    with refused(sqlstate):
        queue.set_failure_rule(
            **{"name": "n", "source": "codex", "pattern": "p", "outcome": "fail", **rule}
        )

    assert picture(db) == before


@pytest.mark.parametrize(
    ("text", "rest"),
    [
        ("try again in 5 minutes", 5 * MINUTE),
        ("Your limit resets in 1h 20m.", 80 * MINUTE),
        ("please retry in 30 seconds", MINUTE / 2),
        ("try again in 2 days, 3 hours", 51 * 60 * MINUTE),
        ("Retry-After: 120", 2 * MINUTE),
        ("try again in 999999 days", 31 * 24 * 60 * MINUTE),
        ("try again later", None),
        ("in 5 minutes it failed", None),
        ("try again in 0 seconds", None),
    ],
)
def test_the_wait_that_a_text_asks_for_is_read(db, text, rest):
    """In the words in which services say it; at most 31 days."""
    assert db.execute("select moonmind_queue._rest_in(%s)", [text]).fetchone() == (rest,)
