"""doze() and next_due(): who sleeps is notified, nobody else is, and no wake-up is lost."""

from datetime import timedelta

import psycopg
import pytest

from moonmind_queue import Queue
from moonmind_queue.errors import InvalidArgument

MINUTE = timedelta(minutes=1)


@pytest.fixture
def worker(here):
    """The id of a process that serves agent codex."""
    return here.register_worker(
        "w", agents=["codex"], kinds=None, capabilities=[], slots=1, host="h", pid=1, version="1"
    )


@pytest.fixture
def heard(session):
    """Listen without dozing; called, it says how often codex was notified since the last call."""
    connection = session(autocommit=True)
    connection.execute("listen moonmind_queue")

    def count():
        connection.execute("select pg_notify('moonmind_queue', 'that was all')")
        payloads = iter(notice.payload for notice in connection.notifies(timeout=15))
        return len(list(iter(lambda: next(payloads), "that was all")))

    return count


def test_nobody_is_notified_while_nobody_sleeps(here, worker, heard):
    """Busy workers cost a producer no notification."""
    here.enqueue("k")

    assert heard() == 0


def test_who_sleeps_is_notified_once(here, worker, heard):
    """Then it is awake, and the next producers pay nothing, until it falls asleep again."""
    here.doze(worker)
    here.enqueue("k")
    here.enqueue("k")
    first = heard()
    here.doze(worker)
    here.enqueue("k")

    assert (first, heard()) == (1, 1)


def test_who_got_up_by_itself_is_not_notified(here, worker, heard):
    """As a worker does that ends."""
    here.doze(worker)
    here.doze(worker, asleep=False)

    here.enqueue("k")

    assert heard() == 0


def test_a_producer_that_takes_its_wake_up_back_leaves_the_worker_asleep(
    here, session, worker, heard
):
    """Whether it rolls back all it did or to a savepoint."""
    here.doze(worker)
    producer = session()
    with producer.transaction(force_rollback=True):
        Queue(producer).enqueue("k")
    producer.commit()

    here.enqueue("k")

    assert heard() == 1


def test_a_producer_beside_one_that_may_roll_back_notifies_too(here, session, worker, heard):
    """And does not wait for it: its own job would lie there unseen."""
    here.doze(worker)
    slow = session()
    Queue(slow).enqueue("k")

    here.enqueue("k")

    assert heard() == 1
    slow.rollback()
    here.enqueue("k")
    assert heard() == 1


@pytest.mark.parametrize("asleep", [True, False])
def test_falling_asleep_and_getting_up_wait_for_no_producer(here, session, worker, heard, asleep):
    """One that is waking this worker may keep its transaction open for long."""
    here.doze(worker)
    slow = session()
    Queue(slow).enqueue("k")

    process = session(autocommit=True)
    process.execute("set lock_timeout = '5s'")
    Queue(process).doze(worker, asleep=asleep)

    slow.commit()
    heard()
    here.enqueue("k")
    assert heard() == asleep


@pytest.mark.parametrize(("agents", "notified"), [(["codex"], 1), (["claude"], 0), (None, 1)])
def test_only_of_agents_that_it_serves(here, heard, agents, notified):
    """A null list: of all."""
    here.doze(
        here.register_worker(
            "v", agents=agents, kinds=None, capabilities=[], slots=1, host="h", pid=1, version="1"
        )
    )

    here.enqueue("k", agent="codex")

    assert heard() == notified


def test_two_processes_of_one_name_sleep_apart(here, worker, heard):
    """The one that wakes up does not take the other's notifications away."""
    other = here.register_worker(
        "w", agents=["codex"], kinds=None, capabilities=[], slots=1, host="h", pid=2, version="1"
    )
    here.doze(worker)
    here.doze(other)

    here.doze(worker, asleep=False)
    here.enqueue("k")

    assert heard() == 1


def test_who_says_goodbye_sleeps_no_more(here, worker, heard):
    """A stopped process is not notified."""
    here.doze(worker)
    here.see_worker(worker, stopped=True)

    here.enqueue("k")

    assert heard() == 0


def test_falling_asleep_twice_is_once(here, worker, look):
    """It changes nothing."""
    here.doze(worker)
    here.doze(worker)

    assert look("select count(*) from moonmind_queue.sleeper") == [1]


def test_only_a_registered_process_can_sleep(here):
    """A typing error would wait for ever."""
    with pytest.raises(InvalidArgument, match="99 is not registered"):
        here.doze(99)


def test_a_job_committed_before_is_seen(here, worker):
    """Falling asleep, then looking: what came in between is there to be claimed."""
    here.doze(worker)
    here.enqueue("k")

    due, horizon = here.next_due(["codex"], horizon=0)

    assert (due, horizon) == (timedelta(0), None)


def test_a_producer_that_did_not_see_the_sleeper_is_waited_for(here, session, worker, heard):
    """The race that would lose a wake-up, forced.

    The producer looks for sleepers, then the worker falls asleep and finds nothing, then the
    producer commits without a notification. The horizon keeps the worker looking until then.
    """
    producer = session()
    Queue(producer).enqueue("k")
    here.doze(worker)
    due, horizon = here.next_due(["codex"], horizon=0)
    assert due is None
    assert horizon is not None
    assert here.next_due(["codex"], horizon=horizon) == (None, horizon)

    producer.commit()

    assert heard() == 0
    assert here.next_due(["codex"], horizon=horizon) == (timedelta(0), None)


def test_a_producer_whose_number_is_above_every_snapshot_is_waited_for(here, session, worker):
    """It began to write after the sleeper did and looked before that committed.

    No transaction above its number has ended, so no snapshot's end is above it either.
    """
    sleeper, producer = session(), session()
    Queue(sleeper).doze(worker)
    Queue(producer).enqueue("k")
    sleeper.commit()

    due, horizon = here.next_due(["codex"], horizon=0)

    assert due is None
    assert horizon is not None
    producer.commit()
    assert here.next_due(["codex"], horizon=horizon) == (timedelta(0), None)


def test_a_producer_that_commits_while_the_worker_looks_is_not_missed(
    here, session, worker, blocked
):
    """Its lane is new: a look that began before the commit must not say that all is settled."""
    producer, gate = session(), session()
    Queue(producer).enqueue("new")
    here.doze(worker)
    gate.execute("lock table moonmind_queue.policy")

    looking = blocked(lambda queue: queue.next_due(["codex"], horizon=0))
    producer.commit()
    gate.rollback()

    due, horizon = looking.result(15)
    assert due == timedelta(0) or horizon is not None


def test_a_producer_that_comes_later_is_not_waited_for(here, session, worker, heard):
    """It sees the sleeper, and notifies."""
    here.doze(worker)
    _, horizon = here.next_due(["codex"], horizon=0)
    producer = session()
    Queue(producer).enqueue("k")

    assert horizon is None
    producer.commit()
    assert heard() == 1


def test_the_wait_ends_with_those_that_were_under_way(here, session, worker):
    """A transaction that began after the horizon does not prolong it."""
    early, late = session(), session()
    early.execute("select txid_current()")
    here.doze(worker)
    _, horizon = here.next_due(["codex"], horizon=0)
    late.execute("select txid_current()")

    early.commit()

    assert here.next_due(["codex"], horizon=horizon)[1] is None


def test_a_transaction_with_an_old_snapshot_always_notifies(here, session, worker, heard):
    """It cannot see who fell asleep after its first statement, and was not under way by number."""
    producer = session()
    producer.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
    producer.execute("select 1 from moonmind_queue.job")
    here.doze(worker)
    assert here.next_due(["codex"], horizon=0)[1] is None

    Queue(producer).enqueue("k")
    producer.commit()

    assert heard() == 1


def test_sleeping_is_forgotten_with_a_crash(look):
    """The table is unlogged: after a crash all connections are gone, and so is who slept."""
    assert look(
        "select relpersistence::text from pg_class where oid = 'moonmind_queue.sleeper'::regclass"
    ) == ["u"]


@pytest.mark.parametrize("what", ["ready", "lease", "scheduled", "nothing"])
def test_what_an_idle_worker_is_told(queue, clock, what):
    """0 when there is something to claim or take back, the time until then, or never."""
    if what == "ready":
        queue.enqueue("k")
    elif what == "lease":
        queue.enqueue("k")
        queue.claim("w", lease=MINUTE)
    elif what == "scheduled":
        queue.enqueue("k", run_at=clock.now + 2 * MINUTE)

    expected = {"ready": timedelta(0), "lease": MINUTE, "scheduled": 2 * MINUTE, "nothing": None}
    assert queue.next_due()[0] == expected[what]
