"""Secrets that no output may show."""

import base64
import json
import os
import re
from collections.abc import Callable
from itertools import pairwise
from urllib.parse import quote, quote_plus

import pytest
from hypothesis import given, settings
from hypothesis.strategies import (
    binary,
    booleans,
    characters,
    integers,
    lists,
    sampled_from,
    text,
)

from moonmind_queue.executors.lines import Lines
from moonmind_queue.redact import PLACEHOLDER, Redactor, environment_secrets, stored_secrets

SECRET = 'p/w"d+ with ü'


@pytest.mark.parametrize(
    "spelling",
    [
        SECRET,
        json.dumps(SECRET)[1:-1],
        json.dumps(SECRET, ensure_ascii=False)[1:-1],
        quote(SECRET),
        quote(SECRET, safe=""),
        base64.b64encode(SECRET.encode()).decode().rstrip("="),
    ],
)
def test_every_spelling(spelling: str) -> None:
    """A secret is found as it is, in JSON, in a URL and in base64."""
    assert Redactor([SECRET]).text(f"a {spelling} b").startswith("a [REDACTED]")


@pytest.mark.parametrize("user", ["", "x", "ab", "x-access-token"])
def test_inside_base64(user: str) -> None:
    """A secret is found in a Basic header whatever stands in front of it."""
    header = base64.b64encode(f"{user}:correct-horse:tail".encode()).decode()
    redacted = Redactor(["correct-horse"]).text(header)
    assert "[REDACTED]" in redacted
    assert b"rrect-hor" not in base64.b64decode(redacted.replace("[REDACTED]", "AAAA") + "==")


@pytest.mark.parametrize(
    "token",
    [
        "ghp_" + "a1" * 18,
        "ghs_" + "a1" * 18,
        "github_pat_" + "a1_" * 20,
        "glpat-" + "a1" * 10,
        "sk-proj-" + "a1" * 20,
        "AKIA" + "A1B2" * 4,
        "AIza" + "a" * 35,
        "xoxb-123456789012-abc",
        "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.c2lnbmF0dXJl",
    ],
)
def test_shapes(token: str) -> None:
    """A well-known token is taken out although nobody named it."""
    assert Redactor([]).line(f"use {token}, now".encode()) == b"use [REDACTED], now"


@pytest.mark.parametrize(
    ("line", "redacted"),
    [
        ("Authorization: Bearer abcdefghijklmnop1", "Authorization: Bearer [REDACTED]"),
        ("git clone https://u:pw@host/x", "git clone https://[REDACTED]@host/x"),
        ("task-list, disk-usage and risk-free-of-charge-for-all", None),
        ("sk-short, ghp_short, https://host:80/path", None),
    ],
)
def test_lines(line: str, redacted: str | None) -> None:
    """Headers and URLs lose their credentials; words that merely look alike stay."""
    assert Redactor([]).text(line) == (redacted or line)


def test_longest_first() -> None:
    """A secret that holds another is taken out as a whole."""
    assert Redactor(["secret", "secret-longer"]).text("secret-longer") == "[REDACTED]"


def test_short_values_stay() -> None:
    """A value shorter than six characters would take words out of every line."""
    assert Redactor(["a", "", "12345"]).text("a 12345") == "a 12345"


def test_lines_of_a_key() -> None:
    """Each line of a secret of several lines counts."""
    assert Redactor(["-----BEGIN-----\nabcdefgh\n"]).text("x abcdefgh") == "x [REDACTED]"


def test_bytes_that_are_no_text() -> None:
    """What is not UTF-8 passes through unchanged."""
    assert Redactor(["secret-word"]).line(b"\xff secret-word \xfe") == b"\xff [REDACTED] \xfe"


def test_environment() -> None:
    """Secrets of the environment: by name, and the password of every URL."""
    environ = {
        "DATABASE_URL": "postgresql+psycopg://u:pass%2Fword@h/db",
        "MOONMIND_LISTEN_DATABASE_URL": "host=h password='a secret'",
        "PGPASSWORD": "from-pg",
        "MY_API_KEY": "from-key",
        "AWS_SECRET_ACCESS_KEY": "from-aws",
        "HTTPS_PROXY": "http://u:proxy-pw@p:3128",
        "MONKEY": "banana",
        "PATH": "/usr/bin",
    }
    found = set(environment_secrets(environ))
    assert found >= {"pass/word", "a secret", "from-pg", "from-key", "from-aws", "proxy-pw"}
    assert environ["DATABASE_URL"] in found
    assert not found & {"banana", "/usr/bin"}


def test_stored() -> None:
    """Secrets of files: what stands under a secret name, but not names of variables."""
    tree = {
        "OPENAI_API_KEY": "key-1",
        "tokens": {"access_token": "key-2", "account_id": "no"},
        "model_providers": {"x": {"env_key": "NAME", "experimental_bearer_token": "key-3"}},
        "list": [{"http_headers": {"Authorization": "key-4"}}],
    }
    assert set(stored_secrets(tree)) == {"key-1", "key-2", "key-3", "key-4"}


def lowered(text: str) -> str:
    """Quote as programs do that write hexadecimal digits in lower case."""
    return re.sub("%..", lambda match: match[0].lower(), quote(text, safe=""))


SPELLINGS: list[Callable[[str], str]] = [
    str,
    quote,
    lowered,
    quote_plus,
    lambda text: quote(text, safe=""),
    lambda text: json.dumps(text)[1:-1],
    lambda text: json.dumps(text, ensure_ascii=False)[1:-1],
    lambda text: json.dumps(text)[1:-1].replace("/", r"\/"),
    lambda text: json.dumps(json.dumps(text)[1:-1])[1:-1],
]
EXAMPLES = 100_000 if os.environ.get("MOONMIND_PROVE") else 500
# Anything that an environment variable can hold, but line breaks: each line counts by itself.
secrets = (
    text(characters(exclude_categories=("Cc", "Zl", "Zp", "Cs")), min_size=6, max_size=40)
    .map(str.strip)
    .filter(lambda value: len(value) >= 6)
    .filter(
        lambda value: not any(f in PLACEHOLDER for f in (value, *(s(value) for s in SPELLINGS)))
    )
)
noise = binary(max_size=40).map(lambda data: data.replace(b"\n", b" "))


def printed(secrets: list[str], data: bytes, cuts: list[int]) -> bytes:
    """Return what becomes of a program's output that comes in pieces."""
    redactor, output = Redactor(secrets), list[bytes]()
    lines = Lines(lambda line: output.append(redactor.line(line)))
    for start, end in pairwise([0, *sorted({cut % (len(data) + 1) for cut in cuts}), len(data)]):
        lines.feed(data[start:end])
    lines.end()
    return b"\n".join(output)


@settings(max_examples=EXAMPLES, deadline=None)
@given(
    lists(secrets, min_size=1, max_size=3),
    sampled_from(SPELLINGS),
    noise,
    noise,
    lists(integers(0)),
)
def test_no_spelling_gets_through(
    held: list[str], spell: Callable[[str], str], before: bytes, after: bytes, cuts: list[int]
) -> None:
    """Whatever the secret is, stands around it, breaks the UTF-8, or cuts the output to pieces."""
    spelt = spell(held[0]).encode()

    assert spelt not in printed(held, before + spelt + after, cuts)


@settings(max_examples=EXAMPLES, deadline=None)
@given(secrets, binary(max_size=7), binary(max_size=7), booleans(), lists(integers(0)))
def test_no_base64_gets_through(
    secret: str, before: bytes, after: bytes, url: bool, cuts: list[int]
) -> None:
    """Wherever the secret lies in what was encoded: no character that it alone decides is left."""
    encode = base64.urlsafe_b64encode if url else base64.b64encode
    encoded = encode(before + secret.encode() + after)
    end = len(before) + len(secret.encode())
    own = encoded[-(-len(before) * 8 // 6) : end * 8 // 6]

    assert own not in printed([secret], encoded, cuts)
