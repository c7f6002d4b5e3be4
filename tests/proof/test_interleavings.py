"""Two and three sessions at once, in a forced order: what comes out is what one order gives.

The first session calls and keeps its transaction open. The second one calls meanwhile; the test
goes on when ``pg_blocking_pids`` shows that it waits, or when it has come back. Then the first one
commits, or rolls back. The answers and the rows must be those of the same calls one after the
other, in a second database: the order is that in which they got their locks.

``claim`` and ``reclaim`` never wait. Jobs of which another session has locked a row when they begin
are not there for them, then and only then; they do exactly what they would do without those jobs.
"""

import itertools
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import psycopg
import pytest
from invariants import EMPTY, broken, look
from scenes import CALLS, PINS, SCENES, SKIPPERS, Scene, call, hidden, locked, picture

from moonmind_queue import Queue, QueueError

PATIENCE = 15
Outcome = tuple[list[Any], list[tuple[Any, ...]]]  # what each session was told; the rows


@dataclass(frozen=True)
class _Call:
    """A call of one session, and how it came about."""

    session: int
    name: str
    waited: bool = field(default=False, compare=False)
    unseen: frozenset[str] = frozenset()  # what others had locked when it began, if it skips


class _Stage:
    """Three sessions on one database, one that sets and watches, and one on the reference."""

    def __init__(self, *sessions: psycopg.Connection) -> None:
        self.here, self.reference, self.first, *self.others = sessions
        self.threads = ThreadPoolExecutor(len(self.others))
        self.serial = cache(self._serial)
        self.tally: Counter[str] = Counter()

    def force(self, name: str, names: Sequence[str], *, commit: bool) -> None:
        """Let the first call stand open while the others come; compare what comes out."""
        self.here.execute(EMPTY)
        scene = SCENES[name](Queue(self.here))
        told = [_told(names[0], Queue(self.first), scene, 0)]
        calls, futures = [_Call(0, names[0])], []
        for n, connection in enumerate(self.others[: len(names) - 1], start=1):
            unseen = locked(self.here) if names[n] in SKIPPERS else frozenset()
            futures.append(self.threads.submit(_told, names[n], Queue(connection), scene, n))
            calls.append(_Call(n, names[n], self.waits(connection, futures[-1]), unseen))
        if commit:
            self.first.commit()
        else:
            self.first.rollback()
        told += [future.result(PATIENCE) for future in futures]
        waited = [call.waited for call in calls]

        case = f"{' + '.join(names)} on {name}, {'commit' if commit else 'rollback'}, {waited}"
        assert "refused: 40P01" not in told, f"deadlock: {case}"
        outcome = told, picture(self.here, scene)
        assert any(outcome == one for one in self.orders(name, calls, told, commit=commit)), (
            _unlike(case, outcome, self.orders(name, calls, told, commit=commit))
        )
        assert not any(call.waited for call in calls if call.name in SKIPPERS), case
        assert broken(self.here, *look(self.here)) == [], case
        self.tally["waited" if any(waited) else "came back at once"] += 1

    def waits(self, connection: psycopg.Connection, future: "Future[Any]") -> bool:
        """Whether a call waits for another session; returns as soon as that is certain."""
        sessions = {other.info.backend_pid for other in (self.first, *self.others)}
        deadline = time.monotonic() + PATIENCE
        while not future.done():
            [blockers] = self.here.execute(
                "select pg_blocking_pids(%s)", [connection.info.backend_pid]
            ).fetchone() or [[]]
            if blockers:
                assert sessions.issuperset(blockers), "it waits for a stranger"
                return True
            assert time.monotonic() < deadline, "it neither waits nor comes back"
        return False

    def orders(
        self, scene: str, calls: Sequence[_Call], told: Sequence[Any], *, commit: bool
    ) -> Iterator[Outcome]:
        """Yield what the calls give in each order that is possible, one after the other."""
        first, *others = calls
        for order in itertools.permutations(calls if commit else others):
            if commit and any(c.waited for c in order[: order.index(first)]):
                continue  # who waited for the first comes after it
            answers, rows = self.serial(scene, order)
            by_session = {c.session: answer for c, answer in zip(order, answers, strict=True)}
            yield [by_session.get(n, told[n]) for n in range(len(calls))], rows

    def _serial(self, name: str, calls: Iterable[_Call]) -> Outcome:
        """Make the calls one after the other in the database of reference, and undo them."""
        queue, told = Queue(self.reference), []
        with self.reference.transaction(force_rollback=True):
            scene = SCENES[name](queue)
            for one in calls:
                with hidden(self.reference, one.unseen):
                    told.append(_told(one.name, queue, scene, one.session, savepoint=True))
            return told, picture(self.reference, scene)

    def works(self, scene: str, name: str) -> bool:
        """Whether a call, alone on a scene, is neither refused nor finds nothing to do."""
        [told], _ = self.serial(scene, (_Call(0, name),))
        return told not in ([], False, 0) and not str(told).startswith("refused")


def _told(name: str, queue: Queue, scene: Scene, session: int, *, savepoint: bool = False) -> Any:
    """What a session is told: an answer, or an SQLSTATE."""
    try:
        with queue.connection.transaction() if savepoint else nullcontext():
            return call(name, queue, scene, session)
    except QueueError as error:
        return f"refused: {getattr(error.__cause__, 'sqlstate', None)}"


def _unlike(case: str, outcome: Outcome, orders: Iterable[Outcome]) -> str:
    lines = [case]
    for title, (told, rows) in [("got", outcome), *(("possible", order) for order in orders)]:
        lines += [f"  {title}: {told}", *map(str, rows)]
    return "\n".join(lines)


@pytest.fixture(scope="module")
def stage(session, make_queue, proving, say) -> Iterator[_Stage]:
    """The sessions; says at the end how many interleavings were forced."""
    elsewhere = make_queue()
    for dsn in (proving, elsewhere):
        session(dsn).execute("update moonmind_queue_test.clock set frozen_at = '2026-01-01Z'")
    first = session(autocommit=False)
    stage = _Stage(session(), session(elsewhere), first, session(), session())
    yield stage
    stage.threads.shutdown()
    say(f"{stage.tally.total()} interleavings forced: {dict(stage.tally)}")


@pytest.mark.parametrize(("one", "two"), list(itertools.product(CALLS, CALLS)))
def test_two_sessions(stage, one, two):
    """Whatever a job is like, and however the first session ends: the second one comes after it."""
    scenes = [scene for scene in SCENES if stage.works(scene, one)]

    for scene, commit in itertools.product(scenes, (True, False)):
        stage.force(scene, [one, two], commit=commit)

    assert scenes


@pytest.mark.parametrize(
    "calls",
    [
        ("cancel", "complete", "reclaim"),
        ("complete", "cancel", "reclaim"),
        ("reclaim", "complete", "cancel"),
        ("fail", "cancel", "retry"),
        ("cancel", "fail", "retry"),
        ("retry", "cancel", "claim"),
        ("complete", "complete", "enqueue after"),
        ("enqueue after", "complete", "complete"),
        ("complete", "enqueue after", "cancel"),
        ("enqueue after", "complete", "retry"),
        ("claim", "claim", "claim"),
        ("claim", "cancel", "retry"),
        ("claim", "retry", "unlock"),
        ("unlock", "claim", "complete"),
        ("unlock", "renew", "complete"),
        ("renew", "reclaim", "complete"),
        ("reclaim", "renew", "unlock"),
        ("release", "claim", "cancel"),
        ("release", "fail", "complete"),
        ("retry", "enqueue after", "claim"),
    ],
    ids=", ".join,
)
def test_three_sessions(stage, calls):
    """The second and the third wait for the first, or for each other, and come in some order."""
    scenes = [scene for scene in SCENES if stage.works(scene, calls[0])]

    for scene, commit in itertools.product(scenes, (True, False)):
        stage.force(scene, calls, commit=commit)

    assert scenes


@pytest.mark.parametrize(("one", "two"), list(itertools.combinations_with_replacement(CALLS, 2)))
def test_two_that_stop_half_way(stage, one, two):
    """A row that a third session has locked stops both wherever they need it: never in a circle."""
    cases = [
        (scene, pin)
        for scene, pin in itertools.product(SCENES, PINS)
        if stage.works(scene, pin) and (stage.works(scene, one) or stage.works(scene, two))
    ]

    for scene, pin in cases:
        stage.force(scene, [pin, one, two], commit=False)

    assert cases


def test_a_dependent_that_comes_back_meanwhile_is_not_forgotten(stage):
    """Added behind a completion's first look, cancelled and just retried: it is counted once."""
    stage.here.execute(EMPTY)
    here, pinning = Queue(stage.here), stage.others[1]
    scene = SCENES["held"](here)
    with pinning.transaction():
        pinning.execute("select from job where id = %s for share", [scene.job])
        completion = stage.threads.submit(CALLS["complete many"], Queue(stage.others[0]), scene, 0)
        assert stage.waits(stage.others[0], completion)  # for the job, and it has seen no other
        new = here.enqueue("k", key="new", after=[scene.job])
        here.cancel(new)
        assert Queue(stage.first).retry(new) == "waiting"
    assert stage.waits(stage.others[0], completion)  # for the retry
    stage.first.commit()

    assert completion.result(PATIENCE) == 1
    assert here.get(new).state == "queued"
    assert broken(stage.here, *look(stage.here)) == []
