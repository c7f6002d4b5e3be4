"""Jobs and events in the words of Agentmux: two views of the rows that all the others show."""

import json
import re
from datetime import timedelta

import pytest

MINUTE = timedelta(minutes=1)
HOUR = timedelta(hours=1)
# What each of our events is called; all others are TASK_PROGRESS.
EVENTS = {
    "created": "TASK_CREATED",
    "ready": "TASK_READY",
    "retried": "TASK_READY",
    "claimed": "TASK_CLAIMED",
    "started": "TASK_STARTED",
    "completed": "TASK_COMPLETED",
    "failed": "TASK_FAILED",
    "expired": "TASK_FAILED",
    "timed_out": "TASK_FAILED",
    "blocked": "TASK_FAILED",
    "cancelled": "TASK_FAILED",
    "released": "TASK_RELEASED",
    "unlocked": "TASK_RELEASED",
}
STATES = {
    "waiting": "READY",
    "queued": "READY",
    "claimed": "CLAIMED",
    "running": "RUNNING",
    "blocked": "BLOCKED",
    "succeeded": "DONE",
    "failed": "FAILED",
    "dead_letter": "FAILED",
    "cancelled": "CANCELLED",
}


def rows(db, query, *values):
    """The rows of a query as dictionaries."""
    cursor = db.execute(query, values)
    return [dict(zip((c.name for c in cursor.description), row, strict=True)) for row in cursor]


def task(db, job):
    """A job as a task."""
    [found] = rows(db, "select * from moonmind_queue.agentmux_task where job_id = %s", job)
    return found


@pytest.fixture
def held(queue, clock):
    """Claim the one job there is, whenever its rest is over."""

    def claim(lease=MINUTE):
        clock.advance(HOUR)
        [job] = queue.claim("w", lease=lease, start=True)
        return job

    return claim


def test_each_state_has_its_word(db):
    """None of the states that the domain admits is left without one, and there are no others."""
    [source] = db.execute(
        "select pg_get_constraintdef(oid) from pg_constraint where conname = 'job_state_is_known'"
    ).fetchone()
    assert sorted(re.findall(r"'(\w+)'", source)) == sorted(STATES)

    words = {s: db.execute("select moonmind_queue._task_state(%s)", [s]).fetchone() for s in STATES}

    assert words == {state: (word,) for state, word in STATES.items()}


def test_each_event_has_one_of_the_words_that_agentmux_has(db):
    """As docs/agentmux.md shows; what an executor calls by a word of its own is progress."""
    for event in [*EVENTS, "progress", "artifact", "dead_lettered", "removed", "updated", "mine"]:
        [(word,)] = db.execute("select moonmind_queue._task_event(%s)", [event]).fetchall()
        assert word == EVENTS.get(event, "TASK_PROGRESS"), event


def test_a_task_is_shown_in_its_state(queue, db):
    """The view says the word of the state that the job is in, all the way."""
    need = queue.enqueue("k")
    job = queue.enqueue("k", after=[need])
    seen = [task(db, job)["state"]]
    [first] = queue.claim("w")
    queue.complete(first)
    seen.append(task(db, job)["state"])
    [held] = queue.claim("w")
    seen.append(task(db, job)["state"])
    queue.start(held)
    seen.append(task(db, job)["state"])
    queue.complete(held)

    assert [*seen, task(db, job)["state"]] == ["READY", "READY", "CLAIMED", "RUNNING", "DONE"]


def test_a_task_is_called_by_its_key_and_without_one_by_its_id(queue, db):
    """Its needs are told in the same way, in the order of their jobs."""
    first = queue.enqueue("k", key="spec:write")
    second = queue.enqueue("k")
    last = queue.enqueue("k", {"goal": "x"}, key="ship", name="Ship it", after=[second, first])

    assert task(db, second)["id"] == str(second)
    assert task(db, second)["deps"] == []
    shown = task(db, last)
    assert (shown["id"], shown["name"], shown["agent"]) == ("ship", "Ship it", "codex")
    assert shown["deps"] == ["spec:write", str(second)]
    assert shown["payload"] == {"kind": "k", "goal": "x"}
    assert rows(db, "select * from moonmind_queue.agentmux_task where id = 'ship'") == [shown]


def test_a_task_is_claimed_until_it_is_done(queue, db, clock):
    """Owner and lease are there while it is held; the result and no owner when it has ended."""
    created = clock.now
    job = queue.enqueue("k")
    free = task(db, job)
    clock.advance(MINUTE)
    [held] = queue.claim("codex-1", lease=10 * MINUTE, start=True)
    running = task(db, job)
    clock.advance(MINUTE)
    queue.complete(held, {"status": "ok"})
    done = task(db, job)

    assert (free["claimed_by"], free["lease_until"], free["result"]) == (None, None, None)
    assert free["updated_at"] == created
    assert running["claimed_by"] == "codex-1"
    assert running["lease_until"] == created + 11 * MINUTE
    assert running["updated_at"] == created + MINUTE
    assert (done["claimed_by"], done["lease_until"]) == (None, None)
    assert (done["result"], done["retries"]) == ({"status": "ok"}, 0)
    assert (done["created_at"], done["updated_at"]) == (created, created + 2 * MINUTE)


def test_retries_count_the_attempts_that_failed(queue, db, held, clock):
    """From 0: a failure and a lost lease count, what was handed back or is under way does not."""
    job = queue.enqueue("k", max_attempts=9)
    counted = [task(db, job)["retries"]]

    def note():
        counted.append(task(db, job)["retries"])

    running = held()
    note()
    queue.fail(running, "no luck")
    note()
    queue.release(held())
    note()
    held()
    clock.advance(HOUR)
    queue.reclaim()  # the lease has run out
    note()
    held()
    queue.unlock(job, force=True)
    note()
    queue.complete(held())
    note()
    queue.retry(job)
    note()

    assert counted == [0, 0, 1, 1, 2, 3, 3, 0]


@pytest.mark.parametrize("failures", [0, 1, 2])
@pytest.mark.parametrize(
    ("last", "state", "more"),
    [
        ("fail", "FAILED", 1),
        ("dead", "FAILED", 1),
        ("block", "BLOCKED", 0),
        ("cancel", "CANCELLED", 0),
        ("cancel_lost", "CANCELLED", 1),
        ("cancel_queued", "CANCELLED", 0),
        ("release_cancel", "CANCELLED", 0),
    ],
)
def test_retries_of_a_task_that_ended(queue, db, held, clock, failures, last, state, more):
    """However it ended: only an attempt that failed or lost its lease is one more."""
    job = queue.enqueue("k", max_attempts=failures + 1 if last == "dead" else 9)
    for _ in range(failures):
        queue.fail(held(), "no luck")
    if last in ("fail", "dead", "block"):
        queue.fail(held(), "no luck", outcome="retry" if last == "dead" else last)
    elif last == "cancel":
        running = held()
        queue.cancel(job)
        queue.fail(running, "stopped")
    elif last == "cancel_lost":
        held()
        queue.cancel(job)
        clock.advance(HOUR)
        queue.reclaim()
    else:
        if last == "release_cancel":
            queue.release(held())
        queue.cancel(job)

    assert (task(db, job)["state"], task(db, job)["retries"]) == (state, failures + more)


def test_events_are_those_of_the_history_in_other_words(queue, db, clock):
    """One table has both renderings: each event once, at its time, by its worker."""
    queue.enqueue("k", agent="claude", key="spec:write")
    other = queue.enqueue("k")
    [job] = queue.claim("claude-1", agents=["claude"], lease=10 * MINUTE, start=True)
    clock.advance(MINUTE)
    queue.append_event(job, "progress", "half way", data={"percent": 50})
    queue.put_artifact(job, "a.txt", b"a")
    queue.complete(job, {"status": "ok", "note": "noop executed"})

    events = rows(db, "select * from moonmind_queue.agentmux_event order by pos")
    history = rows(db, "select * from moonmind_queue.job_history order by pos")

    assert [e["type"] for e in events if e["job_id"] == job.id] == [
        *("TASK_CREATED", "TASK_CLAIMED", "TASK_STARTED"),
        *("TASK_PROGRESS", "TASK_PROGRESS", "TASK_COMPLETED"),
    ]
    assert [e["task_id"] for e in events if e["job_id"] == other] == [str(other)]
    for shown, told in zip(events, history, strict=True):
        assert shown["type"] == EVENTS.get(told["type"], "TASK_PROGRESS")
        assert shown["event"] == told["type"]
        assert (shown["ts"], shown["agent"], shown["worker_id"]) == (
            told["at"], told["agent"], told["worker"],
        )  # fmt: skip
        assert (shown["job_id"], shown["seq"]) == (told["job_id"], told["seq"])
        assert shown["task_id"] == (told["key"] or str(told["job_id"]))
    payloads = {e["event"]: e["payload"] for e in events}
    assert payloads["created"] == {}
    assert payloads["claimed"].keys() == {"attempt", "lease_until"}
    assert payloads["progress"] == {"percent": 50, "message": "half way"}
    assert payloads["completed"] == {"status": "ok", "note": "noop executed"}


@pytest.mark.parametrize(
    ("message", "data", "payload"),
    [
        ("", None, {}),
        ("m", None, {"message": "m"}),
        ("", {"a": None}, {"a": None}),
        ("m", {"message": "x", "b": 1}, {"message": "m", "b": 1}),
        ("m", [1, 2], {"data": [1, 2], "message": "m"}),
        ("", "text", {"data": "text"}),
    ],
)
def test_a_payload_is_an_object_of_data_and_message(queue, db, message, data, payload):
    """Data that is no object has a member of its own; the event's message wins over one in it."""
    queue.enqueue("k")
    [job] = queue.claim("w")
    db.execute(
        "select moonmind_queue.append_event(%s, %s, 'progress', %s, p_data => %s::jsonb)",
        [job.id, job.token, message, None if data is None else json.dumps(data)],
    )

    [event] = rows(
        db,
        "select payload from moonmind_queue.agentmux_event"
        " where job_id = %s and event = 'progress'",
        job.id,
    )

    assert event["payload"] == payload
