"""Jobs of kind ``shell`` in a real worker on a real queue: what becomes of the job."""

import os

import pytest
from psycopg.types.json import Jsonb
from waiting import eventually

import moonmind_queue
from moonmind_queue.executors.confined import Limits
from moonmind_queue.executors.shell import MB, Shell
from moonmind_queue.settings import ShellProgram


@pytest.fixture
def produce(fresh):
    """A client whose work is committed at once."""
    with moonmind_queue.connect(fresh) as queue:
        yield queue


@pytest.fixture
def shell(tmp_path):
    """An executor that allows bash and nothing else."""
    return Shell(
        [ShellProgram(program="bash")],
        environ=os.environ,
        workdir=tmp_path / "work",
        run_timeout=20,
        artifact_max_bytes=MB,
        limits=Limits(memory=512 * MB, cpu=60, file=16 * MB, directory=64 * MB, processes=64),
    )


def script(text, **members):
    """Return the payload of a job that runs a script."""
    return {"cmd": ["bash", "-c", text], **members}


def is_blocked(produce, job):
    """Say whether a person has to act."""
    return produce.get(job).state == "blocked"


def test_what_becomes_of_a_shell_job(start, shell, produce, look, tmp_path):
    """Success, failure, timeout, refusal and a limit each lead to their state, with the reason."""
    jobs = {
        "done": script("echo hello; echo oh >&2"),
        "failed": script("echo no such thing >&2; exit 5"),
        "late": script("sleep 600", timeout=0.2),
        "refused": {"cmd": "rm -rf /"},
        "large": script("head -c 20M /dev/zero > file; exit $?"),
        "broken": {"cmd": "bash", "env": {"LD_PRELOAD": "x"}},
    }
    ids = {
        name: look(
            "select moonmind_queue.enqueue('shell', %s, p_max_attempts => 1)", Jsonb(payload)
        )[0]
        for name, payload in jobs.items()  # as another language would, without our checks
    }

    start({"shell": shell})
    for job in ids.values():
        eventually(lambda job=job: produce.get(job).finished_at or is_blocked(produce, job))

    ended = {name: (produce.get(job).state, produce.get(job).error) for name, job in ids.items()}
    assert {name: state for name, (state, _) in ended.items()} == {
        "done": "succeeded",
        "failed": "dead_letter",
        "late": "dead_letter",
        "refused": "blocked",
        "large": "failed",
        "broken": "failed",
    }
    result = produce.get(ids["done"]).result
    assert (result["status"], result["exit_code"], result["stdout"]) == ("ok", 0, "hello")
    assert ended["failed"][1] == "bash exited with 5: no such thing"
    assert ended["late"][1] == "timeout: bash ran longer than 0.2 s"
    assert "'rm' is not allowed on this worker" in ended["refused"][1]
    assert "larger file than MOONMIND_SHELL_FILE_MB allows" in ended["large"][1]
    assert ended["broken"][1] == "shell: env: unknown member; there are cmd, timeout, cwd"
    assert not any((tmp_path / "work").iterdir())


def test_the_exit_code_and_the_logs_are_in_the_database(start, shell, produce, look):
    """An event has the exit code as data, artifacts hold both outputs, and both can be followed."""
    job = produce.enqueue("shell", script("echo one; echo two >&2; exit 3"), max_attempts=1)

    start({"shell": shell})
    eventually(lambda: produce.get(job).finished_at)

    [data] = look(
        "select data from moonmind_queue.event where job_id = %s and type = 'progress'", job
    )
    assert data["exit_code"] == 3
    assert data["artifacts"] == ["logs/stdout.log", "logs/stderr.log"]
    assert look(
        "select name, size_bytes from moonmind_queue.artifact where job_id = %s order by id", job
    ) == [("logs/stdout.log", 4), ("logs/stderr.log", 4)]
    assert sorted(
        look("select stream, content from moonmind_queue.job_log where job_id = %s", job)
    ) == [("stderr", "two\n"), ("stdout", "one\n")]


def test_a_failure_is_tried_again(start, shell, produce):
    """A job with attempts left waits for its next one and tells why."""
    job = produce.enqueue("shell", script("exit 4"))

    start({"shell": shell})

    eventually(lambda: produce.get(job).error)
    assert (produce.get(job).state, produce.get(job).error) == ("queued", "bash exited with 4")


def test_a_cancelled_job_is_ended(start, shell, produce, tmp_path):
    """A cancel ends the program and all that it started within seconds."""
    pid = tmp_path / "pid"
    job = produce.enqueue("shell", script(f"setsid sleep 600 & echo $! > {pid}; sleep 600"))
    start({"shell": shell})
    eventually(lambda: pid.exists() and pid.read_text().strip())
    child = int(pid.read_text())

    produce.cancel(job)

    eventually(lambda: produce.get(job).state == "cancelled")
    with pytest.raises(ProcessLookupError):
        os.kill(child, 0)


def test_a_worker_that_stops_hands_the_job_back(start, shell, produce, tmp_path):
    """The attempt does not count, and nothing goes on running."""
    begun = tmp_path / "begun"
    job = produce.enqueue("shell", script(f"touch {begun}; sleep 600"))
    worker = start({"shell": shell})
    eventually(begun.exists)

    worker.stop()

    eventually(lambda: produce.get(job).state == "queued", within=8)
    assert produce.get(job).attempt == 0
    assert not any((tmp_path / "work").iterdir())
