"""What an operator does from a shell: pause, bound, mend, and see why nothing runs."""

import json
import os
import pty
import subprocess
import sys
from datetime import timedelta

import psycopg
import pytest

import moonmind_queue

HOUR = timedelta(hours=1)


@pytest.fixture
def queue(fresh):
    """A client whose work is committed at once."""
    with moonmind_queue.connect(fresh) as queue:
        yield queue


def dead(queue, number=1, error="hit the rate limit", **options):
    """Jobs that are dead letters."""
    jobs = queue.enqueue_many([{"kind": "noop", "max_attempts": 1, **options}] * number)
    for held in queue.claim("w", limit=number):
        queue.fail(held, error)
    return jobs


def shown(run, job):
    """What show --json says of a job."""
    return json.loads(run("show", str(job), "--json").stdout)


# --- enqueue and show --------------------------------------------------------------------------


def test_enqueue_takes_deadlines_dependency_failure_and_a_concurrency_key(run):
    """Each option arrives, and show says it."""
    run("enqueue", "noop")
    done = run(
        *("enqueue", "noop", "--after", "1", "--timeout", "1h30m", "--expires-at", "2300-01-31"),
        *("--on-dependency-failure", "cancel", "--concurrency-key", "acct-1"),
    )

    assert done.stdout == "job 2 is waiting\n"
    job = shown(run, 2)
    assert job["timeout"] == 5400.0
    assert job["expires_at"].startswith("2300-01-31T00:00:00")
    assert (job["on_dependency_failure"], job["concurrency_key"]) == ("cancel", "acct-1")
    told = run("show", "2").stdout
    assert "on dependency failure  cancel" in told
    assert "timeout  1 h 30 min" in told
    assert "on dependency failure" not in run("show", "1").stdout
    run("cancel", "1")
    assert shown(run, 2)["state"] == "cancelled"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("enqueue", "noop", "--timeout", "soon"), "'soon' is not a length of time such as 30d"),
        (("enqueue", "noop", "--timeout", "99999999999d"), "is not a length of time"),
        (("enqueue", "noop", "--timeout", "2h x"), "is not a length of time"),
        (("enqueue", "noop", "--expires-at", "1h"), "'1h' is not an ISO instant"),
        (("enqueue", "noop", "--on-dependency-failure", "no"), "'wait', 'cancel', 'run'"),
        (("pause", "--for", "1h", "--until", "2300-01-01"), "Give --for or --until, not both"),
        (("pause", "--for", "long"), "'long' is not a length of time"),
        (("limit", "set", "host", "a", "1"), "'agent', 'kind', 'concurrency_key'"),
        (("limit", "set", "agent", "codex", "-1"), "No such option"),
        (("limit", "set", "agent", "codex", "many"), "not a valid integer"),
        (("timeout", "set", "k", "x"), "'x' is not a length of time"),
        (("backoff", "set", "k", "5s", "--jitter", "x"), "not a valid float"),
        (("redrive", "--state", "queued"), "'dead_letter', 'failed'"),
        (("redrive", "--since", "then"), "'then' is neither an age such as 2h nor an ISO instant"),
        (("role", "create", "worker", "x", "--agents", ","), "leave the option out to admit all"),
    ],
)
def test_what_cannot_be_read_is_said_in_words(run, arguments, message):
    """The exit code is that of a wrong command line, and nothing happened."""
    done = run(*arguments)

    assert done.returncode == 2
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert json.loads(run("ls", "--json").stdout) == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("pause", "--until", "2020-01-01"), "would be over already"),
        (("pause", "--for", "0s"), "would be over already"),
        (("limit", "rm", "agent", "nobody"), "agent nobody has no limit"),
        (("timeout", "set", "k", "0s"), "longer than 0 and at most a year"),
        (("timeout", "rm", "*"), "the timeout of * can be changed, not taken away"),
        (("backoff", "set", "k", "2h", "--cap", "1h"), "0 < base <= cap"),
        (("backoff", "rm", "*"), "the back-off of * can be changed, not taken away"),
        (("redrive", "--pace", "2d"), "a pace between 0 and a day"),
    ],
)
def test_what_the_queue_refuses_is_said_in_words(run, queue, arguments, message):
    """With the exit code of a refusal."""
    dead(queue)

    done = run(*arguments)

    assert (done.returncode, done.stdout) == (1, "")
    assert message in done.stderr


# --- pause and resume --------------------------------------------------------------------------


def test_pause_drains_and_resume_lets_go_on(run, queue):
    """What runs goes on, nothing begins, and everybody can see why and until when."""
    run("enqueue", "noop")
    run("enqueue", "noop")
    [held] = queue.claim("w", start=True)

    told = run("pause", "codex", "--reason", "API is down", "--for", "2h").stdout

    assert told.startswith("agent codex is paused; this ends in ")
    assert told.endswith("; running now: 1\n")
    assert queue.claim("w") == []
    [pause] = json.loads(run("status", "--json").stdout)["paused"]
    assert (pause["agent"], pause["cause"], pause["reason"]) == ("codex", "operator", "API is down")
    assert "API is down" in run("status").stdout
    assert "agent codex is paused until " in run("show", "2").stdout
    queue.complete(held)
    assert run("resume").stdout == "all agents are not paused\nstill paused: codex\n"
    assert run("resume", "codex").stdout == "agent codex is resumed\n"
    assert len(queue.claim("w")) == 1
    assert json.loads(run("status", "--json").stdout)["paused"] == []


def test_all_agents_can_be_paused_until_resumed(run, queue):
    """Without an agent and without an end."""
    run("enqueue", "noop", "--agent", "claude")

    assert (
        run("pause").stdout
        == "all agents are paused; this lasts until you resume; running now: 0\n"
    )
    assert queue.claim("w") == []
    assert json.loads(run("resume", "--json").stdout) == {
        "agent": "*",
        "resumed": True,
        "still_paused": [],
    }
    assert len(queue.claim("w")) == 1


def test_a_pause_ends_at_the_instant_that_was_given(run):
    """--until is an instant of the queue's clock."""
    done = run("pause", "codex", "--until", "2300-01-01T00:00+00:00", "--json")

    assert json.loads(done.stdout) == {
        "agent": "codex",
        "until": "2300-01-01T00:00:00.000000Z",
        "running": 0,
    }


# --- limits, timeouts, back-off ----------------------------------------------------------------


def test_limits_are_set_listed_counted_and_taken_away(run, queue):
    """By agent, kind or key; * serves the names without their own."""
    for _ in range(3):
        run("enqueue", "noop", "--concurrency-key", "acct")

    assert (
        run("limit", "set", "agent", "codex", "2").stdout
        == "at most 2 jobs of agent codex at once\n"
    )
    assert (
        "each concurrency key without a limit of its own"
        in run("limit", "set", "concurrency_key", "*", "5").stdout
    )
    assert len(queue.claim("w", limit=9)) == 2
    assert json.loads(run("limit", "ls", "--json").stdout) == [
        {"scope": "agent", "name": "codex", "running": 2, "max_running": 2},
        {"scope": "concurrency_key", "name": "*", "running": None, "max_running": 5},
    ]
    assert "agent codex is at its limit: 2 of 2 run" in run("show", "3").stdout
    assert run("limit", "rm", "agent", "codex").stdout == "agent codex has no limit any more\n"
    assert len(queue.claim("w", limit=9)) == 1
    assert "5" in run("limit", "ls").stdout
    run("limit", "rm", "concurrency_key", "*")
    assert run("limit", "ls").stdout == "no limits\n"


def test_a_timeout_of_a_kind_bounds_its_attempts(run, queue):
    """set, ls and rm; the lease of the next attempt shows it."""
    assert (
        run("timeout", "set", "noop", "1m").stdout == "an attempt of kind noop may take 1 min 0 s\n"
    )
    run("enqueue", "noop")
    queue.claim("w", lease=HOUR)

    [row] = queue.select(
        "select deadline_at - lease_expires_at as gap, deadline_at - updated_at as allowed"
        " from moonmind_queue.job_overview"
    )
    assert (row["gap"], row["allowed"]) == (timedelta(0), timedelta(minutes=1))
    assert json.loads(run("timeout", "ls", "--json").stdout) == [
        {"kind": "*", "timeout": 14400.0},
        {"kind": "noop", "timeout": 60.0},
    ]
    assert run("timeout", "rm", "noop").stdout == "kind noop has no timeout of its own\n"
    assert [row["kind"] for row in json.loads(run("timeout", "ls", "--json").stdout)] == ["*"]


def test_a_back_off_of_a_kind_sets_the_rest_after_a_failure(run, queue):
    """set, ls and rm; the next failure rests as long."""
    run("backoff", "set", "noop", "2h", "--cap", "1d", "--jitter", "0")
    run("enqueue", "noop")
    [held] = queue.claim("w")
    queue.fail(held, "no")

    [row] = queue.select("select run_at - updated_at as rest from moonmind_queue.job_overview")
    assert abs(row["rest"] - 2 * HOUR) < timedelta(seconds=1)  # of a clock that runs
    assert json.loads(run("backoff", "ls", "--json").stdout)[1] == {
        "kind": "noop",
        "base": 7200.0,
        "cap": 86400.0,
        "jitter": 0.0,
    }
    assert "it rests after an attempt that failed" in run("show", "1").stdout
    assert run("backoff", "rm", "noop").stdout == "kind noop has no back-off of its own\n"
    assert len(json.loads(run("backoff", "ls", "--json").stdout)) == 1


def test_what_a_failure_means_is_set_tried_and_taken_away(run, queue):
    """set, ls, try and rm; the next failure is what the rule says."""
    told = run(
        "failure", "set", "flaky", "econnreset", "block", "--source", "codex", "--rest", "5m"
    )
    assert told.stdout == "failures like flaky mean: block\n"
    rules = {rule["name"]: rule for rule in json.loads(run("failure", "ls", "--json").stdout)}
    assert (rules["flaky"]["pattern"], rules["flaky"]["rest"]) == ("econnreset", 300.0)
    assert json.loads(run("failure", "try", "codex", "ECONNRESET", "--json").stdout) == {
        "name": "flaky",
        "outcome": "block",
        "rest": 300.0,
        "most": None,
        "pauses": False,
        "advice": "",
    }
    run("enqueue", "noop")
    [held] = queue.claim("w")
    assert queue.fail(held, "read: ECONNRESET", source="codex") == "blocked"

    assert run("failure", "rm", "flaky").stdout == "the rule flaky is gone\n"
    gone = run("failure", "rm", "flaky")
    assert (gone.returncode, "there is no rule flaky" in gone.stderr) == (1, True)
    assert run("failure", "try", "codex", "ECONNRESET").stdout.startswith("no rule matches")


# --- redrive and repair ------------------------------------------------------------------------


def test_redrive_says_how_many_and_lets_them_run_again(run, queue):
    """A dry run changes nothing; the words select; none left is said too."""
    jobs, others = dead(queue, 3), dead(queue, 1, "no such branch")

    said = run("redrive", "--error", "rate limit", "--since", "2h", "--dry-run").stdout
    assert said == "3 jobs would run again\n"
    assert queue.get(jobs[0]).state == "dead_letter"
    assert run("redrive", "--error", "rate limit").stdout == "3 jobs will run again\n"
    assert [queue.get(job).state for job in jobs] == ["queued"] * 3
    assert queue.history(jobs[0])[-1].type == "retried"
    assert queue.get(others[0]).state == "dead_letter"
    assert run("redrive", "--until", "1h").stdout == "no such jobs\n"
    assert json.loads(run("redrive", "--limit", "1", "--json").stdout) == {
        "matching": 1,
        "redriven": 1,
        "dry_run": False,
    }


def test_many_jobs_are_redriven_in_batches_with_one_pace(run, queue, monkeypatch):
    """No batch begins the pace anew, and progress is told aside."""
    monkeypatch.setattr("moonmind_queue.cli.redrive.BATCH", 3)
    dead(queue, 8)

    done = run("redrive", "--pace", "10s", "--limit", "7")

    assert done.stdout == "7 jobs will run again\n"
    assert "3 of 7 jobs" in done.stderr
    assert "7 of 7 jobs" in done.stderr
    rows = queue.select(
        "select run_at - lag(run_at) over (order by id) as gap from moonmind_queue.job_overview"
        " where state = 'queued'"
    )
    assert [row["gap"] for row in rows] == [None] + [timedelta(seconds=10)] * 6


@pytest.fixture
def asked(fresh):
    """Run a command on a terminal until it asks: (process, answer it, what it asked)."""
    ours, theirs = pty.openpty()
    started = []

    def run(*arguments):
        process = subprocess.Popen(
            [sys.executable, "-m", "moonmind_queue", *arguments],
            env={**os.environ, "DATABASE_URL": fresh},
            stdin=theirs,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        question = ""
        while not question.endswith("]: "):
            letter = process.stderr.read(1)
            assert letter, question
            question += letter

        def answer(text):
            os.write(ours, f"{text}\n".encode())
            out, _ = process.communicate(timeout=30)
            return process.returncode, out

        return question, answer

    yield run
    for process in started:
        if process.poll() is None:
            process.kill()
        process.communicate()
    os.close(ours)
    os.close(theirs)


@pytest.mark.parametrize(
    ("word", "state", "ending"),
    [("y", "queued", (0, "3 jobs will run again\n")), ("n", "dead_letter", (130, ""))],
)
def test_on_a_terminal_it_asks_first(queue, asked, word, state, ending):
    """It says how many and how long the pace takes; no leaves all as it is."""
    dead(queue, 3)

    question, answer = asked("redrive", "--pace", "30m")

    assert question == "Let 3 jobs run again, the last in 1 h 0 min? [y/N]: "
    assert {queue.get(job).state for job in (1, 2, 3)} == {"dead_letter"}
    assert answer(word) == ending
    assert {queue.get(job).state for job in (1, 2, 3)} == {state}


def test_what_changed_while_it_asked_is_counted_apart(queue, asked):
    """The answer does not claim what it did not do."""
    dead(queue, 3)
    _, answer = asked("redrive")
    queue.retry(1)

    assert answer("y") == (0, "2 jobs will run again; 1 job no longer matched or was locked\n")


def test_yes_does_not_ask(fresh, queue):
    """For who has seen the dry run."""
    dead(queue, 2)
    ours, theirs = pty.openpty()

    done = subprocess.run(
        [sys.executable, "-m", "moonmind_queue", "redrive", "--yes"],
        env={**os.environ, "DATABASE_URL": fresh},
        stdin=theirs,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    os.close(ours)
    os.close(theirs)

    assert (done.stdout, done.stderr) == ("2 jobs will run again\n", "")


def test_repair_says_what_was_wrong_and_mends_it(run, queue, fresh):
    """status shows what somebody wrote by hand; after repair there is nothing to say."""
    run("enqueue", "noop")
    assert run("repair").stdout == "nothing to repair\n"
    with psycopg.connect(fresh, autocommit=True) as owner:
        owner.execute("delete from moonmind_queue.ready")

    assert "moonmind-queue repair mends them" in run("status").stdout
    [fault] = json.loads(run("repair", "--json").stdout)

    assert fault == {"job": 1, "fault": "it is queued and has 0 places among the claimable"}
    assert "repair" not in run("status").stdout
    assert len(queue.claim("w")) == 1


# --- status ------------------------------------------------------------------------------------


def test_status_shows_what_nobody_can_run_and_leases_that_have_run_out(run, queue, fresh, clock_of):
    """With the reason, the oldest job and the worker that held it."""
    run("enqueue", "noop")
    run("enqueue", "noop", "--capability", "gpu")
    [held] = queue.claim("gone", start=True)
    clock_of(fresh).advance(timedelta(minutes=5))

    status = json.loads(run("status", "--json").stdout)
    table = run("status").stdout

    assert status["unserved"][0]["oldest_job_id"] == 2
    assert status["unserved"][0]["reason"] == "no live worker serves agent codex"
    [overdue] = status["overdue"]
    assert (overdue["id"], overdue["worker"]) == (held.id, "gone")
    assert "due, and no live worker can run them:" in table
    assert "lease has run out" in table
    assert run("unlock", str(held.id)).stdout == f"job {held.id} is queued\n"
    assert json.loads(run("status", "--json").stdout)["overdue"] == []


def test_an_overdue_lease_is_recovered_by_cancelling_or_running_again(run, queue, fresh, clock_of):
    """Whoever sees one in status takes the job away from its worker, or ends it for good."""
    run("enqueue", "noop")
    run("enqueue", "noop")
    queue.claim("gone", limit=2, start=True)
    clock_of(fresh).advance(timedelta(minutes=5))
    assert [row["id"] for row in json.loads(run("status", "--json").stdout)["overdue"]] == [1, 2]

    run("cancel", "1")
    assert run("unlock", "1").stdout == "job 1 is cancelled\n"
    assert run("unlock", "2").stdout == "job 2 is queued\n"

    assert [queue.history(job)[-1].type for job in (1, 2)] == ["cancelled", "unlocked"]
    assert json.loads(run("status", "--json").stdout)["overdue"] == []


def test_a_quiet_queue_has_a_short_status(run):
    """Sections that have nothing to say are left out."""
    assert run("status").stdout == "no jobs\nworkers: none\n"


def test_workers_says_the_versions_and_the_login_to_programs(run, queue):
    """--json has all that a worker registered."""
    queue.register_worker(
        "w",
        agents=None,
        kinds=["noop"],
        capabilities=["gpu"],
        slots=2,
        host="h",
        pid=1,
        version="1.2",
        versions={"codex": "0.163"},
    )

    [worker] = json.loads(run("workers", "--json").stdout)

    assert (worker["version"], worker["versions"]) == ("1.2", {"codex": "0.163"})
    assert worker["role"] == queue.connection.info.user
