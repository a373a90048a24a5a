"""CORS: which pages of other origins may read answers (Fetch, section 3.2). Streams carry the same headers, by hand."""

from __future__ import annotations

from collections.abc import Callable

from starlette.requests import HTTPConnection
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from gateway.core.origins import Origins, bad_origin
from gateway.replies import empty_reply, problem

_PREFLIGHT = {
    "access-control-allow-methods": "GET, POST",
    "access-control-allow-headers": "Authorization, Content-Type, Idempotency-Key, Last-Event-ID",
    "access-control-max-age": "600",
}
_EXPOSED = (b"access-control-expose-headers", b"retry-after, www-authenticate")


class Cors:
    """Answers preflights, and adds the headers to every other answer.

    Args:
        app: what answers.
        origins: which pages are ours: asked with each request, since a reload may change it.
        refused: told of each preflight of another origin.
    """

    def __init__(self, app: ASGIApp, origins: Callable[[], Origins], refused: Callable[[HTTPConnection], None]) -> None:
        self._app = app
        self._origins = origins
        self._refused = refused

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request, origins = HTTPConnection(scope), self._origins()
        headers = request.headers
        origin = headers.get("origin")
        more = origins.cors(origin)
        if len(more) > 1:
            more.append(_EXPOSED)

        async def answer(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", ()), *more]
            await send(message)

        if origin is None or scope["method"] != "OPTIONS" or "access-control-request-method" not in headers:
            await self._app(scope, receive, answer)
        elif origins.trusts(origin, headers.get("host")):
            await empty_reply(_PREFLIGHT)(scope, receive, answer)
        else:
            self._refused(request)
            error = bad_origin(origin)
            await problem(error.status, error.title, error.detail)(scope, receive, answer)
