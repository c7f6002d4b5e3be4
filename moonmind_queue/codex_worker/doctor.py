"""Looks at all that a worker needs on this machine, and says what is missing and what to do."""

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import psycopg

from moonmind_queue._connection import open_connection
from moonmind_queue._hearing import NO_LISTENING, listen
from moonmind_queue.codex_worker import versions
from moonmind_queue.codex_worker.codex import Codex
from moonmind_queue.codex_worker.gh import preflight
from moonmind_queue.codex_worker.git import git_version
from moonmind_queue.codex_worker.local import VARIABLE, Directory
from moonmind_queue.errors import QueueError, SettingsError, from_postgres
from moonmind_queue.migrate import current, require_schema
from moonmind_queue.settings import Settings

ROOM = 2 * 1024**3  # bytes: below this a checkout of any size may fail


@dataclass(frozen=True, slots=True)
class Finding:
    """What became of one check: ``text`` is what was found, or what is wrong and the way out."""

    check: str
    ok: bool
    text: str
    warning: bool = False
    """It works, and there is something to know of it."""


def examine(environ: Mapping[str, str]) -> Iterator[Finding]:
    """Make every check that can be made, in the order in which people set a worker up."""
    try:
        settings = Settings.load()
    except SettingsError as error:
        yield Finding("settings", ok=False, text=str(error))
        return
    codex = Codex.configure(settings, environ)
    yield _try("settings", lambda: "complete")
    yield _try("database", lambda: _database(settings.database_url))
    yield _try("schema", lambda: _schema(settings.database_url))
    yield _try("notifications", lambda: _notifications(settings))
    yield _try("work folder", lambda: _folder(settings.workdir))
    yield _try("git", lambda: git_version(environ))
    yield _try("codex", lambda: _codex(codex))
    yield _try("codex login", lambda: codex.login(codex.find()))
    yield _try("codex sandbox", lambda: codex.check_sandbox(codex.find()))
    lent = tuple(map(Directory.real, settings.codex_local_dirs))
    if not lent:
        yield _try("local dirs", lambda: f"none lent: {VARIABLE} is empty")
    for each in lent:
        yield _try("local dirs", partial(_lent, each))
    yield _try("gh", lambda: _gh(environ))


def _try(check: str, look: Callable[[], str | Finding]) -> Finding:
    try:
        found = look()
        return found if isinstance(found, Finding) else Finding(check, ok=True, text=found)
    except QueueError as error:
        return Finding(check, ok=False, text=str(error))
    except psycopg.Error as error:
        return Finding(check, ok=False, text=str(from_postgres(error)))


def _database(dsn: str) -> str:
    with open_connection(dsn, application_name="moonmind-queue doctor") as connection:
        number = connection.info.server_version
        return f"PostgreSQL {number // 10000}.{number % 10000} as {connection.info.user}"


def _schema(dsn: str) -> str:
    require_schema(dsn)
    return f"revision {current(dsn)}"


def _notifications(settings: Settings) -> str:
    dsn = settings.listen_database_url or settings.database_url
    if dsn == NO_LISTENING:
        return "off, as MOONMIND_LISTEN_DATABASE_URL says: jobs come by poll"
    with open_connection(dsn, application_name="moonmind-queue doctor") as session:
        if listen(session, dsn):
            return "arrive"
    raise SettingsError(
        "a transaction pooler stands before the server and passes on none: name the server itself "
        "in MOONMIND_LISTEN_DATABASE_URL, or set it to none"
    )


def _lent(directory: Directory) -> str:
    if fault := directory.fault():
        raise SettingsError(f"{directory.path} {fault}: mend that, or take it out of {VARIABLE}")
    return f"{directory.path}, to be {'read' if directory.read_only else 'written'}"


def _folder(workdir: Path) -> str:
    try:
        workdir.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=workdir):
            free = shutil.disk_usage(workdir).free
    except OSError as error:
        raise SettingsError(
            f"{workdir} cannot be written: {error.strerror}; set MOONMIND_WORKDIR"
        ) from None
    if free < ROOM:
        raise SettingsError(
            f"{workdir} has {free // 1024**2} MiB free: make room, or set MOONMIND_WORKDIR"
        )
    user = os.geteuid()
    return f"{workdir}, {free / 1024**3:.1f} GiB free, as {'root' if user == 0 else f'uid {user}'}"


def _codex(codex: Codex) -> Finding:
    program = codex.find()
    version = codex.version(program)
    doubt = versions.untried(version)
    text = f"{version} at {program}" + (f" ({doubt})" if doubt else "")
    return Finding("codex", ok=True, text=text, warning=doubt is not None)


def _gh(environ: Mapping[str, str]) -> str:
    if version := preflight(environ):
        return version
    there = shutil.which("gh", path=environ.get("PATH") or os.defpath)
    return f"{there or 'not installed'}, not needed: no GITHUB_TOKEN"
