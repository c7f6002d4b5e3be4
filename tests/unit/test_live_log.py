"""The live log inside a worker: gathered, in order, bounded, and sent again when it must be."""

import threading

from moonmind_queue._live_log import PIECE, LiveLog, Piece


class Reader:
    """Takes pieces; while ``away`` is set it refuses them."""

    def __init__(self) -> None:
        self.taken: list[Piece] = []
        self.refused = threading.Event()
        self.away = False

    def __call__(self, pieces) -> bool:
        """Take or refuse."""
        if self.away:
            self.refused.set()
            return False
        self.taken += pieces
        return True

    @property
    def text(self) -> str:
        """All that was taken."""
        return "".join(piece.content for piece in self.taken)


def test_lines_of_one_stream_and_stage_travel_together():
    """In the order in which they came, whatever stream they are of."""
    reader = Reader()
    log = LiveLog(reader, 1000)
    for line in "ab":
        log.write(line, "stdout", "prepare")
    log.write("c", "stderr", "prepare")
    log.write("d", "stderr", "execute")

    assert log.close()
    assert reader.taken == [
        Piece("a\nb\n", "stdout", "prepare"),
        Piece("c\n", "stderr", "prepare"),
        Piece("d\n", "stderr", "execute"),
    ]


def test_what_was_refused_comes_again_before_what_is_new():
    """A reader that was away for a while misses nothing and hears nothing twice."""
    reader = Reader()
    reader.away = True
    log = LiveLog(reader, 1000)
    log.write("first", "stdout", "")
    assert reader.refused.wait(10)
    log.write("second", "stdout", "")
    reader.away = False

    assert log.close()
    assert reader.text == "first\nsecond\n"


def test_a_reader_that_stays_away_is_told_of():
    """Closing says that something is missing."""
    reader = Reader()
    reader.away = True
    log = LiveLog(reader, 1000, patience=0.1)
    log.write("lost", "stdout", "")

    assert not log.close()


def test_it_ends_at_its_limit_and_says_so():
    """Once, however much follows; what came before is whole."""
    reader = Reader()
    log = LiveLog(reader, 10)
    for line in ("1234", "5678", "90", "more"):
        log.write(line, "stdout", "")

    assert log.close()
    assert reader.text == "1234\n5678\n[the live log ends here, after 10 characters]\n"


def test_no_piece_is_larger_than_the_database_takes():
    """A line that is too long is cut, many lines are parted."""
    reader = Reader()
    log = LiveLog(reader, 10 * PIECE)
    log.write("☃" * (2 * PIECE + 1), "stdout", "")
    for _ in range(PIECE // 500):
        log.write("x" * 999, "stdout", "")

    assert log.close()
    assert max(len(piece.content.encode()) for piece in reader.taken) <= 262_144
    assert reader.text.count("☃") == 2 * PIECE + 1
    assert reader.text.count("x") == PIECE // 500 * 999


def test_a_job_that_prints_nothing_has_no_thread():
    """Most kinds have no log."""
    before = threading.active_count()

    log = LiveLog(Reader(), 1000)

    assert threading.active_count() == before
    assert log.close()
