"""`natsgate token`: a signed token for tests, scripts and services."""

from __future__ import annotations

import time
from collections.abc import Sequence

import jwt

from gateway.commands.outcome import CommandFailed
from gateway.settings import Settings
from publishers.wire import is_canonical_token

LEAST_SECRET_BYTES = 32
"""RFC 7518, section 3.2: a key for HS256 has as many bytes as the hash."""

SUB = "{sub}"
"""The token in a pattern that stands for the encoded `sub`."""


def mint(
    settings: Settings,
    *,
    sub: str,
    subscribe: Sequence[str],
    publish: Sequence[str],
    ttl_s: float,
    issuer: str | None = None,
    audience: str | None = None,
) -> str:
    """A JWT (HS256) whose bearer is `sub`, with rights, for `ttl_s` seconds from now.

    Args:
        settings: `jwt_secret` signs it.
        subscribe, publish: NATS patterns; the token `{sub}` stands for the encoded `sub`.
        issuer, audience: `iss` and `aud`, for gateways that check them.

    Raises:
        CommandFailed: there is no secret, it is too short, a pattern is malformed, or the time is no time.
    """
    if settings.jwt_secret is None:
        raise CommandFailed(
            "there is no secret to sign with: set NATSGATE_JWT_SECRET_FILE (or NATSGATE_JWT_SECRET) to the gateways' "
            "own; a new one: openssl rand -base64 48"
        )
    secret = settings.jwt_secret.get_secret_value()
    if len(secret.encode()) < LEAST_SECRET_BYTES:
        raise CommandFailed(
            f"NATSGATE_JWT_SECRET has {len(secret.encode())} bytes; HS256 takes {LEAST_SECRET_BYTES} or more: "
            "openssl rand -base64 48"
        )
    if not sub:
        raise CommandFailed("--sub: give a name that is not empty")
    if ttl_s < 1:
        raise CommandFailed("--ttl: give a second or more; tokens without an end are not taken")
    for option, patterns in (("--subscribe", subscribe), ("--publish", publish)):
        for pattern in patterns:
            _check(option, pattern)
    now = int(time.time())
    claims: dict[str, object] = {"sub": sub, "iat": now, "exp": now + int(ttl_s)}
    claims |= {name: value for name, value in (("iss", issuer), ("aud", audience)) if value is not None}
    claims["natsgate"] = {"subscribe": list(subscribe), "publish": list(publish)}
    return jwt.encode(claims, secret, algorithm="HS256")


def _check(option: str, pattern: str) -> None:
    tokens = pattern.split(".")
    for position, token in enumerate(tokens, start=1):
        if token in ("*", SUB) or (token == ">" and position == len(tokens)):
            continue
        if token == ">":
            raise CommandFailed(f"{option} {pattern!a}: > stands at the end only; * is one token in the middle")
        if not is_canonical_token(token):
            raise CommandFailed(
                f"{option} {pattern!a}: token {position} ({token!a}) is {'empty' if not token else 'not encoded'}; "
                "write bytes other than A-Z a-z 0-9 - _ ~ ! $ & ' ( ) + , ; = : @ / as % and two upper-case hex digits"
            )
