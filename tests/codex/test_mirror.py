"""Mirrors: what one job has fetched helps the next, and nothing else passes between them."""

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from threading import Event

import pytest
from conftest import GIT, Bench
from git_server import GitServer
from model_server import say, shell
from waiting import eventually

from moonmind_queue.codex_worker import mirror as mirror_module
from moonmind_queue.codex_worker.checkout import Checkout
from moonmind_queue.codex_worker.git import Git, GitFailed
from moonmind_queue.codex_worker.mirror import Mirror
from moonmind_queue.codex_worker.payload import CodexExecJobPayload
from moonmind_queue.codex_worker.workspace import Workspace
from moonmind_queue.executors import Fail, Retry, Stopped


@dataclass
class Site:
    """A worker's directory and the server with the demo repository."""

    work: Path
    demo: Path
    remote: GitServer
    git: Git
    log: list[str]
    jobs: int = 0

    def check_out(self, ref: str | None = None, *, repository: str = "demo.git") -> Checkout:
        """Check out for a job of its own."""
        self.jobs += 1
        space = Workspace.create(self.work, self.jobs, 1, keep=False)
        return Checkout.prepare(self.git, space, self.payload(ref, repository))

    def payload(self, ref: str | None, repository: str = "demo.git") -> CodexExecJobPayload:
        """Return what a job asks for."""
        address = self.remote.url(repository)
        return CodexExecJobPayload.parse({"repository": address, "ref": ref, "instruction": "x"})

    def mirror(self, repository: str = "demo.git") -> Mirror:
        """Return the mirror of a repository."""
        return Mirror.of(self.work / "mirrors", self.remote.url(repository))

    def packs(self) -> dict[str, int]:
        """Return the inodes of the mirror's packs."""
        folder = self.mirror().repo / "objects" / "pack"
        return {each.name: each.stat().st_ino for each in folder.glob("pack-*.pack")}

    def on_server(self, script: str) -> str:
        """Change the repository on the server, and return what that prints."""
        bare = self.demo / "demo.git"
        commit = 'commit() { git commit-tree -m "$1" -p "$2" "$2^{tree}"; }; '
        identity = ["-c", "user.name=Ada", "-c", "user.email=ada@example.org"]
        names = {"GIT_CONFIG_COUNT": str(len(identity) // 2)}
        for number, each in enumerate(identity[1::2]):
            key, _, value = each.partition("=")
            names |= {f"GIT_CONFIG_KEY_{number}": key, f"GIT_CONFIG_VALUE_{number}": value}
        command = ["bash", "-ec", commit + script]
        environ = os.environ | names
        return subprocess.check_output(command, cwd=bare, env=environ, text=True).strip()


@pytest.fixture
def site(remote: GitServer, demo: Path, tmp_path: Path) -> Site:
    """A worker's directory without a mirror yet."""
    log: list[str] = []

    def note(text: str | bytes) -> None:
        log.append(text if isinstance(text, str) else text.decode())

    git = Git(environ=os.environ, log=note, stop=None, deadline=time.monotonic() + 120)
    return Site(tmp_path / "work", demo, remote, git, log)


def shown(repo: Path, *arguments: str) -> str:
    """Ask git of an attempt's repository, as its agent would."""
    return subprocess.check_output(["git", *arguments], cwd=repo, text=True).strip()


def listing(folder: Path) -> dict[str, tuple[int, bytes]]:
    """Return every file of a directory with its mode and content."""
    files = (each for each in sorted(folder.rglob("*")) if each.is_file())
    return {str(each): (each.stat().st_mode, each.read_bytes()) for each in files}


# --- what is fetched -----------------------------------------------------------------------------


def test_what_is_there_is_not_fetched_again(site: Site) -> None:
    """A second checkout brings no pack; its objects are the mirror's, in its own repository."""
    site.check_out()
    before = site.packs()
    second = site.check_out()

    assert site.packs() == before
    packs = (second.workspace.repo / ".git" / "objects" / "pack").glob("*.pack")
    assert {each.name: each.stat().st_ino for each in packs} == before
    assert shown(second.workspace.repo, "fsck", "--no-dangling") == ""


def test_only_what_is_new_is_fetched(site: Site) -> None:
    """A commit that came meanwhile is one small pack more."""
    site.check_out()
    before = site.packs()
    new = site.on_server("git update-ref refs/heads/trunk $(commit new trunk); git rev-parse trunk")

    assert site.check_out().base == new
    [added] = site.packs().keys() - before.keys()
    pack = site.mirror().repo / "objects" / "pack" / added
    assert shown(site.mirror().repo, "verify-pack", "-v", str(pack)).count(" commit ") == 1


MOVES = {
    "a branch that was moved back": ("topic/one", "git update-ref refs/heads/topic/one v1"),
    "a tag that was moved": ("v1", "git tag -f v1 topic/one"),
    "a tag that was made a branch": ("v1", "git tag -d v1; git branch v1 topic/one"),
    "another default branch": (None, "git symbolic-ref HEAD refs/heads/topic/one"),
    "a branch below another's name": (
        "topic/one/more",
        "git branch -m topic/one kept; git branch topic/one/more trunk",
    ),
}


@pytest.mark.parametrize("case", MOVES)
def test_a_name_means_what_it_means_there_now(site: Site, case: str) -> None:
    """The mirror remembers objects; where names point is the server's word each time."""
    ref, script = MOVES[case]
    for each in (None, "topic/one", "v1", "v2"):
        site.check_out(each)
    site.on_server(f"{script} > /dev/null")

    base = site.check_out(ref).base

    assert base == site.on_server(f"git rev-parse '{ref or 'HEAD'}^{{commit}}'")


def test_a_name_that_is_gone_is_gone(site: Site) -> None:
    """A branch that the server has not any more is not found, whatever the mirror has."""
    site.check_out("topic/one")
    commit = site.on_server("git rev-parse topic/one; git tag -d v2 > /dev/null")
    site.on_server("git branch -D topic/one > /dev/null")

    for ref in ("topic/one", commit[:10]):
        with pytest.raises(Fail, match=f"ref '{ref}' not found"):
            site.check_out(ref)


def test_tags_are_those_of_the_server(site: Site) -> None:
    """Tags in the history come along as they are on the server now, for git describe."""
    site.check_out("topic/one")
    site.on_server(
        "git tag -d v1 > /dev/null; git tag -f v2 topic/one > /dev/null; git tag v3 trunk"
    )

    repo = site.check_out("topic/one").workspace.repo

    assert shown(repo, "tag", "--list").split() == ["v2", "v3"]
    assert shown(repo, "cat-file", "-t", "v2") == "commit"


def test_a_tag_in_another_encoding(site: Site) -> None:
    """The name of a tag is any bytes that git takes."""
    site.on_server("git tag $'caf\\xe9'")
    repo = site.check_out().workspace.repo
    tags = subprocess.check_output(["git", "tag", "--list"], cwd=repo)
    assert tags.split() == [b"caf\xe9", b"v1"]


def test_many_tags(site: Site) -> None:
    """Hundreds of tags do not become hundreds of files."""
    site.on_server("for n in $(seq 150); do echo create refs/tags/n$n $(git rev-parse trunk); done"
                   " | git update-ref --stdin")  # fmt: skip
    repo = site.check_out().workspace.repo
    assert len(shown(repo, "tag", "--list").split()) == 151
    assert not (repo / ".git" / "refs" / "tags" / "n1").exists()


def test_the_server_is_always_asked(site: Site) -> None:
    """Whoever may not read the repository any more gets nothing out of the mirror."""
    site.check_out("v1")
    commit = site.on_server("git rev-parse v1")
    site.remote.auth = ("ada", "secret")

    for ref in (None, "v1", commit):
        with pytest.raises(Retry, match="could not read Username"):
            site.check_out(ref)


def test_a_commit_that_no_ref_of_the_job_names(site: Site) -> None:
    """A commit by its id needs no name on the server, once by the server and once by the mirror."""
    commit = site.on_server("git rev-parse topic/one~0")
    for _ in range(2):
        repo = site.check_out(commit).workspace.repo
        assert shown(repo, "rev-parse", "HEAD") == commit
        assert shown(repo, "for-each-ref", "refs/heads", "refs/remotes") == ""


def test_mirrors_do_not_mix(site: Site) -> None:
    """Another address has another mirror, though only its case or its ending differ."""
    first = Mirror.of(site.work, "https://example.org/acme/site.git").path
    for other in (
        "https://example.org/acme/Site.git",
        "https://example.org/acme/site",
        "https://example.org/acme-site.git",
        "http://example.org/acme/site.git",
        "git@example.org:acme/site.git",
    ):
        assert Mirror.of(site.work, other).path != first
    assert Mirror.of(site.work, "https://h/" + "x" * 900).path.name.isascii()


def test_few_packs_and_all_of_them(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """Packs are put together as they come, and nothing gets lost."""
    monkeypatch.setattr(mirror_module, "MOST_PACKS", 3)
    for _ in range(6):
        site.on_server("git update-ref refs/heads/trunk $(commit new trunk)")
        repo = site.check_out().workspace.repo
        assert len(site.packs()) <= 3
    assert shown(repo, "rev-list", "--count", "HEAD") == "7"
    assert shown(repo, "fsck", "--no-dangling") == ""


# --- what the agent can do -----------------------------------------------------------------------

DEEDS = {
    "moves a branch": "git update-ref refs/kept/moved HEAD",
    "deletes what others need": "git for-each-ref --format='delete %(refname)' |"
    " git update-ref --stdin",
    "configures a program": "git config core.fsmonitor 'touch /pwned'",
    "sets a hook": 'd=$(git rev-parse --git-common-dir); mkdir -p "$d/hooks";'
    ' echo true > "$d/hooks/post-checkout"',
    "fetches and prunes": "git remote get-url origin 2> /dev/null || git remote add origin .;"
    " git remote set-url origin .; git fetch -q --prune origin '+refs/heads/*:refs/*'",
    "commits": "echo x > x; git add x; git -c user.name=E -c user.email=e commit -qm x",
}


@pytest.mark.parametrize("deed", DEEDS)
def test_a_worktree_would_hand_the_mirror_to_the_agent(site: Site, deed: str) -> None:
    """What git's own work tree lets an agent do to the mirror, our checkout does not."""
    ours = site.check_out().workspace.repo
    theirs = site.work / "worktree"
    mirror = site.mirror().repo
    add = ["git", "worktree", "add", "--detach", str(theirs), *mirror.glob("refs/kept/*")]
    add[-1] = f"refs/kept/{Path(add[-1]).name}"
    before = listing(mirror)

    subprocess.run(["bash", "-ec", DEEDS[deed]], cwd=ours, check=True)
    assert listing(mirror) == before

    subprocess.run(add, cwd=mirror, check=True, capture_output=True)
    before = listing(mirror)
    subprocess.run(["bash", "-ec", DEEDS[deed]], cwd=theirs, check=True)
    assert listing(mirror) != before


def test_the_agent_cannot_write_to_the_mirror(bench: Bench) -> None:
    """The sandbox keeps the agent from the mirror, by its path and by the links to its files."""
    bench.run([[say("Nothing to do.")]])
    mirrors = bench.workdir / "mirrors"
    [mirror] = mirrors.iterdir()
    (mirror / "lock").touch()
    before = listing(mirrors)
    attempts = (
        f"touch {mirror}/repo.git/new",
        f"rm -rf {mirror}/repo.git",
        f"git -C {mirror}/repo.git update-ref refs/heads/x HEAD",
        "ln .git/objects/pack/*.pack p && chmod u+w p && echo x >> p",
        "chmod u+w .git/objects/pack/*.pack && echo x >> .git/objects/pack/*.pack",
        "mv .git away && echo x >> away/objects/pack/*.pack",
    )
    script = "; ".join(f"({each}) && echo done {n}" for n, each in enumerate(attempts))

    ended = bench.run([[shell(f"{script}; echo tried")], [say("Done.")]])

    assert "tried" in ended.context.stored_log
    assert "done 0" not in ended.context.stored_log.replace("echo done", "")
    after = listing(mirrors)
    changed = {name for name in before | after if before.get(name) != after.get(name)}
    assert not changed


def test_other_branches_are_not_in_the_checkout(site: Site) -> None:
    """An agent sees the branch of its job and the tags in its history; no job's branches else."""
    site.on_server("git branch moonmind-job-1 topic/one; git tag -f v9 topic/one")
    for ref in ("topic/one", "moonmind-job-1", site.on_server("git rev-parse topic/one")[:9]):
        site.check_out(ref)

    names = shown(site.check_out("trunk").workspace.repo, "for-each-ref", "--format=%(refname)")

    assert names.split() == ["refs/remotes/origin/trunk", "refs/tags/v1"]


def test_the_mirror_may_go_while_attempts_use_it(site: Site) -> None:
    """An attempt's repository is whole without the mirror it came from."""
    checkout = site.check_out()
    shutil.rmtree(site.mirror().path)

    assert shown(checkout.workspace.repo, "fsck", "--no-dangling") == ""
    (checkout.workspace.repo / "new.txt").write_text("new\n")
    assert checkout.compare(site.git, checkout.workspace.path / "patch").files == 1


def test_reuse_needs_no_mirror(site: Site) -> None:
    """What an attempt leaves for the next one is whole, though the mirror went in between."""
    payload = site.payload("topic/one").model_copy(update={"workdir_mode": "reuse"})
    first = Checkout.prepare(site.git, Workspace.create(site.work, 9, 1, keep=True), payload)
    (first.workspace.repo / "new.txt").write_text("new\n")
    first.workspace.close(keep=True)
    shutil.rmtree(site.mirror().path)

    second = Checkout.prepare(site.git, Workspace.create(site.work, 9, 2, keep=True), payload)

    assert (second.reused, second.base) == (True, first.base)
    assert second.compare(site.git, second.workspace.path / "patch").files == 1
    assert not site.mirror().path.exists()


def test_the_mirror_keeps_no_configuration(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """No token gets into the mirror, and what somebody wrote into its configuration is gone."""
    monkeypatch.setenv("GITHUB_TOKEN", "ghp_" + "A1b2C3d4" * 5)
    site.check_out()
    mirror = site.mirror()
    trap = site.work / "pwned"
    with (mirror.repo / "config").open("a") as config:
        config.write(
            f'[core]\nalternateRefsCommand = "touch {trap}; :"\nsshCommand = touch {trap}\n'
        )
        config.write(
            '[credential]\nhelper = "!echo password=hunter2"\n[http]\nproxy = http://h:1\n'
        )
    (mirror.repo / "objects" / "info" / "alternates").write_text(f"{site.demo}/demo.git/objects\n")
    (mirror.repo / "hooks").mkdir()
    (mirror.repo / "hooks" / "reference-transaction").write_text(f"#!/bin/sh\ntouch {trap}\n")
    (mirror.repo / "hooks" / "reference-transaction").chmod(0o755)
    site.on_server("git update-ref refs/heads/trunk $(commit new trunk)")

    repo = site.check_out().workspace.repo

    assert not trap.exists()
    assert not (repo / ".git" / "objects" / "info" / "alternates").exists()
    content = b"".join(data for _, data in listing(mirror.path).values())
    assert b"hunter2" not in content
    assert b"ghp_" not in content


# --- several at once -----------------------------------------------------------------------------

HOLDER = """
import signal, sys
from pathlib import Path
from moonmind_queue.codex_worker.mirror import try_lock
lock = try_lock(Path(sys.argv[1]))
print("held" if lock is not None else "missed", flush=True)
signal.pause()
"""


@contextmanager
def holder(mirror: Path) -> "Iterator[subprocess.Popen[str]]":
    """Another worker process that holds a mirror's lock."""
    mirror.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-c", HOLDER, str(mirror)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "held\n"
            yield process
        finally:
            process.kill()


def waits(site: Site) -> Callable[[], bool]:
    """Whether somebody waits for the lock."""
    return lambda: any(line.startswith("waiting for the mirror") for line in site.log)


def test_a_killed_worker_frees_the_mirror(site: Site) -> None:
    """Who waits for a mirror goes on when the process that had it is killed."""
    with holder(site.mirror().path) as process, ThreadPoolExecutor() as pool:
        waiting = pool.submit(site.check_out)
        eventually(waits(site))
        assert not waiting.done()
        process.kill()
        assert waiting.result(60).base


def test_waiting_ends_with_the_stop(site: Site) -> None:
    """A worker that stops does not wait for a mirror."""
    stop = Event()
    stopping = replace(site, git=replace(site.git, stop=stop))
    with holder(site.mirror().path), ThreadPoolExecutor() as pool:
        waiting = pool.submit(stopping.check_out)
        eventually(waits(site))
        stop.set()
        with pytest.raises(Stopped, match="another job had the mirror"):
            waiting.result(60)


def test_waiting_ends_with_the_time_of_the_run(site: Site) -> None:
    """A run whose time is up while another fetches is tried again."""
    late = replace(site.git, deadline=time.monotonic() + 0.1)
    with (
        holder(site.mirror().path),
        pytest.raises(Retry, match="had the mirror for all the time"),
        site.mirror().held(late),
    ):
        pass


def test_four_at_once_fetch_once(site: Site) -> None:
    """Jobs that start together share one fetch."""
    with ThreadPoolExecutor(4) as pool:
        sites = [replace(site, jobs=number * 10) for number in range(1, 5)]
        bases = {each.base for each in pool.map(Site.check_out, sites)}
    assert bases == {site.on_server("git rev-parse trunk")}
    assert len(site.packs()) == 1


def test_a_mirror_that_was_removed_meanwhile(site: Site) -> None:
    """Who has waited for a mirror that is removed under the lock makes it anew."""
    mirror = site.mirror()
    with ThreadPoolExecutor() as pool, mirror.held(site.git):
        waiting = pool.submit(site.check_out)
        eventually(waits(site))
        shutil.rmtree(mirror.path)
        assert waiting.result(60).base
        assert site.packs()


def test_the_lock_of_a_removed_mirror_is_none(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who gets the lock of a file that was removed in this instant has nothing."""
    mirror = site.mirror().path
    mirror.mkdir(parents=True)
    real = fcntl.flock

    def removed_before(descriptor: int, operation: int) -> None:
        (mirror / "lock").unlink()
        real(descriptor, operation)

    monkeypatch.setattr(fcntl, "flock", removed_before)
    assert mirror_module.try_lock(mirror) is None
    monkeypatch.setattr(fcntl, "flock", real)
    lock = mirror_module.try_lock(mirror)
    assert lock is not None
    os.close(lock)


def test_use_is_remembered(site: Site) -> None:
    """The time of the last use is that of the last fetch, by which the janitor chooses."""
    site.check_out()
    lock = site.mirror().path / "lock"
    os.utime(lock, (0, 0))
    site.check_out("v1")
    assert lock.stat().st_mtime > 0


# --- damage --------------------------------------------------------------------------------------

DAMAGE = {
    "no repository": "rm -rf repo.git/HEAD",
    "half a repository": "rm -rf repo.git/refs repo.git/objects",
    "a pack that is gone": "rm repo.git/objects/pack/*.pack",
    "an index that is gone": "rm repo.git/objects/pack/*.idx",
    "a pack that was cut": "chmod u+w repo.git/objects/pack/*.pack;"
    " truncate -s 100 repo.git/objects/pack/*.pack",
    "a pack with other bytes": "chmod u+w repo.git/objects/pack/*.pack;"
    " printf ruined | dd of=$(ls repo.git/objects/pack/*.pack) bs=1 seek=400 conv=notrunc",
    "a record that was cut": "truncate -s 3 packs.json",
    "empty refs, as after a crash": "for f in $(find repo.git/refs -type f); do : > $f; done",
    "a killed git": "touch repo.git/packed-refs.lock repo.git/objects/pack/tmp_pack_x;"
    " for f in $(find repo.git/refs -type f); do touch $f.lock; done",
    "a file in its place": "rm -rf repo.git; touch repo.git",
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_mirror_is_made_anew(site: Site, damage: str) -> None:
    """Whatever happened to a mirror, the next checkout is right."""
    site.check_out()
    subprocess.run(
        ["bash", "-ec", DAMAGE[damage]], cwd=site.mirror().path, check=True, capture_output=True
    )
    site.on_server("git update-ref refs/heads/trunk $(commit new trunk)")

    checkout = site.check_out()

    assert checkout.base == site.on_server("git rev-parse trunk")
    assert shown(checkout.workspace.repo, "fsck", "--no-dangling") == ""
    assert not list(site.mirror().repo.rglob("*.lock"))
    assert not list(site.mirror().repo.rglob("tmp_*"))


BIG = """
export GIT_INDEX_FILE=$PWD/index
head -c 100000 /dev/urandom > random
git update-index --add --cacheinfo 100644,$(git hash-object -w random),big.bin
git update-ref refs/heads/trunk $(git commit-tree -m big -p trunk $(git write-tree))
sha256sum < random
"""


def test_a_file_with_other_bytes_is_made_anew(site: Site) -> None:
    """A byte that turned in the middle of a file is noticed when the file is written."""
    content = site.on_server(BIG)
    site.check_out()
    [pack] = (site.mirror().repo / "objects" / "pack").glob("*.pack")
    pack.chmod(0o600)
    with pack.open("r+b") as bytes_:
        bytes_.seek(50_000)
        bytes_.write(b"ruined")

    big = site.check_out().workspace.repo / "big.bin"

    assert f"{hashlib.sha256(big.read_bytes()).hexdigest()}  -" == content


def test_lost_history_is_noticed(site: Site) -> None:
    """A pack that is gone is missed, though neither the fetch nor the checkout needs it."""
    site.on_server("git tag -d v1 v2")
    site.check_out()
    [first] = site.packs()
    for day in (1, 2, 3):  # git looks at what is as old as the newest, and no further back
        site.on_server(f"export GIT_COMMITTER_DATE='{2_000_000_000 + 86_400 * day} +0000'; {BIG}")
        site.check_out()
    for file in (site.mirror().repo / "objects" / "pack").glob(f"{Path(first).stem}.*"):
        file.unlink()

    repo = site.check_out().workspace.repo

    assert shown(repo, "rev-list", "--count", "HEAD") == "4"
    assert shown(repo, "fsck", "--no-dangling") == ""


def test_trouble_with_the_server_is_no_damage(site: Site) -> None:
    """A fetch that fails leaves the mirror as it was: gigabytes are not fetched for a 500."""
    site.check_out()
    before = site.packs()
    mirror = site.mirror()
    site.remote.fail(1)
    with pytest.raises(GitFailed, match="500"), mirror.held(site.git):
        mirror.fetch(site.git, "refs/heads/trunk")
    assert not mirror.repair(site.git, thorough=True)
    assert site.packs() == before


def test_a_repository_around_the_worker_is_not_touched(site: Site) -> None:
    """With MOONMIND_WORKDIR inside a repository, no command for a mirror reaches that."""
    site.work.mkdir()
    for arguments in (["init", "-q"], ["commit", "-qm", "mine", "--allow-empty"], ["tag", "mine"]):
        subprocess.run([*GIT, *arguments], cwd=site.work, check=True)
    before = listing(site.work / ".git")

    site.check_out()
    (site.mirror().repo / "HEAD").unlink()
    site.check_out()

    assert listing(site.work / ".git") == before


# --- submodules and LFS --------------------------------------------------------------------------


def test_submodules_and_lfs_stay_out_and_it_is_said(site: Site, tmp_path: Path) -> None:
    """No submodule is fetched and no filter of LFS runs; the log says so, the patch is exact."""
    pointer = "version https://git-lfs.github.com/spec/v1\\noid sha256:aa\\nsize 1\\n"
    site.on_server(f"""
        export GIT_INDEX_FILE=$PWD/index
        git read-tree trunk
        add() {{ git update-index --add --cacheinfo 100644,$(git hash-object -w --stdin),$1; }}
        printf '*.bin filter=lfs diff=lfs merge=lfs -text\\n' | add .gitattributes
        printf '{pointer}' | add big.bin
        printf '[submodule "m"]\\npath = m\\nurl = https://127.0.0.1:1/m.git\\n' | add .gitmodules
        git update-index --add --cacheinfo 160000,$(git rev-parse trunk),m
        git update-ref refs/heads/heavy $(git commit-tree -m x $(git write-tree))
    """)
    trap = f"touch {tmp_path}/pwned; cat"
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / ".gitconfig").write_text(
        f'[filter "lfs"]\nclean = {trap}\nsmudge = {trap}\nprocess = {trap}\nrequired = true\n'
    )
    site.git = replace(site.git, environ=os.environ | {"HOME": str(tmp_path / "home")})

    checkout = site.check_out("heavy")
    repo = checkout.workspace.repo
    pointed = (repo / "big.bin").read_text()
    (repo / "big.bin").write_bytes(b"\0\1whole")
    changes = checkout.compare(site.git, checkout.workspace.path / "patch")

    assert pointed.startswith("version https://git-lfs")
    assert list((repo / "m").iterdir()) == []
    assert (changes.files, (tmp_path / "pwned").exists()) == (1, False)
    assert "the submodules are not fetched: their directories are empty" in site.log
    assert "files in Git LFS are not fetched: the pointers stand in their places" in site.log
