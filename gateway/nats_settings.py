"""NATS as the settings describe it: how to connect, and the stream that is expected there."""

from __future__ import annotations

from typing import Any

from gateway.core.stream import StreamShape
from gateway.settings import Settings
from gateway.upstream.connection import connect_options
from gateway.values import revealed


def nats_options(settings: Settings) -> dict[str, Any]:
    """The NATS connection that the settings describe."""
    return connect_options(
        urls=settings.nats_url,
        name=f"natsgate {settings.replica}",
        creds=settings.nats_creds,
        nkey=revealed(settings.nats_nkey),
        user=settings.nats_user,
        password=revealed(settings.nats_password),
        token=revealed(settings.nats_token),
        ca=settings.nats_ca,
        cert=settings.nats_cert,
        key=settings.nats_key,
    )


def shape_of(settings: Settings) -> StreamShape:
    """The stream that the settings expect."""
    return StreamShape(settings.stream, settings.roots, settings.live_prefix)
