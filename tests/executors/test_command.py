"""The payload of ``shell``: checked alike by who enqueues and by the worker, without settings."""

from pathlib import PurePosixPath

import pytest

from moonmind_queue.errors import InvalidPayload
from moonmind_queue.executors.command import COMMAND_LIMIT, Command
from moonmind_queue.executors.shell import Shell


def test_words_or_one_string():
    """A list is taken as it is; a string is cut at blanks, by quotes and backslashes."""
    listed = Command.parse({"cmd": ["git", "commit", "-m", "two words"]})
    string = Command.parse({"cmd": "git commit\t-m 'two words'"})

    assert listed == string
    assert string.argv == ("git", "commit", "-m", "two words")


def test_what_is_not_said():
    """Without more, a command has the worker's own time limit and its own directory."""
    command = Command.parse({"cmd": "true"})

    assert (command.timeout, command.cwd) == (None, PurePosixPath())


def test_the_payload_is_stored_as_it_is():
    """Checking changes nothing, Agentmux's `kind` included."""
    payload = {"kind": "shell", "cmd": "make  test", "timeout": 60, "cwd": "a/b"}

    assert Shell.validate(payload) == payload
    assert Command.parse(payload).cwd == PurePosixPath("a/b")


@pytest.mark.parametrize(
    ("payload", "message"),
    [
        ({}, "cmd: is required"),
        ({"cmd": None}, "cmd: must be a list of strings, or one string"),
        ({"cmd": 5}, "cmd: must be a list of strings, or one string"),
        ({"cmd": {"program": "git"}}, "cmd: must be a list of strings, or one string"),
        ({"cmd": ["git", 1]}, "cmd: must be a list of strings, or one string"),
        ({"cmd": [["git"]]}, "cmd: must be a list of strings, or one string"),
        ({"cmd": ""}, "cmd: must begin with a program"),
        ({"cmd": " \n"}, "cmd: must begin with a program"),
        ({"cmd": []}, "cmd: must begin with a program"),
        ({"cmd": ["", "x"]}, "cmd: must begin with a program"),
        ({"cmd": "git 'commit"}, "cmd: No closing quotation"),
        ({"cmd": "git commit\\"}, "cmd: No escaped character"),
        ({"cmd": ["git", "a\0b"]}, r"cmd\[1\]: must not hold a NUL character"),
        ({"cmd": ["git", "\ud800"]}, r"cmd\[1\]: holds a character that UTF-8 cannot express"),
        ({"cmd": ["git", "x" * COMMAND_LIMIT]}, "cmd: must not have more than 100000 bytes"),
        ({"cmd": "'" + "x " * COMMAND_LIMIT}, "cmd: must not have more than 100000 bytes"),
        ({"cmd": "x", "timeout": 0}, "timeout: must be a number of seconds above 0, not 0"),
        ({"cmd": "x", "timeout": -1}, "timeout: must be a number"),
        ({"cmd": "x", "timeout": "60"}, "timeout: must be a number of seconds above 0, not '60'"),
        ({"cmd": "x", "timeout": True}, "timeout: must be a number"),
        ({"cmd": "x", "timeout": float("nan")}, "timeout: must be a number"),
        ({"cmd": "x", "timeout": float("inf")}, "timeout: must be a number"),
        ({"cmd": "x", "timeout": 10**400}, "timeout: must be a number"),
        ({"cmd": "x", "cwd": ""}, "cwd: must be a relative path"),
        ({"cmd": "x", "cwd": 5}, "cwd: must be a relative path"),
        ({"cmd": "x", "cwd": "a\0"}, "cwd: must not hold a NUL character"),
        ({"cmd": "x", "cwd": "/etc"}, "cwd: must be a path below the job's own directory"),
        ({"cmd": "x", "cwd": "../x"}, "cwd: must be a path below the job's own directory"),
        ({"cmd": "x", "cwd": "a/../../b"}, "cwd: must be a path below the job's own directory"),
        ({"cmd": "x", "cwd": "a" * 256}, "cwd: must not have more than 1000 bytes, 255 a name"),
        ({"cmd": "x", "cwd": "a/" * 1001}, "cwd: must not have more than 1000 bytes"),
        ({"cmd": "x", "env": {"A": "b"}}, "env: unknown member; there are cmd, timeout, cwd"),
        ({"cmd": "x", "shell": True}, "shell: unknown member"),
        ({"cmd": "x", "args": ["y"]}, "args: unknown member"),
    ],
)  # fmt: skip
def test_what_is_refused(payload, message):
    """What cannot be meant is refused by the name of the member."""
    with pytest.raises(InvalidPayload, match=f"^shell: {message}"):
        Shell.validate(payload)
