"""A key set is downloaded within a time and a size, however its server behaves."""

from __future__ import annotations

import asyncio
import gzip
from collections.abc import AsyncIterator

import pytest

from gateway.auth.download import NotDownloaded, download
from tests.support.jwks_server import Answer, JwksServer, endless, raw, whole

OK = b"HTTP/1.1 200 OK\r\n"
MOST_BYTES = 1000


@pytest.fixture
async def server() -> AsyncIterator[JwksServer]:
    """A server that answers as the test wants."""
    async with JwksServer() as running:
        yield running


async def fetched(server: JwksServer, answer: Answer, *, timeout_s: float = 5.0) -> bytes:
    server.answer = answer
    return await asyncio.to_thread(download, server.url, timeout_s=timeout_s, most_bytes=MOST_BYTES)


async def test_a_document(server: JwksServer) -> None:
    """A whole answer is returned, by length, by chunks or to the end of the connection, up to the very limit."""
    assert await fetched(server, whole(b"x" * MOST_BYTES)) == b"x" * MOST_BYTES
    chunked = OK + b"transfer-encoding: chunked\r\n\r\n2\r\nab\r\n1\r\nc\r\n0\r\n\r\n"
    assert await fetched(server, raw(chunked)) == b"abc"
    assert await fetched(server, raw(OK + b"\r\nabc")) == b"abc"


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (whole(b"x" * (MOST_BYTES + 1)), "larger than 1000 bytes"),
        (endless(OK + b"\r\n", b"x" * 65536), "larger than 1000 bytes"),
        (endless(OK + b"transfer-encoding: chunked\r\n\r\n", b"1\r\nx\r\n"), "larger than 1000 bytes"),
        (endless(OK, b"x-more: of this\r\n"), "too long"),
        (endless(OK + b"x: ", b"x" * 65536), "too long"),
        (endless(b"", b"x" * 65536), "too long"),
        (raw(b"SSH-2.0-OpenSSH_9.6\r\n\r\n"), "SSH-2.0"),
        (raw(b"\x1b[31m\r\n\r\n"), "x1b[31m"),
        (raw(b""), "without sending a response"),
        (raw(OK + b"transfer-encoding: chunked\r\n\r\nzz\r\n"), "chunk"),
        (whole(b"", status="404 Not Found"), "status 404"),
        (whole(b"", status="500 Oops"), "status 500"),
    ],
)
async def test_what_is_no_document(server: JwksServer, answer: Answer, said: str) -> None:
    """Too much, endless, no HTTP, broken or an error: one short line of ASCII without the URL."""
    with pytest.raises(NotDownloaded) as refused:
        await fetched(server, answer)
    text = str(refused.value)
    assert said in text
    assert text.isascii()
    assert text.isprintable()
    assert len(text) < 400
    assert str(server.port) not in text


@pytest.mark.parametrize(
    "answer",
    [
        endless(b"", b""),
        endless(b"HTTP/1.1 ", b"0", pause_s=0.05),
        endless(OK + b"x: ", b"x", pause_s=0.05),
        endless(OK + b"\r\n", b"x", pause_s=0.05),
        endless(OK + b"content-length: 500\r\n\r\n", b"x", pause_s=0.05),
        endless(OK + b"transfer-encoding: chunked\r\n\r\n", b"1\r\nx\r\n", pause_s=0.05),
        endless(b"", b"HTTP/1.1 100 Continue\r\n\r\n", pause_s=0.001),
    ],
    ids=["silence", "status line", "header", "body", "length", "chunks", "100 Continue"],
)
async def test_a_slow_answer_ends(server: JwksServer, answer: Answer) -> None:
    """The time is that of the whole answer: a byte now and then does not prolong it."""
    with pytest.raises(NotDownloaded, match=r"within 0\.4 s"):
        await fetched(server, answer, timeout_s=0.4)


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_redirects_are_not_followed(server: JwksServer, status: int) -> None:
    """The URL in the settings is what is trusted; the answer says what to put there instead."""
    async with JwksServer() as elsewhere:
        answer = whole(b"", status=f"{status} Elsewhere", headers=f"location: {elsewhere.url}\r\n")
        with pytest.raises(NotDownloaded) as refused:
            await fetched(server, answer)
        assert elsewhere.url in str(refused.value)
        assert f"status {status}" in str(refused.value)
        assert elsewhere.requests == 0


async def test_nobody_there(server: JwksServer) -> None:
    """A server that is away is told by the system's own words."""
    await server.stop()
    with pytest.raises(NotDownloaded, match="refused"):
        await fetched(server, whole(b""))
    await server.start()


async def test_a_host_that_is_no_name() -> None:
    """What cannot be a name (RFC 5891) is told as such, however it is spelled."""
    with pytest.raises(NotDownloaded):
        await asyncio.to_thread(download, "http://xn--zzzzzzzz99999/keys", timeout_s=5, most_bytes=1000)


PROXIED = "http://issuer.invalid/keys"


@pytest.mark.parametrize("spelling", ["http://{}", "{}"])
async def test_by_the_proxy_of_the_environment(
    server: JwksServer, monkeypatch: pytest.MonkeyPatch, spelling: str
) -> None:
    """A proxy in the environment is asked instead, unless NO_PROXY names the host; networks in it do no harm."""
    server.answer = whole(b"by proxy")
    monkeypatch.setenv("http_proxy", spelling.format(f"127.0.0.1:{server.port}"))
    monkeypatch.setenv("no_proxy", "elsewhere.invalid,10.0.0.0/8,fd00::/8")
    assert await asyncio.to_thread(download, PROXIED, timeout_s=5.0, most_bytes=MOST_BYTES) == b"by proxy"
    monkeypatch.setenv("no_proxy", "issuer.invalid")
    with pytest.raises(NotDownloaded, match=r"[Nn]ame"):
        await asyncio.to_thread(download, PROXIED, timeout_s=5.0, most_bytes=MOST_BYTES)
    assert server.requests == 1


@pytest.mark.parametrize("proxy", ["socks5://me:shibboleth@127.0.0.1:1", "http://me:shib/boleth@127.0.0.1:1", "x://y"])
async def test_a_proxy_of_no_use(monkeypatch: pytest.MonkeyPatch, proxy: str) -> None:
    """A proxy that cannot be asked is told as such, without its password."""
    monkeypatch.setenv("http_proxy", proxy)
    with pytest.raises(NotDownloaded, match="proxy is of no use") as refused:
        await asyncio.to_thread(download, PROXIED, timeout_s=5.0, most_bytes=MOST_BYTES)
    assert "shib" not in str(refused.value)


async def test_nothing_is_unpacked(server: JwksServer) -> None:
    """A compressed answer is asked for by nobody, and is returned as it came: it cannot grow beyond the limit."""
    packed = gzip.compress(b"x" * 100 * MOST_BYTES)
    assert len(packed) < MOST_BYTES
    assert await fetched(server, whole(packed, headers="content-encoding: gzip\r\n")) == packed
