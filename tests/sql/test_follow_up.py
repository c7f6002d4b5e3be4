"""on_success and on_failure: what a job lists is enqueued with its end, once, whoever ends it."""

from datetime import timedelta

import pytest
from psycopg.types.json import Jsonb

from moonmind_queue import InvalidArgument, InvalidPayload, NotAllowed, Queue
from moonmind_queue._ticker import tick

MINUTE = timedelta(minutes=1)


@pytest.fixture
def followers(queue):
    """The jobs that came from a job: their ids, lowest first."""
    return lambda job: [
        row["job_id"]
        for row in queue.select(
            "select job_id from moonmind_queue.job_origin where from_job_id = %(job)s"
            " order by job_id",
            job=job,
        )
    ]


def run(queue, *, kind="k"):
    """Claim the only job of a kind that is due."""
    [job] = queue.claim("w", kinds=[kind], start=True)
    return job


def both(queue, **options):
    """A job with a follow-up for each event, claimed."""
    queue.enqueue("k", on_success=[{"kind": "good"}], on_failure=[{"kind": "bad"}], **options)
    return run(queue)


# --- when ----------------------------------------------------------------------------------


def test_success_brings_what_was_listed_for_it(queue, followers):
    """The follow-up has all that its list says, and nothing is made before the end."""
    queue.enqueue(
        "k",
        on_success=[
            {
                "kind": "noop",
                "payload": {"seconds": 1},
                "agent": "claude",
                "priority": 5,
                "key": "x",
            }
        ],
        on_failure=[{"kind": "bad"}],
    )
    job = run(queue)
    assert followers(job.id) == []

    queue.complete(job)

    [made] = followers(job.id)
    made = queue.get(made)
    assert (made.kind, made.payload, made.agent, made.priority) == (
        *("noop", {"seconds": 1}, "claude", 5),
    )
    assert (made.key, made.state) == ("x", "queued")


@pytest.mark.parametrize("way", ["fail", "attempts", "lease", "timeout"])
def test_every_failure_for_good_brings_what_was_listed_for_it(queue, clock, followers, way):
    """fail(), used up attempts, a lost lease and a timeout: whatever ends it as failed."""
    job = both(queue, max_attempts=1, timeout=MINUTE)

    if way in ("fail", "attempts"):
        queue.fail(job, "no", outcome="fail" if way == "fail" else "retry")
    else:
        if way == "timeout":
            queue.renew([job], timedelta(hours=1))
        clock.advance(timedelta(hours=1))
        queue.reclaim()

    assert queue.get(job.id).state == ("failed" if way == "fail" else "dead_letter")
    assert [queue.get(made).kind for made in followers(job.id)] == ["bad"]


@pytest.mark.parametrize("way", ["retry", "block", "release", "cancel", "cancelled while it ran"])
def test_what_is_no_end_and_a_cancel_bring_nothing(queue, followers, way):
    """A job that may still run has not failed; who cancels a job wants nothing of it."""
    job = both(queue)

    match way:
        case "retry" | "block":
            queue.fail(job, "no", outcome=way)
        case "release":
            queue.release(job)
        case "cancel":
            queue.release(job)
            queue.cancel(job.id)
        case _:
            queue.cancel(job.id)
            queue.complete(job)

    assert followers(job.id) == []


def test_a_job_that_is_completed_from_psql_has_its_follow_up_too(db, queue, followers):
    """The database does it, not a worker."""
    job = both(queue)

    db.execute("select moonmind_queue.complete(%s, %s)", [job.id, job.token])

    assert [queue.get(made).kind for made in followers(job.id)] == ["good"]


def test_a_worker_that_may_not_enqueue_still_brings_what_follows(db, queue, followers):
    """It is added with the right of whoever added the job."""
    db.execute("create role mq_test_hand login in role moonmind_worker")
    queue.set_allowance("mq_test_hand", max_open=0)
    job = both(queue)
    db.execute("set session authorization mq_test_hand")

    queue.fail(job, "no", outcome="fail")

    db.execute("reset session authorization")
    assert [queue.get(made).kind for made in followers(job.id)] == ["bad"]


def test_many_that_are_completed_together_each_have_theirs(queue, followers):
    """complete_many() brings to every job its own, in the order of its list."""
    first, second, _ = queue.enqueue_many(
        [
            {"kind": "k", "on_success": [{"kind": "a"}, {"kind": "b"}]},
            {"kind": "k", "on_success": [{"kind": "c"}]},
            {"kind": "k"},
        ]
    )

    queue.complete_many([(job, {}) for job in queue.claim("w", limit=3)])

    kinds = {job: [queue.get(made).kind for made in followers(job)] for job in (first, second)}
    assert kinds == {first: ["a", "b"], second: ["c"]}


def test_a_late_worker_brings_nothing(queue, clock, followers, refused):
    """Who has lost the lease ends nothing; who has it now does."""
    late = both(queue, max_attempts=5)
    clock.advance(timedelta(minutes=3))
    queue.reclaim()
    clock.advance(timedelta(minutes=3))
    now = run(queue)

    with refused("MQ001"):
        queue.complete(late)
    assert followers(now.id) == []
    queue.complete(now)

    assert [queue.get(made).kind for made in followers(now.id)] == ["good"]


def test_the_follow_up_exists_exactly_when_the_end_does(session):
    """It is made in the transaction that ends the job, and taken back with it."""
    here = Queue(session())
    here.enqueue("k", on_success=[{"kind": "good"}])
    job = run(here)
    here.connection.commit()

    here.complete(job)
    here.connection.rollback()
    assert here.count_jobs([]) == 1
    here.complete(job)
    here.connection.commit()

    assert here.count_jobs([]) == 2


def test_a_job_that_is_retried_brings_each_event_once(queue, followers):
    """Failed, retried, failed again, retried, succeeded, retried, succeeded: one bad, one good."""
    job = both(queue)
    queue.fail(job, "no", outcome="fail")
    for ending in ("fail", "complete", "complete"):
        queue.retry(job.id)
        again = run(queue)
        queue.fail(again, "no", outcome="fail") if ending == "fail" else queue.complete(again)

    assert [queue.get(made).kind for made in followers(job.id)] == ["bad", "good"]


def test_jobs_that_are_redriven_bring_nothing_new(queue, followers):
    """A redrive is a retry of many."""
    job = both(queue)
    queue.fail(job, "no", outcome="fail")

    queue.redrive()
    queue.fail(run(queue), "no", outcome="fail")

    assert len(followers(job.id)) == 1


def test_a_chain_is_nested(queue, followers):
    """What follows a follow-up stands in its own list, and comes when that one ends."""
    queue.enqueue("k", on_success=[{"kind": "k2", "on_success": [{"kind": "k3"}]}])
    first = run(queue)
    queue.complete(first)
    second = run(queue, kind="k2")
    assert followers(second.id) == []

    queue.complete(second)

    [third] = queue.select(
        "select from_job_id, how, depth, in_words from moonmind_queue.job_origin"
        " where job_id = %(job)s",
        job=run(queue, kind="k3").id,
    )
    assert third == {
        "from_job_id": second.id,
        "how": "success",
        "depth": 2,
        "in_words": f"on success of job {second.id}",
    }


def test_the_same_key_is_the_same_job(queue):
    """A follow-up whose key a job has already is that job, and says so."""
    there = queue.enqueue("other", key="x")
    queue.enqueue("k", on_success=[{"kind": "k", "key": "x"}])
    job = run(queue)

    queue.complete(job)

    [row] = queue.select("select made_job_id from moonmind_queue.job_follow_up")
    assert row["made_job_id"] == there
    assert queue.get(there).kind == "other"


def test_a_second_job_with_the_key_adds_no_list(queue, followers):
    """The same key again changes nothing, whatever it would bring."""
    first, again = queue.enqueue_many(
        [
            {"kind": "k", "key": "x", "on_success": [{"kind": "a"}]},
            {"kind": "k", "key": "x", "on_success": [{"kind": "b"}, {"kind": "c"}]},
        ]
    )
    queue.enqueue("k", key="x", on_success=[{"kind": "d"}])
    queue.complete(run(queue))

    assert first == again
    assert [queue.get(made).kind for made in followers(first)] == ["a"]


def test_the_history_of_a_follow_up_says_where_it_came_from(queue, followers):
    """Its first event names the job and how that ended."""
    job = both(queue)
    queue.fail(job, "no", outcome="fail")

    [made] = followers(job.id)

    assert [(each.type, each.message) for each in queue.history(made)] == [
        ("created", f"on failure of job {job.id}")
    ]


def test_pruning_takes_what_is_noted_of_a_job_with_it(queue, clock, db):
    """No row of a job outlives it; what came from it stays."""
    job = both(queue)
    queue.complete(job)
    queue.complete(run(queue, kind="good"))
    clock.advance(timedelta(days=1))

    assert queue.prune(MINUTE) == 2

    [left] = db.execute(
        "select (select count(*) from moonmind_queue.follow_up)"
        " + (select count(*) from moonmind_queue.origin)"
    ).fetchone()
    assert left == 0


# --- what is refused -----------------------------------------------------------------------


def nested(levels):
    """So many follow-ups, each of the one before."""
    job = {"kind": "k"}
    for _ in range(levels):
        job = {"kind": "k", "on_success": [job]}
    return job


@pytest.mark.parametrize(
    ("listed", "sqlstate", "says"),
    [
        ([{"kind": "x", "colour": 1}], "22023", "on_success 1: unknown name colour"),
        ([{"kind": "x"}, {}], "22023", "on_success 2: .*kind"),
        ([1], "22023", "on_success 1: is not an object"),
        ([{"kind": "x", "on_success": "y"}], "22023", "on_success 1: .*on_success is not an array"),
        ([{"kind": "x", "priority": "high"}], "22P02", "on_success 1: .*integer"),
        ([{"kind": "x", "max_attempts": 0}], "23514", "on_success 1: .*max_attempts"),
        ([{"kind": "x", "after": [1]}], "22023", "cannot have after"),
        ([{"kind": "x", "made_by": 1}], "22023", "cannot have after or made_by"),
        ([{"kind": "x", "on_failure": [{"kind": ""}]}], "23514", "on_failure 1: .*kind"),
        ([{"kind": "x"}] * 101, "22023", "101 jobs; at most 100"),
        ([nested(5)], "22023", "nested more than 5 levels"),
        ({"kind": "x"}, "22023", "on_success is not an array of jobs"),
    ],
)
def test_what_could_not_be_enqueued_later_is_refused_now(
    db, queue, refused, listed, sqlstate, says
):
    """The error names the follow-up by its place, and nothing is written."""
    with refused(sqlstate, says):
        db.execute("select moonmind_queue.enqueue('k', p_on_success => %s::jsonb)", [Jsonb(listed)])

    assert queue.count_jobs([]) == 0


def test_a_hundred_jobs_in_five_levels_are_kept(queue):
    """The bounds are inclusive."""
    queue.enqueue("k", on_success=[nested(4), *[{"kind": "k"}] * 95])

    assert queue.count_jobs([]) == 1


def test_payloads_of_follow_ups_are_checked_where_the_kind_is_installed(queue):
    """On every level, by the executor of the kind."""
    with pytest.raises(InvalidPayload, match="instruction"):
        queue.enqueue(
            "k", on_success=[{"kind": "k", "on_failure": [{"kind": "codex_exec", "payload": {}}]}]
        )


def test_made_by_names_a_job_that_exists(queue, refused):
    """A job that is made in the course of another one counts its generations on."""
    first = queue.enqueue("k")
    second = queue.enqueue("k", made_by=first)
    third = queue.enqueue("k", made_by=second)

    rows = queue.select("select job_id, depth, in_words from moonmind_queue.job_origin order by 1")
    assert [tuple(row.values()) for row in rows] == [
        (second, 1, f"made by job {first}"),
        (third, 2, f"made by job {second}"),
    ]
    with refused("22023", "made_by names job 999999999, which does not exist"):
        queue.enqueue("k", made_by=999999999)


# --- replay --------------------------------------------------------------------------------


def test_a_replay_asks_for_the_same_once_more(queue, clock):
    """Kind, payload and options; no key, dependency, follow-up or end of its own."""
    queue.enqueue(
        "k",
        {"repository": "acme/site", "publish": {"mode": "pr"}, "n": 1},
        agent="claude",
        name="n",
        key="x",
        priority=7,
        max_attempts=9,
        capabilities=["gpu"],
        timeout=MINUTE,
        concurrency_key="c",
        expires_at=clock.now + MINUTE,
        on_success=[{"kind": "k"}],
    )
    [job] = queue.claim("w", capabilities=["gpu"])
    queue.fail(job, "no", outcome="fail")

    again = queue.get(queue.replay(job.id))

    was = queue.get(job.id)
    same = ("kind", "agent", "name", "priority", "max_attempts", "capabilities", "timeout")
    same += ("concurrency_key", "repository")
    assert [getattr(again, each) for each in same] == [getattr(was, each) for each in same]
    assert again.payload == {"repository": "acme/site", "n": 1}
    assert (again.key, again.expires_at, again.state, was.state) == (None, None, "queued", "failed")
    assert queue.select("select job_id from moonmind_queue.job_follow_up") == [{"job_id": job.id}]
    assert queue.history(again.id)[0].message == f"replay of job {job.id}"


def test_a_replay_takes_another_payload_and_agent(queue):
    """What is given replaces what was; a replay is as deep as what it replays."""
    parent = queue.enqueue("k")
    child = queue.enqueue("k", made_by=parent)

    again = queue.get(queue.replay(child, {"a": None}, agent="other"))

    assert (again.payload, again.agent) == ({"a": None}, "other")
    assert queue.select(
        "select from_job_id, how, depth from moonmind_queue.job_origin where job_id = %(id)s",
        id=again.id,
    ) == [{"from_job_id": child, "how": "replay", "depth": 1}]


def test_a_job_that_does_not_exist_cannot_be_replayed(queue, refused):
    """JobNotFound, MQ002."""
    with refused("MQ002", "job 5 does not exist"):
        queue.replay(5)


# --- allowances ----------------------------------------------------------------------------


@pytest.fixture
def limited(db, queue):
    """Bind the login of this session to an allowance."""
    return lambda **given: queue.set_allowance(db.info.user, **given)


@pytest.mark.parametrize(
    ("allowance", "good", "bad", "says"),
    [
        ({"kinds": ["k"]}, {"kind": "k"}, {"kind": "x"}, "kind x"),
        ({"agents": ["a"]}, {"kind": "k", "agent": "a"}, {"kind": "k"}, "agent codex"),
        (
            {"repositories": ["Acme/*"]},
            {"kind": "k", "payload": {"repository": "https://github.com/acme/site"}},
            {"kind": "k", "payload": {"repository": "evil/site"}},
            "repository github.com/evil/site",
        ),
        (
            {"repositories": ["acme/*"]},
            {"kind": "k", "payload": {"repository": "acme/site"}},
            {"kind": "k"},
            "no repository",
        ),
    ],
)
@pytest.mark.parametrize("way", ["enqueue", "enqueue_many", "on_success", "replay"])
def test_what_an_allowance_does_not_admit_is_not_enqueued(
    queue, limited, refused, allowance, good, bad, says, way
):
    """Agent, kind and repository; by whatever call, and as a follow-up too."""
    old = queue.enqueue(**bad)
    limited(**allowance)
    calls = {
        "enqueue": lambda: queue.enqueue(**bad),
        "enqueue_many": lambda: queue.enqueue_many([good, bad]),
        "on_success": lambda: queue.enqueue(**good, on_success=[bad]),
        "replay": lambda: queue.replay(old),
    }

    with refused("MQ004", says):
        calls[way]()

    assert queue.count_jobs([]) == 1
    queue.enqueue(**good)


def test_open_jobs_are_bounded_and_an_end_makes_room(queue, limited, refused):
    """With follow-ups counted from the start, for they cannot be refused later."""
    limited(max_open=2)
    queue.enqueue("k")
    with refused("MQ004", "admits 2 open jobs; .* would have 3"):
        queue.enqueue("k", on_success=[{"kind": "k"}])
    queue.enqueue("k")
    with refused("MQ004", "admits 2 open jobs"):
        queue.enqueue("k")

    queue.cancel(queue.list_jobs()[0].id)

    queue.enqueue("k")


def test_jobs_of_a_day_are_bounded_whether_they_have_ended_or_not(queue, limited, refused, clock):
    """So an agent whose jobs make jobs comes to an end, however quickly these run."""
    limited(max_per_day=2)
    for _ in range(2):
        queue.enqueue("k")
        queue.complete(run(queue))
    with refused("MQ004", "admits 2 jobs within 24 hours"):
        queue.enqueue("k")

    clock.advance(timedelta(days=1))

    queue.enqueue("k")


def test_a_follow_up_is_never_refused_and_counts(queue, limited):
    """It was charged with its job; once it is made it is one of the open jobs."""
    limited(max_open=2, max_per_day=9)
    queue.enqueue("k", on_success=[{"kind": "k"}])
    job = run(queue)
    queue.enqueue("k")

    queue.complete(job)

    [row] = queue.select("select open, within_a_day from moonmind_queue.allowance_overview")
    assert row == {"open": 2, "within_a_day": 3}


@pytest.mark.parametrize("way", ["made_by", "on_success"])
def test_generations_are_bounded(queue, limited, refused, way):
    """A job made by a job made by a job: as many as the allowance admits, follow-ups included."""
    limited(max_depth=1)
    first = queue.enqueue("k")
    second = queue.enqueue("k", made_by=first)

    with refused("MQ004", "admits 1 generations"):
        if way == "made_by":
            queue.enqueue("k", made_by=second)
        else:
            queue.enqueue("k", made_by=first, on_success=[{"kind": "k"}])


def test_calls_of_one_login_count_one_after_the_other(here, session, blocked):
    """Two at once cannot both have the last place."""
    here.set_allowance(here.connection.info.user, max_open=1)
    first = Queue(session())
    first.enqueue("k")
    second = blocked(lambda queue: queue.enqueue("k"))

    first.connection.commit()

    with pytest.raises(NotAllowed, match="admits 1 open jobs"):
        second.result(15)


def test_a_schedule_is_not_charged_to_the_worker_that_enqueues_it(queue, limited, clock):
    """Whoever made the schedule had the right to."""
    queue.add_schedule("s", "* * * * *", {"kind": "k"})
    limited(max_open=0)
    clock.advance(MINUTE)

    tick(queue)

    assert queue.count_jobs([]) == 1


def test_an_allowance_of_nothing_is_lifted(queue, limited):
    """set_allowance without a bound takes it away, and what was counted."""
    limited(max_open=0)
    limited()

    queue.enqueue("k")

    assert queue.select("select role from moonmind_queue.allowance_overview") == []


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"role": "nobody there"}, "there is no role"),
        ({"agents": ["a", None]}, "a null in it"),
        ({"repositories": [""]}, "a repository that names none"),
    ],
)
def test_an_allowance_that_says_nothing_sensible_is_refused(queue, db, given, says):
    """Each fault in words."""
    with pytest.raises(InvalidArgument, match=says):
        queue.set_allowance(**{"role": db.info.user, "max_open": 1, **given})
