"""The repository an attempt works on: cloned at exactly one commit, and compared with it after.

The agent may do to ``repo/.git`` what it likes: set a hook, a filter or a file system monitor,
commit, rewrite history, delete it. None of this is looked at. Before the agent comes, git's
directory is copied (objects are hard links, so it costs little), and only the copy is used to
compare, with an index of its own. Attributes in the tree can name filters and diff drivers, but
not define them. Git directories that the agent made below the checkout are moved out of the way
first: their files are in the patch, and git never runs in them. Submodules are not fetched, and
what happens inside them is not in the patch. What is fetched comes by way of a mirror that all jobs
share (``mirror.py``).
"""

import json
import os
import re
import shutil
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

from moonmind_queue.codex_worker.git import Git, GitFailed
from moonmind_queue.codex_worker.mirror import Mirror, link
from moonmind_queue.codex_worker.payload import CodexExecJobPayload
from moonmind_queue.codex_worker.workspace import Workspace
from moonmind_queue.executors import Fail

_FULL_COMMIT = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")
_SHORT_COMMIT = re.compile(r"[0-9a-f]{7,64}")
_GITLINK = b"160000 "
_DIFF = ("diff-tree", "-r", "--no-renames", "--no-ext-diff", "--no-textconv")
_PATCH = ("-p", "--binary", "--full-index", "--src-prefix=a/", "--dst-prefix=b/")


@dataclass(frozen=True, slots=True, kw_only=True)
class Changes:
    """What differs between the base commit and the work tree; ``patch`` is empty if nothing."""

    patch: Path
    tree: str
    files: int
    insertions: int
    deletions: int

    @classmethod
    def between(
        cls, git: Git, folder: Path, before: str, after: str, patch: Path, here: Mapping[str, Any]
    ) -> "Changes":
        """Write the patch from one tree, or commit, to another; ``here`` is for each call of git.

        What the objects' repository configures is not asked: neither drivers nor renames.
        """
        numbers = git(folder, *_DIFF, "--numstat", "-z", before, after, "--", **here)
        git(folder, *_DIFF, *_PATCH, f"--output={patch}", before, after, "--", **here)
        counts = [line.split(b"\t", 2) for line in numbers.split(b"\0") if b"\t" in line]
        return cls(
            patch=patch,
            tree=after,
            files=len(counts),
            insertions=sum(int(added) for added, _, _ in counts if added != b"-"),
            deletions=sum(int(gone) for _, gone, _ in counts if gone != b"-"),
        )

    @property
    def size(self) -> int:
        """How many bytes the patch has."""
        return self.patch.stat().st_size

    def summary(self) -> str:
        """Say it in words."""
        if not self.files:
            return "no changes"
        plural = "" if self.files == 1 else "s"
        return (
            f"{self.files} file{plural} changed, +{self.insertions} \N{MINUS SIGN}{self.deletions}"
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkout:
    """A work tree and the commit it began with; ``reused`` if it has changes of before."""

    workspace: Workspace
    base: str
    reused: bool

    @classmethod
    def prepare(cls, git: Git, workspace: Workspace, payload: CodexExecJobPayload) -> "Checkout":
        """Clone what the payload names, or take the checkout of an earlier attempt if it may."""
        record = workspace.path / "checkout.json"
        wanted = {"repository": payload.repository, "ref": payload.ref}
        if payload.workdir_mode == "reuse" and (base := _earlier(record, wanted)):
            git.log(f"reusing the checkout of an earlier attempt, based on {base}")
            return cls(workspace=workspace, base=base, reused=True)
        for each in (workspace.repo, workspace.base):
            shutil.rmtree(each, ignore_errors=True)
        base = _clone(git, workspace, payload.clone_url, payload.ref)
        shutil.copytree(workspace.repo / ".git", workspace.base, symlinks=True, copy_function=link)
        record.write_text(json.dumps({**wanted, "base": base}))
        return cls(workspace=workspace, base=base, reused=False)

    @property
    def roots(self) -> tuple[Path, ...]:
        """What Codex may take for the project: the work tree."""
        return (self.workspace.repo,)

    def continues(self, base: str) -> bool:
        """Say whether what an attempt with that base did belongs here."""
        return self.reused or base == self.base

    def compare(self, git: Git, patch: Path) -> Changes:
        """Write the patch from the base commit to the work tree as it is now."""
        space = self.workspace
        index = space.path / "index"
        shutil.copyfile(space.base / "index", index)
        here: dict[str, Any] = {"tree": (space.base, space.repo), "index": index, "quiet": True}
        self._set_nested_aside(git, here)
        git(space.repo, "add", "--all", **here)
        tree = git(space.repo, "write-tree", **here).decode().strip()
        return Changes.between(git, space.repo, self.base, tree, patch, here)

    def restore(self, git: Git, patch: Path) -> str:
        """Return the tree that a patch makes of the base commit, as an earlier attempt did."""
        index = self.workspace.path / "index"
        here: dict[str, Any] = {"tree": (self.workspace.base, self.workspace.repo), "index": index}
        git(self.workspace.repo, "read-tree", self.base, quiet=True, **here)
        git(self.workspace.repo, "apply", "--cached", "--binary", "--", str(patch), **here)
        return git(self.workspace.repo, "write-tree", quiet=True, **here).decode().strip()

    def apply(self, git: Git, patch: Path) -> None:
        """Change the work tree as a patch says, all of it or nothing; raises ``GitFailed``."""
        self._ask(git, "apply", "--binary", "--", str(patch))

    def commit(self, git: Git, tree: str, message: str, identity: Mapping[str, str]) -> str:
        """Make the commit of a tree on the base, and return its id; the branches stay."""
        arguments = ("commit-tree", tree, "-p", self.base, "-F", "-")
        return self._ask(git, *arguments, env=identity, stdin=message.encode(errors="replace"))

    def remote_commit(self, git: Git, ref: str) -> str | None:
        """Return the commit that a ref of the remote is at; None where there is no such ref."""
        found = self._ask(git, "ls-remote", "--", "origin", ref)
        return found.partition("\t")[0] if found else None

    def default_branch(self, git: Git) -> str:
        """Return the name of the branch that the remote's HEAD stands for."""
        listing = self._ask(git, "ls-remote", "--symref", "--", "origin", "HEAD")
        target = _remote_refs(listing.encode()).get("HEAD", "")
        if not target.startswith("refs/heads/"):
            raise Fail("the repository has no default branch: name a baseBranch")
        return target.removeprefix("refs/heads/")

    def push(self, git: Git, ref: str, commit: str, *, expected: str | None) -> None:
        """Move a ref of the remote to a commit, if it is still where it was seen."""
        lease = f"--force-with-lease={ref}:{expected or ''}"
        arguments = ("push", "--porcelain", "--no-verify", "--no-recurse-submodules", lease)
        self._ask(git, *arguments, "--", "origin", f"{commit}:{ref}")

    def _ask(self, git: Git, *arguments: str, **options: Any) -> str:
        """Ask git of the copy that the agent never saw."""
        where = (self.workspace.base, self.workspace.repo)
        return git(self.workspace.repo, *arguments, tree=where, **options).decode().strip()

    def _set_nested_aside(self, git: Git, here: dict[str, Any]) -> None:
        """Take away the git directories of submodules and of repositories the agent made."""
        repo = self.workspace.repo
        staged = git(repo, "ls-files", "--stage", "-z", **here).split(b"\0")
        nested = [line.partition(b"\t")[2] for line in staged if line.startswith(_GITLINK)]
        self._set_aside(nested)
        while True:  # one may hold another, which git lists only once the outer one is gone
            others = git(repo, "ls-files", "--others", "--exclude-standard", "-z", **here)
            if not self._set_aside([path for path in others.split(b"\0") if path.endswith(b"/")]):
                return

    def _set_aside(self, folders: list[bytes]) -> int:
        """Move what is called ``.git`` in these folders, and say how many there were."""
        aside = self.workspace.path / "nested"
        aside.mkdir(exist_ok=True)
        moved = 0
        for folder in folders:
            inner = self.workspace.repo / os.fsdecode(folder) / ".git"
            if os.path.lexists(inner):  # a dangling link as well as a file or a directory
                inner.rename(aside / uuid4().hex)
                moved += 1
        return moved


def _earlier(record: Path, wanted: dict[str, Any]) -> str | None:
    """Return the base of a checkout that an earlier attempt finished, of the same repository."""
    with suppress(OSError, ValueError):
        found = json.loads(record.read_text())
        base = found.pop("base")
        if found == wanted:
            return str(base)
    return None


def _clone(git: Git, space: Workspace, url: str, ref: str | None) -> str:
    """Check out a ref by way of the mirror, and return its commit."""
    mirror = Mirror.of(space.mirrors, url)
    try:
        _begin(git, space.repo, url)
        full = _on_the_server(git, space.repo, ref or "HEAD")
        try:
            return _check_out(git, space.repo, mirror, full, ref)
        except GitFailed as error:
            # A fetch most often fails for the server's sake: not worth reading every byte here.
            if not mirror.repair(git, thorough=error.command != "fetch"):
                raise
        _begin(git, space.repo, url)
        return _check_out(git, space.repo, mirror, full, ref)
    except GitFailed as error:
        raise error.outcome from None


def _begin(git: Git, repo: Path, url: str) -> None:
    """Make an empty repository that knows where it is from."""
    shutil.rmtree(repo, ignore_errors=True)
    # Without a template no hook of the operator's runs when the agent uses git.
    git(repo.parent, "init", "--quiet", "--template=", "--", str(repo))
    git(repo, "remote", "add", "--", "origin", url)


def _on_the_server(git: Git, repo: Path, name: str) -> str | None:
    """Return the full name that a branch or a tag has now; ``None`` for what must be a commit."""
    wanted = ("HEAD",) if name == "HEAD" else (f"refs/heads/{name}", f"refs/tags/{name}", name)
    found = _remote_refs(git(repo, "ls-remote", "--symref", "--", "origin", *wanted, quiet=True))
    for each in wanted:
        if each in found and not _FULL_COMMIT.fullmatch(name):
            return found[each]
    if name == "HEAD":
        raise Fail("the repository has no default branch: it is empty, or HEAD points nowhere")
    if not _SHORT_COMMIT.fullmatch(name):
        raise Fail(f"ref {name!r} not found in the repository")
    return None


def _check_out(git: Git, repo: Path, mirror: Mirror, full: str | None, ref: str | None) -> str:
    with mirror.held(git):
        commit = mirror.fetch(git, full) if full else mirror.fetch_commit(git, str(ref))
        mirror.lend(git, repo, commit, full)
    git(repo, "checkout", "--quiet", "--detach", commit, "--")
    _say_what_is_left_out(git, repo)
    return commit


def _say_what_is_left_out(git: Git, repo: Path) -> None:
    if (repo / ".gitmodules").is_file():
        git.log("the submodules are not fetched: their directories are empty")
    with suppress(OSError):
        if b"filter=lfs" in (repo / ".gitattributes").read_bytes():
            git.log("files in Git LFS are not fetched: the pointers stand in their places")


def _remote_refs(listing: bytes) -> dict[str, str]:
    """Return what to fetch for each name a remote has: for HEAD the branch it stands for."""
    found: dict[str, str] = {}
    for line in listing.decode(errors="surrogateescape").splitlines():
        target, _, name = line.partition("\t")
        symbolic = target.startswith("ref: ")
        if symbolic or name not in found:
            found[name] = target.removeprefix("ref: ") if symbolic else name
    return found
