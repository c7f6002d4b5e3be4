"""Around the calls: who can reach a server, what its start says, and what it logs."""

import http.client
import json
import re
import signal
import socket
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import urlsplit

import psycopg
import pytest
from waiting import eventually

from moonmind_queue.mcp import loopback

TOKEN = "a-token-of-this-test-only"
LIST = {"jsonrpc": "2.0", "id": 1, "method": "tools/list", "params": {}}


@pytest.fixture(scope="module")
def url(station):
    """A server of the profile ``artifacts`` that wants TOKEN."""
    options = ("--token-env", "MCP_TOKEN")
    return station.web("artifacts", *options, MCP_TOKEN=TOKEN, DATABASE_URL="")[0]


def post(url, headers, *, body=LIST, host=None, path=None):
    """Send a request as it is told, and return status, headers and body."""
    target = urlsplit(url)
    connection = http.client.HTTPConnection("127.0.0.1", target.port, timeout=10)
    try:
        connection.putrequest("POST", path or target.path, skip_host=True)
        content = json.dumps(body).encode()
        for name, value in {
            "host": host or target.netloc,
            "content-type": "application/json",
            "accept": "application/json, text/event-stream",
            "content-length": str(len(content)),
            **headers,
        }.items():
            connection.putheader(name, value)
        connection.endheaders(content)
        answer = connection.getresponse()
        return answer.status, answer.headers, answer.read().decode()
    finally:
        connection.close()


def bearer(token=TOKEN):
    """Return the header that a client sends."""
    return {"authorization": f"Bearer {token}"}


def test_whoever_has_the_token_gets_in(url):
    """In plain HTTP, as any client would; the scheme in whatever case."""
    for headers in (bearer(), {"Authorization": f"bearer {TOKEN}"}):
        status, _, body = post(url, headers)
        assert status == 200
        assert json.loads(body)["result"]["tools"][0]["name"] == "put_artifact"


@pytest.mark.parametrize(
    "headers",
    [
        {},
        bearer(""),
        bearer("another-token-of-this-test"),
        bearer(TOKEN[:-1]),
        bearer(f"{TOKEN}x"),
        bearer(TOKEN.upper()),
        {"authorization": TOKEN},
        {"authorization": f"Basic {TOKEN}"},
        {"x-authorization": f"Bearer {TOKEN}"},
        {"cookie": f"token={TOKEN}"},
    ],
    ids=str,
)
@pytest.mark.parametrize("path", ["/mcp", "/", "/elsewhere"])
def test_without_the_token_there_is_nothing_to_see(url, headers, path):
    """401 for every path, with what is wanted and no more."""
    status, answer, body = post(url, headers, path=path)

    assert status == 401
    assert answer["www-authenticate"] == "Bearer"
    assert "tools" not in body
    assert TOKEN not in body


@pytest.mark.parametrize(
    "host",
    ["evil.example", "evil.example:{port}", "127.0.0.1", "127.0.0.1:1", "localhost.evil:{port}",
     "127.0.0.1.evil.example:{port}"],
)  # fmt: skip
def test_a_name_that_is_not_ours_is_refused(url, host):
    """A web page whose name has been bent to 127.0.0.1 asks for that name (DNS rebinding)."""
    port = urlsplit(url).port

    assert post(url, bearer(), host=host.format(port=port))[0] == 421
    assert post(url, bearer(), host=f"localhost:{port}")[0] == 200


@pytest.mark.parametrize(
    "origin",
    ["http://evil.example", "null", "http://127.0.0.1", "https://127.0.0.1:{port}",
     "http://localhost:1", "http://127.0.0.1:{port}.evil.example"],
)  # fmt: skip
def test_a_page_of_another_origin_is_refused(url, origin):
    """Even one that knows the token; our own origin is not."""
    port = urlsplit(url).port

    assert post(url, {**bearer(), "origin": origin.format(port=port)})[0] == 403
    assert post(url, {**bearer(), "origin": f"http://127.0.0.1:{port}"})[0] == 200


def test_a_server_listens_on_127_0_0_1_alone(url):
    """Not on the other addresses of this machine, of which loopback has many."""
    port = urlsplit(url).port

    with socket.create_connection(("127.0.0.1", port), timeout=5):
        pass
    for other in ("127.0.0.2", "::1"):
        with pytest.raises(OSError, match=r"."):
            socket.create_connection((other, port), timeout=5)


def test_a_request_that_is_too_large_is_not_read(url):
    """More than the largest artifact in base64 needs."""
    headers = {**bearer(), "content-length": str(20 * 1024 * 1024)}

    assert post(url, headers)[0] == 413


def test_a_token_is_made_up_and_shown_once(own):
    """It stands on standard error with the URL, is long, and opens the server."""
    url, log = own.web("artifacts")
    text = eventually(lambda: "token" in (found := log.read_text()) and found)

    [token] = re.findall(r"^token, shown this once: (\S+)$", text, re.M)
    assert len(token) == 43
    assert text.count(token) == 1
    assert post(url, bearer(token))[0] == 200
    assert post(url, {})[0] == 401
    assert token not in log.read_text().replace(f"shown this once: {token}", "")


def test_a_token_that_was_given_is_shown_nowhere(station):
    """Who has put it into a variable knows it already."""
    _, log = station.web("artifacts", "--token-env", "MCP_TOKEN", MCP_TOKEN=TOKEN)

    assert TOKEN not in log.read_text()


@pytest.mark.parametrize("sign", [signal.SIGTERM, signal.SIGINT])
def test_a_server_ends_when_it_is_told_to(own, tmp_path, sign):
    """At once when nobody calls, with status 0."""
    log = tmp_path / "log"
    options = ("--profile", "artifacts", "--http", "--port", "0")
    process = own.process(log, *options)
    own.url(log)

    process.send_signal(sign)

    assert process.wait(timeout=30) == 0
    assert "mcp.calls_given_up" not in log.read_text()


@pytest.fixture
def waiting(own, connected, tmp_path, look):
    """A server whose one call waits for a lock that another session has; gives all three.

    It is patient for a fifth of a second where real ones are for five.
    """
    impatient = (
        "from moonmind_queue.mcp import loopback;"
        "loopback.PATIENCE = loopback.COURTESY = float(sys.argv.pop(1));"
    )
    started = f"import sys; sys.argv[0] = 'moonmind-queue'; {impatient}"
    started += "from moonmind_queue.cli import main; main()"

    def start(patience, pool, other):
        job = connected.enqueue("noop")
        connected.claim("w")
        log = tmp_path / "log"
        process = own.process(
            log, "--profile", "queue", "--http", "--port", "0", "--token-env", "T", T=TOKEN,
            program=(sys.executable, "-c", started, str(patience)),
        )  # fmt: skip
        url = own.url(log)
        other.execute("select from moonmind_queue.job for update")
        call = {"name": "queue.complete", "arguments": {"jobId": job, "worker": "w"}}
        body = {**LIST, "method": "tools/call", "params": call}
        answer = pool.submit(post, url, bearer(), body=body)
        eventually(lambda: look("select 1 from pg_stat_activity where wait_event_type = 'Lock'"))
        process.send_signal(signal.SIGTERM)
        return url, process, answer

    return start


def closed(url):
    """Say whether nobody listens any more."""
    try:
        socket.create_connection(("127.0.0.1", urlsplit(url).port), timeout=5).close()
    except ConnectionRefusedError:
        return True
    return False


def test_a_call_that_is_under_way_is_answered_before_the_end(own, waiting):
    """New ones are not taken any more."""
    with ThreadPoolExecutor() as pool, psycopg.connect(own.dsn) as other:
        url, process, answer = waiting(30, pool, other)
        eventually(lambda: closed(url))
        assert not answer.done()
        other.rollback()

        status, _, body = answer.result(timeout=30)
        assert status == 200
        assert json.loads(body)["result"]["structuredContent"]["state"] == "succeeded"
        assert process.wait(timeout=30) == 0


def test_a_call_that_does_not_end_does_not_keep_a_server(own, waiting, tmp_path):
    """It is given up, which the log tells."""
    with ThreadPoolExecutor() as pool, psycopg.connect(own.dsn) as other:
        _, process, answer = waiting(0.2, pool, other)

        assert process.wait(timeout=30) == 0
        other.rollback()
        assert answer.exception(timeout=30) or answer.result()[0] == 500
    assert "mcp.calls_given_up" in (tmp_path / "log").read_text()


def test_an_answer_is_not_held_back_by_the_kernel():
    """It goes out in two pieces, of which the second would wait 40 ms for an acknowledgement."""
    with (
        loopback._listen(0) as listener,
        socket.create_connection(listener.getsockname(), timeout=5),
        listener.accept()[0] as accepted,
    ):
        assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


def test_a_server_over_stdio_ends_with_its_input(own):
    """And prints nothing of its own on standard output."""
    done = subprocess.run(
        [own.command, "mcp", "--profile", "artifacts"],
        env=own.environment(), input=b"", capture_output=True, timeout=60, check=False,
    )  # fmt: skip

    assert (done.returncode, done.stdout) == (0, b"")
    assert b"mcp.serving" in done.stderr


def test_what_is_no_message_is_survived(own):
    """A line that is no JSON, then a call that is answered."""
    call = {"jsonrpc": "2.0", "id": 1, "method": "tools/list"}
    hello = {
        "jsonrpc": "2.0", "id": 0, "method": "initialize",
        "params": {
            "protocolVersion": "2025-06-18", "capabilities": {},
            "clientInfo": {"name": "test", "version": "1"},
        },
    }  # fmt: skip
    lines = [hello, {"jsonrpc": "2.0", "method": "notifications/initialized"}, call]
    given = b"no json\n\xff\xfe\n" + b"".join(json.dumps(line).encode() + b"\n" for line in lines)

    with subprocess.Popen(
        [own.command, "mcp", "--profile", "artifacts"],
        env=own.environment(), stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    ) as process:  # fmt: skip
        process.stdin.write(given)
        process.stdin.flush()
        answers = {}
        while 1 not in answers:
            line = process.stdout.readline()
            assert line, "the server has ended"
            answer = json.loads(line)
            answers[answer.get("id")] = answer
        process.stdin.close()
        assert process.wait(timeout=30) == 0

    assert len(answers[1]["result"]["tools"]) == 5


# --- starting ----------------------------------------------------------------------------------


def start(own, *arguments, **environment):
    """Run the command to its end; it has to end by itself."""
    return subprocess.run(
        [own.command, "mcp", *arguments],
        env=own.environment(**environment), capture_output=True, text=True, timeout=60, check=False,
        stdin=subprocess.DEVNULL,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("arguments", "environment", "told"),
    [
        (["--profile", "everything"], {}, "'everything' is not one of"),
        ([], {}, "Missing option '--profile'"),
        (["--profile", "queue"], {"DATABASE_URL": ""}, "DATABASE_URL is not set"),
        (["--profile", "state"], {"MOONMIND_AGENTMUX_LEASE_SECONDS": "0"},
         "MOONMIND_AGENTMUX_LEASE_SECONDS"),
        (["--profile", "artifacts"], {"MOONMIND_ARTIFACT_MAX_BYTES": "many"},
         "MOONMIND_ARTIFACT_MAX_BYTES"),
        (["--profile", "queue", "--http", "--token-env", "NONE"], {},
         "NONE has to hold a token of at least 16"),
        (["--profile", "queue", "--http", "--token-env", "T"], {"T": "short"}, "T has to hold"),
        (["--profile", "queue", "--token-env", "T"], {"T": TOKEN}, "--token-env is for --http"),
        (["--profile", "queue", "--port", "0"], {}, "--port is for --http"),
        (["--profile", "queue", "--home", "."], {}, "--home is for state and artifacts"),
        (["--profile", "queue"], {"DATABASE_URL": "short=x y z"}, "DATABASE_URL is not a libpq"),
    ],
)  # fmt: skip
def test_a_start_that_cannot_be_says_why(own, arguments, environment, told):
    """In one line that names the option or the variable and shows no secret."""
    done = start(own, *arguments, **environment)

    assert done.returncode == 2
    assert told in done.stderr
    assert "short" not in done.stderr
    assert "Traceback" not in done.stderr


def test_a_port_that_is_taken_is_named(own):
    """With the way out."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        done = start(own, "--profile", "artifacts", "--http", "--port", port)

    assert done.returncode == 2
    assert f"port {port} on 127.0.0.1 is not to be had" in done.stderr
    assert "--port" in done.stderr


def test_without_the_extra_the_command_says_what_to_install(own):
    """And all other commands work, for none loads the SDK."""
    code = (
        "import sys; sys.modules.update(mcp=None, mcp_types=None, anyio=None);"
        "sys.argv[0] = 'moonmind-queue'; from moonmind_queue.cli import main; main()"
    )

    def run(*arguments):
        return subprocess.run(
            [sys.executable, "-c", code, *arguments],
            env=own.environment(), capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip

    refused = run("mcp", "--profile", "queue")
    assert refused.returncode == 1
    assert "pip install 'moonmind-queue[mcp]'" in refused.stderr
    assert run("mcp", "--help").returncode == 0
    assert run("ls").stdout == "no such jobs\n"


# --- logs --------------------------------------------------------------------------------------


def test_logs_carry_ids_names_and_paths_and_no_contents(own, own_tasks):
    """Of each call its tool, whom it meant and how it ended; standard error is who runs it's."""
    task = own_tasks.seed("a")
    state, artifacts = own.peer("state"), own.peer("artifacts")
    state.call("claim_task", id=task, worker="w-1")
    event = {"type": "TASK_PROGRESS", "taskId": task, "workerId": "w-1"}
    state.call("append_event", event={**event, "payload": {"message": "confidential"}})
    state.refused("complete_task", id=task, worker="w-2", result={"key": "confidential"})
    artifacts.call("write_json", path="artifacts/a.json", data={"key": "confidential"})
    artifacts.refused("read_json", path="artifacts/none.json")
    artifacts.refused("write_json", path={"key": "confidential"}, data=[])

    lines = [json.loads(line) for line in (state.log.read_text() + artifacts.log.read_text())
             .splitlines()]  # fmt: skip
    assert "confidential" not in str(lines)
    calls = [line for line in lines if line["event"] == "mcp.called"]
    for line in calls:
        assert line.pop("ms") >= 0
        for name in ("event", "level", "timestamp"):
            line.pop(name)
    assert calls == [
        {"tool": "claim_task", "outcome": "ok", "id": task, "worker": "w-1"},
        {"tool": "append_event", "outcome": "ok", "taskId": task, "workerId": "w-1"},
        {"tool": "complete_task", "outcome": "NOT_CLAIMED_BY_WORKER", "id": task, "worker": "w-2"},
        {"tool": "write_json", "outcome": "ok", "path": "artifacts/a.json"},
        {"tool": "read_json", "outcome": "IO_ERROR", "path": "artifacts/none.json"},
        {"tool": "write_json", "outcome": "VALIDATION_ERROR"},
    ]


def test_the_environment_of_a_server_is_hidden(own, tmp_path):
    """It holds DATABASE_URL, and agents run as the same user: the kernel gives it to root alone."""
    script = """if True:
        import ctypes, os, sys
        import moonmind_queue.mcp.profiles, moonmind_queue.mcp.server
        import moonmind_queue.logs, moonmind_queue.redact
        from moonmind_queue.cli import main
        if os.getuid() == 0:
            os.setuid(65534)  # becoming somebody else hides too, so undo that
            ctypes.CDLL(None).prctl(4, 1)
        assert os.stat("/proc/self/environ").st_uid == os.getuid()
        sys.argv = ["moonmind-queue", "mcp", "--profile", "artifacts"]
        main()
    """
    log = tmp_path / "log"
    with log.open("wb") as errors, subprocess.Popen(
        [sys.executable, "-c", script], env=own.environment(), stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL, stderr=errors,
    ) as process:  # fmt: skip
        eventually(lambda: "mcp.serving" in log.read_text(), within=60)
        assert Path(f"/proc/{process.pid}/environ").stat().st_uid == 0
        process.stdin.close()
        assert process.wait(timeout=30) == 0
