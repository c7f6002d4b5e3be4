"""Speed that is a promise: a crowd costs a claim nothing, and hot updates stay in place.

``make prove`` makes the crowd twenty times as large; the bounds stay the same.
"""

import os
from datetime import timedelta

import psycopg
import pytest

from moonmind_queue import Queue

MINUTE = timedelta(minutes=1)
CROWD = 1_000_000 if os.environ.get("MOONMIND_PROVE") else 50_000
FIRST = 5 * CROWD + 1  # the first of the jobs that are ready for codex
# What a producer would do in a hundred calls, done by the owner of the tables in one.
FILL = """
insert into moonmind_queue.lane (agent, kind, capabilities, repository, concurrency_key)
values ('codex', 'k', '{}', '', ''), ('claude', 'k', '{}', '', ''),
       ('codex', 'k', '{gpu}', '', ''), ('idle', 'k', '{}', '', '');
insert into moonmind_queue.job
    (agent, kind, state, run_at, created_at, updated_at, lane_id, unmet, event_seq, priority,
     finished_at, rank)
select made.*, moonmind_queue._rank(made.priority, made.run_at) from (
select case when crowd = 'foreign' then 'claude' when idle then 'idle' else 'codex' end as agent,
       'k' as kind,
       case crowd when 'waiting' then 'waiting' when 'finished' then 'succeeded' else 'queued' end
           as state,
       now() + case crowd when 'scheduled' then interval '1 day' else '-1 hour' end as run_at,
       now() as created_at, now() as updated_at,
       case when idle then 4 when crowd = 'foreign' then 2
            when crowd = 'incapable' then 3 else 1 end as lane_id,
       (crowd = 'waiting')::integer as unmet, 1 as event_seq,
       case crowd when 'ready' then 0 else 9 end as priority,
       case crowd when 'finished' then now() end as finished_at
from unnest('{finished,waiting,scheduled,foreign,incapable,ready}'::text[]) as crowd,
     generate_series(1, %(crowd)s) as n,
     lateral (select crowd in ('finished', 'waiting', 'scheduled') and n %% 2 = 0) as half (idle)
) as made;
insert into moonmind_queue.ready (lane_id, rank, job_id)
select lane_id, rank, id from moonmind_queue.job
where state = 'queued' and run_at <= now();
insert into moonmind_queue.scheduled (lane_id, run_at, rank, job_id)
select lane_id, run_at, rank, id from moonmind_queue.job
where state = 'queued' and run_at > now();
insert into moonmind_queue.event (job_id, seq, at, type)
select id, 1, now() - id % 4 * interval '30 days', 'created' from moonmind_queue.job;
"""


@pytest.fixture(scope="module")
def crowded(create_database, template):
    """A queue with a crowd of each sort that a claim for codex must pass by, and one to claim."""
    dsn = create_database(template)
    with psycopg.connect(dsn, autocommit=True) as connection:
        for days in (90, 60, 30, 0):  # a partition for each month of the history
            connection.execute(
                "update moonmind_queue_test.clock set shift = %s", [timedelta(days=-days)]
            )
            connection.execute("select moonmind_queue.maintain()")
        with connection.transaction():
            for statement in FILL.split(";\n"):
                connection.execute(statement, {"crowd": CROWD} if "%(" in statement else None)
        connection.execute("vacuum analyze")
    return dsn


@pytest.fixture
def crowd(crowded):
    """A session on the crowded queue; its work is rolled back."""
    with psycopg.connect(crowded) as connection:
        yield connection
        connection.rollback()


def pages(connection, statement, *values):
    """How many pages a statement, with all that its functions do, looks at; warm."""
    connection.execute("savepoint before")
    connection.execute(statement, values)
    connection.execute("rollback to before")
    [plan] = connection.execute(
        f"explain (analyze, buffers, timing off, format json) {statement}", values
    ).fetchone()
    return plan[0]["Plan"]["Shared Hit Blocks"] + plan[0]["Plan"]["Shared Read Blocks"]


@pytest.mark.parametrize(("limit", "bound"), [(1, 250), (20, 1200)])
def test_a_claim_looks_at_few_pages(crowd, limit, bound):
    """With five crowds in the way a claim costs pages per job that it takes, and no scan."""
    touched = pages(
        crowd,
        "select * from moonmind_queue.claim('w', '{codex}', p_limit => %s)",
        limit,
    )

    assert touched < bound


@pytest.mark.parametrize("agents", ["{idle}", "{nobody}"])
def test_a_claim_that_finds_nothing_looks_at_few_pages(crowd, agents):
    """Waiting, scheduled, finished and foreign jobs cost nothing when there is nothing to take."""
    touched = pages(crowd, "select * from moonmind_queue.claim('w', %s)", agents)

    assert touched < 60


def test_plans_made_while_the_queue_was_empty_stay_good(fresh):
    """A session that began on an empty queue looks at few pages when it is full, unanalyzed."""
    with psycopg.connect(fresh) as connection:
        queue = Queue(connection)
        for _ in range(10):  # plans are cached by then
            queue.enqueue("k")
            queue.complete_many([(queue.claim("w")[0], {})])
        for _ in range(10):
            queue.enqueue_many([{"kind": "k"}] * 1000)

        claim = pages(connection, "select * from moonmind_queue.claim('w')")
        [job] = queue.claim("w")
        complete = pages(connection, "select moonmind_queue.complete(%s, %s)", job.id, job.token)

    assert max(claim, complete) < 160


@pytest.mark.parametrize(
    ("statement", "bound"),
    [
        ("select moonmind_queue.next_due('{codex}')", 60),
        ("select * from moonmind_queue.reclaim()", 60),
        ("select moonmind_queue.enqueue('k')", 150),
        (f"select moonmind_queue.cancel({FIRST})", 150),
        (f"select * from moonmind_queue.job_overview where id = {FIRST}", 60),
        (f"select * from moonmind_queue.job_history where job_id = {FIRST}", 60),
        (f"select * from moonmind_queue.agentmux_task where job_id = {FIRST}", 60),
        (f"select * from moonmind_queue.agentmux_event where job_id = {FIRST}", 60),
        ("select * from moonmind_queue.agentmux_event order by pos desc limit 10", 150),
        (f"select moonmind_queue._lost_leases({FIRST})", 60),
        (f"select * from moonmind_queue.read_events('{{[{6 * CROWD + 1},)}} {6 * CROWD} ')", 60),
        (f"select * from moonmind_queue.read_events('{{[{FIRST},)}} {6 * CROWD} ', 20)", 300),
        ("select moonmind_queue.event_cursor(p_last => 50)", 150),
        ("select * from moonmind_queue.maintain()", 400),
    ],
)
def test_nothing_that_happens_often_scans(crowd, statement, bound):
    """What workers and producers call all day costs the same in a crowd."""
    assert pages(crowd, statement) < bound


def test_nobody_looks_for_old_jobs_where_the_first_is_young(fresh):
    """What vacuum has not seen yet is in no range of the index on the time of creation."""
    with psycopg.connect(fresh) as connection:
        connection.execute("select moonmind_queue.maintain()")  # makes the months
        for _ in range(20):
            Queue(connection).enqueue_many([{"kind": "k"}] * 1000)

        assert pages(connection, "select * from moonmind_queue.maintain()") < 400


@pytest.mark.parametrize("lost", [1, 20])
def test_leases_are_renewed_and_taken_back_by_their_keys(crowd, lost):
    """However many jobs there are, what renew and reclaim look at grows with the leases alone."""
    queue = Queue(crowd)
    held = queue.claim("w", limit=lost, lease=MINUTE)
    ids, tokens = [job.id for job in held], [job.token for job in held]

    renew = "select * from moonmind_queue.renew(%s::bigint[], %s::bigint[], '120 s')"
    renewed = pages(crowd, renew, ids, tokens)
    crowd.execute("update moonmind_queue_test.clock set shift = shift + interval '2 minutes'")
    taken_back = pages(crowd, "select * from moonmind_queue.reclaim()")

    assert renewed < 30 * lost
    assert taken_back < 150 * lost


def test_a_cascade_goes_from_job_to_job(fresh):
    """What a failure takes along costs pages per job of it, also where statistics know none."""
    touched = []
    with psycopg.connect(fresh) as connection:
        queue = Queue(connection)

        def chain(length):
            first = queue.enqueue("k")
            queue.enqueue_many(
                {
                    "kind": "k",
                    "key": f"{first} {place}",
                    "after": [f"{first} {place - 1}" if place else first],
                    "on_dependency_failure": "cancel",
                }
                for place in range(length)
            )
            return first

        queue.cancel(chain(5000))
        connection.execute("analyze moonmind_queue.job, moonmind_queue.dependency")
        for length in (250, 1000):
            touched.append(pages(connection, "select moonmind_queue.cancel(%s)", chain(length)))

    assert touched[1] < 5 * touched[0] and touched[1] < 90 * 1000


@pytest.mark.parametrize("call", ["start", "complete", "fail", "release", "append_event"])
def test_what_a_holder_does_looks_at_few_pages(crowd, call):
    """Whatever carries a token finds its job and its lease by their keys."""
    [job] = Queue(crowd).claim("w")
    more = {"append_event": ", 'progress'", "fail": ", 'no'"}.get(call, "")

    touched = pages(crowd, f"select moonmind_queue.{call}(%s, %s{more})", job.id, job.token)

    assert touched < 200


def test_what_forbids_scans_forbids_compilation(db):
    """Before PostgreSQL 18 a scan of lanes, which nothing can avoid, would have JIT called in."""
    pinned = db.execute(
        "select proname, 'jit=off' = any (proconfig) from pg_proc"
        " where pronamespace = 'moonmind_queue'::regnamespace"
        " and 'enable_seqscan=off' = any (proconfig)"
    ).fetchall()

    assert len(pinned) > 20
    assert [name for name, compiles_never in pinned if not compiles_never] == []


@pytest.fixture
def updates(session, until):
    """How many updates a table has seen, once that many have been counted: (in all, in place)."""
    watch = session(autocommit=True)

    def count(table, expected):
        def row():
            found = watch.execute(
                "select n_tup_upd, n_tup_hot_upd from pg_stat_user_tables"
                " where schemaname = 'moonmind_queue' and relname = %s",
                [table],
            ).fetchone()
            return found if found[0] >= expected else None

        return until(row)

    return count


def test_claims_and_completions_update_jobs_in_place(here, session, updates):
    """Where a page has room no index of job is touched."""
    here.enqueue_many([{"kind": "k"}] * 20)
    with session(autocommit=True) as connection:
        queue = Queue(connection)
        while held := queue.claim("w", start=True):
            queue.complete(held[0])

    assert updates("job", 40) == (40, 40)


def test_every_other_step_updates_jobs_in_place(here, session, updates):
    """Start, progress, failure, release, cancel and retry touch no index of job either."""
    job = here.enqueue("k", max_attempts=5)
    with session(autocommit=True) as connection:
        queue = Queue(connection)
        [held] = queue.claim("w")
        queue.start(held)
        queue.append_event(held, "progress")
        queue.fail(held, "no", retry_in=timedelta(0))
        queue.release(queue.claim("w")[0])
        queue.cancel(job)
        queue.retry(job)

    seen, in_place = updates("job", 15)
    assert in_place == seen


def test_renewals_update_leases_in_place(here, session, updates):
    """Renewals, hundreds of times, stay in their page; a snapshot elsewhere may hold up a few."""
    here.enqueue_many([{"kind": "k"}] * 20)
    held = here.claim("w", limit=20)
    with session(autocommit=True) as connection:
        for _ in range(30):
            Queue(connection).renew(held, MINUTE)

    renewed, in_place = updates("lease", 600)
    assert renewed == 600
    assert in_place >= 570


# A table that seems to hold almost nothing is where a plan would like to begin.
SEEMS_SMALL = "update pg_class set reltuples = 1, relpages = 1000000 where oid = %s::regclass"
SEEMS_LARGE = "update pg_class set reltuples = 1e9, relpages = 1 where oid = any (%s::regclass[])"
OTHERS = [
    f"moonmind_queue.{name}" for name in ("lease", "ready", "scheduled", "expiry", "dependency")
]


@pytest.mark.parametrize(
    "statement",
    [
        "select * from moonmind_queue.reclaim()",
        "select * from moonmind_queue.next_due('{nobody}')",
        "select * from moonmind_queue.peek('{codex}')",
        "select * from moonmind_queue.claim('w', '{codex}')",
        "select * from moonmind_queue.renew(array[%(id)s], array[%(token)s], '120 s')",
        "select moonmind_queue.complete(%(id)s, %(token)s)",
        "select moonmind_queue.fail(%(id)s, %(token)s, 'no')",
        "select moonmind_queue.release(%(id)s, %(token)s)",
        "select moonmind_queue.append_event(%(id)s, %(token)s, 'progress')",
        "select moonmind_queue.cancel(%(id)s)",
        "select moonmind_queue.enqueue('k', p_after => array[%(id)s])",
        "select * from moonmind_queue.read_events(moonmind_queue.event_cursor(p_last => 5))",
        "select * from moonmind_queue.job_overview where id = %(id)s",
        "select * from moonmind_queue.job_history where job_id = %(id)s",
    ],
)
def test_no_statistics_lead_to_a_look_at_all_jobs(crowd, statement):
    """As while another session keeps dead rows: who looks at a few leases reads no other job."""
    queue = Queue(crowd)
    lost, due, held = queue.claim("w", agents=["codex"], limit=3)
    crowd.execute(
        "update moonmind_queue.lease set expires_at = moonmind_queue._now() where job_id = %s",
        [lost.id],
    )
    crowd.execute("insert into moonmind_queue.expiry values (moonmind_queue._now(), %s)", [due.id])
    queue.set_limit("agent", "codex", 200)
    crowd.execute(SEEMS_SMALL, ["moonmind_queue.job"])
    crowd.execute(SEEMS_LARGE, [OTHERS])

    assert pages(crowd, statement % {"id": held.id, "token": held.token}) < 500
