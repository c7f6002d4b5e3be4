"""Processes beside the harness: what is measured must not share an interpreter with the measurer.

For works that need this project's own classes rather than the program of a contestant.
"""

import multiprocessing
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing.connection import Connection
from typing import ParamSpec, TypeVar

from benchmarks.contest import PATIENCE, ContestantError

SPAWN = multiprocessing.get_context("spawn")  # nothing of the harness's memory comes along

P = ParamSpec("P")
Answer = TypeVar("Answer")


def apart(work: Callable[P, Answer], *arguments: P.args, **options: P.kwargs) -> Answer:
    """Return what ``work`` returns in a new process; raises what it raises."""
    with ProcessPoolExecutor(1, mp_context=SPAWN) as one:
        try:
            return one.submit(work, *arguments, **options).result()
        except BrokenProcessPool as error:
            raise ContestantError(f"the process of {work.__name__} died: {error}") from error


@contextmanager
def beside(work: Callable[..., None], *arguments: object) -> "Iterator[Companion]":
    """Run ``work(pipe, *arguments)`` in a new process while the block lasts.

    Its end of the pipe raises ``EOFError`` when the block is over, or the harness is gone: then
    it has to return.
    """
    here, there = SPAWN.Pipe()
    process = SPAWN.Process(target=work, args=(there, *arguments))
    process.start()
    there.close()
    try:
        yield Companion(process.pid or 0, here)
    finally:
        here.close()
        process.join(PATIENCE)
        if process.is_alive():
            process.kill()
            process.join()


class Companion:
    """A process beside, and the pipe to it."""

    def __init__(self, pid: int, pipe: Connection) -> None:
        self.pid, self.pipe = pid, pipe


def until_over(pipe: Connection, then: Callable[[], None]) -> None:
    """Call ``then`` when the block of :func:`beside` is over."""
    try:
        while True:
            pipe.recv()
    except EOFError:
        then()
