"""open_artifact() and append_artifact(): bytes that come in parts."""

import hashlib

import pytest


@pytest.fixture
def held(queue):
    """A job under a lease."""
    queue.enqueue("k")
    [job] = queue.claim("w", start=True)
    return job


def opened(db, job, name, content, size=None):
    """Begin an upload of these bytes."""
    [artifact] = db.execute(
        "select moonmind_queue.open_artifact(%s, %s, %s, 'text/plain', %s, %s)",
        [job.id, job.token, name, len(content) if size is None else size,
         hashlib.sha256(content).hexdigest()],
    ).fetchone()  # fmt: skip
    return artifact


def append(db, job, artifact, chunk):
    """Send the next bytes of an upload."""
    [size] = db.execute(
        "select moonmind_queue.append_artifact(%s, %s, %s)", [artifact, job.token, chunk]
    ).fetchone()
    return size


def read(queue, job):
    """Every artifact of a job that can be seen, with its bytes."""
    return {a.name: b"".join(queue.read_artifact(a)) for a in queue.artifacts(job.id)}


def test_the_last_chunk_of_other_bytes_is_refused(queue, db, held, refused):
    """A streamed file that changed under way is never shown."""
    artifact = opened(db, held, "a", b"abcd")
    append(db, held, artifact, b"ab")

    with refused("22000"):
        append(db, held, artifact, b"xx")

    assert read(queue, held) == {}


def test_nobody_sees_an_artifact_before_its_last_byte(queue, db, held, types):
    """Neither its row nor its chunks nor an event."""
    artifact = opened(db, held, "a", b"abcd")
    size = append(db, held, artifact, b"abc")

    hidden = db.execute("select count(*) from moonmind_queue.artifact_content").fetchone()
    assert (size, read(queue, held), hidden) == (3, {}, (0,))
    assert "artifact" not in types(queue, held.id)

    assert append(db, held, artifact, b"d") == 4
    assert read(queue, held) == {"a": b"abcd"}
    assert types(queue, held.id)[-1] == "artifact"


def test_an_interrupted_upload_begins_again(queue, db, held):
    """What was left behind under the name is thrown away, also when it was other bytes."""
    append(db, held, opened(db, held, "a", b"something longer"), b"somethi")

    queue.put_artifact(held, "a", b"abcd")

    assert read(queue, held) == {"a": b"abcd"}
    assert db.execute("select count(*) from moonmind_queue.artifact_chunk").fetchone() == (1,)


def test_an_upload_that_was_begun_anew_cannot_be_continued(db, held, refused):
    """The id of the old one is no longer open."""
    old = opened(db, held, "a", b"abcd")
    opened(db, held, "a", b"abcd")

    with refused("22023", "no open artifact"):
        append(db, held, old, b"ab")


def test_a_complete_artifact_takes_no_more_bytes(db, held, refused):
    """It is sealed."""
    artifact = opened(db, held, "a", b"ab")
    append(db, held, artifact, b"ab")

    with refused("22023", "no open artifact"):
        append(db, held, artifact, b"c")


def test_more_bytes_than_announced_are_refused(queue, db, held, refused):
    """The upload can still be ended properly."""
    artifact = opened(db, held, "a", b"abcd")
    append(db, held, artifact, b"ab")

    with refused("22023", "announced with 4 bytes and got 5"):
        append(db, held, artifact, b"cde")

    assert append(db, held, artifact, b"cd") == 4


def test_an_empty_chunk_changes_nothing(queue, db, held):
    """A sender may flush an empty buffer."""
    artifact = opened(db, held, "a", b"ab")

    sizes = [append(db, held, artifact, chunk) for chunk in (b"", b"a", b"", b"b")]

    assert sizes == [0, 1, 1, 2]
    assert read(queue, held) == {"a": b"ab"}


@pytest.mark.parametrize("size", [-1, None])
def test_a_size_that_cannot_be_is_refused(db, held, refused, size):
    """Below zero there is nothing."""
    with refused("23514" if size else "22023"):
        db.execute(
            "select moonmind_queue.open_artifact(%s, %s, 'a', 'text/plain', %s, %s)",
            [held.id, held.token, size, "0" * 64],
        )


def test_an_artifact_of_another_token_cannot_be_written(queue, db, held, refused):
    """Its id alone opens nothing."""
    artifact = opened(db, held, "a", b"ab")
    queue.enqueue("k")
    [other] = queue.claim("v")

    with refused("22023", "no open artifact"):
        append(db, other, artifact, b"ab")
