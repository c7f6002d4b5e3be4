"""Publishing: one commit, one branch, one pull request, whoever dies on the way.

The real Codex, git and gh, with servers of their own, on a real queue.
"""

import shutil
import signal

import pytest
from model_server import say, shell
from publishing import Publishing

from moonmind_queue.codex_worker import publish

STEPS = [publish.COMMIT, publish.BRANCH, publish.PUSH, publish.PULL_REQUEST]


def test_a_pull_request_is_opened(publishing: Publishing) -> None:
    """From a branch with one commit, whose message and text say what was done and by which job."""
    job = publishing.enqueue()
    publishing.work()

    done = publishing.queue.get(job)
    assert done.state == "succeeded", done.error
    [branch] = publishing.branches()
    published = done.result["published"]
    assert published == {
        "branch": branch,
        "commit": publishing.git("rev-parse", branch),
        "pull_request": "https://github.com/acme/demo/pull/1",
    }
    assert publishing.git("show", f"{branch}:greeting.txt") == "hello"
    assert publishing.git("rev-parse", f"{branch}^") == publishing.git("rev-parse", "trunk")
    message = publishing.git("log", "-1", "--format=%an <%ae>%n%B", branch)
    assert message == (
        f"Moonmind <moonmind@example.org>\nGreet people.\n\nIn a file of its own.\n\nJob: {job}"
    )
    [request] = publishing.github.pull_requests
    assert (request.base, request.head, request.title) == ("trunk", branch, "Greet people.")
    assert "There is a greeting now." in request.body
    assert "- `test -s greeting.txt (exit status 0)`" in request.body
    assert f"job {job} of moonmind-queue" in request.body
    assert publishing.github.tokens == {f"token {publishing.environ['GITHUB_TOKEN']}"}


@pytest.mark.parametrize("form", ["git@github.com:acme/", "ssh://git@github.com/acme/"])
def test_ssh_addresses_are_what_the_operators_git_makes_of_them(
    publishing: Publishing, form: str
) -> None:
    """From the checkout to the pull request; here another server, over http."""
    publishing.configure_git(form, publishing.address)
    job = publishing.enqueue(repository=f"{form}demo.git")
    publishing.work()

    done = publishing.queue.get(job)
    assert done.state == "succeeded", done.error
    assert publishing.branches() == [done.result["published"]["branch"]]
    [request] = publishing.github.pull_requests
    assert request.url == done.result["published"]["pull_request"]


def test_a_folder_is_a_remote_only_where_the_operator_allows_it(publishing: Publishing) -> None:
    """The protocol ``file`` is off until the worker's own configuration of git says otherwise."""
    form, base = "ssh://git@git.example.org/", f"file://{publishing.bare.parent}/"
    publishing.configure_git(form, base)
    job = publishing.enqueue("branch", repository=f"{form}demo.git")
    publishing.work()
    assert "transport 'file' not allowed" in str(publishing.queue.get(job).error)

    publishing.configure_git(form, base, '[protocol "file"]\n\tallow = always\n')
    publishing.queue.retry(job)
    publishing.work()

    done = publishing.queue.get(job)
    assert done.state == "succeeded", done.error
    assert publishing.branches() == [done.result["published"]["branch"]]


def test_a_branch_alone_needs_no_github(publishing: Publishing) -> None:
    """Nor is there a pull request."""
    publishing.environ["PATH"] = str(publishing.folder / "bin")
    (publishing.folder / "bin").mkdir()
    for program in ("git", "sh", "bash", "test"):
        (publishing.folder / "bin" / program).symlink_to(str(shutil.which(program)))
    job = publishing.enqueue("branch")
    publishing.work()

    done = publishing.queue.get(job)
    assert done.state == "succeeded", done.error
    assert publishing.branches() == [done.result["published"]["branch"]]
    assert publishing.github.tokens == set()
    assert "published branch moonmind-job-" in done.result["summary"]


def test_without_changes_nothing_is_published(publishing: Publishing) -> None:
    """The job succeeds, and says so."""
    publishing.script[:] = [[say("Nothing to do.")]]
    job = publishing.enqueue()
    publishing.work()

    done = publishing.queue.get(job)
    assert done.state == "succeeded", done.error
    assert done.result["published"] is None
    assert "publish skipped: no local changes" in done.result["summary"]
    assert publishing.branches() == []


def test_changes_that_hold_a_secret_are_not_published(publishing: Publishing) -> None:
    """The patch is stored without it, and a person is asked."""
    token = publishing.environ["GITHUB_TOKEN"]
    publishing.script[:] = [[shell(f"echo {token} > key.txt")], [say("Done.")]]
    job = publishing.enqueue()
    publishing.work()

    done = publishing.queue.get(job)
    assert (done.state, done.error) == (
        "blocked",
        "the changes hold a secret of this worker: they are not published",
    )
    assert publishing.branches() == []


@pytest.mark.parametrize(
    ("branch", "text"),
    [
        ("trunk", "branch trunk is at"),
        ("feature", "a pull request from feature into itself is none"),
    ],
)
def test_a_branch_of_somebody_elses_or_the_base_itself_is_refused(
    publishing: Publishing, branch: str, text: str
) -> None:
    """Before anything is pushed."""
    job = publishing.enqueue(baseBranch="feature")
    publishing.queue.connection.execute(
        "insert into moonmind_queue.publication (job_id, step, content, token, data, begun_at)"
        " values (%s, 'branch', '', 0, jsonb_build_object('name', %s::text), now())",
        [job, branch],
    )
    trunk = publishing.git("rev-parse", "trunk")
    publishing.work()

    done = publishing.queue.get(job)
    assert (done.state, text in str(done.error)) == ("blocked", True), done.error
    assert publishing.branches() == []
    assert publishing.git("rev-parse", "trunk") == trunk
    assert publishing.github.pull_requests == []


def test_a_commit_that_cannot_be_made_is_not_published(publishing: Publishing) -> None:
    """The attempt failed, in git's words."""
    publishing.identity = ("", "")
    job = publishing.enqueue()
    publishing.work()

    done = publishing.queue.get(job)
    assert done.state == "queued"
    assert "git commit-tree exited with 128" in str(done.error)
    assert publishing.branches() == []


def test_a_title_is_the_first_line_without_secrets(publishing: Publishing) -> None:
    """And of some length; the rest stands in the commit."""
    secret = publishing.environ["GITHUB_TOKEN"]
    publishing.enqueue(instruction=f"\n Log in with {secret} {'very ' * 20}quietly.\n\nNow.")
    publishing.work()

    [request] = publishing.github.pull_requests
    assert request.title.startswith("Log in with [REDACTED] very")
    assert len(request.title) <= 72
    [branch] = publishing.branches()
    assert secret not in publishing.git("log", "-1", "--format=%B", branch) + request.body


def test_a_base_and_a_draft(publishing: Publishing) -> None:
    """As the job asks for."""
    publishing.enqueue(baseBranch="topic/one", draft=True)
    publishing.work()

    [request] = publishing.github.pull_requests
    assert (request.base, request.draft) == ("topic/one", True)


def test_an_answer_that_was_lost_is_asked_for(publishing: Publishing) -> None:
    """GitHub made the pull request and hung up: the next attempt finds it by its branch."""
    publishing.github.hang_up()
    job = publishing.enqueue()
    publishing.work()
    assert publishing.queue.get(job).state == "queued"

    publishing.queue.retry(job)
    publishing.work()

    done = publishing.queue.get(job)
    assert done.state == "succeeded", done.error
    assert done.result["published"]["pull_request"] == publishing.github.pull_requests[0].url
    assert len(publishing.github.pull_requests) == len(publishing.branches()) == 1


@pytest.mark.parametrize(
    ("status", "message", "state", "text"),
    [
        (401, "Bad credentials", "blocked", "GITHUB_TOKEN"),
        (502, "Bad gateway", "queued", "HTTP 502"),
        (200, "No commits between trunk and it", "blocked", "No commits between"),
    ],
)
def test_what_github_refuses(
    publishing: Publishing, status: int, message: str, state: str, text: str
) -> None:
    """A person is asked, or it is tried again; the branch stays, and the next attempt goes on."""
    publishing.github.fail(status, message)
    job = publishing.enqueue()
    publishing.work()
    refused = publishing.queue.get(job)
    assert (refused.state, text in str(refused.error)) == (state, True), refused.error

    publishing.github.mend()
    publishing.queue.retry(job)
    publishing.work()

    assert publishing.queue.get(job).state == "succeeded"
    assert len(publishing.github.pull_requests) == 1


def test_a_branch_that_somebody_else_moved_is_left_alone(publishing: Publishing) -> None:
    """The job is blocked, and says where the branch is."""
    job = publishing.enqueue()
    status, _ = publishing.die(10)  # the push is done, and nobody knows
    assert status == -signal.SIGKILL
    [branch] = publishing.branches()
    publishing.git("update-ref", f"refs/heads/{branch}", "refs/heads/topic/one")
    publishing.queue.unlock(job, force=True)
    publishing.work()

    done = publishing.queue.get(job)
    assert done.state == "blocked"
    assert "where this job has not put it" in str(done.error)
    assert publishing.git("rev-parse", branch) == publishing.git("rev-parse", "topic/one")


def test_whoever_dies_at_whatever_moment_all_is_published_once(publishing: Publishing) -> None:
    """A worker is killed at every moment before and after every step; another one goes on.

    The moments are counted while they are passed, so a step that is added is killed at, too.
    """
    known = publishing.commits()
    seen: list[str] = []
    for moment in range(100):
        job = publishing.enqueue()
        status, passed = publishing.die(moment)
        if status == 0:
            break
        assert (status, len(passed)) == (-signal.SIGKILL, moment + 1)
        seen = passed
        publishing.queue.unlock(job, force=True)
        publishing.work()

        done = publishing.queue.get(job)
        assert done.state == "succeeded", (passed[-1], done.error)
        assert len(publishing.branches()) == moment + 1, passed[-1]
        assert publishing.commits() == known + moment + 1, passed[-1]
        assert len(publishing.github.pull_requests) == moment + 1, passed[-1]
    assert seen == [
        f"{when} {call}_step {step}"
        for step in STEPS
        for call in ("begin", "end")
        for when in ("before", "after")
    ]
