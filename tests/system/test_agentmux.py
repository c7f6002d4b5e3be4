"""The ``agentmux`` command and its workers, as processes on a real database."""

import json
import os
import re
import signal
import subprocess
import sys
import threading
from collections import Counter
from datetime import datetime, timedelta
from pathlib import Path

import psycopg
import pytest
from waiting import eventually

import moonmind_queue
from moonmind_queue import Retry, Worker
from moonmind_queue.agentmux.folder import Folder
from moonmind_queue.agentmux.recorded import Recorded
from moonmind_queue.agentmux.worker import POLLS
from moonmind_queue.cli.agentmux import main

EXAMPLE = Path(__file__).parents[2] / "docs" / "examples" / "dag.yaml"
SMOKE = """
- id: "smoke:noop-codex"
  name: "Smoke test noop (codex)"
  agent: "codex"
  deps: []
  payload:
    kind: "noop"
"""


@pytest.fixture
def produce(fresh):
    """A client whose work is committed at once."""
    with moonmind_queue.connect(fresh) as queue:
        yield queue


@pytest.fixture
def home(tmp_path):
    """Where state/ and artifacts/ of a test are."""
    return tmp_path / "home"


@pytest.fixture
def agentmux(fresh, home, monkeypatch, capsys):
    """Run agentmux on this test's database, in this process; gives status, output and errors."""

    def run(*arguments, **environment):
        surroundings = {"DATABASE_URL": fresh, "MOONMIND_AGENTMUX_HOME": str(home), **environment}
        with monkeypatch.context() as patch:
            for name, value in surroundings.items():
                patch.setenv(name, value)
            patch.setattr(sys, "argv", ["agentmux", *map(str, arguments)])
            capsys.readouterr()
            with pytest.raises(SystemExit) as ended:
                main()
        return (int(ended.value.code or 0), *capsys.readouterr())

    return run


@pytest.fixture
def worker(fresh, home, tmp_path):
    """Start ``agentmux worker`` processes; kill what is left after."""
    started = []

    def start(agent, name, *arguments, **environment):
        log = (tmp_path / f"{name}.log").open("ab")
        process = subprocess.Popen(
            [Path(sys.executable).with_name("agentmux"), "worker", "--agent", agent,
             "--worker-id", name, *arguments],
            env={
                **os.environ,
                "DATABASE_URL": fresh,
                "MOONMIND_AGENTMUX_HOME": str(home),
                "MOONMIND_WORKDIR": str(tmp_path / "work"),
                "MOONMIND_NOOP_SECONDS": "0",
                **environment,
            },
            stdout=log, stderr=log, start_new_session=True,
        )  # fmt: skip
        log.close()
        started.append(process)
        return process

    yield start
    for process in started:
        if process.poll() is None:
            process.send_signal(signal.SIGKILL)
        process.wait()


@pytest.fixture
def dag(tmp_path):
    """Write a DAG file."""

    def write(text):
        path = tmp_path / "dag.yaml"
        path.write_text(text)
        return path

    return write


def states(look_at):
    """How many tasks are in which state."""
    rows = look_at.select("select state from moonmind_queue.agentmux_task")
    return dict(Counter(row["state"] for row in rows))


def test_the_smoke_test_of_the_specification(agentmux, worker, dag, produce, home):
    """Seed, work, and look: claimed, started, completed, DONE; what the files say agrees."""
    assert agentmux("tasks", "seed", dag(SMOKE))[:2] == (
        0, "1 created, 0 updated, 0 unchanged, 0 blocked, 0 restored\n",
    )  # fmt: skip
    process = worker("codex", "codex-1", MOONMIND_NOOP_SECONDS="")
    eventually(lambda: states(produce) == {"DONE": 1})

    events = [json.loads(line) for line in agentmux("events", "--jsonl")[1].splitlines()]
    assert [event["type"] for event in events] == [
        "TASK_CREATED", "TASK_CLAIMED", "TASK_STARTED", "TASK_COMPLETED",
    ]  # fmt: skip
    created, claimed, started, completed = events
    assert created["agent"] == "agentmux-cli"
    assert created["payload"]["deps"] == []
    assert claimed["workerId"] == started["workerId"] == completed["workerId"] == "codex-1"
    lease = datetime.fromisoformat(claimed["leaseUntil"]) - datetime.fromisoformat(claimed["ts"])
    assert lease.total_seconds() == 600
    ran = datetime.fromisoformat(completed["ts"]) - datetime.fromisoformat(started["ts"])
    assert 1.5 < ran.total_seconds() < 2.5
    assert completed["result"].keys() >= {"status", "workerId", "completedAt", "note"}
    assert completed["result"]["note"] == "noop executed"
    assert list(claimed)[:5] == ["ts", "agent", "workerId", "type", "taskId"]
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", claimed["ts"])

    code, out, _ = agentmux("tasks", "ls", "--agent", "codex")
    assert code == 0
    assert "smoke:noop-codex" in out
    assert "DONE" in out
    beat = eventually(lambda: _beat(home, "codex", idle=True))
    assert beat == {
        "ts": beat["ts"], "agent": "codex", "workerId": "codex-1", "currentTaskId": None,
        "leaseUntil": None, "note": "idle",
    }  # fmt: skip
    agentmux("status")
    page = (home / "state" / "status.md").read_text()
    assert page.startswith("# Agentmux Status (UTC)\n")
    assert "| Agent | Ready | Running | Done | Failed |" in page
    assert "| codex | 0 | 0 | 1 | 0 |" in page
    assert "TASK_COMPLETED smoke:noop-codex codex-1" in page

    process.send_signal(signal.SIGINT)
    assert process.wait(10) == 0


def _beat(home, agent, *, idle):
    path = home / "state" / "heartbeats" / f"{agent}.json"
    if not path.exists():
        return None
    beat = json.loads(path.read_text())
    return beat if (beat["currentTaskId"] is None) == idle else None


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_worker_that_is_told_to_end_hands_its_task_back(
    agentmux, worker, dag, produce, home, number
):
    """TASK_RELEASED, READY without an owner, a last heartbeat, and exit status 0."""
    agentmux("tasks", "seed", dag(SMOKE))
    process = worker("codex", "codex-1", MOONMIND_NOOP_SECONDS="60")
    beat = eventually(lambda: _beat(home, "codex", idle=False))
    assert beat["currentTaskId"] == "smoke:noop-codex"
    assert beat["leaseUntil"] > beat["ts"]

    process.send_signal(number)

    assert process.wait(10) == 0
    [task] = produce.select("select * from moonmind_queue.agentmux_task")
    assert (task["state"], task["claimed_by"], task["lease_until"]) == ("READY", None, None)
    last = produce.select("select type from moonmind_queue.agentmux_event order by pos")[-1]
    assert last["type"] == "TASK_RELEASED"
    assert _beat(home, "codex", idle=True)["note"] == "stopped"


def test_stop_ends_that_worker_only_and_binds_nobody_later(agentmux, worker, dag, produce):
    """Through the database, by agent and worker id, dashes and all; ps knows who is there."""
    agentmux("tasks", "seed", dag(SMOKE.replace("codex", "co-dex")))
    first, second = worker("co-dex", "co-dex-1"), worker("co-dex", "co-dex-1-b")
    eventually(lambda: len(json.loads(agentmux("ps", "--json")[1])) == 2)
    listed = {row["workerId"]: row for row in json.loads(agentmux("ps", "--json")[1])}
    assert {name: (row["agent"], row["pid"]) for name, row in listed.items()} == {
        "co-dex-1": ("co-dex", first.pid), "co-dex-1-b": ("co-dex", second.pid),
    }  # fmt: skip

    done = agentmux("worker", "--stop", "--agent", "co-dex", "--worker-id", "co-dex-1")

    assert done[:2] == (0, "Signaled stop for co-dex:co-dex-1.\n")
    assert first.wait(10) == 0
    assert second.poll() is None
    code, _, error = agentmux("worker", "--stop", "--agent", "co-dex", "--worker-id", "co-dex-1")
    assert code == 1
    assert "no worker co-dex-1 of agent co-dex is running; agentmux ps shows who is" in error
    again = worker("co-dex", "co-dex-1")
    eventually(lambda: len(json.loads(agentmux("ps", "--json")[1])) == 2)
    assert again.poll() is None


def test_the_example_runs_to_the_end_in_order_and_again_after_a_reset(
    agentmux, worker, produce, home
):
    """Fourteen tasks, three workers of two agents: each event once a task, twice over."""
    assert "14 created" in agentmux("tasks", "seed", EXAMPLE)[1]
    before = -1
    for epoch in (1, 2):
        workers = [worker("claude", "claude-1"), *(worker("codex", f"codex-{n}") for n in (1, 2))]
        eventually(lambda: states(produce) == {"DONE": 14}, within=60)
        rows = produce.select(
            "select task_id, type, ts, pos, agent, worker_id from moonmind_queue.agentmux_event"
            " where pos > %(before)s order by pos", before=before,
        )  # fmt: skip
        counted = Counter((row["task_id"], row["type"]) for row in rows)
        kinds = ("TASK_CLAIMED", "TASK_STARTED", "TASK_COMPLETED")
        tasks = produce.select("select id, agent, deps from moonmind_queue.agentmux_task")
        assert all(counted[task["id"], kind] == 1 for task in tasks for kind in kinds)
        at = {(row["task_id"], row["type"]): row["pos"] for row in rows}
        for task in tasks:
            for need in task["deps"]:
                assert at[need, "TASK_COMPLETED"] < at[task["id"], "TASK_CLAIMED"]
        for row in rows:
            if row["type"] == "TASK_CLAIMED":
                assert row["worker_id"].rpartition("-")[0] == row["agent"]
        before = rows[-1]["pos"]
        if epoch == 1:
            code, out, _ = agentmux("reset", "--dag", EXAMPLE)
            assert (code, out.splitlines()[-1]) == (0, "Reset completed. Epoch 2 begins.")
            assert [process.wait(5) for process in workers] == [0, 0, 0]
            assert len(produce.select("select 1 from moonmind_queue.agentmux_event")) > 56


def test_a_reset_does_not_go_on_while_a_worker_does(agentmux, worker, dag, produce, monkeypatch):
    """Exit status 1 and the words of the specification; by force it goes on all the same."""
    monkeypatch.setattr("moonmind_queue.agentmux.control.PATIENCE", 0.3)
    agentmux("tasks", "seed", dag(SMOKE))
    process = worker("codex", "codex-1", MOONMIND_NOOP_SECONDS="60")
    eventually(lambda: states(produce) == {"RUNNING": 1})
    live = "select 1 from moonmind_queue.worker_overview where status = 'live'"
    eventually(lambda: produce.select(live))  # it signs on in a thread of its own
    process.send_signal(signal.SIGSTOP)

    code, _, error = agentmux("reset")
    assert code == 1
    assert "Some workers are still running. Use --force to proceed anyway." in error
    assert states(produce) == {"RUNNING": 1}
    assert agentmux("reset", "--force")[0] == 0
    assert states(produce) == {"READY": 1}


def test_a_failing_task_is_retried_or_blocked_by_its_error(agentmux, worker, dag, produce, home):
    """An unknown kind is BLOCKED with the reason; the worker goes on with the next task."""
    agentmux("tasks", "seed", dag(
        "- {id: odd, agent: codex, payload: {kind: teleport}}\n- {id: even, agent: codex}\n"
    ))  # fmt: skip
    worker("codex", "codex-1")
    eventually(lambda: states(produce) == {"BLOCKED": 1, "DONE": 1})

    code, out, _ = agentmux("tasks", "show", "odd")

    assert code == 0
    assert "unknown kind 'teleport': this worker runs" in out
    assert "TASK_FAILED" in out
    agentmux("status")
    page = (home / "state" / "status.md").read_text()
    assert "- `odd` (codex, BLOCKED): unknown kind 'teleport'" in page


def test_the_status_page_tells_who_is_stale(agentmux, produce, clock_of, fresh, home):
    """Two renewals without a sign of life, by the database's clock; a setting changes that."""
    clock_of(fresh).advance(timedelta(minutes=-3))
    for name, agents in (("codex-1", ["codex"]), ("both-1", ["claude", "codex"])):
        register(produce, name, agents)
    clock_of(fresh).advance(timedelta(minutes=3, seconds=1))
    register(produce, "codex-2", ["codex"])

    agentmux("status")

    page = (home / "state" / "status.md").read_text()
    rows = re.findall(r"^\| (\w+) \| (\S+) \| \S+ \| (\d+) s \| (\w+) \|", page, re.M)
    assert [(agent, name, status) for agent, name, _, status in rows] == [
        ("claude", "both-1", "stale"), ("codex", "both-1", "stale"),
        ("codex", "codex-1", "stale"), ("codex", "codex-2", "live"),
    ]  # fmt: skip
    assert 181 <= int(rows[0][2]) < 200
    agentmux("status", MOONMIND_STALE_SECONDS="600")
    assert "stale" not in (home / "state" / "status.md").read_text()


def register(queue, name, agents):
    """Record the start of a worker process."""
    return queue.register_worker(
        name, agents=agents, kinds=None, capabilities=[], slots=1, host="here", pid=7, version="1"
    )


def test_the_status_page_follows_what_happens(agentmux, dag, produce, home):
    """Counts and the last ten events are those of now; so are the answers for programs."""
    agentmux("tasks", "seed", dag("- {id: a, agent: codex}\n- {id: b, agent: claude}\n"))
    agentmux("status")
    assert "| codex | 1 | 0 | 0 | 0 |" in (home / "state" / "status.md").read_text()
    [job] = produce.claim("codex-1", agents=["codex"], start=True)
    for number in range(12):
        produce.append_event(job, "progress", f"step {number}")
    produce.complete(job)

    agentmux("status")

    page = (home / "state" / "status.md").read_text()
    assert "| codex | 0 | 0 | 1 | 0 |" in page
    assert "| claude | 1 | 0 | 0 | 0 |" in page
    events = page.partition("## Last 10 events")[2].partition("## Heartbeats")[0].strip()
    assert len(events.splitlines()) == 10
    assert "step 2\n" not in page
    assert events.splitlines()[-1].endswith("TASK_COMPLETED a codex-1")
    answer = json.loads(agentmux("status", "--json")[1])
    assert answer["counts"] == {"claude": {"READY": 1}, "codex": {"DONE": 1}}


def test_a_watched_page_is_drawn_again_when_something_happens(fresh, home, dag, agentmux, produce):
    """Until it is interrupted; the file follows."""
    agentmux("tasks", "seed", dag(SMOKE))
    page = home / "state" / "status.md"
    with subprocess.Popen(
        # Who starts us in the background has interrupts ignored.
        ["env", "--default-signal=INT", Path(sys.executable).with_name("agentmux"),
         "status", "--watch"],
        env={**os.environ, "DATABASE_URL": fresh, "MOONMIND_AGENTMUX_HOME": str(home)},
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    ) as watching:  # fmt: skip
        eventually(lambda: page.exists() and "| codex | 1 | 0 | 0 | 0 |" in page.read_text())
        produce.complete(produce.claim("codex-1")[0])
        eventually(lambda: "| codex | 0 | 0 | 1 | 0 |" in page.read_text(), within=4)
        watching.send_signal(signal.SIGINT)
        out, _ = watching.communicate(timeout=10)
    assert watching.returncode == 130
    assert b"TASK_COMPLETED" in out


def test_tasks_are_listed_by_agent_and_state(agentmux, dag, produce):
    """A state that there is not is refused with those that there are."""
    agentmux("tasks", "seed", dag(
        "- {id: a, agent: codex}\n- {id: b, agent: codex, deps: [a]}\n- {id: c, agent: claude}\n"
    ))  # fmt: skip
    produce.complete(produce.claim("w", agents=["codex"])[0])

    def listed(*arguments):
        return [row["id"] for row in json.loads(agentmux("tasks", "ls", "--json", *arguments)[1])]

    assert listed() == ["a", "b", "c"]
    assert listed("--agent", "codex") == ["a", "b"]
    assert listed("--state", "ready") == ["b", "c"]
    assert listed("--agent", "codex", "--state", "DONE") == ["a"]
    code, _, error = agentmux("tasks", "ls", "--state", "waiting")
    assert code == 2
    assert "--state 'WAITING' is none of READY, CLAIMED, RUNNING" in error


class Chatty:
    """Prints, attaches bytes and a file, and fails the first time."""

    def validate(self, payload):
        """Take anything."""
        return dict(payload)

    def run(self, job, context):
        """Fail the first attempt and succeed with the second."""
        context.log("one\n")
        context.log("two", stream="stderr")
        context.attach("notes.txt", b"bytes", "text/plain")
        if job.attempt == 1:
            raise Retry("once more", after=timedelta(0))
        return {"status": "ok"}


def test_what_a_run_prints_and_attaches_is_on_this_machine_too(produce, fresh, home):
    """Below the task and the run, another run for each attempt, and in the database the same."""
    produce.seed_dag([{"id": "spec:write", "agent": "codex", "payload": {"kind": "chatty"}}])
    worker = Worker(
        fresh, {"chatty": Recorded(Chatty(), Folder(home), lambda: None)}, name="codex-1",
        poll=timedelta(hours=1),
    )  # fmt: skip
    thread = threading.Thread(target=worker.run)
    thread.start()
    try:
        eventually(lambda: states(produce) == {"DONE": 1})
    finally:
        worker.stop()
        thread.join(10)
    runs = produce.select("select run, name from moonmind_queue.job_artifact order by id")

    first, second = (home / "artifacts" / "spec:write" / row["run"] for row in runs)
    assert [row["name"] for row in runs] == ["notes.txt", "notes.txt"]
    assert first.name.startswith("1-")
    assert second.name.startswith("2-")
    for folder in (first, second):
        assert (folder / "notes.txt").read_bytes() == b"bytes"
        assert (folder / "live" / "stdout.log").read_bytes() == b"one\n"
        assert (folder / "live" / "stderr.log").read_bytes() == b"two\n"


def test_the_worker_of_agentmux_waits_longer_and_longer():
    """Ten, twenty, then thirty seconds again and again; work begins anew, as any poll does."""
    assert [wait.total_seconds() for wait in POLLS] == [10, 20, 30]


def test_a_new_task_wakes_an_idle_worker(agentmux, worker, dag, produce, look):
    """By a notification, long before its wait of ten seconds is over."""
    agentmux("tasks", "seed", dag("- {id: a, agent: codex}\n"))
    worker("codex", "codex-1")
    eventually(lambda: states(produce) == {"DONE": 1})
    eventually(lambda: look("select count(*) from moonmind_queue.sleeper") == [1])

    agentmux("tasks", "seed", dag("- {id: a, agent: codex}\n- {id: b, agent: codex, deps: [a]}\n"))

    eventually(lambda: states(produce) == {"DONE": 2}, within=5)


def test_two_workers_of_an_agent_with_a_limit_of_one_run_one_task(agentmux, worker, dag, produce):
    """The WIP limit of an agent is a run_limit of the queue."""
    produce.set_limit("agent", "codex", 1)
    agentmux("tasks", "seed", dag("".join(f"- {{id: t{n}, agent: codex}}\n" for n in range(2))))
    for n in (1, 2):
        worker("codex", f"codex-{n}", MOONMIND_NOOP_SECONDS="60")
    eventually(lambda: states(produce) == {"RUNNING": 1, "READY": 1})
    eventually(lambda: len(json.loads(agentmux("ps", "--json")[1])) == 2)

    assert states(produce) == {"RUNNING": 1, "READY": 1}


def test_unlock_takes_a_task_from_a_worker_that_is_gone(agentmux, produce, dag):
    """With its own words; a live worker's only by force."""
    agentmux("tasks", "seed", dag(SMOKE))
    produce.claim("codex-1", start=True)

    assert agentmux("unlock", "smoke:noop-codex")[:2] == (0, "smoke:noop-codex is READY.\n")
    code, _, error = agentmux("unlock", "nobody")
    assert code == 1
    assert "there is no task 'nobody'; agentmux tasks ls shows those that there are" in error


def test_export_writes_the_files_that_other_tools_read(agentmux, worker, dag, produce, home):
    """One JSON object a line, a heartbeat an agent, artifacts under task and run, status.md."""
    produce.seed_dag([{"id": "spec:write", "agent": "codex"}])
    [job] = produce.claim("codex-1", start=True)
    produce.put_artifact(job, "logs/run.txt", b"hello\n", "text/plain")
    produce.complete(job, {"status": "ok"})
    worker("codex", "codex-1")
    live = "select 1 from moonmind_queue.worker_overview where status = 'live'"
    eventually(lambda: produce.select(live))  # its own heartbeat file may come before it signs on

    code, out, _ = agentmux("export", "--home", home / "copy")

    assert code == 0
    assert "5 events, 1 heartbeats, 1 new artifacts" in out
    lines = (home / "copy" / "state" / "events.jsonl").read_text().splitlines()
    assert [json.loads(line)["type"] for line in lines] == [
        "TASK_CREATED", "TASK_CLAIMED", "TASK_STARTED", "TASK_PROGRESS", "TASK_COMPLETED",
    ]  # fmt: skip
    run = home / "copy" / "artifacts" / "spec:write" / f"1-{job.token}"
    assert (run / "logs" / "run.txt").read_bytes() == b"hello\n"
    assert (home / "copy" / "state" / "status.md").exists()
    beat = json.loads((home / "copy" / "state" / "heartbeats" / "codex.json").read_text())
    assert (beat["workerId"], beat["currentTaskId"]) == ("codex-1", None)
    assert "0 new artifacts" in agentmux("export", "--home", home / "copy")[1]


def test_the_dag_is_drawn_with_its_states(agentmux, dag, produce, tmp_path):
    """Text on the terminal, SVG into a file."""
    agentmux("tasks", "seed", dag("- {id: a, agent: x}\n- {id: b, agent: y, deps: [a]}\n"))
    produce.complete(produce.claim("w")[0])

    assert agentmux("tasks", "graph")[1].split() == [
        "●", "a", "DONE", "x", "○", "b", "READY", "y", "←", "a",
    ]  # fmt: skip
    agentmux("tasks", "graph", "--format", "svg", "-o", tmp_path / "dag.svg")
    assert "<svg" in (tmp_path / "dag.svg").read_text()
    assert agentmux("tasks", "graph", "--format", "mermaid")[1].startswith("flowchart LR")


def test_what_is_wrong_in_a_file_is_told_with_its_line(agentmux, dag, produce):
    """What the reader finds and what the database finds alike; nothing is seeded."""
    for text, said in (
        ("- id: a\n", "dag.yaml:1: task a: agent: is missing"),
        ("- {id: a, agent: x}\n- {id: b, agent: x, deps: [c]}\n",
         "dag.yaml:2: task 2 (b): depends on unknown task c"),
        ("- {id: a, agent: x}\n- {id: b, agent: x, deps: [b]}\n",
         "dag.yaml:2: jobs depend on each other in a circle: b -> b"),
    ):  # fmt: skip
        code, _, error = agentmux("tasks", "seed", dag(text))
        assert code == 1
        assert said in error
    assert states(produce) == {}


def test_seeding_makes_the_queue_in_an_empty_database(agentmux, dag, server):
    """The first command on a fresh checkout works."""
    from psycopg.conninfo import make_conninfo

    with psycopg.connect(server, autocommit=True) as admin:
        admin.execute("create database agentmux_first")
        try:
            empty = make_conninfo(server, dbname="agentmux_first")
            code, out, error = agentmux("tasks", "seed", dag(SMOKE), DATABASE_URL=empty)
            assert (code, "1 created" in out) == (0, True)
            assert "had no queue yet" in error
        finally:
            admin.execute("drop database agentmux_first with (force)")
