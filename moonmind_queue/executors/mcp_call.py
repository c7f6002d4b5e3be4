"""Calls a tool of an MCP server and keeps what it answers.

Payload: ``{"server": "time", "tool": "get_current_time", "arguments": {"timezone": "UTC"}}``, and
``timeout``, in seconds, for less than ``MOONMIND_RUN_TIMEOUT_SECONDS``. Servers are those of the
file ``MOONMIND_MCP_CONFIG`` (``mcp_config.py``), which is read for each call. How a call can end:

=======  =========================================================================
result   the tool answered; what it answered is in the artifacts (``mcp_result.py``)
block    the file, the server, or the permission to use the tool is missing; the server
         does not know us or the tool; it asks for what only a person can give
fail     the arguments do not fit the tool's schema; the tool failed; the answer is not
         of the protocol, or too large
retry    the server cannot be started or reached, ends, refuses for now, takes too long;
         a tool failed that says of itself that it may be called again
=======  =========================================================================

A tool that failed is called again only where the server declares it to be read-only or
idempotent: of any other nobody knows what it did before it failed.
"""

import os
import time
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import structlog

from moonmind_queue.errors import ArtifactTooLarge, InvalidPayload, NotAllowed, SettingsError
from moonmind_queue.executors import Block, Context, Fail, Outcome, Retry
from moonmind_queue.executors.mcp_config import SETTING, McpConfig, Server
from moonmind_queue.executors.mcp_log import LOG_LIMIT, CallLog
from moonmind_queue.executors.mcp_result import Response
from moonmind_queue.model import ClaimedJob
from moonmind_queue.redact import Redactor, environment_secrets
from moonmind_queue.settings import Settings

if TYPE_CHECKING:
    from moonmind_queue.executors.mcp_session import Answer

LOG = "logs/mcp_call.log"
ERROR_LIMIT = 2000  # characters
ENVELOPE = 1024 * 1024  # bytes of a message besides what it carries
NAME_LIMIT = 200  # characters of a server's or a tool's name
LONGEST = 1e9  # seconds

_MEMBERS = ("server", "tool", "arguments", "timeout")
_INSTALL = "the kind mcp-call needs the package mcp: pip install 'moonmind-queue[mcp]'"

_log = structlog.get_logger()


class McpCall:
    """Calls one tool; the server of a call runs as long as the call does."""

    def __init__(
        self,
        config: Path | None,
        *,
        environ: Mapping[str, str],
        run_timeout: float,
        artifact_max_bytes: int,
    ) -> None:
        self._config = config
        self._environ = environ
        self._run_timeout = run_timeout
        self._limit = artifact_max_bytes

    @classmethod
    def validate(cls, payload: Mapping[str, Any]) -> dict[str, Any]:
        """Return the payload, or raise ``InvalidPayload`` that names each member at fault.

        ``kind`` may stand in it, as in a task of a DAG file.
        """
        faults = [
            f"{name[:60]}: unknown key; there are {', '.join(_MEMBERS)}"
            for name in payload
            if name not in (*_MEMBERS, "kind")
        ]
        for name in ("server", "tool"):
            value = payload.get(name)
            if name not in payload:
                faults.append(f"{name}: is required")
            elif not isinstance(value, str) or not 0 < len(value.strip()) <= NAME_LIMIT:
                faults.append(f"{name}: must be a name of at most {NAME_LIMIT} characters")
        if not isinstance(payload.get("arguments", {}), Mapping):
            faults.append("arguments: must be an object")
        seconds = payload.get("timeout", 1)
        number = isinstance(seconds, int | float) and not isinstance(seconds, bool)
        if not number or not 0 < seconds <= LONGEST:
            faults.append("timeout: must be a number of seconds above 0")
        if faults:
            raise InvalidPayload(f"mcp-call: {'; '.join(faults)}")
        return dict(payload)

    @classmethod
    def configure(cls, settings: Settings) -> Self:
        """Take the settings, and the environment for the variables of the file."""
        return cls(
            settings.mcp_config,
            environ=os.environ,
            run_timeout=settings.run_timeout_seconds,
            artifact_max_bytes=settings.artifact_max_bytes,
        )

    def check(self) -> None:
        """Raise ``SettingsError`` when there is a file and it, or the SDK, cannot be used.

        Without a file nothing is wrong: workers of many kinds have no use for one. A job of the
        kind is then blocked with words that say so.
        """
        if self._config is None:
            _log.info("mcp_call.no_servers", help=f"{SETTING} names the file that lists them")
            return
        if find_spec("mcp") is None:
            raise SettingsError(f"{_INSTALL}, or unset {SETTING}")
        config = McpConfig.read(self._config)
        for name in config.names:
            config.server(name, self._environ)
        _log.info("mcp_call.servers", file=str(self._config), servers=config.names)

    def run(self, job: ClaimedJob, context: Context) -> Mapping[str, Any]:
        """Make the call, store what there is to store, and return the result."""
        try:
            payload = self.validate(job.payload)
        except InvalidPayload as error:
            raise Fail(str(error)) from None
        server = self._permitted(payload["server"], payload["tool"])
        redactor = Redactor([*environment_secrets(self._environ), *server.secrets])
        log = CallLog(redactor, context, min(LOG_LIMIT, self._limit))
        try:
            result = self._call(server, payload, log, context)
        except Outcome as outcome:
            outcome.args = (log.shorten(str(outcome), ERROR_LIMIT),)
            log.line(f"{type(outcome).__name__.lower()}: {outcome}")
            self._keep(log, context)
            raise
        log.line(f"ended well after {result['seconds']:g} s")
        if self._keep(log, context):
            result["artifacts"].append(LOG)
        return result

    def _permitted(self, name: str, tool: str) -> Server:
        """Return the server, or block the job before anything is started."""
        if self._config is None:
            raise Block(f"there are no MCP servers: set {SETTING} to the file that lists them")
        if find_spec("mcp") is None:
            raise Block(_INSTALL)
        try:
            config = McpConfig.read(self._config)
            if name not in config.names:
                there = ", ".join(config.names) or "none"
                raise Block(f"server {name!r} is not in {self._config}; there are: {there}")
            tools = config.tools(name)
            if tools is not None and tool not in tools:
                there = ", ".join(tools) or "none"
                raise Block(
                    f"tool {tool!r} of server {name!r} is not allowed by {self._config}; "
                    f"allowed are: {there}"
                )
            return config.server(name, self._environ)
        except SettingsError as error:
            raise Block(str(error)) from None

    def _call(
        self, server: Server, payload: Mapping[str, Any], log: CallLog, context: Context
    ) -> dict[str, Any]:
        from moonmind_queue.executors.mcp_session import Call

        tool = payload["tool"]
        begin = time.monotonic()
        answer = Call(server, tool, payload.get("arguments", {}), log).run(
            self._environ,
            context.stop,
            min(payload.get("timeout", self._run_timeout), self._run_timeout),
            2 * self._limit + ENVELOPE,  # base64 takes a third more, and text may come twice
        )
        seconds = round(time.monotonic() - begin, 3)
        response = Response(answer.result, log.redactor, self._limit)
        names, too_large = self._attach(response, context)
        if response.is_error:
            said = response.text or "it gave no reason"
            text = f"tool {tool!r} of server {server.name!r} failed: {said}"
            raise Retry(text) if answer.repeatable else Fail(text)
        if too_large:
            raise Fail(f"the answer was not kept whole: {'; '.join(too_large)}")
        result = {"status": "ok", "server": server.name, "tool": tool, **response.summary()}
        if wrong := self._broken_promises(answer, log):
            result["warning"] = log.shorten(f"not what the tool promises: {'; '.join(wrong)}")
            log.progress(result["warning"], level="warn")
        return {**result, "artifacts": names, "seconds": seconds}

    def _broken_promises(self, answer: "Answer", log: CallLog) -> list[str]:
        """Return what of the structured content is not as the tool's schema promises."""
        from moonmind_queue.executors.mcp_schema import faults

        if answer.output_schema is None:
            return []
        given = answer.result.get("structuredContent")
        try:
            return faults(answer.output_schema, given, "structured content")
        except ValueError as error:
            log.line(f"the structured content was not checked: {error}")
            return []

    def _attach(self, response: Response, context: Context) -> tuple[list[str], list[str]]:
        """Store what fits; return the names of it, and what is wrong with the rest."""
        names: list[str] = []
        too_large: list[str] = []
        for file in response.files():
            if len(file.content) > self._limit:
                too_large.append(
                    f"{file.name} has {len(file.content)} bytes, more than the {self._limit} of "
                    "MOONMIND_ARTIFACT_MAX_BYTES"
                )
                continue
            try:
                context.attach(file.name, file.content, file.content_type)
            except (NotAllowed, ArtifactTooLarge) as error:
                raise Block(f"{file.name} could not be stored: {error}") from None
            names.append(file.name)
        return names, too_large

    def _keep(self, log: CallLog, context: Context) -> bool:
        """Store the log; that it cannot be stored never hides how the call ended."""
        try:
            context.attach(LOG, log.content(), "text/plain")
        except Exception as error:
            _log.warning("mcp_call.log_lost", error=str(error))
            return False
        return True
