"""One reading of a gateway's /metrics page."""

from __future__ import annotations

from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample


class Metrics:
    """The samples of one scrape; text that the Prometheus parser refuses raises ValueError."""

    def __init__(self, text: str) -> None:
        self.families = {family.name: family for family in text_string_to_metric_families(text)}
        self.samples: list[Sample] = [s for family in self.families.values() for s in family.samples]

    def total(self, name: str, **labels: str) -> float:
        """The sum of the samples called `name` that carry these labels; 0 when there is none."""
        wanted = labels.items()
        return sum(s.value for s in self.samples if s.name == name and wanted <= s.labels.items())

    def by(self, name: str, label: str) -> dict[str, float]:
        """The samples called `name`, summed up by one of their labels. Counters are there from the start: those that
        have not counted anything are left out."""
        sums: dict[str, float] = {}
        for sample in self.samples:
            if sample.name == name and (sample.value or not name.endswith("_total")):
                key = sample.labels[label]
                sums[key] = sums.get(key, 0.0) + sample.value
        return sums

    def counters(self) -> set[tuple[str, tuple[tuple[str, str], ...]]]:
        """All counters of natsgate's own that are shown: their names and labels."""
        return {
            (each.name, tuple(sorted(each.labels.items())))
            for each in self.samples
            if each.name.startswith("natsgate_") and each.name.endswith("_total")
        }
