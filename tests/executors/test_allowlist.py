"""What the entries of ``MOONMIND_SHELL_ALLOW`` mean, and which are refused at the start."""

import os
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from moonmind_queue.errors import SettingsError
from moonmind_queue.executors import Block
from moonmind_queue.executors.allowlist import Allowlist
from moonmind_queue.settings import ShellProgram

PATTERNS = {"program": "picky", "args": ["status|log", "--[a-z]+"], "more": r"[\w.]+"}


@pytest.fixture
def picky(bench):
    """An executor whose only program takes arguments by patterns."""
    bench.program("picky", 'printf "<%s>" "$@"')
    return bench.shell(PATTERNS)


@pytest.mark.parametrize(
    "arguments", [["status", "--short"], ["log", "--oneline", "main", "v1.2", "a_b"]]
)
def test_arguments_that_match_one_by_one(bench, picky, arguments):
    """The first arguments match the patterns at their places, all further ones the last."""
    ended = bench.run(picky, ["picky", *arguments])

    assert ended.outcome is None
    assert ended.result["stdout"] == "".join(f"<{each}>" for each in arguments)


@pytest.mark.parametrize(
    ("arguments", "objection"),
    [
        ([], "argument 1 is missing"),
        (["status"], "argument 2 is missing"),
        (["--short", "status"], "argument 1 does not match status|log"),
        (["statuslog", "--short"], "argument 1 does not match"),
        (["status ", "--short"], "argument 1 does not match"),
        (["status\n", "--short"], "argument 1 does not match"),
        (["xstatus", "--short"], "argument 1 does not match"),
        (["STATUS", "--short"], "argument 1 does not match"),
        (["", "--short"], "argument 1 does not match"),
        (["status", "--short=x"], "argument 2 does not match"),
        (["status", "--short", "-c"], "argument 3 does not match"),
        (["status", "--short", "a", "b/../c"], "argument 4 does not match"),
        (["status", "--short", "\N{ARABIC-INDIC DIGIT ONE}"], "argument 3 does not match"),
        (["status", "--short", "\N{CYRILLIC SMALL LETTER A}"], "argument 3 does not match"),
        (["status", "--short", ""], "argument 3 does not match"),
    ],
)
def test_arguments_that_do_not_match(bench, picky, arguments, objection):
    """An argument too few, too many, out of place or only partly alike is refused, with why."""
    ended = bench.run(picky, ["picky", *arguments])

    assert type(ended.outcome) is Block
    assert objection in str(ended.outcome)
    assert not bench.workdir.exists()


def test_no_further_arguments_without_a_pattern(bench):
    """`args` alone fixes how many there are."""
    bench.program("picky", "echo ran")
    bench.program("lonely", "echo ran")
    shell = bench.shell({"program": "picky", "args": ["a"]}, {"program": "lonely", "args": []})

    assert bench.run(shell, "picky a").outcome is None
    assert bench.run(shell, "lonely").outcome is None
    assert "there are more than 0 of them" in str(bench.run(shell, "lonely a").outcome)
    assert "there are more than 1 of them" in str(bench.run(shell, "picky a b").outcome)


def test_several_entries_for_one_program(bench):
    """Any of them may permit; when none does, each says why."""
    bench.program("picky", "echo ran")
    shell = bench.shell(
        {"program": "picky", "args": ["a", "b"]}, {"program": "picky", "args": ["c"]}
    )

    assert bench.run(shell, "picky c").outcome is None
    assert "argument 2 is missing; or argument 1 does not match c" in str(
        bench.run(shell, "picky a").outcome
    )


def test_an_absolute_entry_is_named_by_its_path_only(bench):
    """Who allows a path has it said in full."""
    tool = bench.program("tool", "echo ran")
    shell = bench.shell(str(tool))

    assert bench.run(shell, str(tool)).outcome is None
    assert type(bench.run(shell, "tool").outcome) is Block


def test_a_program_of_many_names_knows_which_it_is(bench):
    """What a link leads to is executed under the link's name, as the multi-call programs need."""
    (bench.bin / "sh-by-another-name").symlink_to("/bin/sh")
    shell = bench.shell("sh-by-another-name")

    ended = bench.run(shell, ["sh-by-another-name", "-c", "tr '\\0' ' ' < /proc/$$/cmdline"])

    assert ended.result["stdout"].startswith(f"{bench.bin}/sh-by-another-name -c")


def test_the_refusal_says_how_to_allow_it(bench):
    """Whoever reads the blocked job learns the program, the variable and what to do."""
    ended = bench.run(bench.shell("true"), "w\N{CYRILLIC SMALL LETTER A}it a b")

    assert str(ended.outcome) == (
        r"'w\u0430it' is not allowed on this worker: add it to MOONMIND_SHELL_ALLOW, restart the "
        "worker and retry the job; a job names a program just as it stands there"
    )


def test_a_long_name_makes_no_long_message(bench):
    """An error is kept with the job, so it is bounded."""
    ended = bench.run(bench.shell("true"), "x" * 50_000)

    assert len(str(ended.outcome)) < 400


def start(bench, program):
    """Start an executor with one entry."""
    return Allowlist([ShellProgram(program=program)], bench.environ["PATH"])


def test_entries_that_cannot_be_used_stop_the_start(bench, tmp_path):
    """What is not there, or cannot be executed, is said when the worker starts."""
    (tmp_path / "plain").write_text("no program")

    for program, message in [
        ("no-such-program", "'no-such-program' is not on this worker's PATH"),
        (f"{tmp_path}/none", f"{tmp_path}/none: No such file"),
        (f"{tmp_path}/plain", f"{tmp_path}/plain: is not an executable file"),
        (str(tmp_path), f"{tmp_path}: is not an executable file"),
    ]:
        with pytest.raises(SettingsError, match=f"^MOONMIND_SHELL_ALLOW: {message}"):
            start(bench, program)


def test_what_anybody_may_replace_is_refused(bench):
    """A program, or a directory above it, that all users may write to is no program to allow."""
    tool = bench.program("tool", "echo", bench.folder / "shared")
    start(bench, str(tool))

    tool.chmod(0o757)
    with pytest.raises(SettingsError, match=f"{tool}: anybody may write to {tool}$"):
        start(bench, str(tool))
    tool.chmod(0o755)
    tool.parent.chmod(0o777)
    with pytest.raises(SettingsError, match=f"{tool}: anybody may write to {tool.parent}$"):
        start(bench, str(tool))
    tool.parent.chmod(0o1777)  # as /tmp: what is there may not be replaced by others
    start(bench, str(tool))


def test_what_anybody_may_have_put_there_is_refused(bench, monkeypatch):
    """In a directory like /tmp a program has to be our own or root's; a link to one as well."""
    shared = bench.folder / "shared"
    tool = bench.program("tool", "echo", shared)
    link = shared / "link"
    link.symlink_to("/bin/sh")
    shared.chmod(0o1777)
    for each in (tool, link):
        start(bench, str(each))
        if os.getuid():
            monkeypatch.setattr("os.getuid", lambda: 12345)
        else:
            os.chown(each, 12345, 12345, follow_symlinks=False)

        with pytest.raises(SettingsError, match=f"{each}: anybody may have put {each} there$"):
            start(bench, str(each))
        monkeypatch.undo()


def test_relative_directories_of_path_are_passed_over(bench, monkeypatch):
    """A name is never looked up where the worker happens to stand."""
    bench.program("here", "echo", bench.folder / "here")
    monkeypatch.chdir(bench.folder / "here")

    with pytest.raises(SettingsError, match="is not on this worker's PATH"):
        Allowlist([ShellProgram(program="here")], os.pathsep.join((".", "", "../here", "/bin")))


def test_who_can_run_anything_is_named_at_the_start(bench):
    """A shell without patterns for its arguments is allowed, but not without a warning."""
    with capture_logs() as logs:
        bench.shell("bash", "true", {"program": "sh", "args": ["-c", "true"]}).check()

    warned = [each["program"] for each in logs if each["event"] == "shell.runs_anything"]
    assert [Path(each).name for each in warned] == ["bash"]


def test_an_empty_list_allows_nothing_and_says_so(bench):
    """A worker of kind shell that may run nothing starts, with a warning; its jobs are parked."""
    with capture_logs() as logs:
        bench.shell().check()

    assert [each["event"] for each in logs] == ["shell.nothing_allowed"]
    assert type(bench.run(bench.shell(), "true").outcome) is Block
