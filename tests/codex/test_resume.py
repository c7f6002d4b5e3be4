"""An attempt that was cut off is gone on from: its changes and its thread, on any machine."""

import hashlib
import json
from typing import Any

import pytest
from model_server import drop, http_error, patch, say, shell

from moonmind_queue.codex_worker.session import ROLLOUT, SESSION, Session
from moonmind_queue.executors import Retry

ADD = "*** Begin Patch\n*** Add File: begun.txt\n+half\n*** End Patch"
BEGUN = [[patch(ADD)], [say("I have begun.")]]
DROPPED = [*BEGUN[:1], [drop()]]
THREAD = "01234567-89ab-cdef-0123-456789abcdef"


def asked(body: dict[str, Any]) -> str:
    """Return what was said to the agent last."""
    texts = [item for item in body["input"] if item.get("role") == "user"]
    return str(texts[-1]["content"][0]["text"])


@pytest.fixture
def said() -> list[str]:
    """What the model was asked, turn by turn."""
    return []


@pytest.fixture
def answer(said: list[str]) -> Any:
    """A model that breaks off once, and in its second thread or turn goes on."""

    def script(body: dict[str, Any]) -> Any:
        said.append(asked(body))
        if "cut off" not in said[-1]:
            return DROPPED
        return [[patch(ADD)], [shell("cat begun.txt; echo whole >> begun.txt")], [say("Done.")]]

    return script


def test_the_thread_is_resumed_with_its_changes(bench: Any, recorder: Any, answer, said) -> None:
    """On another machine: a home of Codex of its own, a work tree of its own."""
    first = bench.run(answer, context=recorder)
    assert type(first.outcome) is Retry
    assert {SESSION, ROLLOUT} <= set(recorder.files)

    second = bench.run(answer, context=recorder, attempt=2)

    assert second.result["status"] == "succeeded"
    assert second.result["thread_id"] == json.loads(recorder.files[SESSION])["thread_id"]
    assert said[-1].startswith("You were cut off: codex exec exited with 1: stream disconnected")
    assert "The work tree holds what was changed until then." in said[-1]
    assert b"+half\n+whole\n" in recorder.patch


def test_without_the_record_a_new_thread_knows_what_there_is(
    bench: Any, recorder: Any, answer: Any, said: list[str]
) -> None:
    """The record was too large, or is lost: the task again, why it ended, and the changes."""
    bench.run(answer, context=recorder)
    kept = Session.parse(recorder.files[SESSION])
    assert kept
    del recorder.files[ROLLOUT]

    second = bench.run(
        lambda body: said.append(asked(body)) or [[shell("cat begun.txt")], [say("Done.")]],
        context=recorder,
        attempt=2,
    )

    assert second.result["thread_id"] != kept.thread_id
    assert said[-1].startswith("Do it.\n\n---\nAn earlier attempt at this was cut off: codex exec")
    assert b"+half\n" in recorder.patch


def test_a_record_that_knows_more_than_was_kept_is_put_back(recorder: Any, tmp_path: Any) -> None:
    """Of an attempt that was killed: the next has none of its changes, and must not think so."""
    recorder.files[ROLLOUT] = b"what was kept\n"
    kept = Session(
        thread_id=THREAD,
        base="b",
        error="e",
        rollout=hashlib.sha256(recorder.files[ROLLOUT]).hexdigest(),
        place=f"2026/11/22/rollout-2026-11-22T10-00-00-{THREAD}.jsonl",
    )
    record = tmp_path / "sessions" / str(kept.place)
    record.parent.mkdir(parents=True)
    record.write_bytes(b"what was kept\nand all is done\n")

    assert kept.restore(recorder, tmp_path)

    assert record.read_bytes() == recorder.files[ROLLOUT]
    assert list(record.parent.iterdir()) == [record]


def test_a_record_that_codex_does_not_take_costs_nothing(
    bench: Any, recorder: Any, answer: Any, said: list[str]
) -> None:
    """A new thread is begun in the same attempt."""
    bench.run(answer, context=recorder)
    session = json.loads(recorder.files[SESSION])
    recorder.files[ROLLOUT] = b"no record\n"
    session["rollout"] = hashlib.sha256(recorder.files[ROLLOUT]).hexdigest()
    recorder.files[SESSION] = json.dumps(session).encode()

    second = bench.run(answer, context=recorder, attempt=2)

    assert second.result["status"] == "succeeded", second.outcome
    assert any("could not be resumed" in message for _, message, _ in recorder.events)
    assert said[-1].startswith("Do it.\n\n---\n")


def test_a_success_leaves_nothing_to_go_on_from(bench: Any, recorder: Any) -> None:
    """Nor does what no other attempt can mend."""
    bench.run(BEGUN, context=recorder)
    assert not {SESSION, ROLLOUT} & set(recorder.files)


def test_the_record_holds_no_secret(bench: Any, recorder: Any) -> None:
    """What the agent found is redacted there, too."""
    secret = bench.environ["GITHUB_TOKEN"]
    bench.run([[shell(f"echo {secret}")], [http_error(500)]], context=recorder)
    assert "[REDACTED]" in recorder.files[ROLLOUT].decode()
    assert secret not in recorder.everything()


@pytest.mark.parametrize(
    "change",
    [
        {"thread_id": "*"},
        {"thread_id": 5},
        {"place": "../../auth.json"},
        {"place": f"2026/11/22/rollout-2026-11-22T10-00-00-{THREAD[::-1]}.jsonl"},
        {"unknown": "x"},
        {"base": None, "error": ["x"]},
    ],
)
def test_what_is_no_session_is_left_alone(change: dict[str, Any]) -> None:
    """No path outside of Codex's sessions, no pattern, nothing of another form."""
    place = f"2026/11/22/rollout-2026-11-22T10-00-00-{THREAD}.jsonl"
    fine = {"thread_id": THREAD, "base": "b", "error": "e", "rollout": "0" * 64, "place": place}

    assert Session.parse(json.dumps(fine).encode())
    assert Session.parse(json.dumps(fine | change).encode()) is None
    assert Session.parse(b"nonsense") is None


def test_what_people_say_is_the_next_turn(bench: Any, recorder: Any) -> None:
    """In the same thread, once the turn is over; the run ends when nobody says anything more."""
    said: list[str] = []

    def script(body: dict[str, Any]) -> Any:
        said.append(asked(body))
        if len(said) == 1:
            recorder.said.append("Write it in capitals.")
        if "capitals" in said[-1]:
            return [[say("Begun.")], [shell("echo LOUD > loud.txt")], [say("Done, LOUD.")]]
        return [[say("Begun.")]]

    ended = bench.run(script, context=recorder)

    assert ended.result["status"] == "succeeded", ended.outcome
    assert said[0] == "Do it."
    assert said[-1] == "Write it in capitals."
    assert b"+LOUD\n" in recorder.patch
    assert recorder.files["last_message.md"] == b"Done, LOUD."
    assert ("info", "told the agent: Write it in capitals.", None) in recorder.events


def test_what_was_said_before_stands_below_the_task(bench: Any, recorder: Any) -> None:
    """Of a job that had not begun."""
    said: list[str] = []
    recorder.said.append("Mind the tests.")
    bench.run(lambda body: said.append(asked(body)) or [[say("Done.")]], context=recorder)
    assert said == ["Do it.\n\n---\nMind the tests."]
