"""Programs that get out of hand are ended: quickly, with the reason, and all of them."""

import os
import platform
import struct
import subprocess
import sys

import pytest

from moonmind_queue.executors import Fail, Retry
from moonmind_queue.executors.shell import MB

SECONDS = 8  # for anything here, on a machine that is busy


def assert_ended(ended, limit, word=None):
    """A run was ended for a limit, soon, and nothing of it is left."""
    assert type(ended.outcome) is Fail, ended.outcome
    assert ended.facts["limit"] == limit
    assert ended.seconds < SECONDS
    assert word is None or not word.alive()


# --- processes -----------------------------------------------------------------------------------


def test_a_fork_bomb(bench, word):
    """The classic: every process starts two more."""
    ended = bench.bash(f": {word}; bomb() {{ bomb | bomb & }}; bomb; sleep 600", processes=64)

    assert_ended(ended, "processes", word)
    assert "more processes than MOONMIND_SHELL_PROCESSES allows" in str(ended.outcome)


ESCAPING_BOMB = """
import os, signal, time
for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
    signal.signal(number, signal.SIG_IGN)
while True:
    try:
        if os.fork() == 0:
            os.setsid()
    except OSError:  # there is no room for more
        time.sleep(0.01)
"""


def test_a_fork_bomb_that_leaves_its_session(bench, word, kernel):
    """Each process in a session of its own: no group holds them, only their descent."""
    assert_ended(bench.python(ESCAPING_BOMB, str(word), processes=64), "processes", word)


# The same in machine code, which is quick. Should it not be ended, it ends after ten seconds.
QUICK_BOMB = """
31ff b8c9000000 0f05 4c8d600a   time(0) + 10 -> r12
b870000000 0f05                 setsid()
31ff b8c9000000 0f05            time(0)
4c39e0 730d                     not before r12: exit
b839000000 0f05                 fork()
85c0 74e0                       the child: setsid
ebe5                            the parent: time
b83c000000 0f05                 exit
"""


def executable(listing):
    """Return a program of Linux on x86-64: a header, one segment, and the code of a listing."""
    code = bytes.fromhex("".join(line[:32] for line in listing.splitlines()))
    base, begin = 0x400000, 64 + 56
    header = struct.pack("<16s2HI3QI6H", b"\x7fELF\2\1\1", 2, 62, 1, base + begin, 64, 0, 0,
                         64, 56, 1, 0, 0, 0)  # fmt: skip
    size = begin + len(code)
    return header + struct.pack("<2I6Q", 1, 5, 0, base, base, size, size, 4096) + code


def test_a_fork_bomb_that_is_quick(bench, word, can_fence):
    """Thousands of processes a second, each in a session of its own, do not outrun their end."""
    bench.program("bomb", f"exec python3 -c '{ESCAPING_BOMB}' \"$@\"")
    held = os.getuid() or (can_fence and _goes_first())  # as docs/shell.md says
    if platform.machine() == "x86_64" and held:
        (bench.bin / "bomb").write_bytes(executable(QUICK_BOMB))

    ended = bench.run(bench.shell("bomb", processes=64), ["bomb", str(word)])

    assert_ended(ended, "processes", word)


def _goes_first():
    """Whether a warden may go before what it watches, as one of root that has CAP_SYS_NICE."""
    script = "import os; os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))"
    tried = subprocess.run([sys.executable, "-c", script], capture_output=True, check=False)
    return tried.returncode == 0


def test_a_bomb_of_threads(bench, word):
    """Threads count as processes do."""
    script = """
import threading, time
while True:
    try:
        threading.Thread(target=threading.Event().wait, daemon=True).start()
    except RuntimeError:  # there is no room for more
        time.sleep(0.01)
"""
    assert_ended(bench.python(script, str(word), processes=64), "processes", word)


HOPPER = """
import os, signal
os.write(1, b"on\\n")
if os.fork():
    signal.pause()
while True:
    if os.fork():
        os._exit(0)
    os.setsid()
"""


@pytest.mark.parametrize("kernel", ["this", "without-landlock"], indirect=True)
def test_what_forks_and_exits_in_turn(bench, word, kernel):
    """Nobody stands still to be found, and yet nobody gets away."""
    ended = bench.python(HOPPER, str(word), timeout=1)

    assert "ran longer than 1 s" in str(ended.outcome)
    assert ended.context.stdout == "on\n"
    assert ended.seconds < SECONDS
    assert not word.alive()


def test_children_that_nobody_waits_for_are_no_crowd(bench):
    """Many short processes one after the other, orphans too, are within any limit."""
    ended = bench.bash("for i in $(seq 300); do (true &) ; done; echo done", processes=64)

    assert ended.result["stdout"] == "done"


# --- memory --------------------------------------------------------------------------------------

HOG = """
import signal, sys, time
kept = []
for _ in range(int(sys.argv[1])):
    try:
        kept.append(bytearray(b"x") * 10_000_000)
    except MemoryError:
        time.sleep(0.01)
signal.pause()
"""


def test_a_memory_hog(bench, word):
    """A program that takes ever more memory is ended, long before the machine is full."""
    ended = bench.python(HOG, "100000", str(word), memory=200 * MB)

    assert_ended(ended, "memory", word)
    assert "more memory than MOONMIND_SHELL_MEMORY_MB allows" in str(ended.outcome)


def test_a_memory_hog_of_many_processes(bench, word):
    """What each of them has is little; what counts is all together."""
    script = f"""
import os
for _ in range(8):
    if os.fork() == 0:
        break
{HOG}"""
    assert_ended(bench.python(script, "5", str(word), memory=200 * MB), "memory", word)


def test_shared_memory_counts_once(bench):
    """Children that share their parent's pages do not have them again."""
    script = """
import os, time
kept = bytearray(b"x") * 100_000_000
children = []
for _ in range(6):
    if not (child := os.fork()):
        time.sleep(0.4)
        os._exit(0)
    children.append(child)
for child in children:
    os.waitpid(child, 0)
print("done")
"""
    assert bench.python(script, memory=300 * MB).result["stdout"] == "done"


# --- CPU -----------------------------------------------------------------------------------------


def test_cpu_of_one_process(bench, word):
    """A program that spins is ended when its CPU time is used up."""
    ended = bench.bash(f": {word}; while :; do :; done", cpu=1)

    assert_ended(ended, "cpu", word)


def test_cpu_of_processes_one_after_the_other(bench, word):
    """Nobody gets around the limit by having others do the work, each a little."""
    script = """
import os, time
while True:
    if not (child := os.fork()):
        while time.process_time() < 0.2:
            pass
        os._exit(0)
    os.waitpid(child, 0)
"""
    assert_ended(bench.python(script, str(word), cpu=1), "cpu", word)


def test_cpu_of_processes_that_nobody_waits_for(bench, word):
    """Nor by never asking what has become of them."""
    script = """
import os, signal, time
signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # so the kernel tells nobody what they have used
while True:
    if not os.fork():
        while time.process_time() < 0.2:
            pass
        os._exit(0)
    try:
        os.wait()
    except ChildProcessError:
        pass
"""
    assert_ended(bench.python(script, str(word), cpu=1), "cpu", word)


# --- disk and output -----------------------------------------------------------------------------

TEN_GB = 10 * 1024  # in MB


def test_one_file_of_ten_gigabytes(bench, word):
    """The kernel ends who writes beyond the size of one file."""
    ended = bench.run(
        bench.shell("dd", file=16 * MB),
        ["dd", "if=/dev/zero", f"of={word}", "bs=1M", f"count={TEN_GB}"],
    )

    assert_ended(ended, "file", word)
    assert not any(bench.workdir.iterdir())


def test_one_file_of_ten_gigabytes_from_a_shell(bench, word):
    """It makes no difference who of a run wrote it."""
    script = f"dd if=/dev/zero of={word} bs=1M count={TEN_GB}; exit $?"

    assert_ended(bench.bash(script, file=16 * MB), "file", word)


MANY = """
import sys
for number in range(10_000):
    with open(f"file{number}", "wb") as file:
        file.write(bytes(1_000_000))
"""
NAMELESS = """
import os, tempfile
kept = []
for number in range(10_000):
    kept.append(tempfile.TemporaryFile(dir=os.environ["TMPDIR"]))
    kept[-1].write(bytes(20_000_000))
    kept[-1].flush()
"""
IN_MEMORY = """
import os
kept = []
for number in range(10_000):
    kept.append(os.memfd_create("x"))
    os.write(kept[-1], bytes(20_000_000))
"""
DEEP = """
import os, signal
for _ in range(100):
    os.mkdir("d" * 100)
    os.chdir("d" * 100)
signal.pause()
"""
EMPTY = """
import os
while True:
    os.close(os.open(f"{os.urandom(8).hex()}", os.O_CREAT))
"""


@pytest.mark.parametrize(
    ("script", "megabytes"),
    [(MANY, 50), (NAMELESS, 100), (IN_MEMORY, 100), (EMPTY, 1), (DEEP, 200)],
    ids=["many", "gone", "in memory", "empty", "out of reach"],
)
def test_ten_gigabytes_in_many_files(bench, word, script, megabytes):
    """All files count together, also those without a name or a byte, or too deep to be reached."""
    ended = bench.python(script, str(word), directory=megabytes * MB)

    assert_ended(ended, "directory", word)
    assert not any(bench.workdir.iterdir())


def test_output_without_end(bench, word):
    """Who prints without end is ended, and what is kept has its usual bounds."""
    ended = bench.bash(f"yes {word}", file=16 * MB, artifact_max_bytes=10_000)

    assert_ended(ended, "output", word)
    assert len(ended.context.files["logs/stdout.log"]) <= 10_000
    assert "printed more than MOONMIND_SHELL_FILE_MB allows" in str(ended.outcome)


def test_a_line_without_end(bench, word):
    """No newline is no way around it, and takes no memory."""
    ended = bench.bash(f": {word}; cat /dev/zero", file=16 * MB)

    assert_ended(ended, "output", word)


# --- what does not want to end -------------------------------------------------------------------

ESCAPE = """
import os, signal, sys
for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
    signal.signal(number, signal.SIG_IGN)
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        os.execve("/bin/sleep", ["sleep", sys.argv[1]], {})  # no mark in the environment either
    os._exit(0)
print("on", flush=True)
"""


def test_what_ignores_sigterm_and_escapes_at_the_time_limit(bench, word, kernel):
    """A process that hears no signal and has left session, parent and environment is ended."""
    ended = bench.python(ESCAPE + "signal.pause()", str(word), timeout=1)

    assert type(ended.outcome) is Retry
    assert "ran longer than 1 s" in str(ended.outcome)
    assert ended.context.stdout == "on\n"
    assert ended.seconds < 5
    assert not word.alive()


def test_what_escapes_when_the_program_is_done(bench, word, kernel):
    """A daemon does not outlive the job that started it."""
    ended = bench.python(ESCAPE, str(word))

    assert ended.result["stdout"] == "on"
    assert not word.alive()


def test_what_is_stopped_is_ended_too(bench, word):
    """A process that sleeps by SIGSTOP does not stay behind."""
    ended = bench.bash(f"sleep {word} & kill -STOP $!; kill -STOP $$", timeout=0.3)

    assert "ran longer than 0.3 s" in str(ended.outcome)
    assert not word.alive()
