"""Where a gateway is, as `--url` has it."""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import urlsplit

import httpx

from gateway.commands.outcome import CommandFailed


@dataclass(frozen=True, slots=True)
class Address:
    """Where a gateway is.

    Attributes:
        base: a path that everything is below, without a slash at its end.
    """

    host: str
    port: int
    tls: bool
    base: str

    @property
    def authority(self) -> str:
        """The `Host` header."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == (443 if self.tls else 80) else f"{host}:{self.port}"

    @property
    def origin(self) -> str:
        """Scheme and authority."""
        return f"http{'s' if self.tls else ''}://{self.authority}"


def parse_address(url: str) -> Address:
    """Read a gateway's URL.

    Raises:
        CommandFailed: it is none.
    """
    try:
        parts = urlsplit(url)
        port = parts.port
        httpx.URL(url)  # what it could not ask is none
    except (ValueError, httpx.InvalidURL):
        parts, port = urlsplit(""), None
    plain = url.isascii() and url.isprintable() and " " not in url
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment or not plain:
        raise CommandFailed(f"--url {url!a}: give where a gateway is, such as http://127.0.0.1:8080")
    tls = parts.scheme == "https"
    return Address(parts.hostname, port or (443 if tls else 80), tls, parts.path.rstrip("/"))
