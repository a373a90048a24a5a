"""The table of `natsgate top`: a line per replica, and one for all of them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from gateway.commands.scrape import Buckets, Look, increase, observed, quantile, together

HEADS = (
    "replica",
    "sse",
    "ws",
    "new/s",
    "gone/s",
    "events/s",
    "writes/s",
    "bytes/s",
    "p50",
    "p99",
    "lag p99",
    "behind",
    "gaps",
    "log",
    "nats",
)
UNKNOWN = "-"
_LATENCY, _LAG = "natsgate_delivery_latency_seconds", "natsgate_event_loop_lag_seconds"


@dataclass(frozen=True, slots=True)
class Row:
    """A replica at one moment.

    Attributes:
        name: where it is.
        now: the newest look; None: it cannot be seen, and `trouble` says why.
        before: the look before that; None: rates are not known yet.
    """

    name: str
    now: Look | None
    before: Look | None = None
    trouble: str = ""


def table(rows: Sequence[Row]) -> list[str]:
    """The lines of the table."""
    seen = [row for row in rows if row.now is not None]
    cells: list[tuple[str, ...]] = [HEADS]
    cells += [(row.name, row.trouble) if row.now is None else _cells(row.name, [row]) for row in rows]
    if len(rows) > 1:
        cells.append(_cells("all", seen) if seen else ("all", UNKNOWN))
    widths = [max(len(line[column]) for line in cells if len(line) == len(HEADS)) for column in range(1, len(HEADS))]
    first = max(len(line[0]) for line in cells)
    return [_line(line, first, widths) for line in cells]


def _line(cells: tuple[str, ...], first: int, widths: Sequence[int]) -> str:
    if len(cells) != len(HEADS):
        return f"{cells[0]:<{first}}  {'  '.join(cells[1:])}"
    return "  ".join(
        [f"{cells[0]:<{first}}", *(f"{cell:>{width}}" for cell, width in zip(cells[1:], widths, strict=True))]
    )


def _cells(name: str, rows: Sequence[Row]) -> tuple[str, ...]:
    looks = [row.now for row in rows if row.now is not None]
    pairs = [(row.before, row.now) for row in rows if row.before is not None and row.now is not None]

    def per_s(metric: str) -> str:
        rates = [increase(metric, before, now) / (now.at - before.at) for before, now in pairs if now.at > before.at]
        return number(sum(rates)) if rates else UNKNOWN

    def buckets(metric: str) -> Buckets:
        return together(observed(metric, before, now) for before, now in pairs)

    def total(metric: str) -> float:
        return sum(look.sums[metric] for look in looks)

    up = sum(look.sums["natsgate_nats_connected"] > 0 for look in looks)
    return (
        name,
        number(sum(look.by_transport["sse"] for look in looks)),
        number(sum(look.by_transport["ws"] for look in looks)),
        per_s("natsgate_connections_opened_total"),
        per_s("natsgate_connections_closed_total"),
        per_s("natsgate_events_received_total"),
        per_s("natsgate_deliveries_total"),
        per_s("natsgate_sent_bytes_total"),
        duration(quantile(0.5, buckets(_LATENCY))),
        duration(quantile(0.99, buckets(_LATENCY))),
        duration(quantile(0.99, buckets(_LAG))),
        number(total("natsgate_connections_behind")),
        number(total("natsgate_gaps_total")),
        f"{number(total('natsgate_log_bytes'))}B",
        "up" if up == len(looks) else "DOWN" if len(looks) == 1 else f"{len(looks) - up} DOWN",
    )


def number(value: float) -> str:
    """A count or a rate in at most five characters: `0.4`, `12`, `1.2k`, `34M`."""
    if 0 < value < 9.95:
        return f"{value:.1f}".removesuffix(".0")
    for unit in ("", "k", "M", "G"):
        if value < 999.5:
            return f"{value:.1f}{unit}" if unit and value < 9.95 else f"{value:.0f}{unit}"
        value /= 1000
    return f"{value:.0f}T"


def duration(seconds: float | None) -> str:
    """Seconds for people: `0.4ms`, `12ms`, `1.2s`."""
    if seconds is None:
        return UNKNOWN
    if math.isinf(seconds):
        return "long"
    milliseconds = seconds * 1000
    if milliseconds < 9.95:
        return f"{milliseconds:.1f}ms"
    return f"{milliseconds:.0f}ms" if milliseconds < 999.5 else f"{seconds:.1f}s"
