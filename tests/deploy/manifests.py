"""The manifests of k8s/, as kustomize builds them."""

from __future__ import annotations

import functools
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import yaml

from tests.deploy.files import K8S, missing

OVERLAYS = ("small", "production")
VARIANT = "production behind the Gateway API"
"""production with components/gateway-api in place of ingress-nginx, as its kustomization says."""

Object = dict[str, Any]


def kustomize() -> list[str]:
    """The command that builds a folder."""
    for name, arguments in (("kustomize", ["build"]), ("kubectl", ["kustomize"])):
        if found := shutil.which(name):
            return [found, *arguments]
    missing("neither kustomize nor kubectl is installed: go install sigs.k8s.io/kustomize/kustomize/v5@v5.5.0")
    raise AssertionError


@functools.cache
def built(overlay: str, elsewhere: Path | None = None) -> tuple[Object, ...]:
    """All objects of an overlay; the variant is written to and built in a copy of k8s/ at `elsewhere`."""
    folder = K8S / "overlays" / overlay
    if overlay == VARIANT:
        assert elsewhere is not None
        shutil.copytree(K8S, elsewhere, dirs_exist_ok=True)
        folder = elsewhere / "overlays" / "production"
        file = folder / "kustomization.yaml"
        text, times = re.subn(
            r"- \.\./\.\./components/ingress-nginx # or (\.\./\.\./components/gateway-api)", r"- \1", file.read_text()
        )
        assert times == 1
        file.write_text(text)
    done = subprocess.run([*kustomize(), str(folder)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stderr == "", "kustomize warns"
    return tuple(yaml.safe_load_all(done.stdout))


class Manifests:
    """The objects of one overlay, found by kind and name."""

    def __init__(self, objects: tuple[Object, ...]) -> None:
        self.objects = objects

    def all(self, kind: str) -> list[Object]:
        return [each for each in self.objects if each["kind"] == kind]

    def one(self, kind: str, name: str | None = None) -> Object:
        (found,) = [each for each in self.all(kind) if name in (None, each["metadata"]["name"])]
        return found

    def has(self, kind: str) -> bool:
        return bool(self.all(kind))

    @property
    def pods(self) -> dict[str, Object]:
        """The pod templates, by the name of what makes them."""
        return {each["metadata"]["name"]: each["spec"]["template"] for each in self.all("Deployment") + self.all("Job")}

    @property
    def gateway(self) -> Object:
        """The gateway's container."""
        (container,) = self.one("Deployment")["spec"]["template"]["spec"]["containers"]
        found: Object = container
        return found

    @property
    def settings(self) -> dict[str, str]:
        """The settings of all replicas."""
        (found,) = [each for each in self.all("ConfigMap") if each["metadata"]["name"].startswith("natsgate-settings")]
        settings: dict[str, str] = found["data"]
        return settings

    def setting(self, name: str, default: object) -> Any:
        """A setting's value, as a number."""
        value = self.settings.get(f"NATSGATE_{name}", default)
        return amount(str(value))


def amount(quantity: str) -> float:
    """`768Mi`, `64MiB`, `500m`, `5` as a number."""
    shape = re.fullmatch(r"(\d+(?:\.\d+)?)(m|[KMG]i?B?)?", quantity)
    assert shape, quantity
    unit = (shape[2] or "").removesuffix("B")
    return (
        float(shape[1]) * {"": 1, "m": 0.001, "Ki": 2**10, "Mi": 2**20, "Gi": 2**30, "K": 1e3, "M": 1e6, "G": 1e9}[unit]
    )


def selects(selector: dict[str, str], labels: dict[str, str]) -> bool:
    """Whether a selector's labels are all there."""
    return selector.items() <= labels.items()
