"""append_event(): the holder of a job adds to its history, and everybody can follow it."""

import pytest

from moonmind_queue import Queue
from moonmind_queue.errors import InvalidArgument

OWN = [
    "created",
    "ready",
    "waiting",
    "claimed",
    "started",
    "completed",
    "failed",
    "released",
    "expired",
    "cancel_requested",
    "cancelled",
    "blocked",
    "dead_lettered",
    "retried",
    "unlocked",
    "timed_out",
    "repaired",
    "scheduled",
    "artifact",
    "updated",
    "removed",
    "published",
    "said",
    "overspent",
]


@pytest.fixture
def held(queue):
    """A job that a worker runs; its history has three events."""
    queue.enqueue("k")
    [job] = queue.claim("w", start=True)
    return job


def test_an_event_comes_back_as_it_was_given(queue, held, clock):
    """Type, level, message and data survive the way there and back; the worker is the holder."""
    data = {"n": [1, 2.5, None, True], "ü": {"é": "☃"}}

    seq = queue.append_event(held, "progress", "half\nwäy ☃", level="debug", data=data)

    event = queue.history(held.id)[-1]
    assert (event.job_id, event.seq, event.type) == (held.id, seq, "progress")
    assert (event.level, event.message, event.data) == ("debug", "half\nwäy ☃", data)
    assert (event.worker, event.at) == ("w", clock.now)


def test_only_the_type_must_be_given(queue, db, held):
    """An event is of level info, without words and without data."""
    db.execute("select moonmind_queue.append_event(%s, %s, 'progress')", [held.id, held.token])

    event = queue.history(held.id)[-1]
    assert (event.level, event.message, event.data) == ("info", "", None)


def test_null_is_the_default(queue, db, held):
    """Whoever has nothing to say may pass null."""
    db.execute(
        "select moonmind_queue.append_event(%s, %s, 'progress', null, null, null)",
        [held.id, held.token],
    )

    event = queue.history(held.id)[-1]
    assert (event.level, event.message, event.data) == ("info", "", None)


def test_numbers_go_on_where_the_history_was(queue, held, types):
    """The answer is the number of the event, one above the last."""
    seqs = [queue.append_event(held, "progress") for _ in range(3)]

    assert seqs == [4, 5, 6]
    assert types(queue, held.id) == ["created", "claimed", "started", *["progress"] * 3]


def test_a_claimed_job_may_speak_before_it_runs(queue):
    """Holding the lease is enough."""
    queue.enqueue("k")
    [job] = queue.claim("w")

    assert queue.append_event(job, "preparing") == 3


@pytest.mark.parametrize("level", ["debug", "info", "warn", "error"])
def test_every_level_is_kept(queue, held, level):
    """There are four."""
    queue.append_event(held, "progress", level=level)

    assert queue.history(held.id)[-1].level == level


@pytest.mark.parametrize("level", ["", "INFO", "warning", "fatal"])
def test_an_unknown_level_is_refused(queue, db, held, refused, picture, level):
    """23514, and nothing is written."""
    before = picture(db)

    with refused("23514"):
        queue.append_event(held, "progress", level=level)

    assert picture(db) == before


@pytest.mark.parametrize("word", ["a", "progress", "tool_call", "a" + "_" * 62])
def test_a_type_is_a_lower_case_word(queue, held, word):
    """Letters and underscores, up to 63 of them, a letter first."""
    queue.append_event(held, word)

    assert queue.history(held.id)[-1].type == word


@pytest.mark.parametrize(
    "word", [None, "", "Progress", "two words", "a-b", "_a", "a1", "ä", "a\n", "a" * 64], ids=repr
)
def test_another_type_is_refused(queue, db, held, refused, picture, word):
    """22023, and nothing is written."""
    before = picture(db)

    with refused("22023", "lower-case word"):
        queue.append_event(held, word)

    assert picture(db) == before


@pytest.mark.parametrize("word", OWN)
def test_the_words_of_the_queue_are_refused(queue, db, held, refused, picture, word):
    """A holder cannot make up a transition that did not happen."""
    before = picture(db)

    with refused("22023", "does not use itself"):
        queue.append_event(held, word)

    assert picture(db) == before


def test_no_word_of_the_queue_is_forgotten(db):
    """Every type that a function writes is one of those that are refused."""
    written = db.execute(
        r"""
        select distinct coalesce(hit[1], hit[2], hit[3])
        from pg_proc
        join pg_namespace on pg_namespace.oid = pronamespace and nspname = 'moonmind_queue',
             regexp_matches(
                 prosrc,
                 $$_log\([^,]+, '(\w+)'|_end\([^;]*?, '(\w+)', '(?:info|warn|error)'$$
                 || $$|_now, '(\w+)'$$,
                 'g'
             ) as hit
        """
    ).fetchall()

    assert {word for (word,) in written} <= set(OWN)
    assert len(written) > 10


@pytest.mark.parametrize("message", ["x" * 65536, "é" * 32768], ids=["letters", "bytes"])
def test_a_message_of_64_kib_is_kept(queue, held, message):
    """The limit counts bytes and is itself allowed."""
    queue.append_event(held, "progress", message)

    assert queue.history(held.id)[-1].message == message


@pytest.mark.parametrize(
    "event",
    [
        {"message": "x" * 65537},
        {"message": "é" * 32768 + "x"},
        {"data": {"x": "y" * 262144}},
        {"data": {str(n): "y" * 26 for n in range(9000)}},
    ],
    ids=["message", "message in bytes", "data", "many small data"],
)
def test_more_is_refused(queue, db, held, refused, picture, event):
    """22023: history is for facts, artifacts are for files."""
    before = picture(db)

    with refused("22023", "at most 64 KiB of message and 256 KiB of data"):
        queue.append_event(held, "log", **event)

    assert picture(db) == before


def test_data_of_almost_256_kib_is_kept(queue, held):
    """The limit counts what is stored, with some bytes of its own."""
    queue.append_event(held, "progress", data={"x": "y" * 262000})

    assert len(queue.history(held.id)[-1].data["x"]) == 262000


def test_what_cannot_be_stored_in_text_is_replaced(queue, held):
    """NUL and halves of surrogate pairs, in message and data, do not lose the event."""
    queue.append_event(held, "log", "a\0b\ud800c", data={"k\0": ["\0", "\udfff"]})

    event = queue.history(held.id)[-1]
    assert event.message == "a\ufffdb?c"
    assert event.data == {"k\ufffd": ["\ufffd", "?"]}


def test_an_event_that_is_rolled_back_takes_no_number(here, session, types):
    """Numbers have no gaps, whatever fails."""
    here.enqueue("k")
    [job] = here.claim("w")
    gives_up = session()
    Queue(gives_up).append_event(job, "progress")

    gives_up.rollback()

    assert here.append_event(job, "progress") == 3
    assert types(here, job.id) == ["created", "claimed", "progress"]


def test_eight_sessions_write_one_history_without_gaps(here, session, threads, types):
    """Two hundred events of one job, written at once, have 200 numbers in a row."""
    here.enqueue("k")
    [job] = here.claim("w")
    writers = [Queue(session(autocommit=True)) for _ in range(8)]

    def write(writer):
        return [writer.append_event(job, "progress") for _ in range(25)]

    seqs = [seq for done in threads.map(write, writers) for seq in done]

    assert sorted(seqs) == list(range(3, 203))
    assert len(types(here, job.id)) == 202


# --- following ---------------------------------------------------------------------------------


@pytest.mark.parametrize("page", [1, 3, 7, 1000])
def test_pages_give_each_event_exactly_once(queue, held, page):
    """With the number of the last event seen, the next page begins right behind it."""
    for n in range(10):
        queue.append_event(held, "progress", str(n))

    seen, after = [], 0
    while events := queue.history(held.id, after=after, limit=page):
        assert len(events) <= page
        seen += events
        after = events[-1].seq

    assert [event.seq for event in seen] == list(range(1, 14))
    assert seen == queue.history(held.id)


def test_who_follows_a_job_misses_nothing_that_is_not_committed_yet(here, session, blocked):
    """A later event waits for an open earlier one, so no number appears behind a cursor."""
    here.enqueue("k")
    [job] = here.claim("w")
    slow = session()
    Queue(slow).append_event(job, "progress", "slow")

    quick = blocked(lambda queue: queue.append_event(job, "progress", "quick"))
    during = here.history(job.id, after=2)
    slow.commit()
    quick.result()

    assert during == []
    assert [event.message for event in here.history(job.id, after=2)] == ["slow", "quick"]


def test_at_the_end_there_is_nothing_more(queue, held):
    """A cursor at or behind the last event gives an empty page, and so does a limit of 0."""
    assert queue.history(held.id, after=3) == []
    assert queue.history(held.id, after=2**60) == []
    assert queue.history(held.id, limit=0) == []


def test_a_negative_limit_is_refused(queue, db, held):
    """In words and as a typed error."""
    with pytest.raises(InvalidArgument, match="LIMIT must not be negative"), db.transaction():
        queue.history(held.id, limit=-1)


def test_events_of_other_jobs_are_not_mixed_in(queue, held):
    """A history is of one job."""
    other = queue.enqueue("k")
    queue.append_event(held, "progress")

    assert [event.type for event in queue.history(other)] == ["created"]
