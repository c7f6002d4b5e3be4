"""Waiting for what another thread or process will bring about, in tests."""

import time
from collections.abc import Callable
from typing import Any


def eventually(check: Callable[[], Any], within: float = 10.0) -> Any:
    """Wait for what another thread or process will bring about, and return it."""
    deadline = time.monotonic() + within
    while not (value := check()):
        assert time.monotonic() < deadline, "it never happened"
        time.sleep(0.005)
    return value
