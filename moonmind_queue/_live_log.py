"""What a job prints reaches the queue while it runs: in pieces, some a second, and bounded."""

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

INTERVAL = 0.2  # seconds in which lines are gathered
PIECE = 60_000  # characters of a piece, so that it keeps within 256 KiB; a longer line is cut
PATIENCE = 5.0  # seconds in which the rest is tried again, when the work has ended


@dataclass(frozen=True, slots=True)
class Piece:
    """Whole lines of one stream and one stage."""

    content: str
    stream: str
    stage: str


class LiveLog:
    """Gathers lines and hands them in order to ``send``, from a thread of its own.

    ``send`` returns whether it is done with the pieces; otherwise they are sent again with the
    next. After ``limit`` characters one line says so and the rest is left out, so that neither
    memory nor the database grows with the output, and a database that is away holds up nobody.
    """

    def __init__(
        self, send: Callable[[Sequence[Piece]], bool], limit: int, patience: float = PATIENCE
    ) -> None:
        self._send, self._limit, self._patience = send, limit, patience
        self._length = 0
        self._waiting: list[Piece] = []
        self._lock = threading.Lock()
        self._ended = threading.Event()
        self._thread: threading.Thread | None = None

    def write(self, text: str, stream: str, stage: str) -> None:
        """Add lines; the last one need not end with a newline."""
        with self._lock:
            if self._length > self._limit:
                return
            self._length += len(text) + 1
            if self._length > self._limit:
                text = f"[the live log ends here, after {self._limit} characters]"
            for begin in range(0, len(text) or 1, PIECE):
                self._waiting.append(Piece(text[begin : begin + PIECE] + "\n", stream, stage))
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="live-log", daemon=True)
                self._thread.start()

    def close(self) -> bool:
        """Send the rest; returns whether nothing is left."""
        self._ended.set()
        if self._thread is not None:
            self._thread.join(2 * self._patience)  # the last try may take some time itself
        return not self._waiting

    def _run(self) -> None:
        while not self._ended.wait(INTERVAL):
            self._flush()
        deadline = time.monotonic() + self._patience
        self._flush()
        while self._waiting and time.monotonic() < deadline:
            time.sleep(INTERVAL)
            self._flush()

    def _flush(self) -> None:
        with self._lock:
            waiting = list(self._waiting)
        if waiting and self._send(_joined(waiting)):
            with self._lock:
                del self._waiting[: len(waiting)]


def _joined(pieces: Sequence[Piece]) -> list[Piece]:
    """Put neighbours of the same stream and stage together, as far as a piece reaches."""
    joined: list[list[Piece]] = []
    length = 0
    for piece in pieces:
        same = joined and (joined[-1][0].stream, joined[-1][0].stage) == (piece.stream, piece.stage)
        if not same or length + len(piece.content) > PIECE:
            joined.append([])
            length = 0
        joined[-1].append(piece)
        length += len(piece.content)
    return [
        Piece("".join(each.content for each in group), group[0].stream, group[0].stage)
        for group in joined
    ]
