"""TCP addresses: those in URLs, and free ports on the loopback address."""

from __future__ import annotations

import contextlib
import random
import socket
from collections.abc import Iterator
from urllib.parse import urlsplit

# Below Linux's ephemeral range (32768 and up), so that no outgoing connection takes the port meanwhile.
_RANGE = range(20_000, 32_000)

_given: set[int] = set()


def address_of(url: str) -> tuple[str, int]:
    """Host and port of a URL that names both."""
    address = urlsplit(url)
    assert address.hostname, url
    assert address.port, url
    return address.hostname, address.port


def free_port() -> int:
    """A port that nobody listened on a moment ago, and that this process was not given before."""
    for port in random.sample(_RANGE, 200):
        if port in _given:
            continue  # a server with two ports would not start with the same one twice
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            _given.add(port)
            return port
    raise RuntimeError("no free port found")


@contextlib.contextmanager
def taken_port() -> Iterator[int]:
    """A port that somebody listens on while the block runs."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        yield int(listener.getsockname()[1])
