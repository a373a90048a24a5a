"""Replies: the answers of HTTP that are no stream. Errors are `application/problem+json` (RFC 9457)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import orjson
from starlette.requests import HTTPConnection
from starlette.responses import Response

from gateway.core import sse
from gateway.core.closing import Closing
from gateway.core.errors import ClientError, ComeBack, Unauthorized, UpgradeRequired
from gateway.core.response_headers import OF_DATA
from gateway.transports.sse import farewell_block


def problem(status: int, title: str, detail: str, headers: Mapping[str, str] | None = None) -> Response:
    """An error answer."""
    content = {"type": "about:blank", "title": title, "status": status, "detail": detail}
    return Response(
        orjson.dumps(content), status, {**OF_DATA, **(headers or {})}, media_type="application/problem+json"
    )


def wants_stream(accept: Iterable[str]) -> bool:
    """Whether a request's `Accept` headers (RFC 9110, section 12.5.1) name an event stream. EventSource's do; `*/*`
    is what scripts send, and those understand a status."""
    ranges = ",".join(accept).split(",")
    return any(each.partition(";")[0].strip().lower() == sse.MEDIA_TYPE for each in ranges)


def refusal(error: ClientError, connection: HTTPConnection, retry_ms: Callable[[Closing], int]) -> Response:
    """The answer to a request that cannot be served.

    A browser's EventSource dies for good of any status but 200, so one that is to come again gets a stream that ends.
    """
    headers = {}
    if isinstance(error, ComeBack):
        wait_ms = retry_ms(error.why)
        if wants_stream(connection.headers.getlist("accept")):
            return ended_stream(error.why, wait_ms)
        headers["retry-after"] = str(-(-wait_ms // 1000))
    if isinstance(error, UpgradeRequired):
        headers["upgrade"] = "websocket"  # RFC 9110, section 15.5.22
    if isinstance(error, Unauthorized):
        invalid = "" if error.reason == "missing" else ', error="invalid_token"'  # RFC 6750, section 3.1
        headers["www-authenticate"] = f'Bearer realm="natsgate"{invalid}'
    return problem(error.status, error.title, error.detail, headers)


def ended_stream(why: Closing, wait_ms: int) -> Response:
    """A whole event stream that says why there is none, and when to come back."""
    headers = {
        "cache-control": "no-store, no-transform",
        "x-accel-buffering": "no",
        "connection": "close",  # a proxy's next request is to find its way anew
    }
    media_type = f"{sse.MEDIA_TYPE}; charset=utf-8"
    stream = Response(farewell_block(why, wait_ms), 200, {**OF_DATA, **headers}, media_type=media_type)
    del stream.headers["content-length"]  # chunked, as every other stream
    return stream


def empty_reply(headers: Mapping[str, str]) -> Response:
    """An answer that is its headers."""
    return Response(b"", 204, {**OF_DATA, **headers})


def json_reply(status: int, content: Mapping[str, Any]) -> Response:
    """A JSON answer."""
    return Response(orjson.dumps(content), status, OF_DATA, media_type="application/json")


def metrics_reply(page: bytes) -> Response:
    """The Prometheus text format."""
    return Response(page, 200, OF_DATA, media_type="text/plain; version=0.0.4; charset=utf-8")
