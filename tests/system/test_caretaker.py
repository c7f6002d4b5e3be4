"""Workers keep the database tidy, on the side."""

import threading
from datetime import timedelta

import pytest
from waiting import eventually

from moonmind_queue import _caretaker
from moonmind_queue.executors.noop import Noop

DAY = timedelta(days=1)
MONTHS = (
    "select count(*) from pg_inherits where inhparent = 'moonmind_queue.event'::regclass"
    " having count(*) > 1"
)


@pytest.fixture
def at_once(monkeypatch):
    """Let a worker tidy up when it starts, and all the time from then on."""
    monkeypatch.setattr(_caretaker, "FIRST", 0.01)
    monkeypatch.setattr(_caretaker, "PERIOD", 0.05)


def test_a_worker_makes_the_months_soon_after_its_start(at_once, start, look):
    """Without anybody asking for it."""
    start()

    eventually(lambda: look(MONTHS))


def test_a_worker_deletes_what_is_past_its_retention_batch_by_batch(
    at_once, monkeypatch, start, look, fresh, clock_of
):
    """Again and again while it lives, and on without a pause while there is more."""
    monkeypatch.setattr(_caretaker, "BATCH", 2)
    monkeypatch.setattr(_caretaker, "PERIOD", 3600)
    clock = clock_of(fresh)
    look("select moonmind_queue.enqueue('k') from generate_series(1, 5)")
    look("select moonmind_queue.cancel(id) from moonmind_queue.job")
    clock.advance(100 * DAY)

    start()

    eventually(lambda: look("select count(*) from moonmind_queue.job") == [0])


def test_a_busy_worker_tidies_up_too(at_once, start, look, fresh):
    """All its slots are taken: that is on a thread of its own."""
    release = threading.Event()

    class Holds(Noop):
        """Runs until the test lets it go."""

        def run(self, job, context):
            release.wait(20)
            return {}

    look("select moonmind_queue.enqueue('noop')")
    start({"noop": Holds(0)})
    eventually(lambda: look("select 1 from moonmind_queue.job where state = 'running'"))

    eventually(lambda: look(MONTHS))
    release.set()


def test_a_worker_that_was_forgotten_signs_on_anew(start, look, fresh, clock_of, listening):
    """A week of silence, or a restored database: it is in the registry again and works."""
    start(lease=timedelta(seconds=0.6), poll=timedelta(seconds=0.1))
    eventually(listening)
    before = look("select id from moonmind_queue.worker_overview")

    look("with gone as (delete from moonmind_queue.worker returning 1) select * from gone")
    eventually(lambda: look("select id from moonmind_queue.worker_overview where status = 'live'"))
    look("select moonmind_queue.enqueue('noop')")

    eventually(lambda: look("select 1 from moonmind_queue.job where state = 'succeeded'"))
    assert look("select id from moonmind_queue.worker_overview") != before
