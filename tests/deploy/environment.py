"""The environment that compose, systemd and Kubernetes give a replica, as natsgate reads it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from gateway.settings import Settings, load_settings


def accepted(environment: Mapping[str, str], folder: Path, config: Path | None = None) -> Settings:
    """The settings that come of it; one that natsgate does not take raises ConfigError.

    Secrets are files in `folder`.
    """
    secret = folder / "secret"
    secret.write_text("a secret of at least thirty-two bytes", "utf-8")
    given = {name: str(secret) if name.endswith("_FILE") else value for name, value in environment.items()}
    return load_settings(given, config)
