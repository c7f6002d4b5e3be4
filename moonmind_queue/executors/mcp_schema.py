"""Checks values against the JSON Schema that an MCP server gives for a tool.

The server wrote the schema and whoever added the job the value, and the two together must not
hold up a worker. Nothing that a schema refers to is fetched, and its regular expressions are
matched by an engine that takes time in proportion to the text: Python's own can take years for
thirty characters, and holds the interpreter meanwhile. What that engine does not know (looking
ahead, going back) is left to the server to check.
"""

from collections.abc import Iterator, Mapping
from itertools import islice
from typing import Any

from pydantic_core import SchemaError, SchemaValidator, core_schema

SHOWN = 5  # faults that are named


def faults(schema: Mapping[str, Any], value: Any, name: str) -> list[str]:
    """Return what is wrong with a value, each with its path from ``name``; none if all is well.

    Raises ``ValueError`` when the schema itself cannot be used.
    """
    from jsonschema import Draft202012Validator  # type: ignore[import-untyped]
    from jsonschema import exceptions as wrong
    from jsonschema.validators import extend, validator_for  # type: ignore[import-untyped]
    from referencing import Registry
    from referencing.exceptions import Unresolvable

    if _has(schema, "patternProperties"):  # others look at them too, with Python's engine
        raise ValueError(f"the schema of {name} has patternProperties, which the server checks")
    base = validator_for(schema, default=Draft202012Validator)
    kind = extend(base, {"pattern": _pattern})
    try:
        base.check_schema(schema)
        found = list(islice(kind(schema, registry=Registry()).iter_errors(value), SHOWN))
    except wrong.SchemaError as error:
        raise ValueError(f"the schema of {name} is not valid: {error.message}") from None
    except Unresolvable as error:
        raise ValueError(f"the schema of {name} refers to {error.ref!r} elsewhere") from None
    except RecursionError:
        raise ValueError(f"the schema of {name} refers to itself without end") from None
    return [f"{name}{each.json_path.removeprefix('$')}: {each.message[:300]}" for each in found]


def _has(schema: Any, keyword: str) -> bool:
    """Say whether a keyword, or a property of that name, stands anywhere."""
    if isinstance(schema, Mapping):
        return keyword in schema or any(_has(each, keyword) for each in schema.values())
    return isinstance(schema, list) and any(_has(each, keyword) for each in schema)


def _pattern(validator: Any, pattern: str, value: Any, _: Any) -> Iterator[Exception]:
    from jsonschema.exceptions import ValidationError  # type: ignore[import-untyped]

    if not validator.is_type(value, "string"):
        return
    try:
        text = SchemaValidator(core_schema.str_schema(pattern=pattern, regex_engine="rust-regex"))
    except SchemaError:
        return
    if not text.isinstance_python(value):
        yield ValidationError(f"{value!r} does not match {pattern!r}")
