"""The shape of a job in JSON: one for SQL, Python and the command line."""

import json
import os
import re
import subprocess
import sys
from dataclasses import fields
from datetime import datetime
from pathlib import Path

import psycopg
import pytest

from moonmind_queue import Job, connect

ROOT = Path(__file__).parents[2]
INSTANT = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z"


@pytest.fixture(params=["UTC", "America/St_Johns"])
def zone(request) -> str:
    """The time zone of whoever asks: it makes no difference."""
    return request.param


@pytest.fixture
def run(lived, zone):
    """Run the installed command with the time zone and give what it prints."""

    def command(*arguments: str):
        done = subprocess.run(
            [sys.executable, "-m", "moonmind_queue", *arguments],
            env={**os.environ, "DATABASE_URL": lived, "PGTZ": zone},
            capture_output=True,
            text=True,
            check=True,
        )
        return json.loads(done.stdout)

    return command


@pytest.fixture
def jobs(lived) -> list[Job]:
    """Every job of a queue in which everything has happened, newest first."""
    with connect(lived) as queue:
        ids = queue.select("select id from moonmind_queue.job_overview order by id desc")
        return [queue.get(row["id"]) for row in ids]


def through_json(value):
    """What a reader of the JSON gets."""
    return json.loads(json.dumps(value))


def test_sql_python_and_the_command_line_say_the_same(lived, zone, jobs, run):
    """job_document, Job.to_json() and show --json, for jobs in every state."""
    with psycopg.connect(lived, options=f"-c timezone={zone}") as connection:
        documents = connection.execute(
            "select document from moonmind_queue.job_document order by id desc"
        ).fetchall()

    assert {job.state for job in jobs} >= {"waiting", "queued", "claimed", "blocked", "succeeded"}
    assert [through_json(job.to_json()) for job in jobs] == [row[0] for row in documents]
    done = next(job for job in jobs if job.key == "done")
    assert run("show", str(done.id), "--json") == through_json(done.to_json())


def test_lists_say_the_same_and_carry_no_payload(lived, jobs, run):
    """job_document.summary, Job.summary() and ls --json are the document less payload, result."""
    listed = run("ls", "--json")

    assert listed == [through_json(job.summary()) for job in jobs]
    for job, summary in zip(jobs, listed, strict=True):
        whole = {"payload": job.payload, "result": job.result, **summary}
        assert whole == through_json(job.to_json())


def test_every_field_of_a_job_is_in_it(jobs, look):
    """A column that is added to job_overview is missed until the document and Job have it."""
    columns = look(
        "select attname from pg_attribute"
        " where attrelid = 'moonmind_queue.job_overview'::regclass and attnum > 0 order by attnum"
    )
    [members] = look(
        "select array_agg(m) from (select document from moonmind_queue.job_document limit 1) d,"
        " jsonb_object_keys(document) m"
    )

    assert [field.name for field in fields(Job)] == columns
    assert sorted(members) == sorted(columns)


def test_instants_are_utc_to_the_microsecond(jobs):
    """The form does not change with the value: it sorts as text and reads back exactly."""
    for job in jobs:
        document = job.to_json()
        for field in fields(Job):
            value = getattr(job, field.name)
            if isinstance(value, datetime):
                assert re.fullmatch(INSTANT, document[field.name])
                assert datetime.fromisoformat(document[field.name]) == value
