"""`natsgate tail` against servers that are no gateway, or break off: each is told, nothing else is done."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.commands.tailing import tailing
from tests.publishers.logins import certificates
from tests.support.command import natsgate
from tests.support.jwks_server import Answer, JwksServer, endless, raw, whole

OK = b"HTTP/1.1 200 OK\r\n"
STREAM = OK + b"content-type: text/event-stream\r\n"
EVENT = b'id: 1-7\ndata: {"n":1}\n\n'


@pytest.fixture
async def server() -> AsyncIterator[JwksServer]:
    """A server that answers as the test wants."""
    async with JwksServer() as running:
        yield running


def url_of(server: JwksServer) -> str:
    return server.url.removesuffix("/jwks.json")


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (raw(b""), "did not answer the request"),
        (raw(b"SSH-2.0-OpenSSH_9.6\r\n\r\n"), "did not answer the request"),
        (raw(b"x" * 50_000 + b"\r\n\r\n"), "did not answer the request"),
        (endless(OK + b"x: ", b"x" * 65536), "did not answer the request"),
        (raw(STREAM + b"content-length: 500\r\n\r\n" + EVENT), "connection was cut"),
        (raw(STREAM + b"transfer-encoding: chunked\r\n\r\n9\r\nid"), "connection was cut"),
        (raw(STREAM + b"transfer-encoding: chunked\r\n\r\nzz\r\n"), "connection was cut"),
        (raw(STREAM + b"\r\n" + EVENT), "the stream ended"),
        (whole(b"", status="503 Busy", headers="retry-after: 7\r\n"), "again in 7.0 s"),
    ],
)
async def test_what_another_time_may_mend(server: JwksServer, answer: Answer, said: str) -> None:
    """No answer, half of one, or a refusal that passes: it says so, and comes again."""
    server.answer = answer
    async with tailing("repo.1.>", "--url", url_of(server)) as tail:
        line = await tail.told(said)
        assert "again in" in line
        assert len(line) < 400
        assert await tail.end() == 0


async def test_the_place_of_the_last_event_is_asked_for(server: JwksServer) -> None:
    """What comes behind a broken chunk is asked for by the id of the last whole event."""
    server.answer = raw(STREAM + b"transfer-encoding: chunked\r\n\r\n%x\r\n%b\r\n" % (len(EVENT), EVENT))
    async with tailing("repo.1.>", "--url", url_of(server), "--json") as tail:
        assert (await tail.event())["event"] == {"n": 1}
        assert "behind 1-7" in await tail.told("connection was cut")


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (whole(b"<html>"), "no event stream at /events"),
        (whole(b'{"detail":"not \\u001b[31myou"}', status="403 Forbidden"), "403: not"),
        (whole(b"x" * 2**20, status="400 Bad Request"), "400: x"),
        (whole(b"", status="404 Not Found"), "404: refused"),
    ],
)
async def test_what_no_other_time_mends(server: JwksServer, answer: Answer, said: str) -> None:
    """A refusal for good ends it with exit code 2 and one line that a terminal can show."""
    server.answer = answer
    done = await asyncio.to_thread(natsgate, "tail", "repo.1.>", "--url", url_of(server), settings={})
    assert done.returncode == 2, done
    assert said in done.stderr
    assert done.stderr.removesuffix("\n").isprintable()
    assert len(done.stderr) < 400


async def test_redirects_and_proxies_get_no_token(server: JwksServer) -> None:
    """The token goes to the gateway of `--url` alone: a redirect is told, a proxy in the environment is not asked."""
    async with JwksServer() as elsewhere:
        server.answer = whole(b"", status="307 Elsewhere", headers=f"location: {elsewhere.url}\r\n")
        done = await asyncio.to_thread(
            natsgate,
            "tail",
            "repo.1.>",
            "--url",
            url_of(server),
            settings={"TOKEN": "shibboleth"},
            variables={"http_proxy": url_of(elsewhere), "all_proxy": url_of(elsewhere)},
        )
        assert done.returncode == 2, done
        assert f"redirected to {elsewhere.url}" in done.stderr
        assert (server.requests, elsewhere.requests) == (1, 0)


async def test_https(tmp_path: Path) -> None:
    """The certificate is checked, by the authorities of the environment."""
    files = certificates(tmp_path)
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(files["server.pem"], files["server.key"])
    async with JwksServer(tls=tls) as server:
        server.answer = raw(STREAM + b"\r\n" + EVENT)
        async with tailing("repo.1.>", "--url", url_of(server)) as doubting:
            assert "certificate verify failed" in await doubting.told("is not reached")
        assert server.requests == 0
        variables = {"SSL_CERT_FILE": str(files["ca.pem"])}
        async with tailing("repo.1.>", "--url", url_of(server), "--json", variables=variables) as trusting:
            assert (await trusting.event())["event"] == {"n": 1}
