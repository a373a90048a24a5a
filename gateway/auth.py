"""The seam where a request becomes a principal with rights. Both transports and every filter pass through it."""

from __future__ import annotations

from typing import Literal

from starlette.requests import HTTPConnection

from gateway.core.rights import EVERYONE, Principal


class Authenticator:
    """Says who is asking.

    Args:
        mode: `none`: everybody may see everything. (Settings allow it on a loopback address only.)
    """

    def __init__(self, mode: Literal["none"]) -> None:
        self._mode = mode

    def principal(self, connection: HTTPConnection) -> Principal:
        """The principal of a request or a WebSocket handshake."""
        return EVERYONE
