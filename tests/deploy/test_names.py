"""Every setting, metric, label, path, command and file that deploy/ and k8s/ name exists."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from gateway.cli import main
from gateway.core.closing import Closing
from gateway.settings import Settings
from publishers.__main__ import main as publishers_main
from tests.deploy.dashboard import queries
from tests.deploy.dockerfile import of, stages
from tests.deploy.environment import accepted
from tests.deploy.files import DEPLOY, K8S, ROOT, document, documents, texts
from tests.deploy.test_alerts import RULES
from tests.support.gateway import Gateway

FILES = list(texts(DEPLOY, K8S))
PAGES = [(path, text) for path, text in FILES if path.suffix == ".md"]


@pytest.mark.parametrize(("path", "text"), FILES, ids=[str(path.relative_to(ROOT)) for path, _ in FILES])
def test_a_setting_that_is_named_exists(path: Path, text: str) -> None:
    """NATSGATE_… in any file; in texts and comments also the bare name."""
    named = {name.removesuffix("_FILE").lower() for name in re.findall(r"NATSGATE_([A-Z0-9_]+[A-Z0-9])\b", text)}
    named -= {"port"}  # Kubernetes' own, and ignored
    for line in text.splitlines():
        if path.suffix == ".md" or line.lstrip().startswith(("#", "-", '"')) or "description:" in line:
            bare = re.findall(r"(?<![\w$./{-])([A-Z][A-Z0-9]*(?:_[A-Z0-9]+)+)\b", line)
            named |= {name.removesuffix("_FILE").lower() for name in bare if not name.startswith(FOREIGN)}
    known = set(Settings.model_fields) | {"token"}
    assert named <= known


FOREIGN: tuple[str, ...] = ("NATSGATE_", "NATS_NAME", "NATS_ROUTE", "GF_", "PYTHON", "GOMEM")
FOREIGN += tuple(f"NATS_{login}_PASSWORD" for login in ("GATEWAY", "PUBLISHER", "SERVICE", "OPERATOR"))
"""Variables of others: NATS's servers, Grafana, Python, Go."""


def exposed(gateway: Gateway) -> set[str]:
    """The metrics that a gateway exposes, used or not."""
    page = gateway.get("/metrics").body.decode()
    return set(re.findall(r"^# TYPE (\S+) ", page, re.MULTILINE))


def asked_for() -> Iterator[str]:
    """Everything that is asked of Prometheus or told of metrics."""
    yield from (expression for _, expression in queries())
    yield from (rule["expr"] for rule in RULES.values())
    for path, text in FILES:
        if path.suffix == ".md":
            yield from re.findall(r"`(natsgate_[^`]+)`", text)
    yield from (str(each) for each in documents(K8S / "components" / "autoscaling" / "horizontalpodautoscaler.yaml"))
    yield from (str(each) for each in documents(K8S / "components" / "autoscaling" / "prometheus-adapter.yaml"))


def test_a_metric_that_is_asked_for_is_exposed(gateway: Gateway) -> None:
    """Dashboard, alerts, autoscaler and texts ask for what a gateway has."""
    asked = {
        re.sub(r"_(bucket|sum|count)$", "", name)
        for text in asked_for()
        for name in re.findall(r"\b((?:natsgate|process|python)_\w+)", text)
    }
    assert len(asked) > 20
    assert asked <= exposed(gateway) | {"natsgate_token"}


def test_a_reason_that_is_asked_for_is_one() -> None:
    """`reason=` in a query names reasons for closing, gaps, or refusals of limits."""
    gaps = {"expired", "recreated", "ahead", "too_far"}
    known = {why.reason for why in Closing} | gaps
    for text in asked_for():
        for values in re.findall(r'reason=~?"([^"]*)"', text):
            assert set(values.split("|")) <= known, text


def test_a_path_that_is_probed_is_served(gateway: Gateway) -> None:
    """Health checks of the image, HAProxy and Kubernetes, and what the texts fetch, are answered."""
    pod = document(K8S / "base" / "deployment.yaml")["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    probed = {container[f"{name}Probe"]["httpGet"]["path"] for name in ("startup", "readiness", "liveness")}
    probed |= set(re.findall(r"uri (/\S+)", (DEPLOY / "haproxy" / "haproxy.cfg").read_text("utf-8")))
    probed |= set(re.findall(r"'(/\w+)'", of(stages()[1], "HEALTHCHECK")[0]))
    probed.add(document(K8S / "components" / "monitoring" / "servicemonitor.yaml")["spec"]["endpoints"][0]["path"])
    assert probed == {"/livez", "/readyz", "/metrics"}
    for path in probed:
        assert gateway.get(path).status == 200, path
    for _, text in PAGES:
        for path in re.findall(r"https?://(?:localhost|127\.0\.0\.1|events\.example\.org)(?::[\w$]+)?(/[\w-]+)", text):
            assert path in probed | {"/events", "/ws", "/api"}, path


def commands() -> Iterator[tuple[str, list[str]]]:
    """Every command line of natsgate: in arguments of containers, in units, and in the texts' code."""
    for text in (each for path, each in FILES if path.suffix in (".yaml", ".yml") or path.name == "Dockerfile"):
        for name, rest in re.findall(
            r'(?:args|command|CMD|ENTRYPOINT):? \["(serve|provision)"((?:, "[^"]*")*)\]', text
        ):
            yield "natsgate", [name, *re.findall(r'"([^"]*)"', rest)]
    for line in re.findall(r"^ExecStart=\S+/natsgate (.*)$", unit(), re.MULTILINE):
        yield "natsgate", shlex.split(line)
    for _, text in PAGES:
        for block in re.findall(r"```\w*\n(.*?)```", text, re.DOTALL):
            for line in block.replace("\\\n", " ").splitlines():
                found = re.search(
                    r"(?:^|[ /])natsgate ((?:serve|provision|check|tail|token|publish|dev)\b[^|#;&>]*)", line
                )
                if found:
                    yield "natsgate", shlex.split(found[1])
        for code in re.findall(r"`natsgate ([^`]+)`", text):
            yield "natsgate", shlex.split(code)
    yield "publishers", ["demo", "--rate", "5"]


def unit() -> str:
    return (DEPLOY / "systemd" / "natsgate@.service").read_text("utf-8")


def test_a_command_that_is_named_exists() -> None:
    """Its name and its options are those of the command line."""
    seen = 0
    for program, words in commands():
        group = main if program == "natsgate" else publishers_main
        assert isinstance(group, click.Group)
        assert words[0] in group.commands, words
        command = group.commands[words[0]]
        options = {name for parameter in command.params for name in parameter.opts}
        for word in words[1:]:
            if word.startswith("--"):
                assert word.partition("=")[0] in options, words
        seen += 1
    assert seen >= 8


def test_a_file_that_is_named_exists() -> None:
    """Links of the pages, and paths into deploy/, k8s/, tests/ and gateway/ in any file."""
    for page, text in PAGES:
        for target in re.findall(r"\]\(([^)#:]+)(?:#[\w-]*)?\)", text):
            assert (page.parent / target).exists(), f"{page}: {target}"
    for path, text in FILES:
        for name in re.findall(r"(?<![\w/.-])((?:deploy|k8s|tests|gateway|publishers)/[\w@./-]*\w)", text):
            assert (ROOT / name).exists() or ".secrets" in name, f"{path}: {name}"


def test_an_anchor_that_is_linked_is_a_heading() -> None:
    """Links within and between the pages lead to headings that are there."""
    for page, text in PAGES:
        for target, anchor in re.findall(r"\]\(([^)#:]*)#([\w-]+)\)", text):
            other = (page.parent / target) if target else page
            headings = re.findall(r"^#+ (.*)$", other.read_text("utf-8"), re.MULTILINE)
            anchors = {re.sub(r"[^\w -]", "", heading).lower().replace(" ", "-") for heading in headings}
            assert anchor in anchors, f"{page}: {target}#{anchor}"


def test_kubernetes_settings_are_settings(tmp_path: Path) -> None:
    """natsgate takes what k8s/base gives it, its file of routes included."""
    lines = (K8S / "base" / "settings.env").read_text("utf-8").splitlines()
    environment = dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))
    settings = accepted(environment, tmp_path, K8S / "base" / "natsgate.toml")
    assert [route.name for route in settings.route] == ["repo-events"]
