"""Tickets: short-lived stand-ins for a token, for clients that can send nothing but a URL.

A ticket is bound to its user, the rights of the token it was got with, and the path it is for. It is a JWT (HS256), so
that any replica can check it, signed with a key made from `TICKET_SECRET`: no ticket is ever a token, nor a token a
ticket, even where both come from one secret.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import re
from collections.abc import Callable
from typing import Any

from gateway.auth import jose
from gateway.core.errors import BadRequest, NotFound, Unauthorized
from gateway.core.rights import CLAIM, BadClaims, Principal, principal_of

_PURPOSE = b"natsgate ticket v1"
_PATHS = "natsgate_paths"
BUILT_IN_PATHS = ("/events", "/ws")
"""What a ticket is for when its request names no path."""

MAX_PATH_CHARS = 1024
_PATH = re.compile(r"/(?:[A-Za-z0-9._~!$&'()*+,;=:@/-]|%[0-9A-Fa-f]{2})*")
"""RFC 3986, section 3.3."""

MAX_TICKET_CHARS = 6144
"""A longer one would not fit into a URL: request line and headers share `MAX_HEADER_BYTES`."""


class Tickets:
    """Makes and reads tickets.

    Args:
        secret: what they are signed with; None: there are none.
        ttl_s: how long they live, in seconds; 0: as long as the token.
        leeway_s: how far clocks may differ when the `iat` and `nbf` of the token are looked at again, in seconds. A
            ticket's end is ours: it has none.
        now: seconds since the epoch.
    """

    def __init__(self, secret: str | None, ttl_s: float, *, leeway_s: float, now: Callable[[], float]) -> None:
        self._key = None
        if secret is not None:
            self._key = hmac.digest(secret.encode("utf-8"), _PURPOSE, hashlib.sha256)
        self._ttl_s = ttl_s
        self._leeway_s = leeway_s
        self._now = now

    def mint(self, principal: Principal, path: str | None) -> tuple[str, int]:
        """A ticket, and when it ends (seconds since the epoch).

        Args:
            principal: who asks.
            path: the path that it is for, as it will stand in the URL (raw); None: the built-in streams'.

        Raises:
            NotFound: this gateway gives none.
            Unauthorized: the token is over.
            BadRequest: the path is none, or the token says too much for a URL.
        """
        if self._key is None:
            raise NotFound(
                "This gateway gives no tickets: it has nothing to sign them with. NATSGATE_TICKET_SECRET_FILE (beside "
                "AUTH=jwt) makes it; with JWT_SECRET it does without. (With AUTH=none streams need none.)"
            )
        if path is not None and not (len(path) <= MAX_PATH_CHARS and _PATH.fullmatch(path)):
            raise BadRequest(
                "path is to be the path of a stream as it stands in its URL, percent-encoded and without a query: "
                "/events."
            )
        assert principal.expires_at is not None  # tokens without an end are not taken
        ends_at = int(min(principal.expires_at, self._now() + self._ttl_s if self._ttl_s else principal.expires_at))
        if ends_at <= self._now():
            raise jose.expired()  # taken since clocks differ; a ticket of it would be over
        claims: dict[str, Any] = {
            **principal.claims,
            "sub": principal.sub,
            "exp": ends_at,
            CLAIM: {
                "subscribe": [".".join(each) for each in principal.subscribe],
                "publish": [".".join(each) for each in principal.publish],
            },
            _PATHS: list(BUILT_IN_PATHS) if path is None else [path],
        }
        ticket = jose.sign(claims, self._key)
        if len(ticket) > MAX_TICKET_CHARS:
            raise BadRequest("The token holds too much for a ticket in a URL; send it as a header or a cookie.")
        return ticket, ends_at

    def read(self, ticket: str, path: str) -> Principal:
        """Whose ticket it is.

        Args:
            ticket: as it came.
            path: the raw path of the request that it came with.

        Raises:
            Unauthorized: it is none of ours, is over, or is for another path.
        """
        if self._key is None:
            raise Unauthorized("This gateway gives no tickets.", reason="ticket")
        try:
            key = jose.secret_key(self._key)
            claims = jose.verify(ticket, [key], issuer=None, audiences=(), leeway_s=self._leeway_s, now=self._now())
        except Unauthorized as error:
            if error.reason == "expired":
                raise
            raise Unauthorized("The ticket is none of this gateway's.", reason="ticket") from None
        if claims["exp"] <= self._now():
            raise jose.expired()
        paths = claims.pop(_PATHS, None)
        if not isinstance(paths, list) or path not in paths:
            raise Unauthorized(
                "The ticket is for another path; POST /auth/ticket takes the one it is for: "
                f'{{"path":{json.dumps(path[:200])}}}.',
                reason="ticket_path",
            )
        try:
            return principal_of(claims)
        except BadClaims as error:  # of a gateway of another time
            raise jose.bad_claims(error) from None
