"""W8: artifacts in and out, beside COPY of the same bytes into and out of a bare table.

Ours, and each way of COPY, runs in a process of its own for each direction, so that its peak of
memory is its own. The bytes are random: nothing can compress them.
"""

import os
import tempfile
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple

import psycopg

from benchmarks import cpu
from benchmarks.arena import MEMORY
from benchmarks.beside import apart
from benchmarks.contest import ContestantError
from benchmarks.works import Figures, Trial, Work
from moonmind_queue import Queue
from moonmind_queue.queue import CHUNK_BYTES

MIB = 2**20
SMALL, SMALL_BYTES = 1_000, 64 * 2**10
LARGE_BYTES = 1024 * MIB
BARE = """
create table bare (
    artifact bigint, start_byte bigint, content bytea, primary key (artifact, start_byte)
);
alter table bare alter column content set storage external
"""

Session = psycopg.Connection[Any]


class Load(NamedTuple):
    """``count`` artifacts of ``size`` bytes, one after the other in the file ``source``."""

    source: Path
    count: int
    size: int


class Way(NamedTuple):
    """Functions that bring a load in, and out again; that returns how many bytes came."""

    put: Callable[[Session, Load], None]
    get: Callable[[Session, Load], int]


# --- ours ----------------------------------------------------------------------------------


def put_artifacts(session: Session, load: Load) -> None:
    """Store them as those of one job: a single one streamed from its file, many as bytes."""
    queue = Queue(session)
    queue.enqueue("by-hand")
    [job] = queue.claim("bench", lease=timedelta(hours=1), start=True)
    if load.count == 1:
        queue.put_artifact(job, "0", load.source)
        return
    with load.source.open("rb") as stream:
        for number in range(load.count):
            queue.put_artifact(job, str(number), stream.read(load.size))


def get_artifacts(session: Session, _: Load) -> int:
    """Read them all; their digests are compared on the way."""
    queue = Queue(session)
    [job] = queue.list_jobs()
    return sum(
        len(piece) for each in queue.artifacts(job.id) for piece in queue.read_artifact(each)
    )


# --- the bare limit ------------------------------------------------------------------------


def copy_all_in(session: Session, load: Load) -> None:
    """One COPY, one transaction."""
    session.execute(BARE)
    _copy_in(session, _pieces(load))


def copy_all_out(session: Session, _: Load) -> int:
    """One COPY."""
    return _copy_out(session, "bare")


def copy_each_in(session: Session, load: Load) -> None:
    """A COPY, and so a transaction, an artifact: as safe as ours after each."""
    session.execute(BARE)
    for _, pieces in groupby(_pieces(load), key=lambda piece: piece[0]):
        _copy_in(session, pieces)


def copy_each_out(session: Session, load: Load) -> int:
    """A COPY an artifact."""
    return sum(
        _copy_out(session, f"(select * from bare where artifact = {number} order by start_byte)")
        for number in range(load.count)
    )


def _pieces(load: Load) -> Iterator[tuple[int, int, bytes]]:
    with load.source.open("rb") as stream:
        for number in range(load.count):
            for start in range(0, load.size, CHUNK_BYTES):
                yield number, start, stream.read(min(load.size - start, CHUNK_BYTES))


def _copy_in(session: Session, pieces: Iterator[tuple[int, int, bytes]]) -> None:
    with session.cursor().copy("copy bare from stdin (format binary)") as copy:
        copy.set_types(["int8", "int8", "bytea"])
        for piece in pieces:
            copy.write_row(piece)


def _copy_out(session: Session, what: str) -> int:
    with session.cursor().copy(f"copy {what} to stdout (format binary)".encode()) as copy:
        copy.set_types(["int8", "int8", "bytea"])
        return sum(len(content) for _, _, content in copy.rows())


# --- the measurement -----------------------------------------------------------------------


OURS = Way(put_artifacts, get_artifacts)
COPY = {"copy": Way(copy_all_in, copy_all_out)}
COPY_EACH = {"copy_each": Way(copy_each_in, copy_each_out)}


def small(trial: Trial) -> Figures:
    """Store and read 1,000 artifacts of 64 KiB; COPY does it in one go, and one by one."""
    return _measure(trial, max(round(SMALL * trial.scale), 20), SMALL_BYTES, COPY | COPY_EACH)


def large(trial: Trial) -> Figures:
    """Stream one artifact of 1 GiB; COPY has a row for each of our chunks."""
    return _measure(trial, 1, max(round(LARGE_BYTES * trial.scale), MIB), COPY)


def _measure(trial: Trial, count: int, size: int, limits: dict[str, Way]) -> Figures:
    figures: Figures = {}
    # In memory: how fast a disk would give the source is not the question.
    with tempfile.TemporaryDirectory(prefix="moonmind-bench-", dir=MEMORY) as folder:
        load = Load(Path(folder, "source"), count, size)
        with load.source.open("wb") as stream:
            for start in range(0, count * size, MIB):
                stream.write(os.urandom(min(MIB, count * size - start)))
        for name, way in {"": OURS, **limits}.items():
            with trial.arena.database(trial.storage, trial.contestant) as database:
                for direction, act in (("in", way.put), ("out", way.get)):
                    begin = "_".join(filter(None, (name, direction)))
                    answer = apart(timed, act, database.dsn, load)
                    figures |= {f"{begin}_{key}": value for key, value in answer.items()}
    for limit in limits:
        for direction in ("in", "out"):
            ours, bare = (f"{p}{direction}_mb_per_second" for p in ("", f"{limit}_"))
            figures[f"{direction}_ratio_to_{limit}"] = figures[ours] / figures[bare]
    return figures


def timed(act: Callable[[Session, Load], int | None], dsn: str, load: Load) -> Figures:
    """Return the speed, the CPU of both sides, and how much this process's peak of memory grew."""
    megabytes = load.count * load.size / 1e6
    with psycopg.connect(dsn, autocommit=True) as session:
        server = session.info.backend_pid
        peak, ours, theirs = _peak_mib(), time.process_time(), cpu.of_process(server)
        began = time.monotonic()
        came = act(session, load)
        took = time.monotonic() - began
        ours, theirs = time.process_time() - ours, cpu.of_process(server) - theirs
    if came not in (None, load.count * load.size):
        raise ContestantError(f"{act.__name__} read {came} bytes of {load.count * load.size}")
    return {
        "mb_per_second": megabytes / took,
        "client_cpu_ms_per_mb": ours * 1e3 / megabytes,
        "server_cpu_ms_per_mb": theirs * 1e3 / megabytes,
        "memory_growth_mib": _peak_mib() - peak,
    }


def _peak_mib() -> float:
    # Not getrusage: its peak begins with that of the process which started this one.
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) / 1024
    raise ContestantError("/proc/self/status has no VmHWM; this work needs Linux")


WORKS = [
    Work(
        "W8-small",
        "1,000 artifacts of 64 KiB in and out, beside COPY",
        "MB/s",
        small,
        ours_only=True,
    ),
    Work(
        "W8-large",
        "an artifact of 1 GiB in and out, beside COPY",
        "MB/s",
        large,
        storages=("disk", "tmpfs"),
        ours_only=True,
    ),
]
