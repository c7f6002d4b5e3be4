"""A directory that is somebody's own, before and after an attempt: what changed between the two.

The directory is as it is: with changes that nobody committed, with files that git does not know,
or without git altogether. So its state is recorded before the agent comes and once more after, as
two trees in a repository of the worker's (``base.git`` of the workspace, with an index of its own).
The directory's own repository gives a copy of its index, which tells what has not changed without
reading it, and lends its objects when the two are compared. Nothing is written there, no lock is
taken, and neither its hooks nor its filters or monitors run, for what is configured there is not
read (but for how lines end). In a directory without a repository all files are recorded.

What is recorded is what git would add. Left out, and told, are files that are larger than an
artifact may be, those that cannot be read, and what is inside of other repositories, in which git
never runs. Where there is too much to record there is no patch.
"""

import os
import shutil
import socket
import stat
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from moonmind_queue.codex_worker.checkout import Changes
from moonmind_queue.codex_worker.git import Git, GitFailed
from moonmind_queue.codex_worker.local import Directory
from moonmind_queue.codex_worker.workspace import Workspace
from moonmind_queue.executors import Fail
from moonmind_queue.executors.folder import remove_tree

MOST_BYTES = 10**9  # to be recorded besides what the directory's own repository has
MOST_NAMED = 10  # files that the log names

_GITLINK = b"160000"
# For these questions it does not matter whose repository it is: nothing in it is run.
_ANYBODYS = {
    "GIT_CONFIG_COUNT": "1",
    "GIT_CONFIG_KEY_0": "safe.directory",
    "GIT_CONFIG_VALUE_0": "*",
}
_LINES = r"^core\.(autocrlf|eol|filemode|symlinks|ignorecase|precomposeunicode)$"
# Nobody needs this repository after a crash.
_CONFIG = "[core]\n\tfsync = none\n\tcompression = 1\n\tlooseCompression = 1\n\tsafecrlf = false\n"


class TooMuch(Exception):
    """There is more to record than a worker's disk should bear."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Repository:
    """The repository that a directory belongs to, with the ``top`` of its work tree."""

    top: Path
    common: Path
    objects: Path
    index: Path
    exclude: Path
    format: str
    commit: str | None

    @classmethod
    def of(cls, git: Git, directory: Path) -> "Repository | None":
        """Look for it from the directory upwards; raises ``Fail`` in the middle of git's own."""
        words = (
            *("--is-inside-git-dir", "--show-toplevel", "--git-common-dir"),
            *("--git-path", "objects", "--git-path", "index", "--git-path", "info/exclude"),
            "--show-object-format",
        )
        try:
            if _ask(git, directory, "rev-parse", words[0]) == ["true"]:
                raise Fail(f"repoPath {directory} is inside of a git directory")
            _, top, *places, form = _ask(git, directory, "rev-parse", *words)
        except (GitFailed, ValueError):
            return None
        commit: list[str] = []
        with suppress(GitFailed):  # there is none yet
            commit = _ask(git, directory, "rev-parse", "--verify", "--quiet", "HEAD^{commit}")
        if len(places) != 4 or not directory.is_relative_to(top):
            return None  # a line break in a path, or a work tree that is elsewhere
        common, objects, index, exclude = (directory / each for each in places)
        return cls(
            top=Path(top),
            common=common.resolve(),
            objects=objects.resolve(),
            index=index,
            exclude=exclude,
            format=form,
            commit=commit[0] if commit else None,
        )


@dataclass(slots=True, kw_only=True)
class LocalTree:
    """The directory of one attempt; ``before`` is the tree that it was, if that is known."""

    workspace: Workspace
    directory: Directory
    limit: int
    """Bytes of the largest file that is recorded."""
    repository: Repository | None = None
    before: str | None = None
    left_out: dict[bytes, tuple[int, int] | None] = field(default_factory=dict)
    """What was not recorded, by its path, with size and time; None for what git never enters."""
    untold: list[str] = field(default_factory=list)
    """What has changed, as far as that can be seen, and is not in the patch."""

    @classmethod
    def prepare(cls, git: Git, space: Workspace, directory: Directory, limit: int) -> "LocalTree":
        """Record how the directory is now."""
        repository = Repository.of(git, directory.path)
        tree = cls(workspace=space, directory=directory, limit=limit, repository=repository)
        try:
            tree._begin(git)
            tree.before = tree._record(git)
        except TooMuch as error:
            git.log(f"there will be no patch: {error}")
        except GitFailed as error:
            raise error.outcome from None
        return tree

    @property
    def base(self) -> str:
        """What a later attempt must find to go on: this directory of this machine."""
        return f"{socket.gethostname()}:{self.directory.path}"

    def continues(self, base: str) -> bool:
        """Say whether what an attempt with that base did was done here."""
        return base == self.base

    @property
    def roots(self) -> tuple[Path, ...]:
        """Every directory that Codex may take for the project."""
        if self.repository is None:
            return (self.directory.path,)
        return (self.directory.path, self.repository.top, self.repository.common.parent)

    def compare(self, git: Git, patch: Path) -> Changes | None:
        """Write the patch of what has changed since; None when that cannot be told."""
        if self.before is None:
            return None
        earlier = self.left_out
        try:
            after = self._record(git)
        except TooMuch as error:
            git.log(f"there is no patch: {error}")
            return None
        both = earlier.keys() | self.left_out.keys()
        self.untold = sorted(
            os.fsdecode(path)
            for path in both
            if earlier.get(path, ()) != self.left_out.get(path, ())
        )
        if self.untold:
            git.log(f"changed, and not in the patch: {_named(self.untold)}")
        here = self._here | {"env": self._lent}
        return Changes.between(git, self._top, self.before, after, patch, here)

    @property
    def _top(self) -> Path:
        return self.repository.top if self.repository else self.directory.path

    @property
    def _index(self) -> Path:
        return self.workspace.path / "index"

    @property
    def _here(self) -> dict[str, Any]:
        """Whose repository, work tree and index each command is about: never the user's."""
        return {"tree": (self.workspace.base, self._top), "index": self._index, "quiet": True}

    @property
    def _lent(self) -> dict[str, str]:
        """The objects of the directory's repository, for commands that write none.

        Of an object that it would write and that is there, git would set the time.
        """
        if self.repository is None:
            return {}
        return {"GIT_ALTERNATE_OBJECT_DIRECTORIES": _quoted(str(self.repository.objects))}

    @property
    def _part(self) -> tuple[str, ...]:
        """What of the work tree is the agent's: the directory, by its very name."""
        where = self.directory.path.relative_to(self._top)
        return ("--",) if where == Path() else ("--", f":(top,literal){where}")

    def _begin(self, git: Git) -> None:
        """Make the worker's repository, which knows what the directory's own has."""
        space, there = self.workspace, self.repository
        remove_tree(space.base)
        self._index.unlink(missing_ok=True)
        form = f"--object-format={there.format if there else 'sha1'}"
        git(space.path, "init", "--quiet", "--bare", "--template=", form, "--", str(space.base))
        with (space.base / "config").open("a") as config:
            config.write(_CONFIG + (_line_ends(git, there.top) if there else ""))
        if there is None:
            return
        (space.base / "info").mkdir(exist_ok=True)
        for source, target in (
            (there.index, self._index),
            (there.exclude, space.base / "info" / "exclude"),
            # The greater part of an index may be in such a file beside it.
            *((each, space.base / each.name) for each in there.index.parent.glob("sharedindex.*")),
        ):
            with suppress(FileNotFoundError):
                shutil.copy2(source, target)  # with its time: git compares that with the files'
        self._look_at_all(git)

    def _look_at_all(self, git: Git) -> None:
        """Take away the marks by which the user has git look away from files."""
        try:
            listing = self._ask(git, "ls-files", "-v", "-z", env=self._lent).split(b"\0")
        except GitFailed as error:
            git.log(f"the index of the repository is passed over: {error}")
            self._index.unlink(missing_ok=True)
            return
        marked = [line[2:] for line in listing if line[:1].islower() or line[:1] == b"S"]
        if marked:
            for option in ("--no-assume-unchanged", "--no-skip-worktree"):
                self._update(git, marked, option, env=self._lent)

    def _record(self, git: Git) -> str:
        """Bring the index up to what is there now, and return its tree."""
        gone, changed = self._tracked(git)
        if gone:
            zeros = b"0" * (64 if self.repository and self.repository.format == "sha256" else 40)
            lines = b"".join(b"0 %s\t%s\0" % (zeros, path) for path in gone)
            self._ask(git, "update-index", "-z", "--index-info", stdin=lines)
        new = self._ask(git, "ls-files", "--others", "--exclude-standard", "-z", *self._part).split(
            b"\0"
        )
        self.left_out = {path: None for path in new if path.endswith(b"/")}
        files = self._worth_it([*changed, *(path for path in new if path and path[-1:] != b"/")])
        self._update(git, files, "--add", "--remove", "--replace")
        if self.left_out:
            git.log(f"left out: {_named(sorted(map(os.fsdecode, self.left_out)))}")
        return self._ask(git, "write-tree", "--missing-ok").decode().strip()

    def _tracked(self, git: Git) -> tuple[list[bytes], list[bytes]]:
        """Return what is gone of what the index has, and what may be different."""
        raw = self._ask(
            git,
            *("diff-files", "--raw", "-z", "--no-abbrev", "--no-renames"),
            *("--ignore-submodules=all", *self._part),
        ).split(b"\0")
        gone: dict[bytes, None] = {}
        changed: dict[bytes, None] = {}
        for facts, path in zip(raw[::2], raw[1::2], strict=False):
            old, new, *_, status = facts.removeprefix(b":").split()
            if old == _GITLINK:
                continue
            if status == b"D" or new == _GITLINK or (status == b"U" and not self._is_file(path)):
                gone[path] = None
            else:
                changed[path] = None
        return list(gone), [path for path in changed if path not in gone]

    def _is_file(self, path: bytes) -> bool:
        try:
            return not stat.S_ISDIR((self._top / os.fsdecode(path)).lstat().st_mode)
        except OSError:
            return False

    def _worth_it(self, paths: Iterable[bytes]) -> list[bytes]:
        """Return what is recorded; the rest is kept in mind. Raises ``TooMuch``."""
        files, total = [], 0
        for path in paths:
            file = self._top / os.fsdecode(path)
            with suppress(FileNotFoundError):
                found = file.lstat()
                regular = stat.S_ISREG(found.st_mode)
                if regular and (found.st_size > self.limit or not os.access(file, os.R_OK)):
                    self.left_out[path] = (found.st_size, found.st_mtime_ns)
                    continue
                total += found.st_size
            files.append(path)
        if total > MOST_BYTES:
            raise TooMuch(
                f"{total} bytes in {len(files)} files are not in a repository, more than "
                f"{MOST_BYTES}; let .gitignore name what is no work of people"
            )
        return files

    def _ask(self, git: Git, *arguments: str, **more: Any) -> bytes:
        return git(self._top, *arguments, **self._here, **more)

    def _update(self, git: Git, paths: list[bytes], *options: str, **more: Any) -> None:
        if paths:
            lines = b"".join(path + b"\0" for path in paths)
            self._ask(git, "update-index", "-z", *options, "--stdin", stdin=lines, **more)


def _ask(git: Git, folder: Path, *arguments: str) -> list[str]:
    answer = git(folder, *arguments, env=_ANYBODYS, quiet=True)
    return answer.decode(errors="surrogateescape").splitlines()


def _line_ends(git: Git, top: Path) -> str:
    """Return what the user's repository says of lines and modes, as lines of a configuration."""
    try:
        said = _ask(git, top, "config", "--local", "--get-regexp", _LINES)
    except GitFailed:  # nothing
        return ""
    pairs = (each.removeprefix("core.").partition(" ") for each in said)
    return "".join(f"\t{name} = {value}\n" for name, _, value in pairs if value.isalpha())


def _quoted(path: str) -> str:
    """Return a path as git reads it in a list of paths, whatever is in it."""
    escaped = path.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'"{escaped}"'


def _named(paths: list[str]) -> str:
    more = len(paths) - MOST_NAMED
    return ", ".join(paths[:MOST_NAMED]) + (f" and {more} more" if more > 0 else "")
