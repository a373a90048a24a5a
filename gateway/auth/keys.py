"""The key ring: which keys may have signed a token. Fixed ones, from the settings, and those that an issuer has."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from gateway.auth.jose import Key
from gateway.core.errors import Unauthorized

MOST_TRIED = 8
"""Keys that are tried on a token whose header names none: each costs a signature."""


class Published(Protocol):
    """Keys that somebody else publishes."""

    async def find(self, algorithm: str, kid: str | None) -> Sequence[Key]:
        """The keys that fit, fetched anew where none does; empty when there is none.

        Raises:
            ComeBack: they cannot be had now.
        """


class KeyRing:
    """All keys that a gateway takes.

    Args:
        fixed: from the settings.
        published: those of an issuer; None: there are none.
    """

    def __init__(self, fixed: Sequence[Key], published: Published | None) -> None:
        self._fixed = tuple(fixed)
        self._published = published

    async def find(self, algorithm: str, kid: str | None) -> Sequence[Key]:
        """The keys that a token with this header may have been signed with.

        Raises:
            Unauthorized: none.
            ComeBack: the issuer's keys cannot be had now.
        """
        keys: Sequence[Key] = [key for key in self._fixed if key.fits(algorithm, kid)]
        if not keys and self._published is not None:
            keys = await self._published.find(algorithm, kid)
        if not keys:
            raise Unauthorized(
                "There is no key here for this token: its alg or kid is not one of this gateway's.",
                reason="unknown_key",
            )
        return keys[:MOST_TRIED]
