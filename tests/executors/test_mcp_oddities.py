"""Calls of a server that does what it should not, and of one that is older or newer than ours."""

import sys
from pathlib import Path
from typing import Any

import pytest
from mcp_bench import Bench, Ended

from moonmind_queue.executors import Block, Fail, Retry

ODDITY = str(Path(__file__).with_name("mcp_oddity.py"))


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    """An executor that knows the odd server, in each of its versions."""
    eras = ("old", "modern", "future", "bare", "endless")
    return Bench(
        tmp_path, {era: {"command": sys.executable, "args": [ODDITY, era]} for era in eras}
    )


def raised(ended: Ended, kind: type[Any]) -> str:
    """Return the words in which a call ended, which must have been quick: nothing is waited for."""
    assert ended.seconds < 10
    return ended.raised(kind)


@pytest.mark.parametrize("era", ["old", "modern"])
def test_the_first_and_the_newest_version(bench: Bench, era: str) -> None:
    """Servers that know only one version are called, and a tool on their last page is found."""
    assert bench.call("last", server=era).result["text"] == "done"


def test_a_version_that_nobody_knows(bench: Bench) -> None:
    """A server of another version waits for a person, who reads which."""
    words = raised(bench.call("last", server="future"), Block)
    assert words == (
        "starting server 'future': Unsupported protocol version from the server: 2099-01-01"
    )


def test_a_server_without_tools(bench: Bench) -> None:
    """A server that does not know tools waits for a person."""
    words = raised(bench.call("last", server="bare"), Block)
    assert words == "listing the tools of server 'bare': no such method"


def test_a_list_without_end(bench: Bench) -> None:
    """A list of tools that has no end is given up."""
    words = raised(bench.call("none", server="endless"), Block)
    assert words.startswith("server 'endless' has no tool 'none'; there are asks, ")


@pytest.mark.parametrize(
    ("tool", "kind", "words"),
    [
        ("breaks", Fail, "the disk is full"),
        ("breaks_again", Retry, "the disk is full"),
        ("forbids_again", Fail, "not on a Sunday"),
        ("asks_elsewhere", Block, "log in first"),
    ],
)
def test_an_error_of_the_protocol(bench: Bench, tool: str, kind: Any, words: str) -> None:
    """An error in the place of an answer counts like a tool that failed, unless it says more."""
    text = raised(bench.call(tool, server="old"), kind)
    assert text == f"calling tool {tool!r} of server 'old': {words}"


def test_an_answer_that_cannot_be_understood(bench: Bench) -> None:
    """Neither an answer that is no message nor one of another shape is waited for any longer."""
    words = raised(bench.call("garbles", server="old"), Fail)
    assert words == "server 'old' sent an answer that is not of the protocol"
    words = raised(bench.call("misshapes", server="old"), Fail)
    assert words.startswith("calling tool 'misshapes' of server 'old': the answer is not of the ")


def test_a_tool_that_asks_for_input(bench: Bench) -> None:
    """A tool that wants a person's answer before its own waits for one."""
    words = raised(bench.call("asks", server="modern"), Block)
    assert words.endswith("it asks for input, which a task cannot give")


def test_a_server_that_asks_back(bench: Bench) -> None:
    """Requests for a model are refused at once, so the server can go on."""
    ended = bench.call("asks_back", server="old")
    assert "Sampling not supported" in ended.result["text"]


def test_a_message_without_end(bench: Bench) -> None:
    """A line that never ends ends the call when it is too long, not when time is up."""
    bench.limit = 1000
    words = raised(bench.call("runs_on", server="old"), Fail)
    assert words.startswith("server 'old' sent a message of more than 1050576 bytes")
