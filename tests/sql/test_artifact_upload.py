"""What happens to an artifact whose file changes while it is sent."""

import pytest

from moonmind_queue import InvalidArgument
from moonmind_queue.queue import CHUNK_BYTES

LARGE = b"x" * (CHUNK_BYTES + 4)  # sent in more than one piece
CHANGES = {
    "emptied": b"",
    "cut short": LARGE[:-2],
    "rewritten": LARGE[:-1] + b"y",
    "grown": LARGE + b"y",
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_file_that_changes_while_it_is_sent_is_refused(here, session, blocked, tmp_path, change):
    """Emptied, cut short, rewritten or grown: the caller is told, and nobody sees it."""
    here.enqueue("k")
    [job] = here.claim("w")
    file = tmp_path / "f"
    file.write_bytes(LARGE)
    other = session()
    other.execute("select from moonmind_queue.job for update")

    upload = blocked(lambda queue: queue.put_artifact(job, "f", file))
    file.write_bytes(CHANGES[change])
    other.rollback()

    with pytest.raises(InvalidArgument):
        upload.result()
    assert here.artifacts(job.id) == []


def test_a_small_file_is_stored_as_it_was_when_it_was_read(here, session, blocked, tmp_path):
    """It goes in one piece, so what becomes of it while that waits changes nothing."""
    here.enqueue("k")
    [job] = here.claim("w")
    file = tmp_path / "f"
    file.write_bytes(b"abcd")
    other = session()
    other.execute("select from moonmind_queue.job for update")

    upload = blocked(lambda queue: queue.put_artifact(job, "f", file))
    file.write_bytes(b"other")
    other.rollback()
    upload.result()

    [artifact] = here.artifacts(job.id)
    assert b"".join(here.read_artifact(artifact)) == b"abcd"
