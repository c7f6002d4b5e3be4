"""The report of a benchmark says what its record says: figures, goals, failures, plots."""

import json
import sys

import pytest
from click.testing import CliRunner

from benchmarks import plots, report, tables
from benchmarks.__main__ import QUICK_PEERS, QUICK_WORKS, WORKS
from benchmarks.__main__ import main as measure
from benchmarks.arena import STORAGES, Arena
from benchmarks.contest import Contestant
from benchmarks.goals import GOALS, LIMIT, PEERS, PYTHON_PEERS, Best, Goal, Outcome
from benchmarks.record import Record, RecordError

KINDS = {"us": "ours", "snail": "python", "hare": "node", "wind": "bare"}


def results(work, figure, **values):
    """Return results on disk, each value a repetition; a string is an error."""
    return [
        {"work": work, "storage": "disk", "contestant": name, "repetition": number}
        | ({"error": value} if isinstance(value, str) else {"figures": {figure: value}})
        for name, each in values.items()
        for number, value in enumerate(each)
    ]


def record(*results, **more):
    """Return the record of a run on disk and tmpfs, of which nothing ran on tmpfs."""
    found = [result for each in results for result in each]
    names = dict.fromkeys(result["work"] for result in found)
    works = {name: {"title": name, "unit": "jobs/s", "ours_only": False} for name in names}
    data = {
        "began": "2026-01-01T00:00:00+00:00",
        "repetitions": 3,
        "works": works,
        "storages": ["disk", "tmpfs"],
        "contestants": KINDS,
        "results": found,
    }
    return Record(data | more)


DRAIN = results(
    "W2-1",
    "jobs_per_second",
    us=[3000, 1000, 2000],
    snail=[500, 500, 500],
    hare=[1600, "hare work ended with status 1", 1600],
    wind=[9000, 8000, 8500],
)


# --- tables --------------------------------------------------------------------------------------


def test_a_row_has_the_median_and_the_spread_and_ours_is_bold():
    """The repetitions of a contestant become one cell; where they agree there is no spread."""
    text = tables.render(record(DRAIN))

    assert "| jobs/s | disk |" in text
    assert "| **us** | **2,000 (1,000–3,000)** |" in text
    assert "| snail | 500 |" in text


def test_an_error_is_named_with_its_reason():
    """What failed is counted below the table; what did not fail still counts in it."""
    failing = results("W1b", "jobs_per_second", us=[7], snail=["no such table\nLINE 1"])

    text = tables.render(record(DRAIN, failing))

    assert "| hare | 1,600 |" in text
    assert "- hare on disk, 1 ×: hare work ended with status 1" in text
    assert "| snail | see below |" in text
    assert "- snail on disk, 1 ×: no such table LINE 1" in text


def test_what_was_left_out_is_named():
    """A contestant that could not be installed does not just vanish."""
    text = tables.render(record(DRAIN, left_out={"tortoise": "npm: not found"}))

    assert "- left out: tortoise: npm: not found" in text


def test_further_figures_stand_in_a_second_table():
    """The first figure is the one compared; the others are medians beside it."""
    found = results("W2-1", "jobs_per_second", us=[10])
    found[0]["figures"]["wal_bytes_per_job"] = 4321.0

    assert (
        "| on disk | WAL bytes per job |\n| --- | --- |\n| **us** | **4,321** |"
        in tables.render(record(found))
    )


def test_a_work_of_ours_alone_has_a_row_for_each_figure():
    """Where nobody is compared, the figures are what differs."""
    found = results("W7", "p50_ms", us=[4, 6])
    works = {"W7": {"title": "renew", "unit": "ms p50", "ours_only": True}}

    assert "| p50 ms | 5.00 (4.00–6.00) |" in tables.render(record(found, works=works))


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0"), (0.0123, "0.0123"), (1.5, "1.50"), (12.34, "12.3"), (999.6, "1,000")],
)
def test_a_number_has_the_digits_that_tell_something(value, text):
    """Three digits or so, whatever the size."""
    assert tables.number(value) == text


# --- goals ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("goal", "outcome", "value"),
    [
        (Goal("W2-1", "jobs_per_second", at_least=1.25, of=PEERS), Outcome.REACHED, 1.25),
        (Goal("W2-1", "jobs_per_second", at_least=1.26, of=PEERS), Outcome.MISSED, 1.25),
        (Goal("W2-1", "jobs_per_second", at_least=4, of=PYTHON_PEERS), Outcome.REACHED, 4),
        (Goal("W2-1", "jobs_per_second", at_least=0.5, of=LIMIT), Outcome.MISSED, 2000 / 8500),
        (Goal("W2-1", "jobs_per_second", at_most=4, of=PEERS), Outcome.REACHED, 4),
        (Goal("W2-1", "jobs_per_second", at_least=2000), Outcome.REACHED, 2000),
        (Goal("W2-1", "jobs_per_second", at_most=1999), Outcome.MISSED, 2000),
    ],
)
def test_a_goal_is_held_against_medians(goal, outcome, value):
    """The best peer has the most where much is good, and the least where little is."""
    verdict = goal.verdict(record(DRAIN), "disk")

    assert (verdict.outcome, verdict.value) == (outcome, pytest.approx(value))


@pytest.mark.parametrize(
    "goal",
    [
        Goal("W2-1", "p50_ms", at_least=1),
        Goal("W2-4", "jobs_per_second", at_least=1),
        Goal("W2-1", "jobs_per_second", at_least=1, of=Best("himself", ("python",), work="W9")),
    ],
)
def test_a_goal_without_figures_is_not_measured(goal):
    """Be it ours that is missing or the other's, or the whole work."""
    assert goal.verdict(record(DRAIN), "disk").outcome == Outcome.NOT_MEASURED


def test_no_goal_is_dropped():
    """All stand in the table, each with a word for each storage of the run."""
    text = tables.render(record(DRAIN)).partition("## Goals")[2].partition("## ")[0]
    rows = [line.split(" | ") for line in text.splitlines() if line.startswith("| W")]

    assert [row[1] for row in rows] == [goal.words for goal in GOALS]
    assert "| W2-1 | jobs per second ≥ 1 × the best peer | reached: 1.25 × hare | not mea" in text
    assert "| W4 | ratio ≥ 0.95 | not measured | not measured |" in text
    assert "2 reached, 1 missed" in text


def test_every_work_has_a_goal():
    """Whoever adds a work says what it is to reach; BARE works are what others are held against."""
    works = {name for name in WORKS if not name.startswith("BARE")}

    assert works <= {goal.work for goal in GOALS}


def test_one_contestant_is_ours_and_limits_are_no_peers():
    """Who runs in our own environment has no packages of its own and is no peer."""
    contestants = Contestant.all().values()

    assert [each.name for each in contestants if each.kind == "ours"] == ["moonmind-queue"]
    assert {each.kind for each in contestants} <= set(KINDS.values())
    assert all(each.kind in ("ours", "bare") for each in contestants if not each.packages)


# --- files and plots -----------------------------------------------------------------------------


def lines_of_all_three():
    """Return what W2, W3 and W5 give, small."""
    waits = results("W3", "p50_ms", us=[1.5], snail=[40])
    for result in waits:
        result["figures"] |= {"p95_ms": 50.0, "p99_ms": 60.0}
    steady = results("W5", "last_jobs_per_second", us=[9], wind=[20])
    for result in steady:
        result["figures"] |= dict.fromkeys(plots.WINDOWS, 100.0)
    return DRAIN, waits, steady


def test_plots_are_the_same_each_time(tmp_path):
    """One record gives one text, one picture of each kind and no trace of when."""
    (tmp_path / "one").mkdir()
    (tmp_path / "two").mkdir()
    made = [
        plots.write(record(*lines_of_all_three()), tmp_path / name, "") for name in ("one", "two")
    ]

    assert [path.name for path in made[0]] == ["w2.svg", "w3.svg", "w5.svg"]
    for one, two in zip(*made, strict=True):
        assert one.read_bytes() == two.read_bytes()
        assert "<dc:date>" not in one.read_text()
        assert ">us</text>" in one.read_text()


def test_works_that_were_not_measured_have_no_plot(tmp_path):
    """A plot of nothing would replace one of something."""
    assert [path.name for path in plots.write(record(DRAIN), tmp_path, "part.")] == ["part.w2.svg"]


def test_without_matplotlib_there_is_a_table_and_a_way_out(tmp_path, monkeypatch):
    """The figures of two hours do not depend on what draws them."""
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    (path := tmp_path / "run.json").write_text(json.dumps(record(DRAIN).data))

    answer = CliRunner().invoke(report.main, [str(path)])

    assert answer.exit_code == 1
    assert "pip install -c constraints.txt -e '.[bench]'" in answer.output
    assert path.with_suffix(".md").read_text() == tables.render(record(DRAIN))


def test_a_file_that_is_no_record_is_refused(tmp_path):
    """An older harness did not say what it covered."""
    (path := tmp_path / "old.json").write_text('{"began": "", "results": []}')

    with pytest.raises(RecordError, match=r"old.json has no works, storages, contestants"):
        Record.read(path)
    with pytest.raises(RecordError, match=r"none.json cannot be read"):
        Record.read(tmp_path / "none.json")


# --- the command ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "known"),
    [
        (["--work", "W1a,W99"], "W99; there are W1a, W1b"),
        (["--peer", "kafka"], "kafka; there are moonmind-queue"),
        (["--storage", "floppy"], "floppy; there are disk, tmpfs, flush"),
    ],
)
def test_an_unknown_name_is_refused_with_those_that_exist(arguments, known):
    """Before anything is installed or started."""
    answer = CliRunner().invoke(measure, arguments)

    assert answer.exit_code == 2
    assert known in " ".join(answer.output.replace("│", " ").split())


def test_a_quick_run_knows_its_works():
    """Its choice names works that exist, and us."""
    assert set(QUICK_WORKS) <= set(WORKS)
    assert "moonmind-queue" in QUICK_PEERS


def test_a_small_memory_is_left_out_with_a_reason(tmp_path, monkeypatch):
    """Where /dev/shm is small or missing, the disk remains, and the way out is named."""
    monkeypatch.setattr("benchmarks.arena.MEMORY", tmp_path / "shm")

    with Arena() as arena:
        lacks = {storage: arena.lacks(storage) for storage in STORAGES}

    assert lacks["disk"] is None
    assert "has 0 MiB free and 2048 are needed: mount -o remount" in lacks["tmpfs"]
    assert lacks["flush"] == lacks["tmpfs"]
