"""The ten tools of the queue: the same jobs, rules and rights as everywhere else."""

import base64
import hashlib
import uuid
from datetime import UTC, datetime, timedelta

import pytest

from moonmind_queue import executors
from moonmind_queue.mcp.queue import ErrorCode

TOOLS = [
    "queue.enqueue", "queue.claim", "queue.heartbeat", "queue.complete", "queue.fail", "queue.get",
    "queue.list", "queue.events", "queue.cancel", "queue.upload_artifact",
]  # fmt: skip
UNKNOWN = 2**53 - 1  # the largest id that can be asked for
HELLO = base64.b64encode(b"hello\n").decode()


@pytest.fixture(scope="module")
def jobs(station, transport):
    """A client of the profile ``queue``, over one transport after the other."""
    return station.peer("queue", transport)


@pytest.fixture
def agent():
    """An agent that no other test has."""
    return f"a{uuid.uuid4().hex[:8]}"


@pytest.fixture
def running(jobs, agent):
    """A job that worker ``w`` has claimed."""
    made = jobs.call("queue.enqueue", kind="noop", agent=agent)
    claimed = jobs.call("queue.claim", worker="w", agents=[agent])["job"]
    assert claimed["id"] == made["id"]
    return claimed


def holders_calls(job, worker):
    """Return every call that only the holder of a job may make."""
    who = {"jobId": job, "worker": worker}
    return [
        ("queue.heartbeat", who),
        ("queue.complete", who),
        ("queue.fail", {**who, "error": "no"}),
        ("queue.upload_artifact", {**who, "name": "a.txt", "contentBase64": HELLO}),
    ]


def test_the_ten_tools_are_listed_with_all_that_an_agent_needs_to_know(jobs):
    """In the same order each time; what a job of each kind wants to know is in the words."""
    tools = jobs.tools()

    assert [tool.name for tool in tools] == TOOLS == [tool.name for tool in jobs.tools()]
    for tool in tools:
        assert len(tool.description) > 40, tool.name
        assert tool.input_schema["additionalProperties"] is False
        assert "$ref" not in str(tool.input_schema)
        for name, parameter in tool.input_schema["properties"].items():
            assert parameter["description"], f"{tool.name}: {name}"
            assert "type" in parameter, f"{tool.name}: {name}"
    enqueue = tools[0]
    for word in ("codex_exec", "repository", "instruction", "queue.get"):
        assert word in enqueue.description
    assert enqueue.input_schema["required"] == ["kind"]
    assert enqueue.input_schema["properties"]["payload"]["examples"]
    states = tools[6].input_schema["properties"]["states"]["items"]
    assert "dead_letter" in states["enum"]
    hints = {tool.name: tool.annotations for tool in tools}
    reading = {name for name in TOOLS if hints[name].read_only_hint}
    assert reading == {"queue.get", "queue.list", "queue.events"}
    assert [name for name in TOOLS if hints[name].destructive_hint] == ["queue.cancel"]


def test_a_job_is_added_with_all_that_can_be_said_of_it(jobs, database, agent):
    """As any producer adds it; the answer is the job as it is printed everywhere."""
    first = jobs.call("queue.enqueue", kind="noop", agent=agent)

    job = jobs.call(
        "queue.enqueue", kind="noop", payload={"seconds": 0.5}, agent=agent, name="nap",
        key=f"{agent}-1", priority=2, runAt="2031-02-03T04:05:06+02:00", after=[first["id"]],
        maxAttempts=5, capabilities=["gpu"], timeoutSeconds=90, expiresAt="2032-01-01T00:00:00Z",
        onDependencyFailure="run", concurrencyKey="staging",
    )  # fmt: skip

    stored = database.get(job["id"])
    assert job == stored.summary()
    assert stored.payload == {"seconds": 0.5}
    assert (stored.name, stored.key, stored.priority) == ("nap", f"{agent}-1", 2)
    assert stored.run_at == datetime(2031, 2, 3, 2, 5, 6, tzinfo=UTC)
    assert stored.expires_at == datetime(2032, 1, 1, tzinfo=UTC)
    assert (stored.max_attempts, stored.timeout) == (5, timedelta(seconds=90))
    assert (stored.capabilities, stored.after) == (["gpu"], [first["id"]])
    assert (stored.on_dependency_failure, stored.concurrency_key) == ("run", "staging")
    assert job["state"] == "waiting"


def test_what_is_to_follow_is_added_with_the_job(jobs, database, agent):
    """On success and on failure, nested, with all that can be said of a job."""
    last = {"type": "noop", "agent": agent, "payload": {"seconds": 3}}
    review = {"kind": "noop", "agent": agent, "name": "review", "timeoutSeconds": 90.5,
              "priority": 2, "runAt": "2021-02-03T04:05:06+02:00", "onSuccess": [last]}  # fmt: skip
    job = jobs.call("queue.enqueue", kind="noop", agent=agent, onSuccess=[review],
                    onFailure=[{"kind": "noop", "agent": agent, "name": "tell Ada"}])  # fmt: skip

    for name in (None, "review", None):
        claimed = jobs.call("queue.claim", worker="w", agents=[agent])["job"]
        assert claimed["name"] == name
        jobs.call("queue.complete", jobId=claimed["id"], worker="w")

    assert claimed["payload"] == {"seconds": 3}
    rows = database.select(
        "select j.name, j.timeout, j.priority, j.run_at from moonmind_queue.job_origin o"
        " join moonmind_queue.job_overview j on j.id = o.job_id where o.from_job_id = %(job)s",
        job=job["id"],
    )
    assert [tuple(row.values()) for row in rows] == [
        ("review", timedelta(seconds=90.5), 2, datetime(2021, 2, 3, 2, 5, 6, tzinfo=UTC))
    ]


@pytest.mark.parametrize(
    ("listed", "code", "told"),
    [
        ([{"payload": {}}], ErrorCode.INVALID_TOOL_ARGUMENTS, "onSuccess.0.kind: is missing"),
        (
            [{"kind": "noop", "onFailure": [{"kind": "noop", "after": [1]}]}],
            ErrorCode.INVALID_TOOL_ARGUMENTS,
            "onSuccess.0.onFailure.0.after: is not a parameter",
        ),
        ([{"kind": "nope"}], ErrorCode.INVALID_QUEUE_PAYLOAD, "unknown kind 'nope'"),
        (
            [{"kind": "noop", "payload": {"seconds": "long"}}],
            ErrorCode.INVALID_QUEUE_PAYLOAD,
            "seconds",
        ),
    ],
)
def test_what_cannot_follow_makes_no_job(jobs, database, listed, code, told):
    """It is refused with the job, by its place, and not when its time has come."""
    before = database.count_jobs()

    assert (refused := jobs.refused("queue.enqueue", kind="noop", onSuccess=listed))[0] == code
    assert told in refused[1]
    assert database.count_jobs() == before


def test_a_key_is_enqueued_once(jobs, agent):
    """The second job with it is the first."""
    one, two = (jobs.call("queue.enqueue", kind="noop", key=agent, agent=agent) for _ in range(2))

    assert one == two


PAYLOADS = {
    "codex_exec": {"repository": "owner/repo", "instruction": "what to do", "ref": "main",
                   "publish": {"mode": "pr"}},
    "mcp-call": {"server": "time", "tool": "get_current_time", "arguments": {"timezone": "UTC"}},
    "noop": {"seconds": 1},
    "shell": {"cmd": ["make", "test"]},
}  # fmt: skip


def test_an_agent_is_told_what_each_kind_wants_to_know(jobs, agent):
    """The payloads that the description shows are taken, and no kind of ours is left out."""
    told = jobs.tools()[0].description

    assert set(PAYLOADS) | {"codex"} == set(executors.kinds())  # codex: codex_exec for Agentmux
    for kind, payload in PAYLOADS.items():
        assert f'"{kind}"' in told
        assert all(f'"{member}"' in told for member in payload), kind
        job = jobs.call("queue.enqueue", kind=kind, payload=payload, agent=agent)
        assert set(jobs.call("queue.get", jobId=job["id"])["payload"]) >= set(payload)


def test_null_is_as_good_as_nothing(jobs, agent):
    """Models write it for what they leave out; where something is needed it is missing."""
    job = jobs.call("queue.enqueue", kind="noop", agent=agent, payload=None, after=None,
                    priority=None, maxAttempts=None, name=None)  # fmt: skip

    assert (job["priority"], job["max_attempts"], job["name"]) == (0, 3, None)
    assert jobs.call("queue.claim", worker="w", agents=[agent], capabilities=None)["job"]
    code, message = jobs.refused("queue.get", jobId=None)
    assert (code, message) == (ErrorCode.INVALID_TOOL_ARGUMENTS, "jobId: is missing")


def test_names_in_snake_case_are_understood_and_so_is_type(jobs, agent):
    """What an agent has read in an answer it may write in a question."""
    job = jobs.call("queue.enqueue", type="noop", agent=agent, max_attempts=1)

    assert job["kind"] == "noop"
    assert jobs.call("queue.get", job_id=job["id"])["max_attempts"] == 1


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ({"kind": "codex_exec", "payload": {"repository": "acme/site"}}, "instruction"),
        (
            {"kind": "codex_exec",
             "payload": {"repository": "https://me:pw@host/x", "instruction": "a"}},
            "credentials",
        ),
        ({"kind": "noop", "payload": {"seconds": "long"}}, "seconds"),
        ({"kind": "nope"}, "installed: "),
    ],
)  # fmt: skip
def test_a_payload_that_its_kind_refuses_makes_no_job(jobs, database, arguments, told):
    """It is checked by the executor of its kind, as for every producer."""
    before = database.count_jobs()

    code, message = jobs.refused("queue.enqueue", **arguments)

    assert code == ErrorCode.INVALID_QUEUE_PAYLOAD
    assert told in message
    assert "pw" not in message
    assert database.count_jobs() == before


def test_a_job_lives_from_claim_to_completion(jobs, database, agent):
    """Claimed and begun at once, kept, completed; each answer is the job as it then is."""
    made = jobs.call("queue.enqueue", kind="noop", payload={"seconds": 1}, agent=agent)

    claimed = jobs.call("queue.claim", worker="w-1", agents=[agent])["job"]
    assert claimed == {**claimed, "id": made["id"], "state": "running", "worker": "w-1",
                       "payload": {"seconds": 1}, "attempt": 1}  # fmt: skip
    kept = jobs.call("queue.heartbeat", jobId=made["id"], worker="w-1", leaseSeconds=600)
    lasts = datetime.fromisoformat(kept["lease_expires_at"]) - datetime.fromisoformat(
        claimed["lease_expires_at"]
    )
    assert timedelta(seconds=475) < lasts < timedelta(seconds=490)
    assert kept["cancel_requested"] is False
    done = jobs.call("queue.complete", jobId=made["id"], worker="w-1", result={"answer": 42})

    assert done == database.get(made["id"]).summary()
    assert done["state"] == "succeeded"
    whole = jobs.call("queue.get", jobId=made["id"])
    assert whole == database.get(made["id"]).to_json()
    assert whole["result"] == {"answer": 42}
    events = jobs.call("queue.events", jobId=made["id"])["events"]
    assert [event["type"] for event in events] == ["created", "claimed", "started", "completed"]
    assert list(events[0]) == ["job_id", "seq", "type", "level", "message", "data", "worker", "at"]
    assert jobs.call("queue.events", jobId=made["id"], after=2, limit=1)["events"] == [events[2]]


def test_a_claim_is_for_what_the_worker_can_do(jobs, agent):
    """Kinds, agents and capabilities bound it; without a job the answer is null."""
    made = jobs.call("queue.enqueue", kind="noop", agent=agent, capabilities=["gpu"])

    for other in (
        {"agents": ["nobody"], "capabilities": ["gpu"]},
        {"agents": [agent]},
        {"agents": [agent], "capabilities": ["gpu"], "kinds": ["codex_exec"]},
    ):
        assert jobs.call("queue.claim", worker="w", **other) == {"job": None}
    able = jobs.call(
        "queue.claim", worker="w", agents=[agent], capabilities=["gpu", "docker"], kinds=[]
    )  # models write [] for what they leave out

    assert able["job"]["id"] == made["id"]


@pytest.mark.parametrize(
    ("arguments", "state"),
    [
        ({}, "queued"),
        ({"retryInSeconds": 0}, "queued"),
        ({"outcome": "block"}, "blocked"),
        ({"outcome": "fail"}, "failed"),
    ],
)
def test_a_failure_ends_as_was_said(jobs, running, arguments, state):
    """Tried again, parked for a person, or over."""
    job = jobs.call("queue.fail", jobId=running["id"], worker="w", error="no key", **arguments)

    assert (job["state"], job["error"], job["worker"]) == (state, "no key", None)


def test_jobs_are_listed_by_state_agent_and_kind_page_by_page(jobs, agent):
    """Newest first, without payload and result."""
    ids = [jobs.call("queue.enqueue", kind="noop", agent=agent)["id"] for _ in range(3)]
    jobs.call("queue.cancel", jobId=ids[0])

    def listed(**arguments):
        found = jobs.call("queue.list", agent=agent, **arguments)["jobs"]
        assert not any({"payload", "result"} & set(job) for job in found)
        return [job["id"] for job in found]

    assert listed() == ids[::-1]
    assert listed(limit=2) == [ids[2], ids[1]]
    assert listed(limit=2, before=ids[1]) == [ids[0]]
    assert listed(states=["cancelled", "failed"]) == [ids[0]]
    assert listed(kind="codex_exec") == []
    assert listed(type="noop", states=["queued"]) == [ids[2], ids[1]]


def test_a_job_is_cancelled_or_its_holder_is_asked_to_stop(jobs, running, agent):
    """And a holder who then says that it failed has cancelled it."""
    waiting = jobs.call("queue.enqueue", kind="noop", agent=agent)
    assert jobs.call("queue.cancel", jobId=waiting["id"], reason="wrong")["state"] == "cancelled"

    asked = jobs.call("queue.cancel", jobId=running["id"], reason="wrong branch")
    assert (asked["state"], asked["cancel_requested"]) == ("running", True)
    beat = jobs.call("queue.heartbeat", jobId=running["id"], worker="w")
    assert beat["cancel_requested"] is True
    ended = jobs.call("queue.fail", jobId=running["id"], worker="w", error="stopped")
    assert (ended["state"], ended["error"]) == ("cancelled", "wrong branch")


def test_an_artifact_is_stored_with_its_digest(jobs, database, running):
    """As the lists of artifacts print it; the same bytes again change nothing."""
    sha256 = hashlib.sha256(b"hello\n").hexdigest()
    upload = {
        "jobId": running["id"], "worker": "w", "name": "reports/a.txt", "contentBase64": HELLO,
        "contentType": "text/plain", "digest": f"sha256:{sha256.upper()}",
    }  # fmt: skip

    stored = jobs.call("queue.upload_artifact", **upload)

    [artifact] = database.artifacts(running["id"])
    assert b"".join(database.read_artifact(artifact)) == b"hello\n"
    created = stored.pop("created_at")
    assert datetime.fromisoformat(created) == artifact.created_at
    assert stored == {
        "id": artifact.id, "job_id": running["id"], "attempt": 1, "name": "reports/a.txt",
        "content_type": "text/plain", "size_bytes": 6, "sha256": sha256,
    }  # fmt: skip
    assert jobs.call("queue.upload_artifact", **upload)["id"] == artifact.id


@pytest.mark.parametrize(
    ("wrong", "code"),
    [
        ({"contentBase64": "no base64"}, ErrorCode.INVALID_TOOL_ARGUMENTS),
        ({"contentBase64": "aGVsbG8"}, ErrorCode.INVALID_TOOL_ARGUMENTS),
        ({"digest": "sha256:" + "0" * 64}, ErrorCode.INVALID_TOOL_ARGUMENTS),
        ({"digest": "md5:0"}, ErrorCode.INVALID_TOOL_ARGUMENTS),
        ({"name": "../a.txt"}, ErrorCode.INVALID_TOOL_ARGUMENTS),
        ({"name": "inputs/a.txt"}, ErrorCode.INVALID_TOOL_ARGUMENTS),
        (
            {"contentBase64": base64.b64encode(bytes(10 * 2**20 + 1)).decode()},
            ErrorCode.ARTIFACT_TOO_LARGE,
        ),
    ],
    ids=[
        "no base64",
        "cut base64",
        "another digest",
        "no digest",
        "unsafe",
        "reserved",
        "too large",
    ],
)
def test_a_bad_artifact_is_refused(jobs, database, running, wrong, code):
    """And nothing of it is stored."""
    good = {"jobId": running["id"], "worker": "w", "name": "a.txt", "contentBase64": HELLO}

    assert jobs.refused("queue.upload_artifact", **{**good, **wrong})[0] == code

    assert database.artifacts(running["id"]) == []


def test_other_bytes_under_a_name_that_is_taken_are_refused(jobs, running):
    """An artifact never changes."""
    good = {"jobId": running["id"], "worker": "w", "name": "a.txt", "contentBase64": HELLO}
    jobs.call("queue.upload_artifact", **good)

    code, _ = jobs.refused("queue.upload_artifact", **{**good, "contentBase64": ""})

    assert code == ErrorCode.INVALID_TOOL_ARGUMENTS


# --- refusals ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("call", "arguments", "told"),
    [
        ("queue.get", {}, "jobId: is missing"),
        ("queue.get", {"jobId": "x"}, "jobId: "),
        ("queue.get", {"jobId": 0}, "jobId: "),
        ("queue.get", {"jobId": 2**53}, "jobId: "),
        ("queue.get", {"jobId": 1, "verbose": True}, "verbose: is not a parameter"),
        ("queue.enqueue", {"kind": "noop", "payload": "text"}, "payload: "),
        ("queue.enqueue", {"kind": "noop", "runAt": "2031-01-01T00:00:00"}, "runAt: "),
        ("queue.enqueue", {"kind": "noop", "onDependencyFailure": "hope"}, "onDependencyFailure: "),
        ("queue.enqueue", {"kind": "noop", "after": [UNKNOWN]}, "unknown job"),
        ("queue.enqueue", {"kind": "noop", "maxAttempts": 2**31}, "maxAttempts: "),
        ("queue.list", {"states": ["done"]}, "states.0: "),
        ("queue.list", {"limit": 201}, "limit: "),
        ("queue.claim", {"worker": " "}, "worker needs a name"),
        ("queue.claim", {"worker": "w", "leaseSeconds": 86401}, "leaseSeconds: "),
    ],
)
def test_a_call_that_is_wrong_is_told_by_parameter(jobs, call, arguments, told):
    """invalid_tool_arguments names what is wrong, and how it should be."""
    code, message = jobs.refused(call, **arguments)

    assert code == ErrorCode.INVALID_TOOL_ARGUMENTS
    assert told in message


def test_a_tool_that_is_unknown_is_refused_with_those_that_there_are(jobs):
    """tool_not_found."""
    code, message = jobs.refused("queue.drop_everything")

    assert code == ErrorCode.TOOL_NOT_FOUND
    assert all(name in message for name in TOOLS)


def test_a_job_that_is_unknown_is_not_found(jobs):
    """By every call that names one."""
    for call, arguments in [
        *holders_calls(UNKNOWN, "w"),
        ("queue.get", {"jobId": UNKNOWN}),
        ("queue.events", {"jobId": UNKNOWN}),
        ("queue.cancel", {"jobId": UNKNOWN}),
    ]:
        assert jobs.refused(call, **arguments)[0] == ErrorCode.JOB_NOT_FOUND, call


def test_only_the_holder_may_go_on_with_a_job(jobs, database, running, agent):
    """The name of a worker that holds another job is refused by each call; nothing changes."""
    jobs.call("queue.enqueue", kind="noop", agent=agent)
    assert jobs.call("queue.claim", worker="somebody", agents=[agent])["job"]
    before = database.get(running["id"]), database.history(running["id"])

    for call, arguments in holders_calls(running["id"], "somebody"):
        code, message = jobs.refused(call, **arguments)
        assert code == ErrorCode.JOB_OWNERSHIP_MISMATCH, call
        assert f"job {running['id']} is not held by worker 'somebody'" in message

    assert (database.get(running["id"]), database.history(running["id"])) == before


def test_what_the_state_of_a_job_does_not_permit_is_a_conflict(jobs, running):
    """A job that has ended cannot be cancelled."""
    jobs.call("queue.complete", jobId=running["id"], worker="w")

    code, _ = jobs.refused("queue.cancel", jobId=running["id"])

    assert code == ErrorCode.JOB_STATE_CONFLICT


def test_without_a_database_every_call_says_so(own):
    """queue_unavailable, without the password that the server tried."""
    jobs = own.peer("queue", DATABASE_URL="postgresql://me:hunter2hunter2@127.0.0.1:1/none")

    for call, arguments in (("queue.list", {}), ("queue.get", {"jobId": 1})):
        code, message = jobs.refused(call, **arguments)
        assert code == ErrorCode.QUEUE_UNAVAILABLE
        assert "hunter2" not in message
    assert "hunter2" not in jobs.log.read_text()


# --- rights ------------------------------------------------------------------------------------


def test_a_producers_server_adds_jobs_and_cannot_claim_them(own, login):
    """Nothing can be done through MCP that the role may not."""
    jobs = own.peer("queue", **login("producer"))
    job = jobs.call("queue.enqueue", kind="noop")

    for call, arguments in [
        ("queue.claim", {"worker": "w"}),
        ("queue.cancel", {"jobId": job["id"]}),
        *holders_calls(job["id"], "w"),
    ]:
        assert jobs.refused(call, **arguments)[0] == ErrorCode.JOB_NOT_AUTHORIZED, call
    assert jobs.call("queue.get", jobId=job["id"])["state"] == "queued"


def test_a_readers_server_looks_and_changes_nothing(own, login, connected):
    """Lists, jobs and histories; no new job, no cancel."""
    job = connected.enqueue("noop")
    jobs = own.peer("queue", **login("reader"))

    assert [each["id"] for each in jobs.call("queue.list")["jobs"]] == [job]
    assert jobs.call("queue.events", jobId=job)["events"][0]["type"] == "created"
    for call, arguments in (
        ("queue.enqueue", {"kind": "noop"}),
        ("queue.claim", {"worker": "w"}),
        ("queue.cancel", {"jobId": job}),
    ):
        assert jobs.refused(call, **arguments)[0] == ErrorCode.JOB_NOT_AUTHORIZED, call
    assert connected.count_jobs() == 1
    state = own.peer("state", **login("reader"))
    assert len(state.call("list_ready_tasks")) == 1
    assert state.refused("claim_task", id=str(job), worker="w")[0] == "VALIDATION_ERROR"


def test_a_policy_holds_here_as_for_any_worker(own, login, connected):
    """Its agents, and its names: a worker that it does not list can neither claim nor end a job."""
    ours, theirs = connected.enqueue("noop", agent="ours"), connected.enqueue("noop", agent="x")
    [held] = connected.claim("boss", job_ids=[theirs])
    jobs = own.peer("queue", **login("worker", agents=["ours"], workers=["ours-1"]))

    assert jobs.refused("queue.claim", worker="boss")[0] == ErrorCode.JOB_NOT_AUTHORIZED
    for call, arguments in holders_calls(theirs, "boss"):
        assert jobs.refused(call, **arguments)[0] == ErrorCode.JOB_NOT_AUTHORIZED, call
    assert jobs.refused("queue.enqueue", kind="noop")[0] == ErrorCode.JOB_NOT_AUTHORIZED
    assert jobs.call("queue.claim", worker="ours-1")["job"]["id"] == ours
    assert jobs.call("queue.claim", worker="ours-1") == {"job": None}
    assert jobs.call("queue.complete", jobId=ours, worker="ours-1")["state"] == "succeeded"
    assert connected.get(held.id).worker == "boss"


def test_a_workers_server_seeds_no_dag(own, login):
    """seed_from_dag is a producer's; the words say who may not."""
    own.home.mkdir()
    (own.home / "dag.yaml").write_text("- {id: a, agent: claude}\n")

    code, message = own.peer("state", **login("worker")).refused("seed_from_dag", path="dag.yaml")
    assert code == "VALIDATION_ERROR"
    assert "permission denied" in message
    producer = own.peer("state", **login("producer"))
    assert producer.call("seed_from_dag", path="dag.yaml") == {"created": 1}
