"""Seeding: the tasks of a DAG become what a file says, all or nothing, and states stay."""

import json
from datetime import timedelta

import pytest

from moonmind_queue import InvalidArgument, Queue

HOUR = timedelta(hours=1)


def task(id_, *deps, agent="codex", **members):
    """A task as a file has it."""
    return {"id": id_, "agent": agent, "deps": list(deps), **members}


def outcomes(queue, *tasks, **options):
    """Seed, and give what became of each task."""
    return {each.task: each.outcome for each in queue.seed_dag(tasks, **options)}


def shown(queue, name):
    """A task as Agentmux shows it."""
    [row] = queue.select(
        "select * from moonmind_queue.agentmux_task where id = %(name)s", name=name
    )
    return row


def words(queue, name):
    """What happened to a task, in our words."""
    return [event.type for event in queue.history(shown(queue, name)["job_id"])]


def contradictions(queue):
    """What the queue knows of rows that contradict each other."""
    return queue.select("select * from moonmind_queue.queue_fault")


def test_tasks_become_jobs_under_their_ids(queue):
    """The kind is the payload's, noop without one; what else a task says is the job's."""
    made = outcomes(
        queue,
        task("spec:write", agent="claude", name="Write it", payload={"goal": "x"}),
        task("impl:api", "spec:write", payload={"kind": "shell", "cmd": ["ls"]}, priority=3,
             max_attempts=5, timeout=90, capabilities=["GPU"]),
    )  # fmt: skip

    assert made == {"spec:write": "created", "impl:api": "created"}
    first, second = queue.list_jobs()[::-1]
    job = queue.get(second.id)
    assert (first.key, first.kind, first.agent) == ("spec:write", "noop", "claude")
    assert queue.get(first.id).payload == {"goal": "x"}
    assert (job.kind, job.payload, job.priority) == ("shell", {"cmd": ["ls"]}, 3)
    assert (job.max_attempts, job.timeout) == (5, timedelta(seconds=90))
    assert (job.capabilities, job.after, job.state) == (["gpu"], [first.id], "waiting")
    assert shown(queue, "impl:api")["payload"] == {"kind": "shell", "cmd": ["ls"]}
    assert shown(queue, "impl:api")["deps"] == ["spec:write"]


def test_each_new_task_is_created_once_and_the_event_says_from_where(queue):
    """By agentmux-cli, with name, agent, deps and source; unchanged tasks get no event."""
    tasks = [task("a", name="A"), task("b", "a", agent="claude")]
    queue.seed_dag(tasks, "agentmux/dag.yaml")
    queue.seed_dag(tasks, "agentmux/dag.yaml")

    events = queue.select(
        "select agent, type, task_id, payload from moonmind_queue.agentmux_event order by pos"
    )

    assert events == [
        {"agent": "agentmux-cli", "type": "TASK_CREATED", "task_id": name, "payload": {
            "name": title, "agent": agent, "deps": deps, "source": "agentmux/dag.yaml"}}
        for name, title, agent, deps in (("a", "A", "codex", []), ("b", None, "claude", ["a"]))
    ]  # fmt: skip


def test_the_order_of_a_file_does_not_matter(queue):
    """A task may stand before what it needs."""
    queue.seed_dag([task("last", "middle"), task("middle", "first"), task("first")])

    assert [job.key for job in queue.claim("w", limit=9)] == ["first"]
    assert shown(queue, "last")["deps"] == ["middle"]


def test_seeding_again_changes_nothing(queue, picture):
    """Twice is once: no row but the time of the seed, no event."""
    tasks = [task("a"), task("b", "a", payload={"seconds": 0.5}, timeout=9), task("c", "a", "b")]
    queue.seed_dag(tasks)
    before = picture(queue.connection)

    assert set(outcomes(queue, *tasks).values()) == {"unchanged"}

    after = picture(queue.connection)
    assert {name for name in after if after[name] != before[name]} <= {"dag"}


@pytest.mark.parametrize(
    ("change", "changed"),
    [
        ({"name": "New"}, "name"),
        ({"agent": "claude"}, "agent"),
        ({"payload": {"kind": "shell", "cmd": "ls"}}, "kind"),
        ({"payload": {"goal": "y"}}, "payload"),
        ({"priority": 7}, "priority"),
        ({"max_attempts": 9}, "max_attempts"),
        ({"timeout": 5}, "timeout"),
        ({"capabilities": ["gpu"]}, "capabilities"),
        ({"deps": ["b"]}, "deps"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_is_different_is_updated_and_told(queue, change, changed):
    """One event says what; a task that could be claimed is claimable as what it is now."""
    queue.seed_dag([task("a", payload={"goal": "x"}), task("b")])

    made = outcomes(queue, task("a", **{"payload": {"goal": "x"}, **change}), task("b"))

    assert made == {"a": "updated", "b": "unchanged"}
    last = queue.history(shown(queue, "a")["job_id"])[-1]
    assert last.type == "updated"
    assert changed in last.data["changed"]
    found = queue.claim("w", limit=9, capabilities=["gpu"], agents=[change.get("agent", "codex")])
    assert ("a" in [job.key for job in found]) == (changed != "deps")
    assert not contradictions(queue)


def test_new_needs_make_a_task_wait_and_lost_ones_free_it(queue):
    """Also on a task that comes later in the file, and so has the higher number."""
    queue.seed_dag([task("a"), task("b", "a")])
    queue.seed_dag([task("a", "new"), task("b"), task("new")])

    assert [job.key for job in queue.claim("w", limit=9)] == ["b", "new"]
    assert shown(queue, "a")["deps"] == ["new"]
    assert not contradictions(queue)


def test_a_task_that_needs_a_later_one_starts_when_that_is_done(queue):
    """The release of dependents does not mind the order of ids."""
    queue.seed_dag([task("a"), task("b")])
    queue.seed_dag([task("a", "new"), task("b", "a"), task("new", "z"), task("z")])
    order = []
    while jobs := queue.claim("w"):
        order.append(jobs[0].key)
        queue.complete(jobs[0])

    assert order == ["z", "new", "a", "b"]
    assert not contradictions(queue)


def test_what_is_done_stays_done(queue):
    """A changed payload does not run a finished task again; the new one is there for a retry."""
    queue.seed_dag([task("a")])
    queue.complete(queue.claim("w")[0])

    assert outcomes(queue, task("a", payload={"goal": "y"})) == {"a": "updated"}

    assert shown(queue, "a")["state"] == "DONE"
    assert queue.claim("w") == []
    queue.retry(shown(queue, "a")["job_id"])
    assert queue.claim("w")[0].payload == {"goal": "y"}


def test_an_attempt_under_way_keeps_what_it_was_given(queue):
    """It ends as if nothing had happened, and the next one, if there is one, gets the new."""
    queue.seed_dag([task("a", payload={"goal": "x"})])
    [held] = queue.claim("w", start=True)

    queue.seed_dag([task("a", "b", agent="claude", payload={"goal": "y"}), task("b")])

    assert (held.payload, shown(queue, "a")["state"]) == ({"goal": "x"}, "RUNNING")
    queue.release(held)
    assert shown(queue, "a")["state"] == "READY"
    assert [job.key for job in queue.claim("w", limit=9)] == ["b"]
    assert not contradictions(queue)


def test_a_task_that_is_gone_is_blocked_and_comes_back(queue, clock):
    """Never deleted; its dependents wait, and the reason is told."""
    tasks = [task("a"), task("b", "a"), task("c")]
    queue.seed_dag(tasks)
    made = outcomes(queue, task("c"))

    assert made == {"a": "blocked", "b": "blocked", "c": "unchanged"}
    assert shown(queue, "a")["state"] == "BLOCKED"
    assert queue.get(shown(queue, "a")["job_id"]).error == "not in DAG agentmux any more"
    assert [job.key for job in queue.claim("w", limit=9)] == ["c"]
    assert words(queue, "a") == ["created", "removed"]
    assert outcomes(queue, task("c")) == {"c": "unchanged"}

    assert outcomes(queue, *tasks) == {"a": "restored", "b": "restored", "c": "unchanged"}
    assert [job.key for job in queue.claim("w", limit=9)] == ["a"]
    assert not contradictions(queue)


def test_a_task_that_is_gone_while_it_is_held_or_has_ended_is_left_alone(queue):
    """What runs may end, and what is done stays done."""
    queue.seed_dag([task("done"), task("held")])
    queue.complete(queue.claim("w")[0])
    [held] = queue.claim("w", start=True)

    assert outcomes(queue, task("new")) == {"new": "created"}

    assert [shown(queue, name)["state"] for name in ("done", "held")] == ["DONE", "RUNNING"]
    queue.complete(held)


def test_a_task_blocked_for_another_reason_is_not_restored(queue):
    """Who blocked it for a reason has not been answered by a file."""
    queue.seed_dag([task("a"), task("b")])
    queue.fail(queue.claim("w")[0], "needs a password", outcome="block")
    queue.seed_dag([task("b")])

    assert outcomes(queue, task("a"), task("b")) == {"a": "unchanged", "b": "unchanged"}
    assert shown(queue, "a")["state"] == "BLOCKED"


def test_two_dags_leave_each_other_alone(queue):
    """What is not in a file of one DAG is not missed by the other."""
    queue.seed_dag([task("a")], dag="one")
    queue.enqueue("k", key="somebody's")
    made = outcomes(queue, task("b"), dag="two")

    assert made == {"b": "created"}
    assert shown(queue, "a")["state"] == "READY"
    assert shown(queue, "somebody's")["state"] == "READY"
    dags = queue.select(
        "select name, tasks, gone, epoch from moonmind_queue.agentmux_dag order by 1"
    )
    assert dags == [{"name": name, "tasks": 1, "gone": 0, "epoch": 1} for name in ("one", "two")]


def test_a_job_that_has_the_id_of_a_task_is_that_task(queue):
    """Whoever enqueued it before: it belongs to the DAG from now on."""
    job = queue.enqueue("k", {"x": 1}, key="a")

    assert outcomes(queue, task("a", payload={"kind": "k", "x": 1})) == {"a": "unchanged"}
    assert outcomes(queue, task("b")) == {"b": "created", "a": "blocked"}
    assert queue.get(job).state == "blocked"


@pytest.mark.parametrize(
    ("tasks", "fault"),
    [
        ({"id": "a"}, "a DAG needs a JSON array of tasks"),
        ([1], "task 1: is not an object"),
        ([task("a"), {"agent": "codex"}], "task 2: needs an id"),
        ([task("")], "task 1 .*: needs an id"),
        ([task("x" * 501)], "task 1 .*: needs an id of 1 to 500 characters"),
        ([{"id": 7, "agent": "codex"}], "task 1 .*needs an id"),
        ([{"id": "a"}], r"task 1 \(a\): needs an agent"),
        ([task("a"), task("b"), task("a")], r"task 3 \(a\): is there twice"),
        ([task("a") | {"deps": "b"}], r"task 1 \(a\): deps is not an array"),
        ([task("a", 7)], r"task 1 \(a\): deps has something that is not an id: 7"),
        ([task("a"), task("b", "nobody")], r"task 2 \(b\): depends on unknown task nobody"),
        ([task("a", "a")], "circle: a -> a"),
        ([task("a", "c"), task("b", "a"), task("c", "b")], "circle: a -> c -> b -> a"),
        ([task("a", payload=[])], r"task 1 \(a\): payload is not an object"),
        ([task("a", payload={"kind": 7})], r"task 1 \(a\): payload.kind is not a string"),
        ([task("a", agnt="x")], r"task 1 \(a\): unknown name agnt; there are id, name, agent"),
        ([task("a", agent=" ")], "lane_agent_is_given"),
        ([task("a", max_attempts=0)], "max_attempts"),
        ([task("a", timeout="soon")], "soon"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_cannot_be_read_is_refused_as_a_whole(queue, db, picture, tasks, fault):
    """With the place and the id of the task at fault; nothing is written."""
    queue.seed_dag([task("before")])
    before = picture(db)

    with pytest.raises(InvalidArgument, match=fault), db.transaction():
        db.execute("select 1")
        Queue(db).seed_dag(tasks) if isinstance(tasks, list) else _seed_raw(db, tasks)

    assert picture(db) == before


def test_tasks_that_change_into_a_circle_are_refused(queue, db, picture):
    """Each was fine by itself, and none is new."""
    queue.seed_dag([task("a"), task("b", "a"), task("c", "b")])
    before = picture(db)

    with pytest.raises(InvalidArgument, match="circle: a -> c -> b -> a"), db.transaction():
        queue.seed_dag([task("a", "c"), task("b", "a"), task("c", "b")])

    assert picture(db) == before


def _seed_raw(db, tasks):
    from moonmind_queue.errors import from_postgres

    try:
        db.execute("select moonmind_queue.seed_dag(%s)", [json.dumps(tasks)])
    except Exception as error:
        raise from_postgres(error) from error


def test_deps_given_twice_are_one(queue):
    """And so a task is free when that one is done."""
    queue.seed_dag([task("a"), task("b", "a", "a")])
    queue.complete(queue.claim("w")[0])

    assert [job.key for job in queue.claim("w")] == ["b"]


def test_tasks_of_a_dag_are_not_pruned(queue, clock):
    """Seeding would run them again; those that are gone go like any other job."""
    queue.seed_dag([task("kept"), task("gone")])
    for job in queue.claim("w", limit=2):
        queue.complete(job)
    queue.enqueue("k", key="plain")
    queue.complete(queue.claim("w")[0])
    clock.advance(100 * 24 * HOUR)

    assert queue.prune(HOUR) == 1
    assert [job.key for job in queue.list_jobs()] == ["gone", "kept"]


def test_two_seeds_at_once_come_one_after_the_other(here, session, blocked):
    """The second waits for the first, and says what it has found then."""
    first = Queue(session())
    first.seed_dag([task("a")])
    second = blocked(lambda queue: queue.seed_dag([task("a"), task("b")]))
    first.connection.commit()

    assert {each.task: each.outcome for each in second.result()} == {
        "a": "unchanged", "b": "created",
    }  # fmt: skip
