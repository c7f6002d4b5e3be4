"""append_log(): what a job prints can be read along by everybody, and only its holder writes it."""

from datetime import timedelta

import pytest

from moonmind_queue import InvalidArgument, JobNotFound, Queue

HOUR = timedelta(hours=1)


@pytest.fixture
def held(queue):
    """A job that is held."""
    queue.enqueue("k")
    return queue.claim("w")[0]


def test_a_piece_comes_back_as_it_was_given(queue, clock, held):
    """With its attempt, stage and stream, and the database's time."""
    pos = queue.append_log(held, "half\nwäy ☃\n", stream="stderr", stage="execute")

    [piece] = queue.read_log(held.id)
    assert (piece.pos, piece.at, piece.attempt) == (pos, clock.now, 1)
    assert (piece.stage, piece.stream, piece.content) == ("execute", "stderr", "half\nwäy ☃\n")


def test_stream_and_stage_may_be_left_out(queue, db, held):
    """Also as nulls: it is standard output, of no stage in particular."""
    db.execute("select moonmind_queue.append_log(%s, %s, 'a')", [held.id, held.token])
    db.execute("select moonmind_queue.append_log(%s, %s, 'b', null, null)", [held.id, held.token])

    pieces = queue.read_log(held.id)
    assert [(each.content, each.stream, each.stage) for each in pieces] == [
        ("a", "stdout", ""),
        ("b", "stdout", ""),
    ]


@pytest.mark.parametrize("page", [1, 2, 100])
def test_pages_give_each_piece_exactly_once(queue, held, page):
    """Going on from the last position, other jobs' pieces in between."""
    queue.enqueue("k")
    [other] = queue.claim("w")
    for number in range(5):
        queue.append_log(held, f"{number}")
        queue.append_log(other, "other")

    told, after = [], 0
    while pieces := queue.read_log(held.id, after=after, limit=page):
        told += [piece.content for piece in pieces]
        after = pieces[-1].pos

    assert told == ["0", "1", "2", "3", "4"]


def test_who_reads_along_misses_nothing_that_is_not_committed_yet(here, session, blocked):
    """A later piece waits for an open earlier one, so no position appears behind a reader."""
    here.enqueue("k")
    [job] = here.claim("w")
    slow = session()
    Queue(slow).append_log(job, "slow")

    quick = blocked(lambda queue: queue.append_log(job, "quick"))
    during = here.read_log(job.id)
    slow.commit()
    quick.result()

    assert during == []
    assert [piece.content for piece in here.read_log(job.id)] == ["slow", "quick"]


@pytest.mark.parametrize(
    ("content", "options", "message"),
    [
        (None, {}, "not null"),
        ("x" * 262_145, {}, "not 262145"),
        ("x", {"stream": "stdin"}, "log_stream_is_known"),
        ("x", {"stage": "s" * 101}, "log_stage_is_short"),
    ],
)
def test_what_is_no_piece_of_a_log_is_refused(queue, db, held, content, options, message):
    """No content, too much of it, an unknown stream, a stage that is a novel; nothing is kept."""
    with pytest.raises(InvalidArgument, match=message), db.transaction():
        queue.append_log(held, content, **options)

    assert queue.read_log(held.id) == []


def test_a_piece_may_be_as_large_as_is_said(queue, held):
    """256 KiB, whatever they consist of."""
    queue.append_log(held, "☃" * 87_381)

    assert len(queue.read_log(held.id)[0].content) == 87_381


def test_what_cannot_be_stored_in_text_is_replaced(queue, held):
    """What a program prints is not always text."""
    queue.append_log(held, "a\0b\ud800c")

    assert queue.read_log(held.id)[0].content == "a\ufffdb?c"


def test_a_log_of_no_job_is_an_error(queue):
    """Not an empty log."""
    with pytest.raises(JobNotFound):
        queue.read_log(99)


def test_the_log_goes_with_its_job(queue, clock, held):
    """Pruning leaves nothing of it behind."""
    queue.append_log(held, "x")
    queue.complete(held, {})
    clock.advance(2 * HOUR)

    queue.prune(HOUR)

    assert queue.select("select * from moonmind_queue.job_log") == []
