"""One attempt: what the program gets, what is kept of it, and what its end means for the job."""

import re
import threading

import pytest

from moonmind_queue.errors import ArtifactTooLarge, LeaseLost, SettingsError
from moonmind_queue.executors import Block, Retry, Stopped, find
from moonmind_queue.executors.shell import MB, Shell
from moonmind_queue.settings import Settings

SECRETS = {
    "DATABASE_URL": "postgresql://worker:hunter2hunter2@db.example.org/queue",
    "GITHUB_TOKEN": "ghp_" + "A1b2C3d4" * 5,
    "PGPASSWORD": "pg-password-of-the-worker",
}


# --- what the program gets -----------------------------------------------------------------------


def test_the_kind_is_registered():
    """An entry point is all that the queue knows of the kind."""
    assert find("shell") is Shell


def test_the_environment_is_built_from_nothing(bench, monkeypatch):
    """Nothing of the worker's environment reaches a program, whatever that holds."""
    for name, value in (SECRETS | {"BASH_ENV": "/x", "LD_LIBRARY_PATH": "/x"}).items():
        monkeypatch.setenv(name, value)
        bench.environ[name] = value

    ended = bench.run(bench.shell("env"), "env")

    given = dict(line.split("=", 1) for line in ended.context.stdout.splitlines())
    work = bench.workdir / "7" / "1" / "work"
    assert given == {
        "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        "HOME": str(work),
        "TMPDIR": str(work.with_name("tmp")),
        "LANG": "C.UTF-8",
        "TERM": "dumb",
        "MOONMIND_JOB_ID": "7",
        "MOONMIND_ATTEMPT": "1",
    }


def test_descriptors_signals_and_streams(bench):
    """A program has three descriptors, an empty input, no terminal and no signal in its way."""
    ended = bench.bash("ls /proc/$$/fd; cat; tty; grep -E 'Sig(Blk|Ign)' /proc/self/status")

    *lines, blocked, ignored = ended.context.stdout.splitlines()
    assert lines == ["0", "1", "2", "not a tty"]
    assert blocked == f"SigBlk:\t{'0' * 16}"
    # 32 and 33 are the C library's own; programs that were started by make ignore them.
    assert int(ignored.split()[1], 16) & ~(0b11 << 31) == 0


def test_it_works_in_a_fresh_directory(bench):
    """The directory is empty at the start, and nothing of it is left at the end."""
    script = "pwd; ls -A . $TMPDIR; touch $TMPDIR/x; mkdir -p a/b; chmod 000 a"

    first, second = bench.bash(script), bench.bash(script)

    work = bench.workdir / "7" / "1" / "work"
    assert first.context.stdout == f"{work}\n.:\n\n{work.with_name('tmp')}:\n"
    assert second.context.stdout == first.context.stdout
    assert not any(bench.workdir.iterdir())


def test_a_directory_below(bench):
    """`cwd` is made below the job's directory."""
    ended = bench.run(bench.shell("pwd"), "pwd", cwd="a/./b//c")

    assert ended.result["stdout"] == str(bench.workdir / "7" / "1" / "work" / "a" / "b" / "c")


def test_it_can_gain_no_privileges(bench):
    """A set-user-ID program gives nothing, so whatever runs can be ended by who started it."""
    assert bench.bash("grep NoNewPrivs /proc/self/status").result["stdout"] == "NoNewPrivs:\t1"


def test_the_kernel_would_rather_end_it_than_the_worker(bench):
    """When memory runs out, the program is the better victim."""
    ended = bench.bash("cat /proc/self/oom_score_adj; ulimit -c")

    assert [int(each) >= 500 for each in ended.result["stdout"].split()] == [True, False]


# --- how it ends ---------------------------------------------------------------------------------


def test_success(bench):
    """Exit status 0 is success; the result has the end of both outputs, the logs all of them."""
    ended = bench.bash("echo one; echo two; echo three >&2")

    result = dict(ended.result)
    assert 0 < result.pop("seconds") < 10
    assert result == {
        "status": "ok",
        "exit_code": 0,
        "stdout": "one\ntwo",
        "stderr": "three",
        "artifacts": ["logs/stdout.log", "logs/stderr.log"],
    }
    assert ended.context.files == {"logs/stdout.log": b"one\ntwo\n", "logs/stderr.log": b"three\n"}
    assert ended.context.events == []


def test_silence_leaves_no_empty_artifacts(bench):
    """Who prints nothing leaves nothing."""
    ended = bench.run(bench.shell("true"), "true")

    assert (ended.result["artifacts"], ended.context.files) == ([], {})
    assert "stdout" not in ended.result


def test_another_exit_status_is_tried_again(bench):
    """The status is in the reason and in an event, and what was printed is kept."""
    ended = bench.bash("echo begun; echo 'no such thing' >&2; exit 5")

    assert type(ended.outcome) is Retry
    assert str(ended.outcome) == "bash exited with 5: no such thing"
    [(level, message, facts)] = ended.context.events
    assert facts.pop("seconds") < 10
    assert (level, message) == ("warn", str(ended.outcome))
    assert facts == {"exit_code": 5, "artifacts": ["logs/stdout.log", "logs/stderr.log"]}
    assert ended.context.stdout == "begun\n"


def test_a_signal_is_named(bench):
    """A crash is told from an exit status; the number is what a shell would have made of it."""
    ended = bench.bash("kill -SEGV $$")

    assert str(ended.outcome) == "bash was ended by SIGSEGV"
    assert (ended.facts["exit_code"], ended.facts["signal"]) == (139, "SIGSEGV")
    assert str(bench.bash("kill -40 $$").outcome) == "bash was ended by signal 40"


def test_the_time_limit_of_the_job(bench, word):
    """At its time limit a run ends, politely first, and the job is tried again."""
    script = f"trap 'echo bye; exit 0' TERM; echo {word}; while :; do sleep 0.05; done"
    shell = bench.shell("bash")

    ended = bench.run(shell, ["bash", "-c", script], timeout=0.5)

    assert type(ended.outcome) is Retry
    assert str(ended.outcome) == "timeout: bash ran longer than 0.5 s"
    assert ended.facts["timeout"] == 0.5
    assert ended.context.stdout == f"{word}\nbye\n"
    assert ended.seconds < 2
    assert not word.alive()


def test_the_workers_time_limit_stands_above(bench):
    """A job may ask for less time than the worker gives, and not for more."""
    shell = bench.shell("sleep", timeout=0.2)

    for timeout in (None, 3600):
        ended = bench.run(shell, "sleep 600", timeout=timeout)

        assert str(ended.outcome) == "timeout: sleep ran longer than 0.2 s"


def test_a_stop_ends_it_within_seconds(bench, recorder, word):
    """Whoever stops the attempt has it ended, a program that will not hear of it too."""
    threading.Timer(0.3, recorder.stop.set).start()

    ended = bench.bash(f"trap '' TERM; echo on; sleep {word}; sleep {word}", recorder)

    assert type(ended.outcome) is Stopped
    assert ended.seconds < 5
    assert not word.alive()
    assert recorder.stdout == "on\n"
    assert recorder.events == []


def test_a_program_that_cannot_be_executed_waits_for_a_person(bench):
    """A file that is no program, or whose interpreter is not there, is not tried again."""
    bench.program("lost", "").write_text("#!/no/such/interpreter\n")
    bench.program("odd", "").write_text("neither script nor binary\n")

    for name, reason in (("lost", "No such file"), ("odd", "Exec format error")):
        ended = bench.run(bench.shell(name), name)

        assert type(ended.outcome) is Block
        assert f"{name} could not be run: " in str(ended.outcome)
        assert reason in str(ended.outcome)
    assert not any(bench.workdir.iterdir())


def test_what_it_leaves_running_ends_with_it(bench, word):
    """A program that exits takes its children along, and is a success all the same."""
    ended = bench.bash(f"sleep {word} & setsid sleep {word} & sleep 0.1; echo done")

    assert ended.result["stdout"] == "done"
    assert ended.seconds < 3
    assert not word.alive()


# --- what it prints ------------------------------------------------------------------------------


def test_output_can_be_read_along(bench, recorder):
    """Lines are shown while the program runs, each with its stream."""
    recorder.log = lambda text, **about: (  # type: ignore[method-assign]
        recorder.lines.append((about["stage"], about["stream"], text)), recorder.stop.set(),
    )  # fmt: skip

    ended = bench.bash("echo now; sleep 600", recorder)

    assert type(ended.outcome) is Stopped
    assert recorder.lines == [("run", "stdout", "now")]


def test_no_secret_leaves(bench):
    """Whatever a program finds out and prints, nothing secret is in what leaves the machine."""
    bench.environ |= SECRETS
    words = [*SECRETS.values(), "hunter2hunter2"]
    printed = " ".join(words)

    ended = bench.bash(f"echo '{printed}'; echo 'token {words[1]}' >&2; exit 3")

    everything = ended.context.everything() + str(ended.outcome)
    assert "[REDACTED]" in str(ended.outcome)
    assert ended.context.stdout.count("[REDACTED]") == 4
    for secret in words:
        assert secret not in everything


def test_of_too_much_output_beginning_and_end_are_kept(bench):
    """A log has a limit; what is cut is said."""
    ended = bench.bash("seq 100000", artifact_max_bytes=10_000)

    log = ended.context.files["logs/stdout.log"]
    assert len(log) <= 10_000
    assert log.startswith(b"1\n2\n")
    assert log.endswith(b"\n99999\n100000\n")
    assert re.search(rb"\n\[\.\.\. \d+ bytes cut here \.\.\.\]\n", log)
    assert ended.result["stdout"].endswith("\n99999\n100000")
    assert len(ended.result["stdout"]) <= 2000
    assert ended.result["stdout"].split("\n")[0].isdigit()


def test_output_of_any_kind(bench):
    """Bytes that are no text, and NUL, which PostgreSQL refuses, are in the log as they were."""
    ended = bench.bash(r"printf 'a\0b\377c\n'; printf 'no newline'")

    assert ended.context.files["logs/stdout.log"] == b"a\0b\xffc\nno newline\n"
    assert ended.result["stdout"] == "a\ufffdb\ufffdc\nno newline"


def test_a_log_that_cannot_be_stored_is_only_mentioned(bench, recorder):
    """The work is done; a log that is refused does not undo it."""
    recorder.refuse["logs/stdout.log"] = ArtifactTooLarge("too large")

    ended = bench.bash("echo x; echo y >&2", recorder)

    assert ended.result["warnings"] == ["logs/stdout.log could not be stored: too large"]
    assert ended.result["artifacts"] == ["logs/stderr.log"]


def test_a_lost_lease_is_not_success(bench, recorder):
    """Somebody else has the job: nothing more is stored, and the caller hears of it."""
    recorder.refuse["logs/stdout.log"] = LeaseLost("attempt 1 of job 7 no longer holds its lease")

    with pytest.raises(LeaseLost):
        bench.bash("echo x; echo y >&2", recorder)
    assert recorder.files == {}
    assert not any(bench.workdir.iterdir())


def test_a_lost_lease_does_not_hide_a_failure(bench, recorder):
    """A program that failed has failed, whoever has the job by now."""
    recorder.refuse["logs/stdout.log"] = LeaseLost("attempt 1 of job 7 no longer holds its lease")

    assert "exited with 3" in str(bench.bash("echo x; exit 3", recorder).outcome)


# --- settings ------------------------------------------------------------------------------------


def test_the_executor_of_a_worker(bench, monkeypatch, tmp_path):
    """Allowlist, limits and directories come from the environment."""
    for name, value in {
        "DATABASE_URL": "postgresql://host/database",
        "MOONMIND_SHELL_ALLOW": '["bash", {"program": "env", "args": []}]',
        "MOONMIND_SHELL_FILE_MB": "3",
        "MOONMIND_WORKDIR": str(tmp_path / "elsewhere"),
        "MOONMIND_RUN_TIMEOUT_SECONDS": "7",
    }.items():
        monkeypatch.setenv(name, value)

    shell = Shell.configure(Settings.load())

    ended = bench.run(shell, ["bash", "-c", "pwd; ulimit -f"])
    assert ended.result["stdout"] == f"{tmp_path}/elsewhere/7/1/work\n{3 * MB // 1024}"
    assert type(bench.run(shell, "env -i").outcome) is Block


def test_a_machine_that_can_watch_over_programs_passes_the_check(bench):
    """The check starts a program under a warden, once."""
    bench.shell("true").check()


@pytest.mark.parametrize(
    ("warden", "reason"),
    [
        ("raise SystemExit('no such module')", "no warden: no such module"),
        ("tree.below = None\nwarden.main()", "is /proc mounted?"),
    ],
)
def test_a_machine_that_cannot_watch_over_programs_is_refused(bench, wardens, warden, reason):
    """A warden that does not start, or falls over the first look, is told before any claim."""
    wardens(warden)

    with pytest.raises(
        SettingsError, match=re.escape(f"cannot watch over programs here: {reason}")
    ):
        bench.shell("true").check()
