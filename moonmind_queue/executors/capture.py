"""What a program prints on one stream: kept as a file, shown as it comes, its end remembered."""

from pathlib import Path

from moonmind_queue.executors import Context
from moonmind_queue.executors.bounded import BoundedFile
from moonmind_queue.redact import Redactor

END = 2000  # bytes of the end that are remembered


class Capture:
    """A sink for one stream; secrets are out before anything is kept, shown or cut.

    The file holds at most ``limit`` bytes, beginning and end.
    """

    def __init__(
        self, stream: str, path: Path, redactor: Redactor, context: Context, limit: int
    ) -> None:
        self.stream = stream
        self.path = path
        self.size = 0
        self._file = BoundedFile(path, limit)
        self._redactor = redactor
        self._context = context
        self._end = b""

    def __call__(self, lines: bytes) -> None:
        """Take a line, or several, the last newline left out."""
        self.size += len(lines) + 1
        redacted = self._redactor.line(lines)
        self._file.write(redacted + b"\n")
        self._end = (self._end + redacted[-END:] + b"\n")[-END:]
        self._context.log(redacted.decode(errors="replace"), stream=self.stream, stage="run")

    @property
    def end(self) -> str:
        """The last lines, whole ones if there are any."""
        end = self._end
        if self.size > len(end) and end.count(b"\n") > 1:
            end = end.partition(b"\n")[2]
        return end.decode(errors="replace").replace("\0", "\N{REPLACEMENT CHARACTER}").rstrip("\n")

    @property
    def last_line(self) -> str:
        """The last line that says anything."""
        lines = [line.strip() for line in self.end.splitlines()]
        return next((line for line in reversed(lines) if line), "")

    def close(self) -> None:
        """Finish the file."""
        self._file.close()
