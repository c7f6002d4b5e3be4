"""Promises between sql/, migrations/ and the package that need no database to check."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

import moonmind_queue
from moonmind_queue.errors import QueueError

ROOT = Path(__file__).parents[2]
PACKAGE = Path(moonmind_queue.__file__).parent
NOT_FUNCTIONS = {"schema", "views", "grants"}
SQL_FILES = {path.stem: path.read_text() for path in (ROOT / "sql").glob("*.sql")}
FUNCTIONS = {name: text for name, text in SQL_FILES.items() if name not in NOT_FUNCTIONS}
INLINED = {"_is_met", "_now", "_rank", "_rest_after", "_task_event", "_task_state"}
VIEWED = INLINED | {"_permits", "_token_cost"}  # what views call, anybody may call
PUBLIC = sorted(name for name in FUNCTIONS if not name.startswith("_"))
MODULES = sorted(PACKAGE.rglob("*.py"))


def test_every_sqlstate_has_an_error_type():
    """A code raised in SQL is a class in Python."""
    raised = {code for t in FUNCTIONS.values() for code in re.findall(r"errcode = '(MQ\d{3})'", t)}

    assert raised <= {cls.sqlstate for cls in QueueError.__subclasses__()}
    assert raised == {"MQ001", "MQ002", "MQ003", "MQ004", "MQ005"}


@pytest.mark.parametrize("name", sorted(FUNCTIONS))
def test_function_file_keeps_the_house_style(name):
    """One function per file, named as the file, with header, pinned path, comment, and short."""
    text = FUNCTIONS[name]

    assert re.findall(r"create or replace function (\S+?)\(", text) == [f"moonmind_queue.{name}"]
    assert text.startswith(f"-- {name}(")
    # What names nothing that could be replaced may leave it out, so that it can be inlined.
    assert "set search_path = moonmind_queue, pg_temp" in text or name in INLINED
    assert f"comment on function moonmind_queue.{name}(" in text
    assert len(text.splitlines()) <= 130


@pytest.mark.parametrize("name", PUBLIC)
def test_a_public_function_runs_with_its_owners_rights_and_is_granted(name):
    """Who may call a function stands in grants.sql; the caller needs no right on tables."""
    assert "security definer" in FUNCTIONS[name]
    assert f"moonmind_queue.{name}(" in SQL_FILES["grants"]


@pytest.mark.parametrize("name", sorted(set(FUNCTIONS) - set(PUBLIC) - VIEWED))
def test_an_internal_function_is_nobodys_to_call(name):
    """A name with an underscore is used by other functions only."""
    assert "security definer" not in FUNCTIONS[name]
    assert f"moonmind_queue.{name}(" not in SQL_FILES["grants"]
    assert not any(f"moonmind_queue.{name}(" in path.read_text() for path in MODULES)


def test_every_sql_function_but_one_chunk_of_plumbing_has_a_method():
    """The client has a method of the same name for each public function."""
    hidden = {"open_artifact", "append_artifact"}  # put_artifact() streams through these

    missing = {n for n in PUBLIC if not hasattr(moonmind_queue.Queue, n)} - hidden

    assert missing == set()


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_python_never_writes_tables(path):
    """Only SQL functions change rows; the package calls them and reads views."""
    writes = re.compile(r"^\s*(insert into|update\s+\w|delete from|truncate)\b", re.I)

    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            assert not writes.match(node.value), f"{path.name}:{node.lineno}"


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_a_module_can_be_read_in_one_sitting(path):
    """A module begins with a docstring and stays below 450 lines."""
    text = path.read_text()

    assert ast.get_docstring(ast.parse(text))
    assert len(text.splitlines()) <= 450


def test_public_names_are_sorted_and_exist():
    """__all__ is the public surface, in order."""
    assert moonmind_queue.__all__ == sorted(moonmind_queue.__all__)
    assert all(hasattr(moonmind_queue, name) for name in moonmind_queue.__all__)


def test_importing_the_client_is_light():
    """A producer loads neither SQLAlchemy nor Alembic, pydantic, rich, the worker or asyncio's."""
    heavy = (
        "{'sqlalchemy', 'alembic', 'pydantic', 'rich', 'structlog', 'cronsim',"
        " 'moonmind_queue.worker',"
        " 'moonmind_queue.aio', 'moonmind_queue.orm'}"
    )
    code = f"import sys, moonmind_queue; print(sorted({heavy} & set(sys.modules)))"

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert done.stdout.strip() == "[]"


def test_help_of_the_worker_loads_nothing_heavy():
    """moonmind-codex-worker --help is quick because it imports only what it needs."""
    heavy = "{'sqlalchemy', 'alembic', 'pydantic', 'rich', 'structlog'}"
    code = (
        "import sys, moonmind_queue.codex_worker.cli as c\n"
        "try: c.main(['--help'])\n"
        f"except SystemExit: print(sorted({heavy} & set(sys.modules)))"
    )

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert done.stdout.splitlines()[-1] == "[]"


def test_the_package_is_typed_and_its_modules_stand_where_the_specification_says():
    """py.typed is shipped; worker, handlers and cli of the Codex worker exist with the entities."""
    from moonmind_queue.codex_worker import cli, handlers, worker

    assert (PACKAGE / "py.typed").is_file()
    assert handlers.CodexExecJobPayload
    assert handlers.WorkerExecutionResult
    assert worker.CodexWorkerConfig
    assert cli.main


def test_nothing_kills_by_name():
    """No tool of the project ends processes by a pattern of their name."""
    places = [*(ROOT / "tools").rglob("*"), *MODULES, ROOT / "Makefile", ROOT / ".ci" / "run"]

    for path in places:
        if path.is_file() and path.suffix in ("", ".py", ".sh"):
            assert not re.search(r"\b(pkill|killall)\b", path.read_text()), path
