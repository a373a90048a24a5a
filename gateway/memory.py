"""Memory: how much there may be, and how much there is, as the kernel sees it that would kill us for it."""

from __future__ import annotations

import ctypes
import gc
import os
import re
from collections.abc import Callable
from pathlib import Path

WATERMARK = 0.9
"""Above this part of the limit no new connection is taken; those that are there stay."""

LOOK_S = 0.5
"""How old a reading may be."""

GIVE_BACK_S = 10.0
"""How often, above the watermark, what is free within the process is given back to the system."""

_ROOT, _OWN = Path("/sys/fs/cgroup"), Path("/proc/self/cgroup")
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
_NO_LIMIT_BYTES = 2**60
"""What cgroup v1 says where there is no limit lies above this."""


class Memory:
    """The memory of this process against its limit.

    Args:
        limit_bytes: the limit; None: the cgroup's, if it has one; 0: none.
        now: monotonic seconds.
        root: where cgroups are mounted.
        own: the file that says which of them is ours (cgroups(7)).

    Attributes:
        limit_bytes: the limit in force; 0: none.
    """

    def __init__(
        self, limit_bytes: int | None, now: Callable[[], float], *, root: Path = _ROOT, own: Path = _OWN
    ) -> None:
        self._now = now
        self._root = root
        self._own = own
        self._read_at = self._gave_back_at = float("-inf")
        self._used = 0
        self.limit_bytes = 0
        self.set_limit(limit_bytes)

    def set_limit(self, limit_bytes: int | None) -> None:
        """Go by another limit from now on; see the class."""
        self._group = _group(self._root, self._own) if limit_bytes is None else None
        self.limit_bytes = limit_bytes if limit_bytes is not None else _limit_of(self._group)
        self._read_at = float("-inf")

    @property
    def used_bytes(self) -> int:
        """What is in use, read at most every `LOOK_S`: the process's own, or its cgroup's where that sets the limit,
        since the kernel's socket buffers count there too."""
        if self._now() - self._read_at >= LOOK_S:
            self._read_at = self._now()
            self._used = max(_resident(), _used_by(self._group))
        return self._used

    @property
    def full(self) -> bool:
        """Whether new connections are to be turned away.

        What connections held that are gone stays with the process, in garbage that nobody has collected and in free
        pieces between others. Nobody new would be taken in ever again, so it is given back first."""
        most = WATERMARK * self.limit_bytes
        if most and self.used_bytes > most and self._now() - self._gave_back_at >= GIVE_BACK_S:
            self._gave_back_at = self._now()
            _give_back()
            self._read_at = float("-inf")
        return bool(most) and self.used_bytes > most


def _give_back() -> None:
    gc.collect()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # glibc's; other libraries need none, or have none
    if trim is not None:
        trim(0)


def _resident() -> int:
    try:
        return int(Path("/proc/self/statm").read_text("ascii").split()[1]) * _PAGE_BYTES
    except OSError:
        return 0  # not Linux: then there is no watermark


def _group(root: Path, own: Path) -> Path | None:
    """The folder of the innermost of our cgroups that has a limit. In a container ours is the root, whatever its name
    is outside."""
    try:
        lines = own.read_text("utf-8").splitlines()
    except OSError:
        return None
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers == "":
            top = root  # cgroup v2
        elif "memory" in controllers.split(","):
            top = root / "memory"  # cgroup v1
        else:
            continue
        innermost = top / path.lstrip("/")
        for folder in (innermost, *innermost.parents):
            if _limit_of(folder):
                return folder
            if folder == top:
                break
    return None


def _limit_of(group: Path | None) -> int:
    for name in ("memory.max", "memory.limit_in_bytes"):
        limit = _number(group, name)
        if 0 < limit < _NO_LIMIT_BYTES:
            return limit
    return 0


def _used_by(group: Path | None) -> int:
    used = _number(group, "memory.current") or _number(group, "memory.usage_in_bytes")
    if not used or group is None:
        return 0
    try:
        stat = (group / "memory.stat").read_text("ascii")
    except OSError:
        return used
    cached = re.search(r"^(?:total_)?inactive_file (\d+)$", stat, re.MULTILINE)
    return used - int(cached[1]) if cached is not None else used  # what the kernel would drop by itself


def _number(group: Path | None, name: str) -> int:
    try:
        return 0 if group is None else int((group / name).read_text("ascii"))
    except (OSError, ValueError):
        return 0  # there is none, or it is "max"
