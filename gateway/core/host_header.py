"""The `Host` header: whether a request says whose it is."""

from __future__ import annotations

import re
from collections.abc import Sequence

HOST = re.compile(rb"(?:[\w.~!$&'()*+,;=%-]*|\[[\w:.~%-]+\])(?::\d*)?")
"""`uri-host [ ":" port ]` (RFC 9110, section 7.2), as far as it is not looked up: an empty host is one."""


def says_whose_it_is(hosts: Sequence[bytes], http_version: str) -> bool:
    """Whether a request says whose it is as it has to (RFC 9112, section 3.2): of those before HTTP/1.1 none need to.

    Args:
        hosts: the values of its `Host` headers.
        http_version: its own, such as `1.1`.
    """
    if not hosts:
        return http_version != "1.1"
    return len(hosts) == 1 and HOST.fullmatch(hosts[0].strip(b" \t")) is not None
