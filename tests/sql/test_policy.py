"""What a policy admits, held against real logins in claim and in every call of a lease holder."""

import re
import secrets
from datetime import timedelta
from pathlib import Path

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

from moonmind_queue import InvalidArgument, NotAllowed, Queue, Tokens
from moonmind_queue.roles import create_role, revoke_role

ROOT = Path(__file__).parents[2]
MINUTE = timedelta(minutes=1)
PROCESS = {
    "agents": None,
    "kinds": None,
    "capabilities": [],
    "slots": 1,
    "host": "h",
    "pid": 1,
    "version": "1",
}


@pytest.fixture
def owner(session):
    """The queue's owner, whose every call commits."""
    return Queue(session(autocommit=True))


@pytest.fixture
def role(owner, server):
    """Make a worker's login under a policy: (name, DSN with its password). All are dropped."""
    made = []

    def make(**policy):
        name = f"mq_test_{secrets.token_hex(6)}"
        made.append(name)
        return name, create_role(owner.connection, "worker", name, **policy).database_url

    yield make
    with psycopg.connect(server, autocommit=True) as admin:
        for name in made:
            admin.execute(f"drop role if exists {name}")


@pytest.fixture
def login(session):
    """Log in over the network, with the password, as a worker does."""
    return lambda made: Queue(session(autocommit=True, dsn=made[1]))


def ids(claimed):
    """The ids of claimed jobs, in order."""
    return sorted(job.id for job in claimed)


# --- what is assigned --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("policy", "admitted", "other"),
    [
        ({"agents": ["codex"]}, {"agent": "codex"}, {"agent": "claude"}),
        ({"kinds": ["k"]}, {"kind": "k"}, {"kind": "other"}),
        (
            {"repositories": ["acme/site"]},
            {"payload": {"repository": "acme/site"}},
            {"payload": {"repository": "acme/secret"}},
        ),
        ({"capabilities": ["GPU "]}, {"capabilities": ["gpu"]}, {"capabilities": ["gpu", "root"]}),
    ],
    ids=["agents", "kinds", "repositories", "capabilities"],
)
def test_a_job_outside_the_policy_is_never_assigned(owner, role, login, policy, admitted, other):
    """A claim that asks for everything gets what the policy admits; the other job stays queued."""
    [mine, theirs] = owner.enqueue_many([{"kind": "k", **admitted}, {"kind": "k", **other}])
    worker = login(role(**policy))

    claimed = worker.claim("w", capabilities=["gpu", "root"], limit=10)

    assert ids(claimed) == [mine]
    assert owner.get(theirs).state == "queued"
    assert [event.type for event in owner.history(theirs)] == ["created"]
    assert worker.claim("w", capabilities=["gpu", "root"], limit=10) == []


@pytest.mark.parametrize(
    ("allowed", "named", "admitted"),
    [
        ("acme/site", "acme/site", True),
        ("acme/site", "ACME/Site.git", True),
        ("acme/site", "https://github.com/acme/site", True),
        ("acme/site", "https://github.com/acme/site.git/", True),
        ("acme/site", "https://git:pw@github.com/acme/site.git", True),
        ("acme/site", "git@github.com:acme/site.git", True),
        ("acme/site", "ssh://git@github.com/acme/site", True),
        ("git@github.com:acme/site.git", "acme/site", True),
        ("https://github.com/acme/site.git", "acme/site", True),
        ("acme/site", "acme/site2", False),
        ("acme/site", "acme/sit", False),
        ("acme/site", "evil/acme/site", False),
        ("acme/site", "https://evil.example/acme/site", False),
        ("acme/site", "https://github.com.evil.example/acme/site", False),
        ("acme/site", "https://evil.example/@github.com/acme/site", False),
        ("acme/site", "https://evil.example?@github.com/acme/site", False),
        ("acme/site", "https://evil.example#@github.com/acme/site", False),
        ("acme/site", "https://evil.example\\@github.com/acme/site", False),
        ("acme/site", "git@evil.example:acme/site", False),
        ("acme/site", "/srv/acme/site", False),
        ("acme/*", "acme/anything", True),
        ("acme/*", "https://github.com/acme/a.git", True),
        ("acme/*", "git@github.com:acme/a.git", True),
        ("acme/*", "acmecorp/site", False),
        ("acme/*", "acme", False),
        ("acme/*", "https://github.com/acme", False),
        ("acme/*", "https://github.com/acme/../evil/site", False),
        ("acme/*", "acme/..", False),
        ("acme/*", "https://github.com/acme/./../evil/site", False),
        ("acme/*", "https://github.com/acme/%2e%2e/evil/site", False),
        ("acme/*", f"https://github.com/acme/{'a' * 480}/../../evil/site", False),
        ("acme/*", f"acme/{'a' * 500}", False),
        ("https://git.example/team/*", "git@git.example:team/a/b", True),
        ("https://git.example/team/*", "team/a", False),
    ],
)
def test_repositories_are_compared_by_what_they_name(owner, role, login, allowed, named, admitted):
    """Every way to write a repository is the same one; what only looks like it is another."""
    job = owner.enqueue("k", {"repository": named})

    claimed = login(role(repositories=[allowed])).claim("w")

    assert ids(claimed) == ([job] if admitted else [])


@pytest.mark.parametrize(
    "payload",
    [
        *({}, {"repository": None}, {"repository": ""}),
        *({"repository": ["acme/site"]}, {"repo": "acme/site"}),
    ],
)
def test_with_repositories_listed_a_job_that_names_none_is_not_eligible(
    owner, role, login, payload
):
    """An allowlist does not let through what it cannot judge."""
    owner.enqueue("k", payload)

    assert login(role(repositories=["acme/*"])).claim("w") == []
    assert len(login(role()).claim("w")) == 1


def test_a_policy_cannot_list_no_repository(owner, role):
    """A blank entry would admit every job that names none."""
    name, _ = role()

    with pytest.raises(InvalidArgument, match="a repository that names none"):
        owner.set_policy(name, repositories=["acme/site", " "])


@pytest.mark.parametrize("policy", [{"agents": ["codex"]}, {"kinds": ["k"]}], ids=["agent", "kind"])
def test_to_ask_for_nothing_that_is_admitted_is_refused_in_words(owner, role, login, policy):
    """A worker that is set up for something else hears so, instead of waiting for ever."""
    made = role(**policy)

    with pytest.raises(NotAllowed, match=f"the policy of {made[0]} admits none"):
        login(made).claim("w", agents=["claude"], kinds=["other"])


def test_the_policy_is_that_of_the_login(owner, role, login):
    """To become the role that the login is a member of lifts nothing."""
    owner.enqueue("k", agent="claude")
    worker = login(role(agents=["codex"]))
    worker.connection.execute("set role moonmind_worker")

    assert worker.claim("w") == []


def test_without_its_policy_a_role_may_claim_everything(owner, role, login):
    """drop_policy says whether there was one; what is left is the role."""
    job = owner.enqueue("k", agent="claude")
    made = role(agents=["codex"])
    worker = login(made)
    assert worker.claim("w") == []

    assert [owner.drop_policy(made[0]), owner.drop_policy(made[0])] == [True, False]

    assert ids(worker.claim("w")) == [job]


# --- who works ---------------------------------------------------------------------------------


def test_another_worker_id_than_the_credentials_is_refused(owner, role, login, picture):
    """Neither claims nor registers; nothing changes."""
    owner.enqueue("k")
    made = role(workers=["ci-1", "ci-2"])
    worker = login(made)
    before = picture(owner.connection)

    for act in (
        lambda: worker.claim("ci-3"),
        lambda: worker.register_worker(
            *("ci-3",),
            agents=None,
            kinds=None,
            capabilities=[],
            slots=1,
            host="",
            pid=1,
            version="",
        ),
    ):
        with pytest.raises(
            NotAllowed, match=f"the policy of {made[0]} does not let it work as ci-3"
        ):
            act()

    assert picture(owner.connection) == before
    assert len(worker.claim("ci-2")) == 1


def test_nobody_speaks_for_a_worker_of_another_name(owner, role, login):
    """The process of a worker that is not in the policy can be neither seen nor put to sleep."""
    process = owner.register_worker("w", **PROCESS)
    other = login(role(workers=["ci-1"]))

    for act in (lambda: other.see_worker(process, stopped=True), lambda: other.doze(process)):
        with pytest.raises(NotAllowed, match="does not let it work as w"):
            act()


# --- who holds ---------------------------------------------------------------------------------

HOLDER = {
    "start": lambda q, job: q.start(job),
    "complete": lambda q, job: q.complete(job, {"a": 1}),
    "complete_many": lambda q, job: q.complete_many([(job, {})]),
    "fail": lambda q, job: q.fail(job, "?"),
    "fail for good": lambda q, job: q.fail(job, "?", outcome="fail"),
    "release": lambda q, job: q.release(job),
    "cool_down": lambda q, job: q.cool_down(job, MINUTE),
    "append_event": lambda q, job: q.append_event(job, "progress"),
    "append_log": lambda q, job: q.append_log(job, "half way"),
    "open_artifact": lambda q, job: q.put_artifact(job, "a.txt", b"abc"),
    "put_artifact": lambda q, job: q._value(
        "put_artifact", job_id=job.id, token=job.token, name="a.txt", content=b"abc"
    ),
    "append_artifact": lambda q, job: q._value(
        "append_artifact", artifact_id=1, token=job.token, content=b"abc"
    ),
    "begin_step": lambda q, job: q.begin_step(job, "push"),
    "end_step": lambda q, job: q.end_step(job, "push"),
    "count_usage": lambda q, job: q.count_usage(job, "t", "gpt", Tokens(input=1)),
    "hear": lambda q, job: q.hear(job),
}
NARROWED = {
    "agents": {"agents": ["claude"]},
    "kinds": {"kinds": ["other"]},
    "repositories": {"repositories": ["acme/other"]},
    "capabilities": {"capabilities": []},
    "workers": {"workers": ["somebody"]},
}


@pytest.fixture
def held(owner, role, login):
    """A job that a login with a policy holds, an artifact of it under way: (name, worker, job)."""
    owner.enqueue("k", {"repository": "acme/site"}, capabilities=["gpu"])
    made = role(agents=["codex"])
    worker = login(made)
    [job] = worker.claim("w", capabilities=["gpu"])
    half = {"name": "b.txt", "content_type": "text/plain", "size_bytes": 6, "sha256": "0" * 64}
    worker._value("open_artifact", job_id=job.id, token=job.token, **half)
    return made[0], worker, job


def test_every_function_that_takes_a_token_is_tried_here():
    """A call of a lease holder that is added to sql/ must be added to the list above."""
    by_token = {
        path.stem
        for path in (ROOT / "sql").glob("[a-z]*.sql")
        if re.search(r"^create or replace function [^)]*\bp_tokens?\b", path.read_text(), re.M)
    }

    assert {name.partition(" ")[0] for name in HOLDER} == by_token - {"renew"}


@pytest.mark.parametrize("call", HOLDER)
def test_a_policy_narrowed_meanwhile_refuses_every_call_of_the_holder(owner, held, call, picture):
    """The lease is held and the token is right; the job is no longer theirs to touch."""
    name, worker, job = held
    owner.set_policy(name, agents=["claude"])
    before = picture(owner.connection)

    with pytest.raises(NotAllowed, match=f"the policy of {name} does not admit job {job.id}"):
        HOLDER[call](worker, job)

    assert picture(owner.connection) == before


@pytest.mark.parametrize("stored", ["text/plain", "Text/X-Diff; charset=utf-8", "application/json"])
def test_an_artifact_of_an_admitted_type_is_stored(owner, held, stored):
    """By name or by what is before the slash; case and parameters make no difference."""
    name, worker, job = held
    owner.set_policy(name, content_types=["TEXT/*", "application/json"])

    worker.put_artifact(job, "a", b"abc", stored)

    assert [each.content_type for each in owner.artifacts(job.id)] == [stored]


@pytest.mark.parametrize("stored", ["application/zip", "texts/plain", "text", "application/*"])
@pytest.mark.parametrize("content", [b"abc", b""])
def test_an_artifact_of_another_type_is_refused(owner, held, stored, content, picture):
    """The message names the type, the file and what is admitted; the job is still held."""
    name, worker, job = held
    owner.set_policy(name, content_types=["text/*", "application/json"])
    before = picture(owner.connection)

    with pytest.raises(NotAllowed, match=f"type {re.escape(stored)}, as a is; it admits text/\\*"):
        worker.put_artifact(job, "a", content, stored)

    assert picture(owner.connection) == before
    worker.complete(job)


def test_an_artifact_above_the_size_is_refused(owner, held):
    """At the size it is stored, in one piece or in many."""
    name, worker, job = held
    owner.set_policy(name, artifact_max_bytes=3)

    worker.put_artifact(job, "a", b"abc")
    with pytest.raises(NotAllowed, match="no artifact above 3 bytes; b has 4"):
        worker.put_artifact(job, "b", b"abcd")
    with pytest.raises(NotAllowed, match="no artifact above 3 bytes"):
        worker._value("put_artifact", job_id=job.id, token=job.token, name="c", content=b"abcd")

    assert [each.name for each in owner.artifacts(job.id)] == ["a"]


def test_a_policy_with_a_negative_size_is_refused(owner, role):
    """Nothing would ever fit."""
    name, _ = role()

    with pytest.raises(InvalidArgument, match="policy_artifacts_may_have_bytes"):
        owner.set_policy(name, artifact_max_bytes=-1)


@pytest.mark.parametrize("narrowed", NARROWED)
def test_each_list_of_a_policy_counts_for_a_holder(owner, held, narrowed):
    """Whatever list leaves the job out refuses the call."""
    name, worker, job = held
    owner.set_policy(name, **NARROWED[narrowed])

    with pytest.raises(NotAllowed, match=f"does not admit job {job.id}"):
        worker.complete(job)


def test_a_renewal_loses_the_job_that_is_not_admitted_and_keeps_the_others(owner, held):
    """One job less does not cost a worker the other leases that it holds."""
    name, worker, job = held
    other = owner.enqueue("k", agent="codex-2")
    owner.set_policy(name, agents=["codex", "codex-2"])
    [second] = worker.claim("w")
    owner.set_policy(name, agents=["codex-2"])

    renewed = worker.renew([job, second], MINUTE)

    assert [each.job_id for each in renewed] == [other]


def test_a_token_from_elsewhere_opens_nothing(owner, role, login, picture):
    """Tokens are numbers in a row: who guesses that of a job outside the policy is refused."""
    owner.enqueue("k", agent="claude")
    [job] = owner.claim("w")
    thief = login(role(agents=["codex"]))
    namesake = login(role(workers=["ci-1"]))
    before = picture(owner.connection)

    for call in HOLDER.values():
        for other in (thief, namesake):
            if call is not HOLDER["append_artifact"]:
                with pytest.raises(NotAllowed):
                    call(other, job)
    assert thief.renew([job], MINUTE) == namesake.renew([job], MINUTE) == []
    assert picture(owner.connection) == before


# --- credentials -------------------------------------------------------------------------------


def test_a_wrong_password_is_refused(role):
    """No call is even heard."""
    name, dsn = role()

    with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
        psycopg.connect(make_conninfo(dsn, password="wrong"))
    with psycopg.connect(dsn) as connection:
        assert connection.execute("select session_user").fetchone() == (name,)


def test_a_revoked_login_is_refused(owner, role, login):
    """The password that was right is wrong, and what was connected is not."""
    name, dsn = role()
    worker = login((name, dsn))

    done = revoke_role(owner.connection, name)

    assert (done.dropped, done.connections) == (True, 0)
    with pytest.raises(psycopg.OperationalError, match="authentication failed"):
        psycopg.connect(dsn)
    with pytest.raises(psycopg.OperationalError):
        worker.connection.execute("select 1")


def test_a_connection_that_outlives_its_role_can_change_nothing(owner, held, picture):
    """Where the connection cannot be ended, every mutation on it is refused all the same."""
    name, worker, job = held
    calls = {
        **HOLDER,
        "renew": lambda q, job: q.renew([job], MINUTE),
        "claim": lambda q, _: q.claim("w"),
        "reclaim": lambda q, _: q.reclaim(),
        "next_due": lambda q, _: q.next_due(),
        "doze": lambda q, _: q.doze(1),
        "see_worker": lambda q, _: q.see_worker(1),
        "register_worker": lambda q, _: q.register_worker("w", **PROCESS),
    }
    before = picture(owner.connection)
    owner.connection.execute(f"revoke moonmind_worker from {name}")

    for call in calls.values():
        with pytest.raises(NotAllowed):
            call(worker, job)

    assert picture(owner.connection) == before


def test_what_a_revoked_role_holds_comes_back_when_the_lease_ends(owner, held, fresh, clock_of):
    """Nobody has to clean up after it."""
    name, _, job = held
    revoke_role(owner.connection, name)
    clock_of(fresh).advance(timedelta(minutes=3))

    [back] = owner.reclaim()

    assert (back.job_id, back.state) == (job.id, "queued")
