"""What happens to an artifact whose file changes while it is sent."""

import pytest

from moonmind_queue import InvalidArgument


@pytest.mark.parametrize("change", [b"", b"ab", b"abce", b"abcde"], ids=ascii)
def test_a_file_that_changes_while_it_is_sent_is_refused(here, session, blocked, tmp_path, change):
    """Emptied, cut short, rewritten or grown: the caller is told, and nobody sees it."""
    here.enqueue("k")
    [job] = here.claim("w")
    file = tmp_path / "f"
    file.write_bytes(b"abcd")
    other = session()
    other.execute("select from moonmind_queue.job for update")

    upload = blocked(lambda queue: queue.put_artifact(job, "f", file))
    file.write_bytes(change)
    other.rollback()

    with pytest.raises(InvalidArgument):
        upload.result()
    assert here.artifacts(job.id) == []
