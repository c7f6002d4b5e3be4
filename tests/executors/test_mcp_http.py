"""Calls of a real server over HTTP: what it answers, refuses, and learns of a call that ends."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from mcp_bench import SECRET, Bench, Recorder, serving
from waiting import eventually

from moonmind_queue.executors import Block, Fail, Retry, Stopped, mcp_call


@pytest.fixture(scope="module")
def origin() -> Iterator[str]:
    """The address of a running toolbox."""
    with serving("streamable-http") as address:
        yield address


@pytest.fixture
def bench(tmp_path: Path, origin: str) -> Bench:
    """An executor that reaches the toolbox by HTTP."""
    return Bench(tmp_path, {"box": {"url": f"{origin}/mcp"}})


def wait_for(note: Path) -> str:
    """Return what a tool wrote when it ended."""
    return str(eventually(lambda: note.exists() and note.read_text(), within=30))


def test_an_answer(bench: Bench) -> None:
    """Text, structured content and pictures come over HTTP as they do from a program."""
    assert bench.call("echo", {"text": "grüß dich"}).result["text"] == "grüß dich"
    assert bench.call("add", {"terms": [1, 2]}).result["structured"]["total"] == 3
    assert "content/1.png" in bench.call("show").context.files


def test_progress_and_logs(bench: Bench) -> None:
    """Progress and log messages arrive while the call runs."""
    context = bench.call("chatter", {"count": 3}).context
    assert [event for _, event, _ in context.events[1:]] == [
        "talking (1/3)", "talking (2/3)", "talking (3/3)",
    ]  # fmt: skip
    assert ("stderr", "[warning] toolbox: I talk") in context.lines


def test_headers(bench: Bench) -> None:
    """The file's headers are sent, with the worker's variables in them; nobody reads them after."""
    bench.servers["box"]["headers"] = {"Authorization": "Bearer ${SOME_TOKEN}", "X-Team": "blue-42"}
    ended = bench.call("headers")
    assert "'authorization': '[REDACTED]'" in ended.result["text"]
    assert SECRET not in ended.context.everything()
    assert "blue-42" not in ended.context.everything()


def test_sse(tmp_path: Path) -> None:
    """A server of the older transport is reached where its type says so."""
    with serving("sse") as address:
        bench = Bench(tmp_path, {"box": {"type": "sse", "url": f"{address}/sse"}})
        assert bench.call("add", {"terms": [4]}).result["structured"]["total"] == 4


@pytest.mark.parametrize(
    ("status", "kind", "words"),
    [
        (
            401,
            Block,
            "401 Unauthorized: look at its url and headers in the file that MOONMIND_MCP_",
        ),
        (403, Block, "403 Forbidden: look at its url and headers"),
        (405, Block, "405 Method Not Allowed: look at its url"),
        (404, Retry, "404 Not Found"),
        (429, Retry, "429 Too Many Requests"),
        (503, Retry, "503 Service Unavailable"),
    ],
)
def test_a_refusal(bench: Bench, origin: str, status: int, kind: Any, words: str) -> None:
    """What a person has to mend waits, what may pass is retried; the status is named."""
    query = "?token=n0t-to-be-shown"
    bench.servers["box"]["url"] = f"{origin}/refuse/{status}{query}"
    ended = bench.call("echo", {"text": "x"})
    assert ended.raised(kind).startswith(f"server 'box' at {origin} answers {words}")
    assert "n0t-to-be-shown" not in str(ended.outcome) + ended.context.everything()


def test_nobody_listens(bench: Bench) -> None:
    """A server that cannot be reached is tried again."""
    bench.servers["box"]["url"] = "http://127.0.0.1:9/mcp"  # discard: nobody serves it
    words = bench.call("echo", {"text": "x"}).raised(Retry)
    assert words.startswith("starting server 'box': ConnectError: ")


def test_a_page_that_is_no_server(bench: Bench, origin: str) -> None:
    """A body that never ends is not read to its end."""
    bench.limit = 1000
    bench.servers["box"]["url"] = f"{origin}/endless"
    words = bench.call("echo", {"text": "x"}).raised(Fail)
    assert words.startswith("server 'box' sent a message of more than 1050576 bytes")


def test_a_message_that_is_too_large(bench: Bench) -> None:
    """A message in a stream of events is bounded like any other; one within the limit is not."""
    assert len(bench.call("flood", {"size": 3_000_000}).context.files["content/0.txt"]) == 3_000_000
    bench.limit = 1000
    words = bench.call("flood", {"size": 3_000_000}).raised(Fail)
    assert words.startswith("server 'box' sent a message of more than 1050576 bytes")


def test_events_that_come_in_pieces(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Small messages are not too large together, wherever a stream of them is cut."""
    monkeypatch.setattr(mcp_call, "ENVELOPE", 2000)
    bench.limit = 1000
    bench.servers["box"]["headers"] = {"x-pieces": "yes"}
    ended = bench.call("chatter", {"count": 90})
    assert ended.result["text"] == "talked"
    assert [message for _, message, _ in ended.context.events][-1] == "talking (90/90)"


def test_a_body_that_is_packed(bench: Bench, origin: str) -> None:
    """What would become larger than a message may be is not unpacked."""
    bench.servers["box"]["url"] = f"{origin}/packed"
    words = bench.call("echo", {"text": "x"}).raised(Retry)
    assert words.startswith("starting server 'box': Failed to parse JSON response: ")


def test_a_server_that_moved(bench: Bench, origin: str) -> None:
    """A redirect is followed to the same origin; with another the headers are not shared."""
    bench.servers["box"]["url"] = f"{origin}/moved?to=/mcp"
    assert bench.call("echo", {"text": "x"}).result["text"] == "x"
    elsewhere = f"http://someone:{SECRET}@127.0.0.1:9/mcp"
    bench.servers["box"]["url"] = f"{origin}/moved?to={elsewhere}?key%3D{SECRET}"
    ended = bench.call("echo", {"text": "x"})
    assert ended.raised(Block).startswith(
        f"server 'box' at {origin} answers 307 Temporary Redirect (http://127.0.0.1:9/mcp): look at"
    )
    assert SECRET not in str(ended.outcome) + ended.context.everything()


def test_sse_that_refuses(bench: Bench, origin: str) -> None:
    """A server of the older transport that refuses messages ends the call, not only its time."""
    bench.servers["box"] = {"type": "sse", "url": f"{origin}/deaf"}
    ended = bench.call("echo", {"text": "x"})
    assert ended.raised(Block).startswith(f"server 'box' at {origin} answers 403 Forbidden: ")
    assert ended.seconds < 10


def test_stop_tells_the_server(bench: Bench) -> None:
    """A call that is stopped ends at once, and the server learns that nobody waits."""
    note, context = bench.folder / "note", Recorder()
    context.on_line = lambda line: context.stop.set() if "half of it" in line else None

    ended = bench.call("slow", {"note": str(note)}, context=context)

    assert ended.raised(Stopped) == "stopped while calling tool 'slow' of server 'box'"
    assert ended.seconds < 20
    assert wait_for(note) == "cancelled"


def test_timeout_tells_the_server(bench: Bench) -> None:
    """A call that takes too long is tried again, with the time named; the server's work ends."""
    for seconds in (0.9, 9, 50):  # as much as this machine needs to come as far as the call
        note = bench.folder / f"note{seconds}"
        ended = bench.call("slow", {"note": str(note)}, timeout=seconds)
        if "half of it" in ended.context.everything():
            break
    assert ended.raised(Retry) == f"exceeded {seconds} s while calling tool 'slow' of server 'box'"
    assert wait_for(note) == "cancelled"


def test_arguments_are_checked_before(bench: Bench) -> None:
    """Arguments that do not fit fail the job over HTTP, too, and the tool is not called."""
    ended = bench.call("slow", {"note": 3})
    assert "arguments.note: 3 is not of type 'string'" in ended.raised(Fail)
    assert "calling tool" not in ended.context.log_file


def test_what_the_sdk_logs_is_redacted(bench: Bench, origin: str, capfd: Any) -> None:
    """Warnings of the SDK go to the call's log, not to the worker's output."""
    bench.servers["box"]["url"] = f"{origin}/garbage?key={SECRET}"
    ended = bench.call("echo", {"text": "x"})
    assert "Error parsing JSON response" in ended.context.log_file
    assert SECRET not in ended.context.everything()
    assert capfd.readouterr().err == ""
