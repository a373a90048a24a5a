"""Admission: how many connections there may be: of all, of one user, of one address, and while there is memory."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from gateway.core.addresses import limit_key
from gateway.core.closing import Closing
from gateway.core.errors import ComeBack


class Admission:
    """Counts connections, and turns away those that are too many. Who is in stays in.

    Args:
        most, most_per_sub, most_per_address: limits; 0 means no limit. They may change.
        memory_full: whether memory is short.

    Attributes:
        leaving: whether everybody is being sent to another replica.
    """

    def __init__(self, *, most: int, most_per_sub: int, most_per_address: int, memory_full: Callable[[], bool]) -> None:
        self.most = most
        self.most_per_sub = most_per_sub
        self.most_per_address = most_per_address
        self._memory_full = memory_full
        self._inside = 0
        self._by_sub: Counter[str] = Counter()
        self._by_address: Counter[str] = Counter()
        self.leaving = False

    @property
    def counts(self) -> dict[str, int]:
        """How many connections, those at the door too, and how many users and addresses are counted."""
        return {"connections": self._inside, "subs": len(self._by_sub), "addresses": len(self._by_address)}

    @contextmanager
    def entering(self, address: str) -> Iterator[None]:
        """Somebody is at the door: counted as inside for as long as it is looked at.

        Raises:
            ComeBack: there is no room.
        """
        self._require_room(address)
        self._inside += 1
        self._by_address[limit_key(address)] += 1
        try:
            yield
        finally:
            self._inside -= 1
            self._forget(self._by_address, limit_key(address))

    def entered(self, address: str) -> Closing | None:
        """A connection is inside: counted, and why it has to go if it is one too many (others came in meanwhile)."""
        key = limit_key(address)
        self._inside += 1
        self._by_address[key] += 1
        if self.leaving:
            return Closing.DRAINING
        crowded = 0 < self.most < self._inside or 0 < self.most_per_address < self._by_address[key]
        return Closing.LIMIT_CONNECTIONS if crowded else None

    def left(self, address: str, sub: str) -> None:
        """A connection, known as `sub` (or as nobody), is no more."""
        self._inside -= 1
        self._forget(self._by_address, limit_key(address))
        if sub:
            self._forget(self._by_sub, sub)

    def named(self, sub: str) -> Closing | None:
        """A connection inside has said who it is: counted, and why it has to go if it is one too many."""
        self._by_sub[sub] += 1
        return Closing.LIMIT_CONNECTIONS if 0 < self.most_per_sub < self._by_sub[sub] else None

    def require_room_for(self, sub: str) -> None:
        """Check that one more connection of a user is welcome.

        Raises:
            ComeBack: it is not.
        """
        if 0 < self.most_per_sub <= self._by_sub[sub]:
            raise ComeBack(
                f"You have as many connections as one user may (NATSGATE_MAX_CONNECTIONS_PER_SUB={self.most_per_sub}); "
                "close one, or put several filters into one feed.",
                why=Closing.LIMIT_CONNECTIONS,
                too_many=True,
            )

    def _require_room(self, address: str) -> None:
        if self.leaving:
            raise ComeBack("This replica is about to end; another one will take you.", why=Closing.DRAINING)
        if 0 < self.most <= self._inside:
            raise ComeBack("This replica has all the connections it takes.", why=Closing.LIMIT_CONNECTIONS)
        if 0 < self.most_per_address <= self._by_address[limit_key(address)]:
            raise ComeBack(
                "Your address has as many connections as one may "
                f"(NATSGATE_MAX_CONNECTIONS_PER_IP={self.most_per_address}).",
                why=Closing.LIMIT_CONNECTIONS,
                too_many=True,
            )
        if self._memory_full():
            raise ComeBack("This replica is short of memory.", why=Closing.OVERLOADED)

    @staticmethod
    def _forget(counts: Counter[str], key: str) -> None:
        counts[key] -= 1
        if counts[key] <= 0:
            del counts[key]  # or it would grow with everybody who was ever here
