"""An issuer's keys: found by name, fetched anew when they change, kept while it is away, and never waited for by
others."""

from __future__ import annotations

import asyncio
import base64
import json
import ssl
from collections.abc import AsyncIterator
from pathlib import Path
from random import Random

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from nats.aio.client import Client

from gateway.auth.jwks import Jwks
from gateway.logs import logger
from tests.auth.knock import knock, let_in, refused
from tests.conftest import StartGateway
from tests.publishers.logins import certificates
from tests.support.eventually import eventually
from tests.support.jwks_server import JwksServer
from tests.support.sse import SseClient
from tests.support.tokens import SECRET, bearer, claims, jwk, public_pem, sign, token
from tests.support.ws import ws_client

MINE = ["user.{sub}.>"]
ALGORITHMS = ("RS256", "ES256", "EdDSA")


def signed(algorithm: str, kid: str | None, key: object = None, sub: str = "alice") -> str:
    """A token whose header names a key."""
    return sign(
        claims(sub, subscribe=MINE), algorithm=algorithm, key=key, headers=None if kid is None else {"kid": kid}
    )


@pytest.fixture
async def issuer() -> AsyncIterator[JwksServer]:
    """An issuer with one key of each kind, named after its algorithm."""
    async with JwksServer([jwk(each, each) for each in ALGORITHMS]) as server:
        yield server


async def test_keys_are_found_by_name(start_gateway: StartGateway, issuer: JwksServer) -> None:
    """Each token is held against the key that it names, or without a name against those of its algorithm."""
    gateway = await start_gateway(AUTH="jwt", JWKS_URL=issuer.url)
    for algorithm in ALGORITHMS:
        await let_in(gateway, signed(algorithm, algorithm))
        await let_in(gateway, signed(algorithm, None))
    other = ec.generate_private_key(ec.SECP256R1())
    await refused(gateway, signed("ES256", "ES256", other), "signature")
    await refused(gateway, token(subscribe=MINE), "unknown_key")
    assert issuer.requests == 1


async def test_a_key_for_no_algorithm_is_left_out(start_gateway: StartGateway, issuer: JwksServer) -> None:
    """A key whose `alg` is `none` or unknown proves nothing, and the others of its set are used."""
    issuer.publish({**jwk("ES256", "a"), "alg": "none"}, {**jwk("RS256", "b"), "alg": "XY1"}, jwk("ES256", "ES256"))
    gateway = await start_gateway(AUTH="jwt", JWKS_URL=issuer.url)
    await let_in(gateway, signed("ES256", "ES256"))
    await refused(gateway, signed("ES256", "a"), "unknown_key", "kid")


async def test_a_fault_in_fetching_ends_nothing() -> None:
    """Whatever goes wrong in a fetch is told as its trouble, and whoever keeps the keys fresh goes on."""
    loop = asyncio.get_running_loop()
    jwks = Jwks("http://[", random=Random(1), log=logger(), changed=lambda: None, now=loop.time)
    await jwks.refresh()
    assert jwks.trouble.startswith("a fault in natsgate: ValueError")
    assert (jwks.loaded, jwks.fetches["failed"]) == (False, 1)


async def test_a_new_key_is_fetched(start_gateway: StartGateway, issuer: JwksServer) -> None:
    """A token that names an unknown key makes the keys be fetched; one that is gone proves nothing any more, not even
    what it has proven before."""
    gateway = await start_gateway(AUTH="jwt", JWKS_URL=issuer.url)
    old = signed("ES256", "ES256")
    await let_in(gateway, old)
    newer = ec.generate_private_key(ec.SECP256R1())
    issuer.publish(jwk("ES256", "next", newer))
    await let_in(gateway, signed("ES256", "next", newer))
    await refused(gateway, old, "unknown_key", "kid")
    await refused(gateway, signed("RS256", "RS256"), "unknown_key", "kid")
    assert issuer.requests == 2


async def test_a_new_key_without_a_name_is_fetched(start_gateway: StartGateway, issuer: JwksServer) -> None:
    """Also where neither keys nor tokens have names."""
    issuer.publish(jwk("ES256"))
    gateway = await start_gateway(AUTH="jwt", JWKS_URL=issuer.url)
    old = signed("ES256", None)
    await let_in(gateway, old)
    newer = ec.generate_private_key(ec.SECP256R1())
    issuer.publish(jwk("ES256", None, newer))
    await let_in(gateway, signed("ES256", None, newer))
    await refused(gateway, old, "signature")


async def test_names_that_nobody_knows_cost_one_fetch(start_gateway: StartGateway, issuer: JwksServer) -> None:
    """200 tokens with names of the attacker's choice make one fetch. None is let in; one who comes with a really new
    key meanwhile is told to come again, since an EventSource that gets 401 is gone for good."""
    gateway = await start_gateway(AUTH="jwt", JWKS_URL=issuer.url)
    before = issuer.requests
    other = ec.generate_private_key(ec.SECP256R1())
    answers = [await knock(gateway, signed("ES256", f"hostile-{number}", other)) for number in range(200)]
    assert issuer.requests == before + 1
    assert answers[0].status == 401
    assert {answer.status for answer in answers} == {401, 503}
    assert (await knock(gateway, signed("ES256", "hostile-0", other))).status == 401  # the issuer has said so
    issuer.publish(jwk("ES256", "next", other))
    waits = await knock(gateway, signed("ES256", "next", other), accept="text/event-stream")
    assert waits.status == 200
    assert b"natsgate.closing" in waits.body
    await let_in(gateway, signed("ES256", "ES256"))
    assert issuer.requests == before + 1


async def test_keys_are_kept_while_the_issuer_is_away(start_gateway: StartGateway, issuer: JwksServer) -> None:
    """What is known goes on to be taken; what is not is told to come again; /readyz stays at 200 and says why."""
    gateway = await start_gateway(AUTH="jwt", JWKS_URL=issuer.url + "?key=shibboleth")
    await issuer.stop()
    reply = await knock(gateway, signed("ES256", "next"))
    assert reply.status == 503, reply
    assert int(reply.headers["retry-after"]) >= 1
    for algorithm in ALGORITHMS:
        await let_in(gateway, signed(algorithm, algorithm))
    ready = await asyncio.to_thread(gateway.get, "/readyz")
    assert ready.status == 200
    (reason,) = ready.json()["reasons"]
    assert "the keys fetched before are used" in reason
    assert "NATSGATE_JWKS_URL" in reason
    assert "shibboleth" not in reason + gateway.log_text
    assert gateway.metrics().total("natsgate_jwks_fetches_total", outcome="failed") >= 1
    await issuer.start()


async def test_an_issuer_that_is_away_at_the_beginning(start_gateway: StartGateway, issuer: JwksServer) -> None:
    """Not ready, with the reason; whoever comes is told to come again in the way that it understands; when the issuer
    is there, all goes well without a restart."""
    await issuer.stop()
    gateway = await start_gateway(ready=False, AUTH="jwt", JWKS_URL=issuer.url)

    async def reasons() -> str | None:
        return next((each for each in gateway.get("/readyz").json()["reasons"] if "JWKS_URL" in each), None)

    assert "no token of theirs can be checked" in await eventually(reasons, "/readyz says so")
    assert gateway.get("/readyz").status == 503
    good = signed("ES256", "ES256")
    async with SseClient(gateway.url, "user.alice.>", headers=bearer(good)) as sse:
        (closing,) = await sse.rest()
        assert sse.status == 200
        assert sse.retry_ms is not None
        assert closing.type == "natsgate.closing"
        assert closing.json()["reason"] == "overloaded"
        assert closing.json()["reconnect"] is True
    reply = await knock(gateway, good)
    assert reply.status == 503
    assert int(reply.headers["retry-after"]) >= 1
    async with ws_client(gateway.ws_url, headers=bearer(good)) as ws:
        close, _ = await ws.closed()
        assert close is not None
        assert (close.code, close.reason) == (1013, "overloaded")
    await refused(gateway, token(subscribe=MINE), "unknown_key")  # no issuer publishes a secret
    await issuer.start()
    await asyncio.to_thread(gateway.wait_ready)
    await let_in(gateway, good)
    assert gateway.get("/readyz").json()["reasons"] == []


async def test_a_hanging_issuer_holds_up_nobody_else(
    start_gateway: StartGateway, issuer: JwksServer, nc: Client, own_id: str
) -> None:
    """While a token waits for an issuer that does not answer, others get their events and are let in."""
    gateway = await start_gateway(AUTH="jwt", JWKS_URL=issuer.url)
    issuer.answer = issuer.hang
    async with SseClient(
        gateway.url, f"user.{own_id}.>", headers=bearer(signed("ES256", "ES256", sub=own_id))
    ) as other:
        await other.ready()
        waiting = [asyncio.create_task(knock(gateway, signed("ES256", f"next-{n}"))) for n in range(5)]

        async def is_asked() -> bool:
            return len(issuer.hanging) == 1

        await eventually(is_asked, "the issuer was asked")
        for number in range(20):
            await nc.publish(f"user.{own_id}.x", json.dumps({"n": number}).encode())
            assert (await other.next_message()).json() == {"n": number}
        await let_in(gateway, signed("RS256", "RS256"))
        assert not any(task.done() for task in waiting), "the issuer has answered: this test shows nothing"
        issuer.let_go()
        assert {reply.status for reply in await asyncio.gather(*waiting)} == {503}
    assert issuer.requests == 2


async def test_what_is_no_key_for_signatures(start_gateway: StartGateway, issuer: JwksServer) -> None:
    """A secret in public proves nothing, nor does a key for encryption; the others of the set do."""
    other = ec.generate_private_key(ec.SECP256R1())
    secret = {"kty": "oct", "alg": "HS256", "kid": "secret", "k": base64.urlsafe_b64encode(SECRET.encode()).decode()}
    issuer.publish(secret, jwk("ES256", "enc", other) | {"use": "enc"}, jwk("ES256", "good"))
    gateway = await start_gateway(AUTH="jwt", JWKS_URL=issuer.url)
    await let_in(gateway, signed("ES256", "good"))
    await refused(gateway, signed("HS256", "secret", SECRET), "unknown_key")
    await refused(gateway, signed("ES256", "enc", other), "unknown_key")


async def test_fixed_keys_beside_an_issuer(start_gateway: StartGateway, issuer: JwksServer) -> None:
    """Tokens of the settings' own key and of the issuer's are taken, also of one algorithm."""
    own = ec.generate_private_key(ec.SECP256R1())
    settings = {"JWT_PUBLIC_KEY": public_pem("ES256"), "JWT_SECRET": SECRET}
    issuer.publish(jwk("ES256", "theirs", own))
    gateway = await start_gateway(AUTH="jwt", JWKS_URL=issuer.url, settings=settings)
    for good in (signed("ES256", None), signed("ES256", "ours"), token(subscribe=MINE)):
        await let_in(gateway, good)
    assert issuer.requests == 1
    await let_in(gateway, signed("ES256", "theirs", own))
    await let_in(gateway, signed("ES256", None, own))
    newer = ec.generate_private_key(ec.SECP256R1())
    issuer.publish(jwk("ES256", "theirs", own), jwk("ES256", "next", newer))
    await let_in(gateway, signed("ES256", "next", newer))


async def test_https(start_gateway: StartGateway, tmp_path: Path) -> None:
    """The issuer's certificate is checked, by the authorities of the environment."""
    folder = tmp_path / "certificates"
    folder.mkdir()
    files = certificates(folder)
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(files["server.pem"], files["server.key"])
    async with JwksServer([jwk("ES256", "ES256")], tls=tls) as server:
        trusting = await start_gateway(
            AUTH="jwt", JWKS_URL=server.url, variables={"SSL_CERT_FILE": str(files["ca.pem"])}
        )
        await let_in(trusting, signed("ES256", "ES256"))
        doubting = await start_gateway(ready=False, AUTH="jwt", JWKS_URL=server.url)

        async def refuses() -> bool:
            return "certificate verify failed" in str(doubting.get("/readyz").json()["reasons"])

        await eventually(refuses, "/readyz names the certificate")
