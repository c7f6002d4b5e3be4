"""A crowd of our workers, each a process with one slot, forked from one that has loaded them:

    python -m benchmarks.crowd DSN WORKERS

Jobs of kind ``nothing`` end at once, those with ``{"seconds": n}`` after so long. The crowd ends
when standard input does, at once and without a word: its database is dropped afterwards.
"""

import logging
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from moonmind_queue import Worker, logs
from moonmind_queue.executors.noop import Noop

ROOT = Path(__file__).parent.parent


@contextmanager
def crowd(dsn: str, workers: int) -> Iterator[None]:
    """Keep so many worker processes running."""
    command = [sys.executable, "-m", __spec__.name, dsn, str(workers)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, cwd=ROOT):
        yield


def main() -> None:
    """Be the crowd."""
    dsn, workers = sys.argv[1], int(sys.argv[2])
    children = [_fork(dsn, f"crowd-{number}") for number in range(workers)]
    sys.stdin.read()
    for child in children:
        os.waitpid(child, 0)


def _fork(dsn: str, name: str) -> int:
    """Start one worker; it reads the same standard input, which says nothing but that it ends."""
    if child := os.fork():
        return child
    logs.setup(level=logging.ERROR)
    threading.Thread(target=lambda: (sys.stdin.read(), os._exit(0)), daemon=True).start()
    Worker(dsn, {"nothing": Noop(0)}, name=name).run()
    os._exit(0)


if __name__ == "__main__":
    main()
