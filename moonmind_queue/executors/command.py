"""What a ``shell`` job asks for: one program with its arguments. There is no shell.

::

    {"cmd": ["git", "clone", "--depth", "1", "https://host/repo"], "timeout": 60, "cwd": "src"}
    {"cmd": "git clone --depth 1 https://host/repo"}

Only ``cmd`` is required. A string is cut into words as a shell would cut it, at blanks and by
quotes and backslashes, and nothing else in it means anything. ``timeout`` is in seconds; the
worker's own limit stands above it. ``cwd`` is a directory below the job's own, which is made.

``kind`` is ignored: Agentmux writes it into the payload. Any other member is refused by its name,
``env`` too: there is no telling which variables make an allowed program run another (LD_PRELOAD,
BASH_ENV, GIT_SSH_COMMAND, PYTHONPATH …).
"""

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any, Self

from moonmind_queue.errors import InvalidPayload

MEMBERS = ("cmd", "timeout", "cwd")
IGNORED = "kind"
COMMAND_LIMIT = 100_000  # bytes; the kernel takes 131,071 for one argument
CWD_LIMIT = 1000  # bytes
NAME_LIMIT = 255  # bytes of one directory's name
LONGEST = 1e9  # seconds


@dataclass(frozen=True, slots=True)
class Command:
    """A checked payload; ``timeout`` in seconds, ``cwd`` relative and without ``..``."""

    argv: tuple[str, ...]
    timeout: float | None
    cwd: PurePosixPath

    @classmethod
    def parse(cls, payload: Mapping[str, Any]) -> Self:
        """Check a payload; raises ``InvalidPayload`` that names the member at fault."""
        for member in payload:
            if member not in (*MEMBERS, IGNORED):
                raise _refusal(str(member)[:60], f"unknown member; there are {', '.join(MEMBERS)}")
        return cls(_argv(payload), _timeout(payload.get("timeout")), _cwd(payload.get("cwd")))


def _argv(payload: Mapping[str, Any]) -> tuple[str, ...]:
    if "cmd" not in payload:
        raise _refusal("cmd", "is required: a program with its arguments")
    words = payload["cmd"]
    if isinstance(words, str):
        _check_size([words])  # before it is cut, letter by letter
        try:
            words = shlex.split(words)
        except ValueError as error:
            raise _refusal("cmd", f"{error.args[0]}") from None
    if not isinstance(words, list | tuple) or not all(isinstance(word, str) for word in words):
        raise _refusal("cmd", "must be a list of strings, or one string")
    if not words or not words[0]:
        raise _refusal("cmd", "must begin with a program")
    for number, word in enumerate(words):
        _check_text(f"cmd[{number}]", word)
    _check_size(words)
    return tuple(words)


def _check_size(words: Sequence[str]) -> None:
    if sum(len(word.encode(errors="replace")) + 1 for word in words) > COMMAND_LIMIT:
        raise _refusal(
            "cmd", f"must not have more than {COMMAND_LIMIT} bytes; write a file instead"
        )


def _timeout(seconds: Any) -> float | None:
    if seconds is None:
        return None
    number = isinstance(seconds, int | float) and not isinstance(seconds, bool)
    if not number or not 0 < seconds <= LONGEST:
        raise _refusal("timeout", f"must be a number of seconds above 0, not {seconds!r:.40}")
    return float(seconds)


def _cwd(path: Any) -> PurePosixPath:
    if path is None:
        return PurePosixPath()
    if not isinstance(path, str) or not path:
        raise _refusal("cwd", "must be a relative path")
    _check_text("cwd", path)
    folder = PurePosixPath(path)
    if folder.is_absolute() or ".." in folder.parts:
        raise _refusal("cwd", "must be a path below the job's own directory, without '..'")
    names = [len(part.encode()) for part in folder.parts]
    if sum(names) > CWD_LIMIT or max(names, default=0) > NAME_LIMIT:
        raise _refusal("cwd", f"must not have more than {CWD_LIMIT} bytes, {NAME_LIMIT} a name")
    return folder


def _check_text(member: str, text: str) -> None:
    """Refuse what no program can be given."""
    if "\0" in text:
        raise _refusal(member, "must not hold a NUL character")
    try:
        text.encode()
    except UnicodeEncodeError:
        raise _refusal(member, "holds a character that UTF-8 cannot express") from None


def _refusal(member: str, reason: str) -> InvalidPayload:
    return InvalidPayload(f"shell: {member}: {reason}")
