"""The command: which works, which contestants, how often.

make bench                                everything, about a hundred minutes
make bench WORK=W2-1,W3 PEER=pgqueuer     one cell
make bench-quick                          a developer's look, under three minutes
"""

import json
import sys
import time
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click

from benchmarks import plots, report
from benchmarks.arena import STORAGES, Arena
from benchmarks.contest import Contestant, ContestantError
from benchmarks.works import (
    Trial,
    Work,
    artifacts,
    backlog,
    bare,
    beside,
    drain,
    enqueue,
    graph,
    horizon,
    idle,
    live_log,
    pickup,
    renewal,
    startup,
)

MODULES = (
    *(enqueue, beside, drain, pickup, backlog, horizon),
    *(graph, renewal, artifacts, live_log, idle, startup, bare),
)
WORKS = {work.name: work for module in MODULES for work in module.WORKS}
RESULTS = Path(__file__).parent / "results"


def names(known: Any, quick: tuple[str, ...]) -> Any:
    """Return a check that every one of some names, parted by commas, is known.

    None given are all, or in a quick run those of ``quick`` that there are.
    """

    def named(name: str, given: Iterable[str]) -> bool:
        return any(name == each or name.startswith(f"{each}-") for each in given)

    def check(context: click.Context, option: click.Parameter, value: str | None) -> list[str]:
        given = [name for name in (value or "").split(",") if name]
        if unknown := [each for each in given if not any(named(name, [each]) for name in known)]:
            raise click.BadParameter(f"{', '.join(unknown)}; there are {', '.join(known)}")
        wanted = given or (quick if context.params["quick"] else known)
        return [name for name in known if named(name, wanted)]

    return check


QUICK_WORKS = ("W1a", "W1b", "W2-1", "W3")
QUICK_PEERS = ("moonmind-queue", "pgqueuer", "graphile-worker", "bare")  # the quickest of each kind
WHOLE, QUICK = (3, 1.0), (1, 0.1)  # repetitions and scale


@click.command()
@click.option("--quick", is_flag=True, is_eager=True, help="Few works and peers, once and briefly.")
@click.option(
    "--work",
    "works",
    callback=names(WORKS, QUICK_WORKS),
    help="Only these, parted by commas: W2 or W2-1.",
)
@click.option(
    "--peer",
    "peers",
    callback=names(Contestant.all(), QUICK_PEERS),
    help="Only these contestants.",
)
@click.option(
    "--storage", "storages", callback=names(STORAGES, ("tmpfs",)), help="disk, tmpfs, flush."
)
@click.option("--repeat", type=click.IntRange(1), help="Repetitions of each figure: 3, quick 1.")
@click.option("--scale", type=float, help="Less is quicker and less exact: 1, quick 0.1.")
@click.option(
    "--output",
    type=click.Path(path_type=Path),
    help="Where the record goes: benchmarks/results/latest.json if it covers everything, else"
    " partial.json. Table and plots go beside it.",
)
def main(
    quick: bool,
    works: list[str],
    peers: list[str],
    storages: list[str],
    repeat: int | None,
    scale: float | None,
    output: Path | None,
) -> None:
    """Measure; write the figures, a table and plots, and print the table."""
    began, clock = datetime.now(UTC), time.monotonic()
    usual = QUICK if quick else WHOLE
    repeat, scale = repeat or usual[0], scale or usual[1]
    contestants, left_out = prepare(peers)
    with Arena() as arena:
        left_out |= {each: lack for each in storages if (lack := arena.lacks(each))}
        storages = [each for each in storages if each not in left_out]
        for name, why in left_out.items():
            say(f"left out: {name}: {why}")
        if not storages or not contestants:
            raise click.ClickException("nothing is left to measure")
        record: dict[str, Any] = {
            "began": began.isoformat(timespec="seconds"),
            "full": False,
            "scale": scale,
            "repetitions": repeat,
            "works": {},
            "storages": storages,
            "contestants": {each.name: each.kind for each in contestants},
            "left_out": left_out,
            "results": [],
        }
        try:
            for work in (WORKS[name] for name in works):
                for storage in (each for each in work.storages if each in storages):
                    for result in measure(work, arena, storage, contestants, repeat, scale):
                        record["works"][work.name] = about(work)
                        record["results"].append(result)
        except KeyboardInterrupt:
            say("ended by you; what was measured until now is kept")
            works = []
        record |= {"seconds": round(time.monotonic() - clock), **arena.describe()}
    record["full"] = is_whole(works, peers, storages) and repeat >= WHOLE[0] and scale >= WHOLE[1]
    # Git ignores partial.json, and a glance never replaces the whole.
    publish(record, output or RESULTS / (report.LATEST if record["full"] else "partial.json"))
    say(f"took {record['seconds']} s")


def is_whole(works: list[str], peers: list[str], storages: list[str]) -> bool:
    """Whether nothing was left out but peers that could not be installed, which are named."""
    return [works, peers, storages] == [list(WORKS), list(Contestant.all()), list(STORAGES)]


def about(work: Work) -> dict[str, str | bool]:
    """Return what a reader of a work's figures must know."""
    return {"title": work.title, "unit": work.unit, "ours_only": work.ours_only}


def prepare(peers: list[str]) -> tuple[list[Contestant], dict[str, str]]:
    """Return the contestants that could be installed, and why the others could not."""
    ready, left_out = [], {}
    for contestant in (Contestant.all()[name] for name in peers):
        say(f"preparing {contestant.name}")
        try:
            contestant.prepare()
            ready.append(contestant)
        except (ContestantError, OSError) as error:  # OSError: there is no npm
            left_out[contestant.name] = str(error)
    return ready, left_out


def publish(record: dict[str, Any], path: Path) -> None:
    """Write the record and its report, and print the table."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(record, indent=1) + "\n")
    try:
        report.write(path)
    except plots.PlotsError as error:
        say(str(error))
    report.show(path)


def measure(
    work: Work, arena: Arena, storage: str, contestants: list[Contestant], repeat: int, scale: float
) -> Iterator[dict[str, Any]]:
    """Give every repetition; one after the other each contestant has its turn."""
    for repetition in range(repeat):
        for contestant in filter(work.concerns, contestants):
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
            except Exception as error:  # whatever it is, a run of two hours goes on without it
                known = isinstance(error, ContestantError)
                result["error"] = words = str(error) if known else f"{error!r}"
            took = f"({time.monotonic() - before:.0f} s)"
            yield result  # first: whoever reads the line may interrupt, and the record has it
            say(f"{work.name:5} {storage:5} {contestant.name:16} {words}  {took}")


def say(words: str) -> None:
    """Show that something goes on."""
    print(words, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
