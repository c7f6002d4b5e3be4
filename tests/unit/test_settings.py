"""Settings: defaults, aliases, and errors that name the variable and echo nothing."""

import socket
from pathlib import Path

import pytest

from moonmind_queue.errors import SettingsError
from moonmind_queue.settings import Settings, describe


@pytest.fixture(autouse=True)
def environment(monkeypatch):
    """Nothing set but the database."""
    for row in describe({}):
        monkeypatch.delenv(row["variable"], raising=False)
    for alias in ("CODEX_MODEL", "CODEX_MODEL_REASONING_EFFORT", "MODEL_REASONING_EFFORT"):
        monkeypatch.delenv(alias, raising=False)
    monkeypatch.setenv("DATABASE_URL", "postgresql://someone:hunter2secret@host/database")
    return monkeypatch


def test_defaults_are_those_of_the_specification():
    """Poll 1500 ms, lease 120 s, hostname, var/worker: nothing but the database must be set."""
    settings = Settings.load()

    assert (settings.poll_interval_ms, settings.lease_seconds) == (1500, 120)
    assert settings.worker_id == socket.gethostname()
    assert settings.workdir == Path("var/worker").absolute()
    assert (settings.codex_sandbox_mode, settings.run_timeout_seconds) == ("workspace-write", 3600)
    assert settings.artifact_max_bytes == 10 * 1024 * 1024


@pytest.mark.parametrize("blank", ["", "   "])
def test_a_blank_worker_id_is_the_hostname(environment, blank):
    """An identity of blanks is no identity."""
    environment.setenv("MOONMIND_WORKER_ID", blank)

    assert Settings.load().worker_id == socket.gethostname()


def test_an_empty_variable_never_hides_its_alias(environment):
    """The first variable that is filled wins, not the first that is present."""
    environment.setenv("MOONMIND_CODEX_MODEL", "")
    environment.setenv("CODEX_MODEL", "gpt-5.5")

    assert Settings.load().codex_model == "gpt-5.5"


def test_capabilities_are_trimmed_and_distinct(environment):
    """Blanks, empty parts and repetitions in the list mean nothing."""
    environment.setenv("MOONMIND_WORKER_CAPABILITIES", " gpu, docker,,gpu ")

    assert Settings.load().worker_capabilities == ("gpu", "docker")


def test_sqlalchemys_url_is_understood(environment):
    """postgresql+psycopg:// is the same database as postgresql://."""
    environment.setenv("DATABASE_URL", "postgresql+psycopg://someone@host/database")

    assert Settings.load().database_url == "postgresql://someone@host/database"


@pytest.mark.parametrize(
    ("value", "meaning"),
    [
        ("", None),
        (" None ", "none"),
        ("postgresql+psycopg://someone@server/db", "postgresql://someone@server/db"),
    ],
)
def test_where_to_listen_is_a_server_or_none(environment, value, meaning):
    """Unset is DATABASE_URL, a URL is the server itself, and `none` is a word of its own."""
    environment.setenv("MOONMIND_LISTEN_DATABASE_URL", value)

    assert Settings.load().listen_database_url == meaning


def test_description_shows_that_a_worker_does_not_listen(environment):
    """`none` is no secret: an operator has to see it."""
    rows = {row["variable"]: row for row in describe({"MOONMIND_LISTEN_DATABASE_URL": "none"})}

    assert rows["MOONMIND_LISTEN_DATABASE_URL"]["value"] == "none"


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("DATABASE_URL", ""),
        ("MOONMIND_POLL_INTERVAL_MS", "0"),
        ("MOONMIND_POLL_INTERVAL_MS", "soon"),
        ("MOONMIND_LEASE_SECONDS", "-1"),
        ("MOONMIND_LEASE_SECONDS", "1.5"),
        ("MOONMIND_RECLAIM_SECONDS", "0"),
        ("MOONMIND_ARTIFACT_MAX_BYTES", "0"),
        ("MOONMIND_RUN_TIMEOUT_SECONDS", "none"),
        ("MOONMIND_CODEX_SANDBOX_MODE", "yolo-hunter2"),
        ("MOONMIND_NOOP_SECONDS", "-1"),
    ],
)
def test_a_bad_value_is_refused_by_its_variable(environment, variable, value):
    """The error names the variable and never repeats a value, which may be a secret."""
    environment.setenv(variable, value)

    with pytest.raises(SettingsError, match=variable) as caught:
        Settings.load()
    assert "hunter2" not in str(caught.value)


def test_the_database_url_is_in_no_representation():
    """Printing the settings, as a debugger does, shows no password."""
    assert "hunter2secret" not in repr(Settings.load())


def test_description_masks_the_database_and_names_the_source():
    """moonmind-queue settings says where each value comes from and shows no secret."""
    rows = describe({"DATABASE_URL": "postgresql://u:hunter2secret@h/d", "CODEX_MODEL": "m"})

    by_variable = {row["variable"]: row for row in rows}
    assert "hunter2secret" not in str(rows)
    assert by_variable["MOONMIND_CODEX_MODEL"]["source"] == "CODEX_MODEL"
    assert by_variable["MOONMIND_LEASE_SECONDS"]["source"] == "default"


def test_programs_that_shell_jobs_may_run(environment):
    """A JSON list: a name or a path alone, or an object with patterns for the arguments."""
    environment.setenv(
        "MOONMIND_SHELL_ALLOW",
        '["git", "/opt/site/deploy", {"program": "make", "args": ["test|lint"], "more": "-j"}]',
    )

    programs = Settings.load().shell_allow

    assert [each.program for each in programs] == ["git", "/opt/site/deploy", "make"]
    assert (programs[0].args, programs[0].more) == (None, None)
    assert (programs[2].args, programs[2].more) == (("test|lint",), "-j")


def test_nothing_may_run_unless_somebody_says_so(environment):
    """The list is empty by default, and where the variable is empty."""
    environment.setenv("MOONMIND_SHELL_ALLOW", "")

    assert Settings.load().shell_allow == ()


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("git", r': must be a JSON list such as \["git"\]'),
        ('"git"', r': must be a JSON list such as \["git"\]'),
        ('{"program": "git"}', r': must be a JSON list such as \["git"\]'),
        ("[5]", r"\[0\]: must be the name of a program, or an object"),
        ('["git", ""]', r"\[1\].program: must be a program's name, or its absolute path"),
        ('["bin/git"]', r"\[0\].program: must be a program's name, or its absolute path"),
        ('["/bin/../git"]', r"\[0\].program: must be a program's name, or its absolute path"),
        ('["//bin/git"]', r"\[0\].program: must be a program's name, or its absolute path"),
        ('["/bin/"]', r"\[0\].program: must be a program's name, or its absolute path"),
        ('["-git"]', r"\[0\].program: must be a program's name, or its absolute path"),
        ('["git "]', r"\[0\].program: must be a program's name, or its absolute path"),
        ('["git\\u0000"]', r"\[0\].program: must be a program's name, or its absolute path"),
        ('[{"args": []}]', r"\[0\].program: is missing"),
        ('[{"program": "git", "arg": []}]', r"\[0\].arg: is not known; there are program, args"),
        ('[{"program": "git", "args": "status"}]', r"\[0\].args: input should be"),
        ('[{"program": "git", "args": ["("]}]', r"\[0\].args\[0\]: is not a regular expression"),
        ('[{"program": "git", "more": "["}]', r"\[0\].more: is not a regular expression"),
    ],
)
def test_a_list_of_programs_that_cannot_be_meant(environment, value, message):
    """The error says which entry is wrong, and how."""
    environment.setenv("MOONMIND_SHELL_ALLOW", value)

    with pytest.raises(SettingsError, match=f"^MOONMIND_SHELL_ALLOW{message}"):
        Settings.load()


@pytest.mark.parametrize(
    "what", ["MEMORY_MB", "CPU_SECONDS", "FILE_MB", "DIRECTORY_MB", "PROCESSES"]
)
def test_limits_of_shell_jobs_are_positive(environment, what):
    """A limit of nothing would refuse every program, and there is no word for none."""
    environment.setenv(f"MOONMIND_SHELL_{what}", "0")

    with pytest.raises(SettingsError, match=f"MOONMIND_SHELL_{what}"):
        Settings.load()
