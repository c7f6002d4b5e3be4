"""A worker ends the attempts that use a budget up, whatever their executor."""

from collections.abc import Callable, Mapping
from typing import Any

import pytest
from waiting import eventually

import moonmind_queue
from moonmind_queue import ClaimedJob, Context, Stopped, Tokens
from moonmind_queue.executors.noop import Noop

MUCH = Tokens(input=100)


class Handled(Noop):
    """An executor made of a function."""

    def __init__(self, run: Callable[[ClaimedJob, Context], Mapping[str, Any]]) -> None:
        self._function = run

    def run(self, job: ClaimedJob, context: Context) -> Mapping[str, Any]:
        """Call the function."""
        return self._function(job, context)


@pytest.fixture
def produce(fresh):
    """A client whose work is committed at once."""
    with moonmind_queue.connect(fresh) as queue:
        yield queue


def works_on(job, context):
    """Use tokens, and go on until told to stop."""
    context.count_usage("t", "gpt", MUCH)
    context.stop.wait(30)
    raise Stopped("told to stop")


def has_done(job, context):
    """Use tokens, and be done."""
    context.count_usage("t", "gpt", MUCH, done=True)
    return {"stopped": context.stop.is_set()}


def test_a_job_that_overspends_is_blocked(start, produce):
    """Its work is told to stop, and the reason is the job's error."""
    produce.set_budget("job", "noop", tokens=100)
    job = produce.enqueue("noop")

    start({"noop": Handled(works_on)})

    eventually(lambda: produce.get(job).state == "blocked")
    assert produce.get(job).error == "the budget of the job is used up: 100 of 100 tokens"


def test_a_job_whose_budget_others_share_is_handed_back(start, produce):
    """The attempt does not count, and nobody claims it while the budget is used up."""
    produce.set_budget("queue", period="total", tokens=100)
    job = produce.enqueue("noop")

    start({"noop": Handled(works_on)})

    eventually(lambda: produce.history(job)[-1].type == "released")
    found = produce.get(job)
    assert (found.state, found.attempt) == ("queued", 0)
    reason = "the budget of the queue is used up: 100 of 100 tokens"
    assert produce.history(job)[-1].message == reason

    produce.drop_budget("queue")
    eventually(lambda: [e.type for e in produce.history(job)].count("started") == 2)


def test_work_that_is_done_is_not_thrown_away(start, produce):
    """The money is spent, and there is nothing left to end: the job has succeeded."""
    produce.set_budget("job", "noop", tokens=100)
    job = produce.enqueue("noop")

    start({"noop": Handled(has_done)})

    eventually(lambda: produce.get(job).state == "succeeded")
    assert produce.get(job).result == {"stopped": False}
    assert "overspent" in [event.type for event in produce.history(job)]
