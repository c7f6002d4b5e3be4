"""Streams are cut into lines, one by one or in pieces, in bounded memory."""

import random

import pytest

from moonmind_queue.executors.lines import Blocks, Lines


@pytest.mark.parametrize("seed", range(20))
def test_pieces_hold_the_same_lines(seed):
    """However bytes arrive, the pieces put together are the lines one by one."""
    chance = random.Random(seed)  # noqa: S311
    data = bytes(chance.choice(b"ab\n\n\r") for _ in range(300)) + b"end"
    lines: list[bytes] = []
    pieces: list[bytes] = []
    one_by_one, together = Lines(lines.append, 10), Blocks(pieces.append, 10)

    while data:
        size = chance.randint(1, 9)  # so that no whole line is longer than the limit
        one_by_one.feed(data[:size])
        together.feed(data[:size])
        data = data[size:]
    one_by_one.end()
    together.end()

    assert b"\n".join(pieces).split(b"\n") == lines


def test_a_flood_of_short_lines_comes_in_few_pieces():
    """A thousand lines that came together are handed out together."""
    pieces: list[bytes] = []

    Blocks(pieces.append).feed(b"y\n" * 1000)

    assert pieces == [b"\n".join([b"y"] * 1000)]


def test_a_line_without_end_does_not_fill_the_memory():
    """Of a line beyond the limit the beginning is kept, with a mark that says how much is gone."""
    pieces: list[bytes] = []
    blocks = Blocks(pieces.append, 10)

    for _ in range(100):
        blocks.feed(b"x" * 100)
    blocks.feed(b"\nnext\n")

    assert pieces == [b"x" * 10 + b" [... 9990 bytes cut ...]\nnext"]
