"""Routing: which configured route a request is for."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Protocol

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Match, Route
from starlette.types import ASGIApp, Receive, Scope, Send
from starlette.websockets import WebSocket

from gateway.core.errors import BadRequest, ClientError
from gateway.core.routes import RouteSpec


class AsWritten:
    """Lets an application match paths as they stand in the URL, where Starlette matches them decoded: what a proxy does
    not take for `/metrics`, such as `/%6Detrics`, is not to become it behind that proxy."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._app({**scope, "path": scope["raw_path"].decode("latin-1")}, receive, send)


class StreamRoute(Route):
    """A built-in path over which there is a stream: GET and nothing else. Starlette would take HEAD for it, too."""

    def __init__(self, path: str, endpoint: Callable[[Request], Awaitable[Response]]) -> None:
        super().__init__(path, endpoint, methods=["GET"])
        self.methods = {"GET"}


class Serves(Protocol):
    """What answers the requests of a route."""

    async def sse(self, request: Request, label: str, spec: RouteSpec, parameters: dict[str, str]) -> Response:
        """Answer a request for a stream."""

    async def websocket(self, websocket: WebSocket, label: str, spec: RouteSpec, parameters: dict[str, str]) -> None:
        """Answer a WebSocket handshake."""

    async def deny(self, websocket: WebSocket, error: ClientError) -> None:
        """Refuse a handshake with a status."""


class ConfiguredRoute(BaseRoute):
    """One configured route. It matches the raw path, and decodes its parameters: in a path that is decoded as a whole a
    `%2F` in an id has become a slash already."""

    def __init__(self, spec: RouteSpec, app: Serves) -> None:
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
        error: ClientError | None = scope.get("natsgate.refusal")
        if scope["type"] == "websocket":
            websocket = WebSocket(scope, receive, send)
            if error is not None:
                await self._app.deny(websocket, error)
                return
            await self._app.websocket(websocket, self._spec.name, self._spec, scope["natsgate.parameters"])
            return
        if scope["method"] != "GET":
            raise HTTPException(405, headers={"Allow": "GET"})
        if error is not None:
            raise error
        response = await self._app.sse(
            Request(scope, receive, send), self._spec.name, self._spec, scope["natsgate.parameters"]
        )
        await response(scope, receive, send)
