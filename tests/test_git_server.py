"""The loopback git remote is one that git itself takes for real."""

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from git_server import GitServer

Git = Callable[..., str]


@pytest.fixture
def git(tmp_path: Path) -> Git:
    """Run git with no configuration but this; a failure raises with git's own words."""
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(tmp_path),
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_TERMINAL_PROMPT": "0",
        "GIT_AUTHOR_NAME": "Test",
        "GIT_AUTHOR_EMAIL": "test@example.org",
        "GIT_COMMITTER_NAME": "Test",
        "GIT_COMMITTER_EMAIL": "test@example.org",
    }

    def run(*arguments: str | Path, cwd: Path = tmp_path) -> str:
        done = subprocess.run(
            ["git", *arguments], cwd=cwd, env=environment, capture_output=True, text=True
        )
        if done.returncode:
            raise RuntimeError(done.stderr)
        return done.stdout.strip()

    return run


@pytest.fixture
def work(tmp_path: Path, git: Git) -> Path:
    """Return a checkout with one commit on main; ``remote/demo.git`` is its bare copy."""
    path = tmp_path / "work"
    git("init", "-q", "-b", "main", path)
    (path / "README.md").write_text("demo\n")
    git("add", ".", cwd=path)
    git("commit", "-q", "-m", "Begin", cwd=path)
    git("clone", "-q", "--bare", path, tmp_path / "remote" / "demo.git")
    return path


def test_a_push_is_what_the_next_clone_gets(tmp_path, git, work):
    """Bytes travel both ways unharmed, also in the chunks that git uses above its buffer."""
    content = os.urandom(3_000_000)
    (work / "large").write_bytes(content)
    git("add", ".", cwd=work)
    git("commit", "-q", "-m", "Grow", cwd=work)

    with GitServer(tmp_path / "remote") as server:
        git("push", "-q", server.url("demo.git"), "main", cwd=work)
        git("clone", "-q", server.url("demo.git"), "copy")

    assert (tmp_path / "copy" / "large").read_bytes() == content
    assert git("rev-parse", "HEAD", cwd=tmp_path / "copy") == git("rev-parse", "HEAD", cwd=work)


def test_a_long_negotiation_is_understood(tmp_path, git, work):
    """Git compresses a large request; a fetch with much history in common still succeeds."""
    with GitServer(tmp_path / "remote") as server:
        git("clone", "-q", server.url("demo.git"), "copy")
        for number in range(40):
            git("commit", "-q", "--allow-empty", "-m", f"local {number}", cwd=tmp_path / "copy")
        git("commit", "-q", "--allow-empty", "-m", "remote", cwd=work)
        git("push", "-q", server.url("demo.git"), "main", cwd=work)

        git("fetch", "-q", cwd=tmp_path / "copy")

    fetched = git("log", "-1", "--format=%s", "origin/main", cwd=tmp_path / "copy")
    assert fetched == "remote"


def test_only_the_right_credentials_get_in(tmp_path, git, work):
    """A private remote refuses whoever brings no password or a wrong one."""
    with GitServer(tmp_path / "remote", auth=("robot", "right")) as server:
        url = server.url("demo.git")

        with pytest.raises(RuntimeError, match="could not read Username"):
            git("ls-remote", url)
        with pytest.raises(RuntimeError, match="Authentication failed"):
            git("ls-remote", url.replace("//", "//robot:wrong@"))
        assert "refs/heads/main" in git("ls-remote", url.replace("//", "//robot:right@"))


def test_a_read_only_remote_refuses_a_push(tmp_path, git, work):
    """Without receive-pack a clone works and a push does not."""
    with GitServer(tmp_path / "remote", receive_pack=False) as server:
        git("clone", "-q", server.url("demo.git"), "copy")

        with pytest.raises(RuntimeError, match="403"):
            git("push", "-q", server.url("demo.git"), "main:other", cwd=work)


def test_a_fault_passes(tmp_path, git, work):
    """As many requests as asked for fail, and the next succeeds."""
    with GitServer(tmp_path / "remote") as server:
        server.fail(1)

        with pytest.raises(RuntimeError, match="error: 500"):
            git("ls-remote", server.url("demo.git"))
        assert "refs/heads/main" in git("ls-remote", server.url("demo.git"))
