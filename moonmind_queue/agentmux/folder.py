"""The folder that file-based tools read: ``state/`` and ``artifacts/<task>/<run>/``.

Whatever a task is called and whatever an agent leaves there, nothing is written or read outside:
ids become names that cannot lead anywhere, each step of a path is opened without following links,
and files are put in place whole. Only the user of the worker may read them.
"""

import errno
import hashlib
import json
import os
import re
import secrets
import shutil
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO
from urllib.parse import quote

from moonmind_queue.errors import InvalidArgument

LONGEST = 120  # characters of a name that stands for an id
CHUNK = 1024 * 1024
DEEPEST = 64  # folders within folders that are looked into

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_PASSING = re.compile(r"\..*\.[0-9a-f]{8}", re.DOTALL)  # what a file is called until it is whole
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC  # a pipe is not waited for
_FILE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


def safe_name(given: str) -> str:
    """Return a file name for an id: another one for each, and never a way out.

    ``spec:write`` stays as it is; what a file system may take amiss is written as in URLs, and a
    long one is cut and told apart by its digest.
    """
    name = quote(given, safe=":@+=, ")
    if name.startswith((".", " ", "-")) or not name:
        name = f"%{ord(name[0]):02X}{name[1:]}" if name else "%00"
    if len(name) > LONGEST:
        digest = hashlib.sha256(given.encode(errors="surrogatepass")).hexdigest()[:16]
        name = f"{name[: LONGEST - 17]}~{digest}"
    return name


class Folder:
    """Writes and reads below ``root``, which is made when the first file comes."""

    def __init__(self, root: Path) -> None:
        self.root = root.absolute()

    @contextmanager
    def writing(self, path: str) -> Iterator[BinaryIO]:
        """Lend a file that is at a relative path once it is whole; ``InvalidArgument``."""
        *folders, name = self._parts(path)
        with self._opened(folders) as folder:
            passing = f".{name[:100]}.{secrets.token_hex(4)}"
            try:
                with os.fdopen(os.open(passing, _FILE, 0o600, dir_fd=folder), "wb") as file:
                    yield file
                os.replace(passing, name, src_dir_fd=folder, dst_dir_fd=folder)
            except BaseException:
                with suppress(FileNotFoundError):
                    os.unlink(passing, dir_fd=folder)
                raise

    def write(self, path: str, content: bytes) -> None:
        """Put a file at a relative path, in place of one that is there."""
        with self.writing(path) as file:
            file.write(content)

    def write_json(self, path: str, value: Mapping[str, Any]) -> None:
        """Put a JSON file, made for people to read, at a relative path."""
        self.write(path, json.dumps(value, indent=2, ensure_ascii=False).encode() + b"\n")

    def copy(self, path: str, source: Path) -> None:
        """Put a copy of a regular file, which may be large, at a relative path."""
        reading = os.open(source, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        with os.fdopen(reading, "rb") as original, self.writing(path) as file:
            shutil.copyfileobj(original, file, CHUNK)

    def has(self, path: str, size: int) -> bool:
        """Return whether a regular file of this size is at a relative path."""
        *folders, name = self._parts(path)
        with self._opened(folders) as folder:
            try:
                found = os.stat(name, dir_fd=folder, follow_symlinks=False)
            except FileNotFoundError:
                return False
        return stat.S_ISREG(found.st_mode) and found.st_size == size

    def appending(self, path: str) -> BinaryIO:
        """Open a file at a relative path to add to its end."""
        *folders, name = self._parts(path)
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC
        with self._opened(folders) as folder:
            return os.fdopen(os.open(name, flags, 0o600, dir_fd=folder), "ab", buffering=0)

    def read(self, path: str, limit: int) -> bytes:
        """Return what is in a regular file at a relative path.

        Raises ``InvalidArgument`` for a link, a folder or more than ``limit`` bytes, and
        ``FileNotFoundError``.
        """
        *folders, name = self._parts(path)
        with self._opened(folders, make=False) as folder:
            try:
                reading = os.open(name, _READ, dir_fd=folder)
            except OSError as error:
                if error.errno != errno.ELOOP:
                    raise
                raise InvalidArgument(f"{path} is a link, which is not followed") from None
        if not stat.S_ISREG(os.fstat(reading).st_mode):
            os.close(reading)
            raise InvalidArgument(f"{path} is no regular file")
        with os.fdopen(reading, "rb") as file:
            content = file.read(limit + 1)
        if len(content) > limit:
            raise InvalidArgument(f"{path} has more than the {limit} bytes that are allowed")
        return content

    def files(self, path: str) -> Iterator[str]:
        """Yield the paths of the regular files below a folder; none where it is missing.

        Links are left out, and so is what is being written.
        """
        try:
            with self._opened(self._parts(path), make=False) as folder:
                yield from _files(folder, path, DEEPEST)
        except FileNotFoundError:
            return

    def _parts(self, path: str) -> list[str]:
        parts = path.split("/")
        if not all(parts) or {".", ".."} & set(parts) or "\0" in path:
            raise InvalidArgument(f"{path!r} is no path below {self.root.name}")
        return parts

    @contextmanager
    def _opened(self, folders: list[str], *, make: bool = True) -> Iterator[int]:
        """Lend the descriptor of a folder below the root; a link on the way is refused."""
        if make:
            self.root.mkdir(parents=True, exist_ok=True, mode=0o700)
        folder = os.open(self.root, _DIRECTORY & ~os.O_NOFOLLOW)
        try:
            for name in folders:
                if make:
                    with suppress(FileExistsError):
                        os.mkdir(name, 0o700, dir_fd=folder)
                try:
                    below = os.open(name, _DIRECTORY, dir_fd=folder)
                except FileNotFoundError:
                    raise
                except OSError as error:  # a link, or a file
                    raise InvalidArgument(
                        f"{name!r} below {self.root.name} is no directory: {error.strerror}"
                    ) from None
                os.close(folder)
                folder = below
            yield folder
        finally:
            os.close(folder)


def _files(folder: int, path: str, deeper: int) -> Iterator[str]:
    """Yield the regular files of an opened folder and of those in it, ``deeper`` levels down."""
    with os.scandir(folder) as entries:
        found = sorted(entries, key=lambda entry: entry.name)
    for entry in found:
        below = f"{path}/{entry.name}"
        if entry.is_file(follow_symlinks=False):
            if not _PASSING.fullmatch(entry.name):
                yield below
        elif deeper and entry.is_dir(follow_symlinks=False):
            try:
                inner = os.open(entry.name, _DIRECTORY, dir_fd=folder)
            except OSError:  # gone, or a link by now
                continue
            try:
                yield from _files(inner, below, deeper - 1)
            finally:
                os.close(inner)


def run_folder(task: str, run: str) -> str:
    """Return where the files of a run are, relative to the root."""
    return f"artifacts/{safe_name(task)}/{run}"


def run_id(attempt: int, token: int) -> str:
    """Return the id of a run: a new one for each attempt, in the order of claims."""
    return f"{attempt}-{token}"
