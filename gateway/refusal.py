"""Refusals that are to make a client come back. A browser's EventSource dies of every status but 200, so it gets a
stream that says when to come again, and ends."""

from __future__ import annotations

from collections.abc import Iterable

import orjson
from starlette.responses import Response

from gateway.core import control, sse
from gateway.core.closing import Closing

EVENT_STREAM = "text/event-stream"


def wants_stream(accept: Iterable[str]) -> bool:
    """Whether a request's `Accept` headers (RFC 9110, section 12.5.1) name an event stream. EventSource's do; `*/*`
    is what scripts send, and those understand a status."""
    ranges = ",".join(accept).split(",")
    return any(each.partition(";")[0].strip().lower() == EVENT_STREAM for each in ranges)


def ended_stream(why: Closing, wait_ms: int) -> Response:
    """The stream that ends at once. `wait_ms`: when to come again, in milliseconds."""
    fields = control.closing(why, wait_ms).fields
    return Response(
        sse.retry(wait_ms) + sse.block(b"natsgate.closing", orjson.dumps(fields), None),
        media_type=EVENT_STREAM,
        headers={
            "cache-control": "no-store, no-transform",
            "x-accel-buffering": "no",
            "x-content-type-options": "nosniff",
            "connection": "close",  # a proxy's next request is to find its way anew
        },
    )
