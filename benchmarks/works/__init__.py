"""What is measured: a module for works of one sort, each work a :class:`Work` in ``WORKS``."""

from collections.abc import Callable
from dataclasses import dataclass

from benchmarks.arena import Arena
from benchmarks.contest import Contestant

Figures = dict[str, float]


@dataclass(frozen=True)
class Trial:
    """One repetition of one work by one contestant on one storage.

    ``scale`` is 1 in a full run and less in a quick one: works that end by a number of jobs or of
    seconds multiply that by it.
    """

    arena: Arena
    contestant: Contestant
    storage: str
    scale: float


@dataclass(frozen=True)
class Work:
    """One row of the table. ``measure`` returns figures by name; ``unit`` is that of the first."""

    name: str
    title: str
    unit: str
    measure: Callable[[Trial], Figures]
    storages: tuple[str, ...] = ("disk", "tmpfs", "flush")
    ours_only: bool = False
    by_pgbench: bool = False

    def concerns(self, contestant: Contestant) -> bool:
        """Return whether it takes part: pgbench is no queue, and does works of its own."""
        if self.ours_only:
            return contestant.kind == "ours"
        return self.by_pgbench == (contestant.name == "pgbench")
