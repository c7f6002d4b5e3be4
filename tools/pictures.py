"""Make the pictures in docs/pictures: what agentmux shows of a real run, as SVG.

    python tools/pictures.py

A server of its own, two workers, the example of docs/examples; each command runs in a terminal of a
hundred columns, and what it printed is the picture.
"""

import fcntl
import io
import os
import pty
import signal
import struct
import subprocess
import sys
import tempfile
import termios
from contextlib import suppress
from pathlib import Path

from local_postgres import LocalPostgres
from rich.console import Console
from rich.text import Text
from waiting import eventually

import moonmind_queue

ROOT = Path(__file__).parents[1]
PICTURES = ROOT / "docs" / "pictures"
EXAMPLE = ROOT / "docs" / "examples" / "dag.yaml"
COLUMNS, LINES = 100, 40
AGENTMUX = str(Path(sys.executable).with_name("agentmux"))


def seen(arguments: list[str], environment: dict[str, str]) -> str:
    """Return what a command prints to a terminal."""
    terminal, inside = pty.openpty()
    fcntl.ioctl(inside, termios.TIOCSWINSZ, struct.pack("HHHH", LINES, COLUMNS, 0, 0))
    with subprocess.Popen(
        [AGENTMUX, *arguments],
        env=environment,
        cwd=environment["MOONMIND_AGENTMUX_HOME"],
        stdin=inside,
        stdout=inside,
        stderr=inside,
    ):
        os.close(inside)
        said = b""
        with suppress(OSError):  # the other side is closed
            while more := os.read(terminal, 65536):
                said += more
    os.close(terminal)
    return said.decode(errors="replace")


def picture(name: str, title: str, text: str) -> None:
    """Write what a terminal showed as SVG."""
    console = Console(record=True, width=COLUMNS, file=io.StringIO(), force_terminal=True)
    console.print(Text.from_ansi(text.replace("\r", "").strip("\n")))
    console.save_svg(str(PICTURES / f"{name}.svg"), title=title, unique_id=name)


def main() -> None:
    """Run the example half-way, and look at it."""
    PICTURES.mkdir(exist_ok=True)
    with (
        tempfile.TemporaryDirectory(prefix="moonmind-pictures-") as folder,
        LocalPostgres() as server,
    ):
        environment = {
            "PATH": os.environ["PATH"], "LANG": "C.UTF-8", "TERM": "xterm-256color",
            "DATABASE_URL": server.dsn, "MOONMIND_AGENTMUX_HOME": folder,
            "MOONMIND_WORKDIR": f"{folder}/work", "MOONMIND_NOOP_SECONDS": "1.5",
        }  # fmt: skip
        seen(["tasks", "seed", str(EXAMPLE)], environment)
        workers = [
            subprocess.Popen(
                [AGENTMUX, "worker", "--agent", agent, "--worker-id", name],
                env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            )
            for agent, name in (("claude", "claude-1"), ("codex", "codex-1"), ("codex", "codex-2"))
        ]  # fmt: skip
        try:
            with moonmind_queue.connect(server.dsn) as queue:
                eventually(lambda: queue.count_jobs(["succeeded"]) >= 7, within=60)
            picture("ps", "agentmux ps", seen(["ps"], environment))
            picture("status", "agentmux status --watch", seen(["status"], environment))
            picture("graph-text", "agentmux tasks graph", seen(["tasks", "graph"], environment))
            seen(
                ["tasks", "graph", "--format", "svg", "-o", str(PICTURES / "graph.svg")],
                environment,
            )
        finally:
            for worker in workers:
                worker.send_signal(signal.SIGINT)
            for worker in workers:
                worker.wait(20)


if __name__ == "__main__":
    main()
