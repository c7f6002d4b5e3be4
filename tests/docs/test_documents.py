"""The documents tell the truth: their commands work and print what stands there."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from local_postgres import find_binaries

ROOT = Path(__file__).parents[2]
BLOCK = re.compile(r"^```console\n(.*?)^```$", re.M | re.S)
TERMINAL = "> "


def commands(document: Path) -> list[tuple[str, str]]:
    """Return each command of a document's console blocks with the output shown below it."""
    found: list[tuple[str, str]] = []
    for block in BLOCK.findall(document.read_text()):
        for entry in re.split(r"^\$ ", block, flags=re.M)[1:]:
            first, *rest = entry.splitlines()
            more = [line for line in rest if line.startswith(TERMINAL)]
            command = "\n".join([first, *(line.removeprefix(TERMINAL) for line in more)])
            found.append((command, "\n".join(rest[len(more) :])))
    return found


def plain(text: str) -> str:
    """Return text without what differs from run to run: numbers, and widths that follow them."""
    text = re.sub(r"\x1b\[[0-9;]*m", "", text)
    return " ".join(re.sub(r"\d+(\.\d+)?", "N", re.sub(r"-{3,}", "", text)).split())


@pytest.fixture
def environment(fresh: str, tmp_path: Path) -> dict[str, str]:
    """What a reader has set up: a database and the commands on PATH."""
    path = [str(Path(sys.executable).parent), os.environ["PATH"], str(find_binaries()[0])]
    return {
        "PATH": os.pathsep.join(path),
        "HOME": str(tmp_path),
        "LANG": "C.UTF-8",
        "PSQLRC": os.devnull,
        "DATABASE_URL": fresh,
        "MOONMIND_WORKDIR": str(tmp_path / "work"),
    }


@pytest.fixture
def forget_roles(server: str) -> Iterator[None]:
    """Drop the role that a document makes: roles outlive their database."""
    yield
    with psycopg.connect(server, autocommit=True) as admin:
        admin.execute("drop role if exists site_ci")


def test_commands_print_what_the_document_shows(forget_roles, environment, tmp_path):
    """Every command of docs/sql.md runs in order on one database and prints what stands there."""
    for command, shown in commands(ROOT / "docs" / "sql.md"):
        done = subprocess.run(
            ["bash", "-c", command],
            env=environment,
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
        )

        assert done.returncode == 0, f"{command}\n{done.stderr}"
        assert plain(done.stdout + done.stderr) == plain(shown), command
