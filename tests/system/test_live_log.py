"""What a job prints can be read while it runs, from anywhere, and to its end."""

import json
import os
import subprocess
import sys
import threading
from datetime import timedelta

import pytest
from structlog.testing import capture_logs
from waiting import eventually

from moonmind_queue import connect
from moonmind_queue.executors.noop import Noop

PROMISED = 2.0  # seconds until a line can be read


class Talk(Noop):
    """Prints a line, waits for a word, prints on."""

    def __init__(self, lines=1):
        super().__init__(0)
        self.lines = lines
        self.go_on = threading.Event()

    def run(self, job, context):
        """Print."""
        context.log("first", stage="begin")
        self.go_on.wait(20)
        for number in range(self.lines):
            context.log(f"line {number}", stream="stderr", stage="end")
        return {}


@pytest.fixture
def talking(start, fresh, look):
    """A worker that runs a job which has printed its first line and waits."""

    def begin(lines=1, **options):
        talk = Talk(lines)
        start({"talk": talk}, **options)
        look("select moonmind_queue.enqueue('talk')")
        eventually(lambda: look("select 1 from moonmind_queue.job where state = 'running'"))
        return talk

    return begin


def log(look):
    """What has been printed so far."""
    return "".join(look("select content from moonmind_queue.job_log order by pos"))


def done(look):
    """Whether the job has ended well."""
    return look("select 1 from moonmind_queue.job where state = 'succeeded'")


def test_a_line_can_be_read_while_the_job_runs(talking, look):
    """Within two seconds, with stage and stream; the rest is there when the job has ended."""
    talk = talking(lines=2)

    during = eventually(
        lambda: look("select stage, stream, content from moonmind_queue.job_log"), PROMISED
    )
    talk.go_on.set()
    eventually(lambda: done(look))

    assert during == [("begin", "stdout", "first\n")]
    assert look("select stage, stream, content from moonmind_queue.job_log order by pos") == [
        ("begin", "stdout", "first\n"),
        ("end", "stderr", "line 0\nline 1\n"),
    ]


def test_many_lines_are_few_rows(talking, look):
    """They travel in pieces."""
    talk = talking(lines=5000)
    talk.go_on.set()
    eventually(lambda: done(look))

    assert log(look).count("\n") == 5001
    assert look("select count(*) < 50 from moonmind_queue.job_log") == [True]


def test_it_can_be_switched_off(talking, look):
    """Then nothing that a job prints is in the database."""
    talking(live_log=False).go_on.set()
    eventually(lambda: done(look))

    assert log(look) == ""


def test_it_is_bounded(talking, look):
    """A job that prints without end fills nothing."""
    talking(lines=5000, artifact_max_bytes=1000).go_on.set()
    eventually(lambda: done(look))

    assert len(log(look)) < 1100
    assert log(look).endswith("[the live log ends here, after 1000 characters]\n")


def test_a_connection_that_breaks_loses_nothing(talking, look):
    """What was on its way is sent again, in its order."""
    talk = talking(lines=3)
    eventually(lambda: log(look))
    look(
        "select pg_terminate_backend(pid) from pg_stat_activity"
        " where application_name = 'moonmind-queue jobs' and datname = current_database()"
    )
    talk.go_on.set()
    eventually(lambda: done(look))

    assert log(look) == "first\nline 0\nline 1\nline 2\n"


def test_a_job_that_was_taken_away_hears_of_it_by_its_log(start, fresh, look):
    """The next line is refused, so the work stops without waiting for the next renewal."""
    talk, stopped = Talk(), threading.Event()

    def run(job, context):
        context.log("first")
        talk.go_on.wait(20)
        context.log("late")
        if context.stop.wait(10):
            stopped.set()
        return {}

    talk.run = run
    start({"talk": talk}, lease=timedelta(hours=1))
    look("select moonmind_queue.enqueue('talk')")
    eventually(lambda: log(look))
    look("select moonmind_queue.unlock(1, true) from moonmind_queue.pause()")
    talk.go_on.set()

    assert stopped.wait(10)
    assert log(look) == "first\n"


def test_a_piece_that_is_refused_holds_up_nothing(start, look):
    """An executor that names a stage nobody can store loses that piece, and no other."""

    def run(job, context):
        context.log("lost", stage="s" * 101)
        eventually(lambda: refusals(logs), within=5)
        context.log("kept")
        return {}

    talk = Talk()
    talk.run = run
    with capture_logs() as logs:
        start({"talk": talk})
        look("select moonmind_queue.enqueue('talk')")
        eventually(lambda: done(look))

    assert log(look) == "kept\n"
    assert len(refusals(logs)) == 1


def refusals(logs):
    """What the worker said of pieces that were refused."""
    return [entry for entry in logs if entry["event"] == "job.log_refused"]


def test_logs_follows_a_job_to_its_end(talking, fresh):
    """The command prints what comes, standard error on its own, and ends with the job."""
    talk = talking(lines=2)
    reader = subprocess.Popen(
        [sys.executable, "-u", "-m", "moonmind_queue", "logs", "1", "-f"],
        env={**os.environ, "DATABASE_URL": fresh},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    first = reader.stdout.readline()
    talk.go_on.set()

    assert (first, *reader.communicate(timeout=20)) == ("first\n", "", "line 0\nline 1\n")
    assert reader.returncode == 0


def test_logs_prints_the_latest_attempt_only(run, fresh, look):
    """Also where the attempts were counted anew and the numbers come again."""
    with connect(fresh) as queue:
        queue.enqueue("k", max_attempts=1)
        for text in ("old\n", "new\n"):
            [job] = queue.claim("w", start=True)
            queue.append_log(job, text, stage="execute")
            queue.fail(job, "no")
            if text == "old\n":
                queue.retry(job.id)

    [line] = run("logs", "1", "--json").stdout.splitlines()

    assert run("logs", "1").stdout == "new\n"
    assert json.loads(line)["content"] == "new\n"
    assert json.loads(line)["stage"] == "execute"


def test_the_stored_log_is_preferred_when_the_attempt_is_over(run, fresh):
    """It is whole; the live log may have ended at its limit."""
    with connect(fresh) as queue:
        queue.enqueue("k")
        [job] = queue.claim("w", start=True)
        queue.append_log(job, "live\n")
        queue.put_artifact(job, "logs/k.log", b"stored\n", "text/plain")

    assert run("logs", "1").stdout == "stored\n"
    assert json.loads(run("logs", "1", "--json").stdout)["content"] == "live\n"
