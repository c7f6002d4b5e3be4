"""Calls of a real server that is a program: what it answers, how it ends, and that it is gone."""

import base64
import json
import os
import time
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from mcp_bench import SECRET, STDIO, Bench, Recorder, make_job

from moonmind_queue import Worker
from moonmind_queue.errors import InvalidPayload, LeaseLost, NotAllowed, SettingsError
from moonmind_queue.executors import Block, Fail, Retry, Stopped, checked, find
from moonmind_queue.executors.mcp_call import LOG, McpCall
from moonmind_queue.settings import Settings


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    """An executor that knows the toolbox."""
    return Bench(tmp_path)


# --- the payload --------------------------------------------------------------------------------


def test_the_kind_is_installed() -> None:
    """Producers and workers find the executor by its kind, and it checks their payloads."""
    assert find("mcp-call") is McpCall
    with pytest.raises(InvalidPayload):
        checked("mcp-call", {})


def test_a_payload() -> None:
    """Server and tool are all that is needed; a task's ``kind`` may stand beside them."""
    for payload in (
        {"server": "a", "tool": "b"},
        {"server": "a", "tool": "b", "arguments": {"x": 1}, "timeout": 0.5, "kind": "mcp-call"},
    ):
        assert McpCall.validate(payload) == payload


@pytest.mark.parametrize(
    ("payload", "words"),
    [
        ({}, "server: is required; tool: is required"),
        ({"server": "", "tool": 3}, "server: must be a name of at most 200 characters; "
         "tool: must be a name of at most 200 characters"),
        ({"server": "a", "tool": "b" * 201}, "tool: must be a name of at most 200 characters"),
        ({"server": "a", "tool": "b", "arguments": []}, "arguments: must be an object"),
        ({"server": "a", "tool": "b", "args": {}}, "args: unknown key; there are server, tool, "
         "arguments, timeout"),
        ({"server": "a", "tool": "b", "timeout": 0}, "timeout: must be a number of seconds "
         "above 0"),
        ({"server": "a", "tool": "b", "timeout": True}, "timeout: must be a number of seconds "
         "above 0"),
        ({"server": "a", "tool": "b", "timeout": "1"}, "timeout: must be a number of seconds "
         "above 0"),
        ({"server": "a", "tool": "b", "timeout": 10**400}, "timeout: must be a number of seconds "
         "above 0"),
    ],
)  # fmt: skip
def test_a_bad_payload(payload: dict[str, Any], words: str) -> None:
    """Every member at fault is named with what it must be."""
    with pytest.raises(InvalidPayload) as refused:
        McpCall.validate(payload)
    assert str(refused.value) == f"mcp-call: {words}"


# --- what is permitted --------------------------------------------------------------------------


def test_a_server_that_is_not_there(bench: Bench) -> None:
    """A job for an unknown server waits for a person, who reads which servers there are."""
    bench.servers |= {"also": STDIO, "off": STDIO | {"disabled": True}}
    words = bench.call("echo", server="other").raised(Block)
    assert words == f"server 'other' is not in {bench.folder}/mcp.json; there are: also, box"
    assert "there are: also, box" in bench.call("echo", server="off").raised(Block)


def test_a_tool_that_is_not_allowed(bench: Bench) -> None:
    """A tool outside the list is blocked before the server is started."""
    started = bench.folder / "started"
    bench.servers["box"] = {
        "command": "touch", "args": [str(started)], "tools": ["echo", "add"],
    }  # fmt: skip

    ended = bench.call("die", {"nap": "1"})

    assert ended.raised(Block) == (
        f"tool 'die' of server 'box' is not allowed by {bench.folder}/mcp.json; "
        "allowed are: add, echo"
    )
    assert not started.exists()
    bench.call("echo", {"text": "x"}).raised(Retry)  # this one is started, and is no server
    assert started.exists()


def test_a_tool_that_the_server_has_not(bench: Bench) -> None:
    """An allowed tool that the server does not list is blocked with those that it lists."""
    words = bench.call("ecco").raised(Block)
    assert words.startswith("server 'box' has no tool 'ecco'; there are add, chatter, die, echo, ")


@pytest.mark.parametrize("text", ["{", '{"mcpServers": {"box": {"command": "${NOT_SET}"}}}'])
def test_a_file_that_became_bad(bench: Bench, text: str) -> None:
    """A file that cannot be used blocks the job in words; the file is read for each call."""
    executor = bench.executor()
    (bench.folder / "mcp.json").write_text(text)
    with pytest.raises(Block, match=r"^MOONMIND_MCP_CONFIG: /.*/mcp.json: "):
        executor.run(make_job({"server": "box", "tool": "echo"}), Recorder())


def test_without_a_file(tmp_path: Path) -> None:
    """A worker without servers starts, and blocks jobs of the kind with the setting to set."""
    executor = McpCall(None, environ={}, run_timeout=1, artifact_max_bytes=1)
    executor.check()
    with pytest.raises(Block, match="set MOONMIND_MCP_CONFIG to the file that lists them"):
        executor.run(make_job({"server": "box", "tool": "echo"}), Recorder())


def test_the_check_reads_the_file(bench: Bench) -> None:
    """A worker starts with a good file, not with a bad one or one that lacks a variable."""
    bench.executor().check()
    bench.servers["site"] = {"url": "https://example.com", "headers": {"A": "${SITE_TOKEN}"}}
    with pytest.raises(SettingsError, match=r"mcpServers.site.headers.A: the variable SITE_TOKEN"):
        bench.executor().check()
    bench.environ["SITE_TOKEN"] = "x"
    bench.executor().check()
    missing = McpCall(bench.folder / "x", environ={}, run_timeout=1, artifact_max_bytes=1)
    with pytest.raises(SettingsError, match=r"/x cannot be read: No such file"):
        missing.check()


def test_the_setting(monkeypatch: pytest.MonkeyPatch, bench: Bench) -> None:
    """MOONMIND_MCP_CONFIG names the file, from wherever the worker was started."""
    bench.executor()
    monkeypatch.chdir(bench.folder)
    monkeypatch.setenv("DATABASE_URL", "postgresql://h/d")
    monkeypatch.setenv("MOONMIND_MCP_CONFIG", "mcp.json")
    settings = Settings.load()
    assert settings.mcp_config == bench.folder / "mcp.json"
    McpCall.configure(settings).check()


# --- answers ------------------------------------------------------------------------------------


def test_a_text(bench: Bench) -> None:
    """What the tool said is the job's result and an artifact, beside the whole answer."""
    ended = bench.call("echo", {"text": "grüß dich"})

    seconds = ended.result["seconds"]
    assert ended.result == {
        "status": "ok", "server": "box", "tool": "echo", "text": "grüß dich",
        "artifacts": ["content/0.txt", "response.json", LOG], "seconds": seconds,
    }  # fmt: skip
    assert 0 < seconds < ended.seconds
    assert ended.context.files["content/0.txt"].decode() == "grüß dich"
    whole = json.loads(ended.context.files["response.json"])
    assert whole["content"] == [{"type": "text", "text": "grüß dich"}]
    assert sorted(ended.context.files) == sorted(ended.result["artifacts"])


def test_structured_content(bench: Bench) -> None:
    """Structured content is in the result, and a file of its own."""
    ended = bench.call("add", {"terms": [1, 2, 3]})
    assert ended.result["structured"] == {"total": 6, "terms": [1, 2, 3]}
    assert json.loads(ended.context.files["structured.json"]) == ended.result["structured"]


def test_every_kind_of_content(bench: Bench) -> None:
    """Pictures, sounds and resources are files with their types."""
    context = bench.call("show").context
    assert {name: context.types[name] for name in context.files if "content/" in name} == {
        "content/0.txt": "text/plain",
        "content/1.png": "image/png",
        "content/2.wav": "audio/wav",
        "content/3.md": "text/markdown",
        "content/4.pdf": "application/pdf",
    }
    whole = json.loads(context.files["response.json"])
    assert context.files["content/1.png"].startswith(b"\x89PNG\r\n")
    assert base64.b64decode(whole["content"][1]["data"]) == context.files["content/1.png"]
    assert context.files["content/3.md"].decode() == "# Ärger\n"


def test_a_tool_that_fails(bench: Bench) -> None:
    """A tool that failed is not called again, for nobody knows what it did; its answer is kept."""
    ended = bench.call("fail", {"text": "no such customer"})
    assert ended.raised(Fail) == "tool 'fail' of server 'box' failed: no such customer"
    assert json.loads(ended.context.files["response.json"])["isError"] is True
    assert "fail: tool 'fail' of server 'box' failed: no such customer" in ended.context.log_file


def test_a_tool_that_only_looks_is_tried_again(bench: Bench) -> None:
    """A tool that the server declares to be read-only may be called again when it failed."""
    ended = bench.call("look", {"text": "try later"})
    assert ended.raised(Retry) == "tool 'look' of server 'box' failed: try later"


def test_arguments_that_do_not_fit(bench: Bench) -> None:
    """Arguments are checked before the tool is called; each fault has its path."""
    ended = bench.call("add", {"terms": [1, "two", 3, None]})
    words = ended.raised(Fail)
    assert "arguments.terms[1]: 'two' is not of type 'integer'" in words
    assert "arguments.terms[3]: None is not of type 'integer'" in words
    assert "calling tool" not in ended.context.log_file
    assert "arguments: 'text' is a required property" in bench.call("echo").raised(Fail)


def test_a_schema_that_cannot_be_used(bench: Bench) -> None:
    """What a schema refers to elsewhere is not fetched; the server checks for itself then."""
    ended = bench.call("unclear", {"a": "b"})
    assert ended.result["text"] == "b"
    assert "were not checked: the schema of arguments refers to" in ended.context.log_file


def test_an_answer_that_was_not_promised(bench: Bench) -> None:
    """Structured content that is not what the tool promised is kept, with a warning."""
    ended = bench.call("lies")
    warning = "not what the tool promises: structured content: 'truth' is a required property"
    assert ended.result["warning"] == warning
    assert ended.result["structured"] == {"untruth": 1}
    assert ("warn", warning, None) in ended.context.events


def test_an_answer_that_is_too_large(bench: Bench) -> None:
    """A part above the limit is not kept and fails the job with its size; the rest is kept."""
    bench.limit = 2000
    ended = bench.call("flood", {"size": 3000})
    assert "content/0.txt has 3000 bytes, more than the 2000 of MOON" in ended.raised(Fail)
    whole = json.loads(ended.context.files["response.json"])
    assert whole["content"] == [{"type": "text", "artifact": "content/0.txt", "bytes": 3000}]


def test_a_message_that_is_too_large(bench: Bench) -> None:
    """A message that nobody could hold ends the call while it comes."""
    bench.limit = 2000
    words = bench.call("flood", {"size": 5_000_000}).raised(Fail)
    assert words.startswith("server 'box' sent a message of more than 1052576 bytes, which MOON")


def test_progress_and_logs(bench: Bench) -> None:
    """Progress becomes events, of which there is a limit; log messages are lines of the log."""
    context = bench.call("chatter", {"count": 300}).context
    events = [(message, data) for _, message, data in context.events]
    assert events[0] == ("calling tool 'chatter' of server 'box'", None)
    assert ("talking (1/300)", {"progress": 1, "total": 300}) in events
    assert len(events) == 100
    assert events[-1][0] == "further progress is in the log only"
    assert ("stderr", "[warning] toolbox: I talk") in context.lines
    assert "talking (300/300)" in context.log_file


def test_what_is_printed(bench: Bench) -> None:
    """What a server prints on the wire by mistake, or on standard error, harms nobody."""
    context = bench.call("print_things", {"text": "oops"}).context
    for line in (
        ("stdout", "toolbox 1.0 is starting"),
        ("stdout", "oops"),
        ("stdout", "{}"),
        ("stdout", "[1, 2]"),
        ("stderr", "stderr: oops"),
    ):
        assert line in context.lines
        assert line[1] in context.log_file.splitlines()


def test_a_server_that_prints_a_lot(bench: Bench) -> None:
    """Of ten megabytes of standard error the log keeps beginning and end."""
    log = bench.call("stderr_flood", {"size": 10_000_000}).context.log_file
    assert 900_000 < len(log) < 1_100_000
    assert f"{0:010d} eee" in log
    assert f"{99_999:010d} eee" in log
    assert "bytes cut here" in log


# --- secrets ------------------------------------------------------------------------------------


def test_the_environment_of_a_server(bench: Bench) -> None:
    """A server gets PATH, HOME and LANG, what its file says, and nothing of the worker's."""
    bench.servers["box"] = STDIO | {"env": {"MODE": "test", "LANG": "de_DE.UTF-8"}}
    seen = bench.call("environment").result["structured"]
    seen.pop("LC_CTYPE", None)  # Python's own
    assert len(seen.pop("MOONMIND_MCP_CALL")) == 32
    assert seen == {
        "PATH": os.environ["PATH"], "HOME": str(Path.home()), "LANG": "de_DE.UTF-8",
        "MODE": "test", "cwd": str(bench.folder),
    }  # fmt: skip


def test_no_secret_is_stored(bench: Bench) -> None:
    """No secret of the worker or of the file leaves the machine, whoever repeats it."""
    literal = "k3y-that-stands-in-the-file"
    bench.servers["box"] = STDIO | {"env": {"API_KEY": literal, "PAT": "${SOME_TOKEN}"}}
    repeated = f"{SECRET} {literal} hunter2hunter2"

    contexts = [
        bench.call("environment").context,
        bench.call("print_things", {"text": repeated}).context,
        bench.call("fail", {"text": repeated}).context,
        bench.call("echo", {"text": repeated}).context,
    ]
    failure = bench.call("fail", {"text": repeated}).raised(Fail)

    stored = failure + "".join(context.everything() for context in contexts)
    assert SECRET not in stored
    assert literal not in stored
    assert "hunter2hunter2" not in stored
    assert stored.count("[REDACTED]") > 10


# --- how it ends --------------------------------------------------------------------------------


def test_what_cannot_be_started(bench: Bench) -> None:
    """A program or a folder that is missing is worth another attempt, and is named."""
    bench.servers = {
        "gone": {"command": "no-such-program"},
        "lost": STDIO | {"cwd": "no-such-folder"},
    }
    words = bench.call("echo", server="gone").raised(Retry)
    assert words == "server 'gone' cannot be started: No such file or directory: no-such-program"
    words = bench.call("echo", server="lost").raised(Retry)
    assert words.endswith(f"No such file or directory: {bench.folder}/no-such-folder")


def test_a_program_that_is_no_server(bench: Bench) -> None:
    """A program that ends at once is retried with its status and its last words."""
    bench.servers["box"] = {"command": "sh", "args": ["-c", "echo cannot start >&2; exit 3"]}
    words = bench.call("echo", {"text": "x"}).raised(Retry)
    assert words == "server 'box' ended with exit status 3: cannot start"


def test_a_server_that_dies(bench: Bench, word: Any) -> None:
    """A server that dies during the call is noticed, though its child holds the pipe open."""
    ended = bench.call("die", {"nap": str(word)})
    assert ended.raised(Retry) == "server 'box' ended with exit status 7: OSError: the disk is gone"
    assert word.alive() == []


def test_nothing_survives_a_normal_end(bench: Bench, word: Any) -> None:
    """A child that left the server's session and holds its pipes is gone when the call is over."""
    ended = bench.call("escape", {"nap": str(word)})
    assert ended.result["status"] == "ok"
    assert word.alive() == []


def test_the_workers_own_limit(bench: Bench, word: Any) -> None:
    """A payload cannot ask for more time than the worker gives."""
    bench.servers["box"] = {"command": "sleep", "args": [str(word)]}
    bench.run_timeout = 0.3
    words = bench.call("echo", {"text": "x"}, timeout=1000).raised(Retry)
    assert words == "exceeded 0.3 s while starting server 'box'"


def test_timeout_leaves_nothing(bench: Bench, word: Any) -> None:
    """A program that never answers is ended at the time limit, which is named."""
    bench.servers["box"] = {"command": "sh", "args": ["-c", f"setsid sleep {word} & sleep {word}"]}
    ended = bench.call("echo", {"text": "x"}, timeout=0.3)
    assert ended.raised(Retry) == "exceeded 0.3 s while starting server 'box'"
    assert ended.seconds < 20
    assert word.alive() == []


def test_stop_ends_a_server_that_will_not(bench: Bench) -> None:
    """The stop event ends the call soon, whatever the server ignores."""
    context = Recorder()
    stopped_at, pid = 0.0, ""

    def stop(line: str) -> None:
        nonlocal stopped_at, pid
        if line.startswith("I stay, "):
            stopped_at, pid = time.monotonic(), line.partition(", ")[2]
            context.stop.set()

    context.on_line = stop
    ended = bench.call("stubborn", context=context)

    assert ended.raised(Stopped) == "stopped while calling tool 'stubborn' of server 'box'"
    assert 0 < time.monotonic() - stopped_at < 20
    assert pid
    assert not Path("/proc", pid).exists()


def test_a_stop_before_the_call(bench: Bench) -> None:
    """A call that is stopped before it began does nothing for long."""
    context = Recorder()
    context.stop.set()
    ended = bench.call("slow", {"note": str(bench.folder / "note")}, context=context)
    assert ended.raised(Stopped) == "stopped while starting server 'box'"
    assert ended.seconds < 20
    assert not (bench.folder / "note").exists()


# --- what the queue refuses ---------------------------------------------------------------------


class Refusing(Recorder):
    """A context that refuses artifacts."""

    def __init__(self, error: Exception) -> None:
        super().__init__()
        self.error = error

    def attach(self, name: str, source: Any, content_type: str = "") -> None:
        """Refuse it."""
        raise self.error


def test_an_artifact_that_may_not_be_stored(bench: Bench) -> None:
    """An answer that the policy of the worker's login refuses waits for a person."""
    ended = bench.call("echo", {"text": "x"}, context=Refusing(NotAllowed("admits no text")))
    assert ended.raised(Block) == "content/0.txt could not be stored: admits no text"


def test_a_lost_lease(bench: Bench) -> None:
    """A lease that is lost ends the attempt as such, not as an outcome."""
    with pytest.raises(LeaseLost):
        bench.call("echo", {"text": "x"}, context=Refusing(LeaseLost("gone")))


def test_a_worker_runs_a_call(fresh: str, bench: Bench, look: Any) -> None:
    """A job of the kind goes through a real worker: result, artifacts and history are stored."""
    payload = {"kind": "mcp-call", "server": "box", "tool": "show", "arguments": {}}
    look("select moonmind_queue.enqueue('mcp-call', %s::jsonb)", json.dumps(payload))

    worker = Worker(fresh, {"mcp-call": bench.executor()}, name="w", lease=timedelta(seconds=30))
    assert worker.run_once()

    [(state, result)] = look("select state, result from moonmind_queue.job")
    assert (state, result["status"], result["text"]) == ("succeeded", "ok", "here you are")
    stored = look("select name, content_type from moonmind_queue.artifact order by id")
    assert [name for name, _ in stored] == result["artifacts"]
    assert ("content/1.png", "image/png") in stored
