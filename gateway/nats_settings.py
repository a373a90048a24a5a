"""NATS as the settings describe it: how to connect, and the stream that is expected there."""

from __future__ import annotations

from typing import Any

from gateway.core.stream import StreamShape
from gateway.settings import Settings
from gateway.upstream.connection import connect_options


def nats_options(settings: Settings) -> dict[str, Any]:
    """The NATS connection that the settings describe."""

    def reveal(secret: Any) -> str | None:
        return None if secret is None else str(secret.get_secret_value())

    return connect_options(
        urls=settings.nats_url,
        name=f"natsgate {settings.replica}",
        creds=settings.nats_creds,
        nkey=reveal(settings.nats_nkey),
        user=settings.nats_user,
        password=reveal(settings.nats_password),
        token=reveal(settings.nats_token),
        ca=settings.nats_ca,
        cert=settings.nats_cert,
        key=settings.nats_key,
    )


def shape_of(settings: Settings) -> StreamShape:
    """The stream that the settings expect."""
    return StreamShape(settings.stream, settings.roots, settings.live_prefix)
