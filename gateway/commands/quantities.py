"""Durations and sizes as people type them: `24h`, `90s`, `1GiB`."""

from __future__ import annotations

import re
from typing import Any

import click

from gateway.core.errors import BadRequest
from gateway.core.start import parse_since

_SIZE = re.compile(r"\s*(\d+)\s*([kmgt]?i?b?)\s*", re.IGNORECASE | re.ASCII)
_POWERS = "kmgt"
_DAY_S, _HOUR_S, _MINUTE_S = 86400, 3600, 60


class _Duration(click.ParamType[float]):
    name = "duration"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        if isinstance(value, float):
            return value
        if value == "0":
            return 0.0
        try:
            seconds = parse_since(value).ago_s
        except BadRequest:
            seconds = None
        if seconds is None:
            self.fail(f"{value!r} is no duration: give one such as 90s, 15m, 24h, 1h30m or 7d", param, ctx)
        return seconds


class _Size(click.ParamType[int]):
    name = "size"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        if isinstance(value, int):
            return value
        shape = _SIZE.fullmatch(value)
        if shape is None:
            self.fail(f"{value!r} is no size: give one such as 500000, 512MiB, 1GiB or 2GB", param, ctx)
        unit = shape[2].lower().rstrip("b")
        base = 1024 if unit.endswith("i") else 1000
        return int(shape[1]) * int(base ** (_POWERS.index(unit[0]) + 1 if unit else 0))


DURATION = _Duration()
"""An option's type: seconds. `0` means no limit."""

SIZE = _Size()
"""An option's type: bytes. `0` means no limit."""


def show_duration(seconds: float) -> str:
    """Seconds as `24h`, `1h30m`, `90s`-like text; `0.5s` below a second."""
    if seconds != int(seconds):
        return f"{seconds:g}s"
    rest, parts = int(seconds), []
    for unit, size in (("d", _DAY_S), ("h", _HOUR_S), ("m", _MINUTE_S), ("s", 1)):
        count, rest = divmod(rest, size)
        parts += [f"{count}{unit}"] if count else []
    return "".join(parts) or "0s"


def show_size(size: int) -> str:
    """Bytes as `1GiB` where that is exact, else as they are."""
    for power, unit in ((30, "GiB"), (20, "MiB"), (10, "KiB")):
        if size and size % 2**power == 0:
            return f"{size >> power}{unit}"
    return f"{size}B"
