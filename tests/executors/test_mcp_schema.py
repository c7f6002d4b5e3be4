"""Arguments are checked against the schema of a tool, whatever stands in it."""

import time
from typing import Any

import pytest

from moonmind_queue.executors.mcp_schema import faults

DRAFT_7 = "http://json-schema.org/draft-07/schema#"


@pytest.mark.parametrize(
    ("schema", "value", "found"),
    [
        ({"type": "object"}, {}, []),
        ({"required": ["a"]}, {}, ["arguments: 'a' is a required property"]),
        (
            {"properties": {"a": {"items": {"$ref": "#/$defs/n"}}}, "$defs": {"n": {"minimum": 2}}},
            {"a": [2, 1]},
            ["arguments.a[1]: 1 is less than the minimum of 2"],
        ),
        ({"additionalProperties": False}, {"a": 1}, [
            "arguments: Additional properties are not allowed ('a' was unexpected)",
        ]),
        # Of draft 7: the newest one knows no list here.
        ({"$schema": DRAFT_7, "items": [{"type": "null"}]}, [1], [
            "arguments[0]: 1 is not of type 'null'",
        ]),
    ],
)  # fmt: skip
def test_a_value(schema: Any, value: Any, found: list[str]) -> None:
    """A value that fits has no faults; each fault of another has its path."""
    assert faults(schema, value, "arguments") == found


@pytest.mark.parametrize(
    ("pattern", "text", "fits"),
    [
        ("b", "abc", True),
        ("^b", "abc", False),
        (r"^\d{4}-\d{2}$", "2026-11", True),
        (r"^\d+$", "12\n", False),
        (r"^[^\s@]+@[^\s@]+$", "ada@example.org", True),
        (r"^\/[\w.-]+$", "/etc", True),
        (r"^(?!x)", "x", True),  # not known to the engine: the server checks
    ],
)
def test_a_pattern(pattern: str, text: str, fits: bool) -> None:
    """A text must hold what a pattern says, anywhere; what is no text is let be."""
    schema = {"properties": {"a": {"pattern": pattern}}}
    words = [f"arguments.a: {text!r} does not match {pattern!r}"]
    assert faults(schema, {"a": text}, "arguments") == ([] if fits else words)
    assert faults(schema, {"a": 1}, "arguments") == []


def test_no_pattern_holds_up_a_worker() -> None:
    """A pattern that would take Python longer than the universe has been is matched at once."""
    begin = time.monotonic()
    assert faults({"pattern": "^(a+)+$"}, "a" * 10_000 + "!", "arguments")
    assert time.monotonic() - begin < 5


def test_only_a_few_faults_are_named() -> None:
    """Of a thousand faults five are named."""
    assert len(faults({"items": {"type": "string"}}, list(range(1000)), "arguments")) == 5


@pytest.mark.parametrize(
    ("schema", "words"),
    [
        ({"type": "thing"}, "is not valid: 'thing' is not valid under any of the given schemas"),
        ({"$ref": "http://h/x"}, "refers to 'http://h/x' elsewhere"),
        ({"$ref": "#"}, "refers to itself without end"),
        (
            {"allOf": [{"additionalProperties": False, "patternProperties": {"^(a+)+$": {}}}]},
            "has patternProperties, which the server checks",
        ),
    ],
)
def test_a_schema_that_cannot_be_used(schema: Any, words: str) -> None:
    """A schema that is wrong, elsewhere, endless or not checked here is named as such."""
    with pytest.raises(ValueError, match=r"^the schema of arguments ") as refused:
        faults(schema, {"a" * 10_000 + "!": 1}, "arguments")
    assert str(refused.value) == f"the schema of arguments {words}"
