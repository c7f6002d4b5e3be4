"""What goes into the database: text and JSON that it can store, files that are what they seem."""

import json
import os
import stat
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from io import BufferedReader, BytesIO
from pathlib import Path
from typing import Any

from psycopg.types.json import Jsonb

from moonmind_queue import errors


def to_json(value: Mapping[str, Any] | list[Any]) -> Jsonb:
    """Return a JSON value as PostgreSQL takes it; instants are written in ISO form."""
    return Jsonb(value, _dumps)


def storable(value: Any) -> Any:
    """Replace what PostgreSQL cannot store in text: NUL and halves of surrogate pairs."""
    if isinstance(value, str):
        return value.replace("\0", "\N{REPLACEMENT CHARACTER}").encode(errors="replace").decode()
    if isinstance(value, Mapping):
        return {storable(key): storable(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [storable(item) for item in value]
    return value


def bigints(numbers: Iterable[int]) -> str:
    """Return an array as PostgreSQL reads it: ten times as fast as the driver's way of a list."""
    return f"{{{','.join(map(str, numbers))}}}"


def jsonbs(values: Iterable[Mapping[str, Any]]) -> str:
    """Return an array of JSON objects as PostgreSQL reads it; an empty one is null there."""
    return f"{{{','.join(map(_quoted, values))}}}"


def _quoted(value: Mapping[str, Any]) -> str:
    if not value:
        return "null"
    text = _dumps(value).replace("\\", "\\\\").replace('"', '\\"')
    return f'"{text}"'


def json_text(value: Jsonb) -> str:
    """Return a value of :func:`to_json` as text, for drivers that know nothing of ``Jsonb``."""
    return _dumps(value.obj)


def _dumps(value: Any) -> str:
    text = _encode(value)
    # As JSON, what cannot be stored begins like this; most values need no second look.
    return _encode(storable(value)) if "\\u0000" in text or "\\ud" in text else text


def _plain(value: Any) -> str:
    return value.isoformat() if isinstance(value, datetime) else str(value)


_encode = json.JSONEncoder(default=_plain).encode


@contextmanager
def opened(source: Path | bytes) -> Iterator[tuple[BufferedReader | BytesIO, int]]:
    """Lend a stream and its size; refuse anything but a regular file, links included."""
    if isinstance(source, bytes):
        yield BytesIO(source), len(source)
        return
    try:
        # An agent may have put a link to a secret, or a pipe that never ends, in its place.
        descriptor = os.open(source, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError as error:
        raise errors.InvalidArgument(f"{source.name} cannot be stored: {error.strerror}") from error
    status = os.fstat(descriptor)
    if not stat.S_ISREG(status.st_mode):
        os.close(descriptor)
        raise errors.InvalidArgument(f"{source.name} cannot be stored: not a regular file")
    with os.fdopen(descriptor, "rb") as stream:
        yield stream, status.st_size
