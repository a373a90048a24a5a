"""NATS as the settings describe it: how to connect, the stream that is expected there, and where that is in words."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable
from typing import Any
from urllib.parse import urlsplit

from gateway.core.bucket import BucketShape
from gateway.core.stream import PROVISION, StreamShape
from gateway.settings import Settings
from gateway.upstream.login import connect_options
from gateway.values import revealed

DEFAULT_PORT = 4222
"""Of a server whose URL names none."""


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


_LOGIN = re.compile(r"//[^/]*@")


def shape_of(settings: Settings) -> StreamShape:
    """The stream that the settings expect."""
    return StreamShape(settings.stream, settings.roots, settings.live_prefix, provision=provision_command(settings))


def bucket_of(settings: Settings) -> BucketShape:
    """The bucket of revoked users that is expected there."""
    return BucketShape(provision=provision_command(settings))


def provision_command(settings: Settings) -> str:
    """The command that makes stream and bucket there. It may be typed elsewhere than where the settings are: without
    its server it would make them on the default one, and say that it has. A login in a URL is a place to fill in."""
    words = [PROVISION]
    if settings.config_file is not None:
        words += ["--config", shlex.quote(str(settings.config_file))]
    if settings.is_given("nats_url"):
        words += ["--nats-url", shlex.quote(",".join(_LOGIN.sub("//USER:PASSWORD@", url) for url in settings.nats_url))]
    return " ".join(words)


def without_login(urls: Iterable[str]) -> list[str]:
    """The URLs without user and password."""
    return [_LOGIN.sub("//", url) for url in urls]


def place_of(settings: Settings) -> str:
    """The servers, `host:port`, for whoever does not know which of them it is connected to."""
    parts = [urlsplit(url) for url in without_login(settings.nats_url)]
    places = [part.netloc if part.port else f"{part.netloc}:{DEFAULT_PORT}" for part in parts]
    return places[0] if len(places) == 1 else f"one of {' '.join(places)}"
