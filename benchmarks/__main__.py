"""The command: which works, which contestants, how often.

make bench                                everything, about two hours
make bench WORK=W2-1,W3 PEER=pgqueuer     one cell
make bench-quick                          a developer's look, under three minutes
"""

import json
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click

from benchmarks.arena import STORAGES, Arena
from benchmarks.contest import Contestant, ContestantError
from benchmarks.works import (
    Trial,
    Work,
    artifacts,
    drain,
    enqueue,
    horizon,
    idle,
    live_log,
    pickup,
    startup,
)

MODULES = (enqueue, drain, pickup, horizon, artifacts, live_log, idle, startup)
WORKS = {work.name: work for module in MODULES for work in module.WORKS}
OURS = "moonmind-queue"
RESULTS = Path(__file__).parent / "results"


def names(known: Any) -> Any:
    """Return a check that every one of some names, parted by commas, is known."""

    def check(context: click.Context, option: click.Parameter, value: str | None) -> list[str]:
        given = [name for name in (value or "").split(",") if name] or list(known)
        chosen = [
            name
            for name in known
            if any(name == each or name.startswith(f"{each}-") for each in given)
        ]
        if unknown := [
            each for each in given if not any(n == each or n.startswith(f"{each}-") for n in known)
        ]:
            raise click.BadParameter(f"{', '.join(unknown)}; there are {', '.join(known)}")
        return chosen

    return check


@click.command()
@click.option(
    "--work", "works", callback=names(WORKS), help="Only these, parted by commas: W2 or W2-1."
)
@click.option("--peer", "peers", callback=names(Contestant.all()), help="Only these contestants.")
@click.option("--storage", "storages", callback=names(STORAGES), help="disk, tmpfs, flush.")
@click.option("--repeat", default=3, show_default=True, help="Repetitions of each figure.")
@click.option("--scale", default=1.0, show_default=True, help="Less is quicker and less exact.")
@click.option(
    "--output",
    default=str(RESULTS / "latest.json"),
    show_default=True,
    help="Where the figures go.",
)
def main(
    works: list[str], peers: list[str], storages: list[str], repeat: int, scale: float, output: str
) -> None:
    """Measure, and write figures, table and plots."""
    contestants = [Contestant.all()[name] for name in peers]
    for contestant in contestants:
        say(f"preparing {contestant.name}")
        contestant.prepare()
    results: list[dict[str, Any]] = []
    began = datetime.now(UTC)
    with Arena() as arena:
        for work in (WORKS[name] for name in works):
            for storage in (each for each in work.storages if each in storages):
                results += measure(work, arena, storage, contestants, repeat, scale)
        record = {
            "began": began.isoformat(timespec="seconds"),
            "scale": scale,
            **arena.describe(),
            "results": results,
        }
    Path(output).parent.mkdir(parents=True, exist_ok=True)
    Path(output).write_text(json.dumps(record, indent=1) + "\n")


def measure(
    work: Work, arena: Arena, storage: str, contestants: list[Contestant], repeat: int, scale: float
) -> list[dict[str, Any]]:
    """Return every repetition; one after the other each contestant has its turn."""
    results = []
    if work.ours_only:
        contestants = [each for each in contestants if each.name == OURS]
    for repetition in range(repeat):
        for contestant in contestants:
            trial = Trial(arena, contestant, storage, scale)
            before = time.monotonic()
            result: dict[str, Any] = {
                "work": work.name,
                "storage": storage,
                "contestant": contestant.name,
                "repetition": repetition,
            }
            try:
                result["figures"] = work.measure(trial)
                words = "  ".join(
                    f"{k} {v:,.3g}" if abs(v) < 100 else f"{k} {v:,.0f}"
                    for k, v in result["figures"].items()
                )
            except ContestantError as error:
                result["error"] = words = str(error)
            results.append(result)
            took = f"({time.monotonic() - before:.0f} s)"
            say(f"{work.name:5} {storage:5} {contestant.name:16} {words}  {took}")
    return results


def say(words: str) -> None:
    """Show that something goes on."""
    print(words, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
