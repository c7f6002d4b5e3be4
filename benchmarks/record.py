"""What a run measured, read back from its JSON: medians and spreads by name, and what failed."""

import json
import statistics
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Self

SPELLED = {
    "wal": "WAL",
    "cpu": "CPU",
    "us": "µs",
    "kib": "KiB",
    "mib": "MiB",
    "mb": "MB",
    "copy": "COPY",
    "notify": "NOTIFY",
    "sqlalchemy": "SQLAlchemy",
}
OURS, BARE, PYTHON, NODE = "ours", "bare", "python", "node"  # what a contestant is


class RecordError(Exception):
    """A file is not the record of a run; says what it lacks."""


@dataclass(frozen=True)
class Spread:
    """A figure's median over the repetitions, its least and its most."""

    median: float
    least: float
    most: float


class Failure(NamedTuple):
    """Repetitions of one contestant at one work that gave no figures, all for one reason."""

    contestant: str
    storage: str
    repetitions: int
    reason: str


def spoken(figure: str) -> str:
    """Return a figure's name for a reader: WAL bytes per job."""
    return " ".join(SPELLED.get(word, word) for word in figure.split("_"))


class Record:
    """One run. ``contestants`` maps each name to what it is, ``works`` to title and unit."""

    def __init__(self, data: dict[str, Any], source: str = "the record") -> None:
        keys = ("began", "works", "storages", "contestants", "results")
        if missing := [key for key in keys if key not in data]:
            raise RecordError(
                f"{source} has no {', '.join(missing)}: an older harness wrote it; measure again"
            )
        self.data = data
        self.works: dict[str, dict[str, Any]] = data["works"]
        self.storages: list[str] = data["storages"]
        self.contestants: dict[str, str] = data["contestants"]
        self.left_out: dict[str, str] = data.get("left_out", {})
        self._results: dict[tuple[str, str, str], list[dict[str, Any]]] = {}
        for result in data["results"]:
            what = result["work"], result["storage"], result["contestant"]
            self._results.setdefault(what, []).append(result)

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read a record from its file."""
        try:
            return cls(json.loads(path.read_text()), str(path))
        except (OSError, ValueError) as error:
            raise RecordError(f"{path} cannot be read as the record of a run: {error}") from error

    def of(self, *kinds: str) -> list[str]:
        """Return the names of the contestants that are of these kinds."""
        return [name for name, kind in self.contestants.items() if kind in kinds]

    @property
    def ours(self) -> str:
        """The name of the contestant that is us; empty when we did not take part."""
        return next(iter(self.of(OURS)), "")

    def entered(self, work: str) -> list[str]:
        """Return the contestants that have a result at a work, be it a failure."""
        met = {contestant for name, _, contestant in self._results if name == work}
        return [name for name in self.contestants if name in met]

    def places(self, work: str) -> list[str]:
        """Return the storages on which a work was tried."""
        met = {storage for name, storage, _ in self._results if name == work}
        return [storage for storage in self.storages if storage in met]

    def figures(self, work: str) -> list[str]:
        """Return the names of a work's figures; the first is the one that its unit is for."""
        names: dict[str, None] = {}
        for (name, _, _), results in self._results.items():
            if name == work:
                for result in results:
                    names |= dict.fromkeys(result.get("figures", ()))
        return list(names)

    def spread(self, work: str, storage: str, contestant: str, figure: str) -> Spread | None:
        """Return a figure over all repetitions that gave it; None when there is none."""
        values = [
            result["figures"][figure]
            for result in self._results.get((work, storage, contestant), ())
            if figure in result.get("figures", ())
        ]
        return Spread(statistics.median(values), min(values), max(values)) if values else None

    def median(self, work: str, storage: str, contestant: str, figure: str) -> float | None:
        """Return the median of a figure; None when it was not measured."""
        spread = self.spread(work, storage, contestant, figure)
        return spread.median if spread else None

    def failures(self, work: str) -> Iterator[Failure]:
        """Find what went wrong at a work."""
        for (name, storage, contestant), results in self._results.items():
            if name != work:
                continue
            reasons = [result["error"] for result in results if "error" in result]
            for reason in dict.fromkeys(reasons):
                yield Failure(contestant, storage, reasons.count(reason), reason)
