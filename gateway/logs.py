"""Logs: JSON or console lines on standard error, and a limit for lines that a hostile input could repeat.

Our own lines go to standard error by structlog alone; the way through the standard library's logging costs five times
as much, and a herd that comes back means thousands of lines a second. Warnings of libraries take that way, into the
same format.
"""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Callable
from typing import Any, BinaryIO

import orjson
import structlog
from structlog.typing import EventDict, FilteringBoundLogger, WrappedLogger

Logger = FilteringBoundLogger

_LEVELS = {"debug": 10, "info": 20, "warning": 30, "error": 40, "critical": 50}
_threshold = _LEVELS["info"]


def configure(level: str, fmt: str) -> None:
    """Set up logging for the process: our lines, and warnings of libraries, in one format.

    Args:
        level: the least that is logged, see `set_level`.
        fmt: `json` or `console`.
    """
    set_level(level)
    shared: list[Any] = [structlog.stdlib.add_log_level, structlog.processors.TimeStamper(fmt="iso", utc=True)]
    ours: Any
    theirs: Any
    if fmt == "console":  # its renderer lays out tracebacks itself
        # Plain ones: where rich is installed, tracebacks would show what variables hold, and one holds a token.
        plain = structlog.dev.plain_traceback
        ours = theirs = structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty(), exception_formatter=plain)
    else:
        shared.append(structlog.processors.format_exc_info)
        ours = structlog.processors.JSONRenderer(serializer=_json)
        theirs = structlog.processors.JSONRenderer()
    structlog.configure(
        processors=[_loud_enough, *shared, ours],
        logger_factory=lambda *_: _Lines(sys.stderr.buffer),
        wrapper_class=structlog.make_filtering_bound_logger(logging.NOTSET),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, theirs],
            foreign_pre_chain=shared,
        )
    )
    logging.basicConfig(handlers=[handler], level=logging.WARNING, force=True)
    # Above what clients can cause: uvicorn warns of each malformed request, and its access lines carry queries.
    logging.getLogger("uvicorn").setLevel(logging.ERROR)
    logging.getLogger("websockets").setLevel(logging.CRITICAL)


def set_level(level: str) -> None:
    """What is logged from now on: `debug`, `info`, `warning` or `error`, and all above it."""
    global _threshold
    _threshold = _LEVELS[level]


def heard(level: str) -> bool:
    """Whether a line of this level would be written. For lines that cost something to put together."""
    return _LEVELS[level] >= _threshold


def logger() -> Logger:
    """The logger of natsgate."""
    log: Logger = structlog.get_logger()
    return log


def _loud_enough(_: WrappedLogger, method: str, line: EventDict) -> EventDict:
    if _LEVELS.get(method, _threshold) < _threshold:
        raise structlog.DropEvent
    return line


def _json(line: EventDict, **more: Any) -> bytes:
    try:
        return orjson.dumps(line, **more)
    except TypeError:  # half a surrogate pair, an integer beyond 64 bits: not worth losing the line for
        return json.dumps(line, default=repr).encode("ascii")


class _Lines:
    """Writes whole lines. When nobody takes them any more there is nobody to tell, and the gateway goes on."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream

    def msg(self, line: str | bytes) -> None:
        data = line.encode("utf-8", "backslashreplace") if isinstance(line, str) else line
        try:
            self._stream.write(data + b"\n")
            self._stream.flush()
        except (OSError, ValueError):
            pass  # see above; ValueError: standard error was closed

    debug = info = warning = error = critical = msg


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
