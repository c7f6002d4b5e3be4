"""A scripted model on loopback: what it answers is written down, everything around it is real.

It speaks the part of the OpenAI Responses API that the Codex CLI uses, so the real Codex runs real
commands and makes real edits with no network. A script is a list of turns, a turn is a list of
items::

    script = [[shell("make test")], [patch("*** Begin Patch …")], [say("Mended.")]]
    with ModelServer(script) as model:
        make_codex_home(home, model.base_url, codex)

Which turn is due is read from the request, which carries the whole conversation; the server keeps
no place of its own. So any number of runs share one server, and a faulty turn is faulty again when
it is asked for again.
"""

import json
import os
import subprocess
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import count
from pathlib import Path
from typing import Any, Self

MODEL = "gpt-5.5"  # Codex offers it exec_command and apply_patch as plain tools
FAKE_KEY = "sk-scripted-model-no-secret"

_calls = count(1)  # Codex pairs a call with its output by id


@dataclass(frozen=True)
class Answer:
    """An item the model gives: a message or a call of a tool."""

    content: dict[str, Any]

    def wire(self) -> dict[str, Any]:
        """Return the item as the API sends it, a call with an id of its own."""
        number = next(_calls)
        if self.content["type"] == "message":
            return self.content | {"id": f"msg_{number}"}
        return self.content | {"id": f"item_{number}", "call_id": f"call_{number}"}


@dataclass(frozen=True)
class HttpError:
    """A refusal instead of a stream; the first item of its turn."""

    status: int
    code: str
    message: str
    headers: dict[str, str]


@dataclass(frozen=True)
class Delay:
    """A pause before what follows; without end it is a hang."""

    seconds: float | None


@dataclass(frozen=True)
class Drop:
    """The end of the connection in the middle of the stream."""


Item = Answer | HttpError | Delay | Drop
Script = Sequence[Sequence[Item]]


def say(text: str) -> Answer:
    """Say something; a turn that does nothing else ends the run."""
    content = [{"type": "output_text", "text": text, "annotations": []}]
    return Answer({"type": "message", "role": "assistant", "content": content})


def shell(command: str) -> Answer:
    """Have Codex run a command in its sandbox, whatever the machine's login shell would add."""
    arguments = json.dumps({"cmd": command, "login": False})
    return Answer({"type": "function_call", "name": "exec_command", "arguments": arguments})


def patch(text: str) -> Answer:
    """Have Codex apply a patch in its own format (``*** Begin Patch`` … ``*** End Patch``)."""
    return Answer({"type": "custom_tool_call", "name": "apply_patch", "input": text})


def http_error(
    status: int,
    code: str = "server_error",
    message: str = "scripted fault",
    headers: dict[str, str] | None = None,
) -> HttpError:
    """Refuse the request."""
    return HttpError(status, code, message, headers or {})


def drop() -> Drop:
    """Cut the stream here."""
    return Drop()


def hang() -> Delay:
    """Go silent until the server closes: as a turn's first item even the headers never come."""
    return Delay(None)


def delay(seconds: float) -> Delay:
    """Wait before going on."""
    return Delay(seconds)


def instruction(body: dict[str, Any]) -> str:
    """Return what the user asked for last, for a script that depends on it."""
    texts = [
        "".join(part.get("text", "") for part in item["content"])
        for item in body["input"]
        if item.get("type") == "message" and item.get("role") == "user"
    ]
    return texts[-1] if texts else ""


def due(script: Script, body: dict[str, Any]) -> Sequence[Item]:
    """Return the turn that comes after the answers which the conversation already holds."""
    given = sum(
        item.get("type") in ("function_call", "custom_tool_call") or item.get("role") == "assistant"
        for item in body["input"]
    )
    for turn in script:
        answers = sum(isinstance(item, Answer) for item in turn)
        if answers == 0 or given < answers:
            return turn
        given -= answers
    return [http_error(400, "script_ended", f"the script ends after {len(script)} turns")]


@dataclass(frozen=True)
class Request:
    """A request for a turn, as Codex made it."""

    body: dict[str, Any]
    authorization: str | None


class ModelServer:
    """The server, running inside ``with``; a callable is asked for the script of each request."""

    def __init__(self, script: Script | Callable[[dict[str, Any]], Script]) -> None:
        self.script_for = script if callable(script) else lambda _body: script
        self.requests: list[Request] = []
        self.closing = threading.Event()
        self._http = _Server(("127.0.0.1", 0), _Handler)
        self._http.model = self
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.02,))

    @property
    def base_url(self) -> str:
        """What a client takes for ``base_url``: the address up to and including ``/v1``."""
        return f"http://127.0.0.1:{self._http.server_port}/v1"

    def __enter__(self) -> Self:
        """Start to serve."""
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Let go of hanging requests and stop."""
        self.closing.set()
        self._http.shutdown()
        self._thread.join()
        self._http.server_close()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    model: ModelServer

    def handle_error(self, *_: object) -> None:
        """A killed Codex hangs up; nothing else can go wrong here that its run would not show."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def do_POST(self) -> None:
        """Answer ``POST /v1/responses`` with the turn that is due."""
        self.close_connection = True  # also when the script ends it before any header
        body = json.loads(self.rfile.read(int(self.headers.get("content-length", 0))))
        if not self.path.endswith("/responses"):
            return self._json(404, {"error": {"message": f"no {self.path} here"}})
        model = self.server.model
        model.requests.append(Request(body, self.headers.get("authorization")))
        return self._play(due(model.script_for(body), body), body)

    def do_GET(self) -> None:
        """List the model, and send a WebSocket back to plain HTTP."""
        if self.path.partition("?")[0].endswith("/models"):
            self._json(200, {"object": "list", "data": [{"id": MODEL}], "models": []})
        elif self.path.endswith("/responses"):
            self._json(426, {"error": {"message": "WebSockets are not spoken here"}})
        else:
            self._json(404, {"error": {"message": f"no {self.path} here"}})

    do_HEAD = do_GET

    def _play(self, turn: Sequence[Item], body: dict[str, Any]) -> None:
        stream = _Stream(self, body)
        for item in turn:
            match item:
                case Answer():
                    stream.give(item.wire())
                case HttpError():
                    error = {"type": item.code, "code": item.code, "message": item.message}
                    return self._json(item.status, {"error": error}, item.headers)
                case Delay():
                    if self.server.model.closing.wait(item.seconds):
                        return None
                case Drop():
                    return stream.open()
        return stream.complete()

    def _json(self, status: int, content: Any, headers: dict[str, str] | None = None) -> None:
        data = json.dumps(content).encode()
        self.start(status, {"content-length": str(len(data)), **(headers or {})})
        if self.command != "HEAD":
            self.wfile.write(data)

    def start(self, status: int, headers: dict[str, str]) -> None:
        """Send status and headers; every connection serves one request, so an end is an end."""
        self.send_response(status)
        for name, value in {"content-type": "application/json", **headers}.items():
            self.send_header(name, value)
        self.send_header("connection", "close")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Requests are kept, not printed."""


class _Stream:
    """The events of one response; its headers go out with the first."""

    def __init__(self, handler: _Handler, body: dict[str, Any]) -> None:
        self._handler = handler
        self._response = {"id": f"resp_{next(_calls)}", "model": body["model"]}
        self._read = len(json.dumps(body)) // 4  # about four characters make a token
        self._written = 0
        self._opened = False

    def open(self) -> None:
        """Send the headers and the first event, once."""
        if not self._opened:
            self._opened = True
            self._handler.start(200, {"content-type": "text/event-stream"})
            self._send("response.created", {"response": self._response})

    def give(self, item: dict[str, Any]) -> None:
        """Send one finished item."""
        self.open()
        self._written += len(json.dumps(item)) // 4
        self._send("response.output_item.done", {"item": item})

    def complete(self) -> None:
        """Send the end, with a usage that looks like one."""
        self.open()
        usage = {
            "input_tokens": self._read,
            "input_tokens_details": {"cached_tokens": 0},
            "output_tokens": self._written,
            "output_tokens_details": {"reasoning_tokens": 0},
            "total_tokens": self._read + self._written,
        }
        self._send("response.completed", {"response": self._response | {"usage": usage}})

    def _send(self, event: str, data: dict[str, Any]) -> None:
        text = f"event: {event}\ndata: {json.dumps({'type': event, **data})}\n\n"
        self._handler.wfile.write(text.encode())
        self._handler.wfile.flush()


CONFIG = """\
model = "{model}"
model_provider = "scripted"

[model_providers.scripted]
name = "Scripted model"
base_url = "{base_url}"
wire_api = "responses"
requires_openai_auth = true
request_max_retries = 0  # a script means what it says the first time
stream_max_retries = 0

[features]
plugins = false
apps = false
unbounded_connection_retries = false

[analytics]
enabled = false
"""


def make_codex_home(path: Path, base_url: str, codex: str | Path) -> Path:
    """Make a ``CODEX_HOME`` that is logged in, with a fake key, at the server of ``base_url``."""
    path.mkdir(mode=0o700, parents=True)
    (path / "config.toml").write_text(CONFIG.format(model=MODEL, base_url=base_url))
    environment = {"PATH": os.environ["PATH"], "HOME": str(path), "CODEX_HOME": str(path)}
    subprocess.run(
        [codex, "login", "--with-api-key"],
        input=FAKE_KEY,
        env=environment,
        text=True,
        capture_output=True,
        check=True,
    )
    return path
