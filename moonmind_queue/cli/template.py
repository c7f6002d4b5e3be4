"""Templates: a job in a YAML or JSON file, with ``${name}`` where a parameter's value belongs.

::

    parameters:
      repository:                           # text that has to be given
      issue: {type: integer, help: …}
      branch: main                          # a default; its type is the parameter's
    job:
      kind: codex_exec
      payload: {repository: "${repository}", instruction: "Fix issue ${issue}", ref: "${branch}"}

A string that is nothing but ``${name}`` becomes the value with its type; within a longer one the
value is text. ``$${`` is a ``${`` of the text itself. What is put in is not looked at again, so no
value can bring a parameter.
"""

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import click

LARGEST = 1024 * 1024  # bytes of a file
DEEPEST = 100  # levels of a job
NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
PLACE = re.compile(r"\$(\$?)\{([^{}]*)\}")
MISSING = object()


def _integer(text: str) -> int:
    if not re.fullmatch(r"-?[0-9]{1,18}", text):
        raise ValueError
    return int(text)


def _number(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError
    return number


def _boolean(text: str) -> bool:
    return {"true": True, "false": False}[text]


READ: Mapping[str, Callable[[str], Any]] = {
    "text": str,
    "integer": _integer,
    "number": _number,
    "boolean": _boolean,
}
TYPES: Mapping[type, str] = {str: "text", int: "integer", float: "number", bool: "boolean"}


@dataclass(frozen=True, slots=True)
class Parameter:
    """What a template asks for; without a default it has to be given."""

    name: str
    type: str = "text"
    default: Any = MISSING
    help: str = ""

    def read(self, text: str) -> Any:
        """Return the value of what stands on the command line."""
        try:
            return READ[self.type](text)
        except (ValueError, KeyError):
            raise click.UsageError(
                f"--set {self.name}: {text[:60]!r} is not {_a(self.type)}"
            ) from None


@dataclass(frozen=True, slots=True)
class Template:
    """A file that was read: its parameters, and the job with their places."""

    source: str
    parameters: Mapping[str, Parameter]
    job: Mapping[str, Any]

    def fill(self, given: Sequence[str]) -> dict[str, Any]:
        """Return the job with values, each given as ``name=value``; raises ``UsageError``."""
        values = {
            name: each.default
            for name, each in self.parameters.items()
            if each.default is not MISSING
        }
        for setting in given:
            name, equals, text = setting.partition("=")
            if not equals:
                raise click.UsageError(f"--set {setting[:60]!r} is not name=value")
            values[name] = self._parameter(name, f"--set {name[:60]}").read(text)
        if missing := [each for name, each in self.parameters.items() if name not in values]:
            wanted = ", ".join(
                each.name + (f" ({each.help})" if each.help else "") for each in missing
            )
            raise click.UsageError(f"{self.source} needs --set {wanted}")
        filled: dict[str, Any] = self._filled(self.job, values)
        return filled

    def _filled(self, value: Any, values: Mapping[str, Any], depth: int = 0) -> Any:
        if depth > DEEPEST:
            raise click.UsageError(f"{self.source}: the job has more than {DEEPEST} levels")
        if isinstance(value, Mapping):
            return {
                _text(name): self._filled(each, values, depth + 1) for name, each in value.items()
            }
        if isinstance(value, list):
            return [self._filled(each, values, depth + 1) for each in value]
        if isinstance(value, str):
            return self._put(value, values)
        if isinstance(value, datetime):  # YAML reads instants; like ours, UTC without an offset
            return value if value.tzinfo else value.replace(tzinfo=UTC)
        return value.isoformat() if isinstance(value, date) else value

    def _put(self, text: str, values: Mapping[str, Any]) -> Any:
        whole = PLACE.fullmatch(text)
        if whole and not whole[1]:
            return values[self._parameter(whole[2], f"${{{whole[2][:60]}}}").name]
        return PLACE.sub(lambda place: self._written(place, values), text)

    def _written(self, place: re.Match[str], values: Mapping[str, Any]) -> str:
        if place[1]:
            return place[0][1:]
        value = values[self._parameter(place[2], f"${{{place[2][:60]}}}").name]
        return str(value).lower() if isinstance(value, bool) else str(value)

    def _parameter(self, name: str, what: str) -> Parameter:
        if name in self.parameters:
            return self.parameters[name]
        known = ", ".join(self.parameters) or "none"
        literal = f"; for the text itself write ${what}" if what.startswith("${") else ""
        raise click.UsageError(
            f"{self.source}: {what} is no parameter; there are: {known}{literal}"
        )


def read(path: Path) -> Template:
    """Read a template; raises ``UsageError`` that names the file and what is wrong with it."""
    source, document = path.name, _document(path)
    if not isinstance(document, Mapping) or not isinstance(document.get("job"), Mapping):
        raise click.UsageError(
            f"{source}: needs a mapping with job:, the job, and may have parameters:"
        )
    if unknown := [_text(name) for name in document if name not in ("job", "parameters")]:
        raise click.UsageError(
            f"{source}: unknown {', '.join(unknown)[:100]}; there are job, parameters"
        )
    parameters = document.get("parameters") or {}
    if not isinstance(parameters, Mapping):
        raise click.UsageError(f"{source}: parameters is not a mapping of names")
    named = [_declared(source, _text(name), how) for name, how in parameters.items()]
    return Template(source, {each.name: each for each in named}, document["job"])


def _document(path: Path) -> Any:
    import yaml  # JSON is YAML

    content = path.read_bytes()
    if len(content) > LARGEST:
        raise click.UsageError(f"{path.name} is larger than {LARGEST // 2**20} MiB")
    try:
        text = content.decode()
        # A few aliases may stand for gigabytes, and nobody needs one here.
        if any(isinstance(each, yaml.AliasEvent) for each in yaml.parse(text, yaml.SafeLoader)):
            raise click.UsageError(f"{path.name}: a template has no aliases (*name)")
        return yaml.safe_load(text)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise click.UsageError(
            f"{path.name} is no YAML: {' '.join(str(error).split())[:300]}"
        ) from None


def _declared(source: str, name: str, how: Any) -> Parameter:
    """Read how a parameter is declared: by nothing, by its default, or in full."""
    where = f"{source}: parameter {name[:60]}"
    if not NAME.fullmatch(name):
        raise click.UsageError(f"{where}: a name has letters, digits and underscores")
    if how is None:
        return Parameter(name)
    if not isinstance(how, Mapping):
        return Parameter(name, _type_of(where, how), how)
    if unknown := [_text(each) for each in how if each not in ("type", "default", "help")]:
        raise click.UsageError(
            f"{where}: unknown {', '.join(unknown)[:100]}; there are type, default, help"
        )
    default = MISSING if how.get("default") is None else how["default"]
    assumed = "text" if default is MISSING else _type_of(where, default)
    kind = how.get("type", assumed)
    if kind == "number" and assumed == "integer":
        assumed = kind
    if kind not in READ:
        raise click.UsageError(f"{where}: type is one of {', '.join(READ)}, not {kind!r:.60}")
    if default is not MISSING and kind != assumed:
        raise click.UsageError(f"{where}: its default {default!r:.60} is not {_a(kind)}")
    return Parameter(name, kind, default, _text(how.get("help") or ""))


def _type_of(where: str, value: Any) -> str:
    if type(value) not in TYPES:
        raise click.UsageError(
            f"{where}: a default is {', '.join(map(_a, READ))}, not {value!r:.60}; in quotes it is"
            " text"
        )
    return TYPES[type(value)]


def _a(kind: str) -> str:
    return {"text": "text", "integer": "an integer", "boolean": "true or false"}.get(
        kind, f"a {kind}"
    )


def _text(value: Any) -> str:
    return value if isinstance(value, str) else str(value)
