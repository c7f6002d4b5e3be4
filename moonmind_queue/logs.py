"""Log set-up: for people on a terminal, JSON lines for everything else."""

import logging
import sys
from collections.abc import Callable
from typing import TextIO

import structlog
from structlog.typing import EventDict, WrappedLogger


def setup(
    stream: TextIO = sys.stderr,
    *,
    level: int = logging.INFO,
    redact: Callable[[str], str] = str,
) -> None:
    """Send structured logs to ``stream``; every finished line goes through ``redact`` first."""
    render: structlog.typing.Processor
    if stream.isatty():
        render = structlog.dev.ConsoleRenderer()
    else:
        render = structlog.processors.JSONRenderer()

    def redacted(_: WrappedLogger, __: str, event: EventDict) -> str:
        return redact(str(render(_, __, event)))

    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            redacted,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.WriteLoggerFactory(file=stream),
        cache_logger_on_first_use=True,
    )
