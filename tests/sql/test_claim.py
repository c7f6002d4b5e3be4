"""claim(): who gets which job, and what the lease then says."""

from datetime import timedelta

from moonmind_queue import Queue

MINUTE = timedelta(minutes=1)


def test_most_urgent_then_oldest_first(queue: Queue, clock):
    """Priority decides; age breaks ties."""
    old = queue.enqueue("k")
    clock.advance(MINUTE)
    young = queue.enqueue("k")
    urgent = queue.enqueue("k", priority=1)

    claimed = queue.claim("w", limit=10)

    assert [job.id for job in claimed] == [urgent, old, young]
