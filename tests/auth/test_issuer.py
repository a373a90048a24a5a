"""What is remembered of an issuer, by a clock of the test's own and against a server that can be seen."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from random import Random

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from hypothesis import given
from hypothesis import strategies as st

from gateway.auth.jose import BadKey, key_set
from gateway.auth.jwks import ABSENT_BYTES, FLOOR_S, MAX_DOCUMENT_BYTES, Jwks
from gateway.core.errors import ComeBack
from gateway.logs import logger
from tests.support.eventually import eventually
from tests.support.jwks_server import Answer, JwksServer, whole
from tests.support.tokens import jwk


class Issuer:
    """The keys of a server, and the clock that they go by."""

    def __init__(self, server: JwksServer) -> None:
        self.server = server
        self.now = 1000.0
        self.changes = 0
        self.jwks = Jwks(server.url, random=Random(1), log=logger(), changed=self._changed, now=lambda: self.now)

    def _changed(self) -> None:
        self.changes += 1

    async def names(self, kid: str | None) -> list[str | None]:
        """The names of the keys that a token with this one is held against, after it was asked for anew."""
        return [key.kid for key in await self.jwks.fetched("ES256", kid)]


@pytest.fixture
async def issuer() -> AsyncIterator[Issuer]:
    """An issuer with one key called `a`."""
    async with JwksServer([jwk("ES256", "a")]) as server:
        yield Issuer(server)


async def test_a_floor_between_fetches(issuer: Issuer) -> None:
    """Names that are asked for within `FLOOR_S` of a fetch make none; behind it they do."""
    assert await issuer.names("a") == ["a"]
    issuer.now += FLOOR_S - 0.1
    with pytest.raises(ComeBack):
        await issuer.names("b")
    assert issuer.server.requests == 1
    issuer.server.publish(jwk("ES256", "b"))
    issuer.now += 0.2
    assert await issuer.names("b") == ["b"]
    assert issuer.server.requests == 2
    assert await issuer.names("a") == []  # it has just been told that it is gone
    assert issuer.server.requests == 2


async def test_what_the_issuer_does_not_have(issuer: Issuer) -> None:
    """A name that it was asked for is refused until it is asked again; then it may have come."""
    assert await issuer.names("b") == []
    assert await issuer.names("b") == []
    issuer.server.publish(jwk("ES256", "a"), jwk("ES256", "b"))
    assert await issuer.names("b") == []
    issuer.now += FLOOR_S
    assert await issuer.names("b") == ["b"]
    assert issuer.server.requests == 2


async def test_many_ask_once(issuer: Issuer) -> None:
    """A herd that comes with a new key makes one fetch."""
    assert await asyncio.gather(*(issuer.names("a") for _ in range(100))) == [["a"]] * 100
    assert issuer.server.requests == 1


async def test_one_who_goes_takes_nothing_along(issuer: Issuer) -> None:
    """Somebody who stops waiting does not stop the fetch of the others."""
    issuer.server.answer = issuer.server.hang
    first, second = (asyncio.create_task(issuer.names("a")) for _ in range(2))

    async def is_asked() -> bool:
        return bool(issuer.server.hanging)

    await eventually(is_asked, "the issuer was asked")
    first.cancel()
    issuer.server.let_go()
    with pytest.raises(ComeBack):
        await second
    assert first.cancelled()


async def test_names_are_forgotten(issuer: Issuer) -> None:
    """What is remembered of names that nobody has is bounded."""
    for number in range(40):
        issuer.now += FLOOR_S
        await issuer.names(f"{number}" + "x" * 16_000)
    assert ABSENT_BYTES // 2 < issuer.jwks.absent.bytes <= ABSENT_BYTES


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (whole(b"<html>"), "no JSON"),
        (whole(b"[]"), "no JSON Web Key Set"),
        (whole(b'{"keys":{}}'), "no JSON Web Key Set"),
        (whole(b'{"keys":[]}'), "no key"),
        (whole(b"[" * 100_000), "no JSON"),
        (whole(b" " * MAX_DOCUMENT_BYTES + b"{}"), "larger"),
        (whole(b"", status="500 Oops"), "status 500"),
    ],
)
async def test_nonsense_leaves_the_keys(issuer: Issuer, answer: Answer, said: str) -> None:
    """Whatever it says instead of keys: those of before are kept, and the trouble is told in one short line."""
    await issuer.names("a")
    good = issuer.server.answer
    issuer.server.answer = answer
    issuer.now += FLOOR_S
    with pytest.raises(ComeBack):
        await issuer.names("b")
    assert said in issuer.jwks.trouble
    assert issuer.jwks.trouble.isprintable()
    assert len(issuer.jwks.trouble) < 400
    assert [key.kid for key in issuer.jwks.known("ES256", "a")] == ["a"]
    assert issuer.changes == 1
    issuer.server.answer = good
    issuer.now += FLOOR_S
    await issuer.names("b")
    assert issuer.jwks.trouble == ""
    assert issuer.changes == 1


def test_only_keys_for_signatures_are_taken() -> None:
    """Secrets in public, keys for encryption or for other algorithms, private, weak and broken ones are left out."""
    big = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    small = rsa.generate_private_key(public_exponent=65537, key_size=1024)
    curve = ec.generate_private_key(ec.SECP384R1())
    numbers = curve.public_key().public_numbers()
    document = {
        "keys": [
            {
                "kty": "oct",
                "kid": "secret",
                "alg": "HS256",
                "k": "YS1zZWNyZXQtb2YtYXQtbGVhc3QtMzItYnl0ZXMtZm9yLXRlc3Rz",
            },
            jwk("RS256", "enc", big) | {"use": "enc"},
            jwk("RS256", "ops", big) | {"key_ops": ["encrypt"]},
            jwk("RS256", "ops 2", big) | {"key_ops": 5},
            jwk("RS256", "alg", big) | {"alg": "RS512"},
            jwk("RS256", "small", small),
            jwk("RS256", "private", big) | {"d": "AQAB"},
            jwk("ES256", "x") | {"x": 5},
            jwk("ES256", "point") | {"x": "AAAA"},
            {"kty": "EC", "crv": "P-384", "kid": "curve", "x": str(numbers.x), "y": str(numbers.y)},
            jwk("ES256") | {"kid": 5},
            {"kty": "none"},
            {"kty": []},
            {},
            5,
            None,
            jwk("ES256", "good") | {"use": "sig", "key_ops": ["verify"], "alg": "ES256", "more": {}},
            jwk("EdDSA", "good 2"),
        ]
    }
    assert [(key.algorithm, key.kid) for key in key_set(document)] == [("ES256", "good"), ("EdDSA", "good 2")]


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=5,
)
members = st.sampled_from(["kty", "crv", "x", "y", "n", "e", "d", "p", "alg", "use", "key_ops", "kid", "oth"])
plausible = st.sampled_from(["RSA", "EC", "OKP", "P-256", "Ed25519", "X25519", "AQAB", "AA", "sig", "ES256", "=", "é"])


@given(st.dictionaries(members, plausible | json_values), st.sampled_from(["RS256", "ES256", "EdDSA"]))
def test_any_key_is_taken_or_left_out(changes: dict[str, object], algorithm: str) -> None:
    """Whatever a key of a set says, the set is read: that key is one of ours or left out, and the others stay."""
    keys = key_set({"keys": [changes, jwk(algorithm, "mine") | changes, jwk("ES256", "good")]})
    assert keys[-1].kid == "good"
    assert all(key.algorithm in ("RS256", "ES256", "EdDSA") for key in keys)


@given(json_values)
def test_any_document_is_read_or_refused(document: object) -> None:
    """What is no key set is refused as such."""
    with pytest.raises(BadKey):
        key_set(document)
