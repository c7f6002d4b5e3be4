"""What a ``codex_exec`` payload may say."""

import pytest

from moonmind_queue.codex_worker.handlers import CodexExec
from moonmind_queue.codex_worker.payload import INSTRUCTION_LIMIT, CodexExecJobPayload
from moonmind_queue.errors import InvalidPayload

MINIMAL = {"repository": "owner/repo", "instruction": "Mend it."}


@pytest.mark.parametrize(
    ("repository", "cloned"),
    [
        ("owner/repo", "https://github.com/owner/repo.git"),
        (" owner/repo ", "https://github.com/owner/repo.git"),
        ("owner/repo.git", "https://github.com/owner/repo.git"),
        ("o.w-n_er/r", "https://github.com/o.w-n_er/r.git"),
        ("https://git.example.org/a/b.git", "https://git.example.org/a/b.git"),
        ("HTTPS://Git.Example.Org:8443/A/B", "https://git.example.org:8443/A/B"),
        ("http://127.0.0.1:8000/demo.git", "http://127.0.0.1:8000/demo.git"),
        ("https://host/a%20b/c", "https://host/a%20b/c"),
        ("git@github.com:owner/repo.git", "git@github.com:owner/repo.git"),
        ("git@host:/srv/repo.git", "git@host:/srv/repo.git"),
        ("ssh://git@host/owner/repo.git", "ssh://git@host/owner/repo.git"),
        ("ssh://git@host:2222/~team/repo", "ssh://git@host:2222/~team/repo"),
    ],
)
def test_repository_accepted(repository: str, cloned: str) -> None:
    """A slug is a repository on GitHub; other forms are cloned as they stand."""
    assert CodexExecJobPayload.parse(MINIMAL | {"repository": repository}).clone_url == cloned


@pytest.mark.parametrize(
    "repository",
    [
        "",
        "repo",
        "a/b/c",
        "-o/repo",
        "owner/-u",
        "../..",
        "owner/..",
        "./repo",
        "owner/re po",
        "owner\\repo",
        "owner/repo\0",
        "owner/repo\nx",
        "git@-oProxyCommand=touch:x",
        "git@host",
        "git@host:",
        "git@host:-upload-pack",
        "git@host:a/../../etc",
        "git@host:a b",
        "ssh://host/repo",
        "ssh://root@host/repo",
        "ssh://git@-oProxyCommand=touch/repo",
        "ssh://git@host/../repo",
        "ssh://git@host/-u",
        "ssh://git@host",
        "ssh://git@host:x/repo",
        "file:///etc",
        "ext::sh -c date",
        "/etc",
        "https://host",
        "https://host/",
        "https:///path",
        "https://host/a/../b",
        "https://host/%2e%2e/b",
        "https://host/a%0ab",
        "https://host/a%5cb",
        "https://host/a\tb",
        "https://-host/a",
        "https://host:99999/a",
        5,
        None,
    ],
)
def test_repository_refused(repository: object) -> None:
    """What git or ssh could take for an option, a helper or a way out of the path is refused."""
    with pytest.raises(InvalidPayload, match=r"^codex_exec: repository: must "):
        CodexExecJobPayload.parse(MINIMAL | {"repository": repository})


@pytest.mark.parametrize(
    "repository",
    [
        "https://token@host/a",
        "https://user:secret-word@host/a",
        "https://host/a?token=secret-word",
        "https://host/a#secret-word",
        "ssh://git@git:secret-word@host/a",
        "ssh://git@host/a?secret-word",
    ],
)
def test_credentials_refused(repository: str) -> None:
    """A URL with credentials is refused, and the message does not repeat them."""
    with pytest.raises(InvalidPayload, match="URL must not include") as refusal:
        CodexExecJobPayload.parse(MINIMAL | {"repository": repository})
    assert "secret-word" not in str(refusal.value)


@pytest.mark.parametrize("ref", ["main", "feature/x", "v1.0", "refs/pull/1/head", "a" * 40, "ä"])
def test_ref_accepted(ref: str) -> None:
    """Branches, tags, full names and commits are refs."""
    assert CodexExecJobPayload.parse(MINIMAL | {"ref": f" {ref} "}).ref == ref


@pytest.mark.parametrize("ref", ["", "  ", None])
def test_blank_ref_is_none(ref: str | None) -> None:
    """A blank ref asks for the default branch."""
    assert CodexExecJobPayload.parse(MINIMAL | {"ref": ref}).ref is None


@pytest.mark.parametrize(
    "ref",
    ["-b", "a b", "a..b", "a~1", "a^", "a:b", "a*", "a?", "a[", "a\\b", "@", "@{u}", "/a", "a/",
     "a//b", "a.", ".a", "a/.b", "a.lock", "a.lock/b", "a\0b", "a\x7fb", "x" * 251, 5],
)  # fmt: skip
def test_ref_refused(ref: object) -> None:
    """What is no name of a ref is refused, options and revision syntax above all."""
    with pytest.raises(InvalidPayload, match=r"^codex_exec: ref: "):
        CodexExecJobPayload.parse(MINIMAL | {"ref": ref})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"prompt": "x"},
            "prompt: unknown key; there are repoPath, repository, instruction, steps, ref, ",
        ),
        (
            {"affinity_key": "x"},
            "affinity_key: unknown key; there are repoPath, repository, instruction, ",
        ),
        (
            {"affinityKey": "x"},
            "affinityKey: unknown key; there are repoPath, repository, instruction, ",
        ),
        ({"codex": {"modle": "x"}}, "codex.modle: unknown key; there are model, effort"),
        ({"codex": "gpt"}, "codex: must be an object"),
        ({"codex": {"model": "-c"}}, "codex.model: must be a name"),
        ({"codex": {"model": 'a"b'}}, "codex.model: must be a name"),
        ({"codex": {"effort": 'high"'}}, "codex.effort: must be a name"),
        ({"workdirMode": "keep"}, "workdirMode: must be one of: fresh_clone, reuse"),
        ({"publish": "none"}, "publish: must be an object"),
        ({"publish": {"mode": "mail"}}, "publish.mode: must be one of: none, branch, pr"),
        ({"publish": {"base": "main"}}, "publish.base: unknown key; there are mode, baseBranch, "),
        ({"publish": {"mode": "pr", "baseBranch": "-b"}}, "publish.baseBranch: "),
        (
            {"repository": "https://git.example.org/a/b.git", "publish": {"mode": "pr"}},
            "publish.mode pr needs a repository on GitHub",
        ),
        ({"instruction": " "}, "instruction: must not be empty"),
        ({"instruction": "a\0b"}, "instruction: must not hold a NUL character"),
        ({"instruction": "x" * (INSTRUCTION_LIMIT + 1)}, "instruction: "),
    ],
)
def test_refused_by_name(change: dict[str, object], message: str) -> None:
    """Every refusal names its field and says what would do."""
    with pytest.raises(InvalidPayload) as refusal:
        CodexExec.validate(MINIMAL | change)
    assert str(refusal.value).startswith(f"codex_exec: {message}")


def test_all_faults_at_once() -> None:
    """A refusal names every field that is wrong."""
    with pytest.raises(InvalidPayload) as refusal:
        CodexExec.validate({})
    assert str(refusal.value) == (
        "codex_exec: repository: is required, or a repoPath in its place; instruction: is required"
    )


def test_stored_form() -> None:
    """What is stored is trimmed, and without what only says the default."""
    payload = {
        "repository": " owner/repo ",
        "instruction": " Mend it.\n",
        "ref": "",
        "workdirMode": "fresh_clone",
        "codex": {"model": " gpt-5.5 ", "effort": "HIGH"},
        "publish": {"mode": "none"},
    }
    assert CodexExec.validate(payload) == {
        **MINIMAL,
        "codex": {"model": "gpt-5.5", "effort": "high"},
    }


def test_stored_form_is_accepted_again() -> None:
    """Producer and worker use the same validator, one after the other."""
    stored = CodexExec.validate(MINIMAL | {"codex": {"effort": "low"}, "workdirMode": "reuse"})
    assert CodexExec.validate(stored) == stored


@pytest.mark.parametrize("budget", [{"tokens": 5}, {"cost": 0.5}, {"tokens": 1, "cost": 2}, {}])
def test_budget_accepted(budget: dict[str, object]) -> None:
    """Tokens, money or both; the database reads it where it is stored."""
    stored = CodexExec.validate(MINIMAL | {"budget": budget})

    assert stored.get("budget", {}) == budget


@pytest.mark.parametrize(
    "budget",
    [
        5,
        {"tokens": 0},
        {"tokens": 1.5},
        {"tokens": "5"},
        {"tokens": 10**16},
        {"cost": 0},
        {"cost": -1},
        {"cost": float("nan")},
        {"cost": float("inf")},
        {"money": 1},
    ],
)
def test_budget_refused(budget: object) -> None:
    """What bounds nothing, or cannot be reckoned with, is refused by name."""
    with pytest.raises(InvalidPayload, match=r"^codex_exec: budget"):
        CodexExecJobPayload.parse(MINIMAL | {"budget": budget})
