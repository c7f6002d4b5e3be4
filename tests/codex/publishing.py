"""A queue, a worker's surroundings, and the two places where work is published."""

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import press
from github_server import GitHubServer
from model_server import MODEL, patch, say, shell

from moonmind_queue import Queue

ADD = "*** Begin Patch\n*** Add File: greeting.txt\n+hello\n*** End Patch"
SCRIPT = [[patch(ADD)], [shell("test -s greeting.txt")], [say("There is a greeting now.")]]


@dataclass
class Publishing:
    """A queue, a worker's surroundings, and the two places where work is published."""

    folder: Path
    dsn: str
    queue: Queue
    bare: Path
    github: GitHubServer
    environ: dict[str, str]
    script: list[Any]
    address: str
    """Where the folder of the repository is served."""

    identity: tuple[str, str] = ("Moonmind", "moonmind@example.org")

    def enqueue(
        self,
        mode: str = "pr",
        *,
        instruction: str = "Greet people.\n\nIn a file of its own.",
        repository: str = "acme/demo",
        **more: Any,
    ) -> int:
        """Add a job for the demo repository, which git takes for one on GitHub."""
        payload = {
            "repository": repository,
            "instruction": instruction,
            "publish": {"mode": mode, **more},
        }
        return self.queue.enqueue("codex_exec", payload)

    def configure_git(self, form: str, base: str, more: str = "") -> None:
        """Let git take addresses of one form for others, by a file that only its variable names."""
        (self.folder / "home" / ".gitconfig").unlink(missing_ok=True)
        file = self.folder / "gitconfig"
        file.write_text(f'[url "{base}"]\n\tinsteadOf = {form}\n{more}')
        self.environ["GIT_CONFIG_GLOBAL"] = str(file)

    @property
    def surroundings(self) -> dict[str, Any]:
        """What the worker is given."""
        return {
            "dsn": self.dsn,
            "environ": self.environ,
            "workdir": str(self.folder / "work"),
            "model": MODEL,
            "identity": self.identity,
        }

    def work(self) -> None:
        """Run one job here."""
        assert press.work(self.surroundings)

    def die(self, moment: int) -> tuple[int, list[str]]:
        """Run one job in a process that dies at a moment; returns its status and the moments."""
        file = self.folder / "surroundings.json"
        file.write_text(json.dumps(self.surroundings))
        command = [sys.executable, press.__file__, str(file), str(moment)]
        ended = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False, timeout=60)
        passed = [
            each for each in ended.stdout.splitlines() if each.startswith(("before", "after"))
        ]
        return ended.returncode, passed

    def git(self, *arguments: str) -> str:
        """Ask the remote repository."""
        answer = subprocess.check_output(["git", *arguments], cwd=self.bare, text=True)
        return answer.strip()

    def branches(self) -> list[str]:
        """Return the branches that were published."""
        names = self.git("for-each-ref", "--format=%(refname:short)", "refs/heads/").splitlines()
        return [name for name in names if name not in ("trunk", "topic/one")]

    def commits(self) -> int:
        """Return how many commits the remote has ever got, reachable or not."""
        objects = self.git("cat-file", "--batch-all-objects", "--batch-check=%(objecttype)")
        return objects.splitlines().count("commit")
