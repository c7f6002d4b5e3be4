"""Whole runs of ``codex_exec``: the real Codex, the real git, a scripted model."""

import json
import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
from codex_cli_bin import bundled_codex_path
from conftest import GIT
from model_server import (
    FAKE_KEY,
    Answer,
    ModelServer,
    drop,
    hang,
    http_error,
    make_codex_home,
    patch,
    say,
    shell,
)

from moonmind_queue.codex_worker.run import WorkerExecutionResult
from moonmind_queue.codex_worker.session import ROLLOUT, SESSION
from moonmind_queue.errors import ArtifactTooLarge, DatabaseUnavailable, LeaseLost
from moonmind_queue.executors import Fail, Outcome, Retry, Stopped, Unfit

PATCH = "patches/changes.patch"
ALL = [PATCH, "logs/codex_exec.log", "logs/codex_events.jsonl", "last_message.md"]
ONE_LINE, TWO_LINES = (f"+{number} \N{MINUS SIGN}0" for number in (1, 2))
ADD = "*** Begin Patch\n*** Add File: greeting.txt\n+hello\n*** End Patch"


def processes(mark: str) -> list[str]:
    """Return the command lines of processes that have this in their environment."""
    found = []
    for each in Path("/proc").glob("[0-9]*"):
        try:
            if mark.encode() in (each / "environ").read_bytes():
                found.append((each / "cmdline").read_text())
        except OSError:
            continue
    return found


def test_success(bench: Any) -> None:
    """A run that changes files ends with a patch, a log, the events, a message and a result."""
    script = [[patch(ADD)], [shell("echo more >> README.md")], [say("Done: it says hello.")]]
    ended = bench.run(script, {"codex": {"effort": "low"}})
    result = dict(ended.result)
    assert result.pop("thread_id")
    assert result.pop("usage")["output_tokens"] > 0
    assert result.pop("codex_version").startswith("0.")
    assert len(result.pop("base_commit")) == 40
    assert result == {
        "status": "succeeded",
        "summary": f"codex_exec completed: 2 files changed, {TWO_LINES}; Done: it says hello.",
        "model": "gpt-5.5",
        "exit_code": 0,
        "effect": "changes",
        "commands": {"ran": 1, "succeeded": 1},
        "patch": {
            "files": 2,
            "insertions": 2,
            "deletions": 0,
            "bytes": len(ended.context.patch),
        },
        "artifacts": ALL,
    }
    assert ended.context.files["last_message.md"] == b"Done: it says hello."
    assert b"+hello\n" in ended.context.patch
    assert "$ echo more >> README.md\n[exit status 0]\n" in ended.context.stored_log
    assert "agent: Done: it says hello.\n" in ended.context.stored_log
    assert not bench.left


def test_progress(bench: Any) -> None:
    """The job's history tells what Codex does, in order, as it happens."""
    ended = bench.run([[shell("exit 3")], [patch(ADD)], [say("Done.")]])
    messages = [(level, message) for level, message, _ in ended.context.events]
    assert [each for each in messages if not each[1].startswith("checked out")] == [
        ("info", "codex started"),
        ("info", "thread started"),
        ("warn", "command: exit 3"),
        ("info", "files changed: add greeting.txt"),
        ("info", "Done."),
        ("info", "tokens used"),
        ("info", f"1 file changed, {ONE_LINE}"),
    ]
    assert {"exit_code": 3} in [data for _, _, data in ended.context.events]


def test_no_changes(bench: Any) -> None:
    """A run that changes nothing succeeds, without a patch."""
    ended = bench.run([[say("Nothing to do.")]])
    assert ended.result["summary"] == "codex_exec completed: no changes; Nothing to do."
    assert ended.result["artifacts"] == ALL[1:]


def test_instruction_of_any_kind(bench: Any) -> None:
    """An instruction of 200 kB that begins like an option reaches the model whole."""
    instruction = "--help " + "é" * 100_000 + " end"
    seen: list[str] = []

    def script(body: dict[str, Any]) -> Any:
        seen.append(json.dumps(body, ensure_ascii=False))
        return [[say("Read.")]]

    ended = bench.run(script, {"instruction": instruction})
    assert ended.result["status"] == "succeeded"
    assert instruction in seen[0]


def test_steering_files_of_any_size(bench: Any, demo: Path) -> None:
    """What AGENTS.md says, the worker's and the repository's, reaches the model whole."""
    whole = "é" * 100_000
    (demo.parent / "source" / "AGENTS.md").write_text(f"ours {whole} to the end")
    for command in (
        ["add", "-A"],
        ["commit", "-qm", "steer"],
        ["push", "-q", demo / "demo.git", "trunk"],
    ):
        subprocess.run([*GIT, *command], cwd=demo.parent / "source", check=True)
    seen: list[str] = []

    def script(body: dict[str, Any]) -> Any:
        seen.append(json.dumps(body, ensure_ascii=False))
        return [[say("Read.")]]

    bench.run(script, steering=f"theirs {whole} to the end")
    assert f"ours {whole} to the end" in seen[0]
    assert f"theirs {whole} to the end" in seen[0]


@pytest.mark.parametrize("sandbox", ["workspace-write", "danger-full-access"])
def test_agent_sees_no_secret(bench: Any, sandbox: str) -> None:
    """The agent's environment holds no address of the queue, no token and no key."""
    ended = bench.run([[shell("env")], [say("Done.")]], sandbox=sandbox)
    assert "HOME=" in ended.context.stored_log
    for word in ("DATABASE_URL", "PGHOST", "PGPASSWORD", "GITHUB_TOKEN", "API_KEY"):
        assert f"{word}=" not in ended.context.stored_log


def test_codex_knows_its_job_and_the_commands_of_the_agent_do_not(bench: Any) -> None:
    """MOONMIND_JOB_ID is for MCP servers, which Codex starts itself."""
    of_codex = "tr '\\0' '\\n' < /proc/$PPID/environ | grep MOONMIND; echo =$MOONMIND_JOB_ID="
    ended = bench.run([[shell(of_codex)], [say("Done.")]], sandbox="danger-full-access")
    assert "\nMOONMIND_JOB_ID=7\n" in ended.context.stored_log
    assert "\n==\n" in ended.context.stored_log


def test_no_secret_leaves(bench: Any) -> None:
    """Whatever the agent finds and prints or writes, nothing secret is in what leaves."""
    secrets = [bench.environ[name] for name in ("PGPASSWORD", "GITHUB_TOKEN")]
    secrets += ["hunter2hunter2", FAKE_KEY]
    files = f"cat {bench.folder}/codex-*/auth.json"
    command = (
        f"{files}; echo {' '.join(secrets)}; echo {secrets[2]} >> README.md; {files} > key.txt"
    )
    ended = bench.run([[shell(command)], [say(f"The words are {' '.join(secrets)}.")]])
    assert ended.result["patch"]["redacted"]
    assert ended.result["artifacts"] == ALL
    everything = ended.context.everything() + repr(ended.result)
    for secret in secrets:
        assert secret not in everything
    assert b"+[REDACTED]\n" in ended.context.patch


def test_the_log_that_is_read_along_is_the_one_that_is_stored(bench: Any) -> None:
    """Line by line, redacted alike; each line with its stage, and Codex's own errors apart."""
    secret = bench.environ["GITHUB_TOKEN"]
    ended = bench.run([[shell(f"echo {secret}; echo ☃")], [say("Done.")]])

    lines = ended.context.lines
    assert "".join(f"{text}\n" for _, _, text in lines) == ended.context.stored_log
    assert "[REDACTED]\n☃" in ended.context.stored_log
    assert secret not in repr(lines)
    stages = dict.fromkeys(stage for stage, _, _ in lines)
    assert list(stages) == ["prepare", "execute", "finish"]


@pytest.mark.parametrize("folder", [".agents/skills", ".codex/skills"])
def test_a_skill_of_the_repository_is_there_by_its_name(bench: Any, folder: str) -> None:
    """An instruction that names one brings it before the agent: there is no kind of its own."""
    source = bench.folder / "source"  # the demo repository's first clone
    skill = source / folder / "release" / "SKILL.md"
    skill.parent.mkdir(parents=True)
    skill.write_text(
        "---\nname: release\ndescription: How we release.\n---\nRing the bell first.\n"
    )
    git = ["git", "-C", source, "-c", "user.name=Ada", "-c", "user.email=ada@example.org"]
    for command in (
        ["add", "-A"],
        ["commit", "-qm", "skill"],
        ["push", "-q", bench.folder / "served" / "demo.git", "trunk"],
    ):
        subprocess.run([*git, *command], check=True)
    asked: list[str] = []

    def script(body: dict[str, Any]) -> Any:
        asked.append(json.dumps(body["input"]))
        return [[say("Done.")]]

    bench.run(script, {"instruction": "Do $release for 1.2."})
    assert "Ring the bell first." in asked[0]
    asked.clear()
    bench.run(script, {"instruction": "Do nothing."})
    assert "Ring the bell first." not in asked[0]


def test_home_is_writable_for_commands(bench: Any) -> None:
    """Commands have a HOME and a TMPDIR they may write, and neither is the worker's."""
    command = 'touch "$HOME/a" "$TMPDIR/b" && case $HOME in */work/7/1/*) echo its own;; esac'
    ended = bench.run([[shell(command)], [say("Done.")]])
    assert "its own\n[exit status 0]\n" in ended.context.stored_log


@pytest.mark.parametrize(
    ("turn", "rule", "text"),
    [
        (http_error(401, message="bad key"), "authentication", "401 Unauthorized: bad key"),
        (http_error(403, message="no"), "authentication", "unexpected status 403 Forbidden"),
        (http_error(429, code="insufficient_quota"), "quota", "Quota exceeded"),
        (http_error(429, code="rate_limit"), "quota", "429"),
        (http_error(400, code="invalid_request_error", message="odd"), "refused", "odd"),
        (http_error(500), "network", "codex exec exited with 1: "),
        (http_error(503), "network", "503 Service Unavailable"),
        (drop(), "network", "stream disconnected"),
    ],
)
def test_failures(bench: Any, queue: Any, turn: Any, rule: str, text: str) -> None:
    """What the real Codex says when a model server fails is what the rules for failures know."""
    ended = bench.run([[turn]])
    assert type(ended.outcome) is Retry
    assert str(ended.outcome).startswith("codex exec exited with 1: ")
    assert text in str(ended.outcome)
    assert ended.context.stored_log.rstrip().endswith(str(ended.outcome))
    assert queue.classify_failure(ended.outcome.source, str(ended.outcome)).name == rule


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("exited with 2: error: unexpected argument '--json' found", "configuration"),
        ("exited with 1: Missing environment variable: `KEY`.", "authentication"),
        ("exited with 1: Codex ran out of room in the model's context window.", "context_exceeded"),
        ("exited with 1: The model `mock` does not exist", "refused"),
        ("exited with 101: thread 'main' panicked", None),
        ("exited with -9: it gave no reason", None),
    ],
)
def test_other_failures(queue: Any, text: str, rule: str | None) -> None:
    """Failures that a scripted model cannot bring about are told apart all the same."""
    found = queue.classify_failure("codex", f"codex exec {text}")
    assert (found and found.name) == rule


def test_work_survives_a_failure(bench: Any) -> None:
    """What was done before a failure is kept: patch, log, events, and what to go on from."""
    ended = bench.run([[patch(ADD)], [drop()]])
    assert isinstance(ended.outcome, Retry)
    assert set(ended.context.files) == {*ALL[:3], ROLLOUT, SESSION}
    assert b"+hello" in ended.context.patch


@pytest.mark.parametrize(
    ("change", "outcome", "text"),
    [
        ({"ref": "nowhere"}, Fail, "ref 'nowhere' not found in the repository"),
        ({"repository": "http://127.0.0.1:1/x.git"}, Retry, "git ls-remote exited with 128"),
        ({"repository": "-x"}, Fail, "codex_exec: repository: must be"),
    ],
)
def test_no_checkout(bench: Any, change: Any, outcome: type[Outcome], text: str) -> None:
    """Without a checkout Codex is not started, and the reason is the job's error."""
    ended = bench.run([[say("never")]], change)
    assert type(ended.outcome) is outcome
    assert text in str(ended.outcome)
    assert "last_message.md" not in ended.context.files
    assert not bench.left


def test_timeout(bench: Any) -> None:
    """A run that exceeds its time is ended and tried again, and what it did is kept."""
    ended = bench.run([[shell("echo x > new.txt; sleep 600")], [say("late")]], timeout=4)
    assert isinstance(ended.outcome, Retry)
    assert str(ended.outcome) == "the run exceeded 4 s"
    assert b"new.txt" in ended.context.patch


def test_a_model_that_never_answers(bench: Any) -> None:
    """Silence ends at the time limit too."""
    assert str(bench.run([[hang()]], timeout=3).outcome) == "the run exceeded 3 s"


@pytest.mark.parametrize("sandbox", ["workspace-write", "danger-full-access"])
def test_stop(bench: Any, recorder: Any, sandbox: str) -> None:
    """A stop leaves no process of the run, in whatever session, and keeps what was done."""
    flag = bench.workdir / "7" / "1" / "tmp" / "begun"
    command = f"echo x > new.txt; setsid sleep 700 & sleep 701 & touch {flag}; sleep 702"
    thread: list[str] = []

    def on_progress(message: str) -> None:
        if message == "thread started":
            thread.append(recorder.events[-1][2]["thread_id"])
            watcher.start()

    def stop_when_begun() -> None:
        for _ in range(1000):
            if flag.exists():
                break
            recorder.stop.wait(0.01)
        assert processes(f"CODEX_THREAD_ID={thread[0]}") or sandbox == "workspace-write"
        recorder.stop.set()

    watcher = threading.Thread(target=stop_when_begun)
    recorder.on_progress = on_progress
    ended = bench.run([[shell(command)], [say("late")]], context=recorder, sandbox=sandbox)
    watcher.join()
    assert isinstance(ended.outcome, Stopped)
    assert processes(f"CODEX_THREAD_ID={thread[0]}") == []
    assert processes(f"HOME={bench.workdir}") == []
    assert b"new.txt" in recorder.patch
    assert not bench.left


def test_stop_before_the_checkout(bench: Any, recorder: Any) -> None:
    """A run that is told to stop at once does not reach Codex."""
    recorder.stop.set()
    ended = bench.run([[say("never")]], context=recorder)
    assert isinstance(ended.outcome, Stopped)
    assert [message for _, message, _ in recorder.events] == []


def test_nothing_survives_a_normal_end(bench: Any) -> None:
    """What the agent left running ends with the run, also without a sandbox."""
    script = [[shell("setsid sleep 703 & sleep 0.2")], [say("Done.")]]
    ended = bench.run(script, sandbox="danger-full-access")
    assert processes(f"CODEX_THREAD_ID={ended.result['thread_id']}") == []


def test_patch_too_large(bench: Any) -> None:
    """A patch beyond the limit is not cut: it is not stored, and the job fails with its size."""
    script = [[shell("head -c 40000 /dev/urandom > big.bin")], [say("Done.")]]
    ended = bench.run(script, limit=20_000)
    assert isinstance(ended.outcome, Fail)
    assert "more than the 20000 of MOONMIND_ARTIFACT_MAX_BYTES (1 file changed" in str(
        ended.outcome
    )
    assert PATCH not in ended.context.files
    assert all(len(content) <= 20_000 for content in ended.context.files.values())


def test_patch_that_cannot_be_stored(bench: Any, recorder: Any) -> None:
    """Without its patch a run did not succeed: it is tried again."""
    recorder.refuse[PATCH] = DatabaseUnavailable("gone")
    ended = bench.run([[patch(ADD)], [say("Done.")]], context=recorder)
    assert isinstance(ended.outcome, Retry)
    assert str(ended.outcome) == f"{PATCH} could not be stored: gone"
    assert set(recorder.files) == set(ALL[1:])


def test_log_that_cannot_be_stored(bench: Any, recorder: Any) -> None:
    """A log that cannot be stored spoils no success; the result mentions it."""
    recorder.refuse["logs/codex_exec.log"] = ArtifactTooLarge("too large")
    ended = bench.run([[patch(ADD)], [say("Done.")]], context=recorder)
    assert ended.result["status"] == "succeeded"
    assert ended.result["warnings"] == ["logs/codex_exec.log could not be stored: too large"]


def test_upload_failure_hides_nothing(bench: Any, recorder: Any) -> None:
    """When nothing can be stored either, the reason of the failure stays the job's error."""
    recorder.refuse = dict.fromkeys(ALL, DatabaseUnavailable("gone"))
    ended = bench.run([[http_error(401, message="bad key")]], context=recorder)
    assert isinstance(ended.outcome, Retry)
    assert "bad key" in str(ended.outcome)


def test_lost_lease(bench: Any, recorder: Any) -> None:
    """A lease that is lost at the end is no failure of the job; nothing more is stored."""
    recorder.refuse = dict.fromkeys(ALL, LeaseLost("gone"))
    with pytest.raises(LeaseLost):
        bench.run([[patch(ADD)], [say("Done.")]], context=recorder)
    assert recorder.files == {}


def test_reuse(bench: Any) -> None:
    """With ``reuse`` an attempt goes on where the one before it failed."""
    reuse = {"workdirMode": "reuse"}
    first = bench.run([[patch(ADD)], [drop()]], reuse)
    assert isinstance(first.outcome, Retry)
    second = bench.run([[shell("cat greeting.txt")], [say("Done.")]], reuse, attempt=2)
    assert "$ cat greeting.txt\nhello\n[exit status 0]" in second.context.stored_log
    assert second.result["patch"]["files"] == 1
    assert not bench.left


def test_long_errors_are_bounded(bench: Any) -> None:
    """An error is at most 2000 characters, beginning and end, and without secrets."""
    message = f"begin {bench.environ['PGPASSWORD']} " + "x" * 5000 + " end"
    ended = bench.run([[http_error(503, message=message)]])
    text = str(ended.outcome)
    assert len(text) <= 2000
    assert "begin [REDACTED]" in text
    assert bench.environ["PGPASSWORD"] not in text


def test_100_megabytes_of_output(bench: Any) -> None:
    """However much Codex prints, the worker's memory and every artifact stay bounded."""
    command = f"yes {'0123456789' * 20} | head -c 1100000; exit 0"
    # Codex prints a megabyte of each; the model, who would run out of context, sees little.
    arguments = json.dumps({"cmd": command, "max_output_tokens": 20})
    flood = Answer({"type": "function_call", "name": "exec_command", "arguments": arguments})
    script = [[flood] * 10] * 10 + [[say("Done.")]]
    with ModelServer(script) as model:
        home = make_codex_home(bench.folder / "flood", model.base_url, bundled_codex_path())
        run = subprocess.run(
            [sys.executable, Path(__file__).with_name("flood.py")],
            env=bench.environ
            | {
                "CODEX_HOME": str(home),
                "MOONMIND_WORKDIR": str(bench.workdir),
                "MOONMIND_CODEX_MODEL": "gpt-5.5",
                "REPOSITORY": bench.git.url("demo.git"),
            },
            capture_output=True,
            text=True,
            check=True,
        )
    report = json.loads(run.stdout.splitlines()[-1])  # below the worker's log
    assert report["printed"] > 100_000_000
    assert report["rss"] < 150 * 1024 * 1024
    assert report["events"] <= 300
    for name in ("logs/codex_exec.log", "logs/codex_events.jsonl"):
        assert 9_000_000 < report["sizes"][name] <= 10 * 1024 * 1024
    assert report["tail"].rstrip().endswith("codex_exec completed: no changes; Done.")


def test_a_failure_says_why() -> None:
    """A failed result without an error cannot be made."""
    with pytest.raises(ValueError, match="needs an error"):
        WorkerExecutionResult(status="failed", error=" ")


def test_relative_workdir(bench: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A relative workdir works from wherever the worker was started."""
    monkeypatch.chdir(bench.folder)
    monkeypatch.setattr(type(bench), "workdir", Path("var/worker"))
    ended = bench.run([[patch(ADD)], [say("Done.")]])
    assert ended.result["patch"]["files"] == 1
    assert os.listdir("var/worker") == ["mirrors"]  # noqa: PTH208


def test_silence(bench: Any) -> None:
    """A run of which nothing is heard for too long is ended, and tried again."""
    ended = bench.run([[shell("sleep 60")]], silence=1.5)
    assert type(ended.outcome) is Retry
    assert str(ended.outcome) == "no event of codex for 1.5 s"
    assert ended.outcome.source == "run"


@pytest.mark.parametrize(
    ("command", "effect", "succeeded"),
    [("false", "commands_failed", 0), ("true", "no_changes", 1), ("echo x > y", "changes", 1)],
)
def test_effect(bench: Any, command: str, effect: str, succeeded: int) -> None:
    """Codex ends with 0 whatever it did: the result tells work from none, and from failures."""
    ended = bench.run([[shell(command)], [say("Done.")]])
    assert ended.result["effect"] == effect
    assert ended.result["commands"] == {"ran": 1, "succeeded": succeeded}


def test_a_broken_sandbox_is_no_success(bench: Any) -> None:
    """Where no command can run, Codex ends well; the job is blocked, and the worker is to end."""
    programs = bench.folder / "programs"
    programs.mkdir()
    codex = programs / "codex"
    codex.write_text(
        f'#!/bin/sh\nif test "$1" = sandbox; then echo "bwrap: no namespaces" >&2; exit 1; fi\n'
        f'exec {bundled_codex_path()} "$@"\n'
    )
    codex.chmod(0o755)
    bench.environ["PATH"] = f"{programs}:{bench.environ['PATH']}"
    ended = bench.run([[say("Nothing to do.")]])
    assert type(ended.outcome) is Unfit
    assert str(ended.outcome) == "the sandbox is broken: bwrap: no namespaces"
