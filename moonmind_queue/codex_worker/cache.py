"""What stays on a worker's disk between jobs, and the janitor who sees that it does not grow.

Mirrors of repositories go when nobody has used them for :data:`UNUSED`, and beyond the quota, those
that were not used for the longest time first; a job that runs has its own links to their files
and does not notice. Directories of attempts go when their worker is dead, and what still runs in
them ends. Every worker tidies when it starts and after each of its jobs; several may at once.
"""

import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import structlog

from moonmind_queue.codex_worker import strays
from moonmind_queue.codex_worker.mirror import try_lock
from moonmind_queue.executors.folder import remove_leftovers, remove_tree

UNUSED = timedelta(days=14)
GB = 10**9

_log = structlog.get_logger()


@dataclass(frozen=True, slots=True, kw_only=True)
class Cached:
    """A mirror on this disk; ``address`` is what git fetches from."""

    path: Path
    address: str
    size: int
    """In bytes; attempts that are under way may have some of them as well, at no cost."""
    used: datetime
    """When a job last fetched through it."""

    def remove(self) -> bool:
        """Remove it, unless a job fetches through it now; say whether it is gone."""
        try:
            lock = try_lock(self.path)
        except FileNotFoundError:
            return True  # another worker tidies as well
        if lock is None:
            return False
        try:
            for each in self.path.iterdir():
                if each.name != "lock":
                    remove_tree(each)
            (self.path / "lock").unlink()  # last: whoever waits for it makes a new one
            self.path.rmdir()
        except OSError as error:
            _log.warning("cache.not_removed", path=str(self.path), error=error.strerror)
            return False
        finally:
            os.close(lock)
        return True


def mirrors(workdir: Path) -> list[Cached]:
    """Return the mirrors of a work directory, the most recently used first."""
    folder = workdir / "mirrors"
    found = []
    for each in folder.iterdir() if folder.is_dir() else ():
        try:
            found.append(_look(each))
        except (FileNotFoundError, NotADirectoryError):
            continue  # removed in this instant
    return sorted(found, key=lambda cached: cached.used, reverse=True)


def tidy(workdir: Path, max_gb: float, unused: timedelta = UNUSED) -> None:
    """Remove old mirrors, those beyond the quota, and directories of attempts that are dead.

    What goes is logged; what cannot be removed as well, and never hurts the job after which it is.
    """
    try:
        strays.end_all(workdir)
        remove_leftovers(workdir)
        there = mirrors(workdir)
        for cached, reason in _surplus(there, max_gb * GB, unused):
            if cached.remove():
                there.remove(cached)
                _log.info(
                    "cache.removed",
                    repository=cached.address,
                    bytes=cached.size,
                    last_used=cached.used.isoformat(timespec="seconds"),
                    reason=reason,
                )
        if there:
            _log.info("cache", mirrors=len(there), bytes=sum(each.size for each in there))
    except OSError as error:
        _log.warning("cache.not_tidied", path=str(workdir), error=str(error))


def _surplus(there: Sequence[Cached], quota: float, unused: timedelta) -> list[tuple[Cached, str]]:
    """Return what is to go, and why; of what is used it is the least recently used first."""
    before = datetime.fromtimestamp(time.time(), UTC) - unused
    total = sum(each.size for each in there)
    surplus = []
    for each in reversed(there):
        if each.used < before:
            surplus.append((each, "unused"))
        elif total > quota:
            surplus.append((each, "MOONMIND_CACHE_MAX_GB"))
        else:
            break
        total -= each.size
    return surplus


def _look(path: Path) -> Cached:
    try:
        address = (path / "address").read_text()
    except FileNotFoundError:
        address = path.name  # killed while it was made
    try:
        used = (path / "lock").stat().st_mtime
    except FileNotFoundError:
        used = path.stat().st_mtime
    return Cached(
        path=path, address=address, size=_size(path), used=datetime.fromtimestamp(used, UTC)
    )


def _size(path: Path) -> int:
    total = 0
    for folder, _, files in os.walk(path):
        for name in files:
            try:
                total += (Path(folder) / name).lstat().st_size
            except FileNotFoundError:
                continue
    return total
