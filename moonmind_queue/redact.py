"""Takes secrets out of text before it reaches a log, a file, an event or an error message.

One :class:`Redactor` stands in front of every sink of a worker. It knows the exact values the
worker holds, in the spellings in which programs repeat them, and the shapes of well-known
tokens. It works line by line: a value that a program breaks over lines is not recognised.
"""

import base64
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any
from urllib.parse import quote, quote_plus, unquote, urlsplit

import psycopg
from psycopg.conninfo import conninfo_to_dict

PLACEHOLDER = "[REDACTED]"
MINIMUM = 6  # characters; a shorter value would take harmless words out of every line

_PLACEHOLDER = PLACEHOLDER.encode()
_DATABASES = ("DATABASE_URL", "MOONMIND_LISTEN_DATABASE_URL")
_SECRET_NAME = re.compile(
    r"(?:^|[_.-])(?:api|pg)?(?:tokens?|secrets?|pass(?:word|wd)?|keys?|credentials?|authorization)"
    r"(?:[_.-]|$)",
    re.IGNORECASE,
)
_HEXADECIMAL = re.compile("%[0-9A-F]{2}")
# A pattern is tried only on a line that holds one of its anchors: looking for a fixed string is
# a hundred times faster, and agents print a lot.
_SHAPES: tuple[tuple[tuple[bytes, ...], re.Pattern[bytes]], ...] = tuple(
    (anchors, re.compile(pattern))
    for anchors, pattern in (
        ((b"ghp_", b"gho_", b"ghu_", b"ghs_", b"ghr_"), rb"\bgh[pousr]_[A-Za-z0-9]{20,}"),
        ((b"github_pat_",), rb"\bgithub_pat_[A-Za-z0-9_]{20,}"),
        ((b"glpat-",), rb"\bglpat-[A-Za-z0-9_-]{20,}"),
        ((b"sk-",), rb"\bsk-[A-Za-z0-9_-]{16,}"),
        ((b"AKIA", b"ASIA"), rb"\bA(?:KI|SI)A[A-Z0-9]{16}\b"),
        ((b"AIza",), rb"\bAIza[A-Za-z0-9_-]{35}"),
        ((b"xox",), rb"\bxox[abeoprs]-[A-Za-z0-9-]{10,}"),
        ((b"eyJ",), rb"\beyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]*"),
        ((b"earer ",), rb"(?<=[Bb]earer )[A-Za-z0-9._~+/=-]{16,}"),
        ((b"://",), rb"(?<=://)[^\s/:@\"']{1,256}:[^\s/@\"']{1,256}(?=@)"),
    )
)


class Redactor:
    """Replaces secrets by ``[REDACTED]``."""

    def __init__(self, secrets: Iterable[str]) -> None:
        forms = {form for secret in secrets for form in _forms(secret)}
        # The longest first, so that no part of a value is left when another lies within it.
        self._forms = sorted(forms, key=lambda form: (-len(form), form))

    def text(self, text: str) -> str:
        """Redact a text."""
        return self.line(text.encode(errors="surrogateescape")).decode(errors="surrogateescape")

    def line(self, data: bytes) -> bytes:
        """Redact a line: the exact values and everything that has the shape of a token."""
        data = self.exact(data)
        for anchors, pattern in _SHAPES:
            if any(anchor in data for anchor in anchors):
                data = pattern.sub(_PLACEHOLDER, data)
        return data

    def exact(self, data: bytes) -> bytes:
        """Redact the exact values only, for content that a wrong guess would spoil."""
        for form in self._forms:
            if form in data:
                data = data.replace(form, _PLACEHOLDER)
        return data


def environment_secrets(environ: Mapping[str, str]) -> Iterator[str]:
    """Yield the values of variables that are secret by name, and every password in a URL."""
    for name, value in environ.items():
        if name in _DATABASES:
            yield from _database_secrets(value)
        elif _SECRET_NAME.search(name):
            yield value
        if "://" in value and "@" in value:
            yield from _url_secrets(value)


def stored_secrets(tree: Any) -> Iterator[str]:
    """Yield the strings that stand under a secret name in parsed JSON or TOML."""
    if isinstance(tree, dict):
        for name, value in tree.items():
            # ``env_key`` and ``bearer_token_env_var`` name a variable, they are not its value.
            if isinstance(value, str) and _SECRET_NAME.search(name) and "env_" not in name:
                yield value
            else:
                yield from stored_secrets(value)
    elif isinstance(tree, list):
        for value in tree:
            yield from stored_secrets(value)


def _database_secrets(value: str) -> Iterator[str]:
    yield value
    scheme, separator, rest = value.partition("://")
    url = f"{scheme.partition('+')[0]}://{rest}" if separator else value
    yield url
    try:
        password = conninfo_to_dict(url).get("password")
    except psycopg.Error:
        return  # the settings refuse it in words; the whole value is a secret already
    if password:
        yield str(password)


def _url_secrets(value: str) -> Iterator[str]:
    try:
        password = urlsplit(value).password
    except ValueError:
        return
    if password:
        yield password
        yield unquote(password)


def _forms(secret: str) -> Iterator[bytes]:
    """Yield the spellings of a secret; each line of a long one (a PEM key) counts by itself."""
    for part in {secret.strip(), *(line.strip() for line in secret.splitlines())}:
        if len(part) < MINIMUM:
            continue
        for form in (part, *_quoted(part), *_escaped(part)):
            yield form.encode(errors="surrogateescape")
        yield from _base64_forms(part.encode(errors="surrogateescape"))


def _quoted(text: str) -> Iterator[str]:
    """Yield what programs make of a text in a URL."""
    for form in (quote(text), quote(text, safe=""), quote_plus(text)):
        yield form
        yield _HEXADECIMAL.sub(lambda digits: digits[0].lower(), form)


def _escaped(text: str) -> Iterator[str]:
    """Yield what programs make of a text in JSON, and in JSON that stands in JSON as a string."""
    for ascii_only in (True, False):
        once = json.dumps(text, ensure_ascii=ascii_only)[1:-1]
        twice = json.dumps(once, ensure_ascii=ascii_only)[1:-1]
        yield from (once, twice, once.replace("/", r"\/"))


def _base64_forms(secret: bytes) -> Iterator[bytes]:
    """Yield what base64 makes of a secret wherever it begins in a longer text.

    ``user:token`` in a Basic header is the usual case. Of each of the three alignments the
    characters that only the secret decides are kept.
    """
    for offset in range(3):
        encoded = base64.b64encode(bytes(offset) + secret).rstrip(b"=")
        whole = encoded[-(-offset * 8 // 6) : (offset + len(secret)) * 8 // 6]
        if len(whole) >= MINIMUM:
            yield whole
            yield whole.translate(bytes.maketrans(b"+/", b"-_"))
