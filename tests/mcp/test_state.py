"""The ten tools of mcp-state, each with its results and its refusals."""

import itertools
import re
import uuid
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict
from psycopg.sql import SQL, Identifier
from waiting import eventually

from moonmind_queue.agentmux.vocabulary import ErrorCode

TOOLS = [
    "list_ready_tasks", "claim_task", "renew_lease", "start_task", "append_event", "complete_task",
    "fail_task", "release_task", "seed_from_dag", "get_task",
]  # fmt: skip
INSTANT = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")
OK = {"ok": True}


@pytest.fixture(scope="module")
def state(station, transport):
    """A client of the profile ``state``, over one transport after the other."""
    return station.peer("state", transport)


def holders_calls(task: str, worker: str) -> list[tuple[str, dict[str, Any]]]:
    """Return every call that only the holder of a task may make."""
    who = {"id": task, "worker": worker}
    event = {"type": "TASK_PROGRESS", "taskId": task, "workerId": worker}
    return [
        ("renew_lease", who),
        ("start_task", who),
        ("append_event", {"event": event}),
        ("complete_task", who),
        ("fail_task", {**who, "reason": "no"}),
        ("release_task", who),
    ]


def test_the_ten_methods_are_listed_with_all_that_an_agent_needs_to_know(state):
    """By their exact names, in order; every one and every parameter is explained."""
    tools = state.tools()

    assert [tool.name for tool in tools] == TOOLS
    for tool in tools:
        assert len(tool.description) > 40, tool.name
        assert tool.input_schema["type"] == "object"
        assert tool.input_schema["additionalProperties"] is False
        assert "$ref" not in str(tool.input_schema)
        for name, parameter in tool.input_schema["properties"].items():
            assert parameter["description"], f"{tool.name}: {name}"
            assert "type" in parameter, f"{tool.name}: {name}"
    hints = {tool.name: tool.annotations for tool in tools}
    assert [name for name in TOOLS if hints[name].read_only_hint] == [TOOLS[0], TOOLS[-1]]
    assert [name for name in TOOLS if hints[name].destructive_hint] == ["seed_from_dag"]
    claim = tools[1].input_schema
    assert claim["required"] == ["id", "worker"]
    assert list(claim["properties"]) == ["id", "worker", "leaseSeconds"]
    assert claim["properties"]["leaseSeconds"]["type"] == "integer"


def test_only_what_can_be_claimed_is_ready(state, tasks):
    """Not what waits for others, is held or rests; of one agent if asked for."""
    tasks.seed("first", "held", second="first")
    state.call("claim_task", id=tasks.id("held"), worker="w")
    failing = tasks.id("resting")
    tasks.queue.seed_dag([{"id": failing, "agent": tasks.mark}], "test", f"{tasks.mark} 2")
    state.call("claim_task", id=failing, worker="w")
    state.call("fail_task", id=failing, worker="w", reason="later")

    ready = [{"id": tasks.id("first"), "name": "first", "state": "READY", "deps": []}]
    assert state.call("list_ready_tasks", agent=tasks.mark) == ready
    assert ready[0] in state.call("list_ready_tasks")
    assert state.call("list_ready_tasks", agent="nobody") == []
    for call in ("claim_task", "complete_task"):
        state.call(call, id=tasks.id("first"), worker="w")
    assert state.call("list_ready_tasks", agent=tasks.mark) == [
        {"id": tasks.id("second"), "name": None, "state": "READY", "deps": [tasks.id("first")]}
    ]


def test_nothing_is_ready_for_an_agent_that_is_paused_or_has_enough_to_do(state, tasks):
    """What claim_task would not give is not offered."""
    tasks.seed("a", "b")
    tasks.queue.pause(tasks.mark, "not now")
    assert state.call("list_ready_tasks", agent=tasks.mark) == []

    tasks.queue.resume(tasks.mark)
    tasks.queue.set_limit("agent", tasks.mark, 1)
    state.call("claim_task", id=tasks.id("a"), worker="w")
    assert state.call("list_ready_tasks", agent=tasks.mark) == []

    state.call("release_task", id=tasks.id("a"), worker="w")
    assert len(state.call("list_ready_tasks", agent=tasks.mark)) == 2


@pytest.fixture
def held_back(connected):
    """Jobs of every kind of agent, capability, limit and repository; 4 are held, 3 come later."""
    hold = []
    for agent, needs, key, repository in itertools.product(
        ("free", "full", "starred", "closed", "paused"), ([], ["GPU "], ["tpu"]),
        (None, "staging", "prod"), (None, "acme/site", "acme2/site"),
    ):  # fmt: skip
        kind = "codex_exec" if repository else "noop"
        payload = {"repository": repository, "instruction": "a"} if repository else {}
        about = {"agent": agent, "capabilities": needs, "concurrency_key": key}
        name = f"{agent} {needs} {key} {repository}"
        job = connected.enqueue(kind, payload, key=name, **about)
        if (needs, repository) == ([], None) and (agent, key) in {
            ("full", None), ("starred", None), ("starred", "prod"), ("free", "staging"),
        }:  # fmt: skip
            hold.append(job)
        if (agent, needs, repository) == ("free", ["GPU "], "acme/site"):
            later = datetime.now(UTC) + timedelta(hours=1)
            connected.enqueue(kind, payload, key=f"{name} later", run_at=later, **about)
    assert len(connected.claim("busy", job_ids=hold, limit=9)) == 4
    connected.pause("paused", "not now")
    for scope, name, most in (
        ("agent", "full", 1), ("agent", "closed", 0), ("agent", "*", 2), ("kind", "*", 90),
        ("concurrency_key", "staging", 1),
    ):  # fmt: skip
        connected.set_limit(scope, name, most)


@pytest.mark.parametrize(
    ("policy", "number"),
    [
        (None, 12),
        ({"agents": ["free", "full"], "capabilities": ["gpu"], "repositories": ["acme/*"]}, 4),
        ({"agents": ["free"], "kinds": ["noop"]}, 4),
    ],
    ids=["no policy", "agents, capabilities, repositories", "kinds"],
)
def test_what_is_listed_is_exactly_what_can_be_claimed(
    own, connected, login, held_back, policy, number
):
    """Whatever holds tasks back here: pauses, limits, capabilities, the policy of the login."""
    environment = login("worker", **policy) if policy else {}
    state = own.peer("state", MOONMIND_WORKER_CAPABILITIES="gpu, docker", **environment)
    listed = {task["id"] for task in state.call("list_ready_tasks")}

    claimable = set()
    for task in connected.select("select id from moonmind_queue.agentmux_task"):
        if state.permits("claim_task", id=task["id"], worker="w"):
            claimable.add(task["id"])
            state.call("release_task", id=task["id"], worker="w")

    assert listed == claimable
    assert len(listed) == number


def test_a_task_lives_from_claim_to_completion(state, tasks):
    """Each step answers what it must, the events stand in order, and the result is kept."""
    task = tasks.seed("write")

    claimed = state.call("claim_task", id=task, worker="w-1")
    assert list(claimed) == ["task", "leaseUntil"]
    assert claimed["task"]["state"] == "CLAIMED"
    assert claimed["task"]["claimedBy"] == "w-1"
    assert claimed["task"]["leaseUntil"] == claimed["leaseUntil"]
    assert state.call("start_task", id=task, worker="w-1") == OK
    assert state.call("get_task", id=task)["state"] == "RUNNING"
    told = {"type": "TASK_PROGRESS", "taskId": task, "workerId": "w-1", "agent": tasks.mark}
    told |= {"payload": {"message": "half way", "percent": 50}, "ts": "2026-01-01T00:00:00Z"}
    assert state.call("append_event", event=told) == OK
    assert state.call("complete_task", id=task, worker="w-1", result={"status": "ok"}) == OK

    done = state.call("get_task", id=task)
    for name in ("createdAt", "updatedAt"):
        assert INSTANT.fullmatch(done.pop(name))
    assert done == {
        "id": task, "name": "write", "agent": tasks.mark, "state": "DONE", "deps": [],
        "payload": {"kind": "noop"}, "result": {"status": "ok"}, "claimedBy": None,
        "leaseUntil": None, "retries": 0,
    }  # fmt: skip
    created, *events = tasks.events(task)
    assert created["type"] == "TASK_CREATED"
    assert [event["type"] for event in events] == [
        "TASK_CLAIMED", "TASK_STARTED", "TASK_PROGRESS", "TASK_COMPLETED",
    ]  # fmt: skip
    assert {event["worker_id"] for event in events} == {"w-1"}
    assert events[2]["payload"] == {"message": "half way", "percent": 50}


@pytest.mark.parametrize(("asked", "seconds"), [({}, 600), ({"leaseSeconds": 60}, 60)])
def test_a_lease_lasts_as_long_as_was_asked_for(state, tasks, asked, seconds):
    """Ten minutes unless the worker says otherwise, from the claim and from each renewal on."""
    task = tasks.seed("a")
    [clock] = tasks.queue.select("select moonmind_queue._now() as now")

    first = state.call("claim_task", id=task, worker="w", **asked)["leaseUntil"]
    second = state.call("renew_lease", id=task, worker="w", **asked)["leaseUntil"]

    assert INSTANT.fullmatch(first)
    lasted = datetime.fromisoformat(first) - clock["now"]
    assert timedelta(seconds=seconds - 1) < lasted < timedelta(seconds=seconds + 10)
    assert second > first
    kept = tasks.row(task)["lease_until"] - datetime.fromisoformat(second)
    assert abs(kept) < timedelta(milliseconds=1)


def test_a_failure_that_a_retry_may_mend_counts_and_the_last_one_ends_the_task(state, tasks):
    """READY with one retry more each time, at last FAILED."""
    task = tasks.seed("a")
    states = []
    for attempt in range(3):
        state.call("claim_task", id=task, worker="w")
        assert state.call("fail_task", id=task, worker="w", reason=f"no {attempt}") == OK
        found = state.call("get_task", id=task)
        states.append((found["state"], found["retries"]))
        if found["state"] == "READY":
            tasks.queue.retry(tasks.row(task)["job_id"])  # do not rest

    assert states == [("READY", 1), ("READY", 2), ("FAILED", 3)]


def test_a_failure_that_only_a_person_can_mend_blocks_the_task(state, tasks):
    """BLOCKED with the reason, which claim_task tells."""
    task = tasks.seed("a")
    state.call("claim_task", id=task, worker="w")

    assert state.call("fail_task", id=task, worker="w", reason="whose key?", retryable=False) == OK

    assert state.call("get_task", id=task)["state"] == "BLOCKED"
    code, message = state.refused("claim_task", id=task, worker="w")
    assert (code, message) == ("TASK_NOT_READY", f"task {task!r} is BLOCKED: whose key?")


def test_a_task_that_is_released_is_ready_again_and_nothing_is_counted(state, tasks):
    """TASK_RELEASED, and others may have it at once."""
    task = tasks.seed("a")
    state.call("claim_task", id=task, worker="one")

    assert state.call("release_task", id=task, worker="one") == OK

    assert tasks.events(task)[-1]["type"] == "TASK_RELEASED"
    assert state.call("get_task", id=task)["retries"] == 0
    assert state.call("claim_task", id=task, worker="two")["task"]["claimedBy"] == "two"


# --- refusals ----------------------------------------------------------------------------------


def test_a_task_that_is_held_is_a_lease_conflict(state, tasks):
    """Whoever holds it, the one who asks included; the message says who and until when."""
    task = tasks.seed("a")
    until = state.call("claim_task", id=task, worker="one")["leaseUntil"]

    code, message = state.refused("claim_task", id=task, worker="two")
    assert code == ErrorCode.LEASE_CONFLICT
    assert message == f"task {task!r} is held until {until} by worker 'one'"
    code, message = state.refused("claim_task", id=task, worker="one")
    assert code == ErrorCode.LEASE_CONFLICT
    assert "by you: renew_lease keeps it" in message
    assert tasks.row(task)["claimed_by"] == "one"


def test_a_task_that_waits_or_is_over_is_not_ready(state, tasks):
    """The message says why: what it waits for, that it is done, that its agent is paused."""
    first = tasks.seed("first", "other", second="first")

    code, message = state.refused("claim_task", id=tasks.id("second"), worker="w")
    assert code == ErrorCode.TASK_NOT_READY
    assert re.search(r"is READY: needs job \d+, which is queued$", message)
    for call in ("claim_task", "complete_task"):
        state.call(call, id=first, worker="w")
    code, message = state.refused("claim_task", id=first, worker="w")
    assert (code, message) == (ErrorCode.TASK_NOT_READY, f"task {first!r} is DONE")
    tasks.queue.pause(tasks.mark, "lunch")
    code, message = state.refused("claim_task", id=tasks.id("other"), worker="w")
    assert code == ErrorCode.TASK_NOT_READY
    assert "is paused: lunch" in message


def test_what_is_unknown_is_not_found(state):
    """By every call that names a task."""
    unknown = f"nowhere:{uuid.uuid4().hex}"

    for call, arguments in [
        *holders_calls(unknown, "w"),
        ("claim_task", {"id": unknown, "worker": "w"}),
        ("get_task", {"id": unknown}),
    ]:
        code, message = state.refused(call, **arguments)
        assert code == ErrorCode.TASK_NOT_FOUND, call
        assert message.startswith(f"there is no task {unknown!r}; list_ready_tasks shows")


@pytest.mark.parametrize("claimed", [True, False])
def test_only_the_holder_may_go_on_with_a_task(state, tasks, claimed):
    """Whether another worker holds it or nobody does: refused, and nothing has changed."""
    task = tasks.seed("a")
    if claimed:
        state.call("claim_task", id=task, worker="holder")
    before = tasks.row(task), tasks.events(task)

    for call, arguments in holders_calls(task, "somebody"):
        code, message = state.refused(call, **arguments)
        assert code == ErrorCode.NOT_CLAIMED_BY_WORKER, call
        assert message.startswith(f"task {task!r} is not held by worker 'somebody'")

    assert (tasks.row(task), tasks.events(task)) == before


@pytest.mark.parametrize(
    ("call", "arguments", "told"),
    [
        ("claim_task", {"id": "x"}, "worker: is missing"),
        ("claim_task", {"id": "x", "worker": "w", "lease": 5}, "lease: is not a parameter"),
        ("claim_task", {"id": "", "worker": "w"}, "id: string should have at least 1 character"),
        ("claim_task", {"id": "x", "worker": "w", "leaseSeconds": 0}, "leaseSeconds: "),
        ("claim_task", {"id": "x", "worker": "w", "leaseSeconds": 86401}, "leaseSeconds: "),
        ("complete_task", {"id": "x", "worker": "w", "result": [1]}, "result: "),
        ("fail_task", {"id": "x", "worker": "w", "reason": ""}, "reason: "),
        ("append_event", {"event": {"type": "TASK_PROGRESS"}}, "event.taskId: is missing"),
        ("get_task", {}, "id: is missing"),
        ("get_tasks", {}, "there is no tool 'get_tasks'; there are list_ready_tasks, claim_task"),
    ],
)
def test_a_call_that_is_wrong_is_told_by_parameter(state, call, arguments, told):
    """VALIDATION_ERROR names what is wrong, and how it should be."""
    code, message = state.refused(call, **arguments)

    assert code == ErrorCode.VALIDATION_ERROR
    assert told in message


def test_what_the_database_refuses_is_a_validation_error(state, tasks):
    """A worker's name of blanks, and an id that no text of a database can be."""
    task = tasks.seed("a")

    assert state.refused("claim_task", id=task, worker="  ")[0] == ErrorCode.VALIDATION_ERROR
    assert state.refused("get_task", id="a\0b")[0] == ErrorCode.VALIDATION_ERROR


@pytest.mark.parametrize(
    ("word", "told"),
    [
        ("TASK_CREATED", "seed_from_dag"),
        ("TASK_READY", "the queue"),
        ("TASK_CLAIMED", "claim_task"),
        ("TASK_STARTED", "start_task"),
        ("TASK_COMPLETED", "complete_task"),
        ("TASK_FAILED", "fail_task"),
        ("TASK_RELEASED", "release_task"),
        ("HEARTBEAT", "renew_lease"),
        ("progress", "there is no such event"),
    ],
)
def test_nobody_can_claim_what_did_not_happen(state, tasks, word, told):
    """Events of a task's way are the queue's to write: not even its holder can make one up."""
    task = tasks.seed("a")
    state.call("claim_task", id=task, worker="w")
    before = tasks.events(task)

    event = {"type": word, "taskId": task, "workerId": "w"}
    code, message = state.refused("append_event", event=event)

    assert code == ErrorCode.VALIDATION_ERROR
    assert told in message
    assert tasks.events(task) == before


def test_an_event_is_of_the_agent_whose_task_it_is(state, tasks):
    """Another agent in it is refused rather than ignored."""
    task = tasks.seed("a")
    state.call("claim_task", id=task, worker="w")

    event = {"type": "TASK_PROGRESS", "taskId": task, "workerId": "w", "agent": "another"}
    code, message = state.refused("append_event", event=event)

    assert code == ErrorCode.VALIDATION_ERROR
    assert message == f"the task is for agent {tasks.mark}, not another"


# --- seeding -----------------------------------------------------------------------------------


def test_a_dag_file_is_seeded_once(state, station, tasks):
    """``created`` says how many are new, wherever below home it is and however it is named."""
    folder = station.home / "plans"
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / f"{tasks.mark}.yaml"
    file.write_text(
        f"- {{id: {tasks.id('a')}, agent: claude}}\n"
        f"- {{id: {tasks.id('b')}, agent: codex, deps: ['{tasks.id('a')}']}}\n"
    )

    assert state.call("seed_from_dag", path=f"plans/{file.name}") == {"created": 2}
    assert state.call("seed_from_dag", path=f"./plans/{file.name}") == {"created": 0}
    assert state.call("seed_from_dag", path=str(file)) == {"created": 0}
    assert tasks.row(tasks.id("b"))["deps"] == [tasks.id("a")]


def test_what_is_wrong_with_a_dag_file_is_told_with_its_line(state, station, tasks):
    """Whether the file or the database finds it; and nothing is made."""
    station.home.mkdir(exist_ok=True)
    file = station.home / "wrong.yaml"
    file.write_text(f"- {{id: {tasks.id('a')}, agent: claude}}\n- {{id: {tasks.id('b')}}}\n")
    code, message = state.refused("seed_from_dag", path="wrong.yaml")
    assert code == ErrorCode.VALIDATION_ERROR
    assert message == f"wrong.yaml:2: task {tasks.id('b')}: agent: is missing"

    file.write_text(f"- {{id: {tasks.id('a')}, agent: claude, deps: [nobody]}}\n")
    code, message = state.refused("seed_from_dag", path="wrong.yaml")
    assert code == ErrorCode.VALIDATION_ERROR
    assert message.startswith("wrong.yaml:1: task 1")
    assert state.refused("get_task", id=tasks.id("a"))[0] == ErrorCode.TASK_NOT_FOUND


@pytest.mark.parametrize(
    "path",
    ["../secret.yaml", "plans/../../secret.yaml", "/etc/hostname", "//etc/hostname", ".", "a\\b",
     "a\0b", "link.yaml", "way/secret.yaml"],
)  # fmt: skip
def test_a_dag_file_is_below_home_and_no_link(state, station, path):
    """No path leads out, and nothing of what is there is told."""
    station.home.mkdir(exist_ok=True)
    outside = station.home.parent / "secret.yaml"
    outside.write_text("- {id: out:side, agent: claude}\n")
    for name, target in (("link.yaml", outside), ("way", outside.parent)):
        if not (station.home / name).is_symlink():
            (station.home / name).symlink_to(target)

    code, message = state.refused("seed_from_dag", path=path)

    assert code == ErrorCode.VALIDATION_ERROR
    assert "out:side" not in message
    assert state.refused("get_task", id="out:side")[0] == ErrorCode.TASK_NOT_FOUND


def test_a_dag_file_that_is_not_there_is_an_io_error(state):
    """With the path as it was given."""
    assert state.refused("seed_from_dag", path="plans/none.yaml") == (
        ErrorCode.IO_ERROR, "plans/none.yaml: No such file or directory",
    )  # fmt: skip


# --- around the calls --------------------------------------------------------------------------


def test_a_lost_database_is_an_io_error_and_the_server_lives_on(own, own_tasks, server):
    """While it is away every call says so; when it is back, the next one works."""
    task = own_tasks.seed("a")
    state = own.peer("state")
    name = str(conninfo_to_dict(own.dsn)["dbname"])
    with psycopg.connect(server, autocommit=True) as admin:
        refuse = SQL("alter database {} allow_connections {}")
        admin.execute(refuse.format(Identifier(name), SQL("false")))
        for call, arguments in [*holders_calls(task, "w"), ("list_ready_tasks", {})]:
            assert state.refused(call, **arguments)[0] == ErrorCode.IO_ERROR, call
        admin.execute(refuse.format(Identifier(name), SQL("true")))

    assert state.call("claim_task", id=task, worker="w")["task"]["state"] == "CLAIMED"


def test_a_lease_that_ran_out_is_taken_back_without_any_worker(own, own_tasks, clock_of):
    """Where agents are the only workers, their own calls see to it."""
    task = own_tasks.seed("a")
    state = own.peer("state")
    state.call("claim_task", id=task, worker="gone", leaseSeconds=60)

    clock_of(own.dsn).advance(timedelta(minutes=2))
    code, _ = state.refused("claim_task", id=task, worker="next")  # it rests for a second
    assert code == ErrorCode.TASK_NOT_READY
    clock_of(own.dsn).advance(timedelta(minutes=2))

    assert [each["id"] for each in state.call("list_ready_tasks")] == [task]
    assert state.call("claim_task", id=task, worker="next")["task"]["retries"] == 1
    code, _ = state.refused("complete_task", id=task, worker="gone")
    assert code == ErrorCode.NOT_CLAIMED_BY_WORKER


def test_a_slow_call_holds_up_no_other(own, own_tasks, look):
    """A call that waits for a lock of the database waits in a thread of its own."""
    task = own_tasks.seed("a")
    state = own.peer("state")
    state.call("claim_task", id=task, worker="w")
    with psycopg.connect(own.dsn) as other:
        other.execute("select from moonmind_queue.job for update")
        slow = state.start("start_task", id=task, worker="w")
        eventually(lambda: look("select 1 from pg_stat_activity where wait_event_type = 'Lock'"))

        assert state.call("get_task", id=task)["state"] == "CLAIMED"
        other.rollback()

    assert slow() == OK
    assert state.call("get_task", id=task)["state"] == "RUNNING"


def test_an_answer_that_no_client_could_read_is_refused_and_the_server_lives_on(own, own_tasks):
    """A result nested 300 levels deep, which the database takes and the protocol does not."""
    deep: dict[str, Any] = {}
    for _ in range(300):
        deep = {"in": deep}
    task = own_tasks.seed("a")
    [job] = own_tasks.queue.claim("w")
    own_tasks.queue.complete(job, deep)
    state = own.peer("state")

    code, message = state.refused("get_task", id=task)

    assert code == ErrorCode.VALIDATION_ERROR
    assert "nested more than 100 levels deep" in message
    assert state.call("list_ready_tasks") == []


def test_tasks_that_ask_for_capabilities_are_for_servers_that_offer_them(own, own_tasks):
    """MOONMIND_WORKER_CAPABILITIES says what the workers of a server can do."""
    own_tasks.queue.seed_dag(
        [{"id": "big", "agent": "own", "capabilities": ["gpu", "Docker"]}], "test", "own"
    )

    code, message = own.peer("state", MOONMIND_WORKER_CAPABILITIES="docker").refused(
        "claim_task", id="big", worker="w"
    )
    assert code == ErrorCode.TASK_NOT_READY
    assert message == (
        "task 'big' is READY: needs docker, gpu, and this server offers docker"
        " (MOONMIND_WORKER_CAPABILITIES)"
    )
    able = own.peer("state", MOONMIND_WORKER_CAPABILITIES="GPU,docker")
    assert able.call("claim_task", id="big", worker="w")["task"]["state"] == "CLAIMED"


def test_a_task_that_the_policy_of_the_login_bars_is_refused_with_that_reason(
    own, own_tasks, login
):
    """Not with one that is about worker processes, of which an agent is none."""
    task = own_tasks.seed("a")
    state = own.peer("state", **login("worker", agents=["others"]))

    assert state.refused("claim_task", id=task, worker="w") == (
        "TASK_NOT_READY",
        f"task {task!r} is READY: the policy of this server's role does not admit it",
    )


def test_a_task_can_be_taken_from_an_agent_that_is_gone(state, tasks):
    """Without force, for it is no worker process; should it come back, it is told."""
    task = tasks.seed("a")
    state.call("claim_task", id=task, worker="w")

    tasks.queue.unlock(tasks.row(task)["job_id"])

    assert state.refused("complete_task", id=task, worker="w")[0] == "NOT_CLAIMED_BY_WORKER"
    assert state.call("get_task", id=task)["state"] == "READY"


def test_no_call_shows_a_token(own, own_tasks):
    """Neither an answer nor a refusal nor the log has the one thing that ends a lease."""
    own_tasks.queue.select("select setval('moonmind_queue.lease_token_seq', 4242424242) as moved")
    task = own_tasks.seed("a")
    state = own.peer("state")
    told = [state.call("claim_task", id=task, worker="w")]
    told += [state.refused("complete_task", id=task, worker="other")]
    told += [state.call("renew_lease", id=task, worker="w"), state.call("get_task", id=task)]
    [held] = own_tasks.queue.held_by("w")

    assert str(held.token).startswith("42424242")
    assert str(held.token) not in str(told) + state.log.read_text()
