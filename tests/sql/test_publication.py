"""Steps outside of the database: written before and after, by the lease holder, gone on from."""

from datetime import timedelta

import pytest

HOUR = timedelta(hours=1)


@pytest.fixture
def held(queue, clock):
    """A job under a lease."""
    queue.enqueue("k")
    [job] = queue.claim("w", start=True)
    return job


def again(queue, job, clock):
    """The same job, claimed by another worker after its lease has run out."""
    clock.advance(HOUR)
    queue.reclaim()
    clock.advance(HOUR)
    [later] = queue.claim("other", start=True)
    assert later.id == job.id
    return later


def test_a_step_is_begun_and_done(queue, held, clock, types):
    """With what it makes and what is to be remembered; one event, when it is done."""
    begun = queue.begin_step(held, "push", "abc", {"branch": "b"})
    assert (begun.done, begun.data, begun.begun_at) == (False, {"branch": "b"}, clock.now)
    assert "published" not in types(queue, held.id)
    clock.advance(HOUR / 100)
    queue.end_step(held, "push", "abc", {"url": "u"})

    [step] = queue.steps(held.id)
    assert (step.step, step.content, step.done) == ("push", "abc", True)
    assert step.data == {"branch": "b", "url": "u"}
    told = queue.history(held.id)[-1]
    assert (told.type, told.message) == ("published", "push")
    assert told.data == {"content": "abc", "url": "u"}


def test_the_next_attempt_finds_what_was_begun_and_what_was_done(queue, held, clock):
    """With the first one's data and instant, whatever it says itself."""
    first = queue.begin_step(held, "branch", data={"name": "mine"})
    queue.end_step(held, "branch")
    queue.begin_step(held, "push", "abc")
    later = again(queue, held, clock)

    assert [(step.step, step.done) for step in queue.steps(held.id)] == [
        ("branch", True), ("push", False),
    ]  # fmt: skip
    branch = queue.begin_step(later, "branch", data={"name": "other"})
    assert (branch.data, branch.done, branch.begun_at) == ({"name": "mine"}, True, first.begun_at)
    assert queue.pushed(held.id) == ["abc"]


def test_done_twice_is_told_once(queue, held, types):
    """Nor does the instant change at which it was done."""
    for _ in range(2):
        queue.begin_step(held, "push", "abc")
        queue.end_step(held, "push", "abc")

    assert types(queue, held.id).count("published") == 1


def test_who_has_lost_the_lease_begins_nothing(queue, held, clock, refused, picture):
    """Refused immediately before the effect; and it ends nothing that another has begun."""
    queue.begin_step(held, "push", "abc")
    later = again(queue, held, clock)
    before = picture(queue.connection)

    with refused("MQ001"):
        queue.begin_step(held, "push", "def")
    with refused("MQ001"):
        queue.end_step(held, "push", "abc")

    assert picture(queue.connection) == before
    queue.end_step(later, "push", "abc")


def test_a_step_that_was_not_begun_cannot_have_happened(queue, held, refused):
    """By its name and by what it makes."""
    queue.begin_step(held, "push", "abc")

    with refused("22023", "step push of job .* was not begun"):
        queue.end_step(held, "push", "def")


def test_a_job_that_a_person_retries_begins_anew(queue, held):
    """Where it stopped does not count; what it has pushed still does."""
    queue.begin_step(held, "push", "abc")
    queue.fail(held, "no", outcome="fail")
    queue.retry(held.id)
    [later] = queue.claim("w", start=True)

    assert queue.steps(held.id) == []
    assert queue.pushed(held.id) == ["abc"]
    queue.begin_step(later, "push", "def")
    assert [step.content for step in queue.steps(held.id)] == ["def"]


@pytest.mark.parametrize(
    ("step", "content", "data", "sqlstate"),
    [
        ("Push", "", {}, "23514"),
        ("", "", {}, "23514"),
        ("push", "x" * 501, {}, "23514"),
        ("push", "", {"x": "x" * 70_000}, "22023"),
    ],
)
def test_what_cannot_be_kept_is_refused(queue, held, refused, step, content, data, sqlstate):
    """By name, and nothing is written."""
    with refused(sqlstate):
        queue.begin_step(held, step, content, data)

    assert queue.steps(held.id) == []


def test_steps_go_with_their_job(queue, held, clock):
    """Pruned, nothing of them is left."""
    queue.begin_step(held, "push", "abc")
    queue.complete(held)
    clock.advance(HOUR)

    assert queue.prune(HOUR / 2) == 1
    assert queue.select("select * from moonmind_queue.job_publication") == []


def test_the_newest_artifact_of_a_name_is_one_since_a_person_retried(queue, held, clock):
    """What a later attempt goes on from; a job that a person retries begins anew."""
    queue.put_artifact(held, "codex/session.json", b"one")
    assert queue.latest_artifact(held.id, "notes.txt") is None
    later = again(queue, held, clock)
    queue.put_artifact(later, "codex/session.json", b"two")
    found = queue.latest_artifact(held.id, "codex/session.json")
    assert found
    assert b"".join(queue.read_artifact(found)) == b"two"

    clock.advance(HOUR / 60)
    queue.fail(later, "no", outcome="fail")
    queue.retry(held.id)

    assert queue.latest_artifact(held.id, "codex/session.json") is None
