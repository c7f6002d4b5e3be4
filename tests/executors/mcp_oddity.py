"""A program for tests: an MCP server written by hand, for what the SDK's servers never do.

``mcp_oddity.py ERA``: ``old`` agrees on the first version of the protocol, ``modern`` knows the
newest one only, ``future`` one that nobody knows, ``bare`` has no tools, ``endless`` never comes
to the end of its list. Tools are listed one a page; each is one oddity.
"""

import json
import sys
from typing import Any

ERA = sys.argv[1]
MODERN = "2026-07-28"
ONCE: dict[str, Any] = {}
AGAIN = {"annotations": {"idempotentHint": True}}
TOOLS = {
    "breaks": ONCE,
    "breaks_again": AGAIN,
    "forbids_again": AGAIN,
    "garbles": ONCE,
    "misshapes": ONCE,
    "asks": ONCE,
    "asks_elsewhere": ONCE,
    "asks_back": ONCE,
    "runs_on": ONCE,
    "last": ONCE,
}
ERRORS = {
    "breaks": (-32603, "the disk is full"),
    "breaks_again": (-32603, "the disk is full"),
    "forbids_again": (-32602, "not on a Sunday"),
    "asks_elsewhere": (-32042, "log in first"),
}


def send(**message: Any) -> None:
    """Write a message."""
    print(json.dumps({"jsonrpc": "2.0", **message}), flush=True)


def receive() -> dict[str, Any]:
    """Return the next message."""
    message: dict[str, Any] = json.loads(sys.stdin.readline())
    return message


def initialize(number: int, _: Any) -> None:
    """Agree on a version, or not."""
    if ERA == "modern":
        data = {"supported": [MODERN], "requested": "?"}
        send(id=number, error={"code": -32022, "message": "too old", "data": data})
        return
    version = "2099-01-01" if ERA == "future" else "2024-11-05"
    server = {"name": "oddity", "version": "1"}
    send(id=number, result={"protocolVersion": version, "capabilities": {}, "serverInfo": server})


def discover(number: int, _: Any) -> None:
    """Say which versions there are; old servers do not know the method."""
    if ERA != "modern":
        send(id=number, error={"code": -32601, "message": "no such method"})
        return
    send(id=number, result={"supportedVersions": [MODERN], "capabilities": {"tools": {}}})


def list_tools(number: int, params: Any) -> None:
    """List one tool."""
    if ERA == "bare":
        send(id=number, error={"code": -32601, "message": "no such method"})
        return
    page = int(params.get("cursor") or 0)
    name = list(TOOLS)[page % len(TOOLS)]
    tool = {"name": name, "inputSchema": {"type": "object"}, **TOOLS[name]}
    more = ERA == "endless" or page + 1 < len(TOOLS)
    result = {"tools": [tool], "resultType": "complete", "ttlMs": 0, "cacheScope": "private"}
    send(id=number, result=result | ({"nextCursor": str(page + 1)} if more else {}))


def call_tool(number: int, params: Any) -> None:
    """Do what the tool is for."""
    name = params["name"]
    if name in ERRORS:
        code, words = ERRORS[name]
        data = {"elicitations": []}
        send(id=number, error={"code": code, "message": words, "data": data})
    elif name == "garbles":
        send(id=number, outcome="?")
    elif name == "misshapes":
        send(id=number, result={"content": [{"type": "text"}]})
    elif name == "asks":
        send(id=number, result={"resultType": "input_required", "requestState": "x"})
    elif name == "asks_back":
        params = {"messages": [], "maxTokens": 1}
        send(id="mine", method="sampling/createMessage", params=params)
        answer(number, json.dumps(receive()["error"]))
    elif name == "runs_on":
        while True:
            print("x" * 65536, end="", flush=True)
    else:
        answer(number, "done")


def answer(number: int, text: str) -> None:
    """Answer a call."""
    content = [{"type": "text", "text": text}]
    send(id=number, result={"content": content, "resultType": "complete"})


METHODS = {
    "initialize": initialize,
    "server/discover": discover,
    "tools/list": list_tools,
    "tools/call": call_tool,
}


def main() -> None:
    """Serve until nobody asks any more."""
    while line := sys.stdin.readline():
        message = json.loads(line)
        if "id" in message:
            METHODS[message["method"]](message["id"], message.get("params") or {})


if __name__ == "__main__":
    main()
