"""File descriptors: as many as the system gives to this process, and for how many connections they last.

Where they run out nothing works any more: NATS is not reached again, keys are not read, and the kernel's queue of
connections is neither served nor refused. So the last ones are kept back.
"""

from __future__ import annotations

import resource
from typing import NamedTuple, Self

from gateway.logs import Logger

RESERVED = 128
"""For ourselves: listening sockets, NATS and its reconnects, keys, the log, files that are read for a moment."""

WAITING_SHARE = 8
"""One in so many may be held by those that are no connections yet: requests that are not whole, or are refused."""


class Descriptors(NamedTuple):
    """What there is.

    Attributes:
        limit: RLIMIT_NOFILE of this process; 0: no limit.
    """

    limit: int

    @classmethod
    def raised(cls) -> Self:
        """Raise this process's limit as far as it may, which is what the hard limit is for: the soft one is low for
        programs that call select(2), and we do not."""
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        if soft != hard:
            try:
                resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
                soft = hard
            except (OSError, ValueError):
                pass  # macOS: the hard limit is none at all, and more than may be had; what we have is what there is
        return cls(0 if soft == resource.RLIM_INFINITY else soft)

    @property
    def sockets(self) -> int:
        """How many may be clients' sockets; 0: no limit."""
        return max(self.limit - RESERVED, self.limit // 2)

    def most_connections(self, wanted: int, most_waiting: int, log: Logger) -> int:
        """How many connections to take: as many as wanted, or as the descriptors last for; the log is told when those
        are fewer. Who is one too many is then told to come again.

        Args:
            wanted: the setting; 0: no limit.
            most_waiting: how many there may be beside them that are no connections yet.
            log: for the mend.
        """
        able = self.sockets - min(most_waiting, self.sockets // WAITING_SHARE)
        if 0 < able < wanted:
            log.warning(
                "descriptors_short",
                limit=self.limit,
                needed=wanted + most_waiting + RESERVED,
                max_connections=wanted,
                taken=able,
                mend="raise the hard limit of open files (systemd: LimitNOFILE=, Docker: --ulimit nofile=, shell: "
                "ulimit -Hn), or lower NATSGATE_MAX_CONNECTIONS",
            )
        return able if not wanted or 0 < able < wanted else wanted
