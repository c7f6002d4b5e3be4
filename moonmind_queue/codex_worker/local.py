"""The directories of this machine that a worker lends to jobs, and who works in one of them.

``MOONMIND_CODEX_LOCAL_DIRS`` names them; nothing else is lent. Links in it are followed once, when
the worker starts. A job's path is resolved before it is compared, so that neither ``..`` nor a
link leads out, and once more under the lock, when no agent is there who could change it.

The lock is one that the kernel keeps for the directory itself (``flock``): it needs no file, holds
between all workers of the machine, whatever their settings, and ends with its process. Whoever
works in a directory shares the locks of those above it, so that nobody works there meanwhile: what
is above could change what is below.

Nothing here, and nothing in ``local_tree.py``, writes to a directory, removes it or puts it back.
But Codex, when it is interrupted, leaves the empty directories with which its sandbox hides what is
not there (``.git``, ``.codex`` and others): these go.
"""

import fcntl
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Self

from moonmind_queue.executors import Fail, Postpone
from moonmind_queue.settings import LocalDirectory

VARIABLE = "MOONMIND_CODEX_LOCAL_DIRS"
AGAIN = timedelta(seconds=20)  # until another look at a directory in which somebody works


@dataclass(frozen=True, slots=True, kw_only=True)
class Directory:
    """A directory in which an agent may work, by its real path; or only look around."""

    path: Path
    read_only: bool

    @classmethod
    def real(cls, entry: LocalDirectory) -> Self:
        """Follow the links of an entry; it need not exist yet."""
        return cls(path=Path(os.path.realpath(entry.path)), read_only=entry.read_only)

    def fault(self) -> str | None:
        """Say why nobody can work here now, if that is so."""
        if not self.path.is_dir():
            return "is not a directory on this worker"
        wanted = os.R_OK | os.X_OK | (0 if self.read_only else os.W_OK)
        if os.access(self.path, wanted):
            return None
        act = "read" if self.read_only else "written"
        return f"cannot be {act} by this worker, which is uid {os.geteuid()}"


class Directories:
    """All that a worker lends.

    No agent gets at what is the worker's own: neither in it nor above it, and not above its home,
    whose files say what the worker's git and shells do.
    """

    def __init__(self, entries: Iterable[LocalDirectory], own: Iterable[Path], home: Path) -> None:
        self.lent = sorted(map(Directory.real, entries), key=lambda each: each.path)
        self._own, self._home = tuple(own), home

    def permit(self, wanted: str) -> Directory:
        """Return the directory that a job's path means; raises ``Fail`` with the way out."""
        path = Path(os.path.realpath(wanted))
        lender = max(
            (each for each in self.lent if path.is_relative_to(each.path)),
            key=lambda each: len(each.path.parts),
            default=None,
        )
        if lender is None:
            within = any(Path(wanted).is_relative_to(each.path) for each in self.lent)
            leads = f" (it leads to {path})" if within else ""
            raise Fail(
                f"repoPath {wanted} is not allowed on this worker{leads}: add the directory to "
                f"{VARIABLE}, restart the worker and retry the job"
            )
        directory = Directory(path=path, read_only=lender.read_only)
        if fault := directory.fault() or self._objection(directory):
            raise Fail(f"repoPath {wanted} {fault}")
        return directory

    @contextmanager
    def held(self, wanted: str) -> Iterator[Directory]:
        """Have the directory that a job's path means alone.

        Raises ``Fail``, and ``Postpone`` while another job works in it, above it or below it.
        """
        directory = self.permit(wanted)
        locks = _lock(directory.path)
        if locks is None:
            raise Postpone(
                f"another job is at work in {directory.path}, or above or below it", after=AGAIN
            )
        try:
            if self.permit(wanted) != directory or not _is(locks[-1], directory.path):
                raise Postpone(f"repoPath {wanted} was changed in this instant", after=AGAIN)
            before = set(directory.path.iterdir())
            try:
                yield directory
            finally:
                _sweep(directory.path, before)
        finally:
            for each in locks:
                os.close(each)

    def _objection(self, directory: Directory) -> str | None:
        path = directory.path
        if ".git" in path.parts:
            return "is inside of a git directory: name the directory that has it"
        if not directory.read_only and (below := self._read_only_below(path)):
            return f"holds {below}, which {VARIABLE} lends to be read only"
        for own in (*self._own, self._home):
            real = Path(os.path.realpath(own))
            if real.is_relative_to(path):
                return f"holds {own}, which is the worker's own: name another directory"
            if own != self._home and path.is_relative_to(real):
                return f"is in {own}, which is the worker's own: name another directory"
        return None

    def _read_only_below(self, path: Path) -> Path | None:
        below = (each for each in self.lent if each.read_only and each.path != path)
        return next((each.path for each in below if each.path.is_relative_to(path)), None)


def _lock(path: Path) -> list[int] | None:
    """Return the descriptors that hold the locks, or ``None`` when somebody has one of them.

    None is waited for, so that two never wait for each other. What is above and cannot be read can
    be nobody's to work in.
    """
    held: list[int] = []
    try:
        for each in (*reversed(path.parents), path):
            try:
                held.append(os.open(each, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC))
            except PermissionError:
                if each == path:
                    raise
                continue
            how = fcntl.LOCK_EX if each == path else fcntl.LOCK_SH
            fcntl.flock(held[-1], how | fcntl.LOCK_NB)
    except OSError as error:
        for lock in held:
            os.close(lock)
        if isinstance(error, BlockingIOError):
            return None
        raise Fail(f"repoPath {path} cannot be locked: {error.strerror}") from None
    return held


def _sweep(path: Path, before: set[Path]) -> None:
    """Remove what is new, hidden and an empty directory: an agent's work is none of that."""
    with suppress(OSError):
        for each in set(path.iterdir()) - before:
            if each.name.startswith(".") and not each.is_symlink():
                with suppress(OSError):
                    each.rmdir()


def _is(lock: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(lock), path.stat())
    except OSError:
        return False
