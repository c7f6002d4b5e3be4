"""The directory of one attempt, ``<workdir>/<job>/<attempt>``, from its making to its removal.

====================  ==================================================================
``repo/``             the checkout, where the agent works
``base.git/``         git's side of it as it was before the agent came
``home/``, ``tmp/``   HOME and TMPDIR of Codex; of the two only ``tmp`` is the agent's to write
``artifacts/``        what is uploaded at the end
``lock``              held as long as the attempt runs
====================  ==================================================================
"""

import fcntl
import os
import shutil
import time
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import structlog

LEFTOVER_AGE = timedelta(days=1)

_log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Workspace:
    """An attempt's directory, locked; ``close`` lets go of it."""

    path: Path
    lock: int

    @classmethod
    def create(cls, workdir: Path, job: int, attempt: int, *, keep: bool) -> "Workspace":
        """Make a fresh directory; earlier attempts of the job go, with ``keep`` the last stays."""
        path = workdir / str(job) / str(attempt)
        earlier = _numbered(path.parent)
        # The latest may be of the same number: a job that was handed back runs again under it.
        kept = earlier.pop() if keep and earlier else None
        for each in earlier:
            remove_tree(each)
        if kept is not None:
            kept.rename(path)
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        for name in ("home", "tmp", "artifacts"):
            remove_tree(path / name)
        for name in ("home", "tmp/home", "artifacts"):
            (path / name).mkdir(parents=True)
        (path / "lock").unlink(missing_ok=True)
        return cls(path, _lock(path))

    @property
    def repo(self) -> Path:
        """The checkout."""
        return self.path / "repo"

    @property
    def base(self) -> Path:
        """The copy of the checkout's git directory that the agent never sees."""
        return self.path / "base.git"

    @property
    def home(self) -> Path:
        """HOME of Codex itself."""
        return self.path / "home"

    @property
    def tmp(self) -> Path:
        """TMPDIR of Codex and of the agent's commands."""
        return self.path / "tmp"

    @property
    def artifacts(self) -> Path:
        """What the attempt leaves behind."""
        return self.path / "artifacts"

    def close(self, *, keep: bool) -> None:
        """Remove the directory, or leave it for the job's next attempt."""
        if not keep:
            remove_tree(self.path)
            _remove_if_empty(self.path.parent)
        os.close(self.lock)


def remove_leftovers(workdir: Path, age: timedelta = LEFTOVER_AGE) -> None:
    """Remove what workers that died left behind; an attempt that runs somewhere is locked."""
    before = time.time() - age.total_seconds()
    for job in _numbered(workdir):
        for attempt in _numbered(job):
            try:
                if attempt.stat().st_mtime > before:
                    continue
                lock = _lock(attempt)
            except OSError:
                continue  # taken, or gone meanwhile
            remove_tree(attempt)
            os.close(lock)
        _remove_if_empty(job)


def remove_tree(path: Path) -> None:
    """Remove a directory whatever is in it; what cannot be removed is logged, not raised."""
    try:
        shutil.rmtree(path)
    except FileNotFoundError:
        return
    except OSError:
        _make_writable(path)
        shutil.rmtree(path, onerror=lambda _, name, info: _log.warning(
            "not removed", path=str(name), error=str(info[1])
        ))  # fmt: skip


def _make_writable(path: Path) -> None:
    """Open every directory to its owner: in one that is read-only nothing can be removed."""
    if not path.is_symlink():
        path.chmod(0o700)
    for folder, names, _ in os.walk(path):
        for name in names:
            child = Path(folder, name)
            if not child.is_symlink():
                child.chmod(0o700)


def _numbered(folder: Path) -> list[Path]:
    """Return the directories of jobs, or of one job's attempts, the latest last."""
    if not folder.is_dir():
        return []
    found = (each for each in folder.iterdir() if each.name.isdigit())
    return sorted(found, key=lambda each: int(each.name))


def _remove_if_empty(job: Path) -> None:
    try:
        job.rmdir()
    except OSError:
        return  # another attempt is in it


def _lock(attempt: Path) -> int:
    lock = os.open(attempt / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(lock)
        raise
    return lock
