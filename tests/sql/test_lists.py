"""list_jobs() and count_jobs(): pages by key, totals, and no payload on the way."""

from dataclasses import fields

import pytest

from moonmind_queue import JobState, JobSummary


@pytest.fixture
def jobs(queue):
    """Seven jobs: every second for claude, every third of kind b, the first one leased."""
    made = queue.enqueue_many(
        {
            "kind": "b" if n % 3 == 0 else "a",
            "agent": "claude" if n % 2 else "codex",
            "name": f"job {n}",
            "payload": {"big": "x" * 1000},
        }
        for n in range(7)
    )
    queue.claim("w", agents=["codex"], kinds=["b"])
    return made


@pytest.mark.parametrize("limit", [1, 2, 3, 100])
def test_pages_give_each_job_once_newest_first(queue, jobs, limit):
    """The last id of a page is where the next begins."""
    seen, before = [], None
    while page := queue.list_jobs(before=before, limit=limit):
        assert len(page) <= limit
        seen += [job.id for job in page]
        before = page[-1].id

    assert seen == jobs[::-1]


def test_jobs_that_come_between_two_pages_shift_nothing(queue, jobs):
    """New ones are above the key; the next page is the one that it would have been."""
    first = queue.list_jobs(limit=3)
    queue.enqueue_many([{"kind": "a"}] * 5)

    second = queue.list_jobs(before=first[-1].id, limit=3)

    assert [job.id for job in first + second] == jobs[:0:-1]


@pytest.mark.parametrize(
    ("states", "only", "places"),
    [
        ((), {}, [0, 1, 2, 3, 4, 5, 6]),
        ((), {"agent": "claude"}, [1, 3, 5]),
        ((), {"kind": "b"}, [0, 3, 6]),
        ((), {"agent": "claude", "kind": "b"}, [3]),
        (["running", "claimed"], {}, [0]),
        (["queued"], {"agent": "codex"}, [2, 4, 6]),
        (["failed"], {}, []),
        ((), {"agent": "nobody"}, []),
    ],
)
def test_a_total_counts_what_the_list_shows(queue, jobs, states, only, places):
    """The same filters give the same jobs and their number."""
    assert [job.id for job in queue.list_jobs(states, **only)] == [jobs[n] for n in places[::-1]]
    assert queue.count_jobs(states, **only) == len(places)


def test_a_line_says_how_the_job_stands_and_carries_no_payload(queue, jobs):
    """Neither payload nor result are read for a list."""
    first = queue.list_jobs()[-1]

    assert (first.state, first.worker, first.name) == (JobState.CLAIMED, "w", "job 0")
    assert not {"payload", "result"} & {field.name for field in fields(JobSummary)}
