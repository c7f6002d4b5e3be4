"""The programs in the documents: Python runs; the SQL of other languages runs as they send it."""

import re
from dataclasses import fields
from pathlib import Path

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict
from sqlalchemy import URL

from moonmind_queue import Job

ROOT = Path(__file__).parents[2]
YOURS = re.compile(r"postgresql(\+psycopg)?://you@localhost/yours")
GIVEN = {"jsonb": '{"invoice": 1}', "text": "acme", "bigint": "1"}


def snippets(document, language):
    """The code blocks of one language in a document."""
    text = (ROOT / document).read_text()
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.M | re.S)


@pytest.fixture
def play(fresh):
    """Run a Python snippet of docs/python.md on the database of this test."""
    given = conninfo_to_dict(fresh)

    def url(driver):
        return URL.create(
            f"postgresql{driver or ''}",
            given["user"],
            given.get("password"),
            query={name: str(given[name]) for name in ("host", "port", "dbname") if name in given},
        ).render_as_string(hide_password=False)

    def run(code):
        names = {"__name__": "snippet"}
        exec(YOURS.sub(lambda m: url(m[1]), code), names)  # noqa: S102 - it is what the test is about
        if "engine" in names:  # ends with the program where a snippet is one
            names["engine"].dispose()

    return run


def test_the_python_guide_works(play, look, capsys):
    """Every block of docs/python.md runs, in order, and what it enqueues is there."""
    blocks = snippets("docs/python.md", "python")
    for block in blocks:
        play(block)

    assert len(blocks) == 5
    assert look("select name, key, state from moonmind_queue.job_overview order by id") == [
        (None, "report-1", "queued"),
        ("without it", None, "queued"),
        ("build", None, "queued"),
        ("test", None, "waiting"),
        (None, "nightly-2026-11-22", "queued"),
    ]
    assert capsys.readouterr().out.splitlines() == [
        "depends on unknown job 123456",
        *look("select format('%%s test waits for [%%s]', id, after[1])"
              " from moonmind_queue.job_overview where name = 'test'"),
        "queued",
    ]  # fmt: skip


@pytest.mark.parametrize("language", ["go", "typescript"])
def test_the_sql_of_other_languages_is_what_postgresql_takes(language, fresh):
    """Each statement is prepared as the driver does, untyped, and run with a value of each type."""
    [code] = snippets("docs/sql.md", language)
    statements = re.findall(r"`((?:select|insert)\b[^`]*)`", code)

    assert len(statements) == 2
    with psycopg.connect(fresh, autocommit=True) as connection:
        connection.execute(
            "create table invoice"
            " (id bigint generated always as identity primary key, customer text not null)"
        )
        for number, statement in enumerate(statements):
            connection.execute(f"prepare s{number} as {statement}")
            [types] = connection.execute(
                "select parameter_types::text[] from pg_prepared_statements where name = %s",
                [f"s{number}"],
            ).fetchone()
            values = ", ".join(f"'{GIVEN[each]}'" for each in types)
            [made] = connection.execute(f"execute s{number} ({values})").fetchone()

        assert types == ["jsonb", "text"]
        assert connection.execute(
            "select kind, key, payload from moonmind_queue.job_overview where id = %s", [made]
        ).fetchall() == [("send_invoice", "acme", {"invoice": 1})]


def test_the_table_of_members_is_the_json_of_a_job(fresh, look):
    """docs/sql.md lists exactly what a document has, and says which of it is in lists."""
    section = (ROOT / "docs" / "sql.md").read_text().partition("## A job as JSON")[2]
    rows = [row.split("|")[1:4] for row in re.findall(r"^\| `.*$", section, re.M)]
    listed = {name: yes.strip() for names, _, yes in rows for name in re.findall(r"`(\w+)`", names)}
    look("select moonmind_queue.enqueue('noop')")
    [(document, summary)] = look("select document, summary from moonmind_queue.job_document")

    assert list(listed) == [field.name for field in fields(Job)]
    assert set(document) == set(listed)
    assert set(summary) == {name for name, yes in listed.items() if yes == "yes"}
