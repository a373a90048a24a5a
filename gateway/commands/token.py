"""`natsgate token`: a signed token for tests, scripts and services."""

from __future__ import annotations

import time
from collections.abc import Sequence

from gateway.auth.jose import sign
from gateway.commands.outcome import CommandFailed
from gateway.core.rights import CLAIM, SUB, BadClaims, parse_pattern, parse_sub
from gateway.core.subjects import INBOX_ROOT
from gateway.settings import Settings


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
        issuer, audience: `iss` and `aud`, for gateways that check them; absent: what the settings ask for.

    Raises:
        CommandFailed: there is no secret, no gateway takes `sub`, a pattern is malformed, or the time is no time.
    """
    if settings.jwt_secret is None:
        raise CommandFailed(
            "there is no secret to sign with: set NATSGATE_JWT_SECRET_FILE (or NATSGATE_JWT_SECRET) to the gateways' "
            "own; a new one: openssl rand -base64 48"
        )
    secret = settings.jwt_secret.get_secret_value()
    if not sub:
        raise CommandFailed("--sub: give a name that is not empty")
    try:
        parse_sub(sub)
    except BadClaims as error:
        raise CommandFailed(f"--{error}; no gateway takes such a token") from None
    if ttl_s < 1:
        raise CommandFailed("--ttl: give a second or more; tokens without an end are not taken")
    for option, patterns in (("--subscribe", subscribe), ("--publish", publish)):
        for pattern in patterns:
            try:
                parse_pattern(pattern)
            except BadClaims as error:
                raise CommandFailed(f"{option} {error}") from None
    now = int(time.time())
    claims: dict[str, object] = {"sub": sub, "iat": now, "exp": now + int(ttl_s)}
    claims |= {
        name: value
        for name, value in (("iss", issuer or settings.jwt_issuer), ("aud", audience or _first(settings)))
        if value is not None
    }
    claims[CLAIM] = {"subscribe": list(subscribe), "publish": list(publish)}
    return sign(claims, secret.encode())


def idle_rights(settings: Settings, *, subscribe: Sequence[str], publish: Sequence[str]) -> list[str]:
    """What of these patterns gives no right, though it may be meant to: a line for each, with the reason.

    Args:
        settings: `roots` are the first tokens that gateways of these settings serve.
        subscribe, publish: NATS patterns.
    """
    lines = []
    for option, patterns in (("--subscribe", subscribe), ("--publish", publish)):
        for pattern in patterns:
            root = pattern.split(".")[0]
            if root == INBOX_ROOT and option == "--subscribe":
                lines.append(f"{option} {pattern} gives no right: nobody may subscribe to {INBOX_ROOT}")
            elif root not in (*settings.roots, "*", ">", SUB):
                lines.append(
                    f"{option} {pattern} gives no right where NATSGATE_ROOTS is {','.join(settings.roots)}: "
                    f"{root} is none of them"
                )
    return lines


def _first(settings: Settings) -> str | None:
    return settings.jwt_audience[0] if settings.jwt_audience else None
