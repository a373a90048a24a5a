"""The application: paths, and how each request becomes an answer or a detached connection."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import orjson
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, HTTPConnection, Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route, WebSocketRoute
from starlette.types import ASGIApp, Receive, Scope, Send
from starlette.websockets import WebSocket

from gateway.core.carriers import BEARER_SUBPROTOCOL
from gateway.core.dialect import ENVELOPE, RAW, RAW_WITH_CONTROL
from gateway.core.errors import BadOrigin, BadRequest, ClientError, NotFound, Rejection, Unauthorized, UpgradeRequired
from gateway.core.query import StreamQuery, parse_filters, parse_query
from gateway.core.rights import Principal
from gateway.core.routes import BUILT_IN, RouteSpec
from gateway.core.schedule import retry_ms
from gateway.core.start import NOW
from gateway.cors import Cors
from gateway.door import Door, Gate
from gateway.replies import json_reply, metrics_reply, problem, refusal
from gateway.routing import AsWritten, ConfiguredRoute, StreamRoute
from gateway.transports.arrival import Arrival
from gateway.transports.connection import Connection
from gateway.transports.http_server import DETACH
from gateway.transports.room import Room
from gateway.transports.sse import SseConnection
from gateway.transports.ws_raw import SUBPROTOCOL as RAW_V1
from gateway.transports.ws_raw import RawConnection
from gateway.transports.ws_refused import RefusedConnection
from gateway.transports.ws_v1 import SUBPROTOCOL as V1
from gateway.transports.ws_v1 import V1Connection

MAX_BODY_BYTES = 4096
"""The largest body of `POST /auth/ticket`."""

_NOWHERE = "Nothing is served at this path. Streams are at /events and /ws, and at the configured routes."
_HTTP_ERRORS: Mapping[int, tuple[Rejection, str, str]] = {
    405: ("bad_method", "Method Not Allowed", "This path does not take this method."),
    505: ("bad_http", "HTTP Version Not Supported", ""),
}


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
    """The ASGI application.

    Args:
        room: what connections share.
        gate: who may have what.
        health: see `Health`.
    """

    def __init__(self, room: Room, gate: Gate, health: Health) -> None:
        self._room = room
        self._gate = gate
        self._health = health
        self._inner = self._built()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._inner(scope, receive, send)

    def reloaded(self) -> None:
        """Serve by the gate's settings, which are others now. What is served already goes on as it began."""
        self._inner = self._built()

    def _built(self) -> ASGIApp:
        settings = self._gate.settings
        routes: list[BaseRoute] = [
            StreamRoute("/events", self._events),
            WebSocketRoute("/ws", self._ws),
            StreamRoute("/ws", self._no_upgrade),
            Route("/auth/ticket", self._ticket, methods=["POST"]),
            Route("/livez", self._livez, methods=["GET"]),
            Route("/readyz", self._readyz, methods=["GET"]),
        ]
        if self._health.metrics is not None:
            routes.append(Route("/metrics", self._metrics, methods=["GET"]))
        routes += [ConfiguredRoute(spec, self) for spec in settings.route]
        app = Starlette(
            routes=routes,
            exception_handlers={
                ClientError: self._client_error,
                HTTPException: self._http_error,
                Exception: _server_error,
            },
        )
        app.router.redirect_slashes = False
        app.router.default = self._nowhere
        return AsWritten(Cors(app, lambda: self._gate.authenticator.origins, self._preflight_refused))

    @staticmethod
    def metrics_only(page: Callable[[], bytes]) -> ASGIApp:
        """The application of `METRICS_LISTEN`."""

        async def metrics(request: Request) -> Response:
            return metrics_reply(page())

        async def refused(request: Request, error: Exception) -> Response:
            assert isinstance(error, HTTPException)
            return problem(error.status_code, error.detail, "GET /metrics is all that is served here.", error.headers)

        routes = [Route("/metrics", metrics, methods=["GET"])]
        app = Starlette(routes=routes, exception_handlers={HTTPException: refused, Exception: _server_error})
        return AsWritten(app)

    # Streams

    async def _events(self, request: Request) -> Response:
        return await self.sse(request, BUILT_IN, None, {})

    async def _ws(self, websocket: WebSocket) -> None:
        await self.websocket(websocket, BUILT_IN, None, {})

    async def _no_upgrade(self, request: Request) -> Response:
        raise UpgradeRequired(
            "This path is a WebSocket, and the request is not one: a proxy in between may have taken Upgrade and "
            "Connection away (nginx: proxy_set_header Upgrade $http_upgrade)."
        )

    async def sse(self, request: Request, label: str, spec: RouteSpec | None, parameters: dict[str, str]) -> Response:
        """Answer a request for a stream."""
        if request.scope["http_version"] != "1.1":
            raise HTTPException(
                505,
                "A stream needs HTTP/1.1. Behind nginx: proxy_http_version 1.1; proxy_set_header Connection ''.",
            )
        remote = self._gate.remote(request)
        request.state.route = label
        with self._room.admission.entering(remote):
            query = parse_query(
                request.query_params.multi_items(),
                last_event_id=request.headers.get("last-event-id"),
                snapshot=spec is not None and spec.snapshot,
            )
            door = Door(self._gate, spec, parameters, query)
            principal = await self._identify(request)
            if principal is None:
                raise self._gate.authenticator.nobody(request.scope["headers"])
            if spec is None and not query.subjects:
                parse_filters((), (), 0)  # says what a query looks like
            self._room.admission.require_room_for(principal.sub)
            guard = door.guard(principal)
            entry = await door.enter(guard)
        cors = self._gate.authenticator.origins.cors(request.headers.get("origin"))
        arrival = Arrival(label, guard, remote)
        return Handover(SseConnection(self._room, arrival, entry, named=query.named, headers=cors))

    async def websocket(
        self, websocket: WebSocket, label: str, spec: RouteSpec | None, parameters: dict[str, str]
    ) -> None:
        """Answer a WebSocket handshake. What is wrong with the request itself is a status; what is wrong with who
        asks is told by a close code, since a page cannot see a status."""
        raw = spec is not None and spec.framing == "raw"
        websocket.state.route = label
        try:
            query = parse_query(websocket.query_params.multi_items(), snapshot=spec is not None and spec.snapshot)
            subprotocol = _subprotocol(websocket.scope["subprotocols"], RAW_V1 if raw else V1)
            _check_ws_query(query, spec, raw=raw)
            door = Door(self._gate, spec, parameters, query)
        except ClientError as error:
            await self.deny(websocket, error)
            return
        connection: Connection
        remote = self._gate.remote(websocket)
        try:
            with self._room.admission.entering(remote):
                principal = await self._identify(websocket)
                if principal is not None:
                    self._room.admission.require_room_for(principal.sub)
                guard = self._gate.nobody_yet() if principal is None else door.guard(principal)
                entry = None if principal is None else await door.enter(guard)
        except ClientError as error:
            if error.closing is None:
                await self.deny(websocket, error)
                return
            self._reject(websocket, error)
            dialect = ENVELOPE if not raw else RAW_WITH_CONTROL if query.control else RAW
            connection = RefusedConnection(self._room, Arrival(label, None, remote), dialect, error)
        else:
            arrival = Arrival(label, guard, remote)
            if raw:
                connection = RawConnection(self._room, arrival, door, entry, control=query.control)
            else:
                most = self._gate.settings.max_subscriptions
                connection = V1Connection(self._room, arrival, door, entry, max_subscriptions=most)
        await websocket.accept(subprotocol=subprotocol)
        detach(websocket.scope, connection)

    async def deny(self, websocket: WebSocket, error: ClientError) -> None:
        """Refuse a handshake with a status."""
        self._reject(websocket, error)
        await websocket.send_denial_response(problem(error.status, error.title, error.detail))

    async def _identify(self, connection: HTTPConnection, *, streams: bool = True) -> Principal | None:
        scope = connection.scope
        websocket = scope["type"] == "websocket"
        principal = await self._gate.authenticator.of_request(
            scope["headers"],
            connection.query_params.multi_items(),
            path=scope["raw_path"].decode("latin-1"),
            subprotocols=scope["subprotocols"] if websocket else (),
            websocket=websocket,
            reads_only=not websocket and scope["method"] == "GET",
            streams=streams,
        )
        connection.state.sub = "" if principal is None else principal.sub
        return principal

    # Tickets

    async def _ticket(self, request: Request) -> Response:
        principal = await self._identify(request, streams=False)
        if principal is None:
            raise self._gate.authenticator.nobody(request.scope["headers"])
        body = b""
        try:
            async for part in request.stream():
                body += part
                if len(body) > MAX_BODY_BYTES:
                    raise BadRequest(f'The body is larger than {MAX_BODY_BYTES} bytes; send {{"path":"/events"}}.')
        except ClientDisconnect:
            return Response()  # nobody is left to read it
        ticket, expires_at = self._gate.authenticator.tickets.mint(principal, _path_of(body))
        return json_reply(200, {"ticket": ticket, "expires_at": expires_at})

    # Refusals

    async def _nowhere(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "websocket":
            raise NotFound(_NOWHERE)
        await self.deny(WebSocket(scope, receive, send), NotFound(_NOWHERE))

    def _reject(self, connection: HTTPConnection, error: ClientError) -> None:
        state = connection.state
        self._room.reject(
            error.code,
            self._gate.remote(connection),
            route=getattr(state, "route", ""),
            sub=getattr(state, "sub", ""),
            cause=error.reason if isinstance(error, Unauthorized) else "",
        )

    def _preflight_refused(self, connection: HTTPConnection) -> None:
        self._room.reject(BadOrigin.code, self._gate.remote(connection))

    async def _client_error(self, connection: HTTPConnection, error: Exception) -> Response:
        assert isinstance(error, ClientError)
        self._reject(connection, error)
        return refusal(error, connection, partial(retry_ms, self._room.random))

    async def _http_error(self, connection: HTTPConnection, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        status = error.status_code
        reason, title, detail = _HTTP_ERRORS.get(status, ("bad_request", "Error", error.detail))
        self._room.reject(reason, self._gate.remote(connection))
        return problem(status, title, detail or error.detail, dict(error.headers) if error.headers else None)

    # Health

    async def _livez(self, request: Request) -> Response:
        return json_reply(200, {"live": True})

    async def _readyz(self, request: Request) -> Response:
        ready, content = self._health.readiness()
        return json_reply(200 if ready else 503, content)

    async def _metrics(self, request: Request) -> Response:
        assert self._health.metrics is not None
        return metrics_reply(self._health.metrics())


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


def _subprotocol(given: list[str], ours: str) -> str | None:
    offered = [each for each in given if not each.startswith(BEARER_SUBPROTOCOL)]
    if ours not in offered and given:
        rest = ", or none" if offered == given else " beside the token"
        raise BadRequest(f"This path speaks {ours}; offer that subprotocol{rest}.")
    return ours if offered else None


def _check_ws_query(query: StreamQuery, spec: RouteSpec | None, *, raw: bool) -> None:
    if raw:
        return
    if spec is None and (query.subjects or query.start != NOW):
        raise BadRequest('On /ws a feed is asked for in a message: {"op":"subscribe","ref":1,"subject":"repo.42.>"}.')


def _path_of(body: bytes) -> str | None:
    if not body.strip():
        return None
    try:
        content = orjson.loads(body)
    except orjson.JSONDecodeError:
        content = None
    path = content.get("path", 0 if content else None) if isinstance(content, dict) else 0
    if not isinstance(path, str | None):
        raise BadRequest('The body is to be {"path":"/events"}, or empty: then the ticket is for /events and /ws.')
    return path


async def _server_error(connection: HTTPConnection, error: Exception) -> Response:
    return problem(500, "Internal Server Error", "Something went wrong here; it is in the log.")
