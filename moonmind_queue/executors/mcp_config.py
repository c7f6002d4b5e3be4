"""Which MCP servers a worker may use: the file that ``MOONMIND_MCP_CONFIG`` names.

It has the form that other clients of the protocol share::

    {"mcpServers": {
      "time":  {"command": "uvx", "args": ["mcp-server-time"], "tools": ["get_current_time"]},
      "issue": {"url": "https://mcp.example.com/", "headers": {"Authorization": "Bearer ${TOKEN}"}}
    }}

``tools`` lists what may be called; without it, or with ``"*"`` in it, every tool may. ``${NAME}``
and ``${NAME:-default}`` stand for variables of the worker's environment. A key that is not known
is refused by name: a misspelt ``tools`` would permit everything.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal, Self
from urllib.parse import parse_qsl, urlsplit

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError
from pydantic import model_validator as validator
from pydantic_core import PydanticCustomError

from moonmind_queue.errors import SettingsError
from moonmind_queue.redact import environment_secrets

SETTING = "MOONMIND_MCP_CONFIG"

_OWN = ("DATABASE_URL", "MOONMIND_LISTEN_DATABASE_URL")
_REFERENCE = re.compile(r"\$\{([^}]*)\}")
_VARIABLE = re.compile(r"(?:env:)?([A-Za-z_][A-Za-z0-9_]*)(?::-(.*))?", re.DOTALL)
_KEY = re.compile(r"(?=.*[0-9])(?=.*[A-Za-z])(?![/.~])(?!.*://)\S{16,}")


@dataclass(frozen=True, slots=True, kw_only=True)
class StdioServer:
    """A program that is started for a call and talks on its standard input and output.

    ``env`` is what the file adds to the environment; ``secrets`` are values to be redacted.
    """

    name: str
    argv: tuple[str, ...] = field(repr=False)
    env: Mapping[str, str] = field(repr=False)
    cwd: Path
    secrets: tuple[str, ...] = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpServer:
    """A server that runs elsewhere; ``sse`` asks for the transport of 2024."""

    name: str
    url: str = field(repr=False)
    headers: Mapping[str, str] = field(repr=False)
    sse: bool
    secrets: tuple[str, ...] = field(repr=False)


Server = StdioServer | HttpServer


class McpConfig:
    """The servers of one file; what their variables stand for is looked up when one is used."""

    def __init__(self, path: Path, entries: Mapping[str, "_Entry"]) -> None:
        self.path = path
        self._entries = entries

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read the file; raises ``SettingsError`` that names file and key, never a value."""
        try:
            text = path.read_text(encoding="utf-8-sig")
        except OSError as error:
            raise SettingsError(f"{SETTING}: {path} cannot be read: {error.strerror}") from None
        except UnicodeDecodeError:
            raise SettingsError(f"{SETTING}: {path} is not UTF-8") from None
        try:
            return cls(path, _File.model_validate_json(text).servers)
        except ValidationError as error:
            faults = "; ".join(_fault(each) for each in error.errors(include_input=False))
            raise SettingsError(f"{SETTING}: {path}: {faults}") from None

    @property
    def names(self) -> list[str]:
        """The servers that can be used, sorted; one that is ``disabled`` cannot."""
        return sorted(name for name, entry in self._entries.items() if not entry.disabled)

    def tools(self, name: str) -> list[str] | None:
        """Return which tools of a server may be called, sorted; ``None`` is all of them."""
        allowed = self._entries[name].tools
        return None if allowed is None or "*" in allowed else sorted(set(allowed))

    def server(self, name: str, environ: Mapping[str, str]) -> Server:
        """Return a server of :attr:`names`, its variables filled in.

        Raises ``SettingsError`` for what cannot be used, such as a variable that is not set.
        """
        entry = self._entries[name]
        fill = _Filler(f"{SETTING}: {self.path}: mcpServers.{name}", environ)
        if entry.url is not None:
            url = fill("url", entry.url)
            if not url.startswith(("http://", "https://")):
                raise fill.refuse("url", "must begin with http:// or https://")
            headers = fill.all("headers", entry.headers)
            if bad := [each for each, value in headers.items() if re.search(r"[\r\n]", value)]:
                raise fill.refuse(f"headers.{bad[0]}", "must not hold a line break")
            try:
                secrets = (*_url_secrets(url), *_header_secrets(headers))
            except ValueError:
                raise fill.refuse("url", "is not a URL") from None
            sse = entry.type == "sse"
            return HttpServer(name=name, url=url, headers=headers, sse=sse, secrets=secrets)
        argv = [fill("command", entry.command or "")]
        argv += [fill(f"args.{place}", text) for place, text in enumerate(entry.args)]
        env = fill.all("env", entry.env)
        # Relative to the file, so that it means the same wherever the worker was started.
        cwd = self.path.absolute().parent / fill("cwd", entry.cwd or "")
        secrets = tuple(_env_secrets(env))
        return StdioServer(name=name, argv=tuple(argv), env=env, cwd=cwd, secrets=secrets)


_Filled = Annotated[str, StringConstraints(min_length=1)]
_Type = Literal["stdio", "local", "http", "streamable-http", "streamableHttp", "sse"]


class _Entry(BaseModel):
    """One server as it stands in the file."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, hide_input_in_errors=True)

    command: _Filled | None = None
    args: list[str] = []
    env: dict[str, str] = {}
    cwd: str | None = None
    url: _Filled | None = None
    headers: dict[str, str] = {}
    type: _Type | None = None
    tools: list[_Filled] | None = None
    disabled: bool = False
    # What other clients keep here: it says when a person is asked, or nothing to a worker.
    description: Any = None
    timeout: Any = None
    trust: Any = None
    always_allow: Any = Field(None, alias="alwaysAllow")
    auto_approve: Any = Field(None, alias="autoApprove")

    @validator(mode="after")
    def _one_kind(self) -> Self:
        if (self.command is None) == (self.url is None):
            raise _refuse("needs either command or url")
        local = self.type in ("stdio", "local")
        if self.type is not None and local != (self.command is not None):
            raise _refuse(f"type {self.type} does not go with {'url' if local else 'command'}")
        if self.command is not None and self.headers:
            raise _refuse("headers go with url, not with command")
        if self.url is not None and (self.args or self.env or self.cwd is not None):
            raise _refuse("args, env and cwd go with command, not with url")
        return self


class _File(BaseModel):
    """The file; a client's other settings may stand beside the servers."""

    model_config = ConfigDict(extra="ignore", strict=True, hide_input_in_errors=True)

    servers: dict[_Filled, _Entry] = Field(alias="mcpServers")


class _Filler:
    """Puts the worker's variables into the texts of one server."""

    def __init__(self, where: str, environ: Mapping[str, str]) -> None:
        self._where = where
        self._environ = environ

    def __call__(self, key: str, text: str) -> str:
        """Return a text with its variables filled in."""
        filled = _REFERENCE.sub(lambda found: self._value(key, found), text)
        if "\0" in filled:
            raise self.refuse(key, "must not hold a NUL character")
        return filled

    def all(self, key: str, texts: Mapping[str, str]) -> dict[str, str]:
        """Fill in the values of an object."""
        return {name: self(f"{key}.{name}", text) for name, text in texts.items()}

    def refuse(self, key: str, reason: str) -> SettingsError:
        """Say what is wrong with one key."""
        return SettingsError(f"{self._where}.{key}: {reason}")

    def _value(self, key: str, found: re.Match[str]) -> str:
        variable = _VARIABLE.fullmatch(found[1])
        if variable is None:
            raise self.refuse(key, f"{found[0]} is neither ${{NAME}} nor ${{NAME:-default}}")
        name, default = variable[1], variable[2]
        if name in _OWN:
            raise self.refuse(
                key,
                f"{name} is the queue's own login, which is not handed on; "
                "give the server a role of its own",
            )
        if value := self._environ.get(name):
            return value
        if default is None:
            raise self.refuse(key, f"the variable {name} is not set")
        return default


def _env_secrets(env: Mapping[str, str]) -> Iterator[str]:
    """Yield the values that are secret by their name, or that look like a key."""
    yield from environment_secrets(env)
    yield from (value for value in env.values() if _KEY.fullmatch(value))


def _header_secrets(headers: Mapping[str, str]) -> Iterator[str]:
    """Yield every value, and what follows a scheme such as ``Bearer`` by itself."""
    for value in headers.values():
        yield value
        yield value.rpartition(" ")[2]


def _url_secrets(url: str) -> Iterator[str]:
    query = urlsplit(url).query
    yield from environment_secrets({"url": url})
    yield from _env_secrets(dict(parse_qsl(query)))
    yield from environment_secrets(dict(part.partition("=")[::2] for part in query.split("&")))


def _refuse(reason: str) -> PydanticCustomError:
    return PydanticCustomError("mcp_config", "{reason}", {"reason": reason})


_WORDS = {
    "missing": "is required",
    "model_type": "must be an object",
    "dict_type": "must be an object",
    "list_type": "must be a list",
    "string_type": "must be a string",
    "bool_type": "must be true or false",
    "string_too_short": "must not be empty",
}


def _fault(error: Any) -> str:
    """Say what is wrong with one key; never its value, which may be a secret."""
    where = ".".join(str(part)[:60] for part in error["loc"]) or "the file"
    kind = error["type"]
    if kind == "json_invalid":
        return f"not JSON: {error['ctx']['error']}"
    if kind == "extra_forbidden":
        known = sorted(each.alias or name for name, each in _Entry.model_fields.items())
        return f"{where}: unknown key; there are {', '.join(known)}"
    if kind == "literal_error":
        return f"{where}: must be one of: {error['ctx']['expected'].replace(chr(39), '')}"
    return f"{where}: {_WORDS.get(kind) or error['msg']}"
