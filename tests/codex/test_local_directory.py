"""Codex in a directory of the worker: only where that is allowed, and nothing of it is harmed."""

import hashlib
import json
import os
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from codex_cli_bin import bundled_codex_path
from model_server import ModelServer, drop, hang, make_codex_home, patch, say, shell
from waiting import eventually

from moonmind_queue import connect
from moonmind_queue.codex_worker import local_tree
from moonmind_queue.codex_worker.git import Git
from moonmind_queue.codex_worker.handlers import CodexExec
from moonmind_queue.codex_worker.local import Directories, Directory
from moonmind_queue.codex_worker.local_tree import LocalTree
from moonmind_queue.codex_worker.session import SESSION
from moonmind_queue.codex_worker.workspace import Workspace
from moonmind_queue.errors import InvalidPayload
from moonmind_queue.executors import Fail, Postpone, Retry, Stopped
from moonmind_queue.settings import LocalDirectory

ADD = "*** Begin Patch\n*** Add File: greeting.txt\n+hello\n*** End Patch"
GREET = [[patch(ADD)], [say("Done.")]]
GIT = ("git", "-c", "user.name=Ada", "-c", "user.email=ada@example.org")


def sh(folder: Path, script: str) -> str:
    """Do something in a directory, as its owner would."""
    identity = {"GIT_AUTHOR_NAME": "Ada", "GIT_AUTHOR_EMAIL": "ada@example.org"}
    identity |= {"GIT_COMMITTER_NAME": "Ada", "GIT_COMMITTER_EMAIL": "ada@example.org"}
    return subprocess.run(
        ["bash", "-ec", script],
        cwd=folder,
        env=os.environ | identity,
        check=True,
        capture_output=True,
        text=True,
    ).stdout


def everything(folder: Path, *, but: str = "") -> dict[str, tuple[int, int, str]]:
    """Return mode, time and content of all that is in a directory, git's own included."""
    found = {}
    for path in sorted(folder.rglob("*")):
        name = str(path.relative_to(folder))
        status = path.lstat()
        if not (stat.S_ISREG(status.st_mode) or stat.S_ISLNK(status.st_mode)):
            found[name] = (status.st_mode, 0, "")
        elif name != but:
            content = str(path.readlink()).encode() if path.is_symlink() else path.read_bytes()
            digest = hashlib.sha256(content).hexdigest()
            found[name] = (status.st_mode, status.st_mtime_ns, digest)
    return found


def contents(found: dict[str, tuple[int, int, str]]) -> dict[str, tuple[int, str]]:
    """Leave out the times, of which git itself changes some when it only looks."""
    return {name: (mode, digest) for name, (mode, _, digest) in found.items()}


def descriptors() -> int:
    """Return how many this process has open."""
    return len(list(Path("/proc/self/fd").iterdir()))


@pytest.fixture
def site(bench: Any) -> Path:
    """A repository of somebody who is at work in it, in a directory that is lent."""
    lent = bench.folder / "lent"
    site: Path = lent / "site"
    site.mkdir(parents=True)
    bench.local_dirs.append(lent)
    sh(
        site,
        "git init -q -b main; printf '*.log\n' > .gitignore; echo one > one.txt;"
        "echo two > two.txt; mkdir docs; echo page > docs/page.txt; git add -A;"
        "git commit -qm first",
    )
    return site


@pytest.fixture
def dirty(site: Path) -> Path:
    """The same, with changes that are staged, others that are not, and files git does not know."""
    sh(
        site,
        "echo staged >> one.txt; git add one.txt; echo unstaged >> one.txt; rm two.txt;"
        "echo mine > untracked.txt; echo x > ignored.log; git add -N untracked.txt;"
        "echo other > other.txt; ln -s /etc/hostname link; mkfifo pipe; git stash list",
    )
    return site


# --- what is allowed -----------------------------------------------------------------------------


def test_nothing_is_lent_unless_somebody_says_so(bench: Any, tmp_path: Path) -> None:
    """The refusal names the path, the setting and the way out, and no retry could mend it."""
    ended = bench.run([[say("never")]], {"repoPath": str(tmp_path)})
    assert type(ended.outcome) is Fail
    assert str(ended.outcome) == (
        f"repoPath {tmp_path} is not allowed on this worker: add the directory to "
        "MOONMIND_CODEX_LOCAL_DIRS, restart the worker and retry the job"
    )
    assert not bench.left


@pytest.mark.parametrize("below", ["", "site", "site/docs", "site/../site", "link"])
def test_what_is_lent_and_what_is_below(bench: Any, site: Path, below: str) -> None:
    """By its own name, with a detour, or by a link that stays inside."""
    (site.parent / "link").symlink_to("site")
    named = f"{site.parent}/{below}"
    ended = bench.run(GREET, {"repoPath": named})
    assert ended.result["effect"] == "changes"
    assert ended.result["directory"] == os.path.realpath(named)
    assert Path(named, "greeting.txt").read_text() == "hello\n"


@pytest.mark.parametrize(
    ("make", "named", "why"),
    [
        ("true", "lent/../outside", "is not allowed on this worker (it leads to"),
        ("ln -s ../outside lent/link", "lent/link", "is not allowed on this worker (it leads to"),
        ("ln -s / lent/link", "lent/link{folder}/outside", "is not allowed on this worker (it lea"),
        ("mkdir lent-too", "lent-too", "is not allowed on this worker:"),
        ("true", "", "is not allowed on this worker:"),
        ("true", "lent/nowhere", "is not a directory on this worker"),
        ("true", "lent/site/one.txt", "is not a directory on this worker"),
        ("ln -s loop lent/loop", "lent/loop", "is not a directory on this worker"),
        ("true", "lent/site/.git/hooks", "is inside of a git directory"),
        ("git init -q --bare lent/bare", "lent/bare", "is inside of a git directory"),
        ("mkdir -p work", "work", "is not allowed on this worker:"),
    ],
)
def test_no_way_out(bench: Any, site: Path, make: str, named: str, why: str) -> None:
    """Neither up nor by a link nor by a name that begins alike; and never into git's own."""
    (bench.folder / "outside").mkdir()
    sh(bench.folder, make)
    path = f"{bench.folder}/{named.format(folder=bench.folder)}"
    ended = bench.run([[say("never")]], {"repoPath": path})
    assert type(ended.outcome) is Fail
    assert why in str(ended.outcome)
    assert "last_message.md" not in ended.context.files
    assert not bench.left


def test_a_link_that_is_lent_is_followed_once(tmp_path: Path) -> None:
    """When the worker starts; whoever changes it later lends nothing."""
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
    (tmp_path / "now").symlink_to("one")
    lent = Directories([LocalDirectory(path=tmp_path / "now")], (), Path("/nowhere"))
    assert lent.permit(f"{tmp_path}/now").path == tmp_path / "one"
    (tmp_path / "now").unlink()
    (tmp_path / "now").symlink_to("two")
    with pytest.raises(Fail, match="not allowed"):
        lent.permit(f"{tmp_path}/now")


@pytest.mark.parametrize("named", ["", "work", "work/mirrors", "codex", "home"])
def test_what_is_the_workers_own_is_never_lent(tmp_path: Path, named: str) -> None:
    """Whoever could write there could decide what the worker runs next."""
    for each in ("work/mirrors", "codex/sessions", "home/site"):
        (tmp_path / each).mkdir(parents=True)
    own = (tmp_path / "work", tmp_path / "codex")
    lent = Directories([LocalDirectory(path=tmp_path)], own, tmp_path / "home")
    with pytest.raises(Fail, match="which is the worker's own: name another directory"):
        lent.permit(str(tmp_path / named))
    assert lent.permit(f"{tmp_path}/home/site").path == tmp_path / "home" / "site"


def test_an_agent_may_be_let_look_and_not_write(bench: Any, site: Path) -> None:
    """An entry that is read only has a sandbox of that kind, whatever the worker's is."""
    bench.local_dirs[:] = [{"path": site.parent, "read_only": True}]
    before = everything(site)
    script = [[shell("cat one.txt")], [shell("echo x > new")], [say("Seen.")]]
    ended = bench.run(script, {"repoPath": str(site)})
    assert "one\n" in ended.context.stored_log
    assert ended.result["effect"] == "no_changes"
    assert everything(site) == before


def test_what_is_read_only_is_not_written_by_way_of_what_is_above(bench: Any, site: Path) -> None:
    """A directory that holds one which is read only cannot be lent as a whole."""
    bench.local_dirs.append({"path": site, "read_only": True})
    ended = bench.run([[say("never")]], {"repoPath": str(site.parent)})
    assert f"holds {site}, which MOONMIND_CODEX_LOCAL_DIRS lends to be read only" in str(
        ended.outcome
    )


# --- what becomes of what is there ---------------------------------------------------------------


def test_only_this_attempts_changes_are_in_the_patch(bench: Any, dirty: Path) -> None:
    """What its owner has changed, staged, deleted or left unknown to git is neither in it nor lost.

    The directory is as it was byte for byte, its index and all of .git included, but for the
    agent's work.
    """
    before = everything(dirty)
    script = [[patch(ADD)], [shell("echo agent >> untracked.txt; rm other.txt")], [say("Done.")]]
    ended = bench.run(script, {"repoPath": str(dirty)})

    assert ended.result["effect"] == "changes"
    assert ended.result["patch"]["files"] == 3
    assert ended.result["base_commit"] == sh(dirty, "git rev-parse HEAD").strip()
    text = ended.context.patch.decode()
    assert "+hello\n" in text and "+agent\n" in text and "-other\n" in text
    assert "staged" not in text and "two.txt" not in text and "ignored" not in text
    after = everything(dirty)
    assert {
        name for name in before.keys() | after.keys() if before.get(name) != after.get(name)
    } == {
        "greeting.txt",
        "untracked.txt",
        "other.txt",
    }
    assert not bench.left


def test_the_patch_takes_the_agents_work_back(bench: Any, dirty: Path) -> None:
    """Applied in reverse it leaves what was there before."""
    before = everything(dirty)
    script = [[shell("echo agent >> one.txt; printf '\\0' > docs/page.txt; echo 2 > two.txt")]]
    ended = bench.run([*script, [say("Done.")]], {"repoPath": str(dirty)})
    file = bench.folder / "patch"
    file.write_bytes(ended.context.patch)
    sh(dirty, f"git apply -R {file}")

    assert contents(everything(dirty)) == contents(before)


def test_marks_that_have_git_look_away_hide_nothing(bench: Any, site: Path) -> None:
    """What the agent changes in a file that git was told to skip is in the patch all the same."""
    sh(
        site,
        "git update-index --assume-unchanged one.txt; git update-index --skip-worktree two.txt",
    )
    ended = bench.run(
        [[shell("echo agent | tee -a one.txt >> two.txt")], [say("Done.")]], {"repoPath": f"{site}"}
    )
    assert ended.result["patch"]["files"] == 2


@pytest.mark.parametrize("kind", ["split", "sparse", "sha256", "conflict", "unborn", "worktree"])
def test_every_kind_of_repository(bench: Any, site: Path, kind: str) -> None:
    """However its index is kept, and where git's own directory is."""
    where = site
    if kind == "split":
        sh(site, "git update-index --split-index; echo more >> one.txt; git add -A")
    elif kind == "sparse":
        sh(site, "git sparse-checkout init --cone --sparse-index; git sparse-checkout set docs")
    elif kind == "conflict":
        sh(
            site,
            "git checkout -qb a; echo a > one.txt; git commit -qam a; git checkout -q main;"
            "echo b > one.txt; git commit -qam b; git merge a || true",
        )
    elif kind == "worktree":
        where = site.parent / "other"
        sh(site, f"git worktree add -q {where}")
    else:
        where = site.parent / kind
        form = "--object-format=sha256" if kind == "sha256" else ""
        sh(site, f"git init -q {form} {where}; echo x > {where}/one.txt")
        sh(where, "git add -A; git commit -qm x" if kind == "sha256" else "git add -A")
    status = sh(where, "git --no-optional-locks status --porcelain")
    before = contents(everything(where))
    ended = bench.run(
        [[shell("echo agent >> docs/page.txt || echo agent >> one.txt")], [say("Done.")]],
        {"repoPath": str(where)},
    )
    assert ended.result["patch"]["files"] == 1, ended.context.stored_log
    assert b"+agent\n" in ended.context.patch
    after = contents(everything(where))
    assert len({name for name in before if before[name] != after.get(name)}) <= 1
    assert status in sh(where, "git --no-optional-locks status --porcelain") + status


def test_a_directory_within_a_repository(bench: Any, dirty: Path) -> None:
    """The agent has that part alone; the paths in the patch begin at the top, as git takes them."""
    ended = bench.run(
        [[shell("echo agent >> page.txt; echo out > ../out.txt")], [say("Done.")]],
        {"repoPath": f"{dirty}/docs"},
    )
    assert ended.result["patch"]["files"] == 1
    assert b"+++ b/docs/page.txt" in ended.context.patch
    assert not (dirty / "out.txt").exists()


def test_a_directory_without_git(bench: Any, site: Path) -> None:
    """The worker keeps a record of its own elsewhere, so the patch tells what was done."""
    plain = site.parent / "plain"
    sh(site.parent, "mkdir -p plain/sub; echo a > plain/a.txt; echo b > plain/sub/b.txt")
    ended = bench.run(
        [[shell("echo agent >> sub/b.txt; rm a.txt; echo c > c.txt")], [say("Done.")]],
        {"repoPath": str(plain)},
    )
    assert ended.result["patch"]["files"] == 3
    assert ended.result["base_commit"] is None
    assert b"+++ b/sub/b.txt\n@@ -1 +1,2 @@\n b\n+agent\n" in ended.context.patch
    assert sorted(each.name for each in plain.iterdir()) == ["c.txt", "sub"]


def test_what_is_not_recorded_is_told(bench: Any, site: Path) -> None:
    """Large files, and other repositories that lie within: their change is named, and no patch."""
    sh(site, "head -c 3000000 /dev/zero > dump; git init -q inner; echo x > inner/x")
    ended = bench.run(
        [[shell("echo more >> dump; git init -q made; echo y > made/y")], [say("Done.")]],
        {"repoPath": str(site)},
        limit=1_000_000,
    )
    assert ended.result["patch"] == {
        "files": 0,
        "insertions": 0,
        "deletions": 0,
        "bytes": 0,
        "left_out": ["dump", "made/"],
    }
    assert "changed, and not in the patch: dump, made/" in ended.context.stored_log


def test_a_patch_that_is_too_large_fails_nothing(bench: Any, site: Path) -> None:
    """The changes are in the directory; the result says that the patch was not kept."""
    script = [[shell("for i in $(seq 9); do head -c 9000 /dev/urandom > $i; done")], [say("Done.")]]
    ended = bench.run(script, {"repoPath": str(site)}, limit=50_000)
    assert ended.result["status"] == "succeeded"
    assert ended.result["patch"]["kept"] is False
    assert "patches/changes.patch" not in ended.context.files


def test_where_there_is_too_much_there_is_no_patch(
    bench: Any, site: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The work is done all the same, and the result does not claim to know what changed."""
    monkeypatch.setattr(local_tree, "MOST_BYTES", 1000)
    (site / "big").write_bytes(b"x" * 1001)
    ended = bench.run(GREET, {"repoPath": str(site)})
    assert ended.result["effect"] == "unknown"
    assert ended.result["summary"] == "codex_exec completed: unknown changes; Done."
    assert "there will be no patch: 1001 bytes in 1 files" in ended.context.stored_log
    assert (site / "greeting.txt").exists()


def test_no_secret_is_in_the_patch(bench: Any, site: Path) -> None:
    """As of any run; the file itself is its owner's."""
    secret = bench.environ["GITHUB_TOKEN"]
    ended = bench.run(
        [[shell(f"echo {secret} > new.txt")], [say("Done.")]], {"repoPath": f"{site}"}
    )
    assert ended.result["patch"]["redacted"]
    assert secret not in ended.context.everything()
    assert (site / "new.txt").read_text() == f"{secret}\n"


HOSTILE = r"""
printf '#!/bin/sh\ntouch "%s"\ncat\n' "$PWD/../pwned" > ../trap; chmod +x ../trap
for name in post-index-change pre-commit post-checkout reference-transaction; do
    cp ../trap .git/hooks/$name
done
git config core.fsmonitor "$PWD/../trap"
git config core.hooksPath "$PWD/.git/hooks"
git config diff.external "$PWD/../trap"
git config diff.x.textconv "$PWD/../trap"
git config filter.x.clean "$PWD/../trap"
git config filter.x.process "$PWD/../trap"
git config alias.rev-parse "!$PWD/../trap"
git config core.alternateRefsCommand "$PWD/../trap"
echo '* filter=x diff=x' > .gitattributes
git init -q sub; cp .git/config sub/.git/config; cp -r .git/hooks sub/.git/
git -c core.fsmonitor=false -c filter.x.process= -c filter.x.clean= add sub 2>/dev/null || true
rm -f ../pwned
"""


def test_what_the_directory_configures_never_runs(site: Path, tmp_path: Path) -> None:
    """Hooks, monitors, filters and drivers of it, or of a repository within it, are not ours."""
    sh(site, HOSTILE)
    log: list[Any] = []
    git = Git(environ=os.environ, log=log.append, stop=None, deadline=time.monotonic() + 60)
    space = Workspace.create(tmp_path / "work", 7, 1, keep=False)
    tree = LocalTree.prepare(git, space, Directory(path=site, read_only=False), 1_000_000)
    sh(site.parent, "echo new > site/new.txt; echo x > site/sub/x; mv site/one.txt site/moved.txt")
    changes = tree.compare(git, tmp_path / "patch")
    assert changes and changes.files == 3
    assert not (site.parent / "pwned").exists()


def test_codex_starts_no_program_that_the_directory_names(bench: Any, site: Path) -> None:
    """Not in the first run, not in the second, whatever Codex has made of the project meanwhile."""
    trap = site.parent / "pwned"
    (site / ".codex").mkdir()
    (site / ".codex" / "config.toml").write_text(
        f'[mcp_servers.x]\ncommand = "/bin/sh"\nargs = ["-c", "touch {trap}"]\n'
    )
    (site / "AGENTS.md").write_text("Be brief.\n")
    (site / "docs" / "AGENTS.md").symlink_to("/etc/hostname")
    asked: list[str] = []

    def script(body: dict[str, Any]) -> Any:
        asked.append(str(body["input"]))
        return [[shell("true")], [say("Done.")]]

    for _ in range(2):
        assert bench.run(script, {"repoPath": f"{site}/docs"}).result["status"] == "succeeded"
        assert bench.run(script, {"repoPath": str(site)}).result["status"] == "succeeded"
    assert not trap.exists()
    assert all("Be brief." in each for each in asked)
    assert not any("/docs/AGENTS.md says" in each for each in asked)


def test_a_repository_names_no_program_either(bench: Any, demo: Path) -> None:
    """What a clone has in .codex is nothing that Codex acts on; what AGENTS.md says is heard."""
    trap = bench.folder / "pwned"
    clone = bench.folder / "clone"
    config = f'[mcp_servers.x]\ncommand = "/bin/sh"\nargs = ["-c", "touch {trap}"]\n'
    sh(bench.folder, f"git clone -q {demo}/demo.git {clone}; mkdir {clone}/.codex")
    (clone / ".codex" / "config.toml").write_text(config)
    (clone / "AGENTS.md").write_text("Be brief.\n")
    sh(clone, "git add -A; git commit -qm hostile; git push -q origin HEAD:trunk")
    asked: list[str] = []

    def script(body: dict[str, Any]) -> Any:
        asked.append(str(body["input"]))
        return [[say("Done.")]]

    assert bench.run(script).result["status"] == "succeeded"
    assert not trap.exists()
    assert "Be brief." in asked[0]


# --- however it ends -----------------------------------------------------------------------------


def test_it_is_gone_on_from_where_it_was_cut_off(bench: Any, dirty: Path, recorder: Any) -> None:
    """The thread is resumed, and the directory is as the last attempt left it."""
    said: list[str] = []

    def script(body: dict[str, Any]) -> Any:
        texts = [item for item in body["input"] if item.get("role") == "user"]
        said.append(str(texts[-1]["content"][0]["text"]))
        if "cut off" not in said[-1]:
            return [[patch(ADD)], [drop()]]
        return [
            [patch(ADD)],
            [shell("cat greeting.txt; echo whole >> greeting.txt")],
            [say("Done.")],
        ]

    first = bench.run(script, {"repoPath": str(dirty)}, context=recorder)
    assert type(first.outcome) is Retry
    assert SESSION in recorder.files
    (dirty / "meanwhile.txt").write_text("of its owner\n")

    second = bench.run(script, {"repoPath": str(dirty)}, context=recorder, attempt=2)

    assert second.result["status"] == "succeeded", second.outcome
    assert "The work tree holds what was changed until then." in said[-1]
    assert (dirty / "greeting.txt").read_text() == "hello\nwhole\n"
    assert b" hello\n+whole\n" in recorder.patch
    assert b"meanwhile" not in recorder.patch


def test_what_was_done_elsewhere_is_not_gone_on_from(
    bench: Any, site: Path, recorder: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another machine has another directory of that name: the task begins anew there."""
    said: list[str] = []

    def script(body: dict[str, Any]) -> Any:
        said.append(str(body["input"]))
        return [[patch(ADD)], [drop()]] if len(said) < 3 else [[say("Done.")]]

    bench.run(script, {"repoPath": str(site)}, context=recorder)
    monkeypatch.setattr("socket.gethostname", lambda: "another")
    ended = bench.run(script, {"repoPath": str(site)}, context=recorder, attempt=2)
    assert ended.result["status"] == "succeeded"
    assert "cut off" not in said[-1]


@pytest.mark.parametrize("how", ["stop", "timeout", "failure"])
def test_the_directory_stays_whatever_happens(
    bench: Any, dirty: Path, recorder: Any, how: str
) -> None:
    """What was there and what the agent has done; only the worker's own files are removed."""
    before = everything(dirty)
    if how == "stop":
        recorder.on_progress = lambda text: recorder.stop.set() if "new.txt" in text else None
    last = {"failure": drop(), "stop": hang(), "timeout": hang()}[how]
    new = "*** Begin Patch\n*** Add File: new.txt\n+new\n*** End Patch"
    ended = bench.run(
        [[patch(new)], [last]],
        {"repoPath": str(dirty)},
        context=recorder,
        timeout=4 if how == "timeout" else 60,
    )
    assert type(ended.outcome) is (Stopped if how == "stop" else Retry)
    after = everything(dirty)
    assert after.pop("new.txt")
    assert after == before
    assert b"+new\n" in recorder.patch
    assert not bench.left


def test_nothing_of_the_sandbox_is_left(bench: Any, site: Path, recorder: Any) -> None:
    """Codex that is interrupted in a command leaves empty directories; they do not stay."""
    plain = site.parent / "plain"
    (plain / ".mine").mkdir(parents=True)

    def stop_when_begun() -> None:
        eventually((plain / "begun").exists, 60)
        recorder.stop.set()

    watcher = threading.Thread(target=stop_when_begun)
    watcher.start()
    script = [[shell("touch begun; sleep 600")], [say("late")]]
    ended = bench.run(script, {"repoPath": str(plain)}, context=recorder)
    watcher.join()
    assert type(ended.outcome) is Stopped
    assert sorted(each.name for each in plain.iterdir()) == [".mine", "begun"]


# --- one at a time -------------------------------------------------------------------------------


@contextmanager
def at_work(bench: Any, path: Path) -> Iterator[None]:
    """Have another job at work in a directory."""
    with Directories(bench.lent, (), Path("/nowhere")).held(str(path)):
        yield


@pytest.mark.parametrize(
    ("there", "wanted", "busy"),
    [
        ("site", "site", True),
        ("site", "site/docs", True),
        ("site/docs", "site", True),
        ("site/docs", "site/more", False),
        ("site", "other", False),
    ],
)
def test_two_jobs_never_work_in_the_same_place(
    bench: Any, site: Path, there: str, wanted: str, busy: bool
) -> None:
    """Nor one above the other; the second is put off, unharmed and without a trace."""
    lent = site.parent
    for each in ("other", "site/more"):
        (lent / each).mkdir()
    with at_work(bench, lent / there):
        ended = bench.run(GREET, {"repoPath": f"{lent}/{wanted}"})
    if not busy:
        assert ended.result["status"] == "succeeded"
        return
    assert type(ended.outcome) is Postpone
    assert f"another job is at work in {lent}/{wanted}" in str(ended.outcome)
    assert ended.outcome.after.total_seconds() > 0
    assert not ended.context.files
    assert bench.run(GREET, {"repoPath": f"{lent}/{wanted}"}).result["status"] == "succeeded"


def test_the_place_is_free_when_its_worker_dies(bench: Any, site: Path) -> None:
    """The lock ends with the process that has it, however that ends."""
    program = (
        "import fcntl, os, signal, sys; f = os.open(sys.argv[1], os.O_RDONLY);"
        "fcntl.flock(f, fcntl.LOCK_EX); print(flush=True); signal.pause()"
    )
    worker = subprocess.Popen(["python3", "-c", program, str(site)], stdout=subprocess.PIPE)
    assert worker.stdout and worker.stdout.readline()
    assert type(bench.run(GREET, {"repoPath": str(site)}).outcome) is Postpone
    worker.kill()
    worker.communicate()
    assert bench.run(GREET, {"repoPath": str(site)}).result["status"] == "succeeded"


def test_nothing_of_the_lock_is_left(bench: Any, site: Path) -> None:
    """Neither a file in the directory nor a descriptor in the worker."""
    before, open_files = everything(site), descriptors()
    with at_work(bench, site):
        assert everything(site) == before
    with pytest.raises(Fail), at_work(bench, Path("/etc")):
        pass
    assert descriptors() == open_files


# --- what a payload may say ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ({"repository": "a/b"}, "repository: there is a repoPath already: name one of them"),
        ({"ref": "main"}, "ref: is of no use with a repoPath: "),
        ({"workdirMode": "reuse"}, "workdirMode: is of no use with a repoPath: "),
        ({"publish": {"mode": "branch"}}, "publish: cannot be done with a repoPath: "),
        ({"publish": {"mode": "pr"}}, "publish: cannot be done with a repoPath: "),
        ({"repoPath": "site"}, "repoPath: must be the absolute path of a directory on the worker"),
        ({"repoPath": "~/site"}, "repoPath: must be the absolute path of a directory on the work"),
        ({"repoPath": "/srv\n/x"}, "repoPath: must be the absolute path of a directory on the wor"),
        ({"repoPath": ""}, "repoPath: must not be empty"),
        ({"repoPath": 5}, "repoPath: must be a string"),
    ],
)
@pytest.mark.parametrize("kind", ["codex", "codex_exec"])
def test_what_does_not_go_with_a_path_is_refused_at_enqueue(
    queue: Any, kind: str, change: dict[str, Any], fault: str
) -> None:
    """By the same validator that the worker asks; nothing is enqueued."""
    payload = {"repoPath": "/srv/site", "instruction": "Do it."} | change
    with pytest.raises(InvalidPayload) as refusal:
        queue.enqueue(kind, payload)
    assert str(refusal.value).startswith(f"codex_exec: {fault}")


def test_the_stored_form_has_the_path_alone() -> None:
    """And is accepted again; what says nothing beside it is left out."""
    payload = {
        "repoPath": " /srv/site ",
        "instruction": "x",
        "ref": "",
        "publish": {"mode": "none"},
    }
    stored = CodexExec.validate(payload | {"repository": None})
    assert stored == {"repoPath": "/srv/site", "instruction": "x"}
    assert CodexExec.validate(stored) == stored


def test_it_can_be_said_on_the_command_line(fresh: str) -> None:
    """With an option of its own; what does not go with it is refused there."""
    command = [sys.executable, "-m", "moonmind_queue", "enqueue", "codex_exec", "--dry-run"]
    command += ["--repo-path", "/srv/site", "--instruction", "Mend it."]
    environ = {"PATH": os.environ["PATH"], "DATABASE_URL": fresh, **python_path()}
    said = subprocess.run(command, env=environ, capture_output=True, text=True, check=True).stdout
    assert json.loads(said)["payload"] == {"repoPath": "/srv/site", "instruction": "Mend it."}
    both = [*command, "--repo", "acme/site"]
    refused = subprocess.run(both, env=environ, capture_output=True, text=True, check=False)
    assert refused.returncode
    assert "there is a repoPath already" in refused.stderr


def python_path() -> dict[str, str]:
    """Return where a process of a test finds the package that is tested."""
    return {name: value for name, value in os.environ.items() if name == "PYTHONPATH"}


def test_a_task_of_agentmux_works_in_a_directory(bench: Any, dirty: Path, fresh: str) -> None:
    """From the DAG file to DONE, by ``agentmux`` and a worker of it; the patch is kept."""
    with ModelServer(GREET) as model:
        codex = make_codex_home(bench.folder / "codex", model.base_url, bundled_codex_path())
        environ = {
            "PATH": os.environ["PATH"],
            "HOME": os.environ["HOME"],
            **python_path(),
            "DATABASE_URL": fresh,
            "CODEX_HOME": str(codex),
            "MOONMIND_WORKDIR": str(bench.workdir),
            "MOONMIND_AGENTMUX_HOME": str(bench.folder / "agentmux"),
            "MOONMIND_CODEX_LOCAL_DIRS": json.dumps([str(dirty.parent)]),
        }
        dag = bench.folder / "dag.yaml"
        dag.write_text(
            "- id: site:greet\n  agent: codex\n  payload:\n    kind: codex\n"
            f"    repoPath: {dirty}\n    instruction: Greet.\n"
        )

        def agentmux(*words: str) -> "subprocess.Popen[str]":
            program = "from moonmind_queue.cli.agentmux import main; main()"
            return subprocess.Popen(
                [sys.executable, "-c", program, *words],
                env=environ,
                text=True,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
            )

        seeding = agentmux("tasks", "seed", str(dag))
        assert "1 created" in seeding.communicate()[0]
        worker = agentmux("worker", "--agent", "codex", "--worker-id", "codex-1")
        try:
            with connect(fresh) as queue:
                eventually(lambda: queue.get(1).state in ("succeeded", "failed", "blocked"), 60)
                job = queue.get(1)
        finally:
            worker.terminate()
            said, _ = worker.communicate()
    assert job.state == "succeeded", (job.error, said)
    assert job.result["directory"] == str(dirty)
    assert (dirty / "greeting.txt").read_text() == "hello\n"
    [patch] = (bench.folder / "agentmux" / "artifacts").rglob("changes.patch")
    assert b"+hello" in patch.read_bytes()
    assert b"staged" not in patch.read_bytes()
