"""Applies deliberate faults, one at a time, and shows that the suite goes red for each.

    python tools/mutants.py                 all of tests/proof/mutants.toml
    python tools/mutants.py -k token        those whose description holds a word
    python tools/mutants.py --table         the list, as Markdown for docs/proof.md

Without a fault the tests must be green, so they run once like that. Then each fault is put into a
copy of the tracked files, the migration is frozen anew there, and the tests that are named for it
run until the first that fails. A fault that they survive, or that can no longer be applied, ends
this with exit status 1. All share one server, which is started here unless
MOONMIND_TEST_DATABASE_URL names one.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
import tomllib
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import test_server

ROOT = Path(__file__).resolve().parents[1]
LIST = ROOT / "tests" / "proof" / "mutants.toml"
RED = 1  # pytest's exit status when tests failed; others say that none could run
PATIENCE = 300  # seconds: some faults make a test wait for ever, which is red too


@dataclass(frozen=True)
class Mutant:
    """One fault: a text of one file, what it becomes, and the tests that must notice."""

    fault: str
    file: str
    before: str
    after: str
    tests: tuple[str, ...]


def mutants() -> list[Mutant]:
    """Read the list."""
    entries = tomllib.loads(LIST.read_text(encoding="utf-8"))["mutant"]
    return [Mutant(**entry | {"tests": tuple(entry["tests"])}) for entry in entries]


def table() -> str:
    """Return the list as a Markdown table."""
    rows = [
        f"| {each.fault} | `{each.file}` | {', '.join(f'`{test}`' for test in each.tests)} |"
        for each in mutants()
    ]
    return "\n".join(["| fault | in | noticed by |", "|---|---|---|", *rows])


def apply(mutant: Mutant, root: Path) -> None:
    """Change the one place; raises ``ValueError`` unless it is there exactly once."""
    path = root / mutant.file
    text = path.read_text(encoding="utf-8")
    if text.count(mutant.before) != 1:
        raise ValueError(f"stands {text.count(mutant.before)} times in {mutant.file}")
    path.write_text(text.replace(mutant.before, mutant.after), encoding="utf-8")


@contextmanager
def copy() -> Iterator[Path]:
    """Lend a copy of the tracked files."""
    with tempfile.TemporaryDirectory(prefix="moonmind-mutant-") as folder:
        tracked = subprocess.run(
            ["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True
        ).stdout
        for name in filter(None, tracked.decode().split("\0")):
            target = Path(folder, name)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, target)
        yield Path(folder)


def suite(root: Path, dsn: str, tests: Iterable[str]) -> subprocess.CompletedProcess[str]:
    """Freeze the migration of a copy and run some of its tests until one fails."""
    environment = {**os.environ, "PYTHONPATH": str(root), "MOONMIND_TEST_DATABASE_URL": dsn}
    freeze = [sys.executable, "migrations/freeze.py", "initial"]
    subprocess.run(freeze, cwd=root, env=environment, capture_output=True, check=True)
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-n0", "-x", "-q", "-p", "no:cacheprovider", *tests],
        cwd=root,
        env=environment,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )


def run(mutant: Mutant, dsn: str) -> tuple[bool, str]:
    """Return whether the tests noticed the fault, and what the first of them said."""
    with copy() as root:
        try:
            apply(mutant, root)
            done = suite(root, dsn, mutant.tests)
        except ValueError as error:
            return False, str(error)
        except subprocess.TimeoutExpired:
            return True, "the tests never ended"
    failed = [line for line in done.stdout.splitlines() if line.startswith("FAILED")]
    if done.returncode == RED and failed:
        return True, failed[0]
    return False, done.stdout[-400:] + done.stderr[-400:]


def green(chosen: Iterable[Mutant], dsn: str) -> bool:
    """Return whether the tests pass as long as nothing is wrong."""
    with copy() as root:
        done = suite(root, dsn, sorted({test for each in chosen for test in each.tests}))
    print(
        done.stdout[-2000:] if done.returncode else "without a fault all of them pass", flush=True
    )
    return done.returncode == 0


def main() -> int:
    """Run what was asked for; the exit status is 0 when every fault was noticed."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("-k", default="", help="only faults whose description holds this")
    parser.add_argument("--table", action="store_true", help="print the list as Markdown")
    parser.add_argument("--jobs", type=int, default=2, help="faults tried at once")
    options = parser.parse_args()
    if options.table:
        print(table())
        return 0
    chosen = [each for each in mutants() if options.k in each.fault]
    began, survived = time.monotonic(), 0
    server = test_server.start()
    try:
        if not green(chosen, server.dsn):
            return 1
        with ThreadPoolExecutor(options.jobs) as pool:
            for mutant, (killed, said) in zip(
                chosen, pool.map(lambda each: run(each, server.dsn), chosen), strict=True
            ):
                survived += not killed
                print(f"{'killed  ' if killed else 'SURVIVED'}  {mutant.fault}", flush=True)
                print(f"          {said.strip()[:160]}", flush=True)
    finally:
        server.stop()
    seconds = time.monotonic() - began
    print(f"{len(chosen) - survived} of {len(chosen)} faults noticed in {seconds:.0f} s")
    return 1 if survived or not chosen else 0


if __name__ == "__main__":
    sys.exit(main())
