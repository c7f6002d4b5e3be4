"""A program and its warden, below the executor: how they start, end and report."""

import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from waiting import eventually

from moonmind_queue.executors.confined import Limits, ProgramChanged, Warden
from moonmind_queue.executors.process import End, run
from moonmind_queue.executors.warden import identify

GB = 1024**3
LIMITS = Limits(memory=4 * GB, cpu=60, file=GB, directory=GB, processes=500)
SH = Path("/bin/sh").resolve()


def confined(argv, folder, program=SH, identity=None, **options):
    """Run a program under a warden; returns how it ended and its lines."""
    lines: list[bytes] = []
    warden = Warden(
        limits=LIMITS,
        folder=folder,
        program=program,
        identity=identity or identify(program.stat()),
    )
    ended = run(
        argv, cwd=folder, env={"LANG": "C.UTF-8"}, stdout=lines.append, stderr=lines.append,
        launch=warden, **options,
    )  # fmt: skip
    return ended, lines


def test_status_and_output(tmp_path):
    """Both outputs come, with the exit status; the signal's number when there was one."""
    ended, lines = confined(["sh", "-c", "echo one; echo two >&2; exit 5"], tmp_path)

    assert (ended.end, ended.returncode, ended.exceeded) == (End.EXITED, 5, None)
    assert sorted(lines) == [b"one", b"two"]
    assert confined(["sh", "-c", "kill -KILL $$"], tmp_path)[0].returncode == -9


def test_any_bytes_as_arguments(tmp_path):
    """What stands in argv arrives as it is, also what is no UTF-8, and a name that is none."""
    _, lines = confined(["sh", "-c", 'printf \'%s|\' "$0" "$@"', "é\udcff", "", "-"], tmp_path)

    assert lines == [b"\xc3\xa9\xff||-|"]


def test_input(tmp_path):
    """Input reaches the program and not its warden."""
    _, lines = confined(["sh", "-c", "wc -c"], tmp_path, stdin=b"x" * 1_000_000)

    assert lines[0].strip() == b"1000000"


def test_another_file_is_not_run(tmp_path):
    """A file that is not the one that was meant is refused by the last process before it."""
    with pytest.raises(ProgramChanged):
        confined(["sh", "-c", f"touch {tmp_path}/ran"], tmp_path, identity=(1, 2, 3, 4))
    assert not any(tmp_path.iterdir())


def test_what_cannot_be_run(tmp_path):
    """The reason of the kernel is raised."""
    plain = tmp_path / "plain"
    plain.write_text("x")

    with pytest.raises(PermissionError):
        confined(["plain"], tmp_path, plain)
    with pytest.raises(FileNotFoundError):
        confined(["gone"], tmp_path, tmp_path / "gone", (1, 2, 3, 4))


def test_a_signal_reaches_the_whole_group(tmp_path):
    """Asked to end, the program's children hear of it too, and may have their say."""
    child = "trap 'echo child; exit' TERM; echo on; while :; do sleep 0.05; done"
    script = f"trap 'wait; echo parent; exit 0' TERM; (exec sh -c \"{child}\") & wait; wait"
    stop = threading.Event()
    lines: list[bytes] = []

    def take(line):
        lines.append(line)
        stop.set()

    ended = run(
        ["sh", "-c", script], cwd=tmp_path, env={}, stdout=take, stop=stop, interrupt=15,
        stderr=lambda _: None,  # some shells tell there what became of whom
        launch=Warden(
            limits=LIMITS, folder=tmp_path, program=SH, identity=identify(SH.stat())
        ),
    )  # fmt: skip

    assert (ended.end, ended.returncode) == (End.STOPPED, 0)
    assert lines == [b"on", b"child", b"parent"]


def test_a_sink_that_raises(tmp_path, word):
    """When the output cannot be kept the program ends too, and the reason is raised."""

    def full(_):
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        run(
            ["sh", "-c", f"echo x; sleep {word}"], cwd=tmp_path, env={}, stdout=full, stderr=full,
            launch=Warden(limits=LIMITS, folder=tmp_path, program=SH, identity=identify(SH.stat())),
        )  # fmt: skip
    assert not word.alive()


def test_nothing_is_left_in_this_process(tmp_path):
    """A run leaves no thread, no file descriptor and no zombie."""

    def count():
        children = Path(f"/proc/self/task/{threading.get_native_id()}/children").read_text()
        return len(list(Path("/proc/self/fd").iterdir())), children

    before = count()
    for _ in range(3):
        confined(["sh", "-c", "true"], tmp_path)
        with pytest.raises(ProgramChanged):
            confined(["sh"], tmp_path, identity=(1, 2, 3, 4))

    assert count() == before


WORKER = """
import sys, threading, pathlib
from moonmind_queue.executors.confined import Limits, Warden
from moonmind_queue.executors.process import run
from moonmind_queue.executors.warden import identify
sh, folder, script = pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2]), sys.argv[3]
warden = Warden(
    limits=Limits(1 << 32, 60, 1 << 30, 1 << 30, 500),
    folder=folder, program=sh, identity=identify(sh.stat()),
)
def go():
    run(["sh", "-c", script], cwd=folder, env={}, stdout=print, stderr=print, launch=warden)
threading.Thread(target=go).start()
"""


def test_a_killed_worker_takes_all_along(tmp_path, word):
    """SIGKILL of the worker ends what its programs started, wherever that has gone."""
    script = f"setsid env -i sleep {word} & exec sleep {word}"
    worker = subprocess.Popen([sys.executable, "-c", WORKER, str(SH), str(tmp_path), script])

    try:
        eventually(lambda: len(word.alive()) >= 4)  # worker, warden and both that sleep
    finally:
        worker.kill()
        worker.wait()

    eventually(lambda: not word.alive())


def test_a_program_signals_what_it_has_started_and_nobody_else(tmp_path, can_fence):
    """Neither its warden nor its worker; where the kernel does not know how, that is told apart."""
    script = "sleep 600 & for pid in $! $PPID $0; do kill -0 $pid 2> /dev/null && echo $pid; done"

    _, lines = confined(["sh", "-c", script, str(os.getpid())], tmp_path)

    assert len(lines) == (1 if can_fence else 3)


# --- a warden that is gone -----------------------------------------------------------------------


def lose_warden(script, word, folder, kill=True):
    """Run a script in bash, kill its warden when it says so; returns how it ended, and seconds."""
    bash = Path(shutil.which("bash")).resolve()

    def take(line):
        if kill:
            os.kill(int(line), signal.SIGKILL)

    begin = time.monotonic()
    ended = run(
        ["bash", "-c", script], cwd=folder, env={"HOME": f"/{word}", "PATH": os.environ["PATH"]},
        stdout=take, stderr=take, markers=lambda: [f"HOME=/{word}"],
        launch=Warden(limits=LIMITS, folder=folder, program=bash, identity=identify(bash.stat())),
    )  # fmt: skip
    return ended, time.monotonic() - begin


def test_without_its_warden_a_program_is_ended_by_its_mark(tmp_path, word):
    """Whoever killed it, the worker ends what carries the mark of the run."""
    ended, _ = lose_warden(f"setsid sleep {word} & echo $PPID; sleep {word}", word, tmp_path)

    assert (ended.end, ended.returncode) == (End.EXITED, -9)
    assert not word.alive()


def test_a_warden_that_is_lost_before_it_could_tell(tmp_path, word, wardens):
    """The program runs, the warden has not said so yet and is gone: nobody waits for ever."""
    wardens(f"""
import os, signal
write = os.write
def die(report, line):
    while line.startswith(b"started"):
        if os.path.exists("{tmp_path}/on"):
            os.kill(os.getpid(), signal.SIGKILL)
    return write(report, line)
os.write = die
warden.main()""")

    script = f"setsid sleep {word} & touch on; sleep {word}"
    ended, _ = lose_warden(script, word, tmp_path, kill=False)

    assert ended.returncode == -9
    assert not word.alive()


def test_a_program_that_holds_the_other_end_of_the_report(tmp_path, word):
    """A program of root can open what its warden has open; the worker does not wait for it."""
    script = f"""
for each in /proc/$PPID/fd/*; do
    case $(readlink "$each") in pipe:*) exec {{held}}<>"$each" ;; esac
done
env -i setsid sleep {word} & echo $PPID; sleep {word}"""
    try:
        ended, seconds = lose_warden(script, word, tmp_path)

        assert ended.returncode == -9
        assert seconds < 10
    finally:
        for pid in word.alive():  # without a warden and without a mark
            os.kill(pid, signal.SIGKILL)
