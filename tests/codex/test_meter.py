"""What a run uses is told while it runs, however it ends; a budget that is used up ends it."""

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import press
import pytest
from codex_cli_bin import bundled_codex_path
from git_server import GitServer
from model_server import MODEL, ModelServer, http_error, make_codex_home, say, shell
from waiting import eventually

from moonmind_queue import connect
from moonmind_queue.codex_worker.journal import Journal
from moonmind_queue.codex_worker.meter import Meter
from moonmind_queue.codex_worker.transcript import Transcript
from moonmind_queue.executors import Retry, Stopped
from moonmind_queue.model import Tokens
from moonmind_queue.redact import Redactor

THREAD = "0199aaaa-0000-7000-8000-000000000001"


def until(path: Path) -> Any:
    """Return a command of the agent that ends when a file is there."""
    return shell(f"until test -e {path}; do sleep 0.05; done")


def test_a_run_tells_what_it_uses_before_it_ends(bench: Any, recorder: Any) -> None:
    """Its second command waits for the counters of the first answer: without them it never ends."""
    seen = bench.folder / "seen"
    count = recorder.count_usage

    def note(*arguments: Any, **options: Any) -> None:
        count(*arguments, **options)
        seen.touch()

    recorder.count_usage = note
    ended = bench.run([[shell("true")], [until(seen)], [say("Done.")]], context=recorder)

    first, last = recorder.counted[0], recorder.counted[-1]
    assert first[0] == last[0] == ended.result["thread_id"]
    assert first[1] == last[1] == MODEL
    assert 0 < first[2].input < last[2].input
    usage = ended.result["usage"]
    assert (last[2].input, last[2].output) == (usage["input_tokens"], usage["output_tokens"])


def test_what_people_say_is_counted_too(bench: Any, recorder: Any) -> None:
    """Another turn of the same thread: its counters go on, and what is told last is all of it."""
    told: list[int] = []

    def script(_: Any) -> Any:
        told.append(len(recorder.counted))
        if len(told) == 1:
            recorder.said.append("And the tests?")
        return [[say("Done.")], [say("They pass.")]]

    ended = bench.run(script, context=recorder)

    threads = {each[0] for each in recorder.counted}
    first, last = recorder.counted[0][2], recorder.counted[-1][2]
    assert len(told) == 2
    assert threads == {ended.result["thread_id"]}
    assert 0 < first.input < last.input == ended.result["usage"]["input_tokens"]


def test_a_run_that_fails_has_told_what_it_used(bench: Any) -> None:
    """Codex prints no counters of a turn that failed; its file has them."""
    ended = bench.run([[shell("true")], [http_error(500)]])

    assert isinstance(ended.outcome, Retry)
    assert ended.context.counted[-1][2].input > 0


def test_a_run_that_is_stopped_has_told_what_it_used(bench: Any, recorder: Any) -> None:
    """Whoever counts may stop it, as a budget does; the command under way is ended."""
    count = recorder.count_usage

    def end(*arguments: Any, **options: Any) -> None:
        count(*arguments, **options)
        recorder.stop.set()

    recorder.count_usage = end
    script = [[shell("true")], [until(bench.folder / "never")]]
    ended = bench.run(script, context=recorder)

    assert isinstance(ended.outcome, Stopped)
    assert recorder.counted[-1][2].input > 0


# --- the file --------------------------------------------------------------------------------


@pytest.fixture
def transcript(tmp_path: Path, recorder: Any) -> Iterator[Transcript]:
    """The transcript of a run whose thread is known."""
    (tmp_path / "artifacts").mkdir()
    journal = Journal(tmp_path / "artifacts", Redactor([]), 10_000, recorder)
    transcript = Transcript(journal, tmp_path)
    transcript.stdout(json.dumps({"type": "thread.started", "thread_id": THREAD}).encode())
    yield transcript
    journal.close()


def record(at: datetime, **payload: Any) -> str:
    """Return a line of Codex's file."""
    return json.dumps({"timestamp": at.isoformat(), "type": "event_msg", "payload": payload}) + "\n"


def counted(at: datetime, total: int) -> str:
    """Return the line that has the counters of an answer."""
    usage = {"input_tokens": total, "cached_input_tokens": total // 2, "output_tokens": 9}
    usage["reasoning_output_tokens"] = 3
    return record(at, type="token_count", info={"total_token_usage": usage})


@pytest.fixture
def rollout(tmp_path: Path) -> Path:
    """Codex's file of the thread."""
    folder = tmp_path / "codex" / "sessions" / "2026" / "01" / "01"
    folder.mkdir(parents=True)
    return folder / f"rollout-2026-01-01T00-00-00-{THREAD}.jsonl"


def tokens(total: int) -> Tokens:
    """Return those counters as they are told."""
    return Tokens(input=total, cached_input=total // 2, output=9, reasoning=3)


def test_where_a_resumed_thread_begins_is_told_first(
    tmp_path: Path, recorder: Any, transcript: Transcript, rollout: Path
) -> None:
    """Counters from before the run are no use of it; the database learns where they stood."""
    earlier, later = (datetime.now(UTC) + sign * timedelta(hours=1) for sign in (-1, 1))
    rollout.write_text(counted(earlier, 100) + counted(earlier, 300))
    with Meter(recorder, transcript, tmp_path / "codex", "asked"), rollout.open("a") as file:
        file.write(record(later, type="turn_context", model="used"))
        file.write(counted(later, 340) + counted(later, 400))

    assert [each[2] for each in recorder.counted] == [tokens(300), tokens(400)]
    assert recorder.counted[-1][:2] == (THREAD, "used")


def test_what_is_no_counter_is_passed_over(
    tmp_path: Path, recorder: Any, transcript: Transcript, rollout: Path
) -> None:
    """Lines that are broken, half written or of another kind harm nobody."""
    now = datetime.now(UTC)
    lines = [
        counted(now, 100),
        "{token_count\n",
        record(now, type="token_count", info=None),
        '{"timestamp": "some day", "payload": {"type": "token_count"}}\n',
        "[" * 20_000 + '"token_count"\n',
        counted(now, 200),
        counted(now, 300).rstrip("\n"),
    ]
    rollout.write_text("".join(lines))
    with Meter(recorder, transcript, tmp_path / "codex", None):
        pass

    assert recorder.counted[-1][2] == tokens(200)


def test_a_thread_that_takes_the_place_of_another_is_counted_anew(
    tmp_path: Path, recorder: Any, transcript: Transcript, rollout: Path
) -> None:
    """One that could not be resumed is followed by another, with a file and counters of its own."""
    now = datetime.now(UTC)
    other = THREAD.replace("1", "2")
    with Meter(recorder, transcript, tmp_path / "codex", "asked"):
        rollout.write_text(counted(now, 300))
        eventually(lambda: recorder.counted)
        rollout.with_name(rollout.name.replace(THREAD, other)).write_text(counted(now, 100))
        started = {"type": "thread.started", "thread_id": other}
        transcript.stdout(json.dumps(started).encode())

    assert [(each[0], each[2]) for each in recorder.counted] == [
        (THREAD, tokens(300)),
        (other, tokens(100)),
    ]


def test_without_a_file_what_codex_prints_is_told(
    tmp_path: Path, recorder: Any, transcript: Transcript
) -> None:
    """A Codex that keeps no conversations tells what it used at the end."""
    usage = {"input_tokens": 10, "cached_input_tokens": 4, "output_tokens": 2}
    with Meter(recorder, transcript, tmp_path / "codex", "asked"):
        transcript.stdout(json.dumps({"type": "turn.completed", "usage": usage}).encode())

    assert recorder.counted == [(THREAD, "asked", Tokens(input=10, cached_input=4, output=2))]


# --- on a real queue -------------------------------------------------------------------------


@pytest.fixture
def script() -> list[Any]:
    """What the model says next; a test may change it between two attempts."""
    return []


@pytest.fixture
def surroundings(
    tmp_path: Path, remote: GitServer, fresh: str, script: list[Any]
) -> Iterator[dict[str, Any]]:
    """What the worker is given, on a queue of its own."""
    (tmp_path / "home").mkdir()
    with ModelServer(lambda _: script) as model:
        codex = make_codex_home(tmp_path / "codex", model.base_url, bundled_codex_path())
        yield {
            "dsn": fresh,
            "environ": {
                "PATH": "/usr/bin:/bin",
                "HOME": str(tmp_path / "home"),
                "CODEX_HOME": str(codex),
            },
            "workdir": str(tmp_path / "work"),
            "model": MODEL,
            "identity": ("Ada", "ada@example.org"),
        }


def test_a_resumed_thread_counts_once(
    remote: GitServer, surroundings: dict[str, Any], script: list[Any]
) -> None:
    """Two attempts in one thread, whose counters go on: their shares are what it used in all."""
    with connect(surroundings["dsn"]) as queue:
        payload = {"repository": remote.url("demo.git"), "instruction": "Do it."}
        job_id = queue.enqueue("codex_exec", payload)
        queue.set_backoff("codex_exec", timedelta(milliseconds=1))
        script[:] = [[shell("true")], [http_error(500)]]
        assert press.work(surroundings)
        script[1:] = [[say("Done.")]]
        eventually(lambda: press.work(surroundings))  # when it has rested

        job = queue.get(job_id)
        assert job.state == "succeeded", job.error
        used = queue.select(
            "select attempt, input_tokens as input from moonmind_queue.job_usage order by attempt"
        )
        assert [row["attempt"] for row in used] == [1, 2]
        assert all(row["input"] > 0 for row in used)
        assert sum(row["input"] for row in used) == job.result["usage"]["input_tokens"]


@pytest.mark.parametrize(
    ("shared", "state"), [(False, "blocked"), (True, "queued")], ids=["its own", "the repository's"]
)
def test_a_budget_ends_the_run_that_uses_it_up(
    tmp_path: Path,
    remote: GitServer,
    surroundings: dict[str, Any],
    script: list[Any],
    shared: bool,
    state: str,
) -> None:
    """Codex is ended in the middle of its turn; what it has done by then is kept."""
    script[:] = [[shell("echo more >> README.md")], [until(tmp_path / "never")]]
    payload: dict[str, Any] = {"repository": remote.url("demo.git"), "instruction": "Do it."}
    with connect(surroundings["dsn"]) as queue:
        if shared:
            queue.set_budget("repository", payload["repository"], tokens=100)
        else:
            payload["budget"] = {"tokens": 100}
        job_id = queue.enqueue("codex_exec", payload)
        assert press.work(surroundings)

        job = queue.get(job_id)
        assert (job.state, job.attempt) == (state, 0 if shared else 1)
        types = [event.type for event in queue.history(job_id)]
        assert types.count("overspent") == 1
        assert types[-1] == ("released" if shared else "blocked")
        assert "patches/changes.patch" in [each.name for each in queue.artifacts(job_id)]
        [used] = queue.select("select model, input_tokens from moonmind_queue.job_usage")
        assert used["model"] == MODEL
        assert used["input_tokens"] >= 100
        assert queue.claim("w") == []
