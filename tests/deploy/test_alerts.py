"""The alerts of deploy/prometheus, by promtool: each fires on what it is about, and stays silent beside it."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple, get_args

import pytest
import yaml

from gateway.core.control import GapReason
from gateway.core.envelope import DropReason
from tests.deploy.files import DEPLOY, K8S, document, program
from tests.deploy.prometheus_rule import written
from tests.support.gateway import Gateway
from tests.support.nats_server import NatsServer

RULES_FILE = DEPLOY / "prometheus" / "alerts.yml"
RULES: dict[str, dict[str, Any]] = {
    rule["alert"]: rule for group in document(RULES_FILE)["groups"] for rule in group["rules"]
}
JOB = '{job="natsgate",instance="a"}'


Series = dict[str, str]
"""Values a minute apart, in promtool's notation: `0+1x60` is 0, 1, … 60. All others of instance a are what a gateway
shows that has just started, and stay so."""

STARTS = f"process_start_time_seconds{JOB}"


class Case(NamedTuple):
    """When one looks at an alert, and series for which it fires, or not.

    Attributes:
        fires_at_once: it fires also for a replica that has counted all of this before it was scraped first.
    """

    minutes: int
    fires: Series
    silent: Series
    fires_at_once: Series | None = None


def latency(metric: str, slow: str, fast: str) -> dict[str, str]:
    """A histogram: events a minute that take up to 0.1 s, and those that take longer."""
    return {
        f'{metric}_bucket{{instance="a",le="0.1"}}': fast,
        f'{metric}_bucket{{instance="a",le="5.0"}}': slow,
        f'{metric}_bucket{{instance="a",le="+Inf"}}': slow,
    }


CASES = {
    "NatsgateDown": Case(3, {f"up{JOB}": "1 0x5"}, {f"up{JOB}": "1 0 1x5"}),
    "NatsgateAllDown": Case(3, {f"up{JOB}": "0x5"}, {f"up{JOB}": "0x5", 'up{job="natsgate",instance="b"}': "1x5"}),
    "NatsgateRestarts": Case(
        25,
        {f"process_start_time_seconds{JOB}": "1x5 2x5 3x5 4x10"},
        {f"process_start_time_seconds{JOB}": "1x5 2x5 3x15"},
    ),
    "NatsgateInternalErrors": Case(
        12,
        {'natsgate_connections_closed_total{instance="a",transport="sse",reason="internal_error"}': "0x10 1x5"},
        {
            'natsgate_connections_closed_total{instance="a",transport="sse",reason="internal_error"}': "7x15",
            'natsgate_connections_closed_total{instance="a",transport="sse",reason="draining"}': "0+50x15",
        },
        {
            'natsgate_connections_closed_total{instance="a",transport="sse",reason="internal_error"}': "_x11 1x5",
            STARTS: "_x11 650x5",
        },
    ),
    "NatsgateGaps": Case(
        20,
        {'natsgate_gaps_total{instance="a",reason="expired"}': "0x10 25x10"},
        {
            'natsgate_gaps_total{instance="a",reason="expired"}': "0+1x20",
            'natsgate_gaps_total{instance="a",reason="too_far"}': "500+1x20",
        },
        {'natsgate_gaps_total{instance="a",reason="expired"}': "_x18 25x2", STARTS: "_x18 1070x2"},
    ),
    "NatsgateStreamReplaced": Case(
        20,
        {'natsgate_gaps_total{instance="a",reason="recreated"}': "0x17 1x3"},
        {
            'natsgate_gaps_total{instance="a",reason="recreated"}': "1x20",
            'natsgate_gaps_total{instance="a",reason="expired"}': "0+1x20",
        },
        {'natsgate_gaps_total{instance="a",reason="recreated"}': "_x18 1x2", STARTS: "_x18 1070x2"},
    ),
    "NatsgateEventsDropped": Case(
        20,
        {'natsgate_events_dropped_total{instance="a",reason="not_json"}': "0x17 1x3"},
        {'natsgate_events_dropped_total{instance="a",reason="not_json"}': "4x20"},
        {'natsgate_events_dropped_total{instance="a",reason="not_json"}': "_x18 1x2", STARTS: "_x18 1070x2"},
    ),
    "NatsgateHolesRepaired": Case(
        20,
        {'natsgate_holes_repaired_total{instance="a",found_by="sequence"}': "0x10 12x10"},
        {'natsgate_holes_repaired_total{instance="a",found_by="sequence"}': "300x10 300+1x10"},
        {'natsgate_holes_repaired_total{instance="a",found_by="sequence"}': "_x18 12x2", STARTS: "_x18 1070x2"},
    ),
    "NatsgateNatsDisconnected": Case(
        3, {'natsgate_nats_connected{instance="a"}': "1 0x5"}, {'natsgate_nats_connected{instance="a"}': "1 0 1x5"}
    ),
    "NatsgateNatsFlapping": Case(
        20,
        {'natsgate_nats_reconnects_total{instance="a"}': "0+0.5x20"},
        {'natsgate_nats_reconnects_total{instance="a"}': "0x10 1x10"},
    ),
    "NatsgatePublishesFail": Case(
        20,
        {'natsgate_publishes_total{instance="a",via="ws",outcome="unknown"}': "0+10x20"},
        {
            'natsgate_publishes_total{instance="a",via="ws",outcome="unknown"}': "0x20",
            'natsgate_publishes_total{instance="a",via="ws",outcome="stored"}': "0+1000x20",
            'natsgate_publishes_total{instance="a",via="ws",outcome="refused"}': "0+100x20",
        },
    ),
    "NatsgateSilence": Case(
        50,
        {
            'natsgate_events_received_total{instance="a",root="repo"}': "9x60",
            'natsgate_connections{instance="a",transport="sse",route="events"}': "1x60",
        },
        {
            'natsgate_events_received_total{instance="a",root="repo"}': "9x60",
            'natsgate_connections{instance="a",transport="sse",route="events"}': "0x60",
        },
    ),
    "NatsgateSlowDelivery": Case(
        15,
        latency("natsgate_delivery_latency_seconds", slow="0+100x20", fast="0+90x20"),
        latency("natsgate_delivery_latency_seconds", slow="0+1000x20", fast="0+999x20"),
    ),
    "NatsgateEventLoopLag": Case(
        15,
        latency("natsgate_event_loop_lag_seconds", slow="0+100x20", fast="0+90x20"),
        latency("natsgate_event_loop_lag_seconds", slow="0+1000x20", fast="0+999x20"),
    ),
    "NatsgateManyBehind": Case(
        7,
        {
            'natsgate_connections_behind{instance="a"}': "30x10",
            'natsgate_connections{instance="a",transport="sse",route="events"}': "200x10",
        },
        {
            'natsgate_connections_behind{instance="a"}': "30x10",
            'natsgate_connections{instance="a",transport="sse",route="events"}': "400x10",
            'natsgate_connections_behind{instance="b"}': "10x10",
            'natsgate_connections{instance="b",transport="sse",route="events"}': "20x10",
        },
    ),
    "NatsgateTurnsAway": Case(
        10,
        {'natsgate_requests_rejected_total{instance="a",reason="overloaded"}': "0+1x10"},
        {'natsgate_requests_rejected_total{instance="a",reason="bad_request"}': "0+100x10"},
    ),
    "NatsgateNearlyFull": Case(
        7,
        {
            'natsgate_connections{instance="a",transport="sse",route="events"}': "9000x10",
            'natsgate_connections{instance="a",transport="ws",route="events"}': "7001x10",
        },
        {
            'natsgate_connections{instance="a",transport="sse",route="events"}': "9000x10",
            'natsgate_connections{instance="b",transport="ws",route="events"}': "9000x10",
        },
    ),
    "NatsgateFewDescriptors": Case(
        7,
        {f"process_open_fds{JOB}": "850x10", f"process_max_fds{JOB}": "1024x10"},
        {f"process_open_fds{JOB}": "800x10", f"process_max_fds{JOB}": "1024x10"},
    ),
    "NatsgateAuthFailures": Case(
        25,
        {'natsgate_auth_failures_total{instance="a",reason="expired"}': "0+90x30"},
        {'natsgate_auth_failures_total{instance="a",reason="expired"}': "0+30x30"},
    ),
}


def test_every_alert_has_its_case() -> None:
    """Each rule is tested, and nothing else is."""
    assert set(CASES) == set(RULES)


@pytest.fixture(scope="module")
def fresh(nats_server: NatsServer, tmp_path_factory: pytest.TempPathFactory) -> Series:
    """The counters and gauges of a gateway that has just started."""
    with Gateway(tmp_path_factory.mktemp("fresh"), nats_server.url) as gateway:
        gateway.wait_ready()
        metrics = gateway.metrics()
    plain = {f"{family.name}{end}" for family in metrics.families.values() for end in ("", "_total")} - {
        family.name for family in metrics.families.values() if family.type == "histogram"
    }
    return {
        f"{each.name}{{{labels(each.labels | {'instance': 'a'})}}}": f"{each.value:g}x60"
        for each in metrics.samples
        if each.name.startswith("natsgate_") and each.name in plain
    }


def labels(given: Mapping[str, str]) -> str:
    return ",".join([f'{name}="{value}"' for name, value in sorted(given.items())])


def in_order(series: str) -> str:
    """The name of a series, its labels in the order of the alphabet."""
    name, _, rest = series.partition("{")
    pairs = re.findall(r'(\w+)="([^"]*)"', rest)
    return f"{name}{{{labels(dict(pairs))}}}"


@pytest.mark.slow
@pytest.mark.parametrize("alert", CASES)
def test_an_alert_is_about_what_is_exported(fresh: Series, alert: str) -> None:
    """Each series of its case is one that a gateway shows from its start, by name and labels."""
    case = CASES[alert]
    for series in (case.fires, case.silent, case.fires_at_once or {}):
        for name in map(in_order, series):
            if name.startswith("natsgate_") and "_bucket" not in name:
                assert name.replace('instance="b"', 'instance="a"') in fresh, name


@pytest.mark.slow
@pytest.mark.parametrize("alert", CASES)
def test_an_alert_fires_and_stays_silent(tmp_path: Path, fresh: Series, alert: str) -> None:
    """By promtool, among all that a gateway exports: firing on what it is about, from the first time on, and not firing
    where things are nearly so."""
    case = CASES[alert]
    tests = []
    for given in filter(None, (case.fires, case.fires_at_once, case.silent)):
        series = fresh | {in_order(STARTS): "0x60"} | {in_order(name): values for name, values in given.items()}
        tests.append(
            {
                "interval": "1m",
                "input_series": [{"series": name, "values": values} for name, values in series.items()],
                "promql_expr_test": [
                    {
                        "expr": f'count(ALERTS{{alertname="{alert}", alertstate="firing"}})',
                        "eval_time": f"{case.minutes}m",
                        "exp_samples": [] if given is case.silent else [{"value": 1}],
                    }
                ],
            }
        )
    file = tmp_path / "test.yml"
    file.write_text(yaml.safe_dump({"rule_files": [str(RULES_FILE)], "evaluation_interval": "1m", "tests": tests}))
    promtool("test", "rules", str(file))


@pytest.mark.slow
def test_promtool_takes_the_files() -> None:
    """Configuration, rules and what they include are valid."""
    promtool("check", "config", str(DEPLOY / "prometheus" / "prometheus.yml"))
    promtool("check", "rules", "--lint-fatal", str(RULES_FILE))


def promtool(*arguments: str) -> None:
    done = subprocess.run(
        [program("promtool", "apt-get install prometheus"), *arguments], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("alert", RULES)
def test_an_alert_leads_to_what_to_do(alert: str) -> None:
    """Severity, summary and description are there; the runbook is a section of deploy/README.md."""
    rule = RULES[alert]
    assert rule["labels"]["severity"] in ("critical", "warning", "info")
    assert set(rule["annotations"]) == {"summary", "description", "runbook"}
    file, _, anchor = rule["annotations"]["runbook"].partition("#")
    assert file == "deploy/README.md"
    assert anchor == alert.lower()
    headings = re.findall(r"^#+ (.*)$", (DEPLOY / "README.md").read_text("utf-8"), re.MULTILINE)
    assert alert in headings


@pytest.mark.parametrize(
    ("reasons", "alerts"),
    [
        (get_args(DropReason), ["NatsgateEventsDropped"]),
        (get_args(GapReason), ["NatsgateGaps", "NatsgateStreamReplaced"]),
    ],
    ids=["drops", "gaps"],
)
def test_a_runbook_knows_every_reason(reasons: tuple[str, ...], alerts: list[str]) -> None:
    """What a message was dropped for, or events are gone for, is explained where the alert leads."""
    page = (DEPLOY / "README.md").read_text("utf-8")
    sections = [page[page.index(f"### {alert}\n") :].split("\n#", 1)[0] for alert in alerts]
    assert set(reasons) <= set(re.findall(r"`(\w+)`", " ".join(sections)))


@pytest.mark.parametrize("alert", RULES)
def test_an_alert_names_labels_that_it_has(alert: str) -> None:
    """A label in a text is one that the expression keeps."""
    rule = RULES[alert]
    named = set(re.findall(r"\$labels\.(\w+)", str(rule["annotations"])))
    kept = re.findall(r"\bby \(([^)]*)\)", rule["expr"])
    by = {label.strip() for group in kept for label in group.split(",")}
    assert named <= (by if kept else {"instance"})


def test_the_operators_rules_are_the_same() -> None:
    """k8s/ has these rules as a PrometheusRule; `make docs` writes it."""
    assert (K8S / "components" / "monitoring" / "prometheusrule.yaml").read_text("utf-8") == written()
