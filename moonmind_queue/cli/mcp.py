"""The command that gives agents the queue as tools of an MCP server."""

import os
import secrets
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from moonmind_queue.mcp.tools import Profile

PORT = 8766
SHORTEST = 16  # characters of a token


@click.command()
@click.option(
    "--profile",
    "name",
    type=click.Choice(("state", "artifacts", "queue")),
    required=True,
    help="Which tools: tasks of Agentmux, its files, or the queue itself.",
)
@click.option(
    "--home",
    type=click.Path(file_okay=False, path_type=Path),
    help="Where DAG files and artifacts/ are. [MOONMIND_AGENTMUX_HOME, or here]",
)
@click.option("--http", is_flag=True, help="Serve streamable HTTP on 127.0.0.1 instead of stdio.")
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    help=f"With --http; 0 is any that is free. [{PORT}]",
)
@click.option(
    "--token-env",
    metavar="NAME",
    help="With --http: the variable that holds the token; without it, one is made up and shown.",
)
def mcp(name: str, home: Path | None, http: bool, port: int | None, token_env: str | None) -> None:
    """Give agents the queue as tools of an MCP server.

    An MCP client starts it and talks to it over standard input and output; with --http you start
    it, and clients need the token. What an agent may do is what the role in DATABASE_URL may do.
    Calls are logged on standard error: ids, names and paths.

    \b
    Examples:
      moonmind-queue mcp --profile queue
      moonmind-queue mcp --profile state --http --token-env MOONMIND_MCP_TOKEN
    """
    from moonmind_queue import logs
    from moonmind_queue._daemon import hide_environment
    from moonmind_queue.redact import Redactor, environment_secrets

    if home and name == "queue":
        raise click.UsageError("--home is for state and artifacts: the queue serves no files")
    if token_env and not http:
        raise click.UsageError("--token-env is for --http: over stdio there is no token")
    if port is not None and not http:
        raise click.UsageError("--port is for --http: over stdio there is no port")
    token = _token(token_env) if http else None
    redact = Redactor([*environment_secrets(os.environ), *([token] if token else [])]).text
    logs.setup(redact=redact)
    try:
        from moonmind_queue.mcp import profiles, server
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("moonmind_queue"):
            raise
        raise click.ClickException(
            "MCP servers need the extra mcp: pip install 'moonmind-queue[mcp]'"
        ) from None
    profile = profiles.build(name, home=home and home.absolute(), redact=redact)
    hide_environment()
    if token is None:
        server.serve(profile)
    else:
        _serve_http(profile, PORT if port is None else port, token, shown=token_env is None)


def _token(variable: str | None) -> str:
    """Return the token that a variable holds, or a new one."""
    if variable is None:
        return secrets.token_urlsafe(32)
    token = os.environ.get(variable, "").strip()
    if len(token) < SHORTEST or not token.isascii() or not token.isprintable():
        raise click.UsageError(
            f"{variable} has to hold a token of at least {SHORTEST} plain characters;"
            " this makes one: python3 -c 'import secrets; print(secrets.token_urlsafe(32))'"
        )
    return token


def _serve_http(profile: "Profile", port: int, token: str, *, shown: bool) -> None:
    from moonmind_queue.mcp import loopback

    def ready(url: str) -> None:
        click.echo(f"serving {profile.name} at {url}", err=True)
        if shown:
            click.echo(f"token, shown this once: {token}", err=True)

    loopback.serve(profile, port, token, ready)
