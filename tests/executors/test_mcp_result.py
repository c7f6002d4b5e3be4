"""What a tool answers becomes artifacts and a result, whole and without secrets."""

import base64
import json
from typing import Any

import pytest

from moonmind_queue.executors.mcp_result import File, Response
from moonmind_queue.redact import Redactor

SECRET = "s3cretvalue"
SHAPED = "ghp_0123456789abcdefghij0123"


def response(*content: dict[str, Any], limit: int = 100_000, **more: Any) -> Response:
    """Return an answer that a redactor of one secret has seen."""
    return Response({"content": list(content), **more}, Redactor([SECRET]), limit)


def text(value: str) -> dict[str, Any]:
    """Return a block of text."""
    return {"type": "text", "text": value}


def image(data: bytes, mime: str = "image/png") -> dict[str, Any]:
    """Return a picture."""
    return {"type": "image", "data": base64.b64encode(data).decode(), "mimeType": mime}


def resource(**contents: Any) -> dict[str, Any]:
    """Return an embedded resource."""
    return {"type": "resource", "resource": {"uri": "x://y", **contents}}


def files(of: Response) -> dict[str, File]:
    """Return the artifacts by name."""
    return {file.name: file for file in of.files()}


def test_the_whole_answer_is_kept() -> None:
    """response.json holds everything as it came, indented, in UTF-8, what is unknown included."""
    answer = {"content": [text("Ä")], "isError": False, "_meta": {"x": [1, None]}, "new": {"a": 1}}

    whole = files(Response(answer, Redactor([]), 10_000))["response.json"]

    assert whole.content_type == "application/json"
    assert json.loads(whole.content) == answer
    assert "Ä" in whole.content.decode()
    assert whole.content.startswith(b'{\n  "content"')


@pytest.mark.parametrize(
    ("block", "name", "content_type", "content"),
    [
        (text("hello"), "content/0.txt", "text/plain", b"hello"),
        (image(b"\x89PNG"), "content/0.png", "image/png", b"\x89PNG"),
        (image(b"J", "image/jpeg"), "content/0.jpg", "image/jpeg", b"J"),
        (image(b"W", "IMAGE/WEBP; q=1"), "content/0.webp", "image/webp", b"W"),
        (image(b"?", "no type"), "content/0.bin", "application/octet-stream", b"?"),
        (image(b"?", "a/" + "b" * 200), "content/0.bin", "application/octet-stream", b"?"),
        (image(b"?", "x-odd/thing"), "content/0.bin", "x-odd/thing", b"?"),
        (resource(text="# A", mimeType="text/markdown"), "content/0.md", "text/markdown", b"# A"),
        (resource(text="a"), "content/0.txt", "text/plain", b"a"),
        (resource(text="<p>", mimeType="text/html"), "content/0.html", "text/html", b"<p>"),
        (resource(blob="JVBERg=="), "content/0.bin", "application/octet-stream", b"%PDF"),
        (
            resource(blob="JVBERg==", mimeType="application/pdf"),
            "content/0.pdf", "application/pdf", b"%PDF",
        ),
    ],
)  # fmt: skip
def test_each_block_is_a_file(
    block: dict[str, Any], name: str, content_type: str, content: bytes
) -> None:
    """Text, pictures and resources are decoded, with the right type and extension."""
    made = files(response(block))[name]
    assert (made.content_type, made.content) == (content_type, content)


def test_files_are_numbered_by_their_place() -> None:
    """A block that only refers, or cannot be decoded, makes no file and moves no number."""
    link = {"type": "resource_link", "uri": "https://example.com", "name": "there"}
    broken = {"type": "image", "data": "no base64!", "mimeType": "image/png"}
    made = files(response(link, text("a"), broken, text("b")))
    assert list(made) == ["content/1.txt", "content/3.txt", "response.json"]


@pytest.mark.parametrize("value", [{"a": 1}, [], 0, False, "x"])
def test_structured_content(value: Any) -> None:
    """Structured content of any kind has a file of its own and is in the result."""
    made = response(text("t"), structuredContent=value)
    assert json.loads(files(made)["structured.json"].content) == value
    assert made.summary() == {"structured": value, "text": "t"}


def test_the_result_is_small() -> None:
    """Of long texts the result has the beginning; large structured content is in its file only."""
    made = response(text("x" * 5000), structuredContent={"a": "y" * 20_000})
    assert made.summary() == {"text": "x" * 4000 + " [... 1000 characters cut ...]"}
    assert len(files(made)["structured.json"].content) > 20_000


def test_the_result_can_be_stored() -> None:
    """What PostgreSQL's JSON cannot hold is replaced: NUL, half a character, no number."""
    made = response(text("a\0b\ud800"), structuredContent={"n\0": [float("nan"), "\0"]})
    assert made.summary() == {
        "structured": {"n\N{REPLACEMENT CHARACTER}": [None, "\N{REPLACEMENT CHARACTER}"]},
        "text": "a\N{REPLACEMENT CHARACTER}b?",
    }
    assert json.loads(files(made)["structured.json"].content) == {"n\0": [None, "\0"]}


def test_secrets_are_taken_out_of_everything() -> None:
    """Neither text, keys, structured content, a resource's bytes nor base64 show a secret."""
    hidden = base64.b64encode(f"key={SECRET}".encode()).decode()
    made = response(
        text(f"it is {SECRET} and {SHAPED}"),
        resource(blob=hidden, _meta={"note": SECRET}),
        image(f"..{SECRET}..".encode()),
        {"type": "image", "data": SECRET, "mimeType": "image/png"},
        {"type": "text", "text": "", SECRET: 1},
        structuredContent={SECRET: [{"data": SECRET, "deep": hidden}]},
        **{SECRET: 1},
        _meta={"log": f"token {SHAPED}"},
    )

    stored = b"".join(file.content for file in made.files()).decode() + repr(made.summary())

    assert SECRET not in stored
    assert SHAPED not in stored
    assert hidden not in stored
    assert files(made)["content/1.bin"].content == b"key=[REDACTED]"
    assert files(made)["content/0.txt"].content == b"it is [REDACTED] and [REDACTED]"


def test_a_picture_is_not_spoilt() -> None:
    """Bytes that only look like a token stay as they are, decoded and in the whole answer."""
    block = image(SHAPED.encode())
    made = files(response(block))
    assert made["content/0.png"].content == SHAPED.encode()
    assert json.loads(made["response.json"].content)["content"] == [block]


def test_an_answer_too_large_to_be_kept_twice() -> None:
    """Where the whole would be too large it names the other files, which hold the rest."""
    made = files(
        response(text("x" * 800), image(b"y" * 800), structuredContent={"z": "z" * 800}, limit=1000)
    )
    whole = json.loads(made["response.json"].content)
    assert whole == {
        "content": [
            {"type": "text", "artifact": "content/0.txt", "bytes": 800},
            {"type": "image", "artifact": "content/1.png", "bytes": 800},
        ],
        "structuredContent": {"artifact": "structured.json"},
    }
    assert all(len(file.content) <= 1000 for file in made.values())


def test_the_number_of_files_is_bounded() -> None:
    """Of a thousand blocks the first hundred are files; all are in the whole answer."""
    made = files(response(*(text(str(place)) for place in range(1000))))
    assert len(made) == 101
    assert len(json.loads(made["response.json"].content)["content"]) == 1000
