"""say() and hear(): what people tell the agent at work on a job."""

from datetime import timedelta

import pytest

HOUR = timedelta(hours=1)


@pytest.fixture
def held(queue, clock):
    """A job under a lease."""
    queue.enqueue("k")
    [job] = queue.claim("w", start=True)
    return job


def test_what_is_said_is_heard_once_and_in_order(queue, held, types):
    """With an event each, that says who."""
    queue.say(held.id, "first")
    queue.say(held.id, "second")

    assert queue.hear(held) == ["first", "second"]
    assert queue.hear(held) == []
    assert types(queue, held.id).count("said") == 2
    told = queue.history(held.id)[-1]
    assert (told.message, list(told.data)) == ("second", ["by"])


def test_who_knows_nothing_of_earlier_attempts_hears_all(queue, held, clock):
    """What an attempt has heard that was cut off, and what came after."""
    queue.say(held.id, "first")
    queue.hear(held)
    queue.fail(held, "no", retry_in=timedelta(0))
    queue.say(held.id, "second")
    [later] = queue.claim("w", start=True)

    assert queue.hear(later, everything=True) == ["first", "second"]
    assert queue.hear(later) == []


def test_before_it_begins_a_job_can_be_told(queue, clock):
    """Its first attempt hears it."""
    job = queue.enqueue("k")
    queue.say(job, "mind the tests")
    [held] = queue.claim("w")

    assert queue.hear(held) == ["mind the tests"]


@pytest.mark.parametrize("end", ["complete", "cancel"])
def test_a_job_that_has_ended_hears_nothing(queue, held, refused, end):
    """It says so, instead of keeping it for nobody."""
    queue.complete(held) if end == "complete" else queue.fail(held, "no", outcome="fail")

    with refused("MQ003", "has ended"):
        queue.say(held.id, "too late")


@pytest.mark.parametrize("text", ["", "  ", "x" * 16_385])
def test_a_message_has_a_text_of_some_size(queue, held, refused, text):
    """Up to 16 KiB, for it goes into a conversation."""
    with refused("22023", "a message needs a text"):
        queue.say(held.id, text)


def test_who_has_lost_the_lease_hears_nothing(queue, held, clock, refused):
    """And takes nothing from whoever holds it now."""
    queue.say(held.id, "mind the tests")
    clock.advance(HOUR)
    queue.reclaim()

    with refused("MQ001"):
        queue.hear(held)

    assert queue.select("select heard_at from moonmind_queue.job_message") == [{"heard_at": None}]


def test_messages_go_with_their_job(queue, held, clock):
    """Pruned, nothing of them is left."""
    queue.say(held.id, "mind the tests")
    queue.complete(held)
    clock.advance(HOUR)

    assert queue.prune(HOUR / 2) == 1
    assert queue.select("select * from moonmind_queue.job_message") == []
