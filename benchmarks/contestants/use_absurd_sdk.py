"""absurd: durable tasks whose every rule is a SQL function; the SDK polls and has no bulk call."""

import asyncio
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import psycopg
import speech
from absurd_sdk import Absurd, AsyncAbsurd

QUEUE = "bench"
STORAGE = "unpartitioned"  # its default; partitioned, for history, it drains at a quarter of that

# A client has one connection, on which its tasks end one after the other. Several in one event
# loop use both processors and share flushes: 2.4 times as fast where a flush takes 1 ms.
CLIENTS = {"drain": 16, "pickup": 1}
CONCURRENCY = 50  # of one client, and so what one claim takes
# Seconds between polls, for there is no notification. Its default is a quarter of a second.
POLL = {"drain": 0.05, "pickup": 0.005}


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

        This is four times as fast as a loop of spawns in one transaction.
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
        """Run its asynchronous workers in one event loop."""
        asyncio.run(_work(dsn, options, note))


async def _work(dsn: str, options: speech.Options, note: Callable[[int], None]) -> None:
    async def nothing(params: dict[str, Any], _: object) -> None:
        note(params["n"])

    apps = [AsyncAbsurd(dsn, queue_name=QUEUE) for _ in range(CLIENTS[options.purpose])]
    for app in apps:
        app.register_task("nothing")(nothing)

    def stop() -> None:
        options.stop.wait()
        for app in apps:
            app.stop_worker()

    threading.Thread(target=stop, daemon=True).start()
    poll = POLL[options.purpose]
    workers = [app.start_worker(concurrency=CONCURRENCY, poll_interval=poll) for app in apps]
    await asyncio.gather(*workers)
    for app in apps:
        await app.close()


if __name__ == "__main__":
    speech.speak(AbsurdSdk())
