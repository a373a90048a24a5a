"""The login at NATS: what nats-py is given to connect with, checked before it is tried again and again."""

from __future__ import annotations

import ssl
from pathlib import Path
from typing import Any

import nkeys  # type: ignore[import-untyped]

from gateway.core.errors import ConfigError


def connect_options(
    *,
    urls: tuple[str, ...],
    name: str,
    creds: str | None = None,
    nkey: str | None = None,
    user: str | None = None,
    password: str | None = None,
    token: str | None = None,
    ca: str | None = None,
    cert: str | None = None,
    key: str | None = None,
) -> dict[str, Any]:
    """The part of nats-py's options that settings decide.

    Raises:
        ConfigError: credentials, a certificate or a key cannot be loaded.
    """
    if creds is not None:
        _check_creds(creds)
    if nkey is not None:
        _check_seed(nkey)
    options: dict[str, Any] = {"servers": list(urls), "name": name}
    given = {
        "user_credentials": creds,
        "nkeys_seed_str": nkey,
        "user": user,
        "password": password,
        "token": token,
    }
    options |= {option: value for option, value in given.items() if value is not None}
    if ca is not None or cert is not None or any(url.startswith("tls://") for url in urls):
        try:
            context = ssl.create_default_context(cafile=ca)
            if cert is not None:
                context.load_cert_chain(cert, key)
        except (OSError, ssl.SSLError) as error:
            raise ConfigError(f"NATSGATE_NATS_CA, NATS_CERT or NATS_KEY cannot be loaded: {error}") from None
        options["tls"] = context
    return options


def _check_creds(path: str) -> None:
    # nats-py would find out when it connects, again and again.
    try:
        text = Path(path).read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"NATSGATE_NATS_CREDS: {path} cannot be read: {error}") from None
    if "BEGIN NATS USER JWT" not in text or "BEGIN USER NKEY SEED" not in text:
        raise ConfigError(f"NATSGATE_NATS_CREDS: {path} is no credentials file; nsc generate creds makes one")


def _check_seed(seed: str) -> None:
    try:
        nkeys.from_seed(bytearray(seed.encode())).wipe()
    except (nkeys.NkeysError, ValueError):
        raise ConfigError("NATSGATE_NATS_NKEY is not the seed of a user's nkey (SU…)") from None
