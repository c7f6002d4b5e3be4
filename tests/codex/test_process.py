"""Programs run in sessions of their own, and nothing of them is left."""

import os
import random
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path

import pytest

from moonmind_queue.executors.lines import Lines
from moonmind_queue.executors.process import End, Ended, run

ENV = {"PATH": os.environ["PATH"]}


class Output:
    """Runs a shell command and keeps its lines."""

    def __init__(self, command: str, **options: object) -> None:
        self.out: list[bytes] = []
        self.err: list[bytes] = []
        begin = time.monotonic()
        self.ended: Ended = run(
            ["bash", "-c", command],
            cwd=Path("/"),
            env=ENV,
            stdout=self.out.append,
            stderr=self.err.append,
            **options,  # type: ignore[arg-type]
        )
        self.seconds = time.monotonic() - begin


@pytest.fixture
def nap() -> str:
    """The argument of a sleep that no other process has."""
    return f"{random.uniform(1000, 2000):.9f}"  # noqa: S311


def sleeping(nap: str) -> list[int]:
    """Return the processes with this argument."""
    found = []
    for each in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):
            words = each.read_bytes().split(b"\0")
            if words[0] == b"sleep" and nap.encode() in words:
                found.append(int(each.parent.name))
    return found


def test_lines_and_status() -> None:
    """Both outputs come line by line, with the exit status; a last line needs no newline."""
    output = Output("echo one; printf two; echo three >&2; exit 5")
    assert (output.out, output.err) == ([b"one", b"two"], [b"three"])
    assert output.ended == Ended(End.EXITED, 5)


def test_lines_come_as_they_are_written() -> None:
    """A line is delivered while the program still runs."""
    seen = threading.Event()
    ended = run(
        ["bash", "-c", "echo now; sleep 600"], cwd=Path("/"), env=ENV,
        stdout=lambda _: seen.set(), stderr=lambda _: None, stop=seen,
    )  # fmt: skip
    assert ended.end is End.STOPPED


def test_environment_is_what_was_given() -> None:
    """Nothing of the worker's environment reaches a program."""
    output = Output("env")
    names = {line.partition(b"=")[0] for line in output.out}
    assert names <= {b"PATH", b"LC_CTYPE", b"PWD", b"SHLVL", b"_"}


def test_signals_are_at_their_defaults() -> None:
    """What Python ignores, or the worker, a program does not: a closed pipe ends who writes."""
    output = Output("yes | head -n 1; echo ${PIPESTATUS[0]}; grep SigIgn /proc/self/status")
    *out, ignored = output.out
    assert (out, output.err) == ([b"y", b"141"], [])
    # 32 and 33 are the C library's own; programs that were started by make ignore them.
    assert int(ignored.split()[1], 16) & ~(0b11 << 31) == 0


def test_stdin() -> None:
    """A megabyte of input arrives whole; without input the program reads nothing."""
    data = b"x" * 1_048_576 + b"\n"
    assert Output("wc -c", stdin=data).out[0].strip() == b"1048577"
    assert Output("wc -c").out[0].strip() == b"0"


def test_stdin_that_nobody_reads() -> None:
    """A program that ends without reading its input is no error."""
    assert Output("exit 0", stdin=b"x" * 1_000_000).ended == Ended(End.EXITED, 0)


def test_long_line_is_cut() -> None:
    """Of a line beyond the limit the beginning is kept, with a mark that says how much is gone."""
    output = Output("head -c 3000000 /dev/zero | tr '\\0' x; echo; echo next", line_limit=1000)
    assert output.out == [b"x" * 1000 + b" [... 2999000 bytes cut ...]", b"next"]


def test_lines_of_any_chunks() -> None:
    """How bytes arrive does not change the lines."""
    data = b"a\n\nbc\r\n" + b"d" * 30 + b"\nend"
    whole: list[bytes] = []
    bytewise: list[bytes] = []
    for sink, chunks in ((whole, [data]), (bytewise, [bytes([each]) for each in data])):
        lines = Lines(sink.append, 10)
        for chunk in chunks:
            lines.feed(chunk)
        lines.end()
    assert whole == bytewise
    assert whole == [b"a", b"", b"bc\r", b"d" * 10 + b" [... 20 bytes cut ...]", b"end"]


def test_not_there(tmp_path: Path) -> None:
    """A program that cannot be started raises the reason."""
    (tmp_path / "file").touch(mode=0o644)
    with pytest.raises(FileNotFoundError):
        run(["no-such-program"], cwd=Path("/"), env=ENV, stdout=print, stderr=print)
    with pytest.raises(PermissionError):
        run([str(tmp_path / "file")], cwd=Path("/"), env=ENV, stdout=print, stderr=print)


def test_timeout_leaves_nothing(nap: str) -> None:
    """At the time limit the program goes with its children."""
    output = Output(f"sleep {nap} & exec sleep {nap}", timeout=0.2)
    assert output.ended == Ended(End.TIMEOUT, -signal.SIGINT)
    assert not sleeping(nap)


def test_what_ignores_signals_is_killed(nap: str) -> None:
    """A program that ignores the polite signal is killed after the grace."""
    output = Output(f"trap '' INT; sleep {nap} & while :; do sleep 0.1; done", timeout=0.2)
    assert output.ended == Ended(End.TIMEOUT, -signal.SIGKILL)
    assert not sleeping(nap)


def test_groups_of_the_session(nap: str) -> None:
    """Job control moves children into groups of their own; they belong to the session still."""
    Output(f"set -m; sleep {nap} & sleep 0.1")
    assert not sleeping(nap)


def test_sessions_by_marker(nap: str) -> None:
    """A child that made a session of its own is found by the mark in its environment."""
    mark = f"MARK={nap}"
    output = Output(f"export {mark}; setsid sleep {nap} & sleep 0.2", markers=lambda: [mark])
    assert output.ended.end is End.EXITED
    assert not sleeping(nap)


def test_pipe_held_open_by_a_stranger(nap: str) -> None:
    """A pipe that somebody else keeps open holds up nobody."""
    output = Output(f"setsid sleep {nap} & sleep 0.2; echo done")
    [stranger] = sleeping(nap)
    os.kill(stranger, signal.SIGKILL)
    assert output.out == [b"done"]
    assert output.seconds < 5


def test_stop(nap: str) -> None:
    """The stop event ends a run at once."""
    stop = threading.Event()
    threading.Timer(0.2, stop.set).start()
    output = Output(f"exec sleep {nap}", stop=stop)
    assert output.ended == Ended(End.STOPPED, -signal.SIGINT)
    assert output.seconds < 2


def test_a_sink_that_raises(nap: str) -> None:
    """When the output cannot be kept the program ends too, and the reason is raised."""

    def full(_: bytes) -> None:
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        run(
            ["bash", "-c", f"echo x; sleep {nap}"],
            cwd=Path("/"), env=ENV, stdout=full, stderr=full,
        )  # fmt: skip
    assert not sleeping(nap)


def test_nothing_is_left_in_this_process() -> None:
    """A run leaves no thread, no file descriptor and no zombie."""
    fds = len(list(Path("/proc/self/fd").iterdir()))
    for _ in range(3):
        Output("echo x")
    assert len(list(Path("/proc/self/fd").iterdir())) == fds
    children = Path(f"/proc/self/task/{threading.get_native_id()}/children").read_text().split()
    states = [
        Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] for pid in children
    ]
    assert "Z" not in states


def test_killed_worker_takes_its_programs_along(nap: str) -> None:
    """SIGKILL of the worker ends the programs it runs."""
    worker = subprocess.Popen(
        [
            sys.executable,
            "-c",
            "import sys, threading, pathlib\n"
            "from moonmind_queue.executors.process import run\n"
            "def go():\n"
            "    run(['sleep', sys.argv[1]], cwd=pathlib.Path('/'), env={'PATH': sys.argv[2]},"
            " stdout=print, stderr=print)\n"
            "threading.Thread(target=go).start()\n",
            nap,
            ENV["PATH"],
        ]
    )
    try:
        wait_for(lambda: sleeping(nap))
    finally:
        worker.kill()
        worker.wait()
    wait_for(lambda: not sleeping(nap))


def wait_for(truth: object) -> None:
    """Wait until something is true, for at most ten seconds."""
    deadline = time.monotonic() + 10
    while not truth():  # type: ignore[operator]
        assert time.monotonic() < deadline
        time.sleep(0.02)
