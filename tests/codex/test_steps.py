"""Steps: turns of one agent, in order, until one fails; published once, when all are done."""

from typing import Any

import pytest
from model_server import drop, http_error, patch, say, shell
from publishing import Publishing

from moonmind_queue import InvalidPayload
from moonmind_queue.codex_worker.payload import INSTRUCTION_LIMIT, CodexExecJobPayload
from moonmind_queue.codex_worker.session import ROLLOUT
from moonmind_queue.executors import Retry

STEPS = [
    {"name": "tests", "instruction": "Write a test."},
    {"instruction": "Mend the code."},
    {"instruction": "Say what you did."},
]


def asked(body: dict[str, Any]) -> str:
    """Return what was said to the agent last."""
    texts = [item for item in body["input"] if item.get("role") == "user"]
    return str(texts[-1]["content"][0]["text"])


def added(name: str) -> str:
    """A patch that adds a file."""
    return f"*** Begin Patch\n*** Add File: {name}\n+{name}\n*** End Patch"


@pytest.fixture
def said() -> list[str]:
    """What the model was asked, request by request."""
    return []


@pytest.fixture
def heard(said: list[str]) -> Any:
    """A model with an answer to each request of a thread, that notes what it is asked."""

    def script(answers: list[Any]) -> Any:
        return lambda body: said.append(asked(body)) or answers

    return script


def told(recorder: Any) -> list[str]:
    """What the history says of the steps."""
    return [message for _, message, _ in recorder.events if message.startswith("Step ")]


def test_each_is_a_turn_of_the_same_thread(
    bench: Any, recorder: Any, heard: Any, said: Any
) -> None:
    """In their order, in one work tree; history, log and result say how far it has come."""
    answers = [
        turn for n in (1, 2, 3) for turn in ([patch(added(f"{n}.txt"))], [say(f"That was {n}.")])
    ]

    ended = bench.run(heard(answers), {"steps": STEPS}, context=recorder)

    assert ended.result["status"] == "succeeded", ended.outcome
    assert ended.result["steps"] == {"done": 3, "of": 3}
    assert list(dict.fromkeys(said)) == [
        "Do it.\n\n---\nStep 1 of 3: tests. Do this one only: you are told the next when it is "
        "done.\n\nWrite a test.",
        "Step 2 of 3. The steps before it are done. Do this one only: you are told the next when "
        "it is done.\n\nMend the code.",
        "Step 3 of 3. The steps before it are done.\n\nSay what you did.",
    ]
    assert told(recorder) == [
        "Step 1 of 3: tests began",
        "Step 1 of 3: tests finished",
        "Step 2 of 3 began",
        "Step 2 of 3 finished",
        "Step 3 of 3 began",
        "Step 3 of 3 finished",
    ]
    assert recorder.events.count(
        ("info", "Step 2 of 3 began", {"step": 2, "of": 3, "status": "began"})
    )
    assert b"== Step 2 of 3 finished\n" in recorder.files["logs/codex_exec.log"]
    assert all(f"{number}.txt".encode() in recorder.patch for number in (1, 2, 3))
    assert recorder.files["last_message.md"] == b"That was 3."


def test_the_first_that_fails_is_the_last(bench: Any, recorder: Any, heard: Any, said: Any) -> None:
    """What the steps before it have done is kept."""

    script = [[patch(added("one.txt"))], [say("Done.")], [http_error(400)]]

    ended = bench.run(heard(script), {"steps": STEPS}, context=recorder)

    assert ended.outcome is not None
    assert told(recorder)[-2:] == ["Step 2 of 3 began", "Step 2 of 3 failed"]
    assert not any("Step 3" in each for each in said)
    assert b"one.txt" in recorder.patch


@pytest.mark.parametrize("record", [True, False])
def test_the_next_attempt_goes_on_with_the_step_that_was_cut_off(
    bench: Any, recorder: Any, heard: Any, said: list[str], record: bool
) -> None:
    """In the same thread; without its record in one of its own, which knows what is done."""

    breaks = [[patch(added("one.txt"))], [say("1")], [shell("echo half > two.txt")], [drop()]]
    more = [[say("2")], [say("3")], [say("4")], [say("5")], [say("6")]]

    assert type(bench.run(breaks, {"steps": STEPS}, context=recorder).outcome) is Retry
    if not record:
        del recorder.files[ROLLOUT]

    second = bench.run(heard(more), {"steps": STEPS}, context=recorder, attempt=2)

    assert second.result["steps"] == {"done": 3, "of": 3}
    assert "Step 2 of 3. The steps before it are done." in said[0]
    assert said[0].startswith("You were cut off" if record else "Do it.\n\n---\nAn earlier attempt")
    assert "Step 3 of 3" in said[-1]
    assert not any("Step 1" in each for each in said)
    assert b"one.txt" in recorder.patch
    assert b"two.txt" in recorder.patch


def test_steps_whose_changes_are_lost_are_done_again(
    bench: Any, recorder: Any, heard: Any, said: list[str]
) -> None:
    """The patch of the attempt before is gone: nobody is told that they are done."""
    breaks = [[patch(added("one.txt"))], [say("1")], [drop()]]
    assert type(bench.run(heard(breaks), {"steps": STEPS}, context=recorder).outcome) is Retry
    del recorder.files["patches/changes.patch"]
    said.clear()

    bench.run(heard([[say("1")]] * 6), {"steps": STEPS}, context=recorder, attempt=2)

    assert "The work tree is unchanged." in said[0]
    assert "Step 1 of 3: tests. Do this one only" in said[0]


def test_what_people_say_comes_before_the_next(bench: Any, recorder: Any, said: list[str]) -> None:
    """It is about what was done just now."""

    def script(body: dict[str, Any]) -> Any:
        said.append(asked(body))
        if len(said) == 1:
            recorder.said.append("In capitals.")
        return [[say("Done.")]] * 3

    bench.run(script, {"steps": STEPS[:2]}, context=recorder)

    assert [each.split("\n")[0] for each in said[1:]] == [
        "In capitals.",
        "Step 2 of 2. The steps before it are done.",
    ]


def test_they_are_published_once(publishing: Publishing) -> None:
    """One commit and one pull request, when all of them are done."""
    publishing.script[:] = [
        *([patch(added("one.txt"))], [say("1")]),
        *([patch(added("two.txt"))], [say("2")]),
        [say("3")],
    ]
    payload = {"repository": "acme/demo", "instruction": "Do it.", "steps": STEPS}
    job = publishing.queue.enqueue("codex_exec", {**payload, "publish": {"mode": "pr"}})
    publishing.work()

    assert publishing.queue.get(job).state == "succeeded", publishing.queue.get(job).error
    [branch] = publishing.branches()
    assert publishing.git("log", "--format=%s", f"trunk..{branch}") == "Do it."
    assert publishing.git("show", f"{branch}:one.txt", f"{branch}:two.txt") == "one.txt\ntwo.txt"
    assert len(publishing.github.pull_requests) == 1


@pytest.mark.parametrize(
    ("steps", "why"),
    [
        ("Write.", "steps: must be a list"),
        (["Write."], "steps.0: must be an object"),
        ([{}], "steps.0.instruction: is required"),
        ([{"instruction": " "}], "steps.0.instruction: must not be empty"),
        ([{"instruction": "a\0b"}], "steps.0.instruction: must not hold a NUL character"),
        (
            [{"instruction": "a", "publish": {}}],
            "steps.0.publish: unknown key; there are instruction, name",
        ),
        ([{"instruction": "a"}] * 51, "steps: there may be 50 at most"),
        (
            [{"instruction": "x" * (INSTRUCTION_LIMIT - 10)}],
            "instruction and the longest step are too long together: 1 MiB at most",
        ),
    ],
)
def test_bad_steps_are_refused(steps: Any, why: str) -> None:
    """By the producer and by the worker, before anything happens."""
    payload = {"repository": "acme/site", "instruction": "Do it.", "steps": steps}
    with pytest.raises(InvalidPayload) as refused:
        CodexExecJobPayload.parse(payload)
    assert str(refused.value) == f"codex_exec: {why}"
