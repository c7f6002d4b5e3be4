"""Tools: what they take and what they answer, a refusal included. Nothing here speaks MCP.

What an agent asks for is checked against a model, whose docstring and fields are all that the agent
is told. Whatever goes wrong is an answer too: ``{"ok": false, "code": …, "message": …}``.
"""

import inspect
import json
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import structlog
from pydantic import BaseModel, ConfigDict, ValidationError, model_validator
from pydantic.alias_generators import to_camel

from moonmind_queue.errors import InvalidArgument, QueueError

DEEPEST = 100  # levels of an answer; what is twice as deep nobody can write or read
AROUND = 10  # of them around what a call has brought, so that it can be read again
# What a log may say of a call: ids, names and paths, never contents.
TOLD = ("id", "taskId", "jobId", "worker", "workerId", "path", "dir", "kind", "name", "agent")

log = structlog.get_logger()


class Arguments(BaseModel):
    """What a tool takes. Names are camelCase for agents; snake_case is understood too."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, alias_generator=to_camel, populate_by_name=True
    )

    @model_validator(mode="before")
    @classmethod
    def _leave_out_null(cls, given: Any) -> Any:
        """Models write null for what they leave out, whatever its schema says."""
        if isinstance(given, Mapping):
            return {name: value for name, value in given.items() if value is not None}
        return given


class Refused(Exception):
    """A call that is answered with a code and a message instead of a result."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


class UnknownTool(ValueError):
    """There is no tool of that name."""


@dataclass(frozen=True, slots=True)
class Tool:
    """One tool: ``run`` gets an instance of ``takes`` and returns a JSON value.

    ``reads`` says that it changes nothing, ``again`` that a second call changes nothing more,
    ``destroys`` that something others have made may be gone or over after it.
    """

    name: str
    takes: type[Arguments]
    run: Callable[[Any], Any]
    reads: bool = False
    again: bool = False
    destroys: bool = False

    @property
    def description(self) -> str:
        """What the agent is told about it."""
        return inspect.cleandoc(self.takes.__doc__ or "")

    @property
    def schema(self) -> dict[str, Any]:
        """The JSON Schema of its arguments, in words that every client understands."""
        whole = self.takes.model_json_schema()
        simple: dict[str, Any] = _simple(whole, whole.get("$defs", {}))
        simple.setdefault("properties", {})
        del simple["description"]
        return simple

    def call(self, arguments: Mapping[str, Any]) -> Any:
        """Check the arguments and run it."""
        _check_depth(arguments, DEEPEST - AROUND, "the call")
        return self.run(self.takes.model_validate(arguments))


@dataclass(frozen=True, slots=True)
class Answer:
    """What a call gives: a JSON value, the same as text, and whether it is a refusal."""

    content: Any
    text: str
    refused: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Profile:
    """The tools of one server, its words to the agent, and its words for errors."""

    name: str
    instructions: str
    tools: Sequence[Tool]
    code: Callable[[Exception], str]
    largest: int  # bytes of a request over HTTP
    redact: Callable[[str], str] = str

    def ask(self, name: str, arguments: Mapping[str, Any]) -> Answer:
        """Call a tool, and log who was meant and how it ended."""
        began = time.monotonic()
        outcome = "ok"
        try:
            answer = _answer(self._tool(name).call(arguments))
        except Exception as error:
            refused = self._refusal(name, error)
            outcome, message = str(refused.code), self.redact(_storable(str(refused)))
            answer = _answer({"ok": False, "code": outcome, "message": message}, refused=True)
        spent = round(1000 * (time.monotonic() - began))
        log.info("mcp.called", tool=name[:100], outcome=outcome, ms=spent, **_told(arguments))
        return answer

    def _tool(self, name: str) -> Tool:
        for tool in self.tools:
            if tool.name == name:
                return tool
        known = ", ".join(tool.name for tool in self.tools)
        raise UnknownTool(f"there is no tool {name[:100]!r}; there are {known}")

    def _refusal(self, tool: str, error: Exception) -> Refused:
        if isinstance(error, Refused):
            return error
        if isinstance(error, ValidationError):
            return Refused(self.code(InvalidArgument()), _faults(error))
        if isinstance(error, QueueError | ValueError):
            return Refused(self.code(error), str(error))
        if isinstance(error, RecursionError):
            return Refused(self.code(ValueError()), "a value is nested too deeply")
        if isinstance(error, OSError):
            return Refused(self.code(error), error.strerror or type(error).__name__)
        place = traceback.extract_tb(error.__traceback__)[-1]
        log.error(
            "mcp.crashed",
            tool=tool,
            error=type(error).__name__,
            at=f"{place.filename}:{place.lineno}",
        )
        return Refused(self.code(Exception()), "the server made a mistake; its log says where")


def _answer(content: Any, *, refused: bool = False) -> Answer:
    """Refuse what cannot be sent: one bad value would end the whole server."""
    _check_depth(content, DEEPEST, "the answer")
    text = json.dumps(content, ensure_ascii=False, allow_nan=False)
    text.encode()  # half of a surrogate pair has no place in UTF-8
    return Answer(content, text, refused)


def _check_depth(content: Any, deepest: int, called: str) -> None:
    level = [content]
    for _ in range(deepest):
        level = [
            below
            for each in level
            if isinstance(each, Mapping | list)
            for below in (each.values() if isinstance(each, Mapping) else each)
        ]
        if not level:
            return
    raise ValueError(f"{called} is nested more than {deepest} levels deep")


def _storable(text: str) -> str:
    return text.encode(errors="replace").decode()


def _told(arguments: Mapping[str, Any]) -> dict[str, str]:
    event = arguments.get("event")
    given = {**(event if isinstance(event, Mapping) else {}), **arguments}
    return {name: str(given[name])[:200] for name in TOLD if isinstance(given.get(name), str | int)}


def _faults(error: ValidationError) -> str:
    """Return what is wrong with arguments, each by its name, without repeating its value."""
    told = []
    for fault in error.errors(include_url=False, include_input=False, include_context=False):
        where = ".".join(str(step) for step in fault["loc"]) or "arguments"
        what = {
            "missing": "is missing",
            "extra_forbidden": "is not a parameter of this tool",
        }.get(fault["type"], f"{fault['msg'][:1].lower()}{fault['msg'][1:]}")
        told.append(f"{where}: {what}")
    return "; ".join(told[:10])


def _simple(node: Any, known: Mapping[str, Any]) -> Any:
    """Put references in place, and leave out titles and that what may be missing may be null.

    Clients hand schemas on to models through subsets of their own, in which ``$ref`` and ``anyOf``
    may get lost.
    """
    if isinstance(node, list):
        return [_simple(each, known) for each in node]
    if not isinstance(node, dict):
        return node
    if "$ref" in node:
        target = known[node["$ref"].rpartition("/")[2]]
        node = target | {name: value for name, value in node.items() if name != "$ref"}
    choices = [each for each in node.get("anyOf", ()) if each != {"type": "null"}]
    if len(choices) == 1:
        node = choices[0] | {name: value for name, value in node.items() if name != "anyOf"}
    simple = {}
    for name, value in node.items():
        if name == "properties":
            simple[name] = {each: _simple(inner, known) for each, inner in value.items()}
        elif name not in ("title", "$defs") and not (name == "default" and value is None):
            simple[name] = _simple(value, known)
    return simple
