"""What becomes of the pooler's tests on a machine without PgBouncer."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
COLLECT = """
import sys
sys.path.insert(0, "tools")
import pgbouncer, pytest
pgbouncer.find = lambda: None
sys.exit(pytest.main(["--collect-only", "-q", "-p", "no:cacheprovider", "tests/system"]))
"""


def collect(**environment: str) -> "subprocess.CompletedProcess[str]":
    """Collect the system tests as if there were no pgbouncer here."""
    return subprocess.run(
        [sys.executable, "-c", COLLECT],
        cwd=ROOT,
        env={**os.environ, "MOONMIND_TEST_REQUIRE": "", **environment},
        capture_output=True,
        text=True,
        check=False,
    )


def test_without_pgbouncer_its_tests_are_left_out_in_words():
    """They are deselected, not skipped; a line says so and how to have them."""
    done = collect()

    assert done.returncode == 0
    assert "no pgbouncer: " in done.stdout
    assert "tools/debian_packages.sh pgbouncer" in done.stdout
    assert "test_pooler.py" not in done.stdout
    assert "test_worker.py" in done.stdout


def test_where_it_is_required_its_absence_is_an_error():
    """CI, which requires it, cannot lose these tests unnoticed."""
    done = collect(MOONMIND_TEST_REQUIRE="docker,pgbouncer")

    assert done.returncode == 4
    assert "MOONMIND_TEST_REQUIRE names pgbouncer, and there is none" in done.stderr
