"""The key ring: which keys may have signed a token. Fixed ones, from the settings, and those that an issuer has."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from gateway.auth.jose import PUBLIC, Key

MOST_TRIED = 8
"""Keys that are tried on a token whose header names none: each costs a signature."""


class Published(Protocol):
    """Keys that somebody else publishes."""

    def known(self, algorithm: str, kid: str | None) -> Sequence[Key]:
        """Those of the last fetch that fit."""

    async def fetched(self, algorithm: str, kid: str | None) -> Sequence[Key]:
        """Those that fit, after they were fetched anew if that is due. Raises `ComeBack` when they cannot be had."""


class KeyRing:
    """All keys that a gateway takes.

    Args:
        fixed: from the settings.
        published: those of an issuer; None: there are none.
    """

    def __init__(self, fixed: Sequence[Key], published: Published | None) -> None:
        self._fixed = tuple(fixed)
        self._published = published

    def known(self, algorithm: str, kid: str | None) -> Sequence[Key]:
        """The keys at hand that a token with this header may have been signed with."""
        keys = [key for key in self._fixed if key.fits(algorithm, kid)]
        if self._published is not None and algorithm in PUBLIC:
            keys += self._published.known(algorithm, kid)
        return keys[:MOST_TRIED]

    async def newer(self, algorithm: str, kid: str | None, known: Sequence[Key]) -> Sequence[Key]:
        """The keys that the issuer has meanwhile, beside those at hand, none of which signed the token.

        Raises:
            ComeBack: they cannot be had now.
        """
        named = kid is not None and any(key.kid == kid for key in known)
        # A key of the very name that the token gives is the last word, and no issuer publishes a secret.
        if self._published is None or algorithm not in PUBLIC or named:
            return ()
        keys = await self._published.fetched(algorithm, kid)
        return [key for key in keys if key not in known][:MOST_TRIED]
