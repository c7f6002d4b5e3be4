"""The documents tell the truth: their commands work and print what stands there."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import demo
import mutants
import psycopg
import pytest
from git_server import GitServer
from local_postgres import find_binaries
from model_server import ModelServer, make_codex_home

import moonmind_queue
from moonmind_queue import JobState

ROOT = Path(__file__).parents[2]
PACKAGE = Path(moonmind_queue.__file__).parent  # elsewhere when it is installed
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
        admin.execute("drop role if exists site_ci, docs_ci, follow_agents")


def check(document: str, environment: dict[str, str], directory: Path) -> None:
    """Run a document's commands in order and compare what they print with what it shows."""
    for command, shown in commands(ROOT / document):
        done = subprocess.run(
            ["bash", "-c", command],
            env=environment,
            cwd=directory,
            capture_output=True,
            text=True,
            check=False,
        )

        assert done.returncode == 0, f"{command}\n{done.stderr}"
        assert plain(done.stdout + done.stderr) == plain(shown), command


def test_the_sql_guide_shows_what_happens(forget_roles, environment, tmp_path):
    """Every command of docs/sql.md runs in order on one database and prints what stands there."""
    check("docs/sql.md", environment, tmp_path)


def test_the_guide_to_schedules_shows_what_happens(environment, tmp_path, monkeypatch, look):
    """Every command of docs/schedules.md prints what stands there; its Python works."""
    monkeypatch.setenv("DATABASE_URL", environment["DATABASE_URL"])
    text = (ROOT / "docs" / "schedules.md").read_text()
    [snippet] = re.findall(r"^```python\n(.*?)^```$", text, re.M | re.S)

    check("docs/schedules.md", environment, tmp_path)
    exec(snippet, {})  # noqa: S102 - it is what the test is about

    assert look("select name, catch_up from moonmind_queue.schedule_overview order by name") == [
        ("monday", "skip"),
        ("weekly", "once"),
        ("wrong", "once"),
    ]


def test_the_guide_to_agentmux_shows_what_happens(environment, tmp_path):
    """Its file is seeded and its commands run in order, on one database, in one directory."""
    text = (ROOT / "docs" / "agentmux.md").read_text()
    [graph] = re.findall(r"^```yaml\n# agentmux/dag.yaml\n(.*?)^```$", text, re.M | re.S)
    (tmp_path / "agentmux").mkdir()
    (tmp_path / "agentmux" / "dag.yaml").write_text(graph)

    check("docs/agentmux.md", environment, tmp_path)


def test_the_operations_guide_shows_what_happens(forget_roles, environment, tmp_path):
    """Every command of docs/operations.md runs in order and prints what stands there."""
    check("docs/operations.md", environment, tmp_path)


def test_the_retention_guide_shows_what_happens(environment, tmp_path):
    """Every command of docs/retention.md runs in order on one database."""
    check("docs/retention.md", environment, tmp_path)


def test_the_guide_to_shell_jobs_shows_what_happens(environment, tmp_path):
    """Every command of docs/shell.md runs in order on one database and prints what stands there."""
    check("docs/shell.md", environment, tmp_path)


def test_the_guide_to_codex_jobs_shows_what_happens(environment, tmp_path):
    """Every command of docs/codex.md runs in order on one database and prints what stands there."""
    check("docs/codex.md", environment, tmp_path)


def test_the_guide_to_failures_shows_what_happens_and_every_rule(environment, tmp_path, queue):
    """Every command of docs/failures.md prints what stands there; its table is the database's."""
    check("docs/failures.md", environment, tmp_path)

    rows = queue.select(
        "select name, source, outcome from moonmind_queue.failure_overview order by place, name"
    )
    text = (ROOT / "docs" / "failures.md").read_text()
    listed = re.findall(r"^\| `(\w+)` \| (\w+) \| (\w+)", text, re.M)
    assert listed == [(row["name"], row["source"], row["outcome"]) for row in rows]


def test_the_guide_to_usage_shows_what_happens(environment, tmp_path):
    """Every command of docs/usage.md runs in order on one database and prints what stands there."""
    check("docs/usage.md", environment, tmp_path)


def test_the_guide_to_follow_ups_shows_what_happens(forget_roles, environment, tmp_path):
    """Its template is a file beside, and its commands run in order on one database."""
    text = (ROOT / "docs" / "follow-up.md").read_text()
    [template] = re.findall(r"^```yaml\n# fix.yaml\n(.*?)^```$", text, re.M | re.S)
    (tmp_path / "fix.yaml").write_text(template)

    check("docs/follow-up.md", environment, tmp_path)


def test_the_first_job_of_the_readme_works(environment, create_database, tmp_path):
    """README's first job runs with the real Codex CLI; GitHub and the model are stand-ins."""
    (tmp_path / "stage").mkdir()
    stage = demo.Stage(tmp_path / "stage", demo.clean_environment(real=False))
    served = demo.make_repository(stage)
    codex = demo.find_codex(real=False)
    with GitServer(served) as git, ModelServer(demo.SCRIPT) as model:
        (tmp_path / ".gitconfig").write_text(
            f'[url "{git.url("demo.git")}"]\n\tinsteadOf = https://github.com/acme/site.git\n'
        )
        environment |= {
            "DATABASE_URL": create_database(),
            "CODEX_HOME": str(make_codex_home(tmp_path / "codex", model.base_url, codex)),
            "MOONMIND_CODEX": codex,
        }
        check("README.md", environment, tmp_path)


def test_the_python_of_the_readme_works(fresh, monkeypatch, look):
    """README's snippet enqueues two jobs, the second after the first, in one transaction."""
    monkeypatch.setenv("DATABASE_URL", fresh)
    [snippet] = re.findall(r"^```python\n(.*?)^```$", (ROOT / "README.md").read_text(), re.M | re.S)

    exec(snippet, {})  # noqa: S102 - it is what the test is about

    assert look("select name, state from moonmind_queue.job_overview order by id") == [
        ("build", "queued"),
        ("test", "waiting"),
    ]


def test_the_proof_document_lists_every_mutant():
    """The table of docs/proof.md is what tools/mutants.py prints."""
    assert mutants.table() in (ROOT / "docs" / "proof.md").read_text()
    assert len(mutants.mutants()) >= 25
    for mutant in mutants.mutants():
        place = PACKAGE.parent if mutant.file.startswith("moonmind_queue/") else ROOT
        assert (place / mutant.file).read_text().count(mutant.before) == 1, mutant.fault
        assert all((ROOT / test).is_file() for test in mutant.tests), mutant.fault


def test_the_states_document_knows_every_state_and_event():
    """docs/states.md names exactly the states of the model and the events that functions write."""
    text = (ROOT / "docs" / "states.md").read_text()
    table = text.partition("## Transitions")[2].partition("Besides these")[0]
    own = re.search(
        r"v_own\s+constant text\[\] := '\{(.*?)\}'", (ROOT / "sql/append_event.sql").read_text()
    )
    assert own

    states = re.findall(r"^\| `(\w+)` \|", text, re.M)
    events = {
        name
        for row in table.splitlines()[3:]
        for name in re.findall(r"`(\w+)`", row.split("|")[4] if row.count("|") > 4 else "")
    }

    assert states == list(JobState)
    assert events == set(own[1].split(",")) - {"artifact"}
