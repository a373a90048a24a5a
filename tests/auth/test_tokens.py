"""A token is taken when it is signed by our key, meant for us, and within its time; else the answer says which not."""

from __future__ import annotations

import http.client
import json
import time
from collections.abc import Callable
from typing import Any

import pytest

from tests.auth.knock import ask, knock, let_in, refused
from tests.conftest import StartGateway
from tests.support.gateway import Gateway
from tests.support.tokens import SECRET, bearer, claims, crafted, public_pem, sign, token
from tests.support.ws import ws_client

MINE = ["user.{sub}.>"]


def mine(**more: Any) -> str:
    """A good token (HS256), or one with these claims otherwise."""
    return token(subscribe=MINE, **more)


HEADER = b'{"alg":"HS256","typ":"JWT"}'


def payload(**more: Any) -> bytes:
    return json.dumps(claims(subscribe=MINE, **more)).encode()


async def test_a_good_token(guarded: Gateway) -> None:
    """What the other tests of this file begin with is taken, also when it is crafted by hand."""
    await let_in(guarded, mine())
    await let_in(guarded, crafted(HEADER, payload()))


# Times


@pytest.mark.parametrize(
    ("shift", "reason", "name"),
    [
        ({"exp": -60}, "expired", "exp"),
        ({"nbf": 60}, "not_yet", "nbf"),
        ({"iat": 60}, "not_yet", "iat"),
    ],
)
async def test_times_are_checked(guarded: Gateway, shift: dict[str, int], reason: str, name: str) -> None:
    """An expired token, and one whose `nbf` or `iat` lies ahead, are refused by the name of that claim."""
    times = {claim: int(time.time()) + seconds for claim, seconds in shift.items()}
    await refused(guarded, mine(**times), reason, name)


async def test_an_end_is_required(guarded: Gateway) -> None:
    """A token without `exp` would be one for ever."""
    await refused(guarded, mine(exp=None), "claims", "exp")


async def test_clocks_may_differ(start_gateway: StartGateway) -> None:
    """Within `JWT_LEEWAY_S` a token is taken early and late; outside it is not."""
    gateway = await start_gateway(AUTH="jwt", JWT_SECRET=SECRET, JWT_LEEWAY_S=300)
    now = int(time.time())
    await let_in(gateway, mine(exp=now - 200))
    await let_in(gateway, mine(nbf=now + 200, iat=now + 200))
    await refused(gateway, mine(exp=now - 301), "expired", "exp")
    await refused(gateway, mine(nbf=now + 400), "not_yet", "nbf")
    await refused(gateway, mine(iat=now + 400), "not_yet", "iat")


# Whose it is, and for whom


async def test_issuer_and_audience(start_gateway: StartGateway) -> None:
    """`iss` is the one of the settings; `aud`, a string or a list, holds one of theirs."""
    gateway = await start_gateway(
        AUTH="jwt", JWT_SECRET=SECRET, JWT_ISSUER="https://issuer.test", JWT_AUDIENCE="gateway,events"
    )

    def meant(aud: Any, iss: Any = "https://issuer.test") -> str:
        return crafted(HEADER, payload(iss=iss, aud=aud))

    taken: list[Any] = ["gateway", "events", ["else", "events"]]
    others: list[Any] = ["gateways", ["else"], {"gateway": 1}, ["gateway", 1], 5]
    missing: list[Any] = [None, "", []]
    for aud in taken:
        await let_in(gateway, meant(aud))
    for aud in others:
        await refused(gateway, meant(aud), "audience", "aud")
    for aud in missing:
        await refused(gateway, meant(aud), "claims", "aud")
    for iss in ("https://issuer.test/", "https://ISSUER.test", ["https://issuer.test"], 5):
        await refused(gateway, meant("gateway", iss), "issuer", "iss")
    await refused(gateway, meant("gateway", None), "claims", "iss")


# Claims

SECONDS = "seconds"


@pytest.mark.parametrize(
    ("wrong", "names"),
    [
        ({"sub": None}, ("sub",)),
        ({"sub": ""}, ("sub",)),
        ({"sub": 42}, ("sub",)),
        ({"sub": ["alice"]}, ("sub",)),
        ({"sub": "\ud800"}, ("sub",)),
        ({"exp": "4102444800"}, ("exp", SECONDS)),
        ({"exp": True}, ("exp", SECONDS)),
        ({"exp": 10**400}, ("exp", SECONDS)),
        ({"exp": 1e300}, ("exp", SECONDS)),
        ({"exp": float("inf")}, ("exp", SECONDS)),
        ({"exp": float("nan")}, ("exp", SECONDS)),
        ({"exp": 4102444800000}, ("exp", SECONDS)),
        ({"exp": {}}, ("exp", SECONDS)),
        ({"nbf": "0"}, ("nbf", SECONDS)),
        ({"iat": "0"}, ("iat", SECONDS)),
        ({"iat": -(10**400)}, ("iat", SECONDS)),
        ({"iat": []}, ("iat", SECONDS)),
        ({"iss": 5}, ("iss",)),
        ({"jti": 5}, ("jti",)),
        ({"natsgate": "repo.>"}, ("natsgate",)),
        ({"natsgate": {"subscribe": "repo.>"}}, ("natsgate.subscribe",)),
        ({"natsgate": {"subscribe": ["repo.1.>", 5]}}, ("natsgate.subscribe[1]",)),
        ({"natsgate": {"subscribe": ["repo.>.x"]}}, ("natsgate.subscribe[0]", "repo.>.x")),
        ({"natsgate": {"subscribe": ["repo..x"]}}, ("natsgate.subscribe[0]", "empty")),
        ({"natsgate": {"subscribe": ["user-{sub}.>"]}}, ("natsgate.subscribe[0]", "{sub}")),
        ({"natsgate": {"publish": ["ci.a b"]}}, ("natsgate.publish[0]", "not encoded")),
        ({"natsgate": {"subscribe": ["repo.1.>"] * 257}}, ("natsgate.subscribe", "256")),
    ],
)
async def test_malformed_claims_are_named(guarded: Gateway, wrong: dict[str, Any], names: tuple[str, ...]) -> None:
    """A signed token that says what cannot be worked with is refused by the name of the claim."""
    await refused(guarded, crafted(HEADER, payload(**wrong)), "claims", *names)


async def test_a_token_without_rights(guarded: Gateway) -> None:
    """No `natsgate` claim is no right, and no mistake: 403, not 401."""
    assert (await knock(guarded, token(natsgate=None))).status == 403
    assert (await knock(guarded, token(natsgate={"subscribe": None}))).status == 403


async def test_the_last_of_two_names_counts(guarded: Gateway) -> None:
    """Of a member that is there twice the last one counts, in header and claims alike (RFC 7515, section 4)."""
    await let_in(guarded, crafted(b'{"alg":"none","alg":"HS256"}', payload()))
    await refused(guarded, crafted(b'{"alg":"HS256","alg":"none"}', payload()), "unknown_key", "alg")
    late = payload()[:-1] + b',"exp":1}'
    await refused(guarded, crafted(HEADER, late), "expired", "exp")


# Algorithms


async def test_a_token_cannot_choose_its_algorithm(start_gateway: StartGateway, guarded: Gateway) -> None:
    """Each key has one algorithm: a public key is no secret, a secret no public key, and `none` has no key."""
    pem = public_pem("RS256")
    gateway = await start_gateway(AUTH="jwt", JWT_PUBLIC_KEY=pem)
    good = claims(subscribe=MINE)
    await let_in(gateway, sign(good, algorithm="RS256"))
    for secret in (pem, pem.strip(), pem.replace("\n", "")):
        await refused(gateway, crafted(HEADER, payload(), secret.encode()), "unknown_key", "alg")
    await refused(gateway, sign(good, algorithm="ES256"), "unknown_key", "alg")
    for algorithm in ("none", "None", "NONE", "", "hs256", "HS384", "RS512", "PS256"):
        header = json.dumps({"alg": algorithm}).encode()
        await refused(gateway, crafted(header, payload()), "unknown_key", "alg")
        await refused(guarded, crafted(header, payload()), "unknown_key", "alg")
    await refused(gateway, crafted(b'{"alg":"none"}', payload()).rpartition(".")[0] + ".", "unknown_key")
    await refused(guarded, sign(good, algorithm="RS256"), "unknown_key", "alg")
    for algorithm in ("null", "5", "[]", '["HS256"]', "{}"):
        header = b'{"alg":%b}' % algorithm.encode()
        await refused(guarded, crafted(header, payload()), "malformed")


@pytest.mark.parametrize(
    "header",
    [
        b'{"alg":"HS256","crit":["exp"],"exp":1}',
        b'{"alg":"HS256","crit":["https://example.com/unknown"],"https://example.com/unknown":1}',
        b'{"alg":"HS256","crit":[]}',
        b'{"alg":"HS256","crit":"b64","b64":true}',
        b'{"alg":"HS256","crit":["b64"],"b64":false}',
        b'{"alg":"HS256","b64":false}',
        b'{"alg":"HS256","kid":5}',
        b'["HS256"]',
        b"",
        b"null",
        b'{"alg":"HS256"',
        b"\xff\xfe",
    ],
)
async def test_headers_that_are_not_understood(guarded: Gateway, header: bytes) -> None:
    """A header with critical extensions, an unencoded payload (RFC 7797) or no sense is refused, though signed."""
    await refused(guarded, crafted(header, payload()), "malformed")


async def test_another_key_of_the_same_kind(guarded: Gateway) -> None:
    """A signature by somebody else's key, and one that was changed, is no signature."""
    await refused(guarded, sign(claims(subscribe=MINE), key="x" * 40), "signature", "signature")
    good = mine()
    await refused(guarded, good[:-2] + ("A" if good[-2] != "A" else "B") + good[-1], "signature", "signature")
    head, _, signature = good.split(".")
    other = crafted(HEADER, payload(sub="mallory")).split(".")[1]
    await refused(guarded, f"{head}.{other}.{signature}", "signature", "signature")


# Shapes


@pytest.mark.parametrize(
    "text",
    [
        "x",
        "..",
        "a.b",
        "a.b.c",
        "a.b.c.d",
        "{good}.x",
        "{good}=",
        "{good} ",
        "x" * 8192,
        "\x80\xff",
        "a.b.é",
        "{good},{good}",
        "{good} {good}",
    ],
)
async def test_what_is_no_token(guarded: Gateway, text: str) -> None:
    """Anything else behind `Bearer` is refused; a token has one spelling (RFC 7515, section 2: no padding)."""
    given = text.replace("{good}", mine())
    if given == mine() + " ":
        await let_in(guarded, given)  # white space around a header's value is not part of it
    else:
        await refused(guarded, given, "malformed")


@pytest.mark.parametrize(
    ("headers", "status", "error"),
    [
        ({"Authorization": "Bearer"}, 401, True),
        ({"Authorization": "Bearer "}, 401, True),
        ({"Authorization": "Bearer " + "x" * 8193}, 401, True),
        ({"Authorization": "Basic YWxpY2U6c2VjcmV0"}, 401, False),
        ({"Authorization": "Basic YWxpY2U6c2VjcmV0", "Cookie": "natsgate_token={good}"}, 200, False),
        ({"Authorization": "Bearer {good}", "Cookie": "natsgate_token=junk"}, 200, False),
        ({"Authorization": "Bearer junk", "Cookie": "natsgate_token={good}"}, 401, True),
        ({"Cookie": "natsgate_token="}, 401, True),
        ({"Cookie": "other={good}"}, 401, False),
        ({}, 401, False),
    ],
)
async def test_challenges(guarded: Gateway, headers: dict[str, str], status: int, error: bool) -> None:
    """A 401 has a challenge; it names an error only where there was a token (RFC 6750, section 3.1). Other schemes
    than Bearer are for somebody in front of us."""
    good = mine()
    reply = await ask(guarded, {name: value.replace("{good}", good) for name, value in headers.items()})
    assert reply.status == status, reply
    if status == 401:
        challenge = 'Bearer realm="natsgate"' + (', error="invalid_token"' if error else "")
        assert reply.headers["www-authenticate"] == challenge


async def test_two_tokens_are_none(guarded: Gateway) -> None:
    """Two bearers in one request: whoever looks at the other one must not be fooled."""
    connection = http.client.HTTPConnection(guarded.host, guarded.port, timeout=10)
    connection.putrequest("GET", "/events?subject=user.alice.%3E")
    for _ in range(2):
        connection.putheader("Authorization", f"Bearer {mine()}")
    connection.endheaders()
    response = connection.getresponse()
    assert (response.status, json.loads(response.read())["status"]) == (401, 401)
    connection.close()


async def test_a_huge_token_costs_nothing(guarded: Gateway) -> None:
    """Headers beyond `MAX_HEADER_BYTES` end the request; a message over the limit, the connection."""
    reply = await ask(guarded, bearer("x" * 20_000))
    assert reply.status == 431
    async with ws_client(guarded.ws_url) as ws:
        answer = await ws.request(op="auth", ref=1, token="x" * 8193)
        assert answer["code"] == "bad_request"
        assert "8192" in answer["message"]
        await ws.send(op="auth", ref=2, token="x" * 100_000)
        close, _ = await ws.closed()
        assert close is not None
        assert close.code == 1009


async def test_missing_tokens_are_counted(guarded: Gateway) -> None:
    """A request without a token is a failure by the name `missing`."""
    before = guarded.metrics().total("natsgate_auth_failures_total", reason="missing")
    assert (await ask(guarded, {})).status == 401
    assert guarded.metrics().total("natsgate_auth_failures_total", reason="missing") == before + 1


# WebSocket


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda: mine(exp=int(time.time()) - 60), "token_expired"),
        (lambda: mine(nbf=int(time.time()) + 60), "unauthorized"),
        (lambda: sign(claims(subscribe=MINE), key="x" * 40), "unauthorized"),
        (lambda: "junk", "unauthorized"),
    ],
    ids=["expired", "not yet", "signature", "junk"],
)
async def test_a_page_learns_why(guarded: Gateway, make: Callable[[], str], reason: str) -> None:
    """A page cannot see a handshake's status: it is accepted and closed with 3000, whether the token came with the
    handshake or in the first message."""
    text = make()
    async with ws_client(guarded.ws_url, subprotocols=["natsgate.v1", f"natsgate.bearer.{text}"]) as ws:
        assert ws.hello["authenticated"] is False
        close, ops = await ws.closed()
        assert close is not None
        assert (close.code, close.reason) == (3000, reason)
        assert [(op["op"], op.get("code")) for op in ops] == [("error", "unauthorized"), ("closing", None)]
        assert text not in "".join(ws.texts)
    async with ws_client(guarded.ws_url) as ws:
        await ws.send(op="auth", ref=1, token=text)
        close, ops = await ws.closed()
        assert close is not None
        assert (close.code, close.reason) == (3000, reason)
        assert [(op["op"], op.get("code")) for op in ops] == [("error", "unauthorized"), ("closing", None)]


async def test_nothing_of_a_token_is_logged(guarded: Gateway) -> None:
    """Neither good nor bad tokens, nor their parts, are in the log."""
    good, bad = mine(jti="shibboleth"), sign(claims("sesame"), key="x" * 40)
    await let_in(guarded, good)
    await refused(guarded, bad, "signature")
    await ask(guarded, {}, path=f"/events?subject=user.alice.%3E&access_token={good}&ticket={bad}")
    text = guarded.log_text
    for token_ in (good, bad):
        assert not any(part in text for part in token_.split("."))
    assert SECRET not in text
