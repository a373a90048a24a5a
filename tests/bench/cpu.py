"""CPU time of a process, and who runs on which core.

Wall time on a shared machine says little; CPU time says what the work costs. It comes from the kernel's
process clock: nanoseconds, all threads, ended ones included.
"""

import os
import time
from dataclasses import dataclass


def cpu_s(pid: int) -> float:
    """Seconds of CPU, user and system, that process `pid` has used so far. Raises OSError when it is gone."""
    # CPUCLOCK_SCHED of a whole process, as clock_getcpuclockid(3) makes it.
    return time.clock_gettime((~pid << 3) | 2)


@dataclass(frozen=True)
class Cores:
    """One core for what is measured, the others for what drives it; one for both when there is but one."""

    server: frozenset[int]
    client: frozenset[int]

    @classmethod
    def of_this_machine(cls) -> "Cores":
        usable = sorted(os.sched_getaffinity(0))
        return cls(frozenset(usable[:1]), frozenset(usable[1:] or usable))

    def __str__(self) -> str:
        if self.server == self.client:
            return "one core for all: expect noise"
        return f"server on core {min(self.server)}, clients and NATS on {sorted(self.client)}"
