"""Bad input on the command line: an exit code and a line that says why, never a traceback.

The commands and their parameters come from ``moonmind-queue`` itself. One is wrong at a time.
"""

import io
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import click
import pytest
from psycopg.sql import SQL, Identifier

from moonmind_queue import Queue
from moonmind_queue.cli import cli, main

# What a shell can pass: any bytes but NUL; those that are no UTF-8 arrive as lone surrogates.
WRONG = {
    "text": ["", " ", "\t", "\x01", "🦉" * 300, "x" * 100_000, "'; drop table job; --", "-1",
             "{", "[]", "null", '{"a": "\\u0000"}', "\udcff", "9" * 400, "--"],
    "integer": ["", "0", "-1", "1.5", "x", str(2**31), str(2**63), "9" * 400, "٣"],
    "float": ["", "-1", "x", "nan", "inf", "-inf", "1e400", "9" * 400, "\udcff"],
    "file": ["", "/", "-", "/nonexistent/file", "\udcff"],
    "choice": ["", " ", "x", "Agent", "-1", "\udcff"],
    "span": ["", " ", "0s", "-1s", "1", "1.5h", "h", "2h x", "99999d", "9" * 400 + "d",
             "9" * 5000 + "s", "soon", "\udcff"],
    "instant": ["", " ", "1", "now", "infinity", "0001-01-01", "0001-01-01T00:00+23:59",
                "9999-12-31T23:59-23:59", "2030-02-30", "2030-01-01T25:00", "9" * 400, "\udcff"],
    "names": ["", " ", ",,", "a,a", "\x01", "🦉" * 300, "x" * 100_000, "'; drop table job; --",
              ",".join(map(str, range(10_000))), "-1", "{a}", "\udcff", "--"],
    "token_count": ["", "0", "-1", "1.5", "k", "1e9", "0.0001k", "9" * 400 + "M", "٣", "\udcff"],
    "money": ["", "-1", "nan", "inf", "1e400", "1e-400", "9" * 400, "x", "\udcff"],
    "iso_day": ["", "0001-01-01", "9999-12-31", "2030-02-30", "20300131", "soon", "\udcff"],
    "boolean": [],
}  # fmt: skip
WRONG["integer range"] = WRONG["integer"]
WRONG["moment"] = WRONG["span"] + WRONG["instant"]
VALID = {
    "kind": "noop", "job": "1", "name": "log.txt", "names": "nightly", "schedule": "nightly",
    "cron": "0 2 * * *", "agent": "codex", "scope": "agent", "max_running": "3", "length": "1h",
    "base": "5s", "pattern": "no", "outcome": "fail", "source": "codex", "text": "no",
    "other": "1",
    "model": "gpt", "input": "1", "output": "2",
}  # fmt: skip
REQUIRED = {
    "prune": ["--older-than", "99d"],
    "usage budget set": ["--tokens", "5"],
    "role allow": ["--max-open", "1"],
}  # options that a command does not go without


def _commands(group: click.Group, *path: str) -> dict[str, tuple[list[str], click.Command]]:
    found = {}
    for name, command in group.commands.items():
        if isinstance(command, click.Group):
            found |= _commands(command, *path, name)
        else:
            found[" ".join([*path, name])] = [*path, name], command
    return found


# A server changes the process that it is; tests/mcp/test_transports.py has its bad input.
COMMANDS = {name: command for name, command in _commands(cli).items() if name != "mcp"}


@pytest.fixture(scope="module")
def queue(session) -> Queue:
    """A queue with a job that runs and has an artifact, and a schedule."""
    queue = Queue(session())
    queue.enqueue("noop")
    [job] = queue.claim("w", start=True)
    queue.put_artifact(job, VALID["name"], b"abc")
    queue.add_schedule(VALID["schedule"], VALID["cron"], {"kind": "noop"})
    return queue


@pytest.fixture(scope="module")
def desk(queue) -> Callable[[], Any]:
    """Gives all the rows of all tables, as one number each."""
    tables = queue.select(
        "select tablename from pg_tables where schemaname = 'moonmind_queue' order by 1"
    )
    rows = SQL(" union all ").join(
        SQL("select {}, hashtext(string_agg(t::text, '|' order by t::text)) from {} as t").format(
            each["tablename"], Identifier("moonmind_queue", each["tablename"])
        )
        for each in tables
    )  # which may be looked at in parallel, and come in any order
    return lambda: sorted(queue.connection.execute(rows).fetchall())


@pytest.mark.parametrize("name", COMMANDS)
def test_a_wrong_word_is_refused_in_one_line(
    queue, desk, proving, name, monkeypatch, tmp_path, capsys
):
    """0 and done, or 1, 2 or 3, words on standard error, and nothing written."""
    monkeypatch.setenv("DATABASE_URL", proving)
    monkeypatch.chdir(tmp_path)
    path, command = COMMANDS[name]
    before = desk()

    for parameter, wrong in _wrong(command):
        words = [*_options(name, parameter, wrong), *_arguments(command, parameter, wrong)]
        monkeypatch.setattr(sys, "argv", ["moonmind-queue", *path, *words])
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO()))
        case = f"{name} {words!r:.120}"
        with _no_login_stays(queue, words) as logins:
            code = _exit_code(case)
            said = capsys.readouterr().err
            case = f"{case}: {code}, {said!r:.300}"
            assert code in (0, 1, 2, 3), case
            assert "Traceback" not in said, case
            if code:
                assert said.strip(), case
                assert said.count("\n") == 1 or code == 2, case  # what click says has its usage
                assert desk() == before, case
                assert not logins(), case
            else:
                before = desk()


def _exit_code(case: str) -> int:
    try:
        with pytest.raises(SystemExit) as ended:
            main()
    except Exception as error:
        error.add_note(case)
        raise
    return int(ended.value.code or 0)


@contextmanager
def _no_login_stays(queue: Queue, words: list[str]) -> Iterator[Callable[[], set[str]]]:
    """Give the logins that words have named since, and drop them: they are the whole server's."""

    def named() -> set[str]:
        return {row["rolname"] for row in queue.select("select rolname from pg_roles")} & {*words}

    before = named()
    try:
        yield lambda: named() - before
    finally:
        for login in named() - before:
            queue.connection.execute(SQL("drop role {}").format(Identifier(login)))


def _wrong(command: click.Command) -> Iterator[tuple[click.Parameter, str]]:
    return (
        (parameter, wrong) for parameter in command.params for wrong in WRONG[parameter.type.name]
    )


def _options(name: str, parameter: click.Parameter, wrong: str) -> list[str]:
    given = [] if isinstance(parameter, click.Argument) else [parameter.opts[-1], wrong]
    return given or REQUIRED.get(name, [])


def _arguments(command: click.Command, parameter: click.Parameter, wrong: str) -> list[str]:
    return [
        wrong if argument is parameter else VALID[str(argument.name)]
        for argument in command.params
        if isinstance(argument, click.Argument)
    ]
