"""Finding Codex and asking it whether it can work."""

import json
import os
import re
import stat
import sys
from pathlib import Path
from typing import Any

import pytest
from codex_cli_bin import bundled_codex_path
from model_server import FAKE_KEY, make_codex_home
from structlog.testing import capture_logs

from moonmind_queue.codex_worker import versions
from moonmind_queue.codex_worker.codex import Codex, CodexUnavailable

PROJECT = Path(__file__).parents[2] / "pyproject.toml"
NOBODY = "http://127.0.0.1:1/v1"  # nothing is asked of the model here


def make(
    home: Path, *, program: str | None = None, path: str = "/usr/bin:/bin", **environ: str
) -> Codex:
    """Return a Codex of a worker with this environment."""
    return Codex(
        environ={"PATH": path, "HOME": str(home), "CODEX_HOME": str(home), **environ},
        program=program,
        sandbox="workspace-write",
        model=None,
        effort=None,
    )


def install(folder: Path, text: str, mode: int = 0o755) -> Path:
    """Put a program called ``codex`` into a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    program = folder / "codex"
    program.write_text(text)
    program.chmod(mode)
    return program


def install_version(folder: Path, version: str) -> str:
    """Put a Codex that says this version into a folder; return the PATH with it."""
    program = install(
        folder / "bin", f"#!/bin/sh\n[ $1 != --version ] || echo codex-cli {version}\n"
    )
    return f"{program.parent}:/usr/bin:/bin"


def test_path_comes_first(tmp_path: Path) -> None:
    """``codex`` on PATH is preferred to the one of the package."""
    program = install(tmp_path / "bin", "#!/bin/sh\n")
    assert make(tmp_path, path=str(program.parent)).find() == program


def test_package_is_the_fallback(tmp_path: Path) -> None:
    """Without one on PATH, the package's is used."""
    assert make(tmp_path).find() == bundled_codex_path()


def test_setting_wins(tmp_path: Path) -> None:
    """MOONMIND_CODEX names the program outright."""
    install(tmp_path / "bin", "#!/bin/sh\n")
    program = install(tmp_path / "other", "#!/bin/sh\n")
    assert make(tmp_path, path=str(tmp_path / "bin"), program=str(program)).find() == program


def test_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where there is no Codex, the message says so and what to do."""
    monkeypatch.setitem(sys.modules, "codex_cli_bin", None)
    with pytest.raises(CodexUnavailable) as refusal:
        make(tmp_path).check()
    assert str(refusal.value).startswith("The 'codex' CLI is not available on PATH. Install it")
    with pytest.raises(CodexUnavailable, match="MOONMIND_CODEX names does not exist"):
        make(tmp_path, program="/nowhere/codex").check()


def test_not_executable(tmp_path: Path) -> None:
    """A file that is called ``codex`` and cannot be executed is named."""
    program = install(tmp_path / "bin", "#!/bin/sh\n", 0o644)
    with pytest.raises(CodexUnavailable) as refusal:
        make(tmp_path, path=str(program.parent)).check()
    assert str(refusal.value) == f"The 'codex' CLI was found at '{program}' but is not executable."


def test_broken(tmp_path: Path) -> None:
    """A Codex that cannot say its version is no Codex."""
    program = install(tmp_path / "bin", "#!/bin/sh\necho 'no such library' >&2; exit 127\n")
    with pytest.raises(CodexUnavailable, match="codex --version failed: no such library"):
        make(tmp_path, path=f"{program.parent}:/usr/bin:/bin").check()


def test_shim_gives_way_to_the_binary(tmp_path: Path) -> None:
    """Of an npm installation the binary is used, not the shim that would orphan it."""
    modules = tmp_path / "node_modules" / "@openai"
    (modules / "codex" / "bin").mkdir(parents=True)
    shim = modules / "codex" / "bin" / "codex.js"
    shim.write_text("#!/usr/bin/env node\n")
    shim.chmod(0o755)
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "codex").symlink_to(shim)
    codex = make(tmp_path, path=str(tmp_path / "bin"))
    assert codex.find() == shim
    binary = install(
        modules / "codex-linux-x64" / "vendor" / "x86_64-unknown-linux-musl" / "bin", ""
    )
    assert codex.find() == binary


@pytest.mark.parametrize("version", ["0.155.0", "0.133.0", "0.9.9"])
def test_an_old_codex_is_refused(tmp_path: Path, version: str) -> None:
    """One that prints and takes other words than a worker knows is no Codex, and it is said why."""
    path = install_version(tmp_path, version)
    with pytest.raises(CodexUnavailable) as refusal:
        make(tmp_path, path=path, CODEX_API_KEY="k" * 30).check()
    text = str(refusal.value)
    assert f"is {version}, and the oldest that a worker can use is 0.155.1: update it" in text


@pytest.mark.parametrize(
    ("version", "doubt"),
    [
        ("0.155.1", None),
        ("0.163.0", None),
        ("0.169.0", None),
        ("0.169.1", "newer than 0.169.0, the last that was tried"),
        ("1.0.0-alpha.2", "newer than 0.169.0, the last that was tried"),
        ("0.0.0", "no release: tried were 0.155.1 to 0.169.0"),
        ("from-a-branch", "no release: tried were 0.155.1 to 0.169.0"),
    ],
)
def test_a_codex_that_was_not_tried_is_used_with_a_warning(
    tmp_path: Path, version: str, doubt: str | None
) -> None:
    """What is newer, or no release, runs; the log says what is not known of it."""
    path = install_version(tmp_path, version)
    with capture_logs() as logs:
        make(tmp_path, path=path, CODEX_API_KEY="k" * 30).check()
    warned = [each["reason"] for each in logs if each["event"] == "codex.untried"]
    assert warned == ([doubt] if doubt else [])


def test_the_codex_of_the_tests_is_one_that_was_tried(tmp_path: Path) -> None:
    """The range is that of the suite: the version it runs on lies in it."""
    codex = make(tmp_path)
    assert versions.untried(codex.version(codex.find())) is None


def test_the_extra_asks_for_the_oldest() -> None:
    """``pip install moonmind-queue[codex]`` cannot leave a Codex that is refused."""
    wanted = re.findall(r'"openai-codex-cli-bin>=(.+?)"', PROJECT.read_text())
    assert set(wanted) == {versions.oldest()}


def test_the_home_is_made_where_codex_makes_it(tmp_path: Path) -> None:
    """With a key and a fresh account there is none yet, and Codex refuses one that is not there."""
    environ = {"PATH": os.defpath, "HOME": str(tmp_path), "CODEX_API_KEY": "k" * 30}
    codex = Codex(environ=environ, program=None, sandbox="workspace-write", model=None, effort=None)
    codex.check()
    assert stat.S_IMODE((tmp_path / ".codex").stat().st_mode) == 0o700


def test_a_home_that_is_named_and_missing_is_refused(tmp_path: Path) -> None:
    """It may be a slip of the pen, so it is not made."""
    with pytest.raises(
        CodexUnavailable, match=r"/nowhere', where Codex keeps its files, is missing"
    ):
        make(tmp_path / "nowhere", CODEX_API_KEY="k" * 30).check()


def test_a_home_that_cannot_be_made_is_refused(tmp_path: Path) -> None:
    """In words that name it."""
    (tmp_path / "file").touch()
    environ = {"PATH": os.defpath, "HOME": str(tmp_path / "file"), "CODEX_API_KEY": "k" * 30}
    codex = Codex(environ=environ, program=None, sandbox="workspace-write", model=None, effort=None)
    with pytest.raises(
        CodexUnavailable, match=r"/file/.codex', where .* name another in CODEX_HOME"
    ):
        codex.check()


def test_logged_in(tmp_path: Path) -> None:
    """A stored login will do."""
    home = make_codex_home(tmp_path / "home", NOBODY, bundled_codex_path())
    with capture_logs() as logs:
        make(home).check()
    assert [each["event"] for each in logs] == ["codex.found"]


def test_not_logged_in(tmp_path: Path) -> None:
    """Without a login or a key that Codex uses, the start is refused in Codex's words."""
    with pytest.raises(CodexUnavailable, match=r"^codex login status failed: Not logged in "):
        make(tmp_path, OPENAI_API_KEY="sk-" + "a" * 30, TMPDIR="/var/tmp").check()


def test_keys_instead_of_a_login(tmp_path: Path) -> None:
    """CODEX_API_KEY will do, and so will the variable that the configured provider names."""
    make(tmp_path, CODEX_API_KEY="sk-" + "a" * 30).check()
    (tmp_path / "config.toml").write_text(
        'model_provider = "mine"\n[model_providers.mine]\nname = "Mine"\n'
        f'base_url = "{NOBODY}"\nenv_key = "MY_MODEL"\n'
    )
    codex = make(tmp_path, MY_MODEL="word-of-mine", CODEX_API_KEY="not-for-this-one")
    codex.check()
    environment = codex.environment(tmp_path, tmp_path)
    assert environment["MY_MODEL"] == "word-of-mine"
    assert "CODEX_API_KEY" not in environment
    assert "word-of-mine" in set(codex.secrets())


def test_messages_are_redacted(tmp_path: Path) -> None:
    """What Codex prints at start is shown without the worker's secrets."""
    program = install(
        tmp_path / "bin", '#!/bin/sh\n[ "$1" = login ] && { echo "pw $P" >&2; exit 1; }\nexit 0\n'
    )
    text = program.read_text().replace("$P", "the-database-password")
    program.write_text(text)
    with pytest.raises(CodexUnavailable) as refusal:
        make(
            tmp_path,
            path=f"{program.parent}:/usr/bin:/bin",
            DATABASE_URL="postgresql://u:the-database-password@h/d",
        ).check()
    assert "codex login status failed: pw [REDACTED]" in str(refusal.value)


def test_a_broken_sandbox_keeps_the_worker_from_starting(tmp_path: Path) -> None:
    """Where no command can run, no job would be done, and each would look like a success."""
    script = '#!/bin/sh\n[ "$1" = sandbox ] && { echo "no namespaces" >&2; exit 1; }\nexit 0\n'
    program = install(tmp_path / "bin", script)
    with pytest.raises(CodexUnavailable, match="sandbox is broken: no namespaces"):
        make(tmp_path, path=f"{program.parent}:/usr/bin:/bin").check()


def test_stored_login_is_a_secret(tmp_path: Path) -> None:
    """The key in auth.json counts as a secret of the worker."""
    home = make_codex_home(tmp_path / "home", NOBODY, bundled_codex_path())
    assert FAKE_KEY in set(make(home).secrets())


def test_environment_is_built_from_nothing(tmp_path: Path) -> None:
    """Codex gets a handful of variables, none of which says where the queue is."""
    codex = make(
        tmp_path,
        DATABASE_URL="postgresql://u:p@h/d",
        PGHOST="h",
        GITHUB_TOKEN="t",
        OPENAI_API_KEY="k",
        https_proxy="http://proxy:3128",
        USER="ada",
    )
    assert set(codex.environment(tmp_path / "home", tmp_path / "tmp")) == {
        "PATH", "HOME", "TMPDIR", "LANG", "CODEX_HOME", "USER", "https_proxy",
    }  # fmt: skip


def test_command_line(tmp_path: Path) -> None:
    """Job options win over the worker's; nothing of the instruction is on the command line."""
    codex = make(tmp_path)
    argv = codex.command(Path("codex"), tmp_path, tmp_path / "home", "gpt-5.5", "high")
    assert argv[:2] == ["codex", "exec"]
    assert "--model=gpt-5.5" in argv
    assert 'model_reasoning_effort="high"' in argv
    assert argv[-1] == "-"
    settings = dict(each.split("=", 1) for each in argv if "." in each and "=" in each)
    assert json.loads(settings["shell_environment_policy.inherit"]) == "core"


def test_default_home(tmp_path: Path) -> None:
    """Without CODEX_HOME, Codex's home is where Codex itself looks."""
    environ: dict[str, Any] = {"PATH": os.defpath, "HOME": str(tmp_path)}
    codex = Codex(environ=environ, program=None, sandbox="read-only", model=None, effort=None)
    assert codex.home == tmp_path / ".codex"
