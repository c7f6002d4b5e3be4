"""The harness measures us: a smoke of it at a tiny scale, which says nothing about speed."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.contest import ContestantError, Program

ROOT = Path(__file__).parents[2]
WORKS = ["W1a", "W1b", "W2-1", "W3"]
COMMAND = [
    *(sys.executable, "-m", "benchmarks"),
    *("--peer", "moonmind-queue", "--storage", "disk", "--scale", "0.01"),
]
SURROUNDINGS = os.environ | {"PYTHONPATH": str(ROOT), "COLUMNS": "120"}


def test_a_tiny_run_measures_us_and_reports_it(tmp_path):
    """In, in bulk, out and picked up: each work gives figures, and they reach the table."""
    output = tmp_path / "tiny.json"
    done = subprocess.run(
        [*COMMAND, "--work", ",".join(WORKS), "--repeat", "1", "--output", str(output)],
        cwd=ROOT,
        env=SURROUNDINGS,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    record = json.loads(output.read_text())
    table = output.with_suffix(".md").read_text()

    assert [result.get("error") for result in record["results"]] == [None] * len(WORKS)
    assert [result["work"] for result in record["results"]] == WORKS
    for result in record["results"]:
        figures = result["figures"]
        assert all(figures[name] > 0 for name in figures if "dead" not in name), figures
    assert record["full"] is False
    assert record["servers"]["disk"]["settings"]["fsync"] == "on"
    assert all(f"## {work}: " in table for work in WORKS)
    assert "**moonmind-queue**" in table
    assert "moonmind-queue" in done.stdout
    assert f"took {record['seconds']} s" in done.stderr


def test_a_run_that_is_interrupted_keeps_what_it_has_measured(tmp_path):
    """Ctrl-C in the middle of many repetitions: those before it are in the record and the table."""
    output = tmp_path / "some.json"
    with subprocess.Popen(
        # Who starts us in the background has interrupts ignored.
        [
            "env",
            "--default-signal=INT",
            *COMMAND,
            "--work",
            "W1a",
            "--repeat",
            "10000",
            "--output",
            str(output),
        ],
        cwd=ROOT,
        env=SURROUNDINGS,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    ) as run:
        assert run.stderr
        while not run.stderr.readline().startswith("W1a"):
            assert run.poll() is None, "it ended before it had measured anything"
        run.send_signal(signal.SIGINT)
        _, rest = run.communicate(timeout=60)
    record = json.loads(output.read_text())

    assert run.returncode == 0, rest
    assert record["results"][0]["figures"]["jobs_per_second"] > 0
    assert record["full"] is False
    assert "W1a" in output.with_suffix(".md").read_text()


def test_a_program_that_fails_is_quoted():
    """What a contestant printed before it ended is the reason that the report gives."""
    program = Program("hare work", [sys.executable, "-c", "raise SystemExit('no legs')"])
    try:
        with pytest.raises(ContestantError, match="hare work ended with status 1: no legs"):
            program.answer()
    finally:
        program.end()
