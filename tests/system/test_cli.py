"""moonmind-queue as a user meets it: arguments, output and an exit code."""

import json
import os
import subprocess
import sys
from datetime import datetime, timedelta
from pathlib import Path

import click
import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict
from waiting import eventually

import moonmind_queue
from moonmind_queue.cli import cli
from moonmind_queue.executors.noop import Noop

ROOT = Path(__file__).parents[2]


def _leaves(command: click.Command, path: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    if isinstance(command, click.Group):
        return [x for name, c in command.commands.items() for x in _leaves(c, (*path, name))]
    return [path]


COMMANDS = _leaves(cli)


@pytest.mark.parametrize("path", COMMANDS, ids=" ".join)
def test_every_command_explains_itself_and_stands_in_the_readme(path):
    """--help says what a command does in a sentence; README names the command."""
    command = cli
    for name in path:
        command = command.commands[name]

    assert command.help
    assert command.help[0].isupper()
    assert f"moonmind-queue {' '.join(path)}" in (ROOT / "README.md").read_text()


def test_enqueue_prints_the_id_and_the_state(run):
    """A person reads a sentence, a program gets JSON."""
    assert run("enqueue", "noop").stdout == "job 1 is queued\n"
    assert json.loads(run("enqueue", "noop", "--after", "1", "--json").stdout) == {
        "id": 2,
        "state": "waiting",
    }


def test_enqueue_takes_the_payload_from_a_file_and_from_standard_input(run, tmp_path):
    """--payload-file reads a file; - reads standard input."""
    file = tmp_path / "payload.json"
    file.write_text('{"seconds": 1}')

    run("enqueue", "noop", "--payload-file", str(file))
    run("enqueue", "noop", "--payload-file", "-", given='{"seconds": 2}')

    payloads = [json.loads(run("show", job, "--json").stdout)["payload"] for job in ("1", "2")]
    assert payloads == [{"seconds": 1}, {"seconds": 2}]


def test_enqueue_accepts_the_specified_spelling(run):
    """--type, --repo and --instruction make a codex_exec job, validated before it is stored."""
    done = run(
        *("enqueue", "--type", "codex_exec", "--repo", "acme/site"),
        *("--instruction", "Mend it.", "--ref", "main"),
    )

    assert done.returncode == 0
    payload = json.loads(run("show", "1", "--json").stdout)["payload"]
    assert payload["repository"] == "acme/site"
    assert (payload["instruction"], payload["ref"]) == ("Mend it.", "main")


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("enqueue", "nope"), 2, "unknown kind 'nope'; installed: codex, codex_exec, mcp-call, "),
        (("enqueue",), 2, "Usage:"),
        (("enqueue", "noop", "--payload", "{"), 2, "The payload is not JSON"),
        (("enqueue", "noop", "--payload", "[1]"), 2, "not a JSON object"),
        (("enqueue", "noop", "--payload", '{"seconds": -1}'), 2, "noop: seconds"),
        (("enqueue", "codex_exec", "--repo", "acme/site"), 2, "instruction"),
        (("enqueue", "codex_exec", "--repo", "https://u:p@h/x"), 2, "embedded credentials"),
        (("enqueue", "noop", "--after", "99"), 1, "unknown job 99"),
        (("enqueue", "noop", "--run-at", "tomorrow"), 2, "not an ISO instant"),
        (("enqueue", "noop", "--max-attempts", "0"), 2, "--max-attempts"),
        (("show", "99"), 1, "job 99 does not exist"),
        (("events", "99"), 1, "job 99 does not exist"),
        (("logs", "99"), 1, "job 99 does not exist"),
        (("artifacts", "ls", "99"), 1, "job 99 does not exist"),
        (("cancel", "99"), 1, "job 99 does not exist"),
        (("retry", "99"), 1, "job 99 does not exist"),
        (("unlock", "99"), 1, "job 99 does not exist"),
        (("ls", "--state", "done"), 2, "--state 'done' is none of waiting, queued"),
        (("prune", "--older-than", "long"), 2, "not a length of time such as 30d"),
        (("events", "--since", "long"), 2, "'long' is not a length of time such as 30d"),
        (("events", "1", "--since", "1h"), 2, "--since is for the events of all jobs"),
    ],
)  # fmt: skip
def test_what_cannot_be_done_is_said_in_words(run, arguments, code, message):
    """The message names the thing and the value; the exit code tells a program what it was."""
    done = run(*arguments)

    assert done.returncode == code
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert json.loads(run("ls", "--json").stdout) == []


@pytest.mark.parametrize(
    ("url", "code", "message"),
    [
        ("", 2, "DATABASE_URL is not set"),
        ("hunter2secret is no dsn", 2, "DATABASE_URL is not a libpq URL or DSN"),
        ("postgresql://u:hunter2secret\udcff@127.0.0.1:1/x", 2, "is not a libpq URL or DSN"),
        (f"postgresql://u:hunter2secret@{'🦉' * 99}/x", 2, "is not a libpq URL or DSN"),
        ("postgresql://u:hunter2secret@127.0.0.1:1/x", 3, "connection failed"),
    ],
)
def test_a_database_that_cannot_be_used_is_named_without_its_password(run, url, code, message):
    """Whatever is wrong with DATABASE_URL, its value is not in the message."""
    done = run("ls", DATABASE_URL=url)

    assert done.returncode == code
    assert message in done.stderr
    assert "hunter2secret" not in done.stdout + done.stderr


def test_a_wrong_password_is_said_without_showing_it(run, fresh, server):
    """The server's refusal names the user, nothing more."""
    with psycopg.connect(server, autocommit=True) as admin:
        admin.execute("create role mq_test_login login password 'right'")
    try:
        parts = conninfo_to_dict(fresh)
        dsn = f"postgresql://mq_test_login:hunter2secret@{parts['host']}:{parts['port']}/{parts['dbname']}"
        done = run("ls", DATABASE_URL=dsn)
    finally:
        with psycopg.connect(server, autocommit=True) as admin:
            admin.execute("drop role mq_test_login")

    assert done.returncode == 3
    assert "mq_test_login" in done.stderr
    assert "hunter2secret" not in done.stderr


def test_a_missing_schema_names_the_command(run, create_database):
    """A database without the queue is not a riddle."""
    done = run("ls", DATABASE_URL=create_database())

    assert done.returncode == 3
    assert "run: moonmind-queue migrate" in done.stderr


def test_migrate_says_what_it_did_and_does_it_once(run, create_database):
    """The first run makes the schema, the second finds it."""
    dsn = create_database()

    first, second = run("migrate", DATABASE_URL=dsn), run("migrate", DATABASE_URL=dsn)

    assert first.stdout == "the schema is at revision 0001 now; it was not there\n"
    assert second.stdout == "the schema is at revision 0001 already\n"


def test_ls_filters_and_continues(run):
    """Filters and --before give exactly the jobs asked for, newest first, without payloads."""
    for agent in ("codex", "other", "codex"):
        run("enqueue", "noop", "--agent", agent)
    run("cancel", "3")

    def ids(*arguments: str) -> list[int]:
        rows = json.loads(run("ls", "--json", *arguments).stdout)
        assert all("payload" not in row for row in rows)
        return [row["id"] for row in rows]

    assert ids() == [3, 2, 1]
    assert ids("--agent", "codex") == [3, 1]
    assert ids("--state", "queued", "--state", "waiting") == [2, 1]
    assert ids("--before", "3", "--limit", "1") == [2]


def test_ls_counts_and_says_how_to_go_on(run):
    """--count is the number alone; a page that does not show all says of how many it is."""
    for agent in ("codex", "other", "codex"):
        run("enqueue", "noop", "--agent", agent)

    assert run("ls", "--count").stdout == "3\n"
    assert run("ls", "--count", "--agent", "codex", "--json").stdout == '{"count": 2}\n'
    assert run("ls", "--limit", "2").stdout.endswith("2 of 3; older ones: --before 2\n")
    assert "older ones" not in run("ls", "--limit", "3").stdout


def test_events_of_all_jobs_begin_with_the_latest_or_at_a_time(run, look):
    """The last fifty, or all since then, oldest first."""
    look("select moonmind_queue.enqueue('noop') from generate_series(1, 60)")
    look(
        "with earlier as (update moonmind_queue.event set at = at - interval '3 hours'"
        " where job_id <= 55 returning 1) select * from earlier"
    )

    def jobs(*arguments: str) -> list[int]:
        said = run("events", "--json", *arguments).stdout
        return [json.loads(line)["job_id"] for line in said.splitlines()]

    assert jobs() == list(range(11, 61))
    assert jobs("--since", "2h") == list(range(56, 61))
    assert jobs("--since", "1d") == list(range(1, 61))


def test_events_of_all_jobs_followed_miss_nothing_that_commits_late(fresh, look):
    """What a transaction wrote before others is shown when it commits, and once."""
    look("select moonmind_queue.enqueue('noop')")
    follower = subprocess.Popen(
        [sys.executable, "-u", "-m", "moonmind_queue", "events", "-f", "--json"],
        env={**os.environ, "DATABASE_URL": fresh},
        stdout=subprocess.PIPE,
        text=True,
    )
    told: list[int] = []

    def more(number: int) -> list[int]:
        told.extend(json.loads(follower.stdout.readline())["job_id"] for _ in range(number))
        return told

    try:
        assert more(1) == [1]
        with psycopg.connect(fresh) as slow:
            slow.execute("select moonmind_queue.enqueue('noop')")
            look("select moonmind_queue.enqueue('noop')")
            assert more(1) == [1, 3]
        look("select moonmind_queue.enqueue('noop')")
        assert sorted(more(2)) == [1, 2, 3, 4]
    finally:
        follower.terminate()
        assert follower.communicate(timeout=20)[0] == ""


@pytest.mark.parametrize("job", [(), ("1",)], ids=["all jobs", "one job"])
def test_events_go_on_where_they_were_after_the_connection_was_lost(fresh, look, job):
    """The server drops the follower: it comes back, loses nothing and repeats nothing."""
    look("select moonmind_queue.enqueue('noop')")
    follower = subprocess.Popen(
        [sys.executable, "-u", "-m", "moonmind_queue", "events", *job, "-f", "--json"],
        env={**os.environ, "DATABASE_URL": fresh},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    told: list[int] = []
    try:
        for _ in range(3):
            told.append(json.loads(follower.stdout.readline())["seq"])
            dropped = look(
                "select pg_terminate_backend(pid) from pg_stat_activity"
                " where application_name = 'moonmind-queue cli' and datname = current_database()"
            )
            look("select moonmind_queue.retry(1) from moonmind_queue.cancel(1)")
            assert dropped == [True]
            assert "going on when it is back" in follower.stderr.readline()
            told.append(json.loads(follower.stdout.readline())["seq"])
    finally:
        follower.terminate()
        follower.communicate(timeout=20)

    assert told == list(range(1, 7))


def test_maintain_says_what_it_did(run, fresh, clock_of, look):
    """Batch by batch until nothing is left; the second time there is nothing to do."""
    look("select moonmind_queue.enqueue('noop') from generate_series(1, 3)")
    look("select moonmind_queue.cancel(id) from moonmind_queue.job")
    clock_of(fresh).advance(timedelta(days=100))

    done = json.loads(run("maintain", "--json").stdout)

    assert done == {"jobs": 3, "partitions made": 6}
    assert run("maintain").stdout == "nothing to do\n"


def test_migrate_leaves_room_for_the_months_to_come(run, create_database):
    """A queue that was just made has partitions, before the first worker comes."""
    dsn = create_database()

    run("migrate", DATABASE_URL=dsn)

    assert run("maintain", DATABASE_URL=dsn).stdout == "nothing to do\n"


def test_events_follow_until_the_job_has_ended(run, fresh, start):
    """events -f shows what comes and returns by itself when nothing can come any more."""
    run("enqueue", "noop", "--payload", '{"seconds": 0.3}')
    follower = subprocess.Popen(
        [sys.executable, "-m", "moonmind_queue", "events", "1", "-f", "--json"],
        env={**os.environ, "DATABASE_URL": fresh},
        stdout=subprocess.PIPE,
        text=True,
    )
    start({"noop": Noop(0)})

    said, _ = follower.communicate(timeout=20)

    events = [json.loads(line) for line in said.splitlines()]
    assert [event["type"] for event in events] == ["created", "claimed", "started", "completed"]
    assert [event["seq"] for event in events] == [1, 2, 3, 4]


def test_show_artifacts_and_logs_give_back_what_was_stored(run, fresh, tmp_path):
    """An artifact comes out as it went in: to standard output, to a file, as the log."""
    with moonmind_queue.connect(fresh) as queue:
        queue.enqueue("noop")
        [job] = queue.claim("w", start=True)
        queue.put_artifact(job, "logs/run.log", b"line\n", "text/plain")
        queue.put_artifact(job, "data.bin", bytes(range(256)))
        queue.complete(job, {"answer": 42})
    target = tmp_path / "copy.bin"

    listed = json.loads(run("artifacts", "ls", "1", "--json").stdout)
    run("artifacts", "get", "1", "data.bin", "-o", str(target))

    assert [each["name"] for each in listed] == ["data.bin", "logs/run.log"]
    assert target.read_bytes() == bytes(range(256))
    assert run("logs", "1").stdout == "line\n"
    assert run("artifacts", "get", "1", "logs/run.log").stdout == "line\n"
    assert "answer: 42" in run("show", "1").stdout
    missing = run("artifacts", "get", "1", "other.txt")
    assert missing.returncode == 1
    assert "it has: data.bin, logs/run.log" in missing.stderr


def test_cancel_retry_and_unlock_say_the_new_state(run, fresh):
    """Each act answers with where the job stands now."""
    run("enqueue", "noop")

    assert run("cancel", "1").stdout == "job 1 is cancelled\n"
    assert run("retry", "1").stdout == "job 1 is queued\n"
    with moonmind_queue.connect(fresh) as queue:
        queue.claim("w")
    assert run("cancel", "1").stdout == "job 1 is claimed; its worker has been told to stop\n"
    assert json.loads(run("unlock", "1", "--json").stdout) == {"id": 1, "state": "cancelled"}
    assert (
        run("prune", "--older-than", "0s").stdout
        == "1 jobs deleted that ended more than 0.0 s ago\n"
    )


def test_status_and_workers_show_the_whole(run, look, start):
    """Counts by agent and state, live workers, and the reason why a job waits."""
    run("enqueue", "noop", "--agent", "nobody")
    run("enqueue", "noop", "--after", "1")
    start(name="seen", agents=["codex"])
    eventually(lambda: look("select 1 from moonmind_queue.worker"))

    status = json.loads(run("status", "--json").stdout)
    [worker] = json.loads(run("workers", "--json").stdout)

    counts = {(row["agent"], row["state"]): row["jobs"] for row in status["jobs"]}
    assert counts == {("nobody", "queued"): 1, ("codex", "waiting"): 1}
    assert status["blocked"][0]["reason"] == "needs job 1, which is queued"
    assert (worker["worker"], worker["status"]) == ("seen", "live")
    assert "needs job 1, which is queued" in run("status").stdout


@pytest.mark.parametrize("encoding", ["ascii", "latin-1"])
def test_a_terminal_that_lacks_characters_shows_them_escaped(run, fresh, encoding):
    """Also one whose locale is C; JSON stays JSON."""
    run("enqueue", "noop", "--name", "owl 🦉")

    def printed(*arguments):
        return subprocess.run(
            [sys.executable, "-m", "moonmind_queue", *arguments],
            env={**os.environ, "DATABASE_URL": fresh, "PYTHONIOENCODING": encoding},
            capture_output=True,
            check=True,
        ).stdout

    assert rb"owl \U0001f989" in printed("show", "1")
    assert json.loads(printed("show", "1", "--json"))["name"] == "owl 🦉"


def test_a_reader_that_leaves_early_is_no_error(fresh):
    """`moonmind-queue … | head` prints no traceback."""
    done = subprocess.run(
        ["bash", "-c", f"{sys.executable} -m moonmind_queue settings | head -1"],
        env={**os.environ, "DATABASE_URL": fresh},
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.stderr == ""


# --- schedules ---------------------------------------------------------------------------------


def test_a_schedule_is_added_shown_run_and_removed(run):
    """Its whole life, each step said in a line."""
    added = run(
        *("schedule", "add", "nightly", "0 2 * * *", "codex_exec", "--timezone", "Asia/Tokyo"),
        *(
            "--catch-up",
            "all",
            "--repo",
            "acme/site",
            "--instruction",
            "Tidy up",
            "--priority",
            "3",
        ),
    )
    lines = added.stdout.splitlines()
    assert lines[0] == "schedule nightly is created; it comes at"
    assert len(lines) == 4
    assert all(line.endswith(" 02:00+09:00") for line in lines[1:])

    assert "is unchanged" in run(*_NIGHTLY, "--catch-up", "all").stdout
    assert "is updated" in run(*_NIGHTLY).stdout
    assert run("schedule", "run-now", "nightly").stdout == "job 4 is queued\n"
    assert run("schedule", "pause", "nightly").stdout == "schedule nightly is paused\n"
    [row] = json.loads(run("schedule", "ls", "--json").stdout)
    assert (row["paused"], row["catch_up"], row["last_job_id"]) == (True, "once", 4)
    assert row["job"]["payload"]["instruction"] == "Tidy up"
    assert json.loads(run("show", "4", "--json").stdout)["payload"] == row["job"]["payload"]
    assert "paused" in run("schedule", "ls").stdout
    assert run("schedule", "resume", "nightly").stdout == "schedule nightly goes on\n"
    assert run("schedule", "rm", "nightly").stdout == "schedule nightly is removed\n"
    assert run("schedule", "ls").stdout == "no schedules\n"


_NIGHTLY = (
    *("schedule", "add", "nightly", "0 2 * * *", "codex_exec", "--timezone", "Asia/Tokyo"),
    *("--repo", "acme/site", "--instruction", "Tidy up", "--priority", "3"),
)


def test_schedules_speak_json(run):
    """Every command has an answer for programs; times are ISO instants."""
    added = json.loads(run("schedule", "add", "s", "*/15 * * * *", "noop", "--json").stdout)

    assert (added["name"], added["change"], len(added["next"])) == ("s", "created", 3)
    assert datetime.fromisoformat(added["next"][0]).minute % 15 == 0
    assert json.loads(run("schedule", "pause", "s", "--json").stdout) == {
        "name": "s",
        "paused": True,
    }
    assert json.loads(run("schedule", "resume", "s", "--json").stdout)["paused"] is False
    assert json.loads(run("schedule", "run-now", "s", "--json").stdout)["state"] == "queued"
    assert json.loads(run("schedule", "rm", "s", "--json").stdout) == {"removed": ["s"]}


def test_a_schedule_from_psql_is_shown_with_its_times(run, look):
    """No worker has computed its next time yet; add shows it all the same, and ls an empty one."""
    look("""select moonmind_queue.add_schedule('s', '0 2 * * *', '{"kind": "noop"}')""")

    assert json.loads(run("schedule", "ls", "--json").stdout)[0]["next_at"] is None
    assert len(
        json.loads(run("schedule", "add", "s", "0 2 * * *", "noop", "--json").stdout)["next"]
    )


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("add", "s", "0 25 * * *", "noop"), 1, "cron expression '0 25 * * *': bad hour"),
        (("add", "s", "@daily", "noop"), 1, "has not five fields"),
        (("add", "s", "0 2 * * *", "noop", "--timezone", "Berlin"), 1, "such as Europe/Berlin"),
        (("add", "s", "0 2 * * *", "noop", "--catch-up", "twice"), 2, "'skip', 'once', 'all'"),
        (("add", "s", "0 2 * * *"), 2, "Which KIND?"),
        (("add", "s", "0 2 * * *", "nop"), 2, "unknown kind 'nop'"),
        (("add", "s", "0 2 * * *", "codex_exec"), 2, "instruction"),
        (("add", "a b", "0 2 * * *", "noop"), 1, "schedule_name_is_one_word"),
        (("rm", "gone"), 1, 'schedule "gone" does not exist'),
        (("run-now", "gone"), 1, 'schedule "gone" does not exist'),
        (("pause", "gone"), 1, 'schedule "gone" does not exist'),
    ],
)
def test_a_wrong_schedule_is_refused_in_words(run, look, arguments, code, message):
    """Exit code, one clear line, and nothing is written."""
    done = run("schedule", *arguments)

    assert done.returncode == code
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert look("select count(*) from moonmind_queue.schedule") == [0]
