"""k8s/: every number agrees with what it depends on, and every reference leads somewhere."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from gateway.settings import Settings
from tests.deploy.capacity import FULL, memory_bytes
from tests.deploy.files import K8S, document
from tests.deploy.manifests import OVERLAYS, VARIANT, Manifests, amount, built, selects

pytestmark = pytest.mark.slow  # they need kustomize

MARGIN_S = 10
"""What is left of the grace period when the drain is over: its last words, and a slow node."""


@pytest.fixture(params=[*OVERLAYS, VARIANT])
def manifests(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Manifests:
    """Each overlay."""
    return Manifests(built(request.param, tmp_path_factory.getbasetemp() / "k8s"))


def test_the_grace_period_holds_the_drain(manifests: Manifests) -> None:
    """preStop, DRAIN_DELAY_S, DRAIN_S and a margin fit before the kill."""
    pod = manifests.one("Deployment")["spec"]["template"]["spec"]
    delay_s, drain_s = manifests.setting("DRAIN_DELAY_S", 5), manifests.setting("DRAIN_S", 30)
    pre_stop_s = manifests.gateway["lifecycle"]["preStop"]["sleep"]["seconds"]
    assert pod["terminationGracePeriodSeconds"] >= pre_stop_s + delay_s + drain_s + MARGIN_S
    assert manifests.one("Deployment")["spec"]["minReadySeconds"] >= delay_s + drain_s


def test_readiness_fails_within_the_drains_delay_and_liveness_does_not(manifests: Manifests) -> None:
    """/readyz is noticed before DRAIN_DELAY_S is over; /livez has a minute, and a slow start is no death."""

    def patience_s(probe: str) -> float:
        it = manifests.gateway[probe]
        return float(it["periodSeconds"] * it["failureThreshold"])

    assert patience_s("readinessProbe") < manifests.setting("DRAIN_DELAY_S", 5)
    assert patience_s("livenessProbe") >= 60
    assert patience_s("startupProbe") >= 30
    paths = {name: manifests.gateway[f"{name}Probe"]["httpGet"] for name in ("startup", "readiness", "liveness")}
    assert {name: each["path"] for name, each in paths.items()} == {
        "startup": "/livez",
        "readiness": "/readyz",
        "liveness": "/livez",
    }
    assert {each["port"] for each in paths.values()} == {"http"}


def test_memory_is_enough_for_the_settings(manifests: Manifests) -> None:
    """Below the mark from which on clients are turned away there is room for LOG_BYTES and MAX_CONNECTIONS; it is
    asked for in full."""
    needed = memory_bytes(
        connections=manifests.setting("MAX_CONNECTIONS", 20000),
        log_bytes=manifests.setting("LOG_BYTES", Settings.model_fields["log_bytes"].default),
    )
    resources = manifests.gateway["resources"]
    assert amount(resources["limits"]["memory"]) * FULL >= needed
    assert resources["requests"]["memory"] == resources["limits"]["memory"]


def test_the_cpu_limit_never_throttles(manifests: Manifests) -> None:
    """One busy thread uses one core at most."""
    assert amount(manifests.gateway["resources"]["limits"]["cpu"]) >= 1


def test_a_roll_keeps_what_is_there(manifests: Manifests) -> None:
    """No replica goes before its successor is ready, and evictions take one at a time."""
    rolling = manifests.one("Deployment")["spec"]["strategy"]["rollingUpdate"]
    assert rolling == {"maxSurge": 1, "maxUnavailable": 0}
    assert manifests.one("PodDisruptionBudget")["spec"]["maxUnavailable"] == 1


def test_the_autoscaler_leaves_room_for_the_clients_of_one_that_goes(manifests: Manifests) -> None:
    """At the fewest replicas, one less holds everybody within MAX_CONNECTIONS; nobody else sets the number; a replica
    has time to drain before the next one goes."""
    deployment = manifests.one("Deployment")["spec"]
    if not manifests.has("HorizontalPodAutoscaler"):
        assert deployment["replicas"] >= 2
        return
    assert "replicas" not in deployment
    scaler = manifests.one("HorizontalPodAutoscaler")["spec"]
    assert scaler["scaleTargetRef"] == {"apiVersion": "apps/v1", "kind": "Deployment", "name": "natsgate"}
    (pods,) = [each["pods"] for each in scaler["metrics"] if each["type"] == "Pods"]
    fewest = scaler["minReplicas"]
    assert int(pods["target"]["averageValue"]) * fewest / (fewest - 1) <= manifests.setting("MAX_CONNECTIONS", 20000)
    (down,) = scaler["behavior"]["scaleDown"]["policies"]
    assert down["value"] == 1
    assert down["periodSeconds"] >= deployment["template"]["spec"]["terminationGracePeriodSeconds"]
    adapter = document(K8S / "components" / "autoscaling" / "prometheus-adapter.yaml")
    assert [rule["name"]["as"] for rule in adapter["rules"]["custom"]] == [pods["metric"]["name"]]


def test_what_the_texts_say_is_what_the_numbers_are(manifests: Manifests) -> None:
    """production's comment and HPA agree: replicas times connections."""
    if not manifests.has("HorizontalPodAutoscaler"):
        return
    scaler = manifests.one("HorizontalPodAutoscaler")["spec"]
    most = scaler["maxReplicas"] * int(scaler["metrics"][0]["pods"]["target"]["averageValue"])
    assert f"{most:,}" in (K8S / "overlays" / "production" / "kustomization.yaml").read_text("utf-8")


def test_selectors_find_their_pods(manifests: Manifests) -> None:
    """Deployment, Services, budget, spread and policies select the gateway's pods; no Service selects the Job's."""
    labels = {name: pod["metadata"]["labels"] for name, pod in manifests.pods.items()}
    selectors = [
        manifests.one("Deployment")["spec"]["selector"]["matchLabels"],
        manifests.one("PodDisruptionBudget")["spec"]["selector"]["matchLabels"],
        *(each["spec"]["selector"] for each in manifests.all("Service")),
        *(each["spec"]["podSelector"]["matchLabels"] for each in manifests.all("NetworkPolicy")),
    ]
    pod = manifests.pods["natsgate"]["spec"]
    selectors += [each["labelSelector"]["matchLabels"] for each in pod["topologySpreadConstraints"]]
    assert {each["topologyKey"] for each in pod["topologySpreadConstraints"]} == {
        "topology.kubernetes.io/zone",
        "kubernetes.io/hostname",
    }
    for selector in selectors:
        assert selects(selector, labels["natsgate"])
    for service in manifests.all("Service"):
        assert not selects(service["spec"]["selector"], labels["natsgate-provision"])


def test_ports_lead_to_the_gateway(manifests: Manifests) -> None:
    """Services name the container's ports, those are where it listens, and whoever comes in comes to a Service."""
    ports = {each["name"]: each["containerPort"] for each in manifests.gateway["ports"]}
    for name, setting in (("http", "LISTEN"), ("metrics", "METRICS_LISTEN")):
        assert manifests.settings[f"NATSGATE_{setting}"] == f"0.0.0.0:{ports[name]}"
    services = {each["metadata"]["name"]: each["spec"]["ports"] for each in manifests.all("Service")}
    assert {port["targetPort"] for each in services.values() for port in each} == {"http", "metrics"}
    assert [port["targetPort"] for port in services["natsgate"]] == ["http"], "metrics stay inside"
    for ingress in manifests.all("Ingress"):
        (path,) = ingress["spec"]["rules"][0]["http"]["paths"]
        assert path["backend"]["service"]["port"]["name"] in [each["name"] for each in services["natsgate"]]
    for route in manifests.all("HTTPRoute"):
        (backend,) = route["spec"]["rules"][0]["backendRefs"]
        assert backend["port"] in [each["port"] for each in services[backend["name"]]]
        (parent,) = route["spec"]["parentRefs"]
        gateway = manifests.one("Gateway", parent["name"])
        assert parent["sectionName"] in [each["name"] for each in gateway["spec"]["listeners"]]
        assert route["spec"]["hostnames"] == [each["hostname"] for each in gateway["spec"]["listeners"]]
    for monitor in manifests.all("ServiceMonitor"):
        (endpoint,) = monitor["spec"]["endpoints"]
        selector = monitor["spec"]["selector"]["matchLabels"]
        (found,) = [each for each in manifests.all("Service") if selects(selector, each["metadata"]["labels"])]
        assert endpoint["port"] in [each["name"] for each in found["spec"]["ports"]]
        assert found["metadata"]["labels"][monitor["spec"]["jobLabel"]] == "natsgate", "the job that the alerts name"


def test_policies_let_in_and_out_what_is_needed(manifests: Manifests) -> None:
    """In: the gateway's ports, each from somewhere. Out: DNS and NATS, at the port of NATS_URL."""
    policies = {each["metadata"]["name"]: each["spec"] for each in manifests.all("NetworkPolicy")}
    entered = {
        port["port"]: rule["from"]
        for spec in policies.values()
        for rule in spec.get("ingress", [])
        for port in rule["ports"]
    }
    http = {8080} | ({9090} if manifests.has("ServiceMonitor") else set())
    assert set(entered) == http
    assert all(entered.values()), "an empty `from` is everybody"
    left = [(port["protocol"], port["port"]) for rule in policies["natsgate"]["egress"] for port in rule["ports"]]
    url = re.fullmatch(r"nats://nats\.(?P<namespace>\w+)\.svc\.cluster\.local:(?P<port>\d+)", nats_url(manifests))
    assert url is not None
    assert left == [("UDP", 53), ("TCP", 53), ("TCP", int(url["port"]))]
    to_nats = policies["natsgate"]["egress"][1]["to"][0]["namespaceSelector"]["matchLabels"]
    assert to_nats == {"kubernetes.io/metadata.name": url["namespace"]}


def nats_url(manifests: Manifests) -> str:
    return manifests.settings["NATSGATE_NATS_URL"]


def test_references_resolve(manifests: Manifests) -> None:
    """ConfigMaps are in the build; Secrets are those that k8s/README.md makes, with their keys; the Job's stream has
    as many copies as there are nats-servers."""
    maps = {each["metadata"]["name"]: each["data"] for each in manifests.all("ConfigMap")}
    secrets = made_secrets((K8S / "README.md").read_text("utf-8"))
    accounts = {each["metadata"]["name"] for each in manifests.all("ServiceAccount")}
    for pod in manifests.pods.values():
        spec = pod["spec"]
        (container,) = spec["containers"]
        assert spec["serviceAccountName"] in accounts
        values = {each["name"]: each.get("value", "") for each in container.get("env", [])}
        for source in container.get("envFrom", []):
            values |= maps[source["configMapRef"]["name"]]
        for variable in container.get("env", []):
            reference = variable.get("valueFrom", {}).get("configMapKeyRef")
            assert reference is None or reference["key"] in maps[reference["name"]]
        mounts = {each["name"]: each["mountPath"] for each in container["volumeMounts"]}
        files: set[str] = set()
        for volume in spec["volumes"]:
            if "configMap" in volume:
                keys = set(maps[volume["configMap"]["name"]])
            else:
                keys = secrets[volume["secret"]["secretName"]]
            files |= {f"{mounts[volume['name']]}/{key}" for key in keys}
        named = {value for name, value in values.items() if name.endswith("_FILE")}
        named |= {argument for argument in container["args"] if argument.startswith("/")}
        assert named, "it reads a secret"
        assert named <= files
    for ingress in manifests.all("Ingress"):
        assert ingress["spec"]["tls"][0]["secretName"] in secrets
    for gateway in manifests.all("Gateway"):
        assert gateway["spec"]["listeners"][0]["tls"]["certificateRefs"][0]["name"] in secrets


def made_secrets(page: str) -> dict[str, set[str]]:
    """Secrets and their keys, from the kubectl commands of a page."""
    page = page.replace("\\\n", " ")
    made = {}
    for name, rest in re.findall(r"kubectl -n \S+ create secret generic (\S+)(.*)", page):
        made[name] = set(re.findall(r"--from-(?:file|literal)=(\w+)=", rest))
    for name in re.findall(r"kubectl -n \S+ create secret tls (\S+)", page):
        made[name] = {"tls.crt", "tls.key"}
    return made


def test_the_stream_has_a_copy_on_each_server() -> None:
    """production: three, as NATS's chart makes servers; small: one."""
    servers = document(K8S / "nats" / "values.yaml")["config"]["cluster"]["replicas"]
    for overlay, copies in (("small", 1), ("production", servers)):
        (container,) = Manifests(built(overlay)).pods["natsgate-provision"]["spec"]["containers"]
        assert container["args"] == ["provision", "--replicas", str(copies), "--yes"]


def test_nats_gets_the_passwords_that_the_page_makes() -> None:
    """The chart's values name a Secret and keys that k8s/README.md creates."""
    made = made_secrets((K8S / "README.md").read_text("utf-8"))
    for value in document(K8S / "nats" / "values.yaml")["container"]["env"].values():
        if isinstance(value, dict):
            reference = value["valueFrom"]["secretKeyRef"]
            assert reference["key"] in made[reference["name"]]


def test_proxies_wait_longer_than_the_gateway_is_silent(manifests: Manifests) -> None:
    """The Ingress's time-outs are above heartbeats, pings and WRITE_TIMEOUT_S; the HTTPRoute has none."""
    fields = Settings.model_fields
    silent_s = max(4 * fields["heartbeat_s"].default, fields["ws_ping_s"].default + fields["ws_pong_timeout_s"].default)
    for ingress in manifests.all("Ingress"):
        notes = {name.rpartition("/")[2]: text for name, text in ingress["metadata"]["annotations"].items()}
        assert float(notes["proxy-read-timeout"]) >= silent_s
        assert float(notes["proxy-send-timeout"]) > fields["write_timeout_s"].default
        assert notes["proxy-buffering"] == "off"
    for route in manifests.all("HTTPRoute"):
        (rule,) = route["spec"]["rules"]
        assert rule["timeouts"] == {"request": "0s", "backendRequest": "0s"}


def test_the_variants_differ_in_how_one_comes_in(tmp_path: Path) -> None:
    """production has an Ingress, the variant a Gateway and a route; the rest is the same."""

    def kinds(objects: tuple[dict[str, object], ...]) -> list[str]:
        return sorted(str(each["kind"]) for each in objects)

    usual, variant = kinds(built("production")), kinds(built(VARIANT, tmp_path / "k8s"))
    assert "Ingress" in usual
    usual.remove("Ingress")
    variant.remove("Gateway")
    variant.remove("HTTPRoute")
    assert usual == variant
