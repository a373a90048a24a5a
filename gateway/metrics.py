"""Metrics: read from plain counters when Prometheus asks. Nothing on the hot path knows of them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from prometheus_client import CollectorRegistry, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.gc_collector import GCCollector
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.platform_collector import PlatformCollector
from prometheus_client.process_collector import ProcessCollector

_LATENCY_BUCKETS_S = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
_LAG_BUCKETS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)


@dataclass(frozen=True, slots=True)
class Sample:
    """A number to be shown.

    Attributes:
        name: the metric's full name; counters end in `_total`.
        help: what it counts, with its unit.
        values: by the tuple of label values.
        labels: the labels' names.
    """

    name: str
    help: str
    values: Mapping[Any, float]
    labels: tuple[str, ...] = ()


class Sampler:
    """What is asked at each scrape."""

    def samples(self) -> Iterable[Sample]:
        """All numbers, as they are now."""
        raise NotImplementedError


class _Collector:
    def __init__(self, sampler: Sampler) -> None:
        self._sampler = sampler

    def collect(self) -> Iterator[Metric]:
        for sample in self._sampler.samples():
            family: CounterMetricFamily | GaugeMetricFamily
            if sample.name.endswith("_total"):
                family = CounterMetricFamily(sample.name, sample.help, labels=sample.labels)
            else:
                family = GaugeMetricFamily(sample.name, sample.help, labels=sample.labels)
            for labels, value in sample.values.items():
                family.add_metric(labels, value)
            yield family


class Metrics:
    """The `/metrics` page.

    Attributes:
        latency: observed once per fan-out.
        lag: observed some times a second.
    """

    def __init__(self, sampler: Sampler) -> None:
        self._registry = CollectorRegistry()
        ProcessCollector(registry=self._registry)
        PlatformCollector(registry=self._registry)
        GCCollector(registry=self._registry)
        self._registry.register(_Collector(sampler))
        self.latency = Histogram(
            "natsgate_delivery_latency_seconds",
            "From stored in the stream to written to clients, once per batch, in seconds.",
            buckets=_LATENCY_BUCKETS_S,
            registry=self._registry,
        )
        self.lag = Histogram(
            "natsgate_event_loop_lag_seconds",
            "How late the event loop calls a timer, some times a second, in seconds.",
            buckets=_LAG_BUCKETS_S,
            registry=self._registry,
        )

    def page(self) -> bytes:
        """The Prometheus text format."""
        return generate_latest(self._registry)


def read_page(text: str) -> Iterator[tuple[str, Mapping[str, str], float]]:
    """The numbers of a page in the Prometheus text format: each one's name, labels and value.

    Raises:
        ValueError: it is no such page.
    """
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            yield sample.name, sample.labels, sample.value
