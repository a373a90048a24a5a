"""`servers`: a list in which each one can be, or an error that says what is wrong."""

from __future__ import annotations

import pytest

from publishers import Settings, SettingsError

IMPOSSIBLE = {
    "nats://a:70000": "its port is none from 1 to 65535",
    "nats://a:0": "its port is none from 1 to 65535",
    "nats://a:abc": "its port is none from 1 to 65535",
    "nats://u:s3cret": "its port is none from 1 to 65535",
    "nats://:4222": "its host is missing or cannot be read",
    "nats://u:s3cret@": "its host is missing or cannot be read",
    "nats://None:4222": "its host is missing or cannot be read",
    "nats://[::1": "brackets are for IPv6: nats://[::1]:4222",
    "nats://[::1]x:4222": "brackets are for IPv6: nats://[::1]:4222",
    "nats://u:s3[cret@a": "brackets are for IPv6: nats://[::1]:4222",
    "nats://a:4222?tls=no": "something stands behind its port",
    "nats://a:4222#b": "something stands behind its port",
    "nats://u:s3/cret@a": "goes into 'user' and 'password'",
    "http://u:s3cret@a:80": "it is no URL of a NATS server",
    "nats://a:4222 nats://b:4222": "several are separated by commas",
    "ws://u:s3cret@a:80": "NATS over WebSocket is not supported",
}


@pytest.mark.parametrize("url", IMPOSSIBLE)
def test_a_server_that_cannot_be_is_refused(url: str) -> None:
    """The one that nobody can connect to is named by its place in the list, with what is wrong, and without what may be
    a password."""
    with pytest.raises(SettingsError) as refused:
        Settings(servers=f"nats://a:4222,{url}")
    said = str(refused.value)
    assert said.startswith("setting 'servers', server 2: ")
    assert IMPOSSIBLE[url] in said
    assert said.endswith("give nats://… or tls://…")
    assert "s3" not in said


def test_servers_that_can_be_are_taken() -> None:
    """Names, addresses of both kinds, with or without a scheme, a port, a login or a slash at the end."""
    urls = [
        "nats://a",
        "tls://a.example.com:4222/",
        "nats://[::1]:4222",
        "nats://u:p@ss@127.0.0.1",
        "a:4222",
        "a",
        "t@b",
    ]
    assert Settings(servers=", ".join(urls)).server_urls == urls
