"""What a run leaves to read stays within bounds."""

import random
from pathlib import Path
from typing import Any

import pytest

from moonmind_queue.codex_worker.journal import EVENTS, LOG, PROGRESS_LIMIT, Journal
from moonmind_queue.executors.bounded import BoundedFile
from moonmind_queue.redact import Redactor


@pytest.mark.parametrize("limit", [256, 1000, 4096])
def test_head_and_tail(tmp_path: Path, limit: int) -> None:
    """Whatever is written, the file holds all of it or its beginning and its end."""
    chance = random.Random(limit)  # noqa: S311
    for total in (0, limit // 2, limit // 2 + 1, limit - 64, limit, 3 * limit, 50 * limit):
        data = chance.randbytes(total).replace(b"[", b"(")
        file = BoundedFile(tmp_path / "file", limit)
        rest = data
        while rest:
            size = chance.randint(1, 2 * limit)
            file.write(rest[:size])
            rest = rest[size:]
        file.close()
        kept = (tmp_path / "file").read_bytes()
        assert len(kept) <= limit
        if total <= limit - 64:
            assert kept == data
        else:
            head, mark, tail = kept.partition(b"\n[... ")
            cut, _, tail = tail.partition(b" bytes cut here ...]\n")
            assert mark
            assert (head, tail) == (data[: len(head)], data[len(data) - len(tail) :])
            assert len(head) + int(cut) + len(tail) == total
    assert [each.name for each in tmp_path.iterdir()] == ["file"]


def test_progress_is_bounded(tmp_path: Path, recorder: Any) -> None:
    """A chatty run writes no more than a few hundred events, and says that there were more."""
    journal = Journal(tmp_path, Redactor([]), 1000, recorder)
    for number in range(PROGRESS_LIMIT * 3):
        journal.progress(f"event {number} " + "x" * 10_000)
    journal.close()
    assert len(recorder.events) == PROGRESS_LIMIT
    assert all(len(message) <= 500 for _, message, _ in recorder.events)
    assert recorder.events[-1] == ("warn", f"further progress is in {LOG} only", None)


def test_redacted_before_it_is_cut(tmp_path: Path, recorder: Any) -> None:
    """No cut leaves a part of a secret: redaction comes first, at every sink."""
    secret = "correct-horse-battery"
    journal = Journal(tmp_path, Redactor([secret]), 400, recorder)
    for _ in range(100):
        journal.log(f"the word is {secret}")
        journal.event(f'{{"text": "{secret}"}}'.encode())
    journal.progress(secret * 100)
    journal.close()
    written = [(tmp_path / name).read_text() for name in (LOG, EVENTS)]
    for text in (*written, repr(recorder.events)):
        assert "[REDACTED]" in text
        assert "correct" not in text
        assert "battery" not in text


def test_messages_are_storable(tmp_path: Path, recorder: Any) -> None:
    """NUL and broken characters, which PostgreSQL refuses, are replaced."""
    journal = Journal(tmp_path, Redactor([]), 1000, recorder)
    journal.progress("a\0b\udc80c")
    journal.close()
    [(_, message, _)] = recorder.events
    assert message == "a\N{REPLACEMENT CHARACTER}b?c"
