"""One look at a replica's `/metrics`, and what lies between two of them."""

from __future__ import annotations

import math
import ssl
import time
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import httpx

from gateway.commands.address import Address
from gateway.core.errors import GatewayError
from gateway.http_client import HEADERS, reason
from gateway.metrics import read_page

TIMEOUT_S = 2.0
"""How long a replica may take for each step of an answer: to be reached, and to send more of it."""

TIMED_OUT = "no answer in time"
LARGEST_PAGE_BYTES = 16 * 2**20
Buckets = dict[float, float]
"""A histogram's observations, cumulative, by upper bound in seconds."""


class Unseen(GatewayError):
    """The replica could not be looked at. The text says why, in a few words."""


@dataclass(frozen=True, slots=True)
class Look:
    """The numbers of one moment.

    Attributes:
        at: monotonic seconds.
        sums: by metric, its samples together.
        by_transport: `natsgate_connections` by transport.
        buckets: by histogram.
    """

    at: float
    sums: Counter[str] = field(default_factory=Counter)
    by_transport: Counter[str] = field(default_factory=Counter)
    buckets: dict[str, Buckets] = field(default_factory=dict)


def client() -> httpx.Client:
    """What `look` asks by: one for each thread. A connection serves one look: a kept one may be a dead replica's."""
    return httpx.Client(
        headers=HEADERS,
        limits=httpx.Limits(max_keepalive_connections=0),
        timeout=TIMEOUT_S,
        trust_env=False,
        verify=ssl.create_default_context(),
    )


def look(http: httpx.Client, address: Address) -> Look:
    """Fetch and read a replica's metrics.

    Raises:
        Unseen: it does not answer, or not with metrics of a natsgate.
    """
    page = _fetch(http, address)
    seen = Look(time.monotonic())
    try:
        for name, labels, value in read_page(page):
            if name.endswith("_bucket"):
                bounds = seen.buckets.setdefault(name.removesuffix("_bucket"), {})
                bounds[float(labels["le"])] = value
            else:
                seen.sums[name] += value  # type: ignore[assignment]  # a Counter of floats
                if name == "natsgate_connections":
                    seen.by_transport[labels["transport"]] += int(value)
    except (ValueError, KeyError, OverflowError):
        raise Unseen("what it sends are no metrics") from None
    if "natsgate_build_info" not in seen.sums:
        raise Unseen("those are no metrics of a natsgate")
    return seen


def _fetch(http: httpx.Client, address: Address) -> str:
    path = address.base if address.base.endswith("/metrics") else address.base + "/metrics"
    body = bytearray()
    try:
        with http.stream("GET", address.origin + path, headers={"Accept": "text/plain"}) as answer:
            for piece in answer.iter_raw():
                body += piece
                if len(body) > LARGEST_PAGE_BYTES:
                    raise Unseen("what it sends has no end")
    except httpx.TimeoutException:
        raise Unseen(TIMED_OUT) from None
    except httpx.RemoteProtocolError:
        raise Unseen("it sends no HTTP, or half an answer") from None
    except (httpx.HTTPError, OSError, UnicodeError) as error:
        raise Unseen(reason(error).lower()) from None
    if answer.status_code == 404:
        raise Unseen("no /metrics there (METRICS_LISTEN moves them)")
    if answer.status_code != 200:
        raise Unseen(f"it answers {answer.status_code}")
    return body.decode("utf-8", "replace")


def increase(name: str, before: Look, now: Look) -> float:
    """How much a counter went up. One that is lower than before began anew with its process."""
    last, this = before.sums[name], now.sums[name]
    return this - last if this >= last else this


def observed(name: str, before: Look, now: Look) -> Buckets:
    """What a histogram observed between two looks."""
    last, this = before.buckets.get(name, {}), now.buckets.get(name, {})
    began_anew = this.get(math.inf, 0.0) < last.get(math.inf, 0.0)
    return {bound: value - (0.0 if began_anew else last.get(bound, 0.0)) for bound, value in this.items()}


def together(all_buckets: Iterable[Mapping[float, float]]) -> Buckets:
    """Several histograms as one."""
    found: Buckets = {}
    for buckets in all_buckets:
        for bound, value in buckets.items():
            found[bound] = found.get(bound, 0.0) + value
    return found


def quantile(share: float, buckets: Mapping[float, float]) -> float | None:
    """The value in seconds that this share of observations does not exceed, as Prometheus's `histogram_quantile` has
    it: linear within a bucket. Infinite above the last bound; None when there was no observation."""
    bounds = sorted(buckets)
    total = buckets[bounds[-1]] if bounds else 0.0
    if not total:
        return None
    low, below = 0.0, 0.0
    for bound in bounds:
        if buckets[bound] >= share * total:
            if math.isinf(bound):
                return math.inf
            inside = buckets[bound] - below
            # Rounding may lead a last bit beyond the bound.
            return min(bound, low + (bound - low) * ((share * total - below) / inside if inside else 1.0))
        low, below = bound, buckets[bound]
    return math.inf
