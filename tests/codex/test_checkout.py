"""Checkouts at exactly one commit, and patches that reproduce the tree."""

import os
import shutil
import stat
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from git_server import GitServer

from moonmind_queue import Queue
from moonmind_queue.codex_worker.checkout import Changes, Checkout
from moonmind_queue.codex_worker.git import Git
from moonmind_queue.codex_worker.payload import CodexExecJobPayload
from moonmind_queue.codex_worker.workspace import Workspace
from moonmind_queue.executors import Fail, Outcome, Retry
from moonmind_queue.executors.folder import remove_leftovers

Prepare = Callable[..., "Tree"]


class Tree:
    """A checkout under test."""

    def __init__(self, checkout: Checkout, git: Git, log: list[str]) -> None:
        self.checkout, self.git, self.log = checkout, git, log
        self.repo = checkout.workspace.repo
        self.patch = checkout.workspace.path / "patch"

    def sh(self, script: str) -> None:
        """Do something in the checkout, as an agent would."""
        identity = "git config user.name Eve; git config user.email eve@example.org; "
        subprocess.run(["bash", "-ec", identity + script], cwd=self.repo, check=True)

    def compare(self) -> Changes:
        """Make the patch."""
        return self.checkout.compare(self.git, self.patch)

    def applied(self, remote: Path, target: Path) -> Path:
        """Apply the patch to the base commit elsewhere."""
        for command in (
            ["git", "clone", "-q", str(remote), str(target)],
            ["git", "-C", str(target), "checkout", "-q", self.checkout.base],
            ["git", "-C", str(target), "apply", "--index", str(self.patch)],
        ):
            subprocess.run(command, check=True)
        return target


@pytest.fixture
def prepare(remote: GitServer, tmp_path: Path) -> Prepare:
    """Make a checkout of the demo repository."""

    def make(
        ref: str | None = None, *, repository: str = "demo.git", attempt: int = 1, mode: str = ""
    ) -> Tree:
        log: list[Any] = []
        git = Git(environ=os.environ, log=log.append, stop=None, deadline=time.monotonic() + 60)
        payload: dict[str, Any] = {"repository": remote.url(repository), "instruction": "x"}
        payload |= {"ref": ref, "workdirMode": mode or "fresh_clone"}
        space = Workspace.create(tmp_path / "work", 7, attempt, keep=mode == "reuse")
        return Tree(Checkout.prepare(git, space, CodexExecJobPayload.parse(payload)), git, log)

    return make


def revision(demo: Path, name: str) -> str:
    """Return the commit a name stands for on the server."""
    command = ["git", "-C", str(demo / "demo.git"), "rev-parse", f"{name}^{{commit}}"]
    return subprocess.check_output(command, text=True).strip()


@pytest.mark.parametrize(
    ("ref", "name"),
    [
        (None, "trunk"),
        ("HEAD", "trunk"),
        ("trunk", "trunk"),
        ("topic/one", "topic/one"),
        ("refs/heads/topic/one", "topic/one"),
        ("v1", "v1"),
        ("v2", "v2"),
    ],
)
def test_ref(prepare: Prepare, demo: Path, ref: str | None, name: str) -> None:
    """A branch, a tag of either kind, or nothing for the default branch."""
    assert prepare(ref).checkout.base == revision(demo, name)


@pytest.mark.parametrize("length", [40, 10])
def test_commit(prepare: Prepare, demo: Path, length: int) -> None:
    """A commit by its whole id, or by a part of it."""
    commit = revision(demo, "topic/one")
    assert prepare(commit[:length]).checkout.base == commit


@pytest.mark.parametrize("ref", ["nowhere", "deadbeef1", "d" * 40])
def test_unknown_ref(prepare: Prepare, ref: str) -> None:
    """A ref that is not there fails the job for good, by its name."""
    with pytest.raises(Fail, match=f"ref '{ref}' not found"):
        prepare(ref)


def test_unknown_repository(prepare: Prepare, queue: Queue) -> None:
    """A repository that is not there fails the job for good, by the rules for failures."""
    with pytest.raises(Retry, match="not found") as refusal:
        prepare(repository="nowhere.git")
    assert means(queue, refusal) == ("repository_not_found", "fail")


def means(queue: Queue, refusal: pytest.ExceptionInfo[Outcome]) -> tuple[str, str]:
    """Return what the rules for failures make of it."""
    rule = queue.classify_failure(str(refusal.value.source), str(refusal.value))
    assert rule
    return rule.name, rule.outcome


def test_server_trouble(prepare: Prepare, remote: GitServer) -> None:
    """A server that answers with an error now may do better later."""
    remote.fail(1)
    with pytest.raises(Retry, match="500"):
        prepare()


def test_nobody_listens(tmp_path: Path) -> None:
    """A refused connection is worth another attempt."""
    payload = {"repository": "http://127.0.0.1:1/x.git", "instruction": "x"}
    git = Git(environ=os.environ, log=lambda _: None, stop=None, deadline=time.monotonic() + 60)
    with pytest.raises(Retry):
        Checkout.prepare(
            git,
            Workspace.create(tmp_path, 1, 1, keep=False),
            CodexExecJobPayload.parse(payload),
        )


def test_password_wanted(demo: Path, tmp_path: Path, queue: Queue) -> None:
    """A repository that asks for a password blocks the job, and nobody is asked."""
    with GitServer(demo, auth=("ada", "secret")) as server:
        payload = {"repository": server.url("demo.git"), "instruction": "x"}
        git = Git(environ=os.environ, log=lambda _: None, stop=None, deadline=time.monotonic() + 60)
        with pytest.raises(Retry, match="could not read Username") as refusal:
            Checkout.prepare(
                git,
                Workspace.create(tmp_path, 1, 1, keep=False),
                CodexExecJobPayload.parse(payload),
            )
    assert means(queue, refusal) == ("repository_access", "block")


EDITS = r"""
echo more >> README.md
chmod -x run.sh
rm src/gone.txt
echo new > new.txt
printf 'no newline' > 'odd "name" é.txt'
head -c 5000 /dev/urandom > picture.bin
ln -s /etc/hostname link
echo out > ignored.log
git add -A
git commit -qm "by the agent"
echo uncommitted > src/later.txt
echo more >> README.md
mkdir -p inner/deeper && git init -q inner && git init -q inner/deeper
echo a > inner/a && echo b > inner/deeper/b
(cd inner/deeper && git add b && git -c user.name=E -c user.email=e commit -qm inner)
mkfifo pipe
"""


def test_patch_round_trip(prepare: Prepare, demo: Path, tmp_path: Path) -> None:
    """The patch on the base gives the tree: new, changed, deleted, binary, modes, commits."""
    tree = prepare()
    tree.sh(EDITS)
    changes = tree.compare()
    copy = tree.applied(demo / "demo.git", tmp_path / "copy")

    def content(root: Path) -> dict[str, tuple[int, bytes]]:
        found = {}
        for path in root.rglob("*"):
            name = path.relative_to(root)
            mode = path.lstat().st_mode
            if ".git" in name.parts or stat.S_ISDIR(mode) or stat.S_ISFIFO(mode):
                continue
            data = str(path.readlink()).encode() if path.is_symlink() else path.read_bytes()
            found[str(name)] = (mode, data)
        return found

    expected = content(tree.repo)
    del expected["ignored.log"]
    assert content(copy) == expected
    assert changes.files == 10
    assert changes.summary().startswith("10 files changed, +")


def test_no_changes(prepare: Prepare) -> None:
    """A tree that is as it was has an empty patch."""
    tree = prepare()
    tree.sh("touch README.md; echo x > a.log")
    changes = tree.compare()
    assert (changes.files, changes.size, changes.summary()) == (0, 0, "no changes")


HOSTILE = r"""
printf '#!/bin/sh\ntouch "%s"\n' "$PWD/../pwned" > ../trap; chmod +x ../trap
for name in post-index-change pre-commit post-checkout; do cp ../trap .git/hooks/$name; done
git config core.fsmonitor "$PWD/../trap"
git config core.hooksPath "$PWD/.git/hooks"
git config diff.external "$PWD/../trap"
git config diff.x.textconv "$PWD/../trap"
git config diff.x.command "$PWD/../trap"
git config filter.x.clean "$PWD/../trap"
git config filter.x.process "$PWD/../trap"
git config core.worktree /
git config include.path "$PWD/../nowhere"
echo '* filter=x diff=x' > .gitattributes
mkdir -p .git/info; echo '*' > .git/info/exclude
mkdir sub; git init -q sub; cp .git/config sub/.git/config; cp -r .git/hooks sub/.git/
echo '* filter=x diff=x' > sub/.gitattributes
"""


def test_hostile_git_directory(prepare: Prepare, demo: Path, tmp_path: Path) -> None:
    """Hooks, filters, drivers and monitors that the agent configured never run."""
    tree = prepare()
    (tree.repo / ".git" / "hooks").mkdir(exist_ok=True)
    subprocess.run(["bash", "-ec", HOSTILE], cwd=tree.repo, check=True)
    (tree.repo / "new.txt").write_text("new\n")
    tree.compare()
    assert not (tree.repo.parent / "pwned").exists()
    copy = tree.applied(demo / "demo.git", tmp_path / "copy")
    assert (copy / "new.txt").read_text() == "new\n"
    assert (copy / "sub" / ".gitattributes").is_file()


@pytest.mark.parametrize(
    "damage", ["rm -rf .git", "rm -rf .git; git init -q", "rm -rf .git/objects"]
)
def test_git_directory_destroyed(prepare: Prepare, damage: str) -> None:
    """The patch does not need the agent's git directory."""
    tree = prepare()
    tree.sh("echo new > new.txt")
    subprocess.run(["bash", "-ec", damage], cwd=tree.repo, check=True)
    assert tree.compare().files == 1


def test_submodule_is_left_alone(prepare: Prepare, demo: Path) -> None:
    """What happens in a submodule is not in the patch, and its configuration never runs."""
    commit = revision(demo, "trunk")
    bare = demo / "demo.git"
    script = f"""
    export GIT_DIR={bare} GIT_INDEX_FILE={demo}/index
    git read-tree trunk
    git update-index --add --cacheinfo 160000,{commit},module
    tree=$(git write-tree)
    commit=$(git -c user.name=A -c user.email=a commit-tree -m x $tree)
    git update-ref refs/heads/with-module $commit
    """
    subprocess.run(["bash", "-ec", script], check=True)
    tree = prepare("with-module")
    tree.sh(
        "git init -q module; cd module; echo x > x; git add x;"
        "git -c user.name=E -c user.email=e commit -qm x; touch ../../trap; chmod +x ../../trap;"
        "git config filter.x.clean 'touch ../../pwned'; echo '* filter=x' > .gitattributes"
    )
    tree.sh("echo new > new.txt")
    assert tree.compare().files == 1
    assert not (tree.repo.parent / "pwned").exists()


def test_git_sees_no_secret(
    prepare: Prepare, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Git, and what it starts, gets none of the worker's variables that it does not need."""
    monkeypatch.setenv("DATABASE_URL", "postgresql://u:p@h/d")
    monkeypatch.setenv("PGPASSWORD", "p")
    monkeypatch.setenv("GITHUB_TOKEN", "t")
    monkeypatch.setenv("GIT_CONFIG_COUNT", "1")
    monkeypatch.setenv("GIT_CONFIG_KEY_0", "alias.show-environment")
    monkeypatch.setenv("GIT_CONFIG_VALUE_0", "!env")
    tree = prepare()
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / ".gitconfig").write_text("[alias]\nprint-environment = !env\n")
    git = Git(
        environ=os.environ | {"HOME": str(tmp_path / "home")},
        log=lambda _: None,
        stop=None,
        deadline=time.monotonic() + 60,
    )
    names = {line.partition(b"=")[0] for line in git(tree.repo, "print-environment").splitlines()}
    assert b"HOME" in names
    assert not names & {b"DATABASE_URL", b"PGPASSWORD", b"GITHUB_TOKEN", b"GIT_CONFIG_COUNT"}


def test_fresh_clone_forgets(prepare: Prepare, tmp_path: Path) -> None:
    """A fresh clone begins anew, and removes what the job's earlier attempts left."""
    prepare().sh("echo old > old.txt")
    tree = prepare(attempt=2)
    assert not (tree.repo / "old.txt").exists()
    assert [each.name for each in (tmp_path / "work" / "7").iterdir()] == ["2"]


@pytest.mark.parametrize("attempt", [1, 2, 5])
def test_reuse(prepare: Prepare, attempt: int) -> None:
    """Reuse goes on where an earlier attempt of the job ended, with its base commit."""
    first = prepare("topic/one", mode="reuse")
    first.sh("echo old > old.txt; git add -A; git commit -qm mine")
    second = prepare("topic/one", mode="reuse", attempt=attempt)
    assert second.checkout.reused
    assert second.checkout.base == first.checkout.base
    assert (second.repo / "old.txt").read_text() == "old\n"
    assert second.compare().files == 1


def test_reuse_of_something_else(prepare: Prepare) -> None:
    """A checkout of another ref is not taken for the one that is wanted."""
    prepare("v1", mode="reuse").sh("echo old > old.txt")
    tree = prepare("v2", mode="reuse", attempt=2)
    assert not tree.checkout.reused
    assert not (tree.repo / "old.txt").exists()


def test_remove_what_resists(tmp_path: Path) -> None:
    """Read-only directories and links to elsewhere are removed; what they point to stays."""
    root = tmp_path / "root"
    (root / "a" / "b").mkdir(parents=True)
    (root / "a" / "b" / "file").write_text("x")
    (tmp_path / "kept").mkdir()
    (root / "link").symlink_to(tmp_path / "kept")
    (root / "a" / "b").chmod(0o500)
    (root / "a").chmod(0o000)
    # Root writes where it may not; without these capabilities it is a user like others.
    drop = (
        "import ctypes, os, sys\n"
        "for capability in (1, 2, 3):\n"
        "    ctypes.CDLL(None).prctl(24, capability)\n"
        "os.execv(sys.executable, [sys.executable, *sys.argv[1:]])\n"
    )
    remove = (
        "import pathlib, sys\n"
        "from moonmind_queue.executors.folder import remove_tree\n"
        "remove_tree(pathlib.Path(sys.argv[1]))\n"
    )
    subprocess.run([sys.executable, "-c", drop, "-c", remove, str(root)], check=True)
    assert not root.exists()
    assert (tmp_path / "kept").is_dir()


def test_leftovers(tmp_path: Path) -> None:
    """At start, old attempts go; young ones and those at work stay."""
    old, young, running = (Workspace.create(tmp_path, job, 1, keep=False) for job in (1, 2, 3))
    for space in (old, young):
        os.close(space.lock)
    for space in (old, running):
        os.utime(space.path, (0, 0))
    (tmp_path / "other").mkdir()
    remove_leftovers(tmp_path, timedelta(days=1))
    assert {each.name for each in tmp_path.iterdir()} == {"2", "3", "other"}
    os.close(running.lock)
    shutil.rmtree(tmp_path)
    remove_leftovers(tmp_path)
