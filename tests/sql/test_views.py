"""The views: what people see, in their words and in time."""

from datetime import timedelta

import pytest

from moonmind_queue import JobState

MINUTE = timedelta(minutes=1)
HOUR = timedelta(hours=1)


def rows(db, query, *values):
    """The rows of a query as dictionaries."""
    cursor = db.execute(query, values)
    return [dict(zip((c.name for c in cursor.description), row, strict=True)) for row in cursor]


def reason(db, job):
    """Why a job does not run, or None when it is not in the view."""
    found = rows(db, "select reason from moonmind_queue.blocked_job where id = %s", job)
    return found[0]["reason"] if found else None


def end(queue, job, outcome="fail"):
    """Claim exactly this job and end it badly."""
    held = {held.id: held for held in queue.claim("w", limit=99)}
    queue.fail(held.pop(job), "no luck", outcome=outcome)
    for other in held.values():
        queue.release(other)


def test_every_view_has_a_comment_and_so_has_every_function_and_table(db):
    """psql's \\d+ and \\df+ explain the queue."""
    bare = db.execute(
        """
        select relname from pg_class
        where relnamespace = 'moonmind_queue'::regnamespace and relkind in ('r', 'p', 'v')
          and relname <> 'alembic_version' and obj_description(oid, 'pg_class') is null
        union all
        select proname from pg_proc
        where pronamespace = 'moonmind_queue'::regnamespace
          and proname <> '_now' and obj_description(oid, 'pg_proc') is null"""
    ).fetchall()

    assert bare == []


def test_job_overview_shows_the_lease_and_the_dependencies(queue, db, clock):
    """One row per job, whether it is held or not."""
    need = queue.enqueue("k", capabilities=["GPU"])
    child = queue.enqueue("k", after=[need])
    [held] = queue.claim("w", capabilities=["gpu"], lease=MINUTE)
    queue.cancel(need)

    first, second = rows(db, "select * from moonmind_queue.job_overview order by id")

    assert (first["id"], first["worker"], first["capabilities"]) == (need, "w", ["gpu"])
    assert first["lease_expires_at"] == held.expires_at
    assert first["cancel_requested"] is True
    assert (second["id"], second["after"], second["worker"]) == (child, [need], None)
    assert second["cancel_requested"] is False


def test_job_history_tells_the_story_of_all_jobs(queue, db):
    """Event by event, with what the job is."""
    queue.enqueue("k", agent="claude", name="n", key="x")
    queue.claim("w")

    story = rows(db, "select * from moonmind_queue.job_history order by job_id, seq")

    assert [(e["type"], e["seq"], e["agent"], e["name"], e["key"]) for e in story] == [
        ("created", 1, "claude", "n", "x"),
        ("claimed", 2, "claude", "n", "x"),
    ]


def test_a_cursor_over_the_history_returns_each_event_once(queue):
    """Pages of two, by number: nothing is lost and nothing comes twice."""
    queue.enqueue("k")
    [held] = queue.claim("w")
    for n in range(5):
        queue.append_event(held, "progress", str(n))

    seen, after = [], 0
    while page := queue.history(held.id, after=after, limit=2):
        seen += [event.seq for event in page]
        after = page[-1].seq

    assert seen == list(range(1, 8))


def test_a_job_that_can_run_is_not_blocked(queue, db):
    """Queued, scheduled, leased and final jobs are not in the view."""
    job = queue.enqueue("k")
    queue.enqueue("k", priority=-1)
    [held] = queue.claim("w")
    queue.complete(held)

    assert reason(db, job) is None
    assert rows(db, "select * from moonmind_queue.blocked_job") == []


@pytest.mark.parametrize(
    ("outcome", "state"), [("fail", "failed"), ("block", "blocked"), ("retry", "dead_letter")]
)
def test_a_need_that_will_not_succeed_is_named_with_its_error(queue, db, outcome, state):
    """The reason says which job, how it stands, and why."""
    need = queue.enqueue("k", max_attempts=1)
    child = queue.enqueue("k", after=[need])

    end(queue, need, outcome)

    assert reason(db, child) == f"needs job {need}, which is {state} (no luck)"


def test_the_chain_to_the_cause_is_told(queue, db):
    """Through as many waiting jobs as there are between."""
    a = queue.enqueue("k")
    b = queue.enqueue("k", after=[a])
    c = queue.enqueue("k", after=[b])
    end(queue, a)

    assert reason(db, c) == (
        f"needs job {b}, which is waiting: it needs job {a}, which is failed (no luck)"
    )


def test_a_need_that_cannot_succeed_is_told_before_one_that_may(queue, db):
    """Of several needs the one that a person must look at counts."""
    good, bad = queue.enqueue("k"), queue.enqueue("k")
    child = queue.enqueue("k", after=[good, bad])
    end(queue, bad)

    assert reason(db, child) == f"needs job {bad}, which is failed (no luck)"


def test_a_need_that_is_on_its_way_is_told_as_such(queue, db):
    """Waiting is not yet a reason to worry."""
    need = queue.enqueue("k")
    child = queue.enqueue("k", after=[need])

    assert reason(db, child) == f"needs job {need}, which is queued"


@pytest.mark.parametrize("error", ["which branch?", None])
def test_a_blocked_job_says_what_it_was_blocked_for(queue, db, error):
    """Its error; without one, that it is blocked."""
    queue.enqueue("k")
    [held] = queue.claim("w")
    db.execute("select moonmind_queue.fail(%s, %s, %s, 'block')", [held.id, held.token, error])

    assert reason(db, held.id) == (error or "blocked")


def test_a_wide_and_deep_dag_is_explained_in_time(queue, db):
    """Ten layers of six jobs, each after the whole layer before: ways are not counted out."""
    db.execute("set local statement_timeout = '5s'")
    layers = [[f"{i}/{j}" for j in range(6)] for i in range(10)]
    queue.enqueue_many(
        {"kind": "k", "key": key, "after": layers[i - 1] if i else []}
        for i, layer in enumerate(layers)
        for key in layer
    )

    blocked = rows(db, "select * from moonmind_queue.blocked_job")

    assert len(blocked) == 54
    assert all("which is queued" in row["reason"] for row in blocked)


def test_a_very_long_chain_is_told_as_far_as_it_is_of_use(queue, db):
    """Twenty steps, then the number of needs."""
    queue.enqueue_many(
        {"kind": "k", "key": str(i), "after": [str(i - 1)] if i else []} for i in range(40)
    )

    blocked = rows(db, "select * from moonmind_queue.blocked_job order by id desc")

    assert len(blocked) == 39
    assert blocked[0]["reason"].count("needs job") == 20


def register(queue, worker):
    """Start a worker process, so to speak."""
    return queue.register_worker(
        worker, agents=["codex"], kinds=None, capabilities=["GPU"], slots=2, host="h", pid=7,
        version="1.0",
    )  # fmt: skip


def test_workers_are_live_stale_or_stopped(queue, db, clock):
    """Unseen for more than two minutes is stale; who has said good-bye is stopped."""
    for worker in ("stale", "live", "stopped"):
        process = register(queue, worker)
        if worker == "stopped":
            queue.see_worker(process, stopped=True)
        if worker == "live":
            live = process
    clock.advance(2 * MINUTE)
    at_two_minutes = rows(
        db, "select status from moonmind_queue.worker_overview where worker = 'stale'"
    )
    clock.advance(timedelta(microseconds=1))
    queue.see_worker(live)

    overview = rows(db, "select * from moonmind_queue.worker_overview")

    assert at_two_minutes == [{"status": "live"}]
    assert {row["worker"]: row["status"] for row in overview} == {
        "stale": "stale", "live": "live", "stopped": "stopped",
    }  # fmt: skip


def test_a_worker_that_starts_again_under_its_name_is_told_from_the_one_before(queue, db, clock):
    """The new process is live while the old one goes stale; each lease stays with its token."""
    register(queue, "w")
    queue.enqueue("k")
    [old] = queue.claim("w", lease=HOUR)
    clock.advance(MINUTE)
    new = register(queue, "w")
    queue.enqueue("k")
    [mine] = queue.claim("w", lease=HOUR)
    clock.advance(2 * MINUTE)
    queue.see_worker(new)

    queue.renew([mine], 2 * HOUR)

    status = rows(db, "select status from moonmind_queue.worker_overview order by id")
    assert [row["status"] for row in status] == ["stale", "live"]
    ends = rows(db, "select token, expires_at from moonmind_queue.lease order by job_id")
    assert [row["token"] for row in ends] == [old.token, mine.token]
    assert ends[0]["expires_at"] == old.expires_at
    assert ends[1]["expires_at"] > mine.expires_at


def test_a_worker_is_shown_with_what_it_offers_and_holds(queue, db):
    """Two starts of one name are two rows."""
    register(queue, "w")
    register(queue, "w")
    queue.enqueue("k")
    queue.claim("w")

    overview = rows(db, "select * from moonmind_queue.worker_overview")

    assert len(overview) == 2
    assert (overview[0]["agents"], overview[0]["kinds"]) == (["codex"], None)
    assert (overview[0]["capabilities"], overview[0]["slots"]) == (["gpu"], 2)
    assert (overview[0]["host"], overview[0]["pid"], overview[0]["version"]) == ("h", 7, "1.0")
    assert overview[0]["leases"] == 1


def test_queue_status_counts_and_says_who_waits_longest(queue, db, clock):
    """By agent and state; only what could be claimed is waiting."""
    queue.enqueue("k", agent="claude")
    clock.advance(HOUR)
    queue.enqueue("k", agent="claude")
    queue.enqueue("k", run_at=clock.now + HOUR)
    queue.claim("w", agents=["nobody"])

    status = {
        (row["agent"], row["state"]): row
        for row in rows(db, "select * from moonmind_queue.queue_status")
    }

    assert status["claude", "queued"]["jobs"] == 2
    assert status["claude", "queued"]["longest_wait"] == HOUR
    assert status["claude", "queued"]["oldest_run_at"] == clock.now - HOUR
    assert status["codex", "queued"]["longest_wait"] is None


def test_get_reads_one_job_and_says_when_there_is_none(queue, clock):
    """Job is the row with its state as a word of ours."""
    job = queue.enqueue("k", {"a": [1, None, "ü"]}, name="n", key="x", priority=3)

    found = queue.get(job)

    assert found.state is JobState.QUEUED
    assert not found.state.final
    assert (found.payload, found.name, found.key) == ({"a": [1, None, "ü"]}, "n", "x")
    assert (found.priority, found.created_at) == (3, clock.now)
