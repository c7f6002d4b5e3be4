"""Asking a worker process to end: bound to one start of it."""

import psycopg
import pytest

from moonmind_queue import JobNotFound, Queue

PROCESS = {
    "agents": ["codex"], "kinds": None, "capabilities": [], "slots": 1,
    "host": "here", "pid": 7, "version": "1",
}  # fmt: skip


def test_the_process_hears_of_it_with_its_next_sign_of_life(queue):
    """And a process that begins later under the same name does not."""
    process = queue.register_worker("codex-1", **PROCESS)
    assert queue.see_worker(process) is False

    queue.stop_worker(process)

    assert queue.see_worker(process) is True
    assert queue.see_worker(queue.register_worker("codex-1", **PROCESS)) is False


def test_the_worker_is_notified(here, session):
    """Through the control channel, by its name."""
    process = here.register_worker("codex-1", **PROCESS)
    listener: psycopg.Connection = session(autocommit=True)
    listener.execute("listen moonmind_queue_control")

    here.stop_worker(process)

    [heard] = listener.notifies(timeout=5, stop_after=1)
    assert heard.payload == "codex-1"


@pytest.mark.parametrize("gone", [True, False], ids=["stopped", "unknown"])
def test_a_process_that_is_not_there_is_named(queue: Queue, gone):
    """Nothing is left behind for the next one."""
    process = queue.register_worker("codex-1", **PROCESS) if gone else 10**9
    if gone:
        queue.see_worker(process, stopped=True)

    with pytest.raises(JobNotFound, match=f"worker process {process} is not running"):
        queue.stop_worker(process)
