"""tools/test_unit.sh, by which the suite is run here and in CI."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TESTS = """
def test_right(): assert True
def test_wrong(): assert False
"""


@pytest.mark.parametrize(
    ("arguments", "status", "told"),
    [
        (["-k", "right"], 0, "1 passed, 1 deselected"),
        (["-k", "wrong"], 1, "1 failed, 1 deselected"),
        (["-k", "neither"], 5, "2 deselected"),
        (["--no-such-option"], 4, "unrecognized arguments: --no-such-option"),
    ],
)
def test_it_runs_what_it_is_asked_for(tmp_path, arguments, status, told):
    """From any directory, with pytest's arguments and pytest's exit status."""
    (tmp_path / "test_two.py").write_text(TESTS)
    programs = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"

    done = subprocess.run(
        [ROOT / "tools" / "test_unit.sh", *arguments, tmp_path / "test_two.py"],
        cwd=tmp_path,
        env={"PATH": programs, "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert told in done.stdout + done.stderr
    assert done.returncode == status


def test_ci_runs_the_whole_suite_by_it():
    """Without naming a file, so that no test is left out; ``make test`` is nothing else."""
    recipe = (ROOT / "Makefile").read_text().partition("\ntest:")[2].partition("\n\n")[0]

    assert recipe.splitlines()[-1].strip() == "@tools/test_unit.sh $(args)"
    runs = re.findall(r'make test args="(.*)"', (ROOT / ".ci" / "run").read_text())
    assert [each for each in runs if "tests/" not in each]
