"""Authentication as the settings describe it: keys, tokens, tickets, origins, put together."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from random import Random
from typing import get_args

from gateway.auth.authenticator import Authenticator
from gateway.auth.jose import BadKey, Key, public_key, secret_key
from gateway.auth.jwks import Jwks
from gateway.auth.keys import KeyRing
from gateway.auth.tickets import Tickets
from gateway.auth.tokens import Tokens
from gateway.core.errors import AuthFailure, ConfigError
from gateway.core.origins import Origins
from gateway.core.revoked import Revoked
from gateway.logs import Logger
from gateway.settings import Settings
from gateway.values import revealed


class Identity:
    """Who is who, for one replica.

    Args:
        settings: all settings, as they are at the start.
        revoked: users whose older tokens are refused.
        random: for jitter; `now`: monotonic seconds; `log`: for what goes wrong.

    Attributes:
        authenticator: says who is asking.
        failures: refused tokens and origins, by reason.
        revoked: users whose older tokens are refused.
        jwks: an issuer's keys, to be kept fresh by its `run`; None: there are none.

    Raises:
        ConfigError: a key cannot be read.
    """

    def __init__(
        self, settings: Settings, revoked: Revoked, *, random: Random, now: Callable[[], float], log: Logger
    ) -> None:
        self.revoked = revoked
        self.failures: Counter[AuthFailure] = Counter(dict.fromkeys(get_args(AuthFailure), 0))
        self.jwks: Jwks | None = None
        if settings.auth == "jwt" and settings.jwks_url is not None:
            self.jwks = Jwks(settings.jwks_url, random=random, log=log, changed=self._keys_changed, now=now)
        self.take(settings)

    def take(self, settings: Settings) -> None:
        """Go on by these settings: other keys, secrets and origins. `auth` and `jwks_url` stay as they were.

        Raises:
            ConfigError: a key cannot be read; nothing has changed.
        """
        tokens = ticket_secret = None
        if settings.auth == "jwt":
            tokens = Tokens(
                KeyRing(_fixed_keys(settings), self.jwks),
                issuer=settings.jwt_issuer,
                audiences=settings.jwt_audience,
                leeway_s=settings.jwt_leeway_s,
                revoked=self.revoked,
                now=time.time,
            )
            ticket_secret = settings.ticket_secret or settings.jwt_secret
        self._tokens = tokens
        self.authenticator = Authenticator(
            tokens,
            Tickets(
                revealed(ticket_secret),
                settings.ticket_ttl_s,
                leeway_s=settings.jwt_leeway_s,
                now=time.time,
            ),
            Origins(settings.allowed_origins),
            access_token=settings.allow_access_token,
            failures=self.failures,
        )

    @property
    def reasons(self) -> list[str]:
        """What keeps tokens from being checked now; each with its mend."""
        if self.jwks is None or not self.jwks.trouble:
            return []
        kept = "the keys fetched before are used" if self.jwks.loaded else "no token of theirs can be checked"
        return [f"the issuer's keys cannot be fetched ({self.jwks.trouble}); {kept}; check NATSGATE_JWKS_URL"]

    @property
    def usable_once(self) -> bool:
        """Whether tokens could be checked at some time since the start."""
        return self.jwks is None or self.jwks.loaded

    @property
    def cached_bytes(self) -> int:
        """What is remembered of verified tokens."""
        return 0 if self._tokens is None else self._tokens.cache.bytes

    def _keys_changed(self) -> None:
        # A key that is gone proves nothing any more, not even what it proved a moment ago.
        assert self._tokens is not None
        self._tokens.cache.clear()


def _fixed_keys(settings: Settings) -> list[Key]:
    keys = []
    if settings.jwt_secret is not None:
        keys.append(secret_key(settings.jwt_secret.get_secret_value().encode("utf-8")))
    if settings.jwt_public_key is not None:
        try:
            keys.append(public_key(settings.jwt_public_key))
        except BadKey as error:
            raise ConfigError(f"NATSGATE_JWT_PUBLIC_KEY: {error}") from None
    return keys
