"""k8s/: schemas, and what no pod may be allowed: lint in the terms of Kubernetes' own `restricted` standard."""

from __future__ import annotations

import functools
import json
import subprocess
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate  # type: ignore[import-untyped]  # has none
import pytest

from gateway import __version__
from tests.deploy.files import document, missing, program
from tests.deploy.manifests import OVERLAYS, VARIANT, Manifests, Object, built

pytestmark = pytest.mark.slow  # they need kustomize

OLDEST, NEWEST = "1.30", "1.37"
"""The versions of Kubernetes that are promised: from the first with preStop.sleep."""

CRDS = {
    "monitoring.coreos.com": (
        "github.com/prometheus-operator/prometheus-operator@v0.70.0",
        "example/prometheus-operator-crd",
    ),
    "gateway.networking.k8s.io": ("sigs.k8s.io/gateway-api@v1.2.1", "config/crd/standard"),
}
"""Where the schemas of custom resources are published: Go modules, and the folder in each."""


@pytest.fixture(params=[*OVERLAYS, VARIANT])
def manifests(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Manifests:
    """Each overlay."""
    return Manifests(built(request.param, tmp_path_factory.getbasetemp() / "k8s"))


@functools.cache
def custom_schema(group: str, kind: str, version: str) -> Any:
    """The published schema of a custom resource, from Go's module cache; unknown fields are errors."""
    module, folder = CRDS[group]
    asked = subprocess.run([program("go", "https://go.dev"), "env", "GOMODCACHE"], capture_output=True, check=True)
    place = Path(asked.stdout.decode().strip()) / module / folder
    if not place.is_dir():
        missing(f"the schemas of {group} are not here: go mod download {module}")
    spec = document(place / f"{group}_{kind.lower()}s.yaml")["spec"]
    (schema,) = [each["schema"]["openAPIV3Schema"] for each in spec["versions"] if each["name"] == version]
    return strict(schema)


def strict(schema: Any) -> Any:
    """A structural schema as the API server applies it, but with unknown fields refused instead of dropped."""
    if isinstance(schema, list):
        return [strict(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    copy = {key: strict(value) for key, value in schema.items()}
    if copy.get("x-kubernetes-int-or-string"):
        copy.pop("type", None)
    if isinstance(copy.get("properties"), dict) and copy.get("type") == "object":
        copy.setdefault("additionalProperties", False)
    return copy


def validate(thing: Object, version: str) -> None:
    """Against the schema of its kind, unknown fields refused."""
    group, _, own_version = thing["apiVersion"].rpartition("/")
    if group not in CRDS:
        kubernetes_validate.validate(thing, version, strict=True)
        return
    plain = {**thing, "metadata": {}}  # CRDs leave metadata to Kubernetes
    jsonschema.Draft202012Validator(custom_schema(group, thing["kind"], own_version)).validate(plain)


@pytest.mark.parametrize("version", [OLDEST, NEWEST])
def test_every_object_fits_its_schema(manifests: Manifests, version: str) -> None:
    """Kubernetes' own schemas and the published ones of custom resources, strictly."""
    for thing in manifests.objects:
        validate(thing, version)


@pytest.mark.parametrize("kind", ["Deployment", "ServiceMonitor", "PrometheusRule", "HTTPRoute", "Gateway"])
def test_a_field_that_does_not_exist_is_seen(tmp_path: Path, kind: str) -> None:
    """A misspelled field fails: the validation above is not for show."""
    objects = built("production") + built(VARIANT, tmp_path / "k8s")
    thing = json.loads(json.dumps(Manifests(objects).all(kind)[0]))
    thing["spec"]["replicsa"] = 3
    with pytest.raises((jsonschema.ValidationError, kubernetes_validate.ValidationError)):
        validate(thing, NEWEST)


def test_no_pod_may_more_than_it_must(manifests: Manifests) -> None:
    """Not root, nothing written, no capability, no privilege to gain, the runtime's seccomp profile, no token."""
    for name, template in manifests.pods.items():
        pod = template["spec"]
        assert pod["automountServiceAccountToken"] is False, name
        assert pod["enableServiceLinks"] is False, name
        assert pod["securityContext"]["runAsNonRoot"] is True, name
        assert pod["securityContext"]["runAsUser"] >= 10000, name
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}, name
        assert not {"hostNetwork", "hostPID", "hostIPC"} & set(pod), name
        assert not any("hostPath" in volume for volume in pod["volumes"]), name
        for container in pod["containers"]:
            context = container["securityContext"]
            assert context["allowPrivilegeEscalation"] is False, name
            assert context["readOnlyRootFilesystem"] is True, name
            assert context["capabilities"] == {"drop": ["ALL"]}, name
            assert all(mount["readOnly"] for mount in container["volumeMounts"]), name


def test_every_container_has_limits_and_a_version(manifests: Manifests) -> None:
    """CPU and memory are asked for and limited; the image is this version's, never `latest`."""
    for template in manifests.pods.values():
        for container in template["spec"]["containers"]:
            for part in ("requests", "limits"):
                assert set(container["resources"][part]) == {"cpu", "memory"}
            assert container["image"] == f"registry.example.org/natsgate:{__version__}"


def test_everything_is_in_one_namespace_that_is_restricted(manifests: Manifests) -> None:
    """Kubernetes enforces there what is checked here."""
    namespace = manifests.one("Namespace")
    assert namespace["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"
    for thing in manifests.objects:
        if thing["kind"] != "Namespace":
            assert thing["metadata"]["namespace"] == namespace["metadata"]["name"]
        assert thing["metadata"]["labels"]["app.kubernetes.io/part-of"] == "natsgate"
