"""How a worker that lives on an event loop learns that it is to stop; standard library only."""

import asyncio
import threading
from collections.abc import Coroutine
from typing import Any


async def until_stopped(
    working: Coroutine[Any, Any, Any], stop: threading.Event
) -> asyncio.Task[Any]:
    """Run a worker until ``stop`` is set and return its task, which still has to be ended.

    A worker that ends before it was told to has failed: that is an error, for nobody else would
    ever do its jobs.
    """
    loop = asyncio.get_running_loop()
    stopped = asyncio.Event()

    def watch() -> None:
        stop.wait()
        loop.call_soon_threadsafe(stopped.set)

    # A daemon, unlike the threads of asyncio.to_thread: it must not outlive a worker that fails.
    threading.Thread(target=watch, daemon=True).start()
    worker = asyncio.create_task(working)
    told = asyncio.create_task(stopped.wait())
    await asyncio.wait({worker, told}, return_when=asyncio.FIRST_COMPLETED)
    if not stopped.is_set():
        await worker
        raise RuntimeError(f"{working.__qualname__} ended by itself; it works until it is stopped")
    return worker
