"""Who is asking, and what they may see. Every filter of every transport passes through `Principal.require`."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from gateway.core.errors import Forbidden
from gateway.core.subjects import Filter, covers


@dataclass(frozen=True, slots=True)
class Principal:
    """An identity with rights.

    Attributes:
        sub: who it is; empty for nobody in particular.
        subscribe: NATS patterns, as tokens. A filter is allowed when one of them covers it whole.
    """

    sub: str
    subscribe: tuple[tuple[str, ...], ...]

    def require(self, filters: Iterable[Filter]) -> None:
        """Check that all of the filters may be subscribed to.

        Raises:
            Forbidden: one may not; the detail names it.
        """
        for each in filters:
            if not any(covers(pattern, each.tokens) for pattern in self.subscribe):
                raise Forbidden(f"Your token gives no right to subscribe to {each.text}.")


EVERYONE = Principal(sub="", subscribe=((">",),))
"""Who everybody is while `auth = "none"`."""
