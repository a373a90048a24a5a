"""A guard: what a connection may have and for how long. The sweep asks it; there is no timer of its own."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import NamedTuple, Protocol

from gateway.core.closing import Closing
from gateway.core.reader import Opening
from gateway.core.rights import Principal
from gateway.core.start import Start
from gateway.core.subjects import Filter

AskAgain = Callable[[], Awaitable["float | Closing | None"]]
"""Asks a service again: after how many seconds it wants to be asked next (None: never), or why the connection ends."""


class Guard:
    """Who a connection belongs to.

    Attributes:
        principal: who it is; None: nobody has said yet.
        ends_at: when that is over (monotonic seconds); infinite: never.
        why: the reason then.
        ask_at: when a service is to be asked again (monotonic seconds); infinite: never.
        ask: asks it.
    """

    __slots__ = ("ask", "ask_at", "ends_at", "principal", "why")

    def __init__(self, principal: Principal | None, ends_at: float, why: Closing) -> None:
        self.principal = principal
        self.ends_at = ends_at
        self.why = why
        self.ask_at = float("inf")
        self.ask: AskAgain | None = None


Store = Callable[[Guard | None, str, bytes], Awaitable[object]]
"""Stores a client's message: takes whose connection it came by, its `type` and its JSON; raises `ClientError` or
`UpstreamError`."""


class Entry(NamedTuple):
    """What a path serves to a principal by itself.

    Attributes:
        filters: its feed; empty: none, the client asks for feeds by message.
        start: where it begins.
        opening: shows the present state first, where a service gives one.
        store: None: the path takes no messages.
        granted: whether a service gives the feed, whatever the token's rights are.
    """

    filters: list[Filter]
    start: Start
    opening: Opening | None = None
    store: Store | None = None
    granted: bool = False


class Door(Protocol):
    """What lets a client of one path in."""

    async def authenticate(self, token: str) -> Guard:
        """Whose token it is. Raises `ClientError`."""

    async def enter(self, guard: Guard) -> Entry:
        """What the path serves to this client by itself. Raises `ClientError`."""

    def allow(self, guard: Guard | None, subjects: tuple[str, ...]) -> list[Filter]:
        """Turns filters as a client wrote them into filters that it may have. Raises `ClientError`."""
