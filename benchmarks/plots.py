"""The plots of a report: W2, W3 and W5 as SVG, each on the first storage of its work.

Ours is blue and bold, the bare limit dashed or hatched; nothing is told by colour alone. The same
record gives the same bytes, so that a diff shows what changed.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.record import BARE, Record

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.ticker import Locator

OURS, PEER = "#0072b2", "#6e6e6e"
# Okabe and Ito's, which all eyes tell apart, without the blue that is ours and the pale yellow.
COLOURS = ("#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000")
MARKERS = "sD^vP*X<>"
DRAINS = {"W2-1": 0.35, "W2-2": 0.65, "W2-4": 1.0}  # how opaque: the more processes, the darker
WINDOWS = [f"window_{index}" for index in range(1, 7)]
WINDOW_SECONDS = 10.0
STYLE: dict[Any, Any] = {
    "svg.hashsalt": "moonmind-queue",
    "svg.fonttype": "none",  # text stays text: small, and to be read in a diff
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "grid.color": "#e4e4e4",
    "legend.frameon": False,
}
WIDTH, ROW, FRAME = 8.0, 0.45, 1.2  # inches: of a plot, of a contestant, of title and axis


class PlotsError(Exception):
    """Plots cannot be drawn here; says what is missing and how to get it."""


def check() -> None:
    """Raise ``PlotsError`` where matplotlib is missing."""
    try:
        import matplotlib  # noqa: F401
    except ImportError as error:
        raise PlotsError(
            "no plots without matplotlib: pip install -c constraints.txt -e '.[bench]', then"
            " python -m benchmarks.report FILE.json makes them from the record"
        ) from error


def write(record: Record, folder: Path, prefix: str) -> list[Path]:
    """Draw those of the three works that were measured; return the paths written."""
    check()
    import matplotlib
    from matplotlib.figure import Figure

    written = []
    for name, draw in (("w2", drains), ("w3", pickups), ("w5", horizons)):
        with matplotlib.rc_context(STYLE):
            figure = Figure(figsize=(WIDTH, 4), facecolor="white", layout="constrained")
            if draw(record, figure):
                written.append(folder / f"{prefix}{name}.svg")
                figure.savefig(written[-1], metadata={"Date": None, "Creator": None})
    return written


def drains(record: Record, figure: "Figure") -> bool:
    """W2: bars from zero, since lengths are compared; False when there is nothing to draw."""
    works = [work for work in DRAINS if record.figures(work)]
    if not works:
        return False
    axes, storage = figure.add_subplot(), record.places(works[0])[0]
    rates = {work: _medians(record, work, storage, "jobs_per_second") for work in works}
    names = _sorted({k: v for each in rates.values() for k, v in each.items()}, most=True)
    thick = 0.8 / len(works)
    for index, work in enumerate(works):
        for row, name in enumerate(names):
            spread = record.spread(work, storage, name, "jobs_per_second")
            if spread is None:
                continue
            y = row + (index - (len(works) - 1) / 2) * thick
            look: dict[str, Any] = {"color": _colour(record, name), "alpha": DRAINS[work]}
            if record.contestants[name] == BARE:
                look |= {"hatch": "////", "edgecolor": "white"}
            axes.barh(y, spread.median, thick * 0.9, linewidth=0, **look)
            axes.plot([spread.least, spread.most], [y, y], color="#202020", linewidth=1)
            text = f" {spread.median:,.0f}"
            axes.text(max(spread.median, spread.most), y, text, va="center", fontsize=7)
    for work in works:
        processes = work.removeprefix("W2-")
        label = f"{processes} worker process{'es' if processes != '1' else ''}"
        axes.barh(0, 0, color=PEER, alpha=DRAINS[work], label=label)
    axes.legend(loc="lower right")
    axes.set(title="W2: no-op jobs drained", xlabel=f"jobs/s, {storage}; line: least to most")
    axes.margins(x=0.12)
    axes.xaxis.set_major_formatter("{x:,g}")
    _contestants(record, axes, names)
    figure.set_figheight(FRAME + ROW * len(names))
    return True


def pickups(record: Record, figure: "Figure") -> bool:
    """W3: from the median to the 99th percentile; a logarithmic axis, for they lie far apart."""
    if not record.figures("W3"):
        return False
    axes, storage = figure.add_subplot(), record.places("W3")[0]
    p50, p95, p99 = (
        _medians(record, "W3", storage, f"{each}_ms") for each in ("p50", "p95", "p99")
    )
    names = _sorted(p50, most=False)
    for row, name in enumerate(names):
        colour = _colour(record, name)
        wide = 3 if name == record.ours else 1.5
        dashes = "--" if record.contestants[name] == BARE else "-"
        axes.plot([p50[name], p99[name]], [row, row], dashes, color=colour, linewidth=wide)
        axes.plot(p50[name], row, "o", color=colour, markersize=9)
        axes.plot([p95[name], p99[name]], [row, row], "|", color=colour, markersize=11)
        axes.annotate(
            f"{p50[name]:.3g}", (p50[name], row), (0, 8), textcoords="offset points", fontsize=7
        )
    axes.set_xscale("log", subs=[])
    axes.xaxis.set_major_locator(_steps())
    axes.xaxis.set_major_formatter("{x:g}")
    axes.set(
        title="W3: commit of enqueue to start of handler, idle worker",
        xlabel=f"ms, logarithmic, {storage}; dot: median; strokes: 95th and 99th percentile",
    )
    _contestants(record, axes, names)
    figure.set_figheight(FRAME + ROW * len(names))
    return True


def horizons(record: Record, figure: "Figure") -> bool:
    """W5: a line that falls does so by the same factor wherever it is: a logarithmic axis."""
    if not record.figures("W5"):
        return False
    axes, storage = figure.add_subplot(), record.places("W5")[0]
    names = _sorted(_medians(record, "W5", storage, WINDOWS[-1]), most=True)
    step = WINDOW_SECONDS * record.data.get("scale", 1)
    ends = [step * (index + 1) for index in range(len(WINDOWS))]
    peers = 0
    for name in names:
        rates = [record.median("W5", storage, name, each) or float("nan") for each in WINDOWS]
        look: dict[str, Any] = {"color": OURS, "marker": "o", "linewidth": 3.5, "zorder": 3}
        if name != record.ours:
            look = {"color": COLOURS[peers % len(COLOURS)], "marker": MARKERS[peers % len(MARKERS)]}
            look["linestyle"] = "--" if record.contestants[name] == BARE else "-"
            peers += 1
        axes.plot(ends, rates, markersize=6, label=name, **look)
    axes.set_yscale("log", subs=[])
    axes.yaxis.set_major_locator(_steps())
    axes.yaxis.set_major_formatter("{x:,g}")
    axes.grid(visible=True, axis="y")
    for text in axes.legend(loc="center left", bbox_to_anchor=(1, 0.5)).get_texts():
        text.set_fontweight("bold" if text.get_text() == record.ours else "normal")
    axes.set(
        title="W5: steady work while another session holds the xmin horizon",
        xlabel=f"seconds, {storage}; each point is the mean of the {step:g} s before it",
        ylabel="jobs/s, logarithmic",
        xticks=ends,
    )
    return True


def _steps() -> "Locator":
    from matplotlib.ticker import LogLocator

    return LogLocator(subs=(1, 2, 5))


def _medians(record: Record, work: str, storage: str, figure: str) -> dict[str, float]:
    found = {name: record.median(work, storage, name, figure) for name in record.contestants}
    return {name: value for name, value in found.items() if value is not None}


def _sorted(values: dict[str, float], *, most: bool) -> list[str]:
    return sorted(values, key=lambda name: values[name], reverse=most)


def _colour(record: Record, contestant: str) -> str:
    return OURS if contestant == record.ours else PEER


def _contestants(record: Record, axes: "Axes", names: list[str]) -> None:
    """Write the contestants beside their rows, the first on top."""
    axes.set_yticks(range(len(names)), names)
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.grid(visible=True, axis="x")
    for label in axes.get_yticklabels():
        label.set_fontweight("bold" if label.get_text() == record.ours else "normal")
