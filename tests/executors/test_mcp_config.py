"""The file of MCP servers: what stands in it is understood, or refused by its place."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from moonmind_queue.errors import SettingsError
from moonmind_queue.executors.mcp_call import McpCall
from moonmind_queue.executors.mcp_config import HttpServer, McpConfig, StdioServer

ROOT = Path(__file__).parents[2]
ENVIRON = {
    "TOKEN": "t0ken-0123456789",
    "EMPTY": "",
    "PORT": "8080",
    "DATABASE_URL": "postgresql://",
}


def write(folder: Path, **servers: Any) -> McpConfig:
    """Read a file that holds these servers."""
    path = folder / "mcp.json"
    path.write_text(json.dumps({"mcpServers": servers, "inputs": [], "theme": "dark"}))
    return McpConfig.read(path)


def refusal(folder: Path, **entry: Any) -> str:
    """Return the words in which one server is refused, after its name."""
    with pytest.raises(SettingsError) as refused:
        write(folder, x=entry).server("x", ENVIRON)
    before, found, after = str(refused.value).partition("mcpServers.x")
    assert found
    assert before == f"MOONMIND_MCP_CONFIG: {folder}/mcp.json: "
    return after


def test_a_program(tmp_path: Path) -> None:
    """A server with a command gets its arguments, its environment and the file's folder."""
    entry = {"command": "uvx", "args": ["mcp-server-time", "-v"], "env": {"TZ": "UTC"}}

    server = write(tmp_path, time=entry).server("time", {})

    assert isinstance(server, StdioServer)
    assert (server.name, server.argv) == ("time", ("uvx", "mcp-server-time", "-v"))
    assert (server.env, server.cwd) == ({"TZ": "UTC"}, tmp_path)


def test_a_working_directory(tmp_path: Path) -> None:
    """A relative directory is meant from the file, an absolute one stands as it is."""
    config = write(
        tmp_path, near={"command": "x", "cwd": "data"}, far={"command": "x", "cwd": "/srv"}
    )
    near, far = config.server("near", {}), config.server("far", {})
    assert isinstance(near, StdioServer)
    assert isinstance(far, StdioServer)
    assert (near.cwd, far.cwd) == (tmp_path / "data", Path("/srv"))


@pytest.mark.parametrize(
    ("kind", "sse"), [(None, False), ("http", False), ("streamable-http", False), ("sse", True)]
)
def test_a_url(tmp_path: Path, kind: str | None, sse: bool) -> None:
    """A server with a URL is reached by streamable HTTP, unless its type says SSE."""
    entry = {"url": "https://example.com/mcp", "headers": {"X": "1"}} | (
        {"type": kind} if kind else {}
    )
    server = write(tmp_path, site=entry).server("site", {})
    assert isinstance(server, HttpServer)
    assert (server.url, server.headers, server.sse) == (entry["url"], {"X": "1"}, sse)


def test_variables(tmp_path: Path) -> None:
    """Variables are filled in wherever a value stands; one that is empty counts as not set."""
    config = write(
        tmp_path,
        a={
            "command": "${SHELL_NAME:-sh}",
            "args": ["--port=${PORT}", "${EMPTY:-none}", "$PORT", "${env:PORT}", "${EMPTY:-}"],
            "env": {"KEY": "${TOKEN}"},
            "cwd": "${NOWHERE:-/srv}",
        },
        b={"url": "http://h:${PORT}/", "headers": {"Authorization": "Bearer ${TOKEN}"}},
    )

    a, b = config.server("a", ENVIRON), config.server("b", ENVIRON)

    assert isinstance(a, StdioServer)
    assert isinstance(b, HttpServer)
    assert a.argv == ("sh", "--port=8080", "none", "$PORT", "8080", "")
    assert (a.env, a.cwd) == ({"KEY": "t0ken-0123456789"}, Path("/srv"))
    assert (b.url, b.headers) == ("http://h:8080/", {"Authorization": "Bearer t0ken-0123456789"})


@pytest.mark.parametrize(
    ("entry", "words"),
    [
        ({"command": "x", "args": ["a", "${NO}"]}, ".args.1: the variable NO is not set"),
        ({"command": "x", "env": {"A": "${EMPTY}"}}, ".env.A: the variable EMPTY is not set"),
        ({"url": "https://h/${NO}"}, ".url: the variable NO is not set"),
        (
            {"url": "https://h", "headers": {"A": "${a b}"}},
            ".headers.A: ${a b} is neither ${NAME} nor ${NAME:-default}",
        ),
        (
            {"command": "x", "env": {"A": "${DATABASE_URL}"}},
            ".env.A: DATABASE_URL is the queue's own login, which is not handed on; "
            "give the server a role of its own",
        ),
        ({"command": "x\0"}, ".command: must not hold a NUL character"),
        ({"url": "ftp://h"}, ".url: must begin with http:// or https://"),
        ({"url": "http://[::1"}, ".url: is not a URL"),
        ({"url": "http://h", "headers": {"A": "b\nc"}}, ".headers.A: must not hold a line break"),
        ({}, ": needs either command or url"),
        ({"command": "x", "url": "http://h"}, ": needs either command or url"),
        ({"command": "x", "headers": {}, "type": "http"}, ": type http does not go with command"),
        ({"url": "http://h", "type": "stdio"}, ": type stdio does not go with url"),
        ({"url": "http://h", "args": ["a"]}, ": args, env and cwd go with command, not with url"),
        ({"command": "x", "headers": {"a": "b"}}, ": headers go with url, not with command"),
        ({"command": ""}, ".command: must not be empty"),
        ({"command": ["x"]}, ".command: must be a string"),
        ({"command": "x", "args": "a"}, ".args: must be a list"),
        ({"command": "x", "env": {"PORT": 80}}, ".env.PORT: must be a string"),
        ({"command": "x", "disabled": "yes"}, ".disabled: must be true or false"),
    ],
)
def test_what_cannot_be_used(tmp_path: Path, entry: Any, words: str) -> None:
    """A value that cannot be used is refused with file, server and key, and never shown."""
    assert refusal(tmp_path, **entry) == words


def test_a_misspelt_key_is_refused(tmp_path: Path) -> None:
    """A list of tools under a wrong name is no list that permits everything."""
    words = refusal(tmp_path, command="x", tool=["a"])
    assert words.startswith(".tool: unknown key; there are alwaysAllow, args, ")


def test_what_other_clients_keep_is_let_be(tmp_path: Path) -> None:
    """Keys that tell other clients when to ask a person change nothing."""
    entry = {
        "command": "x", "alwaysAllow": ["a"], "autoApprove": [], "timeout": 60, "trust": True,
        "description": "for x", "type": "stdio",
    }  # fmt: skip
    config = write(tmp_path, x=entry)
    assert (config.names, config.tools("x")) == (["x"], None)


@pytest.mark.parametrize(
    ("tools", "allowed"),
    [(None, None), (["*"], None), (["b", "*"], None), ([], []), (["b", "a", "b"], ["a", "b"])],
)
def test_tools(tmp_path: Path, tools: Any, allowed: list[str] | None) -> None:
    """Without a list, or with a star in it, all tools may be called; with an empty one none."""
    entry = {"command": "x"} | ({} if tools is None else {"tools": tools})
    assert write(tmp_path, x=entry).tools("x") == allowed


def test_a_disabled_server_is_not_there(tmp_path: Path) -> None:
    """A server that its file disables cannot be used."""
    config = write(tmp_path, b={"command": "x"}, a={"command": "x", "disabled": True})
    assert config.names == ["b"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (b"{", "not JSON: EOF while parsing an object at line 1 column 1"),
        (b"[]", "the file: must be an object"),
        (b"{}", "mcpServers: is required"),
        (b'{"mcpServers": []}', "mcpServers: must be an object"),
        (b'{"mcpServers": {"a": "x"}}', "mcpServers.a: must be an object"),
    ],
)
def test_a_file_that_is_none(tmp_path: Path, text: bytes, words: str) -> None:
    """What is no file of servers is refused with its path and the reason."""
    path = tmp_path / "mcp.json"
    path.write_bytes(text)
    with pytest.raises(SettingsError) as refused:
        McpConfig.read(path)
    assert str(refused.value) == f"MOONMIND_MCP_CONFIG: {path}: {words}"


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    """A file that is missing, a directory, or in another encoding is named."""
    (tmp_path / "latin.json").write_bytes(b"\xe4")
    for name, words in (
        ("none.json", "none.json cannot be read: No such file or directory"),
        ("", " cannot be read: Is a directory"),
        ("latin.json", "latin.json is not UTF-8"),
    ):
        with pytest.raises(SettingsError) as refused:
            McpConfig.read(tmp_path / name)
        assert str(refused.value).endswith(words)


def test_a_byte_order_mark_does_not_matter(tmp_path: Path) -> None:
    """A file that an editor saved with a mark is read."""
    path = tmp_path / "mcp.json"
    path.write_text('{"mcpServers": {"a": {"command": "x"}}}', encoding="utf-8-sig")
    assert McpConfig.read(path).names == ["a"]


def test_what_is_a_secret(tmp_path: Path) -> None:
    """Headers, passwords and keys are secrets, by their names or by their looks; words are not."""
    config = write(
        tmp_path,
        a={
            "command": "x",
            "env": {
                "API_KEY": "short-key", "GITHUB_PAT": "abcdefgh12345678", "LEVEL": "warning",
                "FOLDER": "/srv/data/of/2026/11", "SITE": "https://me:pass-word@h/a1b2c3d4e5f6",
                "WORDS": "not a key though 16 long",
            },
        },
        b={
            "url": "https://u:p%40ssword@h/?api_key=qwertz&page=12",
            "headers": {"Authorization": "Bearer b3arer", "X-Workspace": "acme"},
        },
    )  # fmt: skip

    assert set(config.server("a", {}).secrets) == {"short-key", "abcdefgh12345678", "pass-word"}
    assert set(config.server("b", {}).secrets) == {
        "p%40ssword", "p@ssword", "qwertz", "Bearer b3arer", "b3arer", "acme",
    }  # fmt: skip


def test_nothing_shows_a_secret_by_accident(tmp_path: Path) -> None:
    """Printing a server, as a debugger does, shows no value that may be a secret."""
    config = write(
        tmp_path,
        a={"command": "x", "args": ["--key=s3cret"], "env": {"KEY": "s3cret"}},
        b={"url": "https://h/?key=s3cret", "headers": {"K": "s3cret"}},
    )
    assert "s3cret" not in repr([config.server(name, {}) for name in config.names])


def test_the_guide_is_true(tmp_path: Path) -> None:
    """The file and the payload that docs/mcp.md shows are accepted; its table names every key."""
    text = (ROOT / "docs" / "mcp.md").read_text()
    _, _, text = text.partition("\n## Call MCP tools from a task\n")
    file, payload = map(json.loads, re.findall(r"^```json\n(.*?)^```$", text, re.M | re.S))

    config = write(tmp_path, **file["mcpServers"])
    assert [config.server(name, {"ISSUES_TOKEN": "x"}).name for name in config.names] == [
        "files", "issues", "time",
    ]  # fmt: skip
    assert payload["tool"] in (config.tools(payload["server"]) or [])
    assert McpCall.validate(payload) == payload

    known = refusal(tmp_path, command="x", nonsense=1).partition("there are ")[2].split(", ")
    section = text.partition("### The file")[2].partition("### What you get")[0]
    assert set(known) <= set(re.findall(r"`(\w+)`", section))
