"""Checks values against the JSON Schema that an MCP server gives for a tool.

The server wrote the schema: nothing that it refers to is fetched.
"""

import re
from collections.abc import Mapping
from itertools import islice
from typing import Any

SHOWN = 5  # faults that are named


def faults(schema: Mapping[str, Any], value: Any, name: str) -> list[str]:
    """Return what is wrong with a value, each with its path from ``name``; none if all is well.

    Raises ``ValueError`` when the schema itself cannot be used.
    """
    from jsonschema import Draft202012Validator  # type: ignore[import-untyped]
    from jsonschema.exceptions import SchemaError  # type: ignore[import-untyped]
    from jsonschema.validators import validator_for  # type: ignore[import-untyped]
    from referencing import Registry
    from referencing.exceptions import Unresolvable

    kind = validator_for(schema, default=Draft202012Validator)
    try:
        kind.check_schema(schema)
        found = list(islice(kind(schema, registry=Registry()).iter_errors(value), SHOWN))
    except SchemaError as error:
        raise ValueError(f"the schema of {name} is not valid: {error.message}") from None
    except Unresolvable as error:
        raise ValueError(f"the schema of {name} refers to {error.ref!r} elsewhere") from None
    except (re.error, RecursionError) as error:
        raise ValueError(f"the schema of {name} cannot be used: {error}") from None
    return [f"{name}{each.json_path.removeprefix('$')}: {each.message[:300]}" for each in found]
