"""What the harness and a contestant written in Python say to each other; standard library only.

A contestant is a program that runs in an environment of its own:

    python use_x.py install DSN    make the schema, print the version, end
    python use_x.py produce DSN    enqueue when told to
    python use_x.py work DSN       run jobs until standard input ends

It answers with one JSON object a line. Every time is CLOCK_MONOTONIC, in seconds: on one machine
that is one clock for all processes. ``speech.mjs`` says the same in JavaScript.
"""

import itertools
import json
import sys
import threading
import time
from array import array
from collections.abc import Callable, Sequence
from typing import Any, Protocol

REPORT = 0.1  # seconds between reports of progress


class Producer(Protocol):
    """Enqueues jobs whose payload is ``{"n": number}`` and whose handler does nothing."""

    def single(self, number: int) -> None:
        """Enqueue one job in a transaction of its own, and return when that is committed."""

    def bulk(self, numbers: Sequence[int]) -> None:
        """Enqueue all of them in one call, or what comes nearest to that."""


class Contestant(Protocol):
    """One queue. ``unfinished`` is a query that counts the jobs which have not ended yet."""

    unfinished: str

    def install(self, dsn: str) -> str:
        """Make the schema in an empty database; return the version and the settings that matter."""

    def producer(self, dsn: str) -> Producer:
        """Connect a producer."""

    def work(self, dsn: str, options: "Options", note: Callable[[int], None]) -> None:
        """Work until ``options.stop`` is set; each handler begins with ``note(number)``."""


class Options:
    """How to work: ``processes`` is how many of us there are; ``slots`` None is as many as is best.

    ``purpose`` is ``drain`` (jobs by the ten thousand) or ``pickup`` (one at a time, at once), for
    those whose documentation names different settings for the two.
    """

    def __init__(self, given: dict[str, Any], stop: threading.Event) -> None:
        self.processes: int = given.get("processes", 1)
        self.purpose: str = given.get("purpose", "drain")
        self.index: int = given.get("index", 0)  # which of the processes this is
        self.stop = stop


def speak(contestant: Contestant) -> None:
    """Be the program of a contestant."""
    role, dsn = sys.argv[1:3]
    if role == "install":
        say(version=contestant.install(dsn), unfinished=contestant.unfinished)
    elif role == "produce":
        _produce(contestant.producer(dsn))
    elif role == "work":
        _work(contestant, dsn)
    else:
        sys.exit(f"{role} is not a role; there are install, produce and work")


def say(**words: Any) -> None:
    """Print one line for the harness."""
    sys.stdout.write(json.dumps(words) + "\n")
    sys.stdout.flush()


def _produce(producer: Producer) -> None:
    say(ready=True)
    for line in sys.stdin:
        order = json.loads(line)
        numbers = range(order["first"], order["first"] + order["count"])
        before = time.monotonic()
        if order["do"] == "bulk":
            for batch in itertools.count(0, order["batch"]):
                if not numbers[batch:]:
                    break
                producer.bulk(numbers[batch : batch + order["batch"]])
        else:
            for number in numbers:
                producer.single(number)
        say(began=before, ended=time.monotonic())


def _work(contestant: Contestant, dsn: str) -> None:
    numbers, times = array("q"), array("d")
    stop = threading.Event()

    def note(number: int) -> None:
        times.append(time.monotonic())
        numbers.append(number)

    def listen() -> None:
        for _ in sys.stdin:
            pass
        stop.set()

    def report() -> None:
        said = 0
        while not stop.wait(REPORT):
            if len(numbers) > said:
                said = len(numbers)
                say(handled=said, first=times[0])

    say(ready=True)
    options = Options(json.loads(sys.stdin.readline() or "{}"), stop)
    for target in (listen, report):
        threading.Thread(target=target, daemon=True).start()
    contestant.work(dsn, options, note)
    starts = list(zip(numbers, times, strict=False)) if options.purpose == "pickup" else []
    say(handled=len(numbers), first=times[0] if times else None, starts=starts)
