"""moonmind-queue role: a login with the least that it needs, shown once, and taken back."""

import json
import secrets
import threading
from datetime import timedelta
from urllib.parse import quote

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from psycopg.sql import SQL, Identifier
from waiting import eventually

import moonmind_queue
from moonmind_queue import Worker
from moonmind_queue.executors.noop import Noop


@pytest.fixture
def admin(fresh):
    """A superuser on this test's database."""
    with psycopg.connect(fresh, autocommit=True) as connection:
        yield connection


@pytest.fixture
def named(admin):
    """Names for roles, which belong to the whole server; whatever bears one is dropped after."""
    given = []

    def name(suffix=""):
        given.append(f"mq_test_{secrets.token_hex(6)}{suffix}")
        return given[-1]

    yield name
    for role in reversed(given):  # in this order: those that granted something come first
        if admin.execute("select from pg_roles where rolname = %s", [role]).rowcount:
            for statement in ("drop owned by {} cascade", "drop role {}"):
                admin.execute(SQL(statement).format(Identifier(role)))


@pytest.fixture
def made(run, named):
    """Make a role of a kind with the command: its name and its DATABASE_URL."""

    def make(kind, *options, **environment):
        name = named()
        done = run("role", "create", kind, name, *options, "--json", **environment)
        assert done.returncode == 0, done.stderr
        return name, json.loads(done.stdout)["environment"]["DATABASE_URL"]

    return make


@pytest.fixture
def plain_login(admin, named, fresh):
    """A login made with psql, with these attributes and in these roles: its name and its DSN."""

    def make(attributes="login", *, groups=(), admin_of=()):
        name = named()
        admin.execute(SQL(f"create role {{}} {attributes} password 'pw'").format(Identifier(name)))  # type: ignore[arg-type]
        for group in groups:
            admin.execute(SQL("grant {} to {}").format(Identifier(group), Identifier(name)))
        for group in admin_of:
            admin.execute(
                SQL("grant {} to {} with admin option").format(Identifier(group), Identifier(name))
            )
        return name, make_conninfo(fresh, user=name, password="pw")

    return make


def overview(run, name, **environment):
    """The row of a role in role list, or none."""
    rows = json.loads(run("role", "list", "--json", **environment).stdout)
    return next((row for row in rows if row["role"] == name), None)


def exists(admin, name):
    """Whether the server has a role of this name."""
    return bool(admin.execute("select from pg_roles where rolname = %s", [name]).rowcount)


# --- create ------------------------------------------------------------------------------------


def test_the_password_is_shown_once_in_a_url_that_works(run, named, fresh):
    """Standard output is the environment of a worker; nothing else says the password."""
    name = named()

    done = run("role", "create", "worker", name, "--worker-id", "ci-1")

    url, worker_id = done.stdout.splitlines()
    assert worker_id == "MOONMIND_WORKER_ID=ci-1"
    parts = conninfo_to_dict(url.removeprefix("DATABASE_URL="))
    here = conninfo_to_dict(fresh)
    assert {key: parts[key] for key in ("host", "port", "dbname")} == {
        key: here[key] for key in ("host", "port", "dbname")
    }
    assert parts["user"] == name
    assert len(parts["password"]) == 43  # 256 bits
    assert parts["password"] not in done.stderr
    assert "shown this once" in done.stderr
    assert parts["password"] not in run("role", "list", "--json").stdout
    with moonmind_queue.connect(url.removeprefix("DATABASE_URL=")) as queue:
        assert queue.claim("ci-1") == []


def test_the_server_never_hears_the_password(admin, run, named):
    """What is stored is our own SCRAM verifier: a server told to store md5 would not make one."""
    admin.execute(
        SQL("alter database {} set password_encryption = 'md5'").format(
            Identifier(admin.info.dbname)
        )
    )
    name = named()

    url = run("role", "create", "producer", name).stdout.strip().removeprefix("DATABASE_URL=")

    [stored] = admin.execute(
        "select rolpassword from pg_authid where rolname = %s", [name]
    ).fetchone()
    assert stored.startswith("SCRAM-SHA-256$")
    assert conninfo_to_dict(url)["password"] not in stored
    with moonmind_queue.connect(url) as queue:
        assert queue.enqueue("k") == 1


@pytest.mark.parametrize(
    ("kind", "allowed", "refused"),
    [
        ("producer", ["enqueue", "noop"], ["cancel", "1"]),
        ("operator", ["cancel", "1"], ["role", "create", "reader", "mq_test_nobody"]),
        ("reader", ["show", "1"], ["enqueue", "noop"]),
        ("worker", ["show", "1"], ["pause"]),
    ],
)
def test_each_kind_may_do_its_part_and_no_more(run, made, kind, allowed, refused):
    """The URL that was printed is all that such a person needs."""
    run("enqueue", "noop")
    _, url = made(kind)

    assert run(*allowed, DATABASE_URL=url).returncode == 0
    done = run(*refused, DATABASE_URL=url)
    assert done.returncode == 1
    assert "permission denied" in done.stderr


def test_a_name_that_needs_quoting_is_no_problem(run, named):
    """In SQL and in the URL."""
    name = named(" o'br\"ien@/:?é")

    url = run("role", "create", "reader", name).stdout.strip().removeprefix("DATABASE_URL=")

    assert quote(name, safe="") in url
    assert run("status", DATABASE_URL=url).returncode == 0
    assert run("role", "revoke", name).stdout == f"role {name} is revoked and gone\n"


@pytest.mark.parametrize("name", ["", "x" * 64, "pg_mine", "a\0b"])
def test_a_name_that_cannot_be_is_refused_in_words(run, name):
    """Before PostgreSQL cuts it off in silence."""
    done = run("role", "create", "reader", name)

    assert done.returncode == 1
    assert "name" in done.stderr
    assert done.stdout == ""


def test_a_name_that_is_taken_is_refused(run, admin, plain_login):
    """The role that has it keeps its password and gets no right."""
    name, dsn = plain_login()

    done = run("role", "create", "worker", name)

    assert done.returncode == 1
    assert f"there is a role {name} already; choose another name" in done.stderr
    assert done.stdout == ""
    psycopg.connect(dsn).close()
    assert overview(run, name) is None
    assert admin.execute("select from moonmind_queue.policy").rowcount == 0


def test_who_may_not_make_roles_hears_which_right_is_missing(run, named, made, admin):
    """An operator steps into jobs' lives, and hands out no logins."""
    name = named()
    _, url = made("operator")

    done = run("role", "create", "worker", name, DATABASE_URL=url)

    assert done.returncode == 1
    assert "CREATEROLE" in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""
    assert not exists(admin, name)


def test_a_role_is_made_whole_or_not_at_all(run, named, plain_login, admin):
    """Who may make roles and not bind them to a policy leaves none behind."""
    name = named()
    _, dsn = plain_login(
        "login createrole", groups=["moonmind_reader"], admin_of=["moonmind_worker"]
    )

    done = run("role", "create", "worker", name, DATABASE_URL=dsn)

    assert done.returncode == 1
    assert "membership in moonmind_operator" in done.stderr
    assert not exists(admin, name)


def test_no_superuser_is_needed(run, named, plain_login, admin):
    """CREATEROLE, and the four roles to give away, make, list and revoke."""
    name = named()
    kinds = [f"moonmind_{kind}" for kind in ("producer", "worker", "operator", "reader")]
    _, dsn = plain_login("login createrole", admin_of=kinds)

    done = run("role", "create", "worker", name, "--kinds", "noop", DATABASE_URL=dsn)
    row = overview(run, name, DATABASE_URL=dsn)
    again = run("role", "revoke", name, DATABASE_URL=dsn)

    assert done.returncode == 0, done.stderr
    assert (row["kinds"], row["job_kinds"]) == (["worker"], ["noop"])
    assert again.stdout == f"role {name} is revoked and gone\n"
    assert not exists(admin, name)


def test_a_connection_that_the_caller_may_not_end_is_refused(run, named, plain_login):
    """revoke says how many there are; whatever they ask from then on is denied."""
    name = named()
    _, dsn = plain_login("login createrole", admin_of=["moonmind_worker", "moonmind_operator"])
    made = run("role", "create", "worker", name, DATABASE_URL=dsn)
    url = made.stdout.strip().removeprefix("DATABASE_URL=")
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("select moonmind_queue.claim('w')")

        done = run("role", "revoke", name, DATABASE_URL=dsn)

        assert "1 of its connections are not yours to end" in done.stdout
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            connection.execute("select moonmind_queue.claim('w')")


def test_a_database_without_the_queue_gets_no_role(run, named, create_database, admin):
    """The roles of the server are there, but nothing to use them on."""
    name = named()

    done = run("role", "create", "reader", name, DATABASE_URL=create_database())

    assert done.returncode == 3
    assert "run: moonmind-queue migrate" in done.stderr
    assert not exists(admin, name)


# --- list --------------------------------------------------------------------------------------


def test_list_says_who_may_what_and_who_is_connected(run, made):
    """A reader sees it too: kinds, policy, login, connections."""
    worker, url = made(
        *("worker", "--agents", "codex,claude", "--repositories", "acme/*"),
        *("--capabilities", "GPU", "--worker-id", "ci-1"),
    )
    reader, reading = made("reader")
    with psycopg.connect(url):
        row = overview(run, worker, DATABASE_URL=reading)
        table = run("role", "list", DATABASE_URL=reading).stdout

    assert row == {
        "role": worker,
        "kinds": ["worker"],
        "can_log_in": True,
        "has_policy": True,
        "agents": ["codex", "claude"],
        "job_kinds": None,
        "repositories": ["github.com/acme/*"],
        "capabilities": ["gpu"],
        "workers": ["ci-1"],
        "content_types": None,
        "artifact_max_bytes": None,
        "connections": 1,
        "allowance": None,
    }
    line = next(line for line in table.splitlines() if line.startswith(worker))
    assert "agents codex, claude; repositories github.com/acme/*" in line
    assert any(line.startswith(reader) for line in table.splitlines())


def test_membership_through_a_group_counts(run, plain_login, admin):
    """What a role may do is listed, however it came to it."""
    group, _ = plain_login("nologin", groups=["moonmind_producer", "moonmind_reader"])
    name, _ = plain_login(groups=[group])

    assert overview(run, name)["kinds"] == ["producer", "reader"]
    assert overview(run, group)["can_log_in"] is False


# --- revoke ------------------------------------------------------------------------------------


def test_revoke_ends_the_connections_and_drops_the_role(run, made, admin):
    """Nothing of it is left: no role, no policy, no session."""
    name, url = made("worker", "--agents", "codex")
    with psycopg.connect(url, autocommit=True) as connection:
        done = run("role", "revoke", name, "--json")

        with pytest.raises(psycopg.OperationalError):
            connection.execute("select 1")
    assert json.loads(done.stdout) == {
        "role": name,
        "dropped": True,
        "kept_because": None,
        "connections": 0,
    }
    assert not exists(admin, name)
    assert overview(run, name) is None
    assert admin.execute("select from moonmind_queue.policy").rowcount == 0
    with pytest.raises(psycopg.OperationalError, match="authentication failed"):
        psycopg.connect(url)


def test_a_role_that_owns_something_can_no_longer_log_in(run, made, admin):
    """It stays with the reason, without rights and without a login."""
    name, url = made("worker")
    admin.execute("create table keepsake ()")
    admin.execute(SQL("alter table keepsake owner to {}").format(Identifier(name)))

    done = run("role", "revoke", name)

    assert done.returncode == 0
    assert "still there: it owns something" in done.stdout
    assert "keepsake" in done.stdout
    with pytest.raises(psycopg.OperationalError, match="not permitted to log in"):
        psycopg.connect(url)
    assert overview(run, name) is None


def test_a_role_from_elsewhere_loses_its_rights_here_and_nothing_else(run, plain_login):
    """Who made it may use it for more than the queue."""
    name, dsn = plain_login(groups=["moonmind_worker"])

    done = run("role", "revoke", name)

    assert "role create did not make it" in done.stdout
    with psycopg.connect(dsn) as connection, pytest.raises(psycopg.errors.InsufficientPrivilege):
        connection.execute("select moonmind_queue.claim('w')")


def test_a_right_that_another_granted_is_revoked_too(run, plain_login, admin):
    """From PostgreSQL 16 on a grant belongs to whoever made it."""
    name, _ = plain_login()
    granter, dsn = plain_login(admin_of=["moonmind_worker"])
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute(SQL("grant moonmind_worker to {}").format(Identifier(name)))

    run("role", "revoke", name)

    assert overview(run, name) is None
    assert overview(run, granter) is not None


def test_a_policy_that_outlived_its_role_is_listed_and_revoked(run, made, admin):
    """Whoever drops a role with psql leaves its policy; the list shows that there is one."""
    name, _ = made("worker", "--agents", "codex")
    admin.execute(SQL("drop role {}").format(Identifier(name)))

    row = overview(run, name)

    assert (row["kinds"], row["can_log_in"], row["agents"]) == ([], False, ["codex"])
    assert run("role", "revoke", name).stdout == f"role {name} is revoked and gone\n"
    assert overview(run, name) is None


@pytest.mark.parametrize("whom", ["nobody_has_this_name", "postgres", "moonmind_worker"])
def test_only_who_may_use_the_queue_can_be_revoked(run, whom):
    """Not the administrator by a slip, nor the four roles themselves."""
    done = run("role", "revoke", whom)

    assert done.returncode == 1
    assert f"{whom} is no role of this queue" in done.stderr


def test_nobody_revokes_himself(run, plain_login):
    """Half of it would work, and then nobody could do the rest."""
    kinds = [f"moonmind_{kind}" for kind in ("producer", "worker", "operator", "reader")]
    name, dsn = plain_login("login createrole", groups=kinds)

    done = run("role", "revoke", name, DATABASE_URL=dsn)

    assert done.returncode == 1
    assert "is who you are" in done.stderr
    assert overview(run, name) is not None


def test_who_is_in_through_a_group_is_left_to_a_person(run, plain_login):
    """The rights of the others in the group are not ours to take."""
    group, _ = plain_login("nologin", groups=["moonmind_producer"])
    name, _ = plain_login(groups=[group])

    done = run("role", "revoke", name)

    assert done.returncode == 1
    assert "would still be producer through a group" in done.stderr
    assert overview(run, name)["kinds"] == ["producer"]


def test_an_operator_who_may_not_drop_roles_changes_nothing(run, made):
    """Neither the policy nor the rights are half gone."""
    name, _ = made("worker", "--agents", "codex")
    _, url = made("operator")

    done = run("role", "revoke", name, DATABASE_URL=url)

    assert done.returncode == 1
    assert "CREATEROLE" in done.stderr
    assert overview(run, name)["agents"] == ["codex"]


# --- a worker under such a role ----------------------------------------------------------------


def test_a_worker_process_runs_only_what_its_policy_admits(run, made, spawn, look, fresh):
    """With the environment that role create printed, and it says so that the rest is not run."""
    _, url = made("worker", "--agents", "codex", "--repositories", "acme/*", "--worker-id", "ci-1")
    with moonmind_queue.connect(fresh) as queue:
        mine, agent, nowhere, elsewhere = queue.enqueue_many(
            {"kind": "noop", "agent": who, "payload": {"seconds": 0, **named}}
            for who, named in (
                ("codex", {"repository": "acme/site"}),
                ("claude", {"repository": "acme/site"}),
                ("codex", {}),
                ("codex", {"repository": "other/site"}),
            )
        )
    worker = spawn(DATABASE_URL=url, MOONMIND_WORKER_ID="ci-1")
    state = "select state from moonmind_queue.job where id = %s"

    eventually(lambda: look(state, mine) == ["succeeded"], within=20)
    last = run("enqueue", "noop", "--payload", '{"seconds": 0, "repository": "acme/x"}')
    assert last.returncode == 0
    eventually(lambda: look(state, elsewhere + 1) == ["succeeded"], within=20)

    assert [look(state, job) for job in (agent, nowhere, elsewhere)] == [["queued"]] * 3
    unserved = json.loads(run("status", "--json").stdout)["unserved"]
    assert {row["reason"] for row in unserved} >= {"no policy of a live worker admits it"}
    worker.terminate()
    assert worker.wait(20) == 0


class Held(Noop):
    """Works until the test lets it end."""

    def __init__(self):
        self.begun, self.end = threading.Event(), threading.Event()

    def run(self, job, context):
        """Wait for the test."""
        self.begun.set()
        self.end.wait(15)
        return {}


def test_a_job_that_is_no_longer_admitted_costs_the_worker_nothing_else(made, fresh, look):
    """Its result is refused, its lease runs out, and the worker goes on with what it may."""
    name, url = made("worker", "--agents", "codex")
    held = Held()
    worker = Worker(url, {"held": held, "noop": Noop(0)}, name="w", poll=timedelta(hours=1))
    thread = threading.Thread(target=worker.run)
    thread.start()
    try:
        with moonmind_queue.connect(fresh) as queue:
            lost = queue.enqueue("held")
            assert held.begun.wait(15)
            queue.set_policy(name, agents=["codex-2"])
            held.end.set()
            next_one = queue.enqueue("noop", {"seconds": 0}, agent="codex-2")
            state = "select state from moonmind_queue.job where id = %s"

            eventually(lambda: look(state, next_one) == ["succeeded"])

            assert look(state, lost) == ["running"]
            assert [event.type for event in queue.history(lost)][-1] == "started"
    finally:
        held.end.set()
        worker.stop()
        thread.join(15)
    assert not thread.is_alive()


def test_a_worker_with_another_id_than_its_role_ends_in_words(made, spawn, tmp_path):
    """The log says what the policy does not let it do."""
    name, url = made("worker", "--worker-id", "ci-1")

    worker = spawn(DATABASE_URL=url, MOONMIND_WORKER_ID="ci-2")

    assert worker.wait(30) == 1
    log = (tmp_path / "worker-0.log").read_text()
    assert f"the policy of {name} does not let it work as ci-2" in log
    assert conninfo_to_dict(url)["password"] not in log
