"""The Markdown of a report: what was measured and how, what became of the goals, a table a work."""

from collections.abc import Iterable, Iterator

from benchmarks.goals import GOALS, Goal, Outcome
from benchmarks.record import NODE, PYTHON, Record, Spread, spoken

NOTHING = "–"  # it was not tried
LONGEST_REASON = 300  # characters of an error: its program may have printed a page


def render(record: Record) -> str:
    """Return the whole report."""
    parts = ["# What a run measured", *_head(record), "## Goals", *_goals(record)]
    for name, work in record.works.items():
        parts += [f"## {name}: {work['title']}", *_work(record, name)]
    return "\n\n".join(parts) + "\n"


def number(value: float) -> str:
    """Write a figure with as many digits as tell something."""
    if value == 0 or abs(value) >= 100:
        return f"{value:,.0f}"
    return (
        f"{value:.3g}" if abs(value) < 1 else f"{value:.2f}" if abs(value) < 10 else f"{value:.1f}"
    )


def spread(figure: Spread | None) -> str:
    """Write a median, and in brackets the least and the most where they differ from it."""
    if figure is None:
        return NOTHING
    text = number(figure.median)
    if figure.least == figure.most:
        return text
    return f"{text} ({number(figure.least)}–{number(figure.most)})"


def table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """Return a Markdown table."""
    lines = [list(head), *(list(row) for row in rows)]
    lines.insert(1, ["---"] * len(lines[0]))
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _head(record: Record) -> Iterator[str]:
    data, times = record.data, record.data.get("repetitions", 1)
    figure = f"the median of {times} repetitions" if times > 1 else "of a single measurement"
    yield (
        f"{'The whole' if data.get('full') else 'A part'} of `make bench`, begun {data['began']},"
        f" at scale {data.get('scale', 1):g}. Each figure is {figure}, with the least and the most"
        " in brackets where they differ."
    )
    facts = [f"{key} {value}" for key, value in data.get("machine", {}).items()]
    about = [f"- machine: {', '.join(facts)}"]
    for storage, server in data.get("servers", {}).items():
        settings = ", ".join(f"{name}={value}" for name, value in server["settings"].items())
        about.append(f"- {storage}: PostgreSQL {server['version']}, {settings}")
    versions = data.get("versions", {})
    about += [
        f"- {name}: {', '.join(filter(None, [kind, versions.get(name)]))}"
        for name, kind in record.contestants.items()
    ]
    about += [f"- left out: {name}: {_short(why)}" for name, why in record.left_out.items()]
    yield "\n".join(about)


def _goals(record: Record) -> Iterator[str]:
    rows = [
        [goal.work, goal.words, *(_verdict(goal, record, storage) for storage in record.storages)]
        for goal in GOALS
    ]
    cells = [cell for row in rows for cell in row]
    counts = [f"{sum(cell.startswith(each) for cell in cells)} {each}" for each in Outcome]
    peers = ", ".join(record.of(PYTHON, NODE)) or "nobody"
    yield f"{', '.join(counts)}. The best peer is that on the same storage, of {peers}."
    yield table(["work", "to reach", *record.storages], rows)


def _verdict(goal: Goal, record: Record, storage: str) -> str:
    if storage not in goal.storages:
        return NOTHING
    verdict = goal.verdict(record, storage)
    if verdict.value is None:
        return verdict.outcome
    times = f" × {verdict.against}" if verdict.against else ""
    return f"{verdict.outcome}: {number(verdict.value)}{times}"


def _work(record: Record, work: str) -> Iterator[str]:
    figures = record.figures(work)
    if figures and record.works[work].get("ours_only"):
        yield _figures_by_storage(record, work, figures)
    elif figures:
        yield _contestants_by_storage(record, work, figures[0])
        if figures[1:]:
            yield _further(record, work, figures[1:])
    if failures := list(record.failures(work)):
        yield "\n".join(
            f"- {each.contestant} on {each.storage}, {each.repetitions} ×: {_short(each.reason)}"
            for each in failures
        )


def _contestants_by_storage(record: Record, work: str, figure: str) -> str:
    """One figure: a row a contestant."""
    places = record.places(work)
    failed = {(each.contestant, each.storage) for each in record.failures(work)}

    def cell(contestant: str, storage: str) -> str:
        found = record.spread(work, storage, contestant, figure)
        return "see below" if found is None and (contestant, storage) in failed else spread(found)

    rows = (
        _emphasised(record, name, [name, *(cell(name, storage) for storage in places)])
        for name in record.entered(work)
    )
    return table([record.works[work]["unit"], *places], rows)


def _further(record: Record, work: str, figures: list[str]) -> str:
    """The medians of all other figures on the storage that is most like a reader's."""
    storage = record.places(work)[0]
    rows = (
        _emphasised(
            record,
            name,
            [name, *(_median(record.spread(work, storage, name, each)) for each in figures)],
        )
        for name in record.entered(work)
    )
    return table([f"on {storage}", *map(spoken, figures)], rows)


def _figures_by_storage(record: Record, work: str, figures: list[str]) -> str:
    """All figures of a work that only we are measured at: a row a figure."""
    places = record.places(work)
    rows = (
        [
            spoken(each),
            *(spread(record.spread(work, storage, record.ours, each)) for storage in places),
        ]
        for each in figures
    )
    return table([record.ours, *places], rows)


def _median(figure: Spread | None) -> str:
    return number(figure.median) if figure else NOTHING


def _emphasised(record: Record, contestant: str, cells: list[str]) -> list[str]:
    return [f"**{cell}**" for cell in cells] if contestant == record.ours else cells


def _short(reason: str) -> str:
    """Return a reason as one line, its end where it is long: there programs say what it was."""
    line = " ".join(reason.split())
    return line if len(line) <= LONGEST_REASON else f"… {line[-LONGEST_REASON:]}"
