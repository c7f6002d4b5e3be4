"""What we want to reach, as data: each goal bounds one figure of ours in relation to another's.

The goals of a work stand together. Both figures are medians of one run on one storage; a goal
whose figures are not in the record is ``not measured``.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum

from benchmarks.arena import STORAGES
from benchmarks.record import BARE, NODE, PYTHON, Record, spoken


class Outcome(StrEnum):
    """What became of a goal."""

    REACHED = "reached"
    MISSED = "missed"
    NOT_MEASURED = "not measured"


@dataclass(frozen=True)
class Best:
    """The best of some contestants at the same figure, or at another work or figure."""

    words: str
    kinds: tuple[str, ...]
    work: str | None = None
    figure: str | None = None


PEERS = Best("the best peer", (PYTHON, NODE))
PYTHON_PEERS = Best("the best Python peer", (PYTHON,))
LIMIT = Best("the bare limit", (BARE,))


@dataclass(frozen=True)
class Goal:
    """A bound, from below or from above, on one figure of ours.

    With ``of`` the bound is a multiple of that, without it is the figure's own; ``unit`` is only
    for the reader.
    """

    work: str
    figure: str
    at_least: float | None = None
    at_most: float | None = None
    of: Best | None = None
    unit: str = ""
    storages: tuple[str, ...] = tuple(STORAGES)

    @property
    def words(self) -> str:
        """The goal for a reader: ``p50 ms ≤ 0.75 × the best peer``."""
        sign, bound = ("≥", self.at_least) if self.at_least is not None else ("≤", self.at_most)
        unit = f" × {self.of.words}" if self.of else f" {self.unit}".rstrip()
        return f"{spoken(self.figure)} {sign} {bound:g}{unit}"

    def verdict(self, record: Record, storage: str) -> "Verdict":
        """Hold it against what a run measured on one storage."""
        value = record.median(self.work, storage, record.ours, self.figure)
        against = ""
        if value is not None and self.of:
            against, reference = self._reference(record, storage)
            value = value / reference if reference else None
        if value is None:
            return Verdict(Outcome.NOT_MEASURED)
        low = self.at_least is None or value >= self.at_least
        high = self.at_most is None or value <= self.at_most
        return Verdict(Outcome.REACHED if low and high else Outcome.MISSED, value, against)

    def _reference(self, record: Record, storage: str) -> tuple[str, float]:
        """Return the best of those compared with, and its figure; 0 when nobody has one."""
        assert self.of
        work, figure = self.of.work or self.work, self.of.figure or self.figure
        medians = {
            name: median
            for name in record.of(*self.of.kinds)
            if (median := record.median(work, storage, name, figure)) is not None
        }
        best = max if self.at_least is not None else min
        return best(medians.items(), key=lambda item: item[1], default=("", 0.0))


@dataclass(frozen=True)
class Verdict:
    """What was reached: a multiple of what ``against`` reached, or our own figure."""

    outcome: Outcome
    value: float | None = None
    against: str = ""


def _w2(work: str) -> Iterator[Goal]:
    """A drain is to be quick by the measure of all: history, lease and fencing are ours alone."""
    yield Goal(work, "jobs_per_second", at_least=1.0, of=PEERS)
    yield Goal(work, "jobs_per_second", at_least=2.5, of=PYTHON_PEERS)
    yield Goal(work, "jobs_per_second", at_least=0.5, of=LIMIT)


GOALS: tuple[Goal, ...] = (
    Goal("W1a", "jobs_per_second", at_least=1.5, of=PEERS),
    Goal("W1a", "jobs_per_second", at_least=0.6, of=LIMIT),
    Goal("W1b", "jobs_per_second", at_least=1.2, of=PEERS),
    *_w2("W2-1"),
    *_w2("W2-2"),
    *_w2("W2-4"),
    Goal("W3", "p50_ms", at_most=0.75, of=PEERS),
    Goal("W3", "p99_ms", at_most=0.75, of=PEERS),
    Goal("W5", "ratio", at_least=0.9, storages=("disk", "tmpfs")),
    Goal("W5", "last_jobs_per_second", at_least=2.0, of=PEERS, storages=("disk", "tmpfs")),
)
