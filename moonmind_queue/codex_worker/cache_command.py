"""The command ``moonmind-codex-worker cache``: the mirrors of repositories on this machine."""

import json
import sys
from typing import TYPE_CHECKING, NoReturn

import click

if TYPE_CHECKING:
    from moonmind_queue.codex_worker.cache import Cached

_EXAMPLES = """\b
Examples:
  moonmind-codex-worker cache                    the mirrors, the last used first
  moonmind-codex-worker cache ls --json          the same for programs
  moonmind-codex-worker cache rm acme/site       remove one; the next job fetches it anew
  moonmind-codex-worker cache rm --all           remove all

\b
They are in MOONMIND_WORKDIR. Workers remove those that nobody has used for 14 days, and beyond
MOONMIND_CACHE_MAX_GB (20) those that were not used for the longest time.
"""


@click.group(epilog=_EXAMPLES, invoke_without_command=True)
@click.pass_context
def cache(context: click.Context) -> None:
    """Show or remove the mirrors of repositories that jobs of this machine share."""
    if context.invoked_subcommand is None:
        context.invoke(_list, as_json=False)


@cache.command("ls")
@click.option("--json", "as_json", is_flag=True, help="Print a JSON list.")
def _list(as_json: bool) -> None:
    """List the mirrors: repository, size, last use."""
    found, quota = _there()
    if as_json:
        rows = [
            {
                "repository": each.address,
                "size_bytes": each.size,
                "last_used": each.used.isoformat(timespec="seconds"),
                "path": str(each.path),
            }
            for each in found
        ]
        click.echo(json.dumps(rows))
        return
    width = max((len(each.address) for each in found), default=0)
    for each in found:
        used = f"{each.used:%Y-%m-%d %H:%M} UTC"
        click.echo(f"{each.address:{width}}  {_size(each.size):>9}  {used}")
    count = f"{len(found)} mirror{'' if len(found) == 1 else 's'}"
    click.echo(f"{count}, {_size(sum(each.size for each in found))} of {quota:g} GB")


@cache.command("rm")
@click.argument("repositories", nargs=-1, metavar="[REPOSITORY]...")
@click.option("--all", "every", is_flag=True, help="Remove them all.")
def _remove(repositories: tuple[str, ...], every: bool) -> None:
    """Remove mirrors, by what jobs call the repository or by its address."""
    if bool(repositories) == every:
        raise click.UsageError("name repositories, or say --all")
    found, _ = _there()
    wanted = {each.address for each in found} if every else {_address(r) for r in repositories}
    if missing := wanted - {each.address for each in found}:
        _refuse(
            f"there is no mirror of {', '.join(sorted(missing))};"
            " 'moonmind-codex-worker cache' lists those that there are"
        )
    for each in found:
        if each.address not in wanted:
            continue
        if not each.remove():
            _refuse(f"the mirror of {each.address} is in use, or cannot be removed; try again soon")
        click.echo(f"removed the mirror of {each.address}, {_size(each.size)}")


def _there() -> "tuple[list[Cached], float]":
    """Return the mirrors and the quota in GB; needs no database."""
    from moonmind_queue.codex_worker.cache import mirrors
    from moonmind_queue.errors import SettingsError
    from moonmind_queue.settings import DiskSettings

    try:
        settings = DiskSettings.load()
    except SettingsError as error:
        _refuse(str(error))
    try:
        return mirrors(settings.workdir), settings.cache_max_gb
    except OSError as error:
        _refuse(f"MOONMIND_WORKDIR: cannot read {settings.workdir}: {error.strerror}")


def _address(repository: str) -> str:
    """Return what git fetches from for a repository as a job names it."""
    from moonmind_queue.codex_worker.payload import CodexExecJobPayload
    from moonmind_queue.errors import InvalidPayload

    try:
        payload = {"repository": repository, "instruction": "-"}
        return CodexExecJobPayload.parse(payload).clone_url
    except InvalidPayload as error:
        _refuse(str(error).removeprefix("codex_exec: "))


def _refuse(reason: str) -> NoReturn:
    click.echo(f"moonmind-codex-worker failed: {reason}", err=True)
    sys.exit(1)


def _size(number: int) -> str:
    """Return bytes in the units of MOONMIND_CACHE_MAX_GB."""
    amount = float(number)
    for unit in ("B", "kB", "MB"):
        if amount < 1000:
            return f"{amount:.0f} B" if unit == "B" else f"{amount:.1f} {unit}"
        amount /= 1000
    return f"{amount:.1f} GB"
