"""The tools of mcp-artifacts: files below ``artifacts/`` of an Agentmux home, and nothing else."""

import base64
import binascii
import json
from pathlib import Path, PurePosixPath
from typing import Annotated, Any

from pydantic import Field

from moonmind_queue.agentmux.folder import DEEPEST, Folder
from moonmind_queue.errors import ArtifactTooLarge, InvalidArgument
from moonmind_queue.mcp.files import about, nameable, relative
from moonmind_queue.mcp.tools import Arguments, Tool

MOST = 10_000  # paths of a list
OK = {"ok": True}
TOP = "artifacts"

FilePath = Annotated[
    str,
    Field(
        min_length=1,
        max_length=4096,
        description="Path of the file; begins with artifacts/.",
        examples=["artifacts/spec:write/report.json"],
    ),
]


class PutArtifact(Arguments):
    """Store a file, in place of one that is there; folders are made. Answers {ok: true}."""

    path: FilePath
    content_base64: str = Field(
        description="What is to be in it, in base64.", examples=["aGVsbG8K"]
    )


class GetArtifact(Arguments):
    """Read a file. Answers {contentBase64, size}; size is in bytes."""

    path: FilePath


class ListArtifacts(Arguments):
    """List the files below a folder and the folders in it, sorted. Answers {paths}.

    A folder that is not there has no files.
    """

    dir: str = Field(
        min_length=1,
        max_length=4096,
        description="artifacts, or a folder below it.",
        examples=["artifacts", "artifacts/spec:write"],
    )
    pattern: str | None = Field(
        None,
        min_length=1,
        max_length=200,
        description="Only files whose path ends like this; * and ? stand for part of one name.",
        examples=["*.json", "logs/*.txt"],
    )


class WriteJson(Arguments):
    """Store JSON as a file for people to read, too, in place of one that is there.

    Answers {ok: true}.
    """

    path: FilePath
    data: dict[str, Any] | list[Any] = Field(description="A JSON object or array.")


class ReadJson(Arguments):
    """Read a JSON file. Answers {data}."""

    path: FilePath


class Artifacts:
    """Files below ``artifacts/`` in ``home``, each of at most ``limit`` bytes."""

    def __init__(self, home: Path, limit: int) -> None:
        self._home, self._limit = home, limit
        self._folder = Folder(home)

    def tools(self) -> list[Tool]:
        """Return the five tools."""
        return [
            Tool("put_artifact", PutArtifact, self.put_artifact, again=True, destroys=True),
            Tool("get_artifact", GetArtifact, self.get_artifact, reads=True),
            Tool("list_artifacts", ListArtifacts, self.list_artifacts, reads=True),
            Tool("write_json", WriteJson, self.write_json, again=True, destroys=True),
            Tool("read_json", ReadJson, self.read_json, reads=True),
        ]

    def put_artifact(self, asked: PutArtifact) -> dict[str, Any]:
        """Store bytes."""
        self._write(asked.path, decoded(asked.content_base64, self._limit))
        return OK

    def get_artifact(self, asked: GetArtifact) -> dict[str, Any]:
        """Read bytes."""
        content = self._read(asked.path)
        return {"contentBase64": base64.b64encode(content).decode(), "size": len(content)}

    def list_artifacts(self, asked: ListArtifacts) -> dict[str, Any]:
        """List files, but for those whose names no call could have."""
        folder = self._below(asked.dir, file=False)
        found: list[str] = []
        with about(folder):
            for path in self._folder.files(folder):
                inner = PurePosixPath(path).relative_to(folder)
                if asked.pattern and not inner.match(asked.pattern):
                    continue
                if nameable(path):
                    found.append(path)
                if len(found) > MOST:
                    raise InvalidArgument(
                        f"more than {MOST} files: ask for a folder below, or with a pattern"
                    )
        return {"paths": sorted(found)}

    def write_json(self, asked: WriteJson) -> dict[str, Any]:
        """Store JSON, indented, in UTF-8."""
        text = json.dumps(asked.data, indent=2, ensure_ascii=False, allow_nan=False)
        self._write(asked.path, text.encode() + b"\n")
        return OK

    def read_json(self, asked: ReadJson) -> dict[str, Any]:
        """Read JSON."""
        content = self._read(asked.path)
        try:
            return {"data": json.loads(content)}
        except ValueError as error:
            raise InvalidArgument(f"{asked.path} is no JSON: {error}") from None

    def _below(self, path: str, *, file: bool = True) -> str:
        """Return the path below home; refuse one that is not below ``artifacts/``."""
        inner = relative(path, self._home)
        first, *rest = inner.split("/")
        if first != TOP or (file and not rest):
            raise InvalidArgument(f"{path!r} is not below artifacts/: begin the path with it")
        return inner

    def _read(self, path: str) -> bytes:
        inner = self._below(path)
        with about(inner):
            return self._folder.read(inner, self._limit)

    def _write(self, path: str, content: bytes) -> None:
        inner = self._below(path)
        if inner.count("/") > DEEPEST + 1:
            raise InvalidArgument(f"{path!r} is more than {DEEPEST} folders deep")
        if len(content) > self._limit:
            raise _too_large(len(content), self._limit)
        with about(inner):
            self._folder.write(inner, content)


def decoded(text: str, limit: int) -> bytes:
    """Return the bytes of a base64 text, which may be broken into lines, up to ``limit`` of them.

    Raises ``InvalidArgument`` for anything else, and ``ArtifactTooLarge``.
    """
    try:
        content = base64.b64decode(text.replace("\r", "").replace("\n", ""), validate=True)
    except (binascii.Error, ValueError) as error:
        raise InvalidArgument(f"contentBase64 is no base64: {error}") from None
    if len(content) > limit:
        raise _too_large(len(content), limit)
    return content


def _too_large(size: int, limit: int) -> ArtifactTooLarge:
    return ArtifactTooLarge(
        f"{size} bytes are more than the {limit} that are allowed (MOONMIND_ARTIFACT_MAX_BYTES)"
    )
