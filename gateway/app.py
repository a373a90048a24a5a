"""The application: paths, and how each request becomes an answer or a detached connection."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import orjson
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import HTTPConnection, Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Match, Route, WebSocketRoute
from starlette.types import Receive, Scope, Send
from starlette.websockets import WebSocket

from gateway.auth import Authenticator
from gateway.core import dialect
from gateway.core.errors import BadRequest, ClientError, ComeBack, NotFound
from gateway.core.query import StreamQuery, parse_filters, parse_query
from gateway.core.rights import Principal
from gateway.core.routes import SUB, RouteSpec
from gateway.core.schedule import retry_ms
from gateway.core.start import NOW
from gateway.core.subjects import Filter
from gateway.refusal import ended_stream, wants_stream
from gateway.settings import Settings
from gateway.transports.connection import Connection
from gateway.transports.http_server import DETACH
from gateway.transports.room import Room
from gateway.transports.sse import SseConnection
from gateway.transports.ws import WebSocketConnection
from gateway.transports.ws_raw import SUBPROTOCOL as RAW
from gateway.transports.ws_raw import RawConnection
from gateway.transports.ws_refused import RefusedConnection
from gateway.transports.ws_v1 import SUBPROTOCOL as V1
from gateway.transports.ws_v1 import V1Connection
from publishers.wire import encode_id

BUILT_IN = "events"
"""The route label of `/events` and `/ws`."""

_NOWHERE = "Nothing is served at this path. Streams are at /events and /ws, and at the configured routes."
_HTTP_ERRORS = {
    405: ("bad_method", "Method Not Allowed", "This path does not take this method."),
    505: ("bad_http", "HTTP Version Not Supported", ""),
}
_SECURITY = {"x-content-type-options": "nosniff", "cache-control": "no-store"}


@dataclass(frozen=True, slots=True)
class Health:
    """What `/readyz` and `/metrics` ask.

    Attributes:
        readiness: whether this replica should get traffic, and why not.
        metrics: the Prometheus text; None where it is served elsewhere.
    """

    readiness: Callable[[], tuple[bool, dict[str, Any]]]
    metrics: Callable[[], bytes] | None


class App:
    """Builds the ASGI application.

    Args:
        settings: all settings.
        room: what connections share.
        auth: who is asking.
        health: see `Health`.
        store: stores a message in the stream: subject and payload.
    """

    def __init__(
        self,
        settings: Settings,
        room: Room,
        auth: Authenticator,
        health: Health,
        store: Callable[[str, bytes], Awaitable[object]],
    ) -> None:
        self._settings = settings
        self._room = room
        self._auth = auth
        self._health = health
        self._store = store

    def asgi(self) -> Starlette:
        """The application, ready for a server."""
        app = Starlette(
            exception_handlers={
                ClientError: self._client_error,
                HTTPException: self._http_error,
                Exception: _server_error,
            },
        )
        app.router.redirect_slashes = False
        app.router.default = self._nowhere
        self._router = app.router
        self._route()
        return app

    def reloaded(self, settings: Settings) -> None:
        """Serve by these settings from now on. What is served already goes on as it began."""
        self._settings = settings
        self._route()

    def _route(self) -> None:
        routes: list[BaseRoute] = [
            Route("/events", self._events, methods=["GET"]),
            WebSocketRoute("/ws", self._ws),
            Route("/livez", self._livez, methods=["GET"]),
            Route("/readyz", self._readyz, methods=["GET"]),
        ]
        if self._health.metrics is not None:
            routes.append(Route("/metrics", self._metrics, methods=["GET"]))
        self._router.routes = [*routes, *(ConfiguredRoute(spec, self) for spec in self._settings.route)]

    @staticmethod
    def metrics_only(page: Callable[[], bytes]) -> Starlette:
        """The application of `METRICS_LISTEN`."""

        async def metrics(request: Request) -> Response:
            return _metrics_page(page)

        return Starlette(routes=[Route("/metrics", metrics, methods=["GET"])])

    # Built-in streams

    async def _events(self, request: Request) -> Response:
        return self.sse(request, BUILT_IN, None, {})

    async def _ws(self, websocket: WebSocket) -> None:
        await self.websocket(websocket, BUILT_IN, None, {})

    def sse(self, request: Request, label: str, spec: RouteSpec | None, parameters: dict[str, str]) -> Response:
        """Answer a request for a stream."""
        if request.method != "GET":
            raise HTTPException(405, headers={"Allow": "GET"})  # Starlette lets HEAD through
        if request.scope["http_version"] != "1.1":
            raise HTTPException(
                505,
                "A stream needs HTTP/1.1. Behind nginx: proxy_http_version 1.1; proxy_set_header Connection ''.",
            )
        self._room.admit()
        query = parse_query(
            request.query_params.multi_items(),
            last_event_id=request.headers.get("last-event-id"),
            snapshot=spec is not None and spec.snapshot,
        )
        principal = self._auth.principal(request)
        filters = self._filters(principal, spec, parameters, query)
        return Handover(SseConnection(self._room, label, filters, query.start, named=query.named))

    async def websocket(
        self, websocket: WebSocket, label: str, spec: RouteSpec | None, parameters: dict[str, str]
    ) -> None:
        """Answer a WebSocket handshake."""
        try:
            connection, subprotocol = self._websocket(websocket, label, spec, parameters)
        except ClientError as error:
            await self.refuse(websocket, label, spec, error)
            return
        await websocket.accept(subprotocol=subprotocol)
        detach(websocket.scope, connection)

    async def refuse(self, websocket: WebSocket, label: str, spec: RouteSpec | None, error: ClientError) -> None:
        """Refuse a handshake: with a status, or, where a page is to learn why, by accepting it and closing at once."""
        if error.closing is None:
            await self.deny(websocket, error)
            return
        self._room.reject(error.code)
        ours = V1
        speech: dialect.Dialect = dialect.ENVELOPE
        if spec is not None and spec.framing == "raw":
            control = parse_query(websocket.query_params.multi_items()).control
            ours, speech = RAW, dialect.RAW_WITH_CONTROL if control else dialect.RAW
        await websocket.accept(subprotocol=ours if ours in websocket.scope["subprotocols"] else None)
        detach(websocket.scope, RefusedConnection(self._room, label, speech, error.closing))

    async def deny(self, websocket: WebSocket, error: ClientError) -> None:
        """Refuse a handshake with a status."""
        self._room.reject(error.code)
        await websocket.send_denial_response(problem(error.status, error.title, error.detail))

    def _websocket(
        self, websocket: WebSocket, label: str, spec: RouteSpec | None, parameters: dict[str, str]
    ) -> tuple[WebSocketConnection, str | None]:
        query = parse_query(websocket.query_params.multi_items(), snapshot=spec is not None and spec.snapshot)
        principal = self._auth.principal(websocket)
        offered = websocket.scope["subprotocols"]
        if spec is not None and spec.framing == "raw":
            if offered and RAW not in offered:
                raise BadRequest(f"This route speaks {RAW}; offer that subprotocol, or none.")
            self._room.admit()
            filters = self._filters(principal, spec, parameters, query)
            store = self._storing(spec, self._known(principal, parameters)) if spec.publish is not None else None
            connection = RawConnection(self._room, label, filters, query.start, control=query.control, store=store)
            return connection, RAW if offered else None
        if offered and V1 not in offered:
            raise BadRequest(f"This path speaks {V1}; offer that subprotocol, or none.")
        if spec is None and (query.subjects or query.start != NOW):
            raise BadRequest(
                'On /ws a feed is asked for in a message: {"op":"subscribe","ref":1,"subject":"repo.42.>"}.'
            )
        if query.start.until_head:
            raise BadRequest("until=head is for Server-Sent Events and raw WebSocket routes.")
        self._room.admit()

        def allow(subjects: tuple[str, ...]) -> list[Filter]:
            return self._allow(principal, subjects)

        return (
            V1Connection(
                self._room,
                label,
                allow=allow,
                first=[] if spec is None else self._filters(principal, spec, parameters, query),
                start=query.start,
                max_subscriptions=self._settings.max_subscriptions,
                authenticated=True,
            ),
            V1 if offered else None,
        )

    # Refusals

    async def _nowhere(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "websocket":
            raise NotFound(_NOWHERE)
        await self.deny(WebSocket(scope, receive, send), NotFound(_NOWHERE))

    async def _client_error(self, connection: HTTPConnection, error: Exception) -> Response:
        assert isinstance(error, ClientError)
        self._room.reject(error.code)
        if not isinstance(error, ComeBack):
            return problem(error.status, error.title, error.detail)
        wait_ms = retry_ms(self._room.random, error.why)
        if wants_stream(connection.headers.getlist("accept")):
            return ended_stream(error.why, wait_ms)
        return problem(error.status, error.title, error.detail, {"Retry-After": str(-(-wait_ms // 1000))})

    async def _http_error(self, connection: HTTPConnection, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        status = error.status_code
        reason, title, detail = _HTTP_ERRORS.get(status, ("bad_request", "Error", error.detail))
        self._room.reject(reason)
        return problem(status, title, detail or error.detail, dict(error.headers) if error.headers else None)

    # Rights

    def _filters(
        self, principal: Principal, spec: RouteSpec | None, parameters: dict[str, str], query: StreamQuery
    ) -> list[Filter]:
        if spec is None:
            return self._allow(principal, query.subjects)
        if query.subjects:
            raise BadRequest("This path fixes its subjects; leave subject out, or use /events.")
        filters = spec.filters(self._known(principal, parameters), self._settings.roots)
        principal.require(filters)
        return filters

    def _allow(self, principal: Principal, subjects: tuple[str, ...]) -> list[Filter]:
        filters = parse_filters(subjects, self._settings.roots, self._settings.max_filters)
        principal.require(filters)
        return filters

    def _known(self, principal: Principal, parameters: dict[str, str]) -> dict[str, str]:
        return parameters | ({SUB: encode_id(principal.sub)} if principal.sub else {})

    def _storing(self, spec: RouteSpec, parameters: dict[str, str]) -> Callable[[str, bytes], Awaitable[object]]:
        async def store(event_type: str, payload: bytes) -> object:
            return await self._store(spec.publish_subject(parameters, event_type), payload)

        return store

    # Health

    async def _livez(self, request: Request) -> Response:
        return _json(200, {"live": True})

    async def _readyz(self, request: Request) -> Response:
        ready, content = self._health.readiness()
        return _json(200 if ready else 503, content)

    async def _metrics(self, request: Request) -> Response:
        assert self._health.metrics is not None
        return _metrics_page(self._health.metrics)


class ConfiguredRoute(BaseRoute):
    """One configured route. It matches the raw path: Starlette's own matching sees it decoded, where a `%2F` in an
    id has become a slash already."""

    def __init__(self, spec: RouteSpec, app: App) -> None:
        self._spec = spec
        self._app = app

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        transport = {"http": "sse", "websocket": "ws"}.get(scope["type"], "")
        try:
            parameters = self._spec.match(scope["raw_path"])
        except ClientError as error:
            return Match.FULL, {"natsgate.refusal": error}
        if parameters is None:
            return Match.NONE, {}
        if transport not in self._spec.transports:
            wanted = "WebSocket" if transport == "sse" else "Server-Sent Events"
            return Match.PARTIAL, {"natsgate.refusal": BadRequest(f"This path is served over {wanted} only.")}
        return Match.FULL, {"natsgate.parameters": parameters}

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        refusal: ClientError | None = scope.get("natsgate.refusal")
        if scope["type"] == "websocket":
            websocket = WebSocket(scope, receive, send)
            if refusal is not None:
                await self._app.deny(websocket, refusal)
                return
            await self._app.websocket(websocket, self._spec.name, self._spec, scope["natsgate.parameters"])
            return
        if scope["method"] != "GET":
            raise HTTPException(405, headers={"Allow": "GET"})
        if refusal is not None:
            raise refusal
        response = self._app.sse(
            Request(scope, receive, send), self._spec.name, self._spec, scope["natsgate.parameters"]
        )
        await response(scope, receive, send)


class Handover(Response):
    """The answer that is a connection: it takes the socket and goes on after the request is over."""

    def __init__(self, connection: Connection) -> None:
        super().__init__()
        self._connection = connection

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        detach(scope, self._connection)


def detach(scope: Scope, connection: Connection) -> None:
    """Hand the socket of a request to a connection."""
    scope["extensions"][DETACH](connection)


def problem(status: int, title: str, detail: str, headers: dict[str, str] | None = None) -> Response:
    """An error answer: `application/problem+json` (RFC 9457)."""
    content = {"type": "about:blank", "title": title, "status": status, "detail": detail}
    return Response(
        orjson.dumps(content), status, {**_SECURITY, **(headers or {})}, media_type="application/problem+json"
    )


def _json(status: int, content: dict[str, Any]) -> Response:
    return Response(orjson.dumps(content), status, _SECURITY, media_type="application/json")


def _metrics_page(page: Callable[[], bytes]) -> Response:
    return Response(page(), media_type="text/plain; version=0.0.4; charset=utf-8")


async def _server_error(connection: HTTPConnection, error: Exception) -> Response:
    return problem(500, "Internal Server Error", "Something went wrong here; it is in the log.")
