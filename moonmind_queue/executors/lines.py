"""Cuts what a program prints into lines, in memory that no line can exceed."""

import math
from collections.abc import Callable

LINE_LIMIT = 8 * 1024 * 1024  # bytes of one line that are kept

Sink = Callable[[bytes], None]


class TooMuch(Exception):
    """A program printed more than it may, in one line or in all."""


class Lines:
    """Hands out each line, without its newline, to ``sink``.

    What a line has beyond ``limit`` bytes is cut. More than ``most`` bytes in all, newlines or
    none, raise ``TooMuch``.
    """

    def __init__(self, sink: Sink, limit: int = LINE_LIMIT, most: float = math.inf) -> None:
        self._sink = sink
        self._limit = limit
        self._left = most
        self._line = bytearray()
        self._cut = 0

    def feed(self, data: bytes) -> None:
        """Take the next bytes."""
        self._count(data)
        first, *rest = data.split(b"\n")
        self._add(first)
        for part in rest:
            self._emit()
            self._add(part)

    def end(self) -> None:
        """Hand out a last line that has no newline."""
        if self._line:
            self._emit()

    def _count(self, data: bytes) -> None:
        self._left -= len(data)
        if self._left < 0:
            raise TooMuch

    def _add(self, part: bytes) -> None:
        room = self._limit - len(self._line)
        self._line += part[:room]
        self._cut += max(0, len(part) - room)

    def _emit(self, more: bytes = b"") -> None:
        if self._cut:
            self._line += b" [... %d bytes cut ...]" % self._cut
        line, self._line, self._cut = bytes(self._line), bytearray(), 0
        self._sink(line + more)


class Whole(Lines):
    """Hands out lines that are of no use when they are cut, such as messages.

    A line longer than ``limit`` raises ``TooMuch`` while it comes, whether it ends or not.
    """

    def _add(self, part: bytes) -> None:
        super()._add(part)
        if self._cut:
            raise TooMuch


class Blocks(Lines):
    """Hands out the lines that came together in one piece, for who takes a flood of short ones.

    A piece is whole lines, the newlines between them included, the last one not.
    """

    def feed(self, data: bytes) -> None:
        """Take the next bytes."""
        self._count(data)
        whole, newline, rest = data.rpartition(b"\n")
        if newline:
            first, newline, more = whole.partition(b"\n")
            self._add(first)
            self._emit(newline + more)
        self._add(rest)
