"""The authenticator: whose request it is. Both transports, tickets and first frames pass through it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from gateway.auth.tickets import Tickets
from gateway.auth.tokens import Tokens
from gateway.core.carriers import find_token, who_are_you
from gateway.core.errors import AuthFailure, BadOrigin, Unauthorized
from gateway.core.origins import Origins, bad_origin
from gateway.core.rights import EVERYONE, Principal

Headers = Sequence[tuple[bytes, bytes]]
"""Names in lower case, and values, as they came."""


class Authenticator:
    """Says who is asking.

    Args:
        tokens: verifies tokens; None: nobody has to say who they are.
        tickets: reads and makes tickets.
        origins: which pages are ours.
        access_token: whether `access_token=` is taken.
        failures: counts refused tokens, and pages of other origins, by reason.
    """

    def __init__(
        self,
        tokens: Tokens | None,
        tickets: Tickets,
        origins: Origins,
        *,
        access_token: bool,
        failures: Counter[AuthFailure],
    ) -> None:
        self.tokens = tokens
        self.tickets = tickets
        self.origins = origins
        self._access_token = access_token
        self._failures = failures

    async def of_request(
        self,
        headers: Headers,
        query: Sequence[tuple[str, str]],
        *,
        path: str,
        subprotocols: Sequence[str] = (),
        websocket: bool = False,
        reads_only: bool = True,
        streams: bool = True,
    ) -> Principal | None:
        """Whose request it is; None where it holds no token.

        Args:
            headers, query, path: the request's; the path raw, the query percent-decoded.
            subprotocols: what a WebSocket client offers.
            websocket: whether it is a WebSocket handshake.
            reads_only: whether it is a GET, and no handshake.
            streams: whether it opens a stream, which is what tickets are for.

        Raises:
            BadOrigin: a page of another origin sent it, by what a browser adds by itself.
            Unauthorized: its token is not taken.
            ComeBack: the keys that its token needs cannot be had now.
        """
        try:
            return await self._of_request(headers, query, path, subprotocols, websocket, reads_only, streams)
        except Unauthorized as error:
            self._failures[error.reason] += 1
            raise
        except BadOrigin:
            self._failures["origin"] += 1
            raise

    def nobody(self, headers: Headers) -> Unauthorized:
        """The refusal of a request that has to say whose it is, and does not."""
        self._failures["missing"] += 1
        return Unauthorized(who_are_you(headers), reason="missing")

    async def of_token(self, token: str) -> Principal:
        """Whose token it is: one that came in a first frame.

        Raises:
            Unauthorized, ComeBack: see `of_request`.
        """
        if self.tokens is None:
            return EVERYONE
        try:
            return await self.tokens.verify(token)
        except Unauthorized as error:
            self._failures[error.reason] += 1
            raise

    async def _of_request(
        self,
        headers: Headers,
        query: Sequence[tuple[str, str]],
        path: str,
        subprotocols: Sequence[str],
        websocket: bool,
        reads_only: bool,
        streams: bool,
    ) -> Principal | None:
        origin, host = _header(headers, b"origin"), _header(headers, b"host")
        # A handshake's Origin is checked whatever its carrier: no page but ours has business here.
        if (websocket or (self.tokens is None and not reads_only)) and origin is not None:
            _require(self.origins.trusts(origin, host), origin)
        if self.tokens is None:
            return EVERYONE
        carried = find_token(headers=headers, query=query, subprotocols=subprotocols, access_token=self._access_token)
        if carried is None:
            return None
        if carried.carrier == "cookie":
            lets = self.origins.lets_ambient(
                origin=origin,
                host=host,
                fetch_site=_header(headers, b"sec-fetch-site"),
                reads_only=reads_only and not websocket,
            )
            _require(lets, origin)
        try:
            if carried.carrier != "ticket":
                return await self.tokens.verify(carried.text)
            if not streams:
                raise Unauthorized("A ticket opens streams and nothing else; send the token.", reason="ticket")
            return self.tokens.not_revoked(self.tickets.read(carried.text, path))
        except Unauthorized as error:
            if not carried.passed_over:
                raise
            others = " and ".join(carried.passed_over)
            raise Unauthorized(
                f"{error} It was in the request's {carried.carrier}; what is in its {others} was not looked at.",
                reason=error.reason,
                closing=error.closing,
            ) from None


def _require(trusted: bool, origin: str | None) -> None:
    if not trusted:
        raise bad_origin(origin)


def _header(headers: Headers, name: bytes) -> str | None:
    values = [value for each, value in headers if each == name]
    # Two of them are one that nobody trusts: whoever looks at the first is not to be fooled by the second.
    return b", ".join(values).decode("latin-1") if values else None
