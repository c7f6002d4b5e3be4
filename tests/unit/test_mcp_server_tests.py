"""What becomes of the tests of others' MCP servers where these are not installed."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TESTS = ["tests/executors/test_mcp_servers.py", "tests/executors/test_mcp_schema.py"]


@pytest.mark.parametrize("folder", ["", "/srv/servers"])
def test_without_the_servers_their_tests_are_left_out_in_words(folder):
    """They are deselected, not skipped; a line says so and how to have them."""
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "--collect-only", "-q", "-p", "no:cacheprovider", *TESTS],
        cwd=ROOT,
        env={**os.environ, "MOONMIND_TEST_MCP_SERVERS": folder, "MOONMIND_TEST_REQUIRE": ""},
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 0, done.stderr
    assert "test_mcp_schema.py" in done.stdout
    assert ("test_mcp_servers.py::" in done.stdout) == bool(folder)
    left_out = "no MCP servers of others: " in done.stdout
    assert left_out == (not folder)
    assert ("tools/test_mcp_servers.py has them" in done.stdout) == left_out
