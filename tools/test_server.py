"""Chooses the PostgreSQL server that the test-suite runs on.

``MOONMIND_TEST_DATABASE_URL`` when it is set; else a container, when a Docker engine answers and
has the image; else an embedded server. ``MOONMIND_TEST_REQUIRE=docker`` turns the last step into
an error, so that a broken engine cannot go unnoticed in CI. It may list several words.
"""

import atexit
import os
import secrets
import socket
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import psycopg
from local_postgres import LocalPostgres

if TYPE_CHECKING:
    from docker import DockerClient

PORT = 5432
DATA = "/postgres-data"  # in memory; not a path that any image declares a volume for
COMMAND = (
    "postgres -c max_connections=300 -c fsync=off -c synchronous_commit=off -c full_page_writes=off"
)


class DockerUnavailableError(Exception):
    """No container can be started here; ``noteworthy`` when the user may have expected one."""

    def __init__(self, reason: str, *, noteworthy: bool = False) -> None:
        super().__init__(reason)
        self.noteworthy = noteworthy


@dataclass(frozen=True)
class Server:
    """A server to test on: a superuser's DSN, one line that says what it is, and a way to end."""

    dsn: str
    title: str
    _end: Callable[[], None] = field(repr=False)

    def stop(self) -> None:
        """End what :func:`start` began; a server of the user's own goes on."""
        atexit.unregister(self._end)
        self._end()


def start() -> Server:
    """Return a server that accepts connections."""
    if dsn := os.environ.get("MOONMIND_TEST_DATABASE_URL"):
        dsn = dsn.replace("postgresql+psycopg://", "postgresql://", 1)
        title = f"PostgreSQL {_version(dsn)} at MOONMIND_TEST_DATABASE_URL"
        return Server(dsn, title, lambda: None)
    try:
        return _container(os.environ.get("MOONMIND_TEST_POSTGRES_IMAGE") or "postgres:17-alpine")
    except DockerUnavailableError as reason:
        if required("docker"):
            raise
        return _embedded(f"; not in Docker: {reason}" if reason.noteworthy else "")


def required(what: str) -> bool:
    """Say whether tests must fail rather than do without, as in CI."""
    return what in os.environ.get("MOONMIND_TEST_REQUIRE", "").split(",")


def _container(image: str) -> Server:
    os.environ.setdefault("TC_POOLING_INTERVAL", "0.1")  # read when testcontainers is imported
    try:
        from testcontainers.community.postgres import PostgresContainer
        from testcontainers.core.config import ConnectionMode
        from testcontainers.core.config import testcontainers_config as reaper
        from testcontainers.core.docker_client import get_docker_host
    except ImportError as error:
        raise DockerUnavailableError(str(error)) from error
    _knock(get_docker_host() or "unix:///var/run/docker.sock")
    # The names that an embedded server has, so that tests see no difference.
    names = {"username": "postgres", "dbname": "postgres"}
    container = PostgresContainer(image, password=secrets.token_hex(16), **names)
    docker = container.get_docker_client()
    if missing := _missing(docker.client, image):
        docker.client.close()
        raise DockerUnavailableError(f"{image}: {missing}", noteworthy=True)
    if not reaper.ryuk_disabled and _missing(docker.client, reaper.ryuk_image):
        reaper.ryuk_disabled = True  # then the atexit below is all there is

    loopback = docker.host() in ("localhost", "127.0.0.1")
    if loopback and docker.get_connection_mode() is ConnectionMode.docker_host:
        # Docker's default is every interface. docker-py knows the tuple, testcontainers' type not.
        container.ports[str(PORT)] = ("127.0.0.1",)  # type: ignore[assignment]
    container.with_command(COMMAND).with_env("PGDATA", DATA).with_tmpfs_mount(DATA)
    atexit.register(container.stop)
    container.start()
    dsn = container.get_connection_url(driver=None)
    title = f"PostgreSQL {_version(dsn)} in Docker ({image}, through testcontainers)"
    return Server(dsn, title, container.stop)


def _missing(client: "DockerClient", image: str) -> str | None:
    """Have the engine pull an image that it does not have; say why it cannot."""
    from docker.errors import APIError, ImageNotFound

    with suppress(ImageNotFound):
        client.images.get(image)
        return None
    try:
        client.images.pull(image)
    except APIError as error:
        return str(error.explanation or error)
    return None


def _knock(host: str) -> None:
    """Find out whether an engine answers; docker-py would leak its socket where none does."""
    if not host.startswith("unix://"):
        return  # somebody named an engine on purpose: that it does not answer is an error
    try:
        with socket.socket(socket.AF_UNIX) as knock:
            knock.connect(host.removeprefix("unix://"))
    except OSError as error:
        raise DockerUnavailableError(f"no Docker engine answers at {host} ({error})") from error


def _embedded(note: str) -> Server:
    postgres = LocalPostgres()
    postgres.start()
    atexit.register(postgres.stop)
    title = f"PostgreSQL {postgres.version}, embedded ({postgres.origin}){note}"
    return Server(postgres.dsn, title, postgres.stop)


def _version(dsn: str) -> str:
    with psycopg.connect(dsn) as connection:
        [version] = connection.execute("show server_version").fetchone() or [""]
    return str(version).split()[0]  # Debian adds its own after a blank
