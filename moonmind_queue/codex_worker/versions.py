"""Which versions of the Codex CLI a worker works with; ``docs/codex.md`` says what was measured.

Codex is released every few days, and what it prints and takes changes with it. An older one than
``OLDEST`` is refused; a newer one than ``NEWEST`` is used all the same, for most changes do no
harm, and whoever runs it is told.
"""

import re

OLDEST = (0, 155, 1)
NEWEST = (0, 169, 0)

_BUILT = (0, 0, 0)  # what a Codex that somebody compiled calls itself
_NUMBER = re.compile(r"(\d+)\.(\d+)\.(\d+)")


def too_old(version: str) -> bool:
    """Say whether a worker refuses this version; one that cannot be read is not refused."""
    number = _parse(version)
    return number is not None and number != _BUILT and number < OLDEST


def untried(version: str) -> str | None:
    """Say what is not known of a version that is used all the same; None when it was tried."""
    number = _parse(version)
    if number is None or number == _BUILT:
        return f"no release: tried were {_text(OLDEST)} to {_text(NEWEST)}"
    if number > NEWEST:
        return f"newer than {_text(NEWEST)}, the last that was tried"
    return None


def oldest() -> str:
    """Return the oldest version that is not refused, in Codex's spelling."""
    return _text(OLDEST)


def _parse(version: str) -> tuple[int, ...] | None:
    found = _NUMBER.match(version)
    return tuple(map(int, found.groups())) if found else None


def _text(number: tuple[int, ...]) -> str:
    return ".".join(map(str, number))
