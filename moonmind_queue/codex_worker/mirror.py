"""The mirror of a repository: what one job has fetched, the next ones need not fetch again.

====================  ==================================================================
``<mirrors>/<name>/`` one for each address, whatever jobs ask for it
``lock``              held by whoever is at work on it; its time is that of the last use
``address``           what is mirrored, for people
``repo.git/``         the bare repository; only workers use it, and only under the lock
``packs.json``        the files of its packs and their sizes, so that a lost one is noticed
====================  ==================================================================

The mirror saves the transfer, and never answers for the server: each checkout asks the server
first which commit is meant and fetches from it, so that a name means what it means there now, and
whoever may not read the repository any more gets nothing.

An attempt gets a repository of its own whose packs are hard links to the mirror's: no bytes are
copied, and neither can the mirror be pulled away from under an attempt, nor an attempt's commands
reach it. A work tree of the mirror (``git worktree``) would share its branches, its configuration
and its hooks with the agent. Refs go along only of the branch that the job asked for and of the
tags in its history.
"""

import fcntl
import hashlib
import json
import os
import re
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from moonmind_queue.codex_worker.git import Git, GitFailed
from moonmind_queue.executors import Fail, Retry, Stopped
from moonmind_queue.executors.folder import remove_tree

PATIENCE = 0.05  # seconds until another look at a lock that somebody has
MOST_LOOSE = 100  # refs that are a file each in an attempt's repository
MOST_PACKS = 20  # one comes with each fetch; beyond, the small ones become one

_TAGS = "+refs/tags/*:refs/tags/*"
_BRANCHES = "+refs/heads/*:refs/branches/*"
# Written anew at each use: whatever got into it, a proxy or a credential, does not stay.
_CONFIG = "[core]\n\trepositoryformatversion = 0\n\tbare = true\n"


class Damaged(Exception):
    """The mirror has lost something, or holds what git cannot read."""


@dataclass(frozen=True, slots=True)
class Mirror:
    """The mirror of one address; it need not exist yet."""

    path: Path
    address: str

    @classmethod
    def of(cls, mirrors: Path, address: str) -> Self:
        """Return the mirror of an address: another one, if only by its case, has its own."""
        readable = re.sub(r"[^A-Za-z0-9._]+", "-", address.partition("://")[2] or address)
        digest = hashlib.sha256(address.encode()).hexdigest()[:16]
        return cls(mirrors / f"{readable.strip('.-')[-60:]}-{digest}", address)

    @property
    def repo(self) -> Path:
        """The bare repository."""
        return self.path / "repo.git"

    @contextmanager
    def held(self, git: Git) -> Iterator[None]:
        """Wait for the lock and hold it; raises ``Stopped``, or ``Retry`` when time is up."""
        waited = False
        while (lock := self._try_lock()) is None:
            if not waited:
                git.log(f"waiting for the mirror of {self.address}: another job fetches")
                waited = True
            if git.stop is not None and git.stop.is_set():
                raise Stopped("stopped while another job had the mirror")
            if time.monotonic() >= git.deadline:
                raise Retry("another job had the mirror for all the time of the run")
            time.sleep(PATIENCE)
        try:
            os.utime(lock)
            yield
        finally:
            os.close(lock)

    def fetch(self, git: Git, ref: str) -> str:
        """Fetch a ref of the server by its full name, and return the commit it is at there."""
        kept = f"refs/kept/{hashlib.sha256(os.fsencode(ref)).hexdigest()}"
        self._fetch(git, f"+{ref}:{kept}", _TAGS)
        return self._commit(git, kept)

    def fetch_commit(self, git: Git, name: str) -> str:
        """Fetch a commit by its id, or a part of it; raises ``Fail`` when there is none."""
        with suppress(GitFailed):  # a server may give out only what a ref names
            if len(name) in (40, 64):
                return self.fetch(git, name)
        self._fetch(git, _BRANCHES, _TAGS)
        listing = self._git(git, "rev-parse", f"--disambiguate={name}").split()
        found = {commit for each in listing if (commit := self._on_the_server(git, each))}
        if len(found) != 1:
            reason = "not found" if not found else f"stands for {len(found)} commits"
            raise Fail(f"ref {name!r} {reason} in the repository")
        return found.pop()

    def lend(self, git: Git, repo: Path, commit: str, ref: str | None) -> None:
        """Give a new repository the objects, the branch if it is one, and the history's tags."""
        shutil.copytree(
            self.repo / "objects",
            repo / ".git" / "objects",
            symlinks=True,
            dirs_exist_ok=True,
            copy_function=link,
        )
        arguments = (
            "for-each-ref",
            f"--merged={commit}",
            "--format=create %(refname) %(objectname)",
        )
        refs = self._git(git, *arguments, "refs/tags").splitlines()
        if ref is not None and ref.startswith("refs/heads/"):
            branch = ref.removeprefix("refs/heads/")
            refs.append(f"create refs/remotes/origin/{branch} {commit}")
        if refs:
            git(repo, "update-ref", "--stdin", stdin=os.fsencode("\n".join([*refs, ""])))
        if len(refs) > MOST_LOOSE:
            git(repo, "pack-refs", "--all")

    def repair(self, git: Git, *, thorough: bool) -> bool:
        """Remove the repository if something in it is broken, and say whether it was.

        ``thorough`` reads every byte of every pack; else what the refs lead to has to be there.
        """
        with self.held(git):
            try:
                self._check()
                self._git(git, "fsck", "--connectivity-only", "--no-dangling", "--no-progress")
                packs = sorted(map(str, self._pack_folder.glob("*.pack")))
                if thorough and packs:
                    self._git(git, "verify-pack", "--", *packs)
            except (Damaged, GitFailed) as error:
                git.log(f"the mirror is damaged and will be made anew: {error}")
                remove_tree(self.repo)
                return True
        return False

    def _try_lock(self) -> int | None:
        self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
        with suppress(FileNotFoundError):  # removed in this instant
            return try_lock(self.path)
        return None

    def _fetch(self, git: Git, *refs: str) -> None:
        self._open(git)
        options = ("--quiet", "--prune", "--no-write-fetch-head")
        self._git(git, "fetch", *options, "--", self.address, *refs)
        self._record()
        if len(list(self._pack_folder.glob("*.pack"))) > MOST_PACKS:
            self._repack(git)

    def _open(self, git: Git) -> None:
        """Make the repository, or take away what a git that was killed left in it.

        Whoever has the lock is alone, so nobody needs these locks of git and these pieces of packs.
        """
        try:
            self._check()
        except Damaged as error:
            if self.repo.exists():
                git.log(f"the mirror is damaged and made anew: {error}")
            self._make(git)
        for left in [
            *self.repo.rglob("*.lock"),
            *self._pack_folder.glob("tmp_*"),
            *self._pack_folder.glob(".tmp-*"),
        ]:
            left.unlink()
        (self.repo / "objects" / "info" / "alternates").unlink(missing_ok=True)
        (self.repo / "config").write_text(_CONFIG)
        (self.path / "address").write_text(self.address)

    def _make(self, git: Git) -> None:
        remove_tree(self.repo)
        git(self.path, "init", "--quiet", "--bare", "--template=", "--", str(self.repo))
        self._record()

    def _check(self) -> None:
        """Raise ``Damaged`` when the repository or a file of its packs is not as it was left."""
        if not (self.repo / "HEAD").is_file():
            raise Damaged("there is no repository")
        with suppress(FileNotFoundError, ValueError):  # killed while it was written
            recorded = json.loads((self.path / "packs.json").read_text())
            there = self._packs()
            for name, size in recorded.items():
                if there.get(name) != size:
                    raise Damaged(f"{name} has {there.get(name, 0)} bytes instead of {size}")

    def _packs(self) -> dict[str, int]:
        return {each.name: each.stat().st_size for each in self._pack_folder.glob("pack-*")}

    @property
    def _pack_folder(self) -> Path:
        return self.repo / "objects" / "pack"

    def _record(self) -> None:
        (self.path / "packs.json").write_text(json.dumps(self._packs()))

    def _repack(self, git: Git) -> None:
        (self.path / "packs.json").unlink()  # first: a git that is killed has removed some
        with suppress(GitFailed):  # an old git cannot, and does without
            self._git(git, "repack", "--quiet", "-d", "--geometric=2")
        self._git(git, "pack-refs", "--all")
        self._record()

    def _on_the_server(self, git: Git, name: str) -> str | None:
        """Return the commit, if a branch or a tag of the server has it in its history."""
        with suppress(GitFailed):  # it names a file or a directory
            commit = self._commit(git, name)
            places = ("refs/branches", "refs/tags")
            if self._git(git, "for-each-ref", "--count=1", f"--contains={commit}", *places):
                return commit
        return None

    def _commit(self, git: Git, name: str) -> str:
        end = "--end-of-options"
        return self._git(git, "rev-parse", "--verify", "--quiet", end, f"{name}^{{commit}}")

    def _git(self, git: Git, *arguments: str) -> str:
        """Run git on the mirror; it must not look for another repository further up."""
        environment = {"GIT_DIR": str(self.repo)}
        output = git(self.path, *arguments, env=environment, quiet=True)
        return output.decode(errors="surrogateescape").strip()


def try_lock(mirror: Path) -> int | None:
    """Return the descriptor that holds a mirror's lock, or ``None`` when another process has it.

    The kernel frees it when its holder is killed. Raises ``FileNotFoundError`` without a mirror.
    """
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
    lock = os.open(mirror / "lock", flags, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        # Whoever removed the mirror meanwhile had the lock of a file that is no more.
        if os.path.samestat(os.fstat(lock), (mirror / "lock").stat()):
            return lock
    except (BlockingIOError, FileNotFoundError):
        pass
    except BaseException:
        os.close(lock)
        raise
    os.close(lock)
    return None


def link(source: str, target: str) -> str:
    """Copy a file of git's directory; objects never change, so a hard link will do."""
    if f"{os.sep}objects{os.sep}" in source:
        with suppress(OSError):
            os.link(source, target, follow_symlinks=False)
            return target
    return shutil.copy2(source, target)
