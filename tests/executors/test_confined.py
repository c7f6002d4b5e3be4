"""A program and its warden, below the executor: how they start, end and report."""

import subprocess
import sys
import threading
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
        ["sh", "-c", script], cwd=tmp_path, env={}, stdout=take, stderr=take, stop=stop,
        interrupt=15, launch=Warden(
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
