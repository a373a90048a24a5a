"""What deploy/ and k8s/ name that the gateway does not have yet. These lists only shrink: a test takes care of that."""

from __future__ import annotations

from gateway.settings import Settings

SETTINGS = {
    "allowed_origins",
    "drain_delay_s",
    "drain_s",
    "jwks_url",
    "jwt_public_key",
    "max_age_s",
    "max_connections",
    "max_connections_per_ip",
    "memory_limit_bytes",
    "trusted_proxies",
}
"""Settings of issues on authentication, limits and draining."""

METRICS = {
    "natsgate_auth_failures_total",
    "natsgate_event_loop_lag_seconds",
    "natsgate_publishes_total",
}
"""Metrics of the same."""

TOKENS = True
"""Whether AUTH=jwt is still to be built."""


def setting(variable: str) -> bool:
    """Whether an environment variable is one of these settings."""
    return variable.removeprefix("NATSGATE_").removesuffix("_FILE").lower() in SETTINGS


def asked_in(expression: str) -> bool:
    """Whether a query asks for what is not counted yet; drains are once there is DRAIN_S."""
    if 'reason="draining"' in expression and "drain_s" not in Settings.model_fields:
        return True
    return any(metric in expression for metric in METRICS)
