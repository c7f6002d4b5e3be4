"""docs/mcp.md tells the truth: its configuration works, and its tables are the tools."""

import json
import re
from pathlib import Path

import pytest
from mcp import Client, StdioServerParameters, stdio_client

from moonmind_queue.agentmux.vocabulary import ErrorCode
from moonmind_queue.cli.mcp import PORT
from moonmind_queue.mcp.loopback import PATH
from moonmind_queue.mcp.queue import ErrorCode as QueueErrorCode

TEXT = (Path(__file__).parents[2] / "docs" / "mcp.md").read_text()


def rows(heading):
    """Return the rows of the tables below a heading, a list of cells each."""
    section = re.split(r"^###? ", TEXT.partition(f"### {heading}\n")[2], flags=re.M)[0]
    return [[cell.strip() for cell in row.split("|")[1:-1]]
            for row in re.findall(r"^\| `.*\|$", section, re.M)]  # fmt: skip


@pytest.mark.parametrize("profile", ["queue", "state", "artifacts"])
def test_the_tables_are_the_tools(station, profile):
    """Every tool with every parameter, in the order in which they are listed, and no other."""
    table = {
        re.findall(r"`(\S+)`", name)[0]: re.findall(r"`(\w+)`", takes)
        for name, takes, *answers in rows(f"Tools of `{profile}`")
        if answers
    }

    tools = {
        tool.name: list(tool.input_schema["properties"])
        for tool in station.peer(profile, MOONMIND_ARTIFACT_MAX_BYTES="").tools()
    }
    assert list(table) == list(tools)
    for name, parameters in tools.items():
        assert [each for each in table[name] if each in parameters] == parameters, name


@pytest.mark.parametrize(
    ("profile", "codes"), [("queue", list(QueueErrorCode)), ("state", list(ErrorCode))]
)
def test_the_tables_have_every_code(profile, codes):
    """And none that there is not."""
    told = [
        code
        for cells in rows(f"Tools of `{profile}`")
        if len(cells) == 2
        for code in re.findall(r"`(\w+)`", cells[0])
    ]

    assert sorted(told) == sorted(codes)


def test_the_address_is_the_one_that_is_served():
    """Wherever it stands."""
    assert set(re.findall(r"http://127[^`\s\"]*", TEXT)) == {f"http://127.0.0.1:{PORT}{PATH}"}


def test_the_configuration_for_other_clients_works(own, portal):
    """Each server of the mcpServers file starts with what stands there, and lists its tools."""
    blocks = re.findall(r"^```json\n(.*?)^```$", TEXT, re.M | re.S)
    [text] = [each for each in blocks if '"mcpServers"' in each and "moonmind-queue" in each]
    servers = json.loads(text.replace("/srv/agentmux", str(own.home)))["mcpServers"]

    found = {}
    for name, server in servers.items():
        env = {"PATH": f"{Path(own.command).parent}", **server.get("env", {})}
        if "DATABASE_URL" in env:
            env["DATABASE_URL"] = own.dsn
        given = StdioServerParameters(
            command=str(Path(own.command).with_name(server["command"])),
            args=server["args"], env=env, cwd=own.home.parent,
        )  # fmt: skip
        with (
            (own.home.parent / f"{name}.log").open("w") as log,
            portal.wrap_async_context_manager(Client(stdio_client(given, errlog=log))) as client,
        ):
            found[name] = len(portal.call(client.list_tools).tools)

    assert found == {"moonmind-state": 10, "moonmind-artifacts": 5}
