"""What we want to reach, as data: each goal bounds one figure of ours in relation to another's.

The goals of a work stand together. Both figures are medians of one run on one storage; a goal
whose figures are not in the record is ``not measured``.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum

from benchmarks.arena import STORAGES
from benchmarks.record import BARE, NODE, OURS, PYTHON, Record, spoken


class Outcome(StrEnum):
    """What became of a goal."""

    REACHED = "reached"
    MISSED = "missed"
    NOT_MEASURED = "not measured"


@dataclass(frozen=True)
class Best:
    """The best of some contestants at the same figure of the same work, or at one named here.

    Best is the most for a bound from below, and the least for one from above.
    """

    words: str
    kinds: tuple[str, ...]
    work: str | None = None
    figure: str | None = None


PEERS = Best("the best peer", (PYTHON, NODE))
PYTHON_PEERS = Best("the best Python peer", (PYTHON,))
LIMIT = Best("the bare loop", (BARE,))  # through the same driver, as Python's queues are


@dataclass(frozen=True)
class Goal:
    """A bound, from below or from above, on one figure of ours.

    With ``of`` the bound is a multiple of that, without it is the figure's own.
    """

    work: str
    figure: str
    at_least: float | None = None
    at_most: float | None = None
    of: Best | None = None
    storages: tuple[str, ...] = tuple(STORAGES)

    @property
    def words(self) -> str:
        """The goal for a reader: ``p50 ms ≤ 0.75 × the best peer``."""
        sign, bound = ("≥", self.at_least) if self.at_least is not None else ("≤", self.at_most)
        times = f" × {self.of.words}" if self.of else ""
        return f"{spoken(self.figure)} {sign} {bound:g}{times}"

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
        name, median = best(medians.items(), key=lambda item: item[1], default=("", 0.0))
        return (self.of.words if name == record.ours else name), median


@dataclass(frozen=True)
class Verdict:
    """What was reached: a multiple of what ``against`` reached, or our own figure."""

    outcome: Outcome
    value: float | None = None
    against: str = ""


QUICK_FLUSH = ("disk", "tmpfs")  # for works that 1 ms a flush would only slow down


def _w2(work: str) -> Iterator[Goal]:
    yield Goal(work, "jobs_per_second", at_least=1.0, of=PEERS)
    yield Goal(work, "jobs_per_second", at_least=2.5, of=PYTHON_PEERS)
    yield Goal(work, "jobs_per_second", at_least=0.5, of=LIMIT)
    clients = f"jobs_per_second_{work.removeprefix('W2-')}"
    pgbench = Best("pgbench in batches of 500", (BARE,), "BARE-claim-500", clients)
    yield Goal(work, "jobs_per_second", at_least=0.5, of=pgbench)


def _w8(work: str) -> Iterator[Goal]:
    storages = QUICK_FLUSH if work == "W8-large" else tuple(STORAGES)
    for way in ("in", "out"):
        yield Goal(work, f"{way}_ratio_to_copy", at_least=0.7, storages=storages)
        yield Goal(work, f"{way}_memory_growth_mib", at_most=32, storages=storages)


def _w10(work: str) -> Iterator[Goal]:
    yield Goal(work, "statements_per_worker_and_poll", at_most=1, storages=("tmpfs",))
    yield Goal(work, "server_cpu_percent", at_most=2, storages=("tmpfs",))


GOALS: tuple[Goal, ...] = (
    # Jobs come in.
    Goal("W1a", "jobs_per_second", at_least=1.5, of=PEERS),
    Goal("W1a", "jobs_per_second", at_least=0.6, of=LIMIT),
    Goal("W1b", "jobs_per_second", at_least=1.2, of=PEERS),
    Goal("W1c", "busy_to_alone", at_least=0.8),
    Goal("W1c", "woken_to_alone", at_least=0.8),
    # Only where a flush takes its time is there a group commit that NOTIFY could end.
    Goal("W1c", "busy_to_notify", at_least=3, storages=("flush",)),
    Goal("W1c", "woken_to_notify", at_least=3, storages=("flush",)),
    # Jobs are done.
    *_w2("W2-1"),
    *_w2("W2-2"),
    *_w2("W2-4"),
    Goal("W3", "p50_ms", at_most=0.75, of=PEERS),
    Goal("W3", "p99_ms", at_most=0.75, of=PEERS),
    Goal("W4", "ratio", at_least=0.95, storages=QUICK_FLUSH),
    Goal("W5", "ratio", at_least=0.9, storages=("tmpfs",)),
    Goal("W5", "last_jobs_per_second", at_least=2.0, of=PEERS, storages=("tmpfs",)),
    # Ours alone: what peers do not have, or do not say.
    Goal("W6", "seed_100k_edges_s", at_most=10),
    Goal("W6", "unblock_p50_ms", at_most=5),
    Goal("W6", "fan_out_us_per_job_growth", at_most=1.2),
    Goal("W6", "fan_in_us_per_job_growth", at_most=1.2),
    Goal("W7", "p50_ms", at_most=20, storages=QUICK_FLUSH),
    Goal("W7", "hot_share", at_least=0.95, storages=QUICK_FLUSH),
    Goal("W7", "wal_bytes_per_renewal", at_most=200, storages=QUICK_FLUSH),
    Goal(
        "W7",
        "index_kib_after",
        at_most=1.1,
        of=Best("what it was", (OURS,), figure="index_kib_before"),
        storages=QUICK_FLUSH,
    ),
    *_w8("W8-small"),
    *_w8("W8-large"),
    Goal("W9", "p95_ms", at_most=500),
    Goal("W9", "rows_of_20000_lines", at_most=2000),
    *_w10("W10-listen"),
    *_w10("W10-poll"),
    Goal("W11", "help_seconds", at_most=0.4, storages=("tmpfs",)),
    Goal("W11", "codex_worker_to_first_claim_seconds", at_most=1, storages=("tmpfs",)),
    Goal("W11", "import_seconds", at_most=0.2, storages=("tmpfs",)),
    Goal("W11", "import_loads_sqlalchemy", at_most=0, storages=("tmpfs",)),
)
