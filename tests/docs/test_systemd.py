"""docs/examples for systemd: the unit starts what is there, with settings that there are."""

import re
import subprocess
import tomllib
from pathlib import Path

import pytest
from pydantic import AliasChoices

from moonmind_queue import worker
from moonmind_queue.settings import Settings

ROOT = Path(__file__).parents[2]
UNIT = ROOT / "docs" / "examples" / "moonmind-codex-worker@.service"
FILE = ROOT / "docs" / "examples" / "worker.env"
# With the first four Codex's sandbox was seen to fail; the last is for programs without a compiler
# in them, and agents run Node.
HARMFUL = {
    "ProcSubset", "RestrictAddressFamilies", "RestrictNamespaces", "SystemCallFilter",
    "MemoryDenyWriteExecute",
}  # fmt: skip


def directives():
    """Each line of the unit that sets something, as (name, value)."""
    return re.findall(r"^(\w+)=(.*)$", UNIT.read_text(), re.M)


def values(name):
    """What a directive is set to, line by line."""
    return [value for each, value in directives() if each == name]


def environment():
    """The variables of the file as systemd reads it: a line each, comments and empty ones aside."""
    return dict(re.findall(r"^(\w+)=(.*)$", FILE.read_text(), re.M))


def variables():
    """Every name under which a setting is read."""
    for field in Settings.model_fields.values():
        given = field.validation_alias
        yield from given.choices if isinstance(given, AliasChoices) else [given]


def test_the_unit_starts_a_program_of_the_package():
    """Under the name that pip installs it by, without an option that it does not know."""
    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]

    [start] = values("ExecStart")
    assert Path(start).name in scripts
    assert Path(start).is_absolute()


def test_every_variable_is_read_by_somebody():
    """None is misspelt or gone: it is one of the settings, or one that the worker looks up."""
    looked_up = "\n".join(each.read_text() for each in (ROOT / "moonmind_queue").rglob("*.py"))
    named = [*environment(), *(each.partition("=")[0] for each in values("Environment"))]

    assert len(named) == 7
    for name in named:
        assert name in {*variables()} or f'"{name}"' in looked_up, name


def test_the_settings_of_the_example_are_accepted(monkeypatch):
    """As it stands the file is complete; all that is to be put in are secrets."""
    for name, value in environment().items():
        monkeypatch.setenv(name, value)

    settings = Settings.load()
    assert settings.git_user_name == "Build agents"


def test_a_stop_is_as_patient_as_a_worker_is_slow():
    """SIGTERM is for the worker alone, which gets more time than it ever takes to end."""
    [patience] = values("TimeoutStopSec")

    assert values("KillMode") == ["mixed"]
    assert int(patience.removesuffix("s")) >= 2 * worker.DEADLINE
    assert "KillSignal" not in dict(directives())


def test_a_worker_comes_back_for_as_long_as_it_takes():
    """However it ended, and however often: a database that is away for a night is no reason."""
    assert values("Restart") == ["always"]
    assert values("StartLimitIntervalSec") == ["0"]


def test_nothing_is_set_that_breaks_the_sandbox_of_codex():
    """What hardens other services takes from Codex what it makes its sandbox of."""
    assert not HARMFUL.intersection(dict(directives()))


def test_the_documents_install_what_is_there():
    """The names in docs/operations.md are those of the files and of the unit."""
    text = (ROOT / "docs" / "operations.md").read_text()
    [program], files = values("ExecStart"), values("EnvironmentFile")

    assert f"docs/examples/{UNIT.name}" in text
    assert f"docs/examples/{FILE.name} {files[0]}" in text
    assert files[1].removeprefix("-") == "/etc/moonmind/worker-%i.env"
    assert program in text
    assert (
        f"useradd --system --create-home --home-dir /var/lib/{values('StateDirectory')[0]}" in text
    )


def test_systemd_finds_no_fault(tmp_path, systemd):
    """Every directive is known to systemd, in its section and with a value that it takes."""
    copy = tmp_path / UNIT.name.replace("@", "@one")
    [program] = values("ExecStart")
    copy.write_text(UNIT.read_text().replace(program, "/bin/true"))

    done = subprocess.run(
        [systemd, "verify", str(copy)], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


@pytest.mark.parametrize(
    ("line", "said"),
    [("KillMode=most", "most"), ("RestartSecs=1", "RestartSecs")],
)
def test_systemd_would_find_one(tmp_path, systemd, line, said):
    """The check above can fail."""
    copy = tmp_path / "faulty.service"
    copy.write_text(f"[Service]\nExecStart=/bin/true\n{line}\n")

    done = subprocess.run(
        [systemd, "verify", str(copy)], capture_output=True, text=True, check=False
    )
    assert said in done.stderr
