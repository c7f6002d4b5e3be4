"""absurd: durable tasks whose every rule is a SQL function; the SDK polls and has no bulk call."""

import subprocess
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version
from pathlib import Path

import psycopg
import speech
from absurd_sdk import Absurd

QUEUE = "bench"
STORAGE = "unpartitioned"  # its default; partitioned costs the server half as much again

# A client has one connection, on which its tasks end one after the other: several use both
# processors and share flushes. A thread each costs less than as many in one event loop.
CLIENTS = {"drain": 8, "pickup": 1}
BATCH = 100  # what one claim takes, which also looks through the whole table each time
# Seconds between polls, for there is no notification. Its default is a quarter of a second.
POLL = {"drain": 0.05, "pickup": 0.001}


class Producer:
    """Spawns over one autocommitting connection."""

    def __init__(self, dsn: str) -> None:
        self._connection = psycopg.connect(dsn, autocommit=True)
        self._app = Absurd(self._connection, queue_name=QUEUE)

    def single(self, number: int) -> None:
        """One spawn."""
        self._app.spawn("nothing", {"n": number}, queue=QUEUE)

    def bulk(self, numbers: Sequence[int]) -> None:
        """There is no bulk call: one statement calls what spawn calls, with its options.

        This is three times as fast as a loop of spawns in one transaction.
        """
        self._connection.execute(
            "select count(*) from unnest(%s::bigint[]) as n, absurd.spawn_task("
            "%s, 'nothing', jsonb_build_object('n', n), '{\"max_attempts\": 5}')",
            (list(numbers), QUEUE),
        )


class AbsurdSdk:
    """See ``speech.Contestant``."""

    # Of runs, for which there is an index: a task has one of these until it has ended.
    unfinished = (
        f"select count(*) from absurd.r_{QUEUE} where state in ('pending', 'running', 'sleeping')"
    )

    def install(self, dsn: str) -> str:
        """Let its own tool make the schema, which it carries, and make a queue."""
        tool = Path(sys.executable).with_name("absurdctl")
        subprocess.run([tool, "init", "--database", dsn], check=True, stdout=subprocess.DEVNULL)
        with psycopg.connect(dsn, autocommit=True) as connection:
            Absurd(connection).create_queue(QUEUE, storage_mode=STORAGE)
        return version("absurd-sdk")

    def producer(self, dsn: str) -> Producer:
        """Connect."""
        return Producer(dsn)

    def work(self, dsn: str, options: speech.Options, note: Callable[[int], None]) -> None:
        """Run workers of one task at a time, side by side."""
        apps = [Absurd(dsn, queue_name=QUEUE) for _ in range(CLIENTS[options.purpose])]
        poll = POLL[options.purpose]
        with ThreadPoolExecutor(len(apps)) as threads:
            for app in apps:
                app.register_task("nothing")(lambda params, _: note(params["n"]))
            running = [
                threads.submit(app.start_worker, batch_size=BATCH, poll_interval=poll)
                for app in apps
            ]
            options.stop.wait()
            for app, worker in zip(apps, running, strict=True):
                app.stop_worker()
                worker.result()
        for app in apps:
            app.close()


if __name__ == "__main__":
    speech.speak(AbsurdSdk())
