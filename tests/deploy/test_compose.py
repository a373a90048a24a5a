"""deploy/docker-compose.yml: valid, locked down, and in agreement with the files that it mounts."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from gateway.settings import Settings
from tests.deploy.capacity import FULL, SPARE_DESCRIPTORS, memory_bytes
from tests.deploy.environment import accepted
from tests.deploy.files import DEPLOY, document, missing
from tests.deploy.manifests import amount

FILE = DEPLOY / "docker-compose.yml"
COMPOSE: dict[str, Any] = document(FILE)
SERVICES: dict[str, Any] = COMPOSE["services"]
GATEWAYS = {name: each for name, each in SERVICES.items() if name.startswith("gateway-")}
MARGIN_S = 10


def seconds(duration: str) -> int:
    shape = re.fullmatch(r"(?:(\d+)m)?(?:(\d+)s)?", duration)
    assert shape, duration
    return 60 * int(shape[1] or 0) + int(shape[2] or 0)


@pytest.mark.slow
def test_the_reference_loader_takes_it() -> None:
    """compose-go, which docker compose itself is made of, finds schema, references and dependencies in order."""
    found = shutil.which("compose-go")
    if found is None:
        missing(
            "compose-go is not installed: go install github.com/compose-spec/compose-go/v2/cmd@v2.16.2 (as compose-go)"
        )
    made = not (DEPLOY / ".secrets").exists()
    subprocess.run(["sh", str(DEPLOY / "make-secrets.sh")], check=True, capture_output=True)
    try:
        done = subprocess.run([str(found), FILE.name], cwd=DEPLOY, capture_output=True, text=True, check=False)
    finally:
        if made:
            shutil.rmtree(DEPLOY / ".secrets")
    assert done.returncode == 0, done.stderr
    assert set(yaml.safe_load(done.stdout)["services"]) == set(SERVICES)


def test_it_is_what_the_page_promises() -> None:
    """A cluster of three, two gateways, nginx, Prometheus, Grafana, sample events."""
    assert set(SERVICES) == {
        *("nats-1", "nats-2", "nats-3", "provision", "gateway-1", "gateway-2", "nginx"),
        *("samples", "token", "prometheus", "grafana"),
    }


@pytest.mark.parametrize("name", SERVICES)
def test_a_service_is_locked_down(name: str) -> None:
    """Read-only root, no capability, none to gain, a pinned image, bounded logs."""
    service = SERVICES[name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert re.fullmatch(r"[\w./-]+:v?\d+\.\d+[\w.-]*", service["image"]), service["image"]
    assert "max-size" in service["logging"]["options"]


@pytest.mark.parametrize("name", GATEWAYS)
def test_a_gateway_has_what_its_settings_need(name: str) -> None:
    """Time to drain before the kill, memory and descriptors for MAX_CONNECTIONS."""
    gateway = GATEWAYS[name]
    env = gateway["environment"]
    drain_s = float(env.get("NATSGATE_DRAIN_DELAY_S", 5)) + float(env.get("NATSGATE_DRAIN_S", 30))
    assert seconds(gateway["stop_grace_period"]) >= drain_s + MARGIN_S
    connections = float(env.get("NATSGATE_MAX_CONNECTIONS", Settings.model_fields["max_connections"].default))
    log_bytes = Settings.model_fields["log_bytes"].default
    limit = amount(gateway["mem_limit"].upper().replace("M", "Mi"))
    assert limit * FULL >= memory_bytes(connections=connections, log_bytes=log_bytes)
    assert gateway["ulimits"]["nofile"] >= connections + SPARE_DESCRIPTORS
    assert gateway["restart"] == "unless-stopped"


def test_nginx_is_the_trusted_proxy() -> None:
    """TRUSTED_PROXIES is the address that nginx has, and addresses are within their network."""
    address = SERVICES["nginx"]["networks"]["edge"]["ipv4_address"]
    (config,) = COMPOSE["networks"]["edge"]["ipam"]["config"]
    assert config["subnet"] == address.rpartition(".")[0] + ".0/24"
    for gateway in GATEWAYS.values():
        assert gateway["environment"]["NATSGATE_TRUSTED_PROXIES"] == address


@pytest.mark.parametrize(
    ("file", "found"),
    [
        ("nginx/natsgate/replicas.conf", r"server ([\w-]+):8080 "),
        ("haproxy/haproxy.cfg", r"server [\w-]+ ([\w-]+):8080"),
        ("prometheus/targets.yml", r"([\w-]+):9090"),
    ],
)
def test_names_of_replicas_are_those_of_the_services(file: str, found: str) -> None:
    """nginx, HAProxy and Prometheus ask for the gateways by the names that they have here, all of them."""
    assert set(re.findall(found, (DEPLOY / file).read_text("utf-8"))) == set(GATEWAYS)


def test_names_of_nats_servers_are_those_of_the_services() -> None:
    """Routes of the cluster and NATS_URL name the three servers."""
    servers = {name for name in SERVICES if name.startswith("nats-")}
    assert set(re.findall(r"@([\w-]+):6222", (DEPLOY / "make-secrets.sh").read_text("utf-8"))) == servers
    for name in (*GATEWAYS, "provision", "samples"):
        assert set(re.findall(r"nats://([\w-]+):4222", SERVICES[name]["environment"]["NATSGATE_NATS_URL"])) == servers
    source = document(DEPLOY / "grafana" / "provisioning" / "datasources" / "prometheus.yml")["datasources"][0]
    assert source["url"] == "http://prometheus:9090"


def test_what_is_mounted_is_there(tmp_path: Path) -> None:
    """Files and folders exist; make-secrets.sh makes each secret, once, and none that nobody reads."""
    subprocess.run(["sh", str(DEPLOY / "make-secrets.sh"), str(tmp_path)], check=True, capture_output=True)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    subprocess.run(["sh", str(DEPLOY / "make-secrets.sh"), str(tmp_path)], check=True, capture_output=True)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before, "the second time changes nothing"
    assert tmp_path.stat().st_mode & 0o077 == 0, "the folder is for its owner alone"
    for secret in COMPOSE["secrets"].values():
        folder, _, name = secret["file"].partition("/")
        assert folder == ".secrets"
        assert before[name]
    assert len(before["jwt_secret"].strip()) >= 32
    used = {
        source if isinstance(source, str) else source["source"]
        for each in SERVICES.values()
        for source in each.get("secrets", [])
    }
    assert used == set(COMPOSE["secrets"])
    for service in SERVICES.values():
        for volume in service.get("volumes", []):
            source = volume.split(":")[0]
            assert (DEPLOY / source).exists() if source.startswith(".") else source in COMPOSE["volumes"], volume
    known = {line.partition(b"=")[0].decode() for line in before["nats.env"].splitlines()}
    known -= {"NATS_ROUTES"}
    wanted = set(re.findall(r"\$(NATS_\w+_PASSWORD)", "".join(path.read_text() for path in DEPLOY.glob("nats/*.conf"))))
    assert known == wanted


@pytest.mark.parametrize("name", GATEWAYS)
def test_a_gateways_settings_are_settings(name: str, tmp_path: Path) -> None:
    """natsgate takes what a gateway is given, its file of routes included."""
    settings = accepted(GATEWAYS[name]["environment"], tmp_path, DEPLOY / "natsgate.toml")
    assert settings.replica == name
    assert [route.name for route in settings.route] == ["repo-events"]


@pytest.mark.parametrize("name", ["provision", "samples", "token"])
def test_the_settings_of_the_others_are_settings(name: str, tmp_path: Path) -> None:
    """The stream's maker and the publishers log in as the users that they are in permissions.conf."""
    # They serve nobody, and do not ask who may be served.
    settings = accepted({"NATSGATE_AUTH": "none", **SERVICES[name]["environment"]}, tmp_path)
    login = {"provision": "operator", "samples": "publisher", "token": None}[name]
    assert settings.nats_user == login


def test_the_commands_at_its_top_run_its_services() -> None:
    """What a user is told to type names this file and its services."""
    lines = re.findall(r"^# +(docker compose .*)$", FILE.read_text("utf-8"), re.MULTILINE)
    assert len(lines) >= 2
    for line in lines:
        words = shlex.split(line)
        assert words[:4] == ["docker", "compose", "-f", "deploy/docker-compose.yml"]
        if words[4] == "run":
            assert words[6] in SERVICES


def test_it_builds_the_image_of_the_dockerfile() -> None:
    """The image that compose builds is that of deploy/Dockerfile, from the top of the repository."""
    builds = {name: each["build"] for name, each in SERVICES.items() if "build" in each}
    assert set(builds) == {*GATEWAYS, "provision", "samples", "token"}
    for build in builds.values():
        assert build == {"context": "..", "dockerfile": "deploy/Dockerfile"}
