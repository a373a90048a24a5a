"""The Grafana dashboard of deploy/: its panels and its queries."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from tests.deploy.files import DEPLOY

FILE = DEPLOY / "grafana" / "dashboards" / "natsgate.json"


def dashboard() -> dict[str, Any]:
    """The whole of it."""
    whole: dict[str, Any] = json.loads(FILE.read_text("utf-8"))
    return whole


def queries() -> Iterator[tuple[str, str]]:
    """Every query, with the title of its panel."""
    whole = dashboard()
    for panel in whole["panels"]:
        for target in panel.get("targets", []):
            yield panel["title"], target["expr"]
    for annotation in whole["annotations"]["list"]:
        yield annotation["name"], annotation["expr"]


def asked(expression: str, *, interval: str) -> str:
    """The query as Grafana sends it, with all replicas chosen."""
    return expression.replace("$__rate_interval", interval).replace("$replica", ".*")
