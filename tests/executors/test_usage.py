"""What the files and the processes of a run come to."""

import os
import subprocess
import sys

from moonmind_queue.executors import tree
from moonmind_queue.executors.usage import Directory, Time, memory

KB, MB = 1024, 1024 * 1024


def sizes(path):
    """Return an iterator over the sizes of what is in a directory."""
    return Directory(str(path), 1 << 40)._measure([])


def write(path, size):
    """Write a file of so many bytes that are on the disk at once."""
    with path.open("wb") as file:
        file.write(os.urandom(size))
        os.fsync(file.fileno())


def test_files_that_vanish_meanwhile_hide_no_others(tmp_path):
    """A directory in which files come and go is counted all the same."""
    for number in range(40):
        write(tmp_path / f"{number}", 64 * KB if number % 2 else 0)

    going = sizes(tmp_path)
    counted = next(going)
    for number in range(0, 40, 2):
        (tmp_path / f"{number}").unlink()
    counted += sum(going)

    assert counted >= 20 * 64 * KB


def test_a_file_of_several_names_counts_once(tmp_path):
    """A hard link takes no room."""
    write(tmp_path / "one", MB)
    (tmp_path / "two").hardlink_to(tmp_path / "one")
    (tmp_path / "link").symlink_to("one")

    assert MB <= sum(sizes(tmp_path)) < 2 * MB


def test_time_of_processes_that_nobody_waited_for():
    """What a process has used stays when it is gone and its parent was told nothing."""
    process = tree.look(os.getpid())
    process.ticks, process.waited = 500, 0
    clock = os.sysconf("SC_CLK_TCK")
    time = Time()

    before = time.used([process])
    after = time.used([])

    assert before >= 500 / clock
    assert after >= 500 / clock


def test_memory_that_is_shared_is_told_apart_beyond_the_limit():
    """Below the limit nobody looks closer; above it, what is shared counts in parts."""
    script = """
import os
kept = bytearray(b"x") * 50_000_000
child = os.fork()
if not child:
    input()
print(child, flush=True)
input()
"""
    with subprocess.Popen(
        [sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as parent:
        child = int(parent.stdout.readline())
        both = [tree.look(parent.pid), tree.look(child)]
        try:
            assert memory(both, 1 << 40) > 100_000_000
            assert 50_000_000 < memory(both, 60_000_000) < 100_000_000
        finally:
            for each in both:
                os.kill(each.pid, 9)
