"""Bad input on the command line: an exit code and a line that says why, never a traceback.

The commands and their parameters come from ``moonmind-queue`` itself. One is wrong at a time.
"""

import sys
from collections.abc import Callable
from typing import Any

import click
import pytest
from invariants import look

from moonmind_queue import Queue
from moonmind_queue.cli import cli, main

# What a shell can pass: any bytes but NUL; those that are no UTF-8 arrive as lone surrogates.
WRONG = {
    "text": ["", " ", "\t", "\x01", "🦉" * 300, "x" * 100_000, "'; drop table job; --", "-1",
             "{", "[]", "null", '{"a": "\\u0000"}', "\udcff", "9" * 400, "--"],
    "integer": ["", "0", "-1", "1.5", "x", str(2**31), str(2**63), "9" * 400, "٣"],
    "file": ["", "/", "/nonexistent/file", "\udcff"],
    "boolean": [],
}  # fmt: skip
WRONG["integer range"] = WRONG["integer"]
VALID = {"kind": "noop", "job": "1", "name": "log.txt"}


def _commands(group: click.Group, *path: str) -> dict[str, tuple[list[str], click.Command]]:
    found = {}
    for name, command in group.commands.items():
        if isinstance(command, click.Group):
            found |= _commands(command, *path, name)
        else:
            found[" ".join([*path, name])] = [*path, name], command
    return found


COMMANDS = _commands(cli)


@pytest.fixture(scope="module")
def desk(session, proving) -> Callable[[], Any]:
    """A queue with a job that runs and has an artifact; gives all its rows."""
    queue = Queue(session())
    queue.enqueue("noop")
    [job] = queue.claim("w", start=True)
    queue.put_artifact(job, VALID["name"], b"abc")
    return lambda: look(queue.connection)


@pytest.mark.parametrize("name", COMMANDS)
def test_a_wrong_word_is_refused_in_one_line(desk, proving, name, monkeypatch, tmp_path, capsys):
    """0 and done, or 1, 2 or 3, words on standard error, and nothing written."""
    monkeypatch.setenv("DATABASE_URL", proving)
    monkeypatch.chdir(tmp_path)
    path, command = COMMANDS[name]

    for parameter in command.params:
        for wrong in WRONG[parameter.type.name]:
            words = [
                wrong if argument is parameter else VALID[str(argument.name)]
                for argument in command.params
                if argument.param_type_name == "argument"
            ]
            option = [] if parameter.param_type_name == "argument" else [parameter.opts[-1], wrong]
            monkeypatch.setattr(sys, "argv", ["moonmind-queue", *path, *option, *words])
            before = desk()
            with pytest.raises(SystemExit) as ended:
                main()
            said = capsys.readouterr()
            case = f"{name} {[*option, *words]!r:.120}: {ended.value.code}, {said.err!r:.300}"
            assert ended.value.code in (None, 0, 1, 2, 3), case
            if ended.value.code:
                assert said.err.strip(), case
                assert "Traceback" not in said.err, case
                assert desk() == before, case
