"""Call MCP servers that are written in TypeScript, from npm: what CI checks of mcp-call besides.

Apart from the test-suite, which needs no Node.js: this needs node, npm and the npm registry.
"""

import json
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT / "tests" / "executors"))

from mcp_bench import Bench  # noqa: E402 - it stands beside the tests that use it most

PACKAGES = [
    "@modelcontextprotocol/server-everything@2026.8.31",
    "@modelcontextprotocol/server-filesystem@2026.8.31",
]


def main() -> None:
    """Install the servers and let each do what it is for."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name).resolve()
        (folder / "package.json").write_text(json.dumps({"private": True}))
        install = ["npm", "install", "--no-audit", "--no-fund", "--silent", *PACKAGES]
        subprocess.run(install, cwd=folder, check=True)
        bins = folder / "node_modules" / ".bin"
        data = folder / "data"
        data.mkdir()
        bench = Bench(
            folder,
            {
                "everything": {"command": str(bins / "mcp-server-everything"), "args": ["stdio"]},
                "files": {"command": str(bins / "mcp-server-filesystem"), "args": [str(data)]},
            },
        )
        check_everything(bench)
        check_files(bench, data)
    print("both servers from npm answer")


def check_everything(bench: Bench) -> None:
    """Text, structured content, a picture, a resource and progress."""
    echo = bench.call("echo", {"message": "grüß dich"}, server="everything")
    assert "grüß dich" in echo.result["text"], echo

    sums = bench.call("get-sum", {"a": 2, "b": 40}, server="everything")
    assert "42" in sums.result["text"], sums

    weather = bench.call("get-structured-content", {"location": "New York"}, server="everything")
    assert "temperature" in weather.result["structured"], weather

    picture = bench.call("get-tiny-image", server="everything")
    [name] = [each for each in picture.result["artifacts"] if each.endswith(".png")]
    assert picture.context.files[name].startswith(b"\x89PNG"), name

    long = bench.call(
        "trigger-long-running-operation", {"duration": 0.2, "steps": 2}, server="everything"
    )
    assert ("info", "progress 2/2", {"progress": 2, "total": 2}) in long.context.events, long


def check_files(bench: Bench, data: Path) -> None:
    """A file is written and read; one outside of the allowed folder is refused."""
    path = data / "note.txt"
    arguments = {"path": str(path), "content": "kept"}
    assert bench.call("write_file", arguments, server="files").result["status"] == "ok"
    assert path.read_text() == "kept"

    read = bench.call("read_text_file", {"path": str(path)}, server="files")
    assert read.result["text"] == "kept", read

    outside = bench.call("read_text_file", {"path": "/etc/hostname"}, server="files")
    assert "outside allowed directories" in str(outside.outcome), outside


if __name__ == "__main__":
    main()
