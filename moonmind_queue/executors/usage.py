"""What the processes of a run use: CPU, memory, and the space of its directory.

Imported for each run by an interpreter of its own, so it needs little else.
"""

import os
import stat
import time
from collections.abc import Iterator
from contextlib import suppress

from moonmind_queue.executors.tree import Process

SCAN = 0.02  # seconds in one look for going through the directory
RESCAN = 1.0  # seconds until it is gone through anew, at least
DEEP = 4000  # bytes of a path; what lies deeper cannot be reached by one, so it is too much

_CLOCK = os.sysconf("SC_CLK_TCK")
_PAGE = os.sysconf("SC_PAGE_SIZE")
_BLOCK = 512  # bytes of a block in ``st_blocks``, whatever the file system's are


class Time:
    """The CPU time of what runs and of what has ended.

    Who waits for a child is told its time. Where nobody waits it is what was seen last; so the
    larger of both is taken.
    """

    def __init__(self) -> None:
        self._seen: dict[tuple[int, int], int] = {}
        self._gone = 0

    def used(self, processes: list[Process]) -> float:
        """Return seconds."""
        seen = {(process.pid, process.began): process.ticks for process in processes}
        self._gone += sum(ticks for each, ticks in self._seen.items() if each not in seen)
        self._seen = seen
        mine = os.times()
        told = sum(process.ticks + process.waited for process in processes)
        return max(
            (self._gone + sum(seen.values())) / _CLOCK,
            told / _CLOCK + mine.children_user + mine.children_system,
        )


def memory(processes: list[Process], limit: int) -> int:
    """Return bytes of memory.

    Pages that processes share are counted for each of them, which is quick; only when that is
    more than the limit they are told apart.
    """
    total = sum(process.pages for process in processes) * _PAGE
    return total if total <= limit else sum(map(_proportional, processes))


def _proportional(process: Process) -> int:
    """Return the bytes of a process; of what it shares only its part."""
    with suppress(OSError), open(f"/proc/{process.pid}/smaps_rollup", "rb") as file:
        for line in file:
            if line.startswith(b"Pss:"):
                return 1024 * int(line.split()[1])
    return process.pages * _PAGE


class Directory:
    """What lies in a directory, with the files that are open and have no name any more.

    Going through a large directory takes long, so it is done bit by bit, and only when there may
    be too much: when the file system has lost more room than was left at the last time, or now
    and then.
    """

    def __init__(self, path: str, limit: int) -> None:
        self._path, self._limit = path, limit
        self._used = 0
        self._room = self._free()
        self._due = time.monotonic() + RESCAN
        self._sizes: Iterator[int] | None = None
        self._begun = 0.0

    def is_full(self, processes: list[Process]) -> bool:
        """Look on; say whether there is more than the limit."""
        now = time.monotonic()
        if self._sizes is None:
            room = self._free()
            if self._used + self._room - room <= self._limit and now < self._due:
                return False
            self._sizes = self._measure(processes)
            self._used, self._room, self._begun = 0, room, now
        for size in self._sizes:
            self._used += size
            if self._used > self._limit:
                return True
            if time.monotonic() - now > SCAN:
                return False  # the next look goes on from here
        self._sizes = None
        now = time.monotonic()
        self._due = now + max(RESCAN, now - self._begun)
        return False

    def _free(self) -> int:
        try:
            found = os.statvfs(self._path)
        except OSError:
            return 0
        return found.f_bfree * found.f_frsize

    def _measure(self, processes: list[Process]) -> Iterator[int]:
        """Yield the bytes of each file, once if it has several names or none."""
        seen: set[tuple[int, int]] = set()
        for process in processes:
            for found in _nameless(process.pid):
                if (found.st_dev, found.st_ino) not in seen:
                    seen.add((found.st_dev, found.st_ino))
                    yield _size(found)
        folders = [self._path]
        while folders:
            folder = folders.pop()
            if len(os.fsencode(folder)) > DEEP:
                yield self._limit + 1
            with suppress(OSError), os.scandir(folder) as entries:
                for entry in entries:
                    try:
                        found = entry.stat(follow_symlinks=False)
                    except OSError:
                        continue  # gone meanwhile
                    if stat.S_ISDIR(found.st_mode):
                        folders.append(entry.path)
                    elif found.st_nlink > 1:
                        if (found.st_dev, found.st_ino) in seen:
                            continue
                        seen.add((found.st_dev, found.st_ino))
                    yield _size(found)


def _size(found: os.stat_result) -> int:
    """Return the bytes on disk; a file that has none still costs its inode."""
    return _BLOCK * (found.st_blocks + 1)


def _nameless(pid: int) -> Iterator[os.stat_result]:
    """Yield the files that a process holds open and nobody can find, those in memory too."""
    with suppress(OSError):
        for name in os.listdir(f"/proc/{pid}/fd"):
            with suppress(OSError):
                found = os.stat(f"/proc/{pid}/fd/{name}")
                if stat.S_ISREG(found.st_mode) and not found.st_nlink:
                    yield found
