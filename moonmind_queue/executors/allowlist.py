"""Which programs a worker lets jobs of kind ``shell`` run, decided when the worker starts.

Each entry of ``MOONMIND_SHELL_ALLOW`` becomes one file: a bare name is looked up once on the
worker's PATH, links are followed once, and what the file was is remembered. A job names an entry
by the very words: the name, or the absolute path. There is no second lookup, no normalising and no
guessing, so there is nothing that a strange spelling could be mistaken for.

What is executed later is that file by its real path, after a check that it is still the same one:
device, inode, time of change and size. It is checked once before anything starts, and once more by
the process that turns into the program (``warden.py``), as its last act. The instant between that
check and exec is left; only who may write the file's directory could use it, so a file that anybody
may replace is refused at the start. Executing an open descriptor instead would close even that
instant, but would give scripts a name like ``/dev/fd/5``. A program that was updated is refused
until the worker is started again.
"""

import os
import re
import shutil
import stat
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from moonmind_queue.errors import SettingsError
from moonmind_queue.executors import Block
from moonmind_queue.executors.warden import Identity, identify
from moonmind_queue.settings import ShellProgram

VARIABLE = "MOONMIND_SHELL_ALLOW"

_RUNNERS = re.compile(
    r"(?:ba|da|z|k|c|tc|fi|a|mk)?sh|busybox|toybox|env|xargs|find|sudo|doas|su|nohup|nice|timeout"
    r"|setsid|setpriv|stdbuf|chroot|unshare|nsenter|script|watch|parallel|ssh|strace|gdb|make"
    r"|(?:python|pypy|perl|ruby|node|php|lua|tclsh)[\d.]*|[gmn]?awk|g?sed|vim?|ed|emacs|docker|podman"
    r"|git|tar|rsync|npx|uvx?|npm|pnpm|yarn|bunx?|deno|pipx?\d*|cargo|go|java|cmake|ninja|flock|time"
    r"|taskset|chrt|ionice|prlimit|unbuffer|expect|socat|tmux|screen|systemd-run|ld[-.].*"
)
"""Programs that run whatever their arguments say; there are many more."""


@dataclass(frozen=True, slots=True)
class Allowed:
    """One entry: what jobs may call it, what it is, and which arguments it takes."""

    names: frozenset[str]
    argv0: str
    file: Path
    identity: Identity
    args: tuple[re.Pattern[str], ...] | None
    more: re.Pattern[str] | None

    @classmethod
    def resolve(cls, entry: ShellProgram, path: str) -> "Allowed":
        """Look the program up on ``path`` (like PATH); raises ``SettingsError``.

        The file is what links lead to, ``argv[0]`` the path that was found: programs that are one
        file under many names tell by it what they are to be.
        """
        found = entry.program if entry.program.startswith("/") else _look_up(entry.program, path)
        file = Path(os.path.realpath(found))
        try:
            status = file.stat()
        except OSError as error:
            raise SettingsError(f"{VARIABLE}: {found}: {error.strerror}") from None
        if not stat.S_ISREG(status.st_mode) or not os.access(file, os.X_OK):
            raise SettingsError(f"{VARIABLE}: {found}: is not an executable file")
        for each in (Path(found).parent.resolve() / Path(found).name, file):
            _refuse_what_anybody_may_replace(each)
        restricted = entry.args is not None or entry.more is not None
        return cls(
            names=frozenset((entry.program, found)),
            argv0=found,
            file=file,
            identity=identify(status),
            args=tuple(map(_compile, entry.args or ())) if restricted else None,
            more=None if entry.more is None else _compile(entry.more),
        )

    @property
    def runs_anything(self) -> bool:
        """Whether its arguments can make it run any other program, as far as its name tells."""
        names = (Path(self.argv0).name, self.file.name)
        return self.args is None and any(_RUNNERS.fullmatch(name) for name in names)

    def objection(self, arguments: Sequence[str]) -> str | None:
        """Say what is wrong with the arguments, if anything is."""
        if self.args is None:
            return None
        if len(arguments) < len(self.args):
            return f"argument {len(arguments) + 1} is missing"
        for number, argument in enumerate(arguments):
            pattern = self.args[number] if number < len(self.args) else self.more
            if pattern is None:
                return f"there are more than {len(self.args)} of them"
            if not pattern.fullmatch(argument):
                return f"argument {number + 1} does not match {pattern.pattern}"
        return None


class Allowlist:
    """All that a worker lets its jobs run."""

    def __init__(self, entries: Iterable[ShellProgram], path: str) -> None:
        self.programs = [Allowed.resolve(entry, path) for entry in entries]

    def permit(self, argv: Sequence[str]) -> Allowed:
        """Return the first entry that covers a command, or raise ``Block`` with the reason."""
        name, *arguments = argv
        named = [program for program in self.programs if name in program.names]
        if not named:
            raise Block(
                f"{quoted(name)} is not allowed on this worker: add it to {VARIABLE}, restart the "
                "worker and retry the job; a job names a program just as it stands there"
            )
        objections = []
        for program in named:
            if objection := program.objection(arguments):
                objections.append(objection)
                continue
            _refuse_what_has_changed(program)
            return program
        raise Block(
            f"{quoted(name)} is not allowed with these arguments: {'; or '.join(objections)} "
            f"({VARIABLE} of this worker)"
        )


def quoted(word: str) -> str:
    """Return a word as it can be told from others that look like it, and not too long."""
    shown = ascii(word)
    return shown if len(shown) <= 100 else f"{shown[:100]}…"


def changed(file: Path) -> Block:
    """Return the refusal of a file that is not what it was when the worker started."""
    return Block(
        f"{file} has changed since this worker started: if that was intended, restart the worker"
    )


def _refuse_what_has_changed(program: Allowed) -> None:
    try:
        same = identify(program.file.stat()) == program.identity
    except OSError:
        same = False
    if not same:
        raise changed(program.file)


def _look_up(name: str, path: str) -> str:
    """Return where a name is found; what PATH says of relative directories is passed over."""
    folders = [folder for folder in path.split(os.pathsep) if folder.startswith("/")]
    for folder in folders:
        if found := shutil.which(name, path=folder):
            return os.path.normpath(found)
    raise SettingsError(f"{VARIABLE}: {quoted(name)} is not on this worker's PATH")


def _refuse_what_anybody_may_replace(file: Path) -> None:
    """Raise where another user could have put the file, or a link to it, or could change it."""
    below = file
    for each in (file, *file.parents):
        found = each.lstat()
        if found.st_mode & stat.S_IWOTH and not stat.S_ISLNK(found.st_mode):
            if not (stat.S_ISDIR(found.st_mode) and found.st_mode & stat.S_ISVTX):
                raise SettingsError(f"{VARIABLE}: {file}: anybody may write to {each}")
            # As /tmp: anybody may add to it, so what is used of it has to be of whom we trust.
            if below.lstat().st_uid not in (0, os.getuid()):
                raise SettingsError(f"{VARIABLE}: {file}: anybody may have put {below} there")
        below = each


def _compile(pattern: str) -> re.Pattern[str]:
    return re.compile(pattern, re.ASCII)
