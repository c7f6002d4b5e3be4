"""The directory of one attempt, ``<workdir>/<job>/<attempt>``, from its making to its removal.

====================  ==================================================================
``repo/``             the checkout, where the agent works
``base.git/``         git's side of it as it was before the agent came
``home/``, ``tmp/``   HOME and TMPDIR of Codex; of the two only ``tmp`` is the agent's to write
``artifacts/``        what is uploaded at the end
``lock``              held as long as the attempt runs
====================  ==================================================================
"""

import os
from dataclasses import dataclass
from pathlib import Path

from moonmind_queue.codex_worker import strays
from moonmind_queue.executors import folder


@dataclass(frozen=True, slots=True)
class Workspace:
    """An attempt's directory, locked; ``close`` lets go of it."""

    path: Path
    lock: int

    @classmethod
    def create(cls, workdir: Path, job: int, attempt: int, *, keep: bool) -> "Workspace":
        """Make a fresh directory; earlier attempts of the job go, with ``keep`` the last stays."""
        path = workdir / str(job) / str(attempt)
        earlier = folder.numbered(path.parent)
        strays.end(earlier)
        # The latest may be of the same number: a job that was handed back runs again under it.
        kept = earlier.pop() if keep and earlier else None
        for each in earlier:
            folder.remove_tree(each)
        if kept is not None:
            kept.rename(path)
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        for name in ("home", "tmp", "artifacts"):
            folder.remove_tree(path / name)
        for name in ("home", "tmp/home", "artifacts"):
            (path / name).mkdir(parents=True)
        (path / "lock").unlink(missing_ok=True)
        return cls(path, folder.lock(path))

    @property
    def repo(self) -> Path:
        """The checkout."""
        return self.path / "repo"

    @property
    def base(self) -> Path:
        """The copy of the checkout's git directory that the agent never sees."""
        return self.path / "base.git"

    @property
    def mirrors(self) -> Path:
        """Where the mirrors of repositories are, which all jobs of the machine share."""
        return self.path.parent.parent / "mirrors"

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
            folder.remove_tree(self.path)
            folder.remove_if_empty(self.path.parent)
        os.close(self.lock)
