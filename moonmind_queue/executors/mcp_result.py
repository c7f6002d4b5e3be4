"""What a tool answered, as artifacts and as the job's result.

======================  ====================================================================
``response.json``       the whole answer
``structured.json``     its structured content
``content/0.txt`` …     each text, image, sound or embedded resource, decoded, by its place
======================  ====================================================================

Secrets are taken out of everything. Each file is whole or it is not stored, and then the job says
so. Where the whole answer is larger than an artifact may be, ``response.json`` refers to the other
files instead of repeating them.
"""

import base64
import binascii
import json
import math
import mimetypes
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from moonmind_queue.redact import Redactor

FILES = 100  # files of one answer; what comes after them is in response.json only
TEXT_LIMIT = 4000  # characters of text in the job's result
STRUCTURED_LIMIT = 16 * 1024  # characters of structured content there, as JSON

RESPONSE = "response.json"
STRUCTURED = "structured.json"

_ENCODED = ("data", "blob")  # members of a block that hold base64
_TYPE = re.compile(r"[a-z0-9][a-z0-9.+-]*/[a-z0-9][a-z0-9.+-]*")
# What Python's own table leaves to the machine, or knows by another name.
_EXTENSIONS = {
    "text/plain": ".txt",
    "text/markdown": ".md",
    "image/jpeg": ".jpg",
    "image/webp": ".webp",
    "audio/wav": ".wav",
    "audio/mpeg": ".mp3",
    "audio/ogg": ".ogg",
    "text/javascript": ".js",
    "application/xml": ".xml",
    "application/octet-stream": ".bin",
    "application/yaml": ".yaml",
}


@dataclass(frozen=True, slots=True)
class File:
    """One artifact."""

    name: str
    content_type: str
    content: bytes = field(repr=False)


class Response:
    """A tool's answer, redacted; ``result`` is what the server sent."""

    def __init__(self, result: Mapping[str, Any], redactor: Redactor, limit: int) -> None:
        self._redactor, self._limit = redactor, limit
        self._content = [self._clean_block(block) for block in result.get("content") or []]
        self._result = {
            self._clean(name): self._content if name == "content" else self._clean(value)
            for name, value in result.items()
        }

    @property
    def is_error(self) -> bool:
        """Whether the tool says that it failed."""
        return self._result.get("isError") is True

    @property
    def structured(self) -> Any:
        """The structured content, or ``None``."""
        return self._result.get("structuredContent")

    @property
    def text(self) -> str:
        """All texts, one below the other."""
        return "\n".join(
            block["text"] for block in self._content if block.get("type") == "text"
        ).strip()

    def files(self) -> Iterator[File]:
        """Yield the artifacts, the whole answer last."""
        parts = list(self._parts())
        for _, file in parts:
            yield file
        if self.structured is not None:
            yield File(STRUCTURED, "application/json", _json(self.structured))
        whole = _json(self._result)
        if len(whole) > self._limit:
            whole = _json(self._referring(dict(parts)))
        yield File(RESPONSE, "application/json", whole)

    def summary(self) -> dict[str, Any]:
        """Return what of the answer belongs into the job's result."""
        summary: dict[str, Any] = {}
        structured = self.structured
        if structured is not None and len(_json(structured)) <= STRUCTURED_LIMIT:
            summary["structured"] = _storable(structured)
        if text := self.text:
            cut = f" [... {len(text) - TEXT_LIMIT} characters cut ...]"
            summary["text"] = _storable(
                text if len(text) <= TEXT_LIMIT else text[:TEXT_LIMIT] + cut
            )
        return summary

    def _parts(self) -> Iterator[tuple[int, File]]:
        for place, block in enumerate(self._content[:FILES]):
            source = block["resource"] if block.get("type") == "resource" else block
            content, default = _content(source)
            if content is None:
                continue
            stated = str(source.get("mimeType") or default).partition(";")[0].strip().lower()
            content_type = stated if _TYPE.fullmatch(stated) and len(stated) <= 100 else default
            yield place, File(f"content/{place}{_extension(content_type)}", content_type, content)

    def _referring(self, files: Mapping[int, File]) -> dict[str, Any]:
        """Return the answer with names of files in the place of what they hold."""
        content = [
            {
                "type": block.get("type"),
                "artifact": files[place].name,
                "bytes": len(files[place].content),
            }
            if place in files
            else block
            for place, block in enumerate(self._content)
        ]
        referring = {**self._result, "content": content}
        if self.structured is not None:
            referring["structuredContent"] = {"artifact": STRUCTURED}
        return referring

    def _clean_block(self, block: Mapping[str, Any]) -> dict[str, Any]:
        """Redact one block; a resource is one within one."""
        return {
            self._clean(name): self._clean_block(value)
            if name == "resource" and isinstance(value, Mapping)
            else self._clean_encoded(value)
            if name in _ENCODED and isinstance(value, str)
            else self._clean(value)
            for name, value in block.items()
        }

    def _clean(self, value: Any) -> Any:
        if isinstance(value, str):
            return self._redactor.text(value.encode(errors="replace").decode())
        if isinstance(value, Mapping):
            return {self._clean(name): self._clean(each) for name, each in value.items()}
        if isinstance(value, list):
            return [self._clean(each) for each in value]
        if isinstance(value, float) and not math.isfinite(value):
            return None  # JSON has no such number
        return value

    def _clean_encoded(self, text: str) -> str:
        """Redact exact secrets only: what merely has the shape of one may be part of a picture."""
        decoded = _decoded(text)
        if decoded is not None and (clean := self._redactor.exact(decoded)) != decoded:
            text = base64.b64encode(clean).decode()
        return self._redactor.exact(text.encode(errors="replace")).decode()


def _content(source: Mapping[str, Any]) -> tuple[bytes | None, str]:
    """Return the bytes of a block and the type to suppose; no bytes for what only refers."""
    if isinstance(text := source.get("text"), str):
        return text.encode(), "text/plain"
    encoded = source.get("data", source.get("blob"))
    content = _decoded(encoded) if isinstance(encoded, str) else None
    return content, "application/octet-stream"


def _decoded(text: str) -> bytes | None:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        return None


def _extension(content_type: str) -> str:
    if content_type in _EXTENSIONS:
        return _EXTENSIONS[content_type]
    # A table of its own: the shared one also reads files of the machine.
    return mimetypes.MimeTypes().guess_extension(content_type, strict=False) or ".bin"


def _json(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False, indent=2).encode() + b"\n"


def _storable(value: Any) -> Any:
    """Return a value as PostgreSQL's JSON can hold it: without NUL."""
    if isinstance(value, str):
        return value.replace("\0", "\N{REPLACEMENT CHARACTER}")
    if isinstance(value, Mapping):
        return {_storable(name): _storable(each) for name, each in value.items()}
    if isinstance(value, list):
        return [_storable(each) for each in value]
    return value
