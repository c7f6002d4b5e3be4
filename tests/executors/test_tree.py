"""Who descends from a process, by what the kernel tells of it."""

import subprocess
import sys
import threading

import pytest
from waiting import eventually

from moonmind_queue.executors import tree


@pytest.mark.parametrize("listed", [True, False])
def test_all_descendants_are_found(monkeypatch, word, listed):
    """Children, theirs, and who has a session of its own; also without lists of children."""
    monkeypatch.setattr(tree, "_LISTED", listed)
    script = f"(sleep {word}; true) & setsid sleep {word} & wait"
    with subprocess.Popen(["sh", "-c", script]) as top:
        try:
            eventually(lambda: len(word.alive()) == 4)
            found = [process.pid for process in tree.below()]
        finally:
            for pid in word.alive():
                subprocess.run(["kill", "-KILL", str(pid)], check=False)

    assert {top.pid, *word.gone} <= set(found)
    assert found.index(top.pid) == min(map(found.index, word.gone))


def test_the_children_of_threads_are_found():
    """A process that another thread started is a child like any other."""
    started = []

    def start():
        started.append(subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE))
        told.set()
        done.wait()

    told, done = threading.Event(), threading.Event()
    thread = threading.Thread(target=start)
    thread.start()
    told.wait()
    try:
        assert started[0].pid in [process.pid for process in tree.below()]
    finally:
        done.set()
        thread.join()
        started[0].communicate()


def test_the_threads_of_the_machine_are_counted():
    """More threads, a larger number."""
    done = threading.Event()
    before = tree.threads()
    crowd = [threading.Thread(target=done.wait) for _ in range(400)]
    for each in crowd:
        each.start()
    try:
        assert tree.threads() > before + 200  # others come and go
    finally:
        done.set()
        for each in crowd:
            each.join()
