"""Writes the PrometheusRule of k8s/ from deploy/prometheus/alerts.yml: `python -m tests.deploy.prometheus_rule`."""

from __future__ import annotations

from tests.deploy.files import DEPLOY, K8S

FILE = K8S / "components" / "monitoring" / "prometheusrule.yaml"
HEAD = """\
# Written by `make docs` from deploy/prometheus/alerts.yml: change that file.
apiVersion: monitoring.coreos.com/v1
kind: PrometheusRule
metadata:
  name: natsgate
spec:
"""


def written() -> str:
    """The manifest, made anew."""
    _, mark, groups = (DEPLOY / "prometheus" / "alerts.yml").read_text("utf-8").partition("groups:\n")
    assert mark, "no groups"
    lines = (mark + groups).splitlines(keepends=True)
    return HEAD + "".join("  " + line if line.strip() else line for line in lines)


if __name__ == "__main__":
    FILE.write_text(written(), "utf-8")
    print(f"{FILE.name} written")
