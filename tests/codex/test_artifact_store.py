"""A database that does not take artifacts: nothing is published twice, and no success is undone.

The refusals are PostgreSQL's own, by a trigger on the table of artifacts.
"""

from collections.abc import Callable
from typing import Any

import psycopg
import pytest
from publishing import Publishing

Refuse = Callable[..., None]

TRIGGER = """
create sequence moonmind_queue_test.refusals;
create function moonmind_queue_test.refuse() returns trigger language plpgsql as $$
begin
    if new.name like tg_argv[0] and nextval('moonmind_queue_test.refusals') <= tg_argv[1]::bigint
        and (tg_argv[3] = '' or exists (
            select from moonmind_queue.publication
            where job_id = new.job_id and step = tg_argv[3] and done_at is not null
        ))
    then
        if tg_argv[2] = 'gone' then
            perform pg_terminate_backend(pg_backend_pid());
            perform pg_sleep(10);
        end if;
        raise exception 'the test does not take it' using errcode = tg_argv[2];
    end if;
    return new;
end $$;
"""
ALWAYS = 10**6
PUBLISHED = {"pull_request": 1, "branches": 1}


@pytest.fixture
def refuse(publishing: Publishing, monkeypatch: pytest.MonkeyPatch) -> Refuse:
    """Let the database refuse artifacts of some names so many times, or only after a step."""
    monkeypatch.setattr("moonmind_queue._attempt.REFUSALS", (0.01, 0.01, 0.01))

    def begin(names: str, how: str, times: int = ALWAYS, *, after: str = "") -> None:
        with psycopg.connect(publishing.dsn) as connection:
            connection.execute("create schema if not exists moonmind_queue_test")
            connection.execute(TRIGGER)
            connection.execute(
                "create trigger refuse before insert on moonmind_queue.artifact for each row"
                " execute function moonmind_queue_test.refuse"
                f"('{names}', {times}, '{how}', '{after}')"
            )

    return begin


def accept(publishing: Publishing) -> None:
    """Let the database take all again."""
    with psycopg.connect(publishing.dsn) as connection:
        connection.execute("drop trigger refuse on moonmind_queue.artifact")


def published(publishing: Publishing) -> dict[str, int]:
    """Count what is published."""
    return {
        "pull_request": len(publishing.github.pull_requests),
        "branches": len(publishing.branches()),
    }


@pytest.mark.parametrize(
    ("names", "how", "times"), [("patches/%", "gone", 1), ("logs/%", "disk_full", 3)]
)
def test_an_upload_that_fails_for_a_while_is_tried_again(
    publishing: Publishing, refuse: Refuse, names: str, how: str, times: int
) -> None:
    """In the same attempt, whether the connection breaks or the server is full."""
    refuse(names, how, times)
    job = publishing.enqueue()
    publishing.work()

    done = publishing.queue.get(job)
    assert (done.state, done.attempt) == ("succeeded", 1), done.error
    assert "warnings" not in done.result
    assert published(publishing) == PUBLISHED


def test_nothing_is_published_before_its_patch_is_stored(
    publishing: Publishing, refuse: Refuse
) -> None:
    """The job is tried again, and then published once."""
    refuse("patches/%", "disk_full")
    job = publishing.enqueue()
    publishing.work()
    refused = publishing.queue.get(job)
    assert (refused.state, refused.error) == (
        "queued",
        "patches/changes.patch could not be stored: the test does not take it",
    )
    assert published(publishing) == {"pull_request": 0, "branches": 0}

    accept(publishing)
    publishing.queue.retry(job)
    publishing.work()

    done = publishing.queue.get(job)
    assert (done.state, done.attempt) == ("succeeded", 2), done.error
    assert published(publishing) == PUBLISHED


def test_what_is_published_stays_a_success_whatever_is_refused_then(
    publishing: Publishing, refuse: Refuse
) -> None:
    """The result says which artifacts are missing."""
    refuse("%", "disk_full", after="pull_request")
    job = publishing.enqueue()
    publishing.work()

    done = publishing.queue.get(job)
    assert (done.state, done.attempt) == ("succeeded", 1), done.error
    assert done.result["artifacts"] == ["patches/changes.patch"]
    assert done.result["warnings"] == [
        f"{name} could not be stored: the test does not take it"
        for name in ("logs/codex_exec.log", "logs/codex_events.jsonl", "last_message.md")
    ]
    assert published(publishing) == PUBLISHED


def test_who_goes_on_with_publishing_needs_no_second_copy_of_the_patch(
    publishing: Publishing, refuse: Refuse
) -> None:
    """It is in the first attempt, which began to publish: the job ends well, once."""
    job = publishing.enqueue()
    publishing.die(10)  # the push is done, and nobody knows
    publishing.queue.unlock(job, force=True)
    refuse("%", "disk_full")
    publishing.work()

    done = publishing.queue.get(job)
    assert done.state == "succeeded", done.error
    assert done.result["artifacts"] == []
    assert "patches/changes.patch could not be stored" in done.result["warnings"][0]
    assert published(publishing) == PUBLISHED


def test_a_store_that_is_closed_to_the_worker_is_for_a_person(
    publishing: Publishing, refuse: Refuse
) -> None:
    """The agent is not paid again for what would be refused again; nothing is published."""
    refuse("patches/%", "insufficient_privilege")
    job = publishing.enqueue()
    publishing.work()

    refused: Any = publishing.queue.get(job)
    assert refused.state == "blocked"
    assert "patches/changes.patch could not be stored" in refused.error
    assert published(publishing) == {"pull_request": 0, "branches": 0}
