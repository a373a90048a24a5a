"""What `natsgate check` says of the keys that tokens are checked with."""

from __future__ import annotations

import asyncio
from random import Random

from gateway.commands.finding import Finding, fine, note, problem
from gateway.core.errors import ConfigError
from gateway.core.revoked import Revoked
from gateway.identity import Identity
from gateway.logs import logger
from gateway.settings import KEYS, NO_KEYS, Settings


async def look_at_keys(settings: Settings) -> list[Finding]:
    """Read the keys as a gateway would; those of an issuer are fetched once."""
    if settings.auth != "jwt":
        return []
    if settings.lacks_keys:
        return [problem("auth", f"{settings.name_of('auth')}: {NO_KEYS}", f"give {KEYS}")]
    loop = asyncio.get_running_loop()
    try:
        identity = Identity(settings, Revoked(), random=Random(), now=loop.time, log=logger())
    except ConfigError as error:
        name, _, text = str(error).partition(": ")
        return [problem("auth", f"{name} cannot be used: {text}", f"give the issuer's public key in {name}_FILE")]
    given = [
        name
        for name, value in (("JWT_SECRET", settings.jwt_secret), ("JWT_PUBLIC_KEY", settings.jwt_public_key))
        if value is not None
    ]
    found = [fine("auth", f"tokens are checked with {' and '.join(given)}")] if given else []
    if identity.jwks is not None:
        await identity.jwks.refresh()
        if identity.jwks.trouble:
            mend = "check NATSGATE_JWKS_URL, and that this machine may reach it"
            text = f"the issuer's keys cannot be fetched from {identity.jwks.shown_url}: {identity.jwks.trouble}"
            found.append(problem("auth", text, mend))
        else:
            found.append(fine("auth", f"{len(identity.jwks)} keys at {identity.jwks.shown_url}"))
    if settings.jwks_url is not None and settings.jwks_url.startswith("http://"):
        text = "the issuer's keys come over plain http: whoever is in between can make tokens"
        found.append(note("auth", text, "use https, unless that network is yours"))
    if settings.jwt_issuer is None and (settings.jwks_url or settings.jwt_public_key):
        text = "tokens of any iss are taken that the issuer's keys have signed"
        found.append(note("auth", text, "set NATSGATE_JWT_ISSUER and NATSGATE_JWT_AUDIENCE"))
    return found
