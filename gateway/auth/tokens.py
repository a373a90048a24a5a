"""Tokens: from their text to a principal. What was verified once is remembered by its hash."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Callable, Sequence

from gateway.auth import jose
from gateway.auth.jose import Key
from gateway.auth.keys import KeyRing
from gateway.core.closing import Closing
from gateway.core.errors import Unauthorized
from gateway.core.recent import Recent
from gateway.core.revoked import Revoked
from gateway.core.rights import BadClaims, Principal, principal_of

CACHE_BYTES = 16 * 2**20
"""What may be remembered of verified tokens: some thousands. A reconnect storm then pays for no signature twice."""

PRINCIPAL_BYTES = 300
"""What a principal costs beside its claims and patterns."""

TUPLE_BYTES, TOKEN_BYTES = 72, 64
"""What a pattern costs, and each of its tokens, beside their characters."""


class Tokens:
    """Verifies tokens.

    Concurrency: `verify` may be called any number of times at once.

    Args:
        keys: who may have signed them.
        issuer, audiences, leeway_s: see `jose.verify`.
        revoked: users whose older tokens are refused, however valid.
        now: seconds since the epoch.
        cache_bytes: the most that `cache` may cost.

    Attributes:
        cache: what was verified, by hash: a copy of this process's memory shows no token.
    """

    def __init__(
        self,
        keys: KeyRing,
        *,
        issuer: str | None,
        audiences: Sequence[str],
        leeway_s: float,
        revoked: Revoked,
        now: Callable[[], float],
        cache_bytes: int = CACHE_BYTES,
    ) -> None:
        self._keys = keys
        self._issuer = issuer
        self._audiences = tuple(audiences)
        self._leeway_s = leeway_s
        self._revoked = revoked
        self._now = now
        self.cache: Recent[bytes, Principal] = Recent(cache_bytes)

    async def verify(self, token: str) -> Principal:
        """Whose token it is.

        Raises:
            Unauthorized: it is malformed, expired, revoked, or not signed for us.
            ComeBack: the keys of its issuer cannot be had now.
        """
        name = hashlib.sha256(token.encode("utf-8", "surrogatepass")).digest()
        principal = self.cache.get(name)
        if principal is None:
            principal = await self._verify(token)
            self.cache.put(name, principal, _cost(principal, len(token)))
        elif principal.expires_at is not None and principal.expires_at + self._leeway_s <= self._now():
            self.cache.forget(name)
            raise jose.expired()
        return self.not_revoked(principal)

    def not_revoked(self, principal: Principal) -> Principal:
        """The principal, unless its `sub` was revoked since its token was issued.

        Raises:
            Unauthorized: it was.
        """
        if self._revoked.refuses(principal):
            raise Unauthorized(
                "The token was issued before its user's access was revoked; sign in anew.",
                reason="revoked",
                closing=Closing.REVOKED,
            )
        return principal

    async def _verify(self, token: str) -> Principal:
        algorithm, kid = jose.read_header(token)
        known = self._keys.known(algorithm, kid)
        refusal = Unauthorized(
            "There is no key here for this token: its alg or kid is not one of this gateway's.", reason="unknown_key"
        )
        if known:
            try:
                return self._proven(token, known)
            except Unauthorized as error:
                if error.reason != "signature":
                    raise
                refusal = error
        newer = await self._keys.newer(algorithm, kid, known)
        if not newer:
            raise refusal
        return self._proven(token, newer)

    def _proven(self, token: str, keys: Sequence[Key]) -> Principal:
        claims = jose.verify(
            token,
            keys,
            issuer=self._issuer,
            audiences=self._audiences,
            leeway_s=self._leeway_s,
            now=self._now(),
        )
        try:
            return principal_of(claims)
        except BadClaims as error:
            raise jose.bad_claims(error) from None


def _cost(principal: Principal, chars: int) -> int:
    """Bytes that a principal takes in memory. Claims take up to twenty times their text, so that is no measure."""
    cost = PRINCIPAL_BYTES + chars
    for pattern in (*principal.subscribe, *principal.publish):
        cost += TUPLE_BYTES + TOKEN_BYTES * len(pattern)
    rest: list[object] = [principal.claims]
    while rest:  # not by recursion: claims are as deep as their issuer likes
        value = rest.pop()
        cost += sys.getsizeof(value)
        if isinstance(value, dict):
            rest += value
            rest += value.values()
        elif isinstance(value, list):
            rest += value
    return cost
