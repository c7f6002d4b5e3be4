"""Tasks of a DAG that call MCP tools, done by a worker of Agentmux."""

import json
from pathlib import Path
from typing import Any

from mcp_bench import STDIO, work_off

import moonmind_queue


def test_the_answers_of_a_dag_are_artifacts(fresh: str, tmp_path: Path) -> None:
    """What the tools of a DAG answer lies below artifacts/ and in PostgreSQL, byte for byte."""
    call: dict[str, Any] = {"kind": "mcp-call", "server": "box"}
    tasks = {
        "sums:add": {**call, "tool": "add", "arguments": {"terms": [40, 2]}},
        "show it/../all": {**call, "tool": "show"},
    }

    work_off(fresh, tmp_path, {"box": STDIO}, tasks)

    with moonmind_queue.connect(fresh) as queue:
        jobs = {job.key: job for job in queue.list_jobs()}
        assert {key: job.state for key, job in jobs.items()} == dict.fromkeys(tasks, "succeeded")
        stored = {
            each.name: b"".join(queue.read_artifact(each))
            for job in jobs.values()
            for each in queue.artifacts(job.id)
            if each.name == "structured.json" or job.key != "sums:add"
        }
    assert json.loads(stored["structured.json"]) == {"total": 42, "terms": [40, 2]}
    assert {"content/1.png", "content/2.wav", "response.json"} <= stored.keys()
    files = [path for path in (tmp_path / "artifacts").rglob("*") if path.is_file()]
    for name, content in stored.items():
        assert content in [path.read_bytes() for path in files if str(path).endswith(f"/{name}")]
