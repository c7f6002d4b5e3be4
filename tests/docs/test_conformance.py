"""docs/conformance.md and docs/faults.md name everything once, and only tests that exist."""

import ast
import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
# How many rows each section of the requirements has.
SECTIONS = {"A": 47, "M": 44, "W": 39, "Q": 34, "F": 19, "T": 10, "H": 18, "C": 18, "D": 29, "X": 8}
TEXT = (ROOT / "docs" / "conformance.md").read_text()
FAULTS = (ROOT / "docs" / "faults.md").read_text()


def test_every_requirement_has_one_row():
    """No row is missing and none stands twice, proven or open."""
    rows = re.findall(r"^\| ([A-Z]\d\d) \|", TEXT, re.M)

    assert rows == [f"{s}{n:02}" for s, count in SECTIONS.items() for n in range(1, count + 1)]


def test_every_test_that_is_named_exists():
    """A row is proven by tests that are there under that name."""
    for path, name in re.findall(r"`(tests/\S+?)::(\w+)`", TEXT + FAULTS):
        functions = {
            node.name
            for node in ast.parse((ROOT / path).read_text()).body
            if isinstance(node, ast.FunctionDef)
        }
        assert name in functions, f"{path}::{name}"


def test_the_count_is_right():
    """The number of proven rows at the top is the number of rows with a test."""
    proven = len(re.findall(r"^\| [A-Z]\d\d \|.*`tests/", TEXT, re.M))

    assert f"Proven: {proven} of {sum(SECTIONS.values())}." in TEXT


def test_a_row_without_a_test_says_why():
    """None is open in silence."""
    cells = re.findall(r"^\| [A-Z]\d\d \|.*\| (.+?) \|$", TEXT, re.M)

    assert len(cells) == sum(SECTIONS.values())
    assert all("`tests/" in cell or re.match("open: .{20}", cell) for cell in cells)


def test_every_known_fault_has_a_test_or_says_what_is_missing():
    """No row is missing, and none has neither."""
    rows = re.findall(r"^\| B-(\d\d) \|.*\| (.*?) \| (.*?)\|$", FAULTS, re.M)

    assert [number for number, _, _ in rows] == [f"{number:02}" for number in range(1, 86)]
    assert all("`tests/" in tests or here.startswith("Open: ") for _, here, tests in rows)
