"""A file that keeps the beginning and the end of what is written to it, within a limit."""

from pathlib import Path
from typing import IO


class BoundedFile:
    """A file that keeps its head and its tail within a limit, whatever is written to it.

    The first half goes straight to the file. What follows runs through a ring on disk of nearly
    the other half, which is appended at the end, so neither memory nor disk grows with the
    output.
    """

    _MARK = b"\n[... %d bytes cut here ...]\n"
    _MARK_ROOM = 64

    def __init__(self, path: Path, limit: int) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self.path = path
        self._file: IO[bytes] = path.open("wb")
        self._ring: IO[bytes] | None = None
        self._head = limit // 2 if limit >= 4 * self._MARK_ROOM else limit
        self._tail = max(0, limit - self._head - self._MARK_ROOM)
        self._written = 0

    def write(self, data: bytes) -> None:
        """Add bytes at the end."""
        room = max(0, self._head - self._written)
        self._file.write(data[:room])
        self._written += len(data)
        if self._tail and (rest := data[room:]):
            self._write_ring(rest)

    def close(self) -> None:
        """Append the tail, and close; closing twice does nothing."""
        if self._file.closed:
            return
        if self._ring is not None:
            with self._ring as ring:
                self._append(ring, self._written - self._head)
        self._file.close()

    def _write_ring(self, data: bytes) -> None:
        if self._ring is None:
            # Unlinked while it is open: nothing is left of it, however the worker ends.
            path = self.path.with_name(f"{self.path.name}.tail")
            self._ring = path.open("w+b")
            path.unlink()
        begin = self._written - len(data) - self._head
        skipped = max(0, len(data) - self._tail)
        data, begin = data[skipped:], begin + skipped
        while data:
            at = begin % self._tail
            part = data[: self._tail - at]
            self._ring.seek(at)
            self._ring.write(part)
            data, begin = data[len(part) :], begin + len(part)

    def _append(self, ring: IO[bytes], total: int) -> None:
        cut = total - self._tail
        if cut > 0:
            self._file.write(self._MARK % cut)
        start = total % self._tail if cut > 0 else 0
        for begin, length in ((start, min(total, self._tail) - start), (0, start)):
            ring.seek(begin)
            while length > 0 and (part := ring.read(min(length, 1 << 20))):
                self._file.write(part)
                length -= len(part)
