"""The harness measures us: a smoke of it at a tiny scale, which says nothing about speed."""

import json
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
WORKS = ["W1a", "W1b", "W2-1", "W3"]


def test_a_tiny_run_measures_us_and_reports_it(tmp_path):
    """In, in bulk, out and picked up: each work gives figures, and they reach the table."""
    output = tmp_path / "tiny.json"
    command = [sys.executable, "-m", "benchmarks", "--work", ",".join(WORKS)]
    command += ["--peer", "moonmind-queue", "--storage", "disk", "--repeat", "1"]
    done = subprocess.run(
        [*command, "--scale", "0.01", "--output", str(output)],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT), "COLUMNS": "120"},
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
