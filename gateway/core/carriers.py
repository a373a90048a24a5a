"""Carriers: where in a request its token is. In the contract's order; the first one there decides."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from gateway.core.errors import Unauthorized

COOKIE = "natsgate_token"
BEARER_SUBPROTOCOL = "natsgate.bearer."
"""A WebSocket client in a browser can set no header; it offers the token as a subprotocol, which is never echoed."""

MAX_TOKEN_CHARS = 8192

Carrier = Literal["authorization", "subprotocol", "cookie", "ticket", "access_token"]


@dataclass(frozen=True, slots=True)
class Carried:
    """A token, and where it was. Its text is not shown by `repr`, which may reach a log.

    Attributes:
        passed_over: where else in the request there was one, which nobody looks at.
    """

    carrier: Carrier
    text: str
    passed_over: tuple[Carrier, ...] = ()

    def __repr__(self) -> str:
        return f"Carried({self.carrier!r}, …)"


def find_token(
    *,
    headers: Sequence[tuple[bytes, bytes]],
    query: Sequence[tuple[str, str]],
    subprotocols: Sequence[str] = (),
    access_token: bool,
) -> Carried | None:
    """The token of a request or a WebSocket handshake, or None.

    Args:
        headers: names in lower case, and values.
        query: percent-decoded pairs.
        subprotocols: what a WebSocket client offers.
        access_token: whether `access_token=` is taken.

    Raises:
        Unauthorized: what is there cannot be a token, or comes twice where one is to be.
    """
    found: list[tuple[Carrier, list[str]]] = [
        ("authorization", _bearers(_values(headers, b"authorization"))),
        ("subprotocol", [each[len(BEARER_SUBPROTOCOL) :] for each in subprotocols if _is_bearer(each)]),
        # A browser sends the cookie of the longest path first (RFC 6265, section 5.4): that one is meant.
        ("cookie", [value for each in _values(headers, b"cookie") for value in _cookies(each)][:1]),
        ("ticket", [value for name, value in query if name == "ticket"]),
        ("access_token", [value for name, value in query if name == "access_token"]),
    ]
    for carrier, tokens in found:
        if not tokens:
            continue
        if len(tokens) > 1:
            raise Unauthorized(f"There are {len(tokens)} tokens ({carrier}); send one.", reason="malformed")
        if carrier == "access_token" and not access_token:
            raise Unauthorized(
                "access_token= is not taken here, since URLs end up in logs. Send Authorization: Bearer, a cookie, or "
                "a ticket from POST /auth/ticket (NATSGATE_ALLOW_ACCESS_TOKEN=true takes it).",
                reason="access_token_off",
            )
        if not tokens[0] or len(tokens[0]) > MAX_TOKEN_CHARS:
            raise Unauthorized(
                f"The token ({carrier}) is empty or longer than {MAX_TOKEN_CHARS} characters.", reason="malformed"
            )
        rest = found[found.index((carrier, tokens)) + 1 :]
        return Carried(carrier, tokens[0], tuple(each for each, others in rest if others))
    return None


def who_are_you(headers: Sequence[tuple[bytes, bytes]]) -> str:
    """What a request is told in which `find_token` finds nothing; nothing of the request is in it."""
    ways = "Authorization: Bearer <token>, the cookie natsgate_token, or ?ticket= of POST /auth/ticket."
    if _values(headers, b"authorization"):
        return f"The Authorization header does not begin with Bearer and a space, so it is not looked at. Send {ways}"
    return f"Say who you are: {ways}"


def _values(headers: Sequence[tuple[bytes, bytes]], name: bytes) -> list[str]:
    return [value.decode("latin-1") for each, value in headers if each == name]


def _bearers(values: list[str]) -> list[str]:
    # Other schemes are for a proxy in front of us.
    split = [value.partition(" ") for value in values]
    return [rest.strip() for scheme, _, rest in split if scheme.lower() == "bearer"]


def _is_bearer(subprotocol: str) -> bool:
    return subprotocol.startswith(BEARER_SUBPROTOCOL)


def _cookies(header: str) -> list[str]:
    pairs = [pair.strip().partition("=") for pair in header.split(";")]
    return [value.strip('"') for name, _, value in pairs if name == COOKIE]
