"""Memory of a process, and of the kernel on its behalf."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Memory:
    """A moment's memory in KB.

    `anonymous_kb` is the part of `rss_kb` that is in no file: the kernel may take pages of files away from an
    idle process, which makes growth look smaller than it is. `slab_kb` is the whole machine's: sockets live
    there, both ends of each.
    """

    rss_kb: int
    anonymous_kb: int
    slab_kb: int

    @classmethod
    def of(cls, pid: int) -> "Memory":
        process = _fields(Path(f"/proc/{pid}/smaps_rollup"))
        machine = _fields(Path("/proc/meminfo"))
        return cls(process["Rss"], process["Anonymous"], machine["Slab"])

    @property
    def resident_kb(self) -> int:
        """The larger of the two ways to count."""
        return max(self.rss_kb, self.anonymous_kb)

    def __sub__(self, other: "Memory") -> "Memory":
        return Memory(self.rss_kb - other.rss_kb, self.anonymous_kb - other.anonymous_kb, self.slab_kb - other.slab_kb)


def _fields(path: Path) -> dict[str, int]:
    found = {}
    for line in path.read_text().splitlines():
        name, colon, rest = line.partition(":")
        if colon and rest.endswith(" kB"):
            found[name] = int(rest.split()[0])
    return found
