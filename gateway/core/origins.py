"""Origins: which pages may use what a browser sends along by itself (RFC 6454, Fetch, CORS)."""

from __future__ import annotations

import re
from collections.abc import Collection

from gateway.core.errors import BadOrigin

_HOST = r"[a-z0-9_-]+(?:\.[a-z0-9_-]+)*\.?|\[[0-9a-f:.]+\]"
_ORIGIN = re.compile(rf"(https?)://((?:{_HOST})(?::(\d{{1,5}}))?)", re.IGNORECASE | re.ASCII)


def parse_origin(text: str) -> str:
    """An origin as browsers spell it: scheme, host, and the port where it is not the scheme's own; in lower case.

    Raises:
        ValueError: it is none that a browser would send, so it would never allow anything.
    """
    shape = _ORIGIN.fullmatch(text)
    if shape is None or int(shape[3] or 0) > 65535:
        raise ValueError(
            f"{text!a} is no origin; give scheme, host and port as a browser does: https://app.example.com "
            "(no path, no *, other alphabets as xn--; several are separated by commas)"
        )
    return text.lower().removesuffix(":443" if shape[1].lower() == "https" else ":80")


class Origins:
    """The own origin, and those that the settings allow.

    Args:
        allowed: origins as `parse_origin` gives them.
    """

    def __init__(self, allowed: Collection[str]) -> None:
        self.allowed = frozenset(allowed)

    def trusts(self, origin: str, host: str | None) -> bool:
        """Whether a page of this origin is one of ours.

        Args:
            origin: the header `Origin`, as it came. `null` (a sandboxed frame, a data: page) never is.
            host: the header `Host`: the own origin is the page that has it. The scheme is not compared, since behind
                a proxy that ends TLS we do not know our own.
        """
        shape = _ORIGIN.fullmatch(origin)
        if shape is None:
            return False
        own = host is not None and _bare(shape[1], shape[2]) == _bare(shape[1], host)
        return own or parse_origin(origin) in self.allowed

    def lets_ambient(self, *, origin: str | None, host: str | None, fetch_site: str | None, reads_only: bool) -> bool:
        """Whether what a browser adds by itself (a cookie; the very place in the network) may speak for its user.

        Args:
            origin, host, fetch_site: the headers `Origin`, `Host`, `Sec-Fetch-Site`.
            reads_only: whether the request is a GET. Browsers send no `Origin` with one of the same origin. A
                WebSocket is none: every page may open one to anywhere, and nothing but its `Origin` tells.
        """
        if origin is not None:
            return self.trusts(origin, host)
        return reads_only and fetch_site in (None, "same-origin")

    def cors(self, origin: str | None) -> list[tuple[bytes, bytes]]:
        """The headers that tell a browser whether a page of this origin may read an answer (Fetch, section 3.2).

        Args:
            origin: the header `Origin`, as it came.
        """
        if not self.allowed:
            return []
        if origin is None or origin not in self.allowed:
            return [(b"vary", b"origin")]
        return [
            (b"access-control-allow-origin", origin.encode("ascii")),
            (b"access-control-allow-credentials", b"true"),
            (b"vary", b"origin"),
        ]


def bad_origin(origin: str | None) -> BadOrigin:
    """The refusal of a page that is none of ours."""
    if origin is None:
        return BadOrigin(
            "A cookie counts with an Origin only, so that no page can use its visitor's; browsers send one. "
            "Scripts send Authorization: Bearer."
        )
    return BadOrigin(
        f"A page of the origin {origin[:200]!a} may not do this; NATSGATE_ALLOWED_ORIGINS lists those that may, beside "
        "the own one."
    )


def _bare(scheme: str, authority: str) -> str:
    return authority.lower().removesuffix(":443" if scheme.lower() == "https" else ":80")
