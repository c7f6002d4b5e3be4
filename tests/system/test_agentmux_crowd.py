"""Two thousand tasks, three agents, twelve workers of which two are killed: as a model predicts."""

import os
import random
import signal
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

import pytest
from waiting import eventually

import moonmind_queue

TASKS, DEPTH, FAILING = 2000, 20, 0.05
AGENTS = ("claude", "codex", "review")
WORKERS = 4  # of each agent
LEASE = 4  # seconds, so that what the killed ones held comes back soon
VICTIMS = {"claude-0": 0.05, "codex-1": 0.15}  # by the share of tasks after which they are killed

# A claim after a claim, with nothing between that ended the first.
OVERLAPS = """
select job_id, seq from (
    select job_id, seq, type, lag(type) over (partition by job_id order by seq) as before
    from moonmind_queue.job_history
    where type in ('claimed', 'completed', 'failed', 'released', 'expired', 'dead_lettered')
) as told
where type = 'claimed' and before = 'claimed'
"""
ENDS = "select key as id, state from moonmind_queue.job_overview"
UNENDED = """
select count(*) as number from moonmind_queue.job_overview
where state in ('queued', 'claimed', 'running')
"""
# What a worker has sent before it was stopped is still done.
UNDER_WAY = """
select 1 from pg_stat_activity
where datname = current_database() and state = 'active' and xact_start < %(now)s
"""
HELD = "select id from moonmind_queue.job_overview where worker = %(worker)s"
LOST = "select distinct job_id as id from moonmind_queue.job_history where type = 'expired'"


def graph(chosen):
    """Tasks in twenty layers; each needs up to three of the layer before."""
    layers = [[] for _ in range(DEPTH)]
    for number in range(TASKS):
        layers[number % DEPTH].append(f"t{number}")
    tasks = []
    for depth, layer in enumerate(layers):
        for name in layer:
            task = {"id": name, "agent": chosen.choice(AGENTS)}
            if depth:
                task["deps"] = chosen.sample(layers[depth - 1], chosen.randint(1, 3))
            # In the second half: what fails early leaves little to do after it.
            if depth >= DEPTH // 2 and chosen.random() < 2 * FAILING:
                task |= {"payload": {"kind": "shell", "cmd": ["false"]}, "max_attempts": 1}
            tasks.append(task)
    return tasks


def predicted(tasks):
    """How each task ends: what fails has failed, and what needs that waits."""
    ends = {}
    for task in tasks:  # in an order in which needs come first
        if any(ends[need] != "succeeded" for need in task.get("deps", ())):
            ends[task["id"]] = "waiting"
        else:
            ends[task["id"]] = "dead_letter" if "payload" in task else "succeeded"
    return ends


def kill_at_work(queue, process, name):
    """Kill a worker while it holds tasks; return those."""

    eventually(lambda: queue.select(HELD, worker=name), within=60)
    process.send_signal(signal.SIGSTOP)
    [now] = queue.select("select clock_timestamp() as now")
    eventually(lambda: not queue.select(UNDER_WAY, **now))
    held = {row["id"] for row in queue.select(HELD, worker=name)}
    process.send_signal(signal.SIGKILL)
    return held


@pytest.fixture
def crowd(fresh, tmp_path):
    """All the workers, as processes by name; what is left is killed after.

    Those that are to be killed never end a task, so that they hold some when that happens.
    """
    with ExitStack() as stack:
        processes = {}
        for agent in AGENTS:
            for number in range(WORKERS):
                name = f"{agent}-{number}"
                log = stack.enter_context((tmp_path / f"{name}.log").open("wb"))
                processes[name] = subprocess.Popen(
                    [Path(sys.executable).with_name("agentmux"), "worker", "--agent", agent,
                     "--worker-id", name, "--concurrency", "2"],
                    env={
                        **os.environ, "DATABASE_URL": fresh,
                        "MOONMIND_NOOP_SECONDS": "600" if name in VICTIMS else "0",
                        "MOONMIND_SHELL_ALLOW": '["false"]',
                        "MOONMIND_AGENTMUX_HOME": str(tmp_path / "home"),
                        "MOONMIND_WORKDIR": str(tmp_path / "work"),
                        "MOONMIND_AGENTMUX_LEASE_SECONDS": str(LEASE),
                        "MOONMIND_AGENTMUX_RENEW_SECONDS": "1",
                    },
                    stdout=log, stderr=log, start_new_session=True,
                )  # fmt: skip
        yield processes
        for process in processes.values():
            if process.poll() is None:
                process.send_signal(signal.SIGKILL)
            process.wait()


def test_every_task_ends_as_predicted_and_none_runs_twice_at_once(fresh, crowd):
    """Whoever dies on the way; those that live stop when they are told, and exit with 0."""
    tasks = graph(random.Random(5))  # noqa: S311 - the same graph each time
    live = "select count(*) as n from moonmind_queue.worker_overview where status = 'live'"
    with moonmind_queue.connect(fresh) as queue:
        eventually(lambda: queue.select(live) == [{"n": len(crowd)}], within=60)
        queue.seed_dag(tasks)
        done = "select count(*) as n from moonmind_queue.job_overview where state = 'succeeded'"
        held = set()
        for name, share in VICTIMS.items():
            eventually(lambda share=share: queue.select(done)[0]["n"] > share * TASKS, within=60)
            held |= kill_at_work(queue, crowd[name], name)
        eventually(lambda: queue.select(UNENDED) == [{"number": 0}], within=90)
        ends = {row["id"]: row["state"] for row in queue.select(ENDS)}
        overlaps = queue.select(OVERLAPS)
        faults = queue.select("select * from moonmind_queue.queue_fault")
        lost = {row["id"] for row in queue.select(LOST)}

    assert ends == predicted(tasks)
    assert held
    assert held <= lost
    assert overlaps == []
    assert faults == []
    for process in crowd.values():
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
    assert {name: process.wait(15) for name, process in crowd.items()} == {
        name: -signal.SIGKILL if name in VICTIMS else 0 for name in crowd
    }
