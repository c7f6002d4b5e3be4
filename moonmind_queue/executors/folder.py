"""The directory of one attempt, ``<workdir>/<job>/<attempt>``: made afresh, locked, removed.

The lock is held as long as the attempt runs, so that a worker that starts can tell what a dead one
left behind from what another is at work on.
"""

import fcntl
import os
import re
import shutil
import stat
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from itertools import count
from pathlib import Path
from typing import Self

import structlog

LEFTOVER_AGE = timedelta(days=1)

_NUMBER = re.compile("[0-9]+")  # and no other digits: a program may have made the name

_log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Folder:
    """An attempt's directory, locked; ``close`` removes it."""

    path: Path
    lock: int

    @classmethod
    def create(cls, workdir: Path, job: int, attempt: int) -> Self:
        """Make an empty directory; those of earlier attempts at the job go."""
        path = workdir / str(job) / str(attempt)
        for each in numbered(path.parent):
            remove_tree(each)
        path.mkdir(mode=0o700, parents=True)
        return cls(path, lock(path))

    def close(self) -> None:
        """Remove the directory, whatever is in it."""
        remove_tree(self.path)
        remove_if_empty(self.path.parent)
        os.close(self.lock)


def leftovers(workdir: Path, age: timedelta) -> Iterator[Path]:
    """Yield what workers that died left behind, locked; an attempt that runs is locked already."""
    before = time.time() - age.total_seconds()
    for job in numbered(workdir):
        for attempt in numbered(job):
            try:
                if attempt.stat().st_mtime > before:
                    continue
                held = lock(attempt)
            except OSError:
                continue  # taken, or gone meanwhile
            try:
                yield attempt
            finally:
                os.close(held)


def remove_leftovers(workdir: Path, age: timedelta = LEFTOVER_AGE) -> None:
    """Remove what workers that died left behind so long ago."""
    for attempt in leftovers(workdir, age):
        remove_tree(attempt)
    for job in numbered(workdir):
        remove_if_empty(job)


def remove_tree(path: Path) -> None:
    """Remove a directory whatever is in it; what cannot be removed is logged, not raised."""
    try:
        shutil.rmtree(path)
    except FileNotFoundError:
        return
    except (OSError, RecursionError):
        _dismantle(path)


def remove_if_empty(job: Path) -> None:
    """Remove the directory of a job unless another attempt is in it."""
    try:
        job.rmdir()
    except OSError:
        return


def numbered(folder: Path) -> list[Path]:
    """Return the directories of jobs, or of one job's attempts, the latest last."""
    if not folder.is_dir():
        return []
    found = (each for each in folder.iterdir() if _NUMBER.fullmatch(each.name))
    return sorted(found, key=lambda each: int(each.name))


def lock(attempt: Path) -> int:
    """Return the descriptor that holds the lock; raises ``OSError`` when another does."""
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
    held = os.open(attempt / "lock", flags, 0o600)
    try:
        fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(held)
        raise
    return held


def _dismantle(top: Path) -> None:
    """Remove what ``rmtree`` could not: it stops at what is read-only, and at a thousand levels.

    Every directory is opened to its owner and moved up to the first level before it is emptied,
    so that no path grows long, however deep the tree is.
    """
    if not _is_directory(top):
        with _logging(top):
            top.unlink()  # a link, most likely: what it leads to is somebody else's
        return
    free = (top / f".{number}.removed" for number in count())
    waiting = deque([top])
    while waiting:
        folder = waiting.popleft()
        with _logging(folder):
            folder.chmod(0o700)
            waiting.extend(_empty(folder, free))
            if folder != top:
                folder.rmdir()
    with _logging(top):
        top.rmdir()


def _empty(folder: Path, free: Iterator[Path]) -> list[Path]:
    """Remove what is in a directory; return the directories that were, from where they are now."""
    moved = []
    for child in list(folder.iterdir()):
        with _logging(child):
            if not _is_directory(child):
                child.unlink()
                continue
            child.chmod(0o700)
            place = next(each for each in free if not os.path.lexists(each))
            moved.append(child.rename(place))
    return moved


def _is_directory(path: Path) -> bool:
    return stat.S_ISDIR(path.lstat().st_mode)


@contextmanager
def _logging(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        _log.warning("not removed", path=str(path), error=error.strerror)
