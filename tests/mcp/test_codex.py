"""The real Codex CLI as a client of our servers, configured as docs/mcp.md says."""

import json
import os
import re
import subprocess
from pathlib import Path

import pytest
from codex_cli_bin import bundled_codex_path
from model_server import Answer, ModelServer, make_codex_home, say

TEXT = (Path(__file__).parents[2] / "docs" / "mcp.md").read_text()
CONFIGURED = re.findall(r"^```toml\n(.*?)^```$", TEXT, re.M | re.S)
TOKEN = "a-token-for-codex-only"


def offered(body):
    """Return namespace and tools of the server, as Codex shows them to the model."""
    [found] = [tool for tool in body["tools"] if tool.get("name", "").endswith("moonmind")]
    return found["name"], {tool["name"]: tool for tool in found["tools"]}


def call(namespace, tool, arguments):
    """Have Codex call a tool of an MCP server."""
    content = {"namespace": namespace, "name": tool, "arguments": json.dumps(arguments)}
    return Answer({"type": "function_call", **content})


@pytest.fixture
def codex(tmp_path, own):
    """Run ``codex exec`` with MCP servers and a scripted model; gives its calls and requests.

    Where it has to end before it asks the model anything, ``fails`` is what it then says.
    """

    def run(servers, script, fails=None, **environment):
        with ModelServer(script) as model:
            home = make_codex_home(tmp_path / "codex", model.base_url, bundled_codex_path())
            config = (home / "config.toml").read_text()
            (home / "config.toml").write_text(f"{config}\n{servers}")
            (tmp_path / "work").mkdir()
            done = subprocess.run(
                [bundled_codex_path(), "exec", "--json", "--skip-git-repo-check",
                 "--sandbox", "read-only", "--model", "scripted", "-C", tmp_path / "work", "-"],
                input="Add a job.", capture_output=True, text=True, timeout=180, check=False,
                env={"PATH": os.environ["PATH"], "HOME": str(tmp_path), "CODEX_HOME": str(home),
                     "TMPDIR": str(tmp_path), **environment},
            )  # fmt: skip
        if fails:
            assert (done.returncode, model.requests) == (1, [])
            assert fails in done.stderr
            return [], []
        assert done.returncode == 0, done.stdout + done.stderr
        calls = [
            event["item"]
            for event in map(json.loads, done.stdout.splitlines())
            if event["type"] == "item.completed" and event["item"]["type"] == "mcp_tool_call"
        ]
        return calls, [request.body for request in model.requests]

    return run


def adding(job):
    """Return a script of a model that finds the tool in what it is offered, and calls it."""

    def script(body):
        namespace, tools = offered(body)
        [name] = [each for each in tools if each.endswith("enqueue")]
        return [[call(namespace, name, job)], [say("Added.")]]

    return script


def test_codex_lists_the_tools_and_adds_a_job(codex, own, connected):
    """Over stdio: Codex starts the server, its model finds queue.enqueue and calls it."""
    [servers] = [each for each in CONFIGURED if "args" in each]
    servers = servers.replace('"moonmind-queue"', json.dumps(own.command))
    payload = {"repository": "acme/site", "instruction": "The tests fail. Mend the code."}
    job = {"kind": "codex_exec", "payload": payload, "name": "from Codex"}

    calls, requests = codex(servers, adding(job), DATABASE_URL=own.dsn)

    _, tools = offered(requests[0])
    assert {name.replace("_", ".", 1) for name in tools} == {
        "queue.enqueue", "queue.claim", "queue.heartbeat", "queue.complete", "queue.fail",
        "queue.get", "queue.list", "queue.events", "queue.cancel", "queue.upload_artifact",
    }  # fmt: skip
    enqueue = tools["queue_enqueue"]
    assert "codex_exec" in enqueue["description"]
    assert enqueue["parameters"]["required"] == ["kind"]
    assert enqueue["parameters"]["properties"]["payload"]["type"] == "object"
    [done] = calls
    assert (done["server"], done["tool"], done["status"]) == (
        "moonmind", "queue.enqueue", "completed",
    )  # fmt: skip
    [listed] = connected.list_jobs()
    stored = connected.get(listed.id)
    assert (stored.kind, stored.payload, stored.name) == ("codex_exec", payload, "from Codex")
    assert done["result"]["structured_content"] == stored.summary()
    assert str(stored.id) in json.dumps(requests[1]["input"])


def test_codex_reads_why_a_call_is_refused(codex, own, connected):
    """The code and the message reach the model, which can do better."""
    [servers] = [each for each in CONFIGURED if "args" in each]
    servers = servers.replace('"moonmind-queue"', json.dumps(own.command))

    [refused], requests = codex(servers, adding({"kind": "nonsense"}), DATABASE_URL=own.dsn)

    assert refused["result"]["structured_content"]["code"] == "invalid_queue_payload"
    told = json.dumps(requests[1]["input"])
    assert "invalid_queue_payload" in told
    assert "unknown kind" in told
    assert connected.count_jobs() == 0


def test_codex_does_not_begin_without_a_server_that_it_needs(codex, own):
    """One that cannot be started, here for want of a database's address, is named."""
    [servers] = [each for each in CONFIGURED if "args" in each]
    servers = servers.replace('"moonmind-queue"', json.dumps(own.command))

    codex(
        servers,
        adding({"kind": "noop"}),
        fails="required MCP servers failed to initialize: moonmind",
    )


def test_codex_adds_a_job_over_http(codex, own, connected):
    """With the token in a variable; Codex needs no address of a database."""
    url, _ = own.web("queue", "--token-env", "T", T=TOKEN)
    [servers] = [each for each in CONFIGURED if "bearer_token_env_var" in each]
    servers = servers.replace("http://127.0.0.1:8766/mcp", url)

    [done], _ = codex(servers, adding({"kind": "noop"}), MOONMIND_MCP_TOKEN=TOKEN)

    assert done["status"] == "completed"
    [job] = connected.list_jobs()
    assert job.kind == "noop"


def test_codex_hands_on_the_job_that_its_agent_works_on(codex, own, connected):
    """As docs/follow-up.md configures it: what the model adds comes from that job."""
    text = (Path(__file__).parents[2] / "docs" / "follow-up.md").read_text()
    [servers] = re.findall(r"^```toml\n(.*?)^```$", text, re.M | re.S)
    servers = servers.replace('"moonmind-queue"', json.dumps(own.command))
    job = connected.enqueue("noop")

    codex(servers, adding({"kind": "noop"}), DATABASE_URL=own.dsn, MOONMIND_JOB_ID=str(job))

    [origin] = connected.select("select from_job_id, how from moonmind_queue.job_origin")
    assert origin == {"from_job_id": job, "how": "job"}
