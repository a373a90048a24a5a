"""Logs: JSON or console lines on standard error, and a limit for lines that a hostile input could repeat."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable
from typing import Any

import structlog

Logger = structlog.stdlib.BoundLogger


def configure(level: str, fmt: str) -> None:
    """Set up logging for the process: our lines, and warnings of libraries, in one format."""
    shared: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info,
    ]
    renderer: Any = structlog.processors.JSONRenderer()
    if fmt == "console":
        renderer = structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())
        shared.pop()  # the console renderer lays out tracebacks itself
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, renderer],
            foreign_pre_chain=shared,
        )
    )
    logging.basicConfig(handlers=[handler], level=logging.WARNING, force=True)
    logging.getLogger("natsgate").setLevel(level.upper())
    # Above what clients can cause: uvicorn warns of each malformed request, and its access lines carry queries.
    logging.getLogger("uvicorn").setLevel(logging.ERROR)
    logging.getLogger("websockets").setLevel(logging.CRITICAL)


def logger() -> Logger:
    """The logger of natsgate."""
    log: Logger = structlog.get_logger("natsgate")
    return log


class Seldom:
    """Lets one line of a kind through per interval, and says how many it held back.

    Args:
        now: monotonic seconds.
        interval_s: the shortest time between two lines of one kind.
    """

    def __init__(self, now: Callable[[], float], interval_s: float = 5.0) -> None:
        self._now = now
        self._interval_s = interval_s
        self._kinds: dict[str, tuple[float, int]] = {}

    def due(self, kind: str) -> int | None:
        """How many of this kind were held back since the last line, when one is due; else None.

        Kinds come from a closed set: this keeps one entry for each.
        """
        at, held = self._kinds.get(kind, (float("-inf"), 0))
        if self._now() - at < self._interval_s:
            self._kinds[kind] = (at, held + 1)
            return None
        self._kinds[kind] = (self._now(), 0)
        return held
