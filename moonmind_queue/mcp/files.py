"""Paths that agents name: below one directory, and told as they were given when they fail."""

import errno
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

from moonmind_queue.agentmux.vocabulary import ErrorCode
from moonmind_queue.errors import InvalidArgument
from moonmind_queue.mcp.tools import Refused

# The path is at fault, not the disk.
_ASKED_WRONGLY = {errno.ENAMETOOLONG, errno.EISDIR, errno.ENOTDIR, errno.EINVAL, errno.ELOOP}
# Another system, or a terminal, reads more in it; the last are bytes that are no UTF-8.
_MISLEADING = re.compile(r"[\x00-\x1f\x7f-\x9f\\\ud800-\udfff]")


def nameable(path: str) -> bool:
    """Return whether a call may have this path: it is UTF-8, and looks like what it is."""
    return not _MISLEADING.search(path)


def relative(path: str, root: Path) -> str:
    """Return a path as it is below ``root``; one that begins with ``root`` is understood too.

    Raises ``InvalidArgument`` for one that leads elsewhere. Links are for whoever opens it.
    """
    given = PurePosixPath(path)
    if given.is_absolute():
        if not given.is_relative_to(root):
            raise InvalidArgument(f"{path!r} is not below the directory that is served")
        given = given.relative_to(root)
    if ".." in given.parts or not given.parts or not nameable(path):
        raise InvalidArgument(f"{path!r} is no path below the directory that is served")
    return str(given)


@contextmanager
def about(path: str) -> Iterator[None]:
    """Refuse with the path in front what the system refuses."""
    try:
        yield
    except OSError as error:
        wrong = error.errno in _ASKED_WRONGLY
        code = ErrorCode.VALIDATION_ERROR if wrong else ErrorCode.IO_ERROR
        raise Refused(code, f"{path}: {error.strerror}") from None
