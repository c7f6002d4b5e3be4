"""Serves a profile by streamable HTTP on 127.0.0.1, to those who know the token.

Loopback keeps other machines out, the token other users of this one, and the checks of Host and
Origin web pages that have made a browser believe that their name is 127.0.0.1.
"""

import hmac
import os
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

import structlog
import uvicorn
from mcp.server.transport_security import TransportSecuritySettings
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from moonmind_queue._daemon import stop_on_signals
from moonmind_queue.errors import SettingsError
from moonmind_queue.mcp.server import build, listen_to_sdk
from moonmind_queue.mcp.tools import Profile

HOST = "127.0.0.1"
PATH = "/mcp"
PATIENCE = 5  # seconds for calls that are under way when the server is to end
COURTESY = 0.5  # seconds to tell their clients that they did not

log = structlog.get_logger()


def serve(profile: Profile, port: int, token: str, ready: Callable[[str], None]) -> None:
    """Serve until SIGINT or SIGTERM; ``ready`` hears the URL once it can be called.

    Port 0 is any that is free. Raises ``SettingsError`` when the port is not to be had. A call that
    does not end in time ends the process.
    """
    listen_to_sdk()
    listener = _listen(port)
    port = listener.getsockname()[1]
    # Each request stands for itself: no session is lost when the server is started anew.
    app = build(profile).streamable_http_app(
        streamable_http_path=PATH,
        json_response=True,
        stateless_http=True,
        max_request_body_size=profile.largest,
        transport_security=TransportSecuritySettings(
            allowed_hosts=[f"{name}:{port}" for name in (HOST, "localhost")],
            allowed_origins=[f"http://{name}:{port}" for name in (HOST, "localhost")],
        ),
        host=HOST,
    )

    def announce() -> None:
        log.info("mcp.serving", profile=profile.name, over="http", port=port)
        ready(f"http://{HOST}:{port}{PATH}")

    config = uvicorn.Config(
        Guarded(app, token),
        log_config=None,
        access_log=False,
        server_header=False,
        ws="none",
        timeout_graceful_shutdown=PATIENCE,
    )
    server = _Server(config, announce)
    stop_on_signals(partial(_end, server))
    with listener:
        server.run(sockets=[listener])


class Guarded:
    """Lets requests through that carry the token, and answers all others with 401."""

    def __init__(self, app: ASGIApp, token: str) -> None:
        self._app = app
        self._token = token.encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request, or the server's own messages."""
        if scope["type"] == "http" and not self._admits(scope["headers"]):
            log.warning("mcp.unauthorized", path=scope["path"][:200])
            refusal = JSONResponse(
                {"error": "this server wants its token, as Authorization: Bearer TOKEN"},
                status_code=401,
                headers={"www-authenticate": "Bearer"},
            )
            await refusal(scope, receive, send)
            return
        await self._app(scope, receive, send)

    def _admits(self, headers: list[tuple[bytes, bytes]]) -> bool:
        given = [value for name, value in headers if name == b"authorization"]
        if len(given) != 1:
            return False
        scheme, _, token = given[0].partition(b" ")
        return scheme.lower() == b"bearer" and hmac.compare_digest(token.strip(), self._token)


class _Server(uvicorn.Server):
    """Says when it can be called, and leaves signals to us: its own handlers wait for ever."""

    def __init__(self, config: uvicorn.Config, started: Callable[[], None]) -> None:
        super().__init__(config)
        self._announce = started

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started:
            self._announce()

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def _end(server: _Server) -> None:
    """Let running calls end; a statement that waits for a lock might never, nor its thread."""
    server.should_exit = True
    last = threading.Timer(PATIENCE + COURTESY, _give_up)
    last.daemon = True
    last.start()


def _give_up() -> None:
    log.warning("mcp.calls_given_up")
    os._exit(0)


def _listen(port: int) -> socket.socket:
    try:
        listener = socket.create_server((HOST, port))
    except OSError as error:
        raise SettingsError(
            f"port {port} on {HOST} is not to be had: {error.strerror}; choose another --port"
        ) from None
    # Headers and body go out apart; else the second would wait 40 ms for a delayed ACK.
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return listener
