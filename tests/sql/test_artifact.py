"""Artifacts: bytes that an attempt leaves behind, whole and unchangeable or not at all."""

import hashlib
import io
import os
import tracemalloc
from contextlib import nullcontext

import pytest

from moonmind_queue import (
    Artifact,
    ArtifactCorrupt,
    ArtifactTooLarge,
    InvalidArgument,
    LeaseLost,
    Queue,
)
from moonmind_queue.queue import CHUNK_BYTES, WINDOW

MIB = 1024 * 1024
SAFE = ["a", "logs/run.txt", "a b", "ü/ß", ".hidden", "a..b", "...", "a/.b", "x" * 512]
UNSAFE = [
    "", "/", "/x", "a/", "a//b", ".", "..", "../x", "a/../b", "a/..", "./a", "a/.", "a/./b",
    "a\\b", "\\", "..\\x", "C:x", "c:/x", "a\nb", "a\x7f", "a\x01b", "a\u0085b", "x" * 513,
]  # fmt: skip


@pytest.fixture
def held(queue):
    """A job under a lease."""
    queue.enqueue("k")
    [job] = queue.claim("w", start=True)
    return job


def put(db, job, name, content, **options):
    """Call put_artifact as a program without our client does."""
    more = "".join(f", p_{option} => %s" for option in options)
    [artifact] = db.execute(
        f"select moonmind_queue.put_artifact(%s, %s, %s, %s{more})",
        [job.id, job.token, name, content, *options.values()],
    ).fetchone()
    return artifact


def read(queue, job):
    """Every artifact of a job that can be seen, with its bytes."""
    return {a.name: b"".join(queue.read_artifact(a)) for a in queue.artifacts(job.id)}


@pytest.mark.parametrize("content", [b"", b"a", bytes(range(256)) * 40], ids=len)
def test_bytes_come_back_as_they_went(queue, clock, held, types, content):
    """Name, type, size, digest and time are kept; one event tells of it."""
    queue.put_artifact(held, "logs/a.bin", content, "text/plain")

    [artifact] = queue.artifacts(held.id)
    assert artifact == Artifact(
        id=artifact.id, job_id=held.id, attempt=1, name="logs/a.bin", content_type="text/plain",
        size_bytes=len(content), sha256=hashlib.sha256(content).hexdigest(), created_at=clock.now,
    )  # fmt: skip
    assert b"".join(queue.read_artifact(artifact)) == content
    assert types(queue, held.id)[-1] == "artifact"
    assert queue.history(held.id)[-1].data["sha256"] == artifact.sha256


def test_a_job_without_artifacts_has_an_empty_list(queue, held):
    """That is no error."""
    assert queue.artifacts(held.id) == []


def test_in_sql_it_is_one_call(queue, db, held):
    """The type defaults to application/octet-stream and the digest to that of the bytes."""
    put(db, held, "a", b"abc")

    [artifact] = queue.artifacts(held.id)
    assert artifact.content_type == "application/octet-stream"
    assert artifact.sha256 == hashlib.sha256(b"abc").hexdigest()


def test_several_mebibytes_are_streamed_from_and_to_a_file(queue, held, tmp_path):
    """Neither side ever holds more than a few chunks in memory."""
    source = tmp_path / "big"
    source.write_bytes(os.urandom(MIB) * 12)

    tracemalloc.start()
    queue.put_artifact(held, "big", source)
    digest = hashlib.sha256()
    for chunk in queue.read_artifact(queue.artifacts(held.id)[0]):
        digest.update(chunk)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert digest.hexdigest() == hashlib.sha256(source.read_bytes()).hexdigest()
    assert peak < 6 * MIB


def test_a_lease_that_is_lost_in_the_middle_of_an_upload_is_named(here, session, monkeypatch):
    """What went out together fails together, with the first error and not the ones after it."""
    here.enqueue("k")
    [job] = here.claim("w", start=True)
    other = Queue(session())

    class Losing(io.BytesIO):
        def read(self, size=-1):
            if self.tell() == WINDOW * CHUNK_BYTES and here.get(job.id).state == "running":
                other.release(job)
                other.connection.commit()
            return super().read(size)

    content = Losing(bytes(3 * WINDOW * CHUNK_BYTES))
    monkeypatch.setattr(
        "moonmind_queue.queue.opened", lambda _: nullcontext((content, len(content.getvalue())))
    )

    with pytest.raises(LeaseLost):
        here.put_artifact(job, "big", b"")

    assert here.artifacts(job.id) == []
    assert here.get(job.id).state == "queued"


def test_the_same_bytes_again_change_nothing(queue, db, held, picture):
    """A holder that is not sure may send once more, by either way."""
    first = put(db, held, "a", b"abc")
    before = picture(db)

    again = put(db, held, "a", b"abc")
    queue.put_artifact(held, "a", b"abc")

    assert again == first
    assert picture(db) == before


@pytest.mark.parametrize("other", [b"abd", b"abcd", b""])
def test_other_bytes_under_the_same_name_are_refused(queue, db, held, refused, other):
    """What was stored stays."""
    put(db, held, "a", b"abc")

    with refused("23505", "exists already with other bytes"):
        queue.put_artifact(held, "a", other)
    with refused("23505"):
        put(db, held, "a", other)

    assert read(queue, held) == {"a": b"abc"}


def test_the_next_attempt_may_use_the_name_again(queue, held):
    """Artifacts of different attempts stand side by side, newest first."""
    queue.put_artifact(held, "a", b"one")
    queue.fail(held, "no")
    queue.retry(held.id)
    [again] = queue.claim("w")

    queue.put_artifact(again, "a", b"two")

    new, old = queue.artifacts(held.id)
    assert (old.attempt, new.attempt) == (1, 2)
    assert b"".join(queue.read_artifact(old)) == b"one"
    assert b"".join(queue.read_artifact(new)) == b"two"


def test_an_attempt_that_was_handed_back_does_not_take_the_name(queue, held):
    """The attempt has the same number again, and another token."""
    queue.put_artifact(held, "a", b"one")
    queue.release(held)
    [again] = queue.claim("w")

    queue.put_artifact(again, "a", b"two")

    assert [a.attempt for a in queue.artifacts(held.id)] == [1, 1]


@pytest.mark.parametrize("digest", ["0" * 64, hashlib.sha256(b"abd").hexdigest()])
def test_a_wrong_digest_is_refused_and_leaves_nothing(db, held, picture, refused, digest):
    """The bytes are not what was announced."""
    before = picture(db)

    with refused("22000", "was announced with sha256"):
        put(db, held, "a", b"abc", sha256=digest)

    assert picture(db) == before


def test_a_wrong_digest_is_refused_also_where_those_bytes_are_there(db, held, refused):
    """Saying the digest of what is stored does not pass for having sent it."""
    put(db, held, "a", b"abc")

    with refused("22000"):
        put(db, held, "a", b"abd", sha256=hashlib.sha256(b"abc").hexdigest())


def test_a_digest_may_be_written_in_capitals(db, held):
    """Hexadecimal is hexadecimal."""
    assert put(db, held, "a", b"abc", sha256=hashlib.sha256(b"abc").hexdigest().upper())


@pytest.mark.parametrize("name", SAFE)
def test_ordinary_names_are_kept(queue, held, name):
    """A relative path with forward slashes, of at most 512 characters."""
    queue.put_artifact(held, name, b"x")

    assert read(queue, held) == {name: b"x"}


@pytest.mark.parametrize("name", UNSAFE)
def test_unsafe_names_are_refused_and_leave_nothing(queue, db, held, picture, refused, name):
    """Nothing that could leave a directory, or that a terminal or Windows reads otherwise."""
    before = picture(db)

    with refused("23514"):
        queue.put_artifact(held, name, b"x")

    assert picture(db) == before


def test_a_name_with_a_nul_is_refused(queue, db, held, picture):
    """PostgreSQL has no such text; the answer is a typed error all the same."""
    before = picture(db)

    with pytest.raises(InvalidArgument), db.transaction():
        queue.put_artifact(held, "a\0b", b"x")

    assert picture(db) == before


@pytest.mark.parametrize(
    ("column", "value", "sqlstate"),
    [
        ("content_type", "", "23514"),
        ("content_type", "text/plain\nX: y", "23514"),
        ("name", None, "22023"),
        ("content", None, "22023"),
    ],
)
def test_a_value_that_cannot_be_kept_is_refused(db, held, refused, column, value, sqlstate):
    """The table's rules answer."""
    values = {"name": "a", "content": b"x"} | {column: value}
    with refused(sqlstate):
        put(db, held, values.pop("name"), values.pop("content"), **values)


def test_too_large_is_refused_and_leaves_nothing(queue, db, held, picture, tmp_path):
    """One byte above the limit, from memory or a file: no metadata either."""
    (tmp_path / "big").write_bytes(b"x" * 11)
    before = picture(db)

    for source in (b"x" * 11, tmp_path / "big"):
        with pytest.raises(ArtifactTooLarge, match="11 bytes, 10 are allowed"):
            queue.put_artifact(held, "a", source, max_bytes=10)

    assert picture(db) == before
    queue.put_artifact(held, "a", b"x" * 10, max_bytes=10)


@pytest.mark.parametrize("kind", ["link", "dangling link", "pipe", "directory", "missing"])
def test_only_regular_files_are_stored(queue, db, held, picture, tmp_path, kind):
    """A link to a secret, or a pipe that never ends, is refused at once."""
    secret = tmp_path / "secret"
    secret.write_text("s3cret")
    path = tmp_path / "source"
    if kind == "link":
        path.symlink_to(secret)
    elif kind == "dangling link":
        path.symlink_to(tmp_path / "nowhere")
    elif kind == "pipe":
        os.mkfifo(path)
    elif kind == "directory":
        path.mkdir()
    before = picture(db)

    with pytest.raises(InvalidArgument, match="cannot be stored"):
        queue.put_artifact(held, "a", path)

    assert picture(db) == before


def test_a_damaged_artifact_is_noticed_by_its_reader(queue, db, held):
    """The digest is compared at the end of every reading."""
    queue.put_artifact(held, "a", b"abcd")
    db.execute("update moonmind_queue.artifact_chunk set content = 'abxd'")

    with pytest.raises(ArtifactCorrupt, match="damaged"):
        read(queue, held)


def test_a_part_that_is_gone_is_noticed_by_its_reader(queue, db, held):
    """Fewer bytes than promised are as bad as other ones."""
    queue.put_artifact(held, "a", b"abcd")
    db.execute("delete from moonmind_queue.artifact_chunk")

    with pytest.raises(ArtifactCorrupt):
        read(queue, held)


def test_an_artifact_is_stored_before_the_job_ends(queue, held, refused):
    """With the end of the job the lease is gone and the door shut."""
    queue.complete(held)

    with refused("MQ001"):
        queue.put_artifact(held, "a", b"x")


@pytest.mark.parametrize("name", ["inputs/a.txt", "inputs/logs/a.txt", "Inputs/a.txt", "INPUTS/a"])
def test_names_under_inputs_are_kept_for_producers(queue, db, held, picture, refused, name):
    """A holder is told so, by either way in, and nothing is left."""
    before = picture(db)
    words = f'^artifact "{name}" of job {held.id}: names under inputs/ are kept for what producers'

    with refused("22023", words):
        queue.put_artifact(held, name, b"x")
    with refused("22023", words):
        put(db, held, name, b"x")
    with refused("22023", words):
        db.execute(
            "select moonmind_queue.open_artifact(%s, %s, %s, 'text/plain', 1, %s)",
            [held.id, held.token, name, "0" * 64],
        )

    assert picture(db) == before


@pytest.mark.parametrize("name", ["inputs", "inputs.txt", "my/inputs/a.txt", "inputs2/a.txt"])
def test_names_that_only_look_like_inputs_are_free(queue, held, name):
    """What is kept is the folder at the top."""
    queue.put_artifact(held, name, b"x")

    assert [artifact.name for artifact in queue.artifacts(held.id)] == [name]
