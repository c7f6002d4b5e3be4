"""Call MCP servers that others wrote, from PyPI and npm: what CI checks of mcp-call besides.

Apart from the test-suite, which needs no registry: this needs uv, node, npm and both registries.
Arguments are pytest's: ``tools/test_mcp_servers.py -k git``.
"""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parent.parent
PYPI = ["mcp-server-git==2026.10.19", "mcp-server-time==2026.10.19"]
NPM = [
    "@modelcontextprotocol/server-everything@2026.8.31",
    "@modelcontextprotocol/server-filesystem@2026.8.31",
]
DAY = "2026-11-22"  # nothing newer: what these need must not change under CI


def main() -> int:
    """Install the servers, each kind in an environment of its own, and run their tests."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name).resolve()
        install_from_pypi(folder)
        install_from_npm(folder)
        tests = [sys.executable, "-m", "pytest", "-v", "tests/executors/test_mcp_servers.py"]
        environment = {**os.environ, "MOONMIND_TEST_MCP_SERVERS": str(folder)}
        done = subprocess.run([*tests, *sys.argv[1:]], cwd=ROOT, env=environment, check=False)
    return done.returncode


def install_from_pypi(folder: Path) -> None:
    """Install programs into ``python/bin``."""
    uv = [sys.executable, "-m", "uv", "--quiet"]
    subprocess.run([*uv, "venv", "--python", sys.executable, str(folder / "python")], check=True)
    python = str(folder / "python" / "bin" / "python")
    install = [*uv, "pip", "install", "--exclude-newer", DAY, "--python", python]
    subprocess.run([*install, *PYPI], check=True)


def install_from_npm(folder: Path) -> None:
    """Install programs into ``node_modules/.bin``."""
    (folder / "package.json").write_text(json.dumps({"private": True}))
    install = ["npm", "install", "--no-audit", "--no-fund", "--silent", "--before", DAY]
    subprocess.run([*install, *NPM], cwd=folder, check=True)


if __name__ == "__main__":
    sys.exit(main())
